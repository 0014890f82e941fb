//! `sidestep denials`: who was denied what by policies and firewalls, and why.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::node::NodeArgs;
use super::{table, write_json};
use crate::control::answers::{DenialAnswer, DenialsAnswer};
use crate::control::client::target;

/// Show who was denied what by endpoint policies and firewalls of services, newest last.
///
/// The node keeps the last thousand, and writes each as a line to its log as well. For Azure SQL the error number is the
/// one that the service gives: 40914 where the subnet has the endpoint and no virtual network rule, 40615 where no rule
/// admits the public address.
#[derive(Debug, Args)]
pub struct DenialsArgs {
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Show this many at most.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub limit: usize,

    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Asks the node.
///
/// # Errors
/// No node answers.
pub fn run(args: &DenialsArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let target = target(&["v1", "denials"], &[("limit", &args.limit.to_string())]);
    let answer: DenialsAnswer = args.node.client().get(&target)?;
    if args.json {
        write_json(out, &answer)?;
    } else {
        out.write_all(text(&answer).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &DenialsAnswer) -> String {
    let mut rows =
        table(["Reason", "Protocol", "From", "Source", "Seen as", "Destination", "Resource", "Name", "Error"]);
    for denial in &answer.denials {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        rows.add_row([
            denial.reason.clone(),
            denial.protocol.clone(),
            denial.ingress.clone(),
            denial.source.clone(),
            seen_as(denial),
            denial.destination.clone(),
            or(&denial.resource),
            denial.name.clone().or_else(|| denial.unnamed.clone()).unwrap_or_else(|| "-".to_owned()),
            denial.error.map_or_else(|| "-".to_owned(), |error| error.to_string()),
        ]);
    }
    let (shown, total, lost) = (answer.denials.len(), answer.total, answer.lost);
    let noun = if total == 1 { "denial" } else { "denials" };
    let lost = if lost == 0 { String::new() } else { format!("; {lost} more were counted and not recorded") };
    match shown {
        0 => format!("{total} {noun}{lost}\n"),
        shown if shown as u64 >= total => format!("{}\n{total} {noun}{lost}\n", rows.trim_fmt()),
        shown => format!("{}\n{shown} of {total} {noun}{lost}\n", rows.trim_fmt()),
    }
}

/// How the service saw the caller: by the identity of a subnet, or by an address.
fn seen_as(denial: &DenialAnswer) -> String {
    match (&denial.identity, &denial.presented) {
        (Some(identity), Some(address)) => format!("{identity} {address}"),
        (None, Some(address)) => address.clone(),
        (_, None) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denial() -> DenialAnswer {
        DenialAnswer {
            time: 1_700_000_000_000,
            reason: "policy_denied".to_owned(),
            text: String::new(),
            protocol: "tcp".to_owned(),
            ingress: "vm1".to_owned(),
            source: "10.1.1.4:40000".to_owned(),
            presented: Some("10.1.1.4".to_owned()),
            identity: Some("spoke/workload".to_owned()),
            destination: "20.60.1.20:443".to_owned(),
            resource: Some("second".to_owned()),
            service: Some("Microsoft.Storage".to_owned()),
            name: Some("second.blob.core.windows.net".to_owned()),
            unnamed: None,
            error: None,
            answered_at: None,
            generation: 3,
        }
    }

    #[test]
    fn a_denial_is_one_line() {
        let public = DenialAnswer {
            reason: "firewall_denied".to_owned(),
            presented: Some("203.0.113.200".to_owned()),
            identity: None,
            resource: Some("sql".to_owned()),
            name: None,
            error: Some(40615),
            ..denial()
        };
        let answer = DenialsAnswer { total: 7, lost: 2, denials: vec![denial(), public] };
        assert_eq!(
            text(&answer),
            "\
Reason           Protocol  From  Source          Seen as                  Destination     Resource  Name                          Error
policy_denied    tcp       vm1   10.1.1.4:40000  spoke/workload 10.1.1.4  20.60.1.20:443  second    second.blob.core.windows.net  -
firewall_denied  tcp       vm1   10.1.1.4:40000  203.0.113.200            20.60.1.20:443  sql       -                             40615
2 of 7 denials; 2 more were counted and not recorded
"
        );
        assert_eq!(text(&DenialsAnswer { total: 0, lost: 0, denials: vec![] }), "0 denials\n");
    }
}
