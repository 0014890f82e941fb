//! `sidestep flows`: conversations that a running node has decided.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::node::NodeArgs;
use super::{table, write_json};
use crate::control::answers::{FlowAnswer, FlowsAnswer};
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

/// Flows as a table. `=` stands for an address that is the same on both sides.
pub(crate) fn rows(flows: &[FlowAnswer]) -> String {
    let header = [
        "Protocol",
        "From",
        "Source",
        "To",
        "Destination",
        "Source seen",
        "Destination seen",
        "Next hop type",
        "Phase",
        "Packets",
        "Bytes",
    ];
    let both = |[there, back]: [u64; 2]| format!("{there}/{back}");
    let seen = |entered: &String, left: &String| if entered == left { "=".to_owned() } else { left.clone() };
    let mut rows = table(header);
    for flow in flows {
        rows.add_row([
            flow.protocol.clone(),
            flow.ingress.clone(),
            flow.source.clone(),
            flow.egress.clone(),
            flow.destination.clone(),
            seen(&flow.source, &flow.presented),
            seen(&flow.destination, &flow.reached),
            flow.next_hop_type.clone(),
            flow.phase.clone(),
            both(flow.packets),
            both(flow.bytes),
        ]);
    }
    rows.trim_fmt()
}

fn text(answer: &FlowsAnswer) -> String {
    let rows = || rows(&answer.flows);
    let (shown, total) = (answer.flows.len(), answer.total);
    let noun = if total == 1 { "flow" } else { "flows" };
    match shown {
        0 => format!("{total} {noun}\n"),
        shown if shown as u64 >= total => format!("{}\n{total} {noun}\n", rows()),
        shown => format!("{}\n{shown} of {total} {noun}\n", rows()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A flow over an endpoint.
    pub(in crate::cli) fn flow() -> FlowAnswer {
        FlowAnswer {
            protocol: "tcp".to_owned(),
            ingress: "vm1".to_owned(),
            source: "10.1.1.4:40000".to_owned(),
            destination: "20.60.1.10:443".to_owned(),
            egress: "contosodata".to_owned(),
            presented: "10.1.1.4:40000".to_owned(),
            reached: "20.60.1.10:443".to_owned(),
            next_hop_type: "VirtualNetworkServiceEndpoint".to_owned(),
            phase: "established".to_owned(),
            packets: [10, 12],
            bytes: [1000, 90_000],
        }
    }

    #[test]
    fn a_flow_is_one_line() {
        let translated =
            FlowAnswer { presented: "203.0.113.200:1024".to_owned(), phase: "opening".to_owned(), ..flow() };
        let inward = FlowAnswer {
            source: "198.51.100.80:5000".to_owned(),
            presented: "198.51.100.80:5000".to_owned(),
            destination: "203.0.113.7:443".to_owned(),
            reached: "10.1.1.4:443".to_owned(),
            ..flow()
        };
        let answer = FlowsAnswer { total: 4, flows: vec![flow(), translated, inward] };
        assert_eq!(
            text(&answer),
            "\
Protocol  From  Source              To           Destination      Source seen         Destination seen  Next hop type                  Phase        Packets  Bytes
tcp       vm1   10.1.1.4:40000      contosodata  20.60.1.10:443   =                   =                 VirtualNetworkServiceEndpoint  established  10/12    1000/90000
tcp       vm1   10.1.1.4:40000      contosodata  20.60.1.10:443   203.0.113.200:1024  =                 VirtualNetworkServiceEndpoint  opening      10/12    1000/90000
tcp       vm1   198.51.100.80:5000  contosodata  203.0.113.7:443  =                   10.1.1.4:443      VirtualNetworkServiceEndpoint  established  10/12    1000/90000
3 of 4 flows
"
        );
        assert_eq!(text(&FlowsAnswer { total: 0, flows: Vec::new() }), "0 flows\n");
    }
}
