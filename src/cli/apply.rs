//! `sidestep apply`: puts a whole document in force on a running node.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::node::{NodeArgs, refused_document};
use super::{changes, write_json};
use crate::control::answers::DocumentAnswer;
use crate::control::client::target;

/// Put a document in force on a running node, all or nothing.
///
/// Exits with 1 if the document is refused; then nothing has changed, and every mistake is shown.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// The network document.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// Show what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Sends the document.
///
/// # Errors
/// The document cannot be read, no node answers, or it refuses for another reason than the document's mistakes.
pub fn run(args: &ApplyArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let shown = args.config.display();
    let text = fs::read_to_string(&args.config).with_context(|| format!("{shown}: cannot be read"))?;
    let path = std::path::absolute(&args.config).with_context(|| format!("{shown}: has no absolute path"))?;
    let path = path.to_str().with_context(|| format!("{shown}: the path is not UTF-8"))?;
    let dry_run = if args.dry_run { "true" } else { "false" };
    let target = target(&["v1", "document"], &[("path", path), ("dry_run", dry_run)]);
    match args.node.client().put::<DocumentAnswer>(&target, text) {
        Ok(answer) if args.json => write_json(out, &answer)?,
        Ok(answer) => out.write_all(changes::document(&answer).as_bytes())?,
        Err(error) => return refused_document(error, &args.config, args.json, out),
    }
    Ok(ExitCode::SUCCESS)
}
