//! Mistakes in a document: what is wrong, where, and what to write instead.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// One mistake in a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Mistake {
    /// Line of the document, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, naming the offending object.
    pub message: String,
    /// What to write instead, where that can be said.
    pub help: Option<String>,
}

/// All mistakes of one document, sorted by place. Shown, it is one block for each mistake:
///
/// ```text
/// network.toml:12:5: error: unknown route table `to-onprem`
///   help: there is one named `to-on-premises`
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Mistakes {
    /// The document.
    pub path: PathBuf,
    /// At least one mistake.
    pub mistakes: Vec<Mistake>,
}

impl Mistakes {
    /// Adds a mistake and keeps the order.
    pub fn add(&mut self, mistake: Mistake) {
        self.mistakes.push(mistake);
        self.mistakes.sort();
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            let Mistake { line, column, message, help } = mistake;
            let path = self.path.display();
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{path}:{line}:{column}: error: {message}")?;
            if let Some(help) = help {
                write!(f, "\n  help: {help}")?;
            }
        }
        Ok(())
    }
}

/// Collects mistakes while a document is read and checked. Places are byte ranges of the text.
#[derive(Debug)]
pub(super) struct Report<'d> {
    text: &'d str,
    found: RefCell<BTreeSet<Mistake>>,
}

impl<'d> Report<'d> {
    /// An empty report on a document's text.
    pub(super) fn new(text: &'d str) -> Self {
        Self { text, found: RefCell::default() }
    }

    /// Adds a mistake.
    pub(super) fn mistake(&self, place: &Range<usize>, message: impl Into<String>) {
        self.add(place, message.into(), None);
    }

    /// Adds a mistake with a suggestion.
    pub(super) fn mistake_with_help(&self, place: &Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.add(place, message.into(), Some(help.into()));
    }

    /// Adds a mistake whose suggestion may be missing.
    pub(super) fn add(&self, place: &Range<usize>, message: String, help: Option<String>) {
        let (line, column) = self.place(place);
        self.found.borrow_mut().insert(Mistake { line, column, message, help });
    }

    /// Line and column of the start of a place.
    pub(super) fn place(&self, place: &Range<usize>) -> (usize, usize) {
        let before = self.text.get(..place.start).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before[start..].chars().count() + 1)
    }

    /// The line of a place.
    pub(super) fn line(&self, place: &Range<usize>) -> usize {
        self.place(place).0
    }

    /// Ends a part of the check.
    ///
    /// # Errors
    /// With the mistakes so far, if there are any.
    pub(super) fn finish(&self, path: &Path) -> Result<(), Mistakes> {
        let mistakes: Vec<Mistake> = self.found.take().into_iter().collect();
        if mistakes.is_empty() { Ok(()) } else { Err(Mistakes { path: path.to_owned(), mistakes }) }
    }
}
