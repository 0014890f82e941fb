//! `sidestep flow-log`: what flows began, went on and ended, which path they took, and what did not leave.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;

use super::node::NodeArgs;
use super::top::parse_path;
use crate::control::client::{ClientError, target};
use crate::control::difference::socket_text;
use crate::control::flow_log::FlowLogAnswer;
use crate::path::kind::PathKind;
use crate::telemetry::flow_record::{FlowEvent, FlowRecord, Socket};

/// Show records of flows: what began, ended and was denied, and which path it took.
///
/// With --follow from now on, without end; the node makes records as long as somebody follows. Without it the newest
/// records of a node that logs flows (`sidestep run --flow-log` or --ipfix). Records that were lost on the way are told.
#[derive(Debug, Args)]
pub struct FlowLogArgs {
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Show records as they come, until Ctrl-C.
    #[arg(short, long)]
    pub follow: bool,

    /// Show this many at most, and end then.
    #[arg(short = 'n', long, value_name = "N")]
    pub limit: Option<usize>,

    /// Only flows of this path.
    #[arg(long, value_name = "PATH", value_parser = parse_path)]
    pub path: Option<PathKind>,

    /// Only flows for this resource of a service: who came, with which address and identity, admitted or denied by which rule.
    #[arg(long, value_name = "NAME")]
    pub resource: Option<String>,

    /// Only packets that were denied: dropped, or answered.
    #[arg(long)]
    pub denied: bool,

    /// One line of JSON for each record.
    #[arg(long)]
    pub json: bool,
}

impl FlowLogArgs {
    fn wants(&self, record: &FlowRecord) -> bool {
        self.path.is_none_or(|path| record.path == Some(path))
            && self.resource.as_ref().is_none_or(|resource| record.resource.as_ref() == Some(resource))
            && (!self.denied || record.event == FlowEvent::Denied)
    }

    fn wants_all(&self) -> bool {
        self.path.is_none() && self.resource.is_none() && !self.denied
    }

    fn show(&self, record: &FlowRecord, out: &mut dyn Write) -> anyhow::Result<()> {
        if self.json {
            serde_json::to_writer(&mut *out, record)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", text(record))?;
        }
        Ok(())
    }

    /// Adds what a line of the node tells, if it is wanted; whether it was.
    fn add(&self, line: &[u8], shown: &mut Vec<u8>) -> anyhow::Result<bool> {
        let record = match serde_json::from_slice(line)? {
            Line::Record(record) => record,
            Line::Lost(lost) => {
                eprintln!("{lost} records were lost: more came than could be told");
                return Ok(false);
            }
        };
        if self.json && self.wants_all() {
            shown.extend_from_slice(record.get().as_bytes());
            shown.push(b'\n');
            return Ok(true);
        }
        let record: FlowRecord = serde_json::from_str(record.get())?;
        let is_wanted = self.wants(&record);
        if is_wanted {
            self.show(&record, shown)?;
        }
        Ok(is_wanted)
    }
}

/// A [`FlowLogLine`](crate::control::flow_log::FlowLogLine) whose record is as it came: who wants all of them as JSON needs to
/// know nothing of them.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line<'a> {
    #[serde(borrow)]
    Record(&'a RawValue),
    Lost(u64),
}

/// Asks the node.
///
/// # Errors
/// No node answers, or it ends while it is followed.
pub fn run(args: &FlowLogArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    if args.follow {
        return follow(args, out);
    }
    let answer: FlowLogAnswer = args.node.client().get(&target(&["v1", "flow-log"], &[("limit", "4096")]))?;
    let wanted: Vec<_> = answer.records.iter().filter(|record| args.wants(record)).collect();
    let skipped = wanted.len().saturating_sub(args.limit.unwrap_or(50));
    for record in &wanted[skipped..] {
        args.show(record, out)?;
    }
    if !args.json {
        let totals = &answer.totals;
        let lost = match totals.lost_records {
            0 => String::new(),
            lost => format!("; {lost} more found no room, with {} packets", totals.lost_packets),
        };
        writeln!(out, "{} of {} records{lost}", wanted.len() - skipped, totals.records)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn follow(args: &FlowLogArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let mut left = args.limit;
    if left == Some(0) {
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = None;
    let mut shown = Vec::new();
    let result = args.node.client().follow(&target(&["v1", "flow-log"], &[("follow", "true")]), |lines| {
        let told = (|| -> anyhow::Result<()> {
            shown.clear();
            for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                if left == Some(0) {
                    break;
                }
                if args.add(line, &mut shown)? {
                    left = left.map(|left| left - 1);
                }
            }
            // All that came together at once: a thousand connections a second are not a thousand writes.
            out.write_all(&shown)?;
            Ok(out.flush()?)
        })();
        failed = told.err();
        failed.is_none() && left != Some(0)
    });
    match failed {
        // Whoever reads has had enough.
        Some(error) if is_closed(&error) => return Ok(ExitCode::SUCCESS),
        Some(error) => return Err(error),
        None => {}
    }
    match result {
        Ok(()) if left == Some(0) => Ok(ExitCode::SUCCESS),
        Ok(()) | Err(ClientError::Broken { .. }) => anyhow::bail!("the node has ended"),
        Err(error) => Err(error.into()),
    }
}

fn is_closed(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let json = error.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
    kind.or(json) == Some(io::ErrorKind::BrokenPipe)
}

/// `12:00:00.123 begin    tcp 10.1.1.4:40000 > 20.60.1.10:443 vm1 > storage endpoint Microsoft.Storage`.
fn text(record: &FlowRecord) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(record.time) * 1_000_000);
    let time = time.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut text = format!(
        "{:02}:{:02}:{:02}.{:03} {:8}",
        time.hour(),
        time.minute(),
        time.second(),
        time.millisecond(),
        record.event.name()
    );
    let protocol = record.protocol.unwrap_or_default();
    let socket = |socket: Socket| socket_text(protocol, (socket.address.to_canonical(), socket.port));
    let mut add = |part: &str| {
        text.push(' ');
        text.push_str(part);
    };
    if let Some(name) = &record.protocol_name {
        add(name);
    }
    if let (Some(source), Some(destination)) = (record.source, record.destination) {
        add(&format!("{} > {}", socket(source), socket(destination)));
    }
    match (&record.ingress, &record.egress) {
        (Some(ingress), Some(egress)) => add(&format!("{ingress} > {egress}")),
        (Some(ingress), None) => add(ingress),
        (None, _) => {}
    }
    if let Some(path) = record.path {
        add(path.name());
    }
    if let Some(endpoint) = &record.endpoint {
        add(endpoint);
    }
    if let Some(presented) = record.presented.filter(|presented| Some(*presented) != record.source) {
        // No port was picked for who is denied.
        let seen = if presented.port == 0 { presented.address.to_string() } else { socket(presented) };
        add(&format!("seen as {seen}"));
    }
    if let Some(identity) = &record.identity {
        add(&format!("identity {identity}"));
    }
    if let Some(name) = &record.server_name {
        add(&format!("name {name}"));
    }
    if let Some(micros) = record.round_trip_us.filter(|_| record.event == FlowEvent::Reply) {
        add(&format!("after {}.{:03} ms", micros / 1_000, micros % 1_000));
    }
    if let Some(admission) = record.admission.as_ref().filter(|_| record.event != FlowEvent::Reply) {
        let verdict = if record.admitted == Some(true) { "admitted" } else { "denied" };
        add(&format!("{verdict}: {admission}"));
    }
    if let Some(rule) = [&record.outbound, &record.inbound].into_iter().flatten().find(|rule| !rule.allowed) {
        add(&format!("{} of {}", rule.rule.as_deref().unwrap_or("no rule"), rule.group));
    }
    if let Some(reason) = &record.reason {
        add(reason);
    }
    let ([sent, received], [sent_bytes, received_bytes]) = (record.packets, record.bytes);
    if sent + received > 0 {
        add(&format!("{sent} packets {sent_bytes} bytes, back {received} {received_bytes}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: &str, more: serde_json::Value) -> FlowRecord {
        let mut json = serde_json::json!({
            "time": 1_780_988_400_123_u64, "event": event, "protocol": 6, "protocol_name": "tcp", "packets": [0, 0],
            "bytes": [0, 0], "began": 0, "generation": 1, "worker": 0, "ingress": "vm1",
            "source": { "address": "10.1.1.4", "port": 40_000 }, "destination": { "address": "20.60.1.10", "port": 443 },
        });
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_record_is_one_line() {
        let begin = serde_json::json!({
            "egress": "contosodata", "path": "endpoint", "endpoint": "Microsoft.Storage", "identity": "spoke/workload",
            "presented": { "address": "10.1.1.4", "port": 40_000 }, "admitted": true,
            "admission": "a virtual network rule admits the subnet (spoke/workload)",
        });
        assert_eq!(
            text(&record("begin", begin)),
            "07:00:00.123 begin    tcp 10.1.1.4:40000 > 20.60.1.10:443 vm1 > contosodata endpoint Microsoft.Storage \
             identity spoke/workload admitted: a virtual network rule admits the subnet (spoke/workload)"
        );
        let end = serde_json::json!({
            "egress": "internet", "path": "internet", "presented": { "address": "203.0.113.9", "port": 1024 },
            "reason": "expired", "packets": [3, 4], "bytes": [180, 4_000],
        });
        assert_eq!(
            text(&record("end", end)),
            "07:00:00.123 end      tcp 10.1.1.4:40000 > 20.60.1.10:443 vm1 > internet internet seen as 203.0.113.9:1024 \
             expired 3 packets 180 bytes, back 4 4000"
        );
        let denied = serde_json::json!({
            "reason": "nsg_outbound_denied", "packets": [1, 0], "bytes": [60, 0],
            "outbound": { "group": "web", "rule": "securityRules/no-web", "allowed": false },
        });
        assert_eq!(
            text(&record("denied", denied)),
            "07:00:00.123 denied   tcp 10.1.1.4:40000 > 20.60.1.10:443 vm1 securityRules/no-web of web nsg_outbound_denied \
             1 packets 60 bytes, back 0 0"
        );
    }

    #[test]
    fn who_is_denied_is_one_line() {
        let denied = serde_json::json!({
            "reason": "firewall_denied", "packets": [1, 0], "bytes": [60, 0], "resource": "own", "admitted": false,
            "presented": { "address": "203.0.113.200", "port": 0 },
            "admission": "not over an endpoint, and no IP rule admits the address",
        });
        assert_eq!(
            text(&record("denied", denied)),
            "07:00:00.123 denied   tcp 10.1.1.4:40000 > 20.60.1.10:443 vm1 seen as 203.0.113.200 denied: not over an \
             endpoint, and no IP rule admits the address firewall_denied 1 packets 60 bytes, back 0 0"
        );
    }

    #[test]
    fn paths_are_named() {
        assert_eq!(parse_path("tunnel"), Ok(PathKind::Tunnel));
        assert_eq!(parse_path("gateway").unwrap_err(), "it is none of endpoint, tunnel, internet, inside");
    }
}
