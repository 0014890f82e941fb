//! `sidestep run`: forwards packets until it is told to stop.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::node::{NodeArgs, mistakes_text};
use crate::control::answers::{Counters, PortStatus};
use crate::control::flow_log::FlowLogOptions;
use crate::control::monitor;
use crate::control::node::Overrides;
use crate::control::page;
use crate::control::refusal::Refusal;
use crate::control::run::{self, RunError, RunOptions};
use crate::model::network::IoMode;
use crate::telemetry::ipfix::Address;

/// Forward packets between the devices of a network until SIGTERM or Ctrl-C.
///
/// Prints one line for each device and then `ready`. Needs CAP_NET_ADMIN, and /dev/net/tun for TUN devices; CAP_SYS_ADMIN
/// for devices in other namespaces, CAP_NET_RAW for Ethernet ones. Drops all other privileges, and these but in the
/// thread that opens devices. Exits with 0 when it is told to stop, and with 1 if it could not start.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The network document.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,

    /// Catalogue of service tags to use instead of the one that the document names.
    #[arg(long, value_name = "FILE")]
    pub tags: Option<PathBuf>,

    /// How TUN devices are opened, instead of what the document says.
    #[arg(long, value_name = "MODE")]
    pub io: Option<Io>,

    /// How many workers forward packets, instead of what the document says.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: Option<u16>,

    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Tell metrics at /metrics, in the text format of Prometheus, and health at /health and /ready, over HTTP. Without an
    /// address they are told on loopback; whoever can reach another one can read them.
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, default_missing_value = monitor::DEFAULT_ADDRESS)]
    pub metrics: Option<SocketAddr>,

    /// Write flow logs in the format of Azure's virtual network flow logs, version 4, below this folder: a PT1H.json for each
    /// hour and NIC.
    #[arg(long, value_name = "FOLDER")]
    pub flow_log: Option<PathBuf>,

    /// Log the flows of this virtual network, subnet (NETWORK/SUBNET) or NIC, together. May be given more than once; without
    /// it every subnet has a log of its own.
    #[arg(long, value_name = "TARGET", requires = "flow_log")]
    pub flow_log_target: Vec<String>,

    /// Write flow logs this often, in seconds. Azure collects once a minute.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub flow_log_interval: u64,

    /// Delete flow logs that are older than so many days; 0 keeps them for ever. Only files in the folders of flow logs with
    /// the names of flow logs are deleted, whoever wrote them.
    #[arg(long, value_name = "DAYS", requires = "flow_log", value_parser = clap::value_parser!(u32).range(0..=365))]
    pub flow_log_retention: Option<u32>,

    /// Tell flows and translations to this IPFIX collector, over UDP or, with tcp: before it, TCP. The port is 4739 if
    /// there is none.
    #[arg(long, value_name = "[tcp:]ADDRESS[:PORT]")]
    pub ipfix: Option<Address>,

    /// Show the node at work on a page in the browser, where endpoints can be switched, too. Its URL is printed; who has it may
    /// do both. Loopback addresses only.
    #[arg(long, value_name = "ADDRESS:PORT", num_args = 0..=1, default_missing_value = page::DEFAULT_ADDRESS)]
    pub page: Option<SocketAddr>,

    /// Survive a restart: devices stay when the process ends, and are taken over when it starts; flows are saved to this
    /// file at the end and restored from it at the start.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,

    /// Keep no privilege once the devices are open: a document that adds or changes a device is refused then, and takes a
    /// restart. Without it one thread keeps what opening devices takes.
    #[arg(long)]
    pub drop_all_privileges: bool,

    /// End when stdin closes, too: with the process that started this one.
    #[arg(long)]
    pub exit_with_stdin: bool,
}

/// How TUN devices are opened.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Io {
    /// With segmentation offload; falls back aloud.
    Offload,
    /// One packet, one frame.
    Plain,
}

impl From<Io> for IoMode {
    fn from(io: Io) -> Self {
        match io {
            Io::Offload => Self::Offload,
            Io::Plain => Self::Plain,
        }
    }
}

/// Runs a node to its end.
///
/// # Errors
/// What kept it from starting. Mistakes of the document are shown on stderr as `check` shows them.
pub fn run(args: &RunArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let options = RunOptions {
        config: args.config.clone(),
        overrides: Overrides { tags: args.tags.clone(), io: args.io.map(Into::into), workers: args.workers },
        control: args.node.control.clone(),
        metrics: args.metrics,
        flow_log: FlowLogOptions {
            folder: args.flow_log.clone(),
            targets: args.flow_log_target.clone(),
            interval: Duration::from_secs(args.flow_log_interval),
            retention: args.flow_log_retention.filter(|days| *days > 0),
            collector: args.ipfix.clone(),
        },
        page: args.page,
        end_with_stdin: args.exit_with_stdin,
        state: args.state.clone(),
        drop_all_privileges: args.drop_all_privileges,
    };
    let result = run::run(options, |node, socket, places| {
        for port in node.ports() {
            writeln!(out, "{}", port_line(&port))?;
        }
        writeln!(out, "control socket {}", socket.path().display())?;
        if let Some(address) = places.metrics {
            writeln!(out, "metrics http://{address}/metrics")?;
        }
        if let Some(url) = &places.page {
            writeln!(out, "page {url}")?;
        }
        writeln!(out, "ready")?;
        out.flush()
    });
    match result {
        Ok(counters) => {
            eprintln!("{}", summary(&counters));
            Ok(ExitCode::SUCCESS)
        }
        Err(RunError::Refused(Refusal::Document { mistakes, .. })) => {
            eprintln!("{}", mistakes_text(&args.config, &mistakes));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

/// `vm1: nic, eth0 in namespace vm1, offload tcp4 tcp6`.
fn port_line(port: &PortStatus) -> String {
    let place = match &port.netns {
        Some(netns) => format!("{} in namespace {netns}", port.interface),
        None => port.interface.clone(),
    };
    // The ports of edges are called what they are.
    let kind = if port.name == port.kind { String::new() } else { format!("{}, ", port.kind) };
    format!("{}: {kind}{place}, {}", port.name, port.io)
}

/// What a node did in its life, for the last line of its log.
fn summary(counters: &Counters) -> String {
    let Counters { received, forwarded, generated, flows_created, .. } = counters;
    let sum = |values: &std::collections::BTreeMap<String, u64>| values.values().sum::<u64>();
    let (answered, dropped) = (sum(&counters.answered), sum(&counters.dropped));
    let mut text = format!(
        "received {received} packets: forwarded {forwarded}, answered {answered}, dropped {dropped}; made {generated}; \
         {flows_created} flows"
    );
    for (what, values) in [("answered", &counters.answered), ("dropped", &counters.dropped)] {
        for (reason, count) in values {
            text.push_str(&format!("\n  {what} {reason} {count}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_one_line() {
        let mut port = PortStatus {
            name: "vm1".to_owned(),
            kind: "nic".to_owned(),
            interface: "eth0".to_owned(),
            netns: Some("vm1".to_owned()),
            io: "offload tcp4 tcp6".to_owned(),
        };
        assert_eq!(port_line(&port), "vm1: nic, eth0 in namespace vm1, offload tcp4 tcp6");
        port = PortStatus { name: "gateway".to_owned(), kind: "gateway".to_owned(), netns: None, ..port };
        assert_eq!(port_line(&port), "gateway: eth0, offload tcp4 tcp6");
    }

    #[test]
    fn the_summary_names_every_reason() {
        let counters = Counters {
            received: 10,
            forwarded: 6,
            answered: [("time_exceeded".to_owned(), 1)].into(),
            dropped: [("no_route".to_owned(), 1), ("spoofed_source".to_owned(), 2)].into(),
            generated: 1,
            flows_created: 3,
            ..Counters::default()
        };
        assert_eq!(
            summary(&counters),
            "received 10 packets: forwarded 6, answered 1, dropped 3; made 1; 3 flows\n  answered time_exceeded 1\n  \
             dropped no_route 1\n  dropped spoofed_source 2"
        );
    }
}
