//! Two answers of a node become rates.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::control::answers::FlowAnswer;
use crate::control::top::{CarriedAnswer, TopAnswer, TopPort};
use crate::path::kind::PathKind;

/// Bits and packets in a second, both directions together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Rate {
    pub(super) bits_per_second: f64,
    pub(super) packets_per_second: f64,
}

impl Rate {
    fn of(bytes: u64, packets: u64, seconds: f64) -> Self {
        Self { bits_per_second: bytes as f64 * 8.0 / seconds, packets_per_second: packets as f64 / seconds }
    }

    fn carried(carried: &CarriedAnswer, seconds: f64) -> Self {
        Self::of(carried.bytes.iter().sum(), carried.packets.iter().sum(), seconds)
    }
}

/// One look at a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(super) struct Seen {
    pub(super) generation: u64,
    /// Seconds that the rates are of; none for a first look, which has no rates.
    pub(super) interval_seconds: Option<f64>,
    pub(super) flows_total: u64,
    /// Flows that are known: where there are more, flows and paths are those of a sample.
    pub(super) flows_known: u64,
    /// What the node received; known exactly.
    pub(super) received: Rate,
    pub(super) paths: Vec<PathRate>,
    pub(super) flows: Vec<FlowRate>,
    pub(super) ports: Vec<PortRate>,
    pub(super) drops: Vec<DropRate>,
}

/// What flows of one kind of path carry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct PathRate {
    pub(super) path: &'static str,
    pub(super) flows: u64,
    #[serde(flatten)]
    pub(super) rate: Rate,
}

/// What a flow carries.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct FlowRate {
    #[serde(flatten)]
    pub(super) flow: FlowAnswer,
    pub(super) path: String,
    #[serde(flatten)]
    pub(super) rate: Rate,
}

/// What goes through a port.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct PortRate {
    pub(super) port: String,
    pub(super) kind: String,
    pub(super) received: Rate,
    pub(super) sent: Rate,
}

/// What is dropped for one reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct DropRate {
    pub(super) reason: String,
    pub(super) packets: u64,
    pub(super) packets_per_second: f64,
}

impl Seen {
    /// What a node answered, by what it answered before.
    pub(super) fn of(before: Option<&TopAnswer>, now: &TopAnswer) -> Self {
        // A node that was started anew counts from zero.
        let before = before.filter(|before| before.uptime_ms < now.uptime_ms);
        let seconds = before.map(|before| (now.uptime_ms - before.uptime_ms) as f64 / 1e3);
        let of_flows = now.interval_ms.map(|interval| interval.max(1) as f64 / 1e3);
        let rate = |carried: &CarriedAnswer| of_flows.map_or_else(Rate::default, |time| Rate::carried(carried, time));
        let paths = PathKind::ALL.into_iter().map(|kind| {
            let path = now.paths.get(kind.name()).cloned().unwrap_or_default();
            PathRate { path: kind.name(), flows: path.flows, rate: rate(&path.carried) }
        });
        let flows = now.flows.iter().map(|flow| FlowRate {
            flow: flow.flow.clone(),
            path: flow.path.clone(),
            rate: rate(&flow.carried),
        });
        let difference = |now: [u64; 2], before: Option<[u64; 2]>| match (before, seconds) {
            (Some([bytes, packets]), Some(seconds)) => {
                Rate::of(now[0].saturating_sub(bytes), now[1].saturating_sub(packets), seconds)
            }
            _ => Rate::default(),
        };
        let port_before = |name: &str| before.and_then(|before| before.ports.iter().find(|port| port.name == name));
        let port = |port: &TopPort| {
            let before = port_before(&port.name);
            PortRate {
                port: port.name.clone(),
                kind: port.kind.clone(),
                received: difference(
                    [port.received_bytes, port.received],
                    before.map(|before| [before.received_bytes, before.received]),
                ),
                sent: difference([port.sent_bytes, port.sent], before.map(|before| [before.sent_bytes, before.sent])),
            }
        };
        Self {
            generation: now.generation,
            interval_seconds: of_flows,
            flows_total: now.flows_total,
            flows_known: now.flows_known,
            received: difference(
                [now.received_bytes, now.received],
                before.map(|before| [before.received_bytes, before.received]),
            ),
            paths: paths.collect(),
            flows: flows.collect(),
            ports: now.ports.iter().map(port).collect(),
            drops: drops(before.map(|before| &before.dropped), &now.dropped, seconds),
        }
    }

    /// Whether not every flow is known.
    pub(super) fn is_sample(&self) -> bool {
        self.flows_known < self.flows_total
    }
}

/// Reasons to drop, the one that drops most now first.
fn drops(before: Option<&BTreeMap<String, u64>>, now: &BTreeMap<String, u64>, seconds: Option<f64>) -> Vec<DropRate> {
    let rate = |reason: &String, packets: u64| {
        let (Some(before), Some(seconds)) = (before, seconds) else { return 0.0 };
        packets.saturating_sub(before.get(reason).copied().unwrap_or_default()) as f64 / seconds
    };
    let mut drops: Vec<_> = now
        .iter()
        .map(|(reason, &packets)| DropRate {
            reason: reason.clone(),
            packets,
            packets_per_second: rate(reason, packets),
        })
        .collect();
    drops.sort_by(|a, b| b.packets_per_second.total_cmp(&a.packets_per_second).then(b.packets.cmp(&a.packets)));
    drops
}

/// A rate of bits as people read it: `12.4 Gb/s`.
pub(super) fn bits(rate: f64) -> String {
    scaled(rate, "b/s")
}

/// A number with three digits or four and the prefix of a thousand, a million or a billion.
pub(super) fn scaled(number: f64, unit: &str) -> String {
    // From where on it would be shown as the next one's 1.00.
    let prefixes = [("", 1.0, 999.5), ("k", 1e3, 999_500.0), ("M", 1e6, 999.5e6), ("G", 1e9, f64::INFINITY)];
    let (prefix, scale, _) =
        prefixes.into_iter().find(|(_, _, below)| number < *below).unwrap_or(("G", 1e9, f64::INFINITY));
    let value = number / scale;
    let digits = match value {
        value if prefix.is_empty() && (value.fract() == 0.0 || value >= 99.95) => 0,
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    let space = if prefix.is_empty() && unit.is_empty() { "" } else { " " };
    format!("{value:.digits$}{space}{prefix}{unit}")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::top::{PathAnswer, TopFlow};

    /// A flow of a kind of path.
    pub(in crate::cli::top) fn flow(path: PathKind, destination: &str, bytes: u64) -> TopFlow {
        let (egress, next_hop_type, presented) = match path {
            PathKind::Endpoint => ("contosodata", "VirtualNetworkServiceEndpoint", "10.1.1.4:40000"),
            PathKind::Tunnel => ("gateway", "VirtualNetworkGateway", "10.1.1.4:40000"),
            PathKind::Internet => ("internet", "Internet", "203.0.113.200:1024"),
            PathKind::Inside => ("vm2", "VnetLocal", "10.1.1.4:40000"),
        };
        TopFlow {
            flow: FlowAnswer {
                protocol: "tcp".to_owned(),
                ingress: "vm1".to_owned(),
                source: "10.1.1.4:40000".to_owned(),
                destination: destination.to_owned(),
                egress: egress.to_owned(),
                presented: presented.to_owned(),
                reached: destination.to_owned(),
                next_hop_type: next_hop_type.to_owned(),
                phase: "established".to_owned(),
                packets: [bytes / 1000, 10],
                bytes: [bytes * 3, 1000],
            },
            path: path.name().to_owned(),
            carried: CarriedAnswer { packets: [bytes / 1000, 0], bytes: [bytes, 0] },
        }
    }

    /// Two answers of a node, two seconds apart.
    pub(in crate::cli::top) fn answers() -> [TopAnswer; 2] {
        let port = |name: &str, kind: &str, bytes: u64| TopPort {
            name: name.to_owned(),
            kind: kind.to_owned(),
            received: bytes / 100,
            received_bytes: bytes,
            sent: bytes / 50,
            sent_bytes: bytes * 2,
        };
        let dropped = |spoofed: u64, denied: u64| {
            BTreeMap::from([
                ("no_route".to_owned(), 7),
                ("spoofed".to_owned(), spoofed),
                ("nsg_denied".to_owned(), denied),
            ])
        };
        let before = TopAnswer {
            generation: 3,
            uptime_ms: 10_000,
            flows_total: 4,
            flows_known: 4,
            received: 1000,
            received_bytes: 1_000_000,
            dropped: dropped(10, 100),
            ports: vec![port("vm1", "nic", 1_000_000), port("gateway", "gateway", 0)],
            ..TopAnswer::default()
        };
        let flows = vec![
            flow(PathKind::Endpoint, "20.60.1.10:443", 250_000_000),
            flow(PathKind::Tunnel, "198.51.100.80:80", 25_000_000),
            flow(PathKind::Internet, "192.0.2.7:443", 2_500_000),
            flow(PathKind::Inside, "10.1.1.5:5432", 1000),
        ];
        let paths = flows.iter().map(|flow| (flow.path.clone(), PathAnswer { flows: 1, carried: flow.carried }));
        let now = TopAnswer {
            uptime_ms: 12_000,
            interval_ms: Some(2000),
            received: 3000,
            received_bytes: 251_000_000,
            dropped: dropped(60, 104),
            ports: vec![port("vm1", "nic", 251_000_000), port("gateway", "gateway", 25_000_000)],
            paths: paths.collect(),
            flows,
            ..before.clone()
        };
        [before, now]
    }

    #[test]
    fn differences_by_the_time_between_are_rates() {
        let [before, now] = answers();
        let seen = Seen::of(Some(&before), &now);
        assert_eq!(seen.received, Rate { bits_per_second: 1e9, packets_per_second: 1000.0 });
        assert_eq!(seen.flows[0].rate, Rate { bits_per_second: 1e9, packets_per_second: 125_000.0 });
        let paths: Vec<_> = seen.paths.iter().map(|path| (path.path, path.rate.bits_per_second)).collect();
        assert_eq!(paths, [("endpoint", 1e9), ("tunnel", 1e8), ("internet", 1e7), ("inside", 4000.0)]);
        assert_eq!(seen.ports[1].received.bits_per_second, 1e8);
        assert_eq!(seen.ports[1].sent.bits_per_second, 2e8);
        let drops: Vec<_> =
            seen.drops.iter().map(|drop| (drop.reason.as_str(), drop.packets, drop.packets_per_second)).collect();
        assert_eq!(drops, [("spoofed", 60, 25.0), ("nsg_denied", 104, 2.0), ("no_route", 7, 0.0)]);
    }

    #[test]
    fn a_first_look_and_a_node_started_anew_have_no_rates() {
        let [before, now] = answers();
        let first = Seen::of(None, &TopAnswer { interval_ms: None, ..now.clone() });
        assert_eq!((first.received, first.interval_seconds), (Rate::default(), None));
        assert!(first.flows.iter().all(|flow| flow.rate == Rate::default()));
        let anew = Seen::of(Some(&now), &before);
        assert_eq!(anew.received, Rate::default());
        assert!(anew.drops.iter().all(|drop| drop.packets_per_second == 0.0));
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 0.5, 12.0, 999.0, 999.6, 1234.0, 12_345.0, 99_960.0, 999_600.0, 1.5e9, 12.443e9].map(bits);
        let expected = [
            "0 b/s",
            "0.50 b/s",
            "12 b/s",
            "999 b/s",
            "1.00 kb/s",
            "1.23 kb/s",
            "12.3 kb/s",
            "100 kb/s",
            "1.00 Mb/s",
            "1.50 Gb/s",
            "12.4 Gb/s",
        ];
        assert_eq!(shown, expected);
        assert_eq!([12.0, 2500.0].map(|number| scaled(number, "")), ["12", "2.50 k"]);
    }
}
