//! `sidestep trace`: real packets of a running node, each with what every stage decided, as they pass.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;

use super::node::NodeArgs;
use crate::control::client::{ClientError, target};
use crate::control::follow::{DEFAULT_SECONDS, FollowQuery, MOST_SECONDS, MOST_TRACED};
use crate::control::stream::StreamError;
use crate::telemetry::trace::{End, TraceLine, Why};

/// Which packets are followed; without anything, all.
#[derive(Debug, Clone, Default, Args)]
pub struct FilterArgs {
    /// Where and from whom they come: a NIC or another port (they enter through it), a subnet (NETWORK/SUBNET), an address
    /// or a prefix (their source as they enter).
    #[arg(long, value_name = "NIC|PORT|SUBNET|ADDRESS|PREFIX")]
    pub from: Option<String>,

    /// Whom they are sent to: an address, a prefix or a subnet (their destination as they enter), or a port (they leave
    /// through it, or are sent to its address).
    #[arg(long, value_name = "NIC|PORT|SUBNET|ADDRESS|PREFIX")]
    pub to: Option<String>,

    /// tcp, udp, icmp (of both families), another protocol's name or its number.
    #[arg(long)]
    pub protocol: Option<String>,

    /// Destination port.
    #[arg(long)]
    pub port: Option<u16>,

    /// Also what goes the other way: replies, and ICMP errors about them.
    #[arg(long)]
    pub both: bool,
}

impl FilterArgs {
    /// As the node is asked.
    pub(crate) fn query(&self) -> FollowQuery {
        FollowQuery {
            from: self.from.clone(),
            to: self.to.clone(),
            protocol: self.protocol.clone(),
            port: self.port,
            both: self.both,
            ..FollowQuery::default()
        }
    }
}

/// Trace real packets through a running node: each that matches, with the decision of every stage, as it passes.
///
/// Packets take the very way that they would take untraced. The first packet of a flow shows all stages, later ones what of
/// the flow they replay. What comes faster than it can be shown is left out and counted; Ctrl-C ends.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Which packets.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// End after so many packets.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(1..=MOST_TRACED))]
    pub count: u64,

    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_SECONDS,
          value_parser = clap::value_parser!(u64).range(1..=MOST_SECONDS))]
    pub timeout: u64,

    /// Print a JSON object a line: `begun`, `packet` for each, `end`.
    #[arg(long)]
    pub json: bool,
}

/// Asks the node and prints what comes.
///
/// # Errors
/// No node answers, or it does not know what is meant.
pub fn run(args: &TraceArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let query = FollowQuery { count: Some(args.count), timeout: Some(args.timeout), ..args.filter.query() };
    let parts = query.parts();
    let parts: Vec<(&str, &str)> = parts.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut rest = Vec::new();
    let mut ended = false;
    let followed = args.node.client().stream(&target(&["v1", "trace"], &parts), |bytes| {
        rest.extend_from_slice(bytes);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let lines: Vec<u8> = rest.drain(..=end).collect();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            ended |= show(line, args.json, out)?;
        }
        out.flush()
    });
    followed.map_err(plain)?;
    if !ended {
        eprintln!("the trace ended early: what may be missing is not known");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a line; true where it is the last.
fn show(line: &[u8], json: bool, out: &mut dyn Write) -> io::Result<bool> {
    let parsed: TraceLine = serde_json::from_slice(line).map_err(io::Error::other)?;
    if json {
        out.write_all(line)?;
        out.write_all(b"\n")?;
    }
    match parsed {
        TraceLine::Begun(begun) if !json => {
            eprintln!("tracing under generation {}; Ctrl-C ends", begun.generation);
        }
        TraceLine::Packet(packet) if !json => out.write_all(packet.text().as_bytes())?,
        TraceLine::End(end) => {
            if !json {
                // What it is about first, where both go to the same place.
                out.flush()?;
                eprintln!("{}", end_text(&end));
            }
            return Ok(true);
        }
        _ => {}
    }
    Ok(false)
}

/// `3 packets; the time was over`.
fn end_text(end: &End) -> String {
    let noun = if end.packets == 1 { "packet" } else { "packets" };
    let why = match end.why {
        Why::Count => "as many as asked for",
        Why::Timeout => "the time was over",
        Why::Asked => "ended",
        Why::Node => "the node ends",
    };
    let mut text = format!("{} {noun}; {why}", end.packets);
    text.push_str(&losses(end.lost, end.unsent));
    if end.packets == 0 && end.lost == 0 {
        text.push_str(
            "; nothing matched: is the filter right, and does the traffic pass this node (`sidestep status`)?",
        );
    }
    text
}

/// What is missing, or may be.
pub(crate) fn losses(lost: u64, unsent: u64) -> String {
    let mut text = String::new();
    if lost > 0 {
        text.push_str(&format!("; {lost} more matched and were lost: they came faster than they were read"));
    }
    if unsent > 0 {
        text.push_str(&format!(
            "; {unsent} of the node's packets, of any flow, were taken for sent and could not leave"
        ));
    }
    text
}

/// An error as it is shown: a reader that closed the pipe is told from a failure.
pub(crate) fn plain(error: StreamError) -> anyhow::Error {
    match error {
        StreamError::Write(error) => error.into(),
        StreamError::Node(error) => ClientError::into(error),
        StreamError::Interrupted => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_says_what_is_missing() {
        let end = End { why: Why::Count, packets: 10, lost: 0, unsent: 0 };
        assert_eq!(end_text(&end), "10 packets; as many as asked for");
        let end = End { why: Why::Timeout, packets: 1, lost: 7, unsent: 2 };
        assert_eq!(
            end_text(&end),
            "1 packet; the time was over; 7 more matched and were lost: they came faster than they were read; 2 of the \
             node's packets, of any flow, were taken for sent and could not leave"
        );
        let nothing = end_text(&End { why: Why::Timeout, packets: 0, lost: 0, unsent: 0 });
        assert!(nothing.contains("nothing matched"), "{nothing}");
    }
}
