//! Why the node does not do what it was asked.

use super::answers::{ErrorAnswer, MistakeAnswer};

/// A refusal. Nothing has changed where one is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The question makes no sense as it is written.
    #[error("{0}")]
    Malformed(String),
    /// The question names something that the network does not have.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be done as things are.
    #[error("{0}")]
    Conflict(String),
    /// The document is refused.
    #[error("{summary}")]
    Document {
        /// In one line.
        summary: String,
        /// Every mistake, in the order of the document.
        mistakes: Vec<MistakeAnswer>,
    },
    /// A device or a file failed.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    /// The HTTP status code.
    pub fn status(&self) -> u16 {
        match self {
            Self::Malformed(_) => 400,
            Self::Unknown(_) => 404,
            Self::Conflict(_) => 409,
            Self::Document { .. } => 422,
            Self::Failed(_) => 500,
        }
    }

    /// The error with every mistake, in one line, for logs.
    pub fn full_text(&self) -> String {
        let mut text = self.to_string();
        if let Self::Document { mistakes, .. } = self {
            for mistake in mistakes {
                text.push_str("; ");
                if let Some(line) = mistake.line {
                    text.push_str(&format!("line {line}: "));
                }
                text.push_str(&mistake.message);
            }
        }
        text
    }

    /// As JSON.
    pub fn answer(&self) -> ErrorAnswer {
        let mistakes = match self {
            Self::Document { mistakes, .. } => mistakes.clone(),
            _ => Vec::new(),
        };
        ErrorAnswer { error: self.to_string(), mistakes }
    }
}
