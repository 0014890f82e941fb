//! `sidestep nsg`: the network security groups of a subnet or NIC, with their effective rules.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::routes::{Source, SourceArgs};
use super::{table, write_json};
use crate::control::client::target;
use crate::control::verify;
use crate::plan::nsg::{AzureId, AzureNetworkSecurityGroup, NsgAnswer};

/// Show the network security groups of a subnet or NIC, with every effective rule.
#[derive(Debug, Args)]
pub struct NsgArgs {
    /// The subnet (`spoke/workload`), or a NIC (`vm1`) with its own group and that of its subnet.
    #[arg(value_name = "SUBNET|NIC")]
    pub subject: String,

    /// The network and its catalogue.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Answer in JSON, in the shape of `az network nic list-effective-nsg`: with all addresses of tags.
    #[arg(long)]
    pub json: bool,
}

/// Answers from a document or the running node.
///
/// # Errors
/// The document or its catalogue cannot be used; no node answers; there is no such subnet or NIC; the answer cannot be
/// written.
pub fn run(args: &NsgArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let answer = match args.source.open()? {
        Source::Document(plan) => verify::network_security_groups(&plan, &args.subject)?,
        Source::Node(client) => client.get(&target(&["v1", "nsg"], &[("of", &args.subject)]))?,
    };
    if args.json {
        write_json(out, &answer.azure())?;
    } else {
        show(&answer, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(answer: &NsgAnswer, out: &mut dyn Write) -> anyhow::Result<()> {
    if answer.groups.is_empty() {
        writeln!(out, "{} has no network security group: everything passes", answer.of)?;
    }
    for (place, group) in answer.groups.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        let association = &group.association;
        let whose = [("subnet", &association.subnet), ("NIC", &association.network_interface)];
        for (what, AzureId { id }) in whose.iter().filter_map(|(what, whose)| Some((what, whose.as_ref()?))) {
            writeln!(out, "{}, of the {what} {id}", group.network_security_group.id)?;
        }
        let mut rows = table([
            "Direction",
            "Priority",
            "Access",
            "Protocol",
            "Source",
            "Source Ports",
            "Destination",
            "Destination Ports",
            "Name",
        ]);
        for rule in &group.effective_security_rules {
            rows.add_row([
                &rule.direction,
                &rule.priority.to_string(),
                &rule.access,
                &rule.protocol,
                &addresses(group, &rule.source_address_prefixes, &rule.source_application_security_groups),
                &ports(&rule.source_port_ranges),
                &addresses(group, &rule.destination_address_prefixes, &rule.destination_application_security_groups),
                &ports(&rule.destination_port_ranges),
                &rule.name,
            ]);
        }
        writeln!(out, "{}", rows.trim_fmt())?;
    }
    Ok(())
}

/// Prefixes; tags with the number of their prefixes; application security groups.
fn addresses(group: &AzureNetworkSecurityGroup, prefixes: &[String], groups: &[AzureId]) -> String {
    let written = prefixes.iter().map(|prefix| match group.tag_map.get(prefix) {
        Some(addresses) => format!("{prefix} ({})", addresses.len()),
        None => prefix.clone(),
    });
    written.chain(groups.iter().map(|group| group.id.clone())).collect::<Vec<_>>().join(",")
}

/// `*`, `443`, `1000-2000,3000`
fn ports(ranges: &[String]) -> String {
    let short = |range: &String| match range.split_once('-') {
        Some(("0", "65535")) => "*".to_owned(),
        Some((first, last)) if first == last => first.to_owned(),
        _ => range.clone(),
    };
    ranges.iter().map(short).collect::<Vec<_>>().join(",")
}
