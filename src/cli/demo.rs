//! `sidestep demo`: the forced tunnel and the service endpoint, measured side by side.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::run::Io;
use super::write_json;
use crate::lab::demo::{self, DemoError, Options, Report};

/// Build a small network of namespaces, measure the same traffic through the forced tunnel and through the service
/// endpoint, and compare. Needs root. Takes about twenty seconds and leaves nothing behind.
///
/// Exits with 0 when everything is as it should be.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Use this catalogue of service tags (Azure's weekly file works unchanged): the service gets an address in one of
    /// its prefixes.
    #[arg(long, value_name = "FILE")]
    pub tags: Option<PathBuf>,

    /// How TUN devices are opened.
    #[arg(long, value_name = "MODE")]
    pub io: Option<Io>,

    /// Write a page about the run to this file, to be shown to others: one HTML file that needs nothing else, with both
    /// paths, throughput and latency over time, and the moment of the switch.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,

    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of the process that cleans up behind a demo that was killed.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Name of the lab.
    #[arg(long)]
    pub name: String,
}

/// Runs the demo.
///
/// # Errors
/// [`DemoError`]; what was measured is shown before an error about it.
pub fn run(args: &DemoArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let options = Options { tags: args.tags.clone(), io: args.io.map(Into::into), report: args.report.clone() };
    match demo::run(&options, &mut io::stderr()) {
        Ok(report) => {
            show(&report, args.json, out)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(DemoError::Failed { report, failures }) => {
            show(&report, args.json, out)?;
            out.flush()?;
            Err(DemoError::Failed { report, failures }.into())
        }
        Err(error) => match error.interrupted() {
            Some(interrupted) => {
                // The terminal may be what went away.
                let _ = writeln!(io::stderr(), "{interrupted}; nothing is left behind");
                Ok(ExitCode::from(interrupted.exit_code()))
            }
            None => Err(error.into()),
        },
    }
}

/// Waits for the end of a demo and cleans up behind it.
///
/// # Errors
/// What cannot be removed.
pub fn run_guard(args: &GuardArgs) -> anyhow::Result<ExitCode> {
    demo::guard(&args.name)?;
    Ok(ExitCode::SUCCESS)
}

fn show(report: &Report, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        return write_json(out, report);
    }
    write!(out, "{}", report.text())?;
    Ok(())
}
