//! `sidestep drain`: no new flows on a running node, the old ones go on.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::node::NodeArgs;
use super::write_json;
use crate::control::answers::DrainAnswer;

/// Take no new flows on a running node, before it is taken out of service; those that there are go on.
///
/// /ready of the metrics then answers 503, so that who balances load chooses another node. Packets that would begin a flow
/// are dropped without an answer, by the reason `draining`: their senders send them again, and reach whoever takes over.
/// It holds until --end, whatever is applied meanwhile, or until the node ends.
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// Take new flows again.
    #[arg(long)]
    pub end: bool,

    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Asks the node.
///
/// # Errors
/// No node answers.
pub fn run(args: &DrainArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let client = args.node.client();
    let answer: DrainAnswer = if args.end { client.delete("/v1/drain") } else { client.post("/v1/drain") }?;
    if args.json {
        write_json(out, &answer)?;
    } else {
        writeln!(out, "{}", text(&answer))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(answer: &DrainAnswer) -> String {
    let DrainAnswer { draining, changed, flows } = answer;
    let noun = if *flows == 1 { "flow" } else { "flows" };
    match (draining, changed) {
        (true, true) => format!("draining: no new flows, {flows} {noun} left"),
        (true, false) => format!("draining already: no new flows, {flows} {noun} left"),
        (false, true) => format!("new flows are taken again; {flows} {noun}"),
        (false, false) => format!("new flows are taken, as before; {flows} {noun}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_says_how_many_flows_are_left() {
        let answer = |draining, changed, flows| text(&DrainAnswer { draining, changed, flows });
        assert_eq!(answer(true, true, 12), "draining: no new flows, 12 flows left");
        assert_eq!(answer(true, false, 1), "draining already: no new flows, 1 flow left");
        assert_eq!(answer(false, true, 0), "new flows are taken again; 0 flows");
        assert_eq!(answer(false, false, 0), "new flows are taken, as before; 0 flows");
    }
}
