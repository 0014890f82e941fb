//! `sidestep next-hop`: where packets to a destination go, by which route, and why the other routes lost.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::routes::{Source, SourceArgs};
use super::{table, write_json};
use crate::control::client::target;
use crate::control::explain;
use crate::plan::explain::{NextHopAnswer, RouteChoice, protocol_name};

/// Show the next hop of a destination, the route that wins and why the others lost.
#[derive(Debug, Args)]
pub struct NextHopArgs {
    /// The subnet (`spoke/workload`), or a NIC in it (`vm1`), that sends.
    #[arg(long, value_name = "SUBNET|NIC")]
    pub from: String,

    /// The destination: an address, or a host name of a service of the document.
    #[arg(long, value_name = "ADDRESS|NAME")]
    pub to: String,

    /// The IP protocol, by name or number.
    #[arg(long, default_value = "tcp")]
    pub protocol: String,

    /// The network and its catalogue.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Answer in JSON: the fields of `az network watcher show-next-hop`, the route that wins, and the candidates that
    /// lost.
    #[arg(long)]
    pub json: bool,
}

/// Answers from a document or the running node.
///
/// # Errors
/// No node answers; the document or its catalogue cannot be used; there is no such subnet, NIC or destination; the answer cannot be
/// written.
pub fn run(args: &NextHopArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let answer = match args.source.open()? {
        Source::Document(plan) => explain::next_hop(&plan, &args.from, &args.to, Some(&args.protocol))?,
        Source::Node(client) => {
            let query = [("from", &*args.from), ("to", &*args.to), ("protocol", &*args.protocol)];
            client.get(&target(&["v1", "next-hop"], &query))?
        }
    };
    show(&answer, args.json, out)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes an answer, wherever it comes from.
///
/// # Errors
/// It cannot be written.
pub(crate) fn show(answer: &NextHopAnswer, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    if json {
        return write_json(out, answer);
    }
    let protocol = protocol_name(answer.protocol);
    writeln!(out, "{} to {}, {protocol}: {}", answer.from, answer.to, next_hop(answer))?;
    match &answer.route {
        Some(route) => writeln!(out, "  route  {}, {}", name(route), answer.route_table_id)?,
        None => writeln!(out, "  route  none")?,
    }
    let source = answer.route.as_ref().and_then(|route| route.endpoint_source.as_deref());
    if let Some(source) = source.filter(|source| *source != "private") {
        writeln!(out, "  source {source}")?;
    }
    match (&answer.port, &answer.unroutable) {
        (Some(port), _) => writeln!(out, "  port   {port}")?,
        (None, Some(reason)) => writeln!(out, "  drop   {reason}")?,
        (None, None) => {}
    }
    if answer.candidates.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut rows = table(["Source", "Address Prefix", "Next Hop Type", "Next Hop IP", "Name", "Why it lost"]);
    for candidate in &answer.candidates {
        let route = &candidate.route;
        let name = [&route.name, &route.service].into_iter().flatten().next();
        let address = Some(route.next_hop_ip_address.as_str()).filter(|address| !address.is_empty());
        rows.add_row([
            route.source.as_str(),
            &route.address_prefix,
            &route.next_hop_type,
            address.unwrap_or("-"),
            name.map_or("-", String::as_str),
            &candidate.reason,
        ]);
    }
    writeln!(out, "{}", rows.trim_fmt())?;
    Ok(())
}

/// `VirtualAppliance 10.0.100.4`
fn next_hop(answer: &NextHopAnswer) -> String {
    format!("{} {}", answer.next_hop_type, answer.next_hop_ip_address).trim_end().to_owned()
}

/// `User default 0.0.0.0/0`, `Default Microsoft.Storage 20.60.0.0/16`
fn name(route: &RouteChoice) -> String {
    let tag = route.service_tag.as_ref().map(|tag| format!("({tag})"));
    let name = [&route.name, &route.service].into_iter().flatten().next();
    let parts = [Some(&route.source), name, Some(&route.address_prefix), tag.as_ref()];
    parts.into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
}
