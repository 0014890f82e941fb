//! What the commands share that talk to a running node.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::write_json;
use crate::control::answers::{ErrorAnswer, MistakeAnswer};
use crate::control::client::{Client, ClientError};
use crate::control::socket::{SOCKET_VARIABLE, location};

/// Which node is asked.
#[derive(Debug, Clone, Default, Args)]
pub struct NodeArgs {
    /// Control socket of the node, if not /run/sidestep/sidestep.sock.
    #[arg(long, value_name = "SOCKET", env = SOCKET_VARIABLE)]
    pub control: Option<PathBuf>,
}

impl NodeArgs {
    /// A client of that node.
    pub(crate) fn client(&self) -> Client {
        Client::new(&location(self.control.as_deref(), None))
    }
}

/// Shows the mistakes of a document that was refused, as `check` does; any other error is passed on.
pub(crate) fn refused_document(
    error: ClientError,
    path: &Path,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<ExitCode> {
    match error {
        ClientError::Refused { answer, .. } if json => {
            write_json(out, &answer)?;
            Ok(ExitCode::FAILURE)
        }
        ClientError::Refused { answer: ErrorAnswer { mistakes, .. }, .. } if !mistakes.is_empty() => {
            eprintln!("{}", mistakes_text(path, &mistakes));
            Ok(ExitCode::FAILURE)
        }
        error => Err(error.into()),
    }
}

/// Mistakes as `check` shows them.
pub(crate) fn mistakes_text(path: &Path, mistakes: &[MistakeAnswer]) -> String {
    let path = path.display();
    let mut text = String::new();
    for MistakeAnswer { line, column, message, help } in mistakes {
        text.push_str(&format!("{path}:{}:{}: error: {message}\n", line.unwrap_or(1), column.unwrap_or(1)));
        if let Some(help) = help {
            text.push_str(&format!("  help: {help}\n"));
        }
    }
    let noun = if mistakes.len() == 1 { "mistake" } else { "mistakes" };
    text.push_str(&format!("{path}: {} {noun}", mistakes.len()));
    text
}
