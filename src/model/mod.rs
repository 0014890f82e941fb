//! The declared network: what the operator wrote, and its validation.
//!
//! [`parse`] reads a document and checks it; [`network`] holds the validated types, the only input of compilation
//! (`plan`). Mistakes in a document are collected, not raised one by one: [`Mistakes`] has them all, each with its
//! place and, where it can be said, what to write instead. [`places`] has the places of what is no mistake.

mod check;
mod document;
mod mistake;
mod names;
pub mod network;
pub mod places;
mod quantity;
mod read;
pub mod services;

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use document::Document;
use mistake::Report;
pub use mistake::{Mistake, Mistakes};
use network::Network;

/// What the check asks of a catalogue of service tags.
pub trait TagNames {
    /// Whether there is a tag of exactly this name.
    fn contains(&self, name: &str) -> bool;

    /// The tag whose name is nearest to a mistyped one, if any is near.
    fn nearest(&self, name: &str) -> Option<String>;

    /// Whether routes may use the tag: the catalogue's `networkFeatures` allow `UDR`.
    fn usable_in_routes(&self, name: &str) -> bool;

    /// Whether security rules may use the tag: the catalogue's `networkFeatures` allow `NSG`. True where that is not known.
    fn usable_in_rules(&self, _name: &str) -> bool {
        true
    }

    /// Whether a global tag has a variant for a region (`Storage` and `westeurope`). True where that is not known, and
    /// for tags that have no regional variants at all.
    fn has_regional(&self, _name: &str, _location: &str) -> bool {
        true
    }

    /// The region that a mistyped one probably is. None for regions that the catalogue knows, and for those that are
    /// like none of them: a small catalogue does not list every region.
    fn mistyped_region(&self, _location: &str) -> Option<String> {
        None
    }
}

/// Reads and checks a document. `path` is its file: shown with mistakes, and its folder is what relative paths in the
/// document are relative to. Without `tags`, names of tags are not looked up; then they are mistakes only if the
/// document names no catalogue either.
///
/// # Errors
/// Every mistake of the document, sorted by place. A document that is not TOML is reported for that alone.
pub fn parse(text: &str, path: &Path, tags: Option<&dyn TagNames>) -> Result<Network, Mistakes> {
    let report = Report::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        report.mistake(&error.span().unwrap_or(0..0), error.message());
    }
    report.finish(path)?;
    let document = Document::read(table.get_ref(), &report);
    let network = check::check(&document, folder(path), tags, &report);
    report.finish(path).map(|()| network)
}

/// The path of the catalogue that a document names, resolved against the document's folder. Found even if the rest of
/// the document is wrong.
pub fn tags_path(text: &str, path: &Path) -> Option<PathBuf> {
    let (table, _) = DeTable::parse_recoverable(text);
    let tags = table.get_ref().get("tags")?.get_ref().as_str()?;
    (!tags.is_empty()).then(|| folder(path).join(tags))
}

/// A mistake at the place where a document names its catalogue: for a catalogue that cannot be used.
pub fn mistake_at_tags(text: &str, message: String, help: Option<String>) -> Mistake {
    let (table, _) = DeTable::parse_recoverable(text);
    let place = table.get_ref().get("tags").map_or(0..0, toml::Spanned::span);
    let (line, column) = Report::new(text).place(&place);
    Mistake { line, column, message, help }
}

/// The folder of a document.
fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

#[cfg(test)]
mod tests;
