//! A document with the catalogue that it names, read and checked together.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::answers::MistakeAnswer;
use super::refusal::Refusal;
use super::watch::Stamp;
use crate::model::network::Network;
use crate::model::{self, Mistakes, TagNames};
use crate::tags::{Catalogue, CatalogueError};

/// A document as it was written.
#[derive(Debug, Clone)]
pub struct Document {
    /// Its file: what its relative paths and the places of mistakes refer to.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Refusal::Failed`] where it cannot be read.
    pub fn read(path: &Path) -> Result<Self, Refusal> {
        let text = fs::read_to_string(path)
            .map_err(|error| Refusal::Failed(format!("cannot read {}: {error}", path.display())))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { path, text })
    }

    /// Where its catalogue is: what the command line says, else what the document says.
    pub(crate) fn catalogue_path(&self, instead: Option<&Path>) -> Option<PathBuf> {
        instead.map(Path::to_owned).or_else(|| model::tags_path(&self.text, &self.path))
    }

    /// Reads the document's catalogue, if there is one.
    ///
    /// # Errors
    /// [`Refusal::Document`], with the place where the document names it.
    pub(crate) fn catalogue(&self, instead: Option<&Path>) -> Result<CatalogueFile, Refusal> {
        let read = CatalogueFile::read(self.catalogue_path(instead));
        read.map(|catalogue| CatalogueFile { is_override: instead.is_some(), ..catalogue }).map_err(|refusal| {
            let message = format!("the catalogue cannot be used: {refusal}");
            let mistake = model::mistake_at_tags(&self.text, message, None);
            refused(&Mistakes { path: self.path.clone(), mistakes: vec![mistake] })
        })
    }

    /// Reads and checks the document against a catalogue.
    ///
    /// # Errors
    /// [`Refusal::Document`] with every mistake.
    pub(crate) fn check(&self, catalogue: &CatalogueFile) -> Result<Network, Refusal> {
        let names = catalogue.path.as_ref().map(|_| &*catalogue.catalogue as &dyn TagNames);
        let mut network = model::parse(&self.text, &self.path, names).map_err(|mistakes| refused(&mistakes))?;
        network.tags = catalogue.path.clone();
        Ok(network)
    }
}

/// A catalogue and the file that it was read from.
#[derive(Debug, Clone)]
pub(crate) struct CatalogueFile {
    /// The catalogue; an empty one where there is no file.
    pub(crate) catalogue: Arc<Catalogue>,
    /// The file.
    pub(crate) path: Option<PathBuf>,
    /// Its state before it was read: what is written while it is read shows as a change.
    pub(crate) stamp: Option<Stamp>,
    /// Whether it stands in for the one that the document names.
    pub(crate) is_override: bool,
}

impl CatalogueFile {
    /// Reads a document's catalogue, if there is one.
    ///
    /// # Errors
    /// [`Refusal::Failed`] where the file cannot be read or is no catalogue.
    pub(crate) fn read(path: Option<PathBuf>) -> Result<Self, Refusal> {
        let Some(path) = path else {
            return Ok(Self { catalogue: Arc::default(), path: None, stamp: None, is_override: false });
        };
        let stamp = Stamp::of(&path).ok();
        let catalogue = Catalogue::load(&path).map_err(refused_catalogue)?;
        Ok(Self { catalogue: Arc::new(catalogue), path: Some(path), stamp, is_override: false })
    }

    /// Its file, if it stands in for the one that a document names: for the next document, too.
    pub(crate) fn overriding(&self) -> Option<&Path> {
        self.path.as_deref().filter(|_| self.is_override)
    }

    /// Whether the file is as it was when it was read.
    pub(crate) fn is_current(&self) -> bool {
        self.stamp_now() == self.stamp
    }

    /// State of the file now; none where there is no file.
    pub(crate) fn stamp_now(&self) -> Option<Stamp> {
        self.path.as_deref().and_then(|path| Stamp::of(path).ok())
    }
}

/// Every mistake as the socket tells it.
fn refused(mistakes: &Mistakes) -> Refusal {
    let list: Vec<MistakeAnswer> = mistakes
        .mistakes
        .iter()
        .map(|mistake| MistakeAnswer {
            line: Some(mistake.line),
            column: Some(mistake.column),
            message: mistake.message.clone(),
            help: mistake.help.clone(),
        })
        .collect();
    let path = mistakes.path.display();
    let summary = match list.len() {
        1 => format!("{path} has a mistake"),
        count => format!("{path} has {count} mistakes"),
    };
    Refusal::Document { summary, mistakes: list }
}

fn refused_catalogue(error: CatalogueError) -> Refusal {
    let text = error.to_string();
    Refusal::Failed(match error.source() {
        Some(cause) => format!("{text}: {cause}"),
        None => text,
    })
}
