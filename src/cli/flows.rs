//! `sidestep flows`: conversations that a running node has decided.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::node::NodeArgs;
use super::{table, write_json};
use crate::control::answers::FlowsAnswer;
use crate::control::client::target;

/// Show the flows of a running node.
#[derive(Debug, Args)]
pub struct FlowsArgs {
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Show this many at most.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub limit: usize,

    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Asks the node.
///
/// # Errors
/// No node answers.
pub fn run(args: &FlowsArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let target = target(&["v1", "flows"], &[("limit", &args.limit.to_string())]);
    let answer: FlowsAnswer = args.node.client().get(&target)?;
    if args.json {
        write_json(out, &answer)?;
    } else {
        out.write_all(text(&answer).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &FlowsAnswer) -> String {
    let header = [
        "Protocol",
        "From",
        "Source",
        "To",
        "Destination",
        "Source seen",
        "Next hop type",
        "Phase",
        "Packets",
        "Bytes",
    ];
    let mut rows = table(header);
    for flow in &answer.flows {
        let both = |[there, back]: [u64; 2]| format!("{there}/{back}");
        rows.add_row([
            flow.protocol.clone(),
            flow.ingress.clone(),
            flow.source.clone(),
            flow.egress.clone(),
            flow.destination.clone(),
            if flow.presented == flow.source { "=".to_owned() } else { flow.presented.clone() },
            flow.next_hop_type.clone(),
            flow.phase.clone(),
            both(flow.packets),
            both(flow.bytes),
        ]);
    }
    let (shown, total) = (answer.flows.len(), answer.total);
    let noun = if total == 1 { "flow" } else { "flows" };
    match shown {
        0 => format!("{total} {noun}\n"),
        shown if shown as u64 >= total => format!("{}\n{total} {noun}\n", rows.trim_fmt()),
        shown => format!("{}\n{shown} of {total} {noun}\n", rows.trim_fmt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::answers::FlowAnswer;

    #[test]
    fn a_flow_is_one_line() {
        let flow = FlowAnswer {
            protocol: "tcp".to_owned(),
            ingress: "vm1".to_owned(),
            source: "10.1.1.4:40000".to_owned(),
            destination: "20.60.1.10:443".to_owned(),
            egress: "contosodata".to_owned(),
            presented: "10.1.1.4:40000".to_owned(),
            next_hop_type: "VirtualNetworkServiceEndpoint".to_owned(),
            phase: "established".to_owned(),
            packets: [10, 12],
            bytes: [1000, 90_000],
        };
        let other =
            FlowAnswer { presented: "203.0.113.200:1024".to_owned(), phase: "opening".to_owned(), ..flow.clone() };
        let answer = FlowsAnswer { total: 3, flows: vec![flow, other] };
        assert_eq!(
            text(&answer),
            "\
Protocol  From  Source          To           Destination     Source seen         Next hop type                  Phase        Packets  Bytes
tcp       vm1   10.1.1.4:40000  contosodata  20.60.1.10:443  =                   VirtualNetworkServiceEndpoint  established  10/12    1000/90000
tcp       vm1   10.1.1.4:40000  contosodata  20.60.1.10:443  203.0.113.200:1024  VirtualNetworkServiceEndpoint  opening      10/12    1000/90000
2 of 3 flows
"
        );
        assert_eq!(text(&FlowsAnswer { total: 0, flows: Vec::new() }), "0 flows\n");
    }
}
