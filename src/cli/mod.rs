//! The command line: one file per command, and here what they share.
//!
//! A command writes its answer to a writer that it is given, and nothing else to stdout; the log goes to stderr. What a
//! command returns as an error is shown with its causes by [`error_text`].

pub mod apply;
pub mod bench;
pub mod capture;
mod changes;
pub mod check;
pub mod completions;
pub mod demo;
pub mod denials;
pub mod drain;
pub mod endpoint;
pub mod explain;
pub mod flow_log;
pub mod flows;
pub mod help;
pub mod identity;
pub mod lab;
pub mod man;
pub mod next_hop;
mod node;
pub mod nsg;
pub mod routes;
pub mod run;
pub mod status;
pub mod support_bundle;
pub mod tags;
pub mod top;
pub mod trace;
pub mod verify;

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;

/// A userspace packet-forwarding dataplane with the semantics of Azure virtual network service endpoints.
#[derive(Debug, Parser)]
#[command(name = "sidestep", version, max_term_width = 100)]
pub struct Cli {
    /// Log more to stderr; twice for still more. The variable SIDESTEP_LOG holds a finer filter.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put a document in force on a running node, all or nothing.
    Apply(apply::ApplyArgs),
    /// Run what a node is measured against.
    Bench(bench::BenchArgs),
    /// Capture packets of a running node as a pcapng file, with what became of each as its comment.
    Capture(capture::CaptureArgs),
    /// Check a network document: report every mistake with its place and what to write instead.
    Check(check::CheckArgs),
    /// Print the completions of a shell.
    Completions(completions::CompletionsArgs),
    /// Show the forced tunnel and the service endpoint side by side, on a small network of namespaces.
    Demo(demo::DemoArgs),
    /// Show who was denied what by endpoint policies and firewalls of services.
    Denials(denials::DenialsArgs),
    /// Show what flows began, ended and were denied, and which path they took.
    FlowLog(flow_log::FlowLogArgs),

    /// Take no new flows on a running node, before it is taken out of service; those that there are go on.
    Drain(drain::DrainArgs),
    /// Enable or disable a service endpoint on a subnet of a running node.
    Endpoint(endpoint::EndpointArgs),
    /// Explain what becomes of a packet: every stage of the real path and its decision.
    Explain(explain::ExplainArgs),
    /// Show the flows of a running node.
    Flows(flows::FlowsArgs),
    /// Read the addresses that endpoints with `source = "identity6"` present.
    Identity(identity::IdentityArgs),
    /// Write the man pages, one for each command, into a folder.
    Man(man::ManArgs),
    /// Show the next hop of a destination, the route that wins and why the others lost.
    NextHop(next_hop::NextHopArgs),
    /// Show the network security groups of a subnet or NIC, with every effective rule.
    Nsg(nsg::NsgArgs),
    /// Show the effective routes of a subnet, each with why it lost.
    Routes(routes::RoutesArgs),
    /// Forward packets between the devices of a network until SIGTERM or Ctrl-C.
    Run(run::RunArgs),
    /// Show what a running node has in force, its ports, its counters and its last changes.
    Status(status::StatusArgs),
    /// Build or remove the hosts around a network, as network namespaces.
    Lab(lab::LabArgs),
    /// The process that cleans up behind a demo that was killed; `sidestep demo` starts it.
    #[command(hide = true)]
    LabGuard(demo::GuardArgs),
    /// The web server inside a lab's namespace; `sidestep lab up` starts it.
    #[command(hide = true)]
    LabServe(lab::ServeArgs),
    /// Write what a report of a problem should have into one file, without addresses and names.
    SupportBundle(support_bundle::SupportBundleArgs),
    /// Look into the catalogue of service tags.
    Tags(tags::TagsArgs),
    /// Show live which flows are the fastest, and which path each takes.
    Top(top::TopArgs),

    /// Trace real packets through a running node, with the decision of every stage, as they pass.
    Trace(trace::TraceArgs),
    /// Verify whether network security groups let a packet pass, and by which rule.
    Verify(verify::VerifyArgs),
}

/// Runs one command and returns the exit code of the process.
///
/// # Errors
/// Whatever kept the command from answering; [`is_closed_pipe`] tells a reader that went away from a failure.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(Stdout(io::stdout().lock()));
    let code = match &cli.command {
        Command::Apply(args) => apply::run(args, &mut out)?,
        Command::Bench(args) => bench::run(args, &mut out)?,
        Command::Capture(args) => capture::run(args, &mut out)?,
        Command::Check(args) => check::run(args, &mut out)?,
        Command::Completions(args) => {
            completions::run(args, &mut out)?;
            ExitCode::SUCCESS
        }
        Command::Demo(args) => demo::run(args, &mut out)?,
        Command::Denials(args) => denials::run(args, &mut out)?,
        Command::FlowLog(args) => flow_log::run(args, &mut out)?,
        Command::Drain(args) => drain::run(args, &mut out)?,
        Command::Endpoint(args) => endpoint::run(args, &mut out)?,
        Command::Explain(args) => explain::run(args, &mut out)?,
        Command::Flows(args) => flows::run(args, &mut out)?,
        Command::Identity(args) => identity::run(args, &mut out)?,
        Command::Man(args) => {
            man::run(args, &mut out)?;
            ExitCode::SUCCESS
        }
        Command::NextHop(args) => next_hop::run(args, &mut out)?,
        Command::Nsg(args) => nsg::run(args, &mut out)?,
        Command::Routes(args) => routes::run(args, &mut out)?,
        Command::Run(args) => run::run(args, &mut out)?,
        Command::Status(args) => status::run(args, &mut out)?,
        Command::Lab(args) => lab::run(args, &mut out)?,
        Command::LabGuard(args) => demo::run_guard(args)?,
        Command::LabServe(args) => lab::run_serve(args, &mut out)?,
        Command::SupportBundle(args) => support_bundle::run(args, &mut out)?,
        Command::Tags(args) => tags::run(args, &mut out)?,
        Command::Top(args) => top::run(args, &mut out)?,
        Command::Trace(args) => trace::run(args, &mut out)?,
        Command::Verify(args) => verify::run(args, &mut out)?,
    };
    out.flush()?;
    Ok(code)
}

/// An error and its causes, one a line, as they follow `error: `.
pub fn error_text(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  caused by: {cause}");
    }
    text
}

/// Whether an error says only that the reader of our output closed the pipe, as `head` does when it has seen enough.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.get_ref().is_some_and(|inner| inner.is::<ClosedPipe>()))
}

/// Writes a value as indented JSON with a newline at its end.
pub(crate) fn write_json<T: Serialize>(out: &mut dyn Write, value: &T) -> anyhow::Result<()> {
    writeln!(out, "{}", serde_json::to_string_pretty(value)?)?;
    Ok(())
}

/// A table without lines, as wide as its content, so that it can be read by people and by `awk` alike. Write its
/// `trim_fmt()`.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Stdout whose broken pipe can be told from that of a socket.
struct Stdout(io::StdoutLock<'static>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(mark_closed_pipe)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(mark_closed_pipe)
    }
}

/// The mark inside an [`io::Error`] of stdout.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output closed the pipe")]
struct ClosedPipe;

fn mark_closed_pipe(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe { io::Error::new(error.kind(), ClosedPipe) } else { error }
}
