//! What the demo found: the object that `--json` prints, the tables for people, and what does not hold.

use std::net::IpAddr;

use comfy_table::{ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

use super::outcome::Switch;
use crate::snapshot::NextHopType;

/// The demo's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was measured under forced tunneling.
    pub forced_tunnel: Measurement,
    /// The same with the service endpoint.
    pub service_endpoint: Measurement,
    /// What happened when the endpoint was enabled.
    pub switch: Switch,
}

/// What was measured over one of the two paths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Azure's name of the next hop towards the service.
    pub next_hop_type: String,
    /// The source address that the service saw; none if it answered something else.
    pub source_seen: Option<IpAddr>,
    /// Addresses on the way to the service, `*` for a hop that does not answer.
    pub path: Vec<String>,
    /// Median round trip to the service in milliseconds.
    pub ping_ms: f64,
    /// TCP throughput to the service in Gb/s.
    pub tcp_gbps: f64,
    /// HTTP status of the service's answer.
    pub http_status: u16,
    /// The source address that the ordinary web site saw; none if it answered something else.
    pub web_source_seen: Option<IpAddr>,
}

/// What has to be seen where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    /// The VM's private address.
    pub(super) private: IpAddr,
    /// The on-premises public address.
    pub(super) public: IpAddr,
    /// The service's address.
    pub(super) service: IpAddr,
}

impl Report {
    /// What does not hold, a sentence each.
    pub(super) fn failures(&self, expected: &Expected) -> Vec<String> {
        let Self { forced_tunnel: tunnel, service_endpoint: endpoint, switch } = self;
        let mut failures = Vec::new();
        let mut check = |holds: bool, failure: String| {
            if !holds {
                failures.push(failure);
            }
        };
        let columns = [
            ("under forced tunneling", tunnel, NextHopType::VirtualNetworkGateway, expected.public),
            ("with the endpoint", endpoint, NextHopType::VirtualNetworkServiceEndpoint, expected.private),
        ];
        for (when, found, next_hop, source) in columns {
            let (hop, want) = (&found.next_hop_type, next_hop.name());
            check(hop == want, format!("{when} the next hop is {hop}, not {want}"));
            let seen = shown(found.source_seen);
            check(found.source_seen == Some(source), format!("{when} the service sees {seen}, not {source}"));
            check(found.http_status == 200, format!("{when} the service answers HTTP {}", found.http_status));
            let (seen, want) = (shown(found.web_source_seen), expected.public);
            check(found.web_source_seen == Some(want), format!("{when} the web site sees {seen}, not {want}"));
            let service = expected.service.to_string();
            let path = found.path.join(" ");
            check(found.path.last() == Some(&service), format!("{when} the path does not end at {service}: {path}"));
        }
        check(
            endpoint.path.len() < tunnel.path.len(),
            format!("the path is not shorter with the endpoint: {} hops", endpoint.path.len()),
        );
        check(
            endpoint.ping_ms < tunnel.ping_ms,
            format!(
                "ping is not faster with the endpoint: {} ms, {} ms in the tunnel",
                endpoint.ping_ms, tunnel.ping_ms
            ),
        );
        check(
            endpoint.tcp_gbps > tunnel.tcp_gbps,
            format!(
                "TCP is not faster with the endpoint: {} Gb/s, {} Gb/s in the tunnel",
                endpoint.tcp_gbps, tunnel.tcp_gbps
            ),
        );
        failures.extend(switch.failures());
        failures
    }

    /// The table that compares the two columns, and what the switch did.
    pub fn text(&self) -> String {
        let columns = [&self.forced_tunnel, &self.service_endpoint];
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["", "forced tunnel", "service endpoint"]);
        let mut row = |name: &str, value: &dyn Fn(&Measurement) -> String| {
            table.add_row(std::iter::once(name.to_owned()).chain(columns.iter().map(|column| value(column))));
        };
        row("next hop", &|m| m.next_hop_type.clone());
        row("source that the service sees", &|m| shown(m.source_seen));
        row("path", &|m| m.path.join("\n"));
        row("ping", &|m| format!("{} ms", m.ping_ms));
        row("TCP", &|m| format!("{} Gb/s", m.tcp_gbps));
        row("HTTP status", &|m| m.http_status.to_string());
        row("source that an ordinary web site sees", &|m| shown(m.web_source_seen));
        plain(&table) + "\n" + &self.switch.text()
    }
}

/// A table without the spaces that fill its lines up.
pub(super) fn plain(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

pub(super) fn shown(address: Option<IpAddr>) -> String {
    address.map_or_else(|| "-".to_owned(), |address| address.to_string())
}

/// Rounds to so many digits behind the point, as many as a measurement deserves.
pub(super) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::lab::demo::outcome::tests::switch;

    /// What a good run looks like.
    pub(in crate::lab::demo) fn report() -> Report {
        let address = |text: &str| Some(text.parse().expect("address"));
        let path = |hops: &[&str]| hops.iter().map(|hop| (*hop).to_owned()).collect();
        Report {
            forced_tunnel: Measurement {
                next_hop_type: "VirtualNetworkGateway".to_owned(),
                source_seen: address("203.0.113.10"),
                path: path(&["10.1.1.1", "192.168.0.1", "20.60.1.10"]),
                ping_ms: 20.9,
                tcp_gbps: 0.19,
                http_status: 200,
                web_source_seen: address("203.0.113.10"),
            },
            service_endpoint: Measurement {
                next_hop_type: "VirtualNetworkServiceEndpoint".to_owned(),
                source_seen: address("10.1.1.4"),
                path: path(&["10.1.1.1", "20.60.1.10"]),
                ping_ms: 0.25,
                tcp_gbps: 9.5,
                http_status: 200,
                web_source_seen: address("203.0.113.10"),
            },
            switch: switch(),
        }
    }

    fn expected() -> Expected {
        let address = |text: &str| text.parse().expect("address");
        Expected { private: address("10.1.1.4"), public: address("203.0.113.10"), service: address("20.60.1.10") }
    }

    #[test]
    fn the_json_has_the_names_that_scripts_read() {
        assert_eq!(
            serde_json::to_value(report()).expect("writes"),
            serde_json::json!({
                "forced_tunnel": {
                    "next_hop_type": "VirtualNetworkGateway", "source_seen": "203.0.113.10",
                    "path": ["10.1.1.1", "192.168.0.1", "20.60.1.10"], "ping_ms": 20.9, "tcp_gbps": 0.19,
                    "http_status": 200, "web_source_seen": "203.0.113.10"
                },
                "service_endpoint": {
                    "next_hop_type": "VirtualNetworkServiceEndpoint", "source_seen": "10.1.1.4",
                    "path": ["10.1.1.1", "20.60.1.10"], "ping_ms": 0.25, "tcp_gbps": 9.5,
                    "http_status": 200, "web_source_seen": "203.0.113.10"
                },
                "switch": serde_json::to_value(switch()).expect("writes")
            })
        );
    }

    #[test]
    fn the_table_compares_two_columns() {
        let text = report().text();
        let line = |start: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(start)).expect("line");
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(line("forced tunnel"), "forced tunnel | service endpoint");
        assert_eq!(line("next hop"), "next hop | VirtualNetworkGateway | VirtualNetworkServiceEndpoint");
        assert_eq!(line("source that the service"), "source that the service sees | 203.0.113.10 | 10.1.1.4");
        assert_eq!(line("path"), "path | 10.1.1.1 | 10.1.1.1");
        assert_eq!(line("ping"), "ping | 20.9 ms | 0.25 ms");
        assert_eq!(line("TCP"), "TCP | 0.19 Gb/s | 9.5 Gb/s");
        assert!(text.ends_with(&format!("\n\n{}", switch().text())), "what the switch did comes last");
    }

    #[test]
    fn a_good_report_has_no_failures() {
        assert_eq!(report().failures(&expected()), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_hold_is_said() {
        let mut bad = report();
        bad.service_endpoint.source_seen = bad.forced_tunnel.source_seen;
        bad.service_endpoint.web_source_seen = None;
        bad.service_endpoint.path = bad.forced_tunnel.path.clone();
        bad.forced_tunnel.http_status = 502;
        bad.switch.connections.reset = 0;
        assert_eq!(
            bad.failures(&expected()),
            [
                "under forced tunneling the service answers HTTP 502",
                "with the endpoint the service sees 203.0.113.10, not 10.1.1.4",
                "with the endpoint the web site sees -, not 203.0.113.10",
                "the path is not shorter with the endpoint: 3 hops",
                "8 connections to the service were open and 0 were reset",
            ]
        );
        let mut bad = report();
        std::mem::swap(&mut bad.forced_tunnel, &mut bad.service_endpoint);
        assert_eq!(bad.failures(&expected()).len(), 7);
    }

    #[test]
    fn numbers_are_rounded() {
        assert_eq!(rounded(20.8765, 2), 20.88);
        assert_eq!(rounded(0.1234, 1), 0.1);
    }
}
