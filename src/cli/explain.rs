//! `sidestep explain`: every stage of a packet's path and its decision.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::routes::{Source, SourceArgs};
use super::write_json;
use crate::control::answers::ExplainQuery;
use crate::control::client::target;
use crate::control::explain::{self, ExplainAnswer, PacketVerdict};
use crate::plan::explain::RouteChoice;

/// Explain what becomes of a packet: every stage of the real path, its decision, and the routes that lost.
///
/// Asks a document with -c, and the running node without.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The NIC that sends, or a subnet (NETWORK/SUBNET), which stands for its first NIC.
    #[arg(long, value_name = "NIC|SUBNET")]
    pub from: String,

    /// Where the packet goes: an address, or a host name that the document gives to a service.
    #[arg(long, value_name = "ADDRESS|HOSTNAME")]
    pub to: String,

    /// tcp, udp, icmp, another protocol's name or its number.
    #[arg(long, default_value = "tcp")]
    pub protocol: String,

    /// Destination port of TCP and UDP; 443 if not given.
    #[arg(long)]
    pub port: Option<u16>,

    /// Who is asked.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Asks the document or the node.
///
/// # Errors
/// The document cannot be read, no node answers, or names and protocol are unknown.
pub fn run(args: &ExplainArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let query =
        ExplainQuery { from: args.from.clone(), to: args.to.clone(), protocol: args.protocol.clone(), port: args.port };
    let answer = match args.source.open()? {
        Source::Document(plan) => explain::explain(&plan, &plan.compile(1, None)?, &query)?,
        Source::Node(client) => {
            let port = query.port.map(|port| port.to_string());
            let mut parts = vec![("from", &*query.from), ("to", &*query.to), ("protocol", &*query.protocol)];
            parts.extend(port.as_deref().map(|port| ("port", port)));
            client.get(&target(&["v1", "explain"], &parts))?
        }
    };
    if args.json {
        write_json(out, &answer)?;
    } else {
        out.write_all(text(&answer).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &ExplainAnswer) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "{} {} -> {} from {} ({}), generation {}",
        answer.protocol, answer.source, answer.destination, answer.nic, answer.subnet, answer.generation
    );
    let width = answer.stages.iter().map(|stage| stage.stage.len()).max().unwrap_or(0);
    for stage in &answer.stages {
        let _ = writeln!(text, "  {:<width$}  {}", stage.stage, stage.decision);
        for detail in &stage.details {
            let _ = writeln!(text, "  {:<width$}    {detail}", "");
        }
    }
    let next_hop = &answer.next_hop;
    let _ = writeln!(text, "routes");
    match &next_hop.route {
        Some(route) => {
            let _ = writeln!(text, "  won   {}", route_text(route));
        }
        None => {
            let _ = writeln!(text, "  none matches");
        }
    }
    for candidate in &next_hop.candidates {
        let _ = writeln!(text, "  lost  {}: {}", route_text(&candidate.route), candidate.reason);
    }
    let _ = match &answer.verdict {
        PacketVerdict::Forwarded { port, next_hop_type, source_seen } => {
            writeln!(text, "verdict: sent to {port} ({next_hop_type}), which sees {source_seen}")
        }
        PacketVerdict::Dropped { reason, text: sentence } => writeln!(text, "verdict: dropped, {reason}: {sentence}"),
    };
    if answer.draining {
        let _ = writeln!(
            text,
            "the node drains: until `sidestep drain --end` it drops what begins a flow, this packet, too"
        );
    }
    text
}

/// `User 0.0.0.0/0 VirtualNetworkGateway (default)`.
fn route_text(route: &RouteChoice) -> String {
    let mut text = format!("{} {} {}", route.source, route.address_prefix, route.next_hop_type);
    if !route.next_hop_ip_address.is_empty() {
        let _ = write!(text, " {}", route.next_hop_ip_address);
    }
    let names: Vec<&str> =
        [&route.name, &route.service, &route.service_tag].into_iter().filter_map(Option::as_deref).collect();
    if !names.is_empty() {
        let _ = write!(text, " ({})", names.join(", "));
    }
    text
}
