//! The `sidestep` command: parse arguments, start logging, run one command.

use std::env::{self, VarError};
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::FromArgMatches;
use sidestep::cli::{self, Cli, help};
use sidestep::telemetry::recent;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The variable that holds a filter in the language of `tracing-subscriber`, and wins over `--verbose`.
const LOG_VARIABLE: &str = "SIDESTEP_LOG";

fn main() -> ExitCode {
    let matches = help::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match start_logging(cli.verbose).and_then(|()| cli::run(cli)) {
        Ok(code) => code,
        Err(error) if cli::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever had the other end may be gone.
            let _ = writeln!(io::stderr(), "error: {}", cli::error_text(&error));
            ExitCode::FAILURE
        }
    }
}

/// Sends the log to stderr, so that stdout holds nothing but the answer of the command. The newest warnings are kept, too,
/// whatever the filter says: a support bundle has them.
fn start_logging(verbose: u8) -> anyhow::Result<()> {
    let filter = match env::var(LOG_VARIABLE) {
        Ok(filter) => filter,
        Err(VarError::NotPresent) => default_filter(verbose).to_owned(),
        Err(error @ VarError::NotUnicode(_)) => return Err(error).context(LOG_VARIABLE),
    };
    let filter = EnvFilter::try_new(&filter).with_context(|| format!("{LOG_VARIABLE}: {filter:?} is no log filter"))?;
    let log = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_filter(filter);
    tracing_subscriber::registry().with(log).with(recent::Layer.with_filter(LevelFilter::WARN)).init();
    Ok(())
}

/// What is logged when the environment does not say: our own lines one level lower than those of libraries.
fn default_filter(verbose: u8) -> &'static str {
    match verbose {
        0 => "warn,sidestep=info",
        1 => "info,sidestep=debug",
        _ => "debug,sidestep=trace",
    }
}
