//! `sidestep verify`: whether network security groups let a packet pass, and by which rule.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::routes::{Source, SourceArgs};
use super::{table, write_json};
use crate::control::answers::VerifyQuery;
use crate::control::client::target;
use crate::control::verify::{self, GroupRuling, VerifyAnswer};

/// Verify whether network security groups let a packet pass, and by which rule.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Who sends. Outbound: a NIC, or a subnet (NETWORK/SUBNET), which stands for its first NIC. Inbound: an address, a
    /// NIC, or a service by its name or a host name.
    #[arg(long, value_name = "NAME|ADDRESS")]
    pub from: String,

    /// Who gets it: the other way round.
    #[arg(long, value_name = "NAME|ADDRESS")]
    pub to: String,

    /// inbound or outbound, seen from the NIC whose groups are asked.
    #[arg(long)]
    pub direction: String,

    /// tcp, udp, icmp, another protocol's name or its number.
    #[arg(long, default_value = "tcp")]
    pub protocol: String,

    /// Destination port; 443 if not given.
    #[arg(long)]
    pub port: Option<u16>,

    /// Port of the NIC: the source port outbound, the destination port inbound.
    #[arg(long, value_name = "PORT")]
    pub local_port: Option<u16>,

    /// Port of the other side.
    #[arg(long, value_name = "PORT")]
    pub remote_port: Option<u16>,

    /// The network and its catalogue.
    #[command(flatten)]
    pub source: SourceArgs,

    /// Answer in JSON: the fields of `az network watcher test-ip-flow`, and what each group says.
    #[arg(long)]
    pub json: bool,
}

/// Answers from a document or the running node.
///
/// # Errors
/// The document or its catalogue cannot be used; no node answers; names, direction, protocol or ports are wrong; the
/// answer cannot be written.
pub fn run(args: &VerifyArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let query = VerifyQuery {
        from: args.from.clone(),
        to: args.to.clone(),
        direction: args.direction.clone(),
        protocol: args.protocol.clone(),
        port: args.port,
        local_port: args.local_port,
        remote_port: args.remote_port,
    };
    let answer = match args.source.open()? {
        Source::Document(plan) => verify::verify(&plan, &plan.compile(1, None)?, &query)?,
        Source::Node(client) => {
            let ports = [("port", query.port), ("local_port", query.local_port), ("remote_port", query.remote_port)];
            let ports = ports.map(|(name, port)| (name, port.map(|port| port.to_string())));
            let mut parts = vec![
                ("from", &*query.from),
                ("to", &*query.to),
                ("direction", &*query.direction),
                ("protocol", &*query.protocol),
            ];
            parts.extend(ports.iter().filter_map(|(name, port)| Some((*name, port.as_deref()?))));
            client.get(&target(&["v1", "verify"], &parts))?
        }
    };
    if args.json {
        write_json(out, &answer)?;
    } else {
        show(&answer, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(answer: &VerifyAnswer, out: &mut dyn Write) -> anyhow::Result<()> {
    let VerifyAnswer { access, direction, protocol, nic, subnet, local, remote, .. } = answer;
    let by = match (&answer.rule_name, answer.groups.is_empty()) {
        (Some(rule), _) => format!(" by {rule}"),
        (None, true) => format!(", for neither {nic} nor {subnet} has a network security group"),
        (None, false) => ", for the address is one of the platform and no rule is about it".to_owned(),
    };
    let arrow = if direction == "Inbound" { "from" } else { "to" };
    writeln!(out, "{access}{by}: {direction} {protocol}, {nic} {local} {arrow} {remote}")?;
    if answer.groups.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut rows = table(["Asked", "Group", "Access", "Priority", "Rule"]);
    for group in &answer.groups {
        rows.add_row(row(group, answer));
    }
    writeln!(out, "{}", rows.trim_fmt())?;
    Ok(())
}

fn row(group: &GroupRuling, answer: &VerifyAnswer) -> [String; 5] {
    let whose = if group.association == "subnet" { &answer.subnet } else { &answer.nic };
    [
        whose.clone(),
        group.network_security_group.clone(),
        group.access.clone().unwrap_or_else(|| "not asked".to_owned()),
        group.priority.map_or_else(|| "-".to_owned(), |priority| priority.to_string()),
        group.rule_name.clone().unwrap_or_else(|| "-".to_owned()),
    ]
}
