//! What the switch did to traffic that was under way: connections that heard their reset, one that did not, and streams of
//! datagrams; each beside the same towards a web site that the switch does not concern.

use comfy_table::{ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

use super::report::{plain, rounded};
use super::stream::Tally;

/// What happened when the endpoint was enabled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// TCP flows that the forwarder reset, as it counts them.
    pub flows_reset: u64,
    /// The connections to the service that heard their reset.
    pub connections: Reconnection,
    /// The connection to the service that was kept from hearing its reset.
    pub without_reset: Unreset,
    /// How often the connection to the web site was reset.
    pub web_connections_reset: u32,
    /// The datagrams to the service.
    pub service_datagrams: Datagrams,
    /// The datagrams to the web site.
    pub web_datagrams: Datagrams,
}

/// Connections that were reset and made again by their applications.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reconnection {
    /// How many were open at the switch.
    pub open: usize,
    /// How many resets their clients heard.
    pub reset: u32,
    /// Milliseconds from the order to switch to the client's first answer over the new path: the median of all clients.
    pub back_after_median_ms: f64,
    /// The same of the client for which it took longest.
    pub back_after_worst_ms: f64,
}

/// A connection whose resets nobody heard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unreset {
    /// Milliseconds that the application waits for an answer before it connects again.
    pub timeout_ms: f64,
    /// How many resets its client heard, none if they were withheld as they should.
    pub reset: u32,
    /// How often its client waited for its timeout.
    pub timeouts: u32,
    /// Milliseconds from the order to switch to the client's first answer over the new path.
    pub back_after_ms: f64,
}

/// A stream of datagrams that were echoed. Blocked time is lost datagrams divided by the rate at which they were offered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Datagrams {
    /// Datagrams sent per second.
    pub rate_per_second: f64,
    /// Datagrams sent.
    pub sent: u64,
    /// Those that did not arrive.
    pub lost: u64,
    /// Those that arrived and whose echo did not come back.
    pub echoes_lost: u64,
    /// Blocked time on the way there, in milliseconds.
    pub blocked_ms: f64,
    /// Blocked time on the way back, in milliseconds.
    pub echoes_blocked_ms: f64,
}

impl Datagrams {
    /// Blocked times of a stream that has been counted.
    pub(super) fn of(tally: Tally) -> Self {
        let lost = tally.sent.saturating_sub(tally.arrived);
        let echoes_lost = tally.arrived.saturating_sub(tally.returned);
        let blocked = |lost: u64| if lost == 0 { 0.0 } else { rounded(lost as f64 / tally.rate * 1e3, 1) };
        Self {
            rate_per_second: rounded(tally.rate, 1),
            sent: tally.sent,
            lost,
            echoes_lost,
            blocked_ms: blocked(lost),
            echoes_blocked_ms: blocked(echoes_lost),
        }
    }
}

impl Switch {
    /// What does not hold, a sentence each.
    pub(super) fn failures(&self) -> Vec<String> {
        let Self { connections, without_reset, web_datagrams: web, .. } = self;
        let all = connections.open as u64 + 1;
        let conditions = [
            (
                connections.reset as usize == connections.open,
                format!(
                    "{} connections to the service were open and {} were reset",
                    connections.open, connections.reset
                ),
            ),
            (without_reset.reset == 0, "the connection that was not to hear its reset heard it".to_owned()),
            (
                without_reset.timeouts == 1,
                format!("the connection that heard no reset ran into {} timeouts, not one", without_reset.timeouts),
            ),
            (
                self.flows_reset == all,
                format!("the forwarder counts {} flows reset, and {all} connections were open", self.flows_reset),
            ),
            (
                connections.back_after_worst_ms < without_reset.back_after_ms,
                format!(
                    "an application that heard its reset was back after {} ms, one that did not after {} ms",
                    connections.back_after_worst_ms, without_reset.back_after_ms
                ),
            ),
            (self.web_connections_reset == 0, "the connection to the web site was reset".to_owned()),
            (
                web.lost == 0 && web.echoes_lost == 0,
                format!("of the datagrams to the web site {} were lost, and {} echoes", web.lost, web.echoes_lost),
            ),
        ];
        conditions.into_iter().filter(|(holds, _)| !holds).map(|(_, failure)| failure).collect()
    }

    /// The table of who noticed the switch and how, and what follows from it.
    pub(super) fn text(&self) -> String {
        let Self { connections, without_reset, .. } = self;
        let none = || "-".to_owned();
        let mut table = Table::new();
        table.load_preset(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(["the switch", "service", "service, reset withheld", "web site, not switched"]);
        let mut row = |name: &str, cells: [String; 3]| {
            table.add_row(std::iter::once(name.to_owned()).chain(cells));
        };
        let one = || "1".to_owned();
        row("connections open", [connections.open.to_string(), one(), one()]);
        let resets = [connections.reset, without_reset.reset, self.web_connections_reset];
        row("resets heard", resets.map(|count| count.to_string()));
        let unreset = time(without_reset.back_after_ms);
        row("back after, median", [time(connections.back_after_median_ms), unreset.clone(), none()]);
        row("back after, worst", [time(connections.back_after_worst_ms), unreset, none()]);
        let mut streams = |name: &str, value: &dyn Fn(&Datagrams) -> String| {
            row(name, [value(&self.service_datagrams), none(), value(&self.web_datagrams)]);
        };
        streams("datagrams sent", &|d| format!("{} at {:.0}/s", d.sent, d.rate_per_second));
        streams("lost, echoes lost", &|d| format!("{}, {}", d.lost, d.echoes_lost));
        streams("blocked time there", &|d| time(d.blocked_ms));
        streams("blocked time back", &|d| time(d.echoes_blocked_ms));
        format!(
            "{}The forwarder reset {} flows. An application that heard its reset was back after {} (median), {} at worst;\n\
             one that did not hear it waited for its timeout of {} s and was back after {}.\n\
             Blocked time is lost datagrams divided by the rate at which they were offered.\n",
            plain(&table),
            self.flows_reset,
            time(connections.back_after_median_ms),
            time(connections.back_after_worst_ms),
            without_reset.timeout_ms / 1e3,
            time(without_reset.back_after_ms),
        )
    }
}

/// A time as people read it: milliseconds below a second, seconds above.
pub(super) fn time(milliseconds: f64) -> String {
    if milliseconds < 1e3 { format!("{milliseconds} ms") } else { format!("{:.2} s", milliseconds / 1e3) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What a good switch looks like.
    pub(in crate::lab::demo) fn switch() -> Switch {
        let tally = |arrived, returned| Datagrams::of(Tally { sent: 1300, arrived, returned, rate: 1000.0 });
        Switch {
            flows_reset: 9,
            connections: Reconnection { open: 8, reset: 8, back_after_median_ms: 21.4, back_after_worst_ms: 24.0 },
            without_reset: Unreset { timeout_ms: 5000.0, reset: 0, timeouts: 1, back_after_ms: 5012.3 },
            web_connections_reset: 0,
            service_datagrams: tally(1299, 1278),
            web_datagrams: tally(1300, 1300),
        }
    }

    #[test]
    fn blocked_time_is_the_lost_datagrams_divided_by_the_rate() {
        let found = Datagrams::of(Tally { sent: 1000, arrived: 990, returned: 970, rate: 500.0 });
        assert_eq!((found.lost, found.echoes_lost), (10, 20));
        assert_eq!((found.blocked_ms, found.echoes_blocked_ms), (20.0, 40.0));
        let found = Datagrams::of(Tally { sent: 0, arrived: 0, returned: 0, rate: 0.0 });
        assert_eq!((found.blocked_ms, found.echoes_blocked_ms), (0.0, 0.0));
    }

    #[test]
    fn the_json_has_the_names_that_scripts_read() {
        assert_eq!(
            serde_json::to_value(switch()).expect("writes"),
            serde_json::json!({
                "flows_reset": 9,
                "connections": {
                    "open": 8, "reset": 8, "back_after_median_ms": 21.4, "back_after_worst_ms": 24.0
                },
                "without_reset": { "timeout_ms": 5000.0, "reset": 0, "timeouts": 1, "back_after_ms": 5012.3 },
                "web_connections_reset": 0,
                "service_datagrams": {
                    "rate_per_second": 1000.0, "sent": 1300, "lost": 1, "echoes_lost": 21, "blocked_ms": 1.0,
                    "echoes_blocked_ms": 21.0
                },
                "web_datagrams": {
                    "rate_per_second": 1000.0, "sent": 1300, "lost": 0, "echoes_lost": 0, "blocked_ms": 0.0,
                    "echoes_blocked_ms": 0.0
                }
            })
        );
    }

    #[test]
    fn the_text_sets_those_who_heard_beside_the_one_who_did_not() {
        let text = switch().text();
        let line = |start: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(start)).expect("line");
            line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join(" | ")
        };
        assert_eq!(line("the switch"), "the switch | service | service, reset withheld | web site, not switched");
        assert_eq!(line("connections open"), "connections open | 8 | 1 | 1");
        assert_eq!(line("resets heard"), "resets heard | 8 | 0 | 0");
        assert_eq!(line("back after, median"), "back after, median | 21.4 ms | 5.01 s | -");
        assert_eq!(line("back after, worst"), "back after, worst | 24 ms | 5.01 s | -");
        assert_eq!(line("datagrams sent"), "datagrams sent | 1300 at 1000/s | - | 1300 at 1000/s");
        assert_eq!(line("lost, echoes lost"), "lost, echoes lost | 1, 21 | - | 0, 0");
        assert_eq!(line("blocked time there"), "blocked time there | 1 ms | - | 0 ms");
        assert_eq!(line("blocked time back"), "blocked time back | 21 ms | - | 0 ms");
        let end = "The forwarder reset 9 flows. An application that heard its reset was back after 21.4 ms (median), 24 ms \
                   at worst;\none that did not hear it waited for its timeout of 5 s and was back after 5.01 s.\nBlocked \
                   time is lost datagrams divided by the rate at which they were offered.\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn times_are_shown_as_people_read_them() {
        assert_eq!(time(21.4), "21.4 ms");
        assert_eq!(time(5003.4), "5.00 s");
    }

    #[test]
    fn what_does_not_hold_is_said() {
        assert_eq!(switch().failures(), Vec::<String>::new());
        let mut bad = switch();
        bad.flows_reset = 10;
        bad.connections.reset = 7;
        bad.connections.back_after_worst_ms = 5100.0;
        bad.without_reset.reset = 1;
        bad.without_reset.timeouts = 0;
        bad.web_connections_reset = 2;
        bad.web_datagrams.echoes_lost = 3;
        assert_eq!(
            bad.failures(),
            [
                "8 connections to the service were open and 7 were reset",
                "the connection that was not to hear its reset heard it",
                "the connection that heard no reset ran into 0 timeouts, not one",
                "the forwarder counts 10 flows reset, and 9 connections were open",
                "an application that heard its reset was back after 5100 ms, one that did not after 5012.3 ms",
                "the connection to the web site was reset",
                "of the datagrams to the web site 0 were lost, and 3 echoes",
            ]
        );
    }
}
