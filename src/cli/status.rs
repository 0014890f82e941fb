//! `sidestep status`: what a running node is and does.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::node::NodeArgs;
use super::{changes, table, write_json};
use crate::control::answers::{Counters, FlowUse, PrivilegesStatus, RestoredStatus, Status};
use crate::control::privileges::list;

/// Show what a running node has in force, its ports, its counters and its last changes.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Answer in JSON.
    #[arg(long)]
    pub json: bool,
}

/// Status and counters in one object.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(flatten)]
    status: &'a Status,
    counters: &'a Counters,
}

/// Asks the node.
///
/// # Errors
/// No node answers.
pub fn run(args: &StatusArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let client = args.node.client();
    let status: Status = client.get("/v1/status")?;
    let counters: Counters = client.get("/v1/counters")?;
    if args.json {
        write_json(out, &Answer { status: &status, counters: &counters })?;
    } else {
        out.write_all(text(&status, &counters).as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Status, counters: &Counters) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<11} {value}");
    };
    line("generation", status.generation.to_string());
    line("node", format!("sidestep {}, process {}, up {}", status.version, status.pid, up(status.uptime_seconds)));
    line("workers", status.workers.to_string());
    line("document", status.document.display().to_string());
    for (endpoint, enabled) in &status.switched_endpoints {
        line("switched", format!("{endpoint} {}", if *enabled { "on" } else { "off" }));
    }
    if let Some(catalogue) = &status.catalogue {
        let path = catalogue.path.display();
        line("catalogue", format!("{path}, {} tags, change number {}", catalogue.tags, catalogue.change_number));
        if let Some(reason) = &catalogue.refused {
            line("", format!("its file has changed and is refused: {reason}"));
        }
    }
    let dropped: u64 = counters.dropped.values().sum();
    let answered: u64 = counters.answered.values().sum();
    line(
        "packets",
        format!(
            "{} received, {} forwarded, {answered} answered, {dropped} dropped",
            counters.received, counters.forwarded
        ),
    );
    for (reason, count) in &counters.dropped {
        line("", format!("dropped {reason} {count}"));
    }
    if status.draining {
        line("draining", "no new flows are taken; `sidestep drain --end` takes them again".to_owned());
    }
    let FlowUse { used, limit, limit_per_nic, owners } = &status.flows;
    let percent = u64::from(*used) * 100 / u64::from(*limit).max(1);
    line(
        "flows",
        format!(
            "{used} of {limit} ({percent} %), {limit_per_nic} for each NIC; {} made, {} reset by changes",
            counters.flows_created, counters.flows_reset
        ),
    );
    if !owners.is_empty() {
        let most: Vec<String> = owners.iter().map(|owner| format!("{} {}", owner.port, owner.flows)).collect();
        line("", format!("nearly full; most of them: {}", most.join(", ")));
    }
    if let Some(state) = &status.state {
        line("state", format!("devices stay at the end, flows are saved to {}", state.file.display()));
        if let Some(restored) = &state.restored {
            let RestoredStatus { flows, expired, left_out, blackout_us } = restored;
            let blackout = (blackout_us + 500) / 1000;
            line("", format!("{flows} flows restored, {expired} expired, {left_out} left out, {blackout} ms blackout"));
        }
    }
    if let Some(privileges) = &status.privileges {
        let PrivilegesStatus { devices, control, workers, no_new_privileges, system_calls_filtered } = privileges;
        let [devices, control, workers] = [devices, control, workers].map(|names| list(names));
        line("privileges", format!("devices: {devices}; control: {control}; workers: {workers}"));
        let calls = if *system_calls_filtered { "system calls are filtered" } else { "system calls are not filtered" };
        let gain = if *no_new_privileges { "nothing can be gained" } else { "more can be gained" };
        line("", format!("{calls}, {gain}"));
    }

    let mut ports = table(["Port", "Kind", "Interface", "Namespace", "Device"]);
    for port in &status.ports {
        let netns = port.netns.clone().unwrap_or_else(|| "-".to_owned());
        ports.add_row([port.name.clone(), port.kind.clone(), port.interface.clone(), netns, port.io.clone()]);
    }
    let _ = writeln!(text, "\n{}", ports.trim_fmt());

    let mut rows = table(["Time", "Generation", "Who", "What", "Result"]);
    for change in &status.changes {
        let result = match (&change.refused, &change.effect) {
            (Some(reason), _) => refused(reason),
            (None, Some(effect)) => format!("done: {}", changes::effect(effect)),
            (None, None) => "done".to_owned(),
        };
        rows.add_row([utc(change.at), change.generation.to_string(), change.who.clone(), change.what.clone(), result]);
    }
    let _ = writeln!(text, "\n{}", rows.trim_fmt());
    text
}

/// `2 d 3 h`, `3 h 4 min`, `4 min 5 s`, `5 s`.
fn up(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Seconds since 1970 as `2025-11-17T08:30:00Z` (RFC 3339). Days are counted in eras of 400 years, which all have the
/// same number of days, with years that start in March, so that a leap day is the last of its year.
fn utc(at: u64) -> String {
    const DAYS_OF_ERA: u64 = 146_097;
    // From 0000-03-01 to 1970-01-01.
    let days = at / 86_400 + 719_468;
    let (era, day) = (days / DAYS_OF_ERA, days % DAYS_OF_ERA);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = year + era * 400 + next;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", at / 3600 % 24, at / 60 % 60, at % 60)
}

/// A refusal in one line: its first, and how many follow.
fn refused(reason: &str) -> String {
    let mut lines = reason.lines();
    let first = lines.next().unwrap_or_default();
    match lines.count() {
        0 => format!("refused: {first}"),
        more => format!("refused: {first} (and {more} more lines: see --json)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::answers::{CatalogueStatus, Change, ChangeEffect, FlowOwner, PortStatus, StateStatus};

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(utc(1_763_368_200), "2025-11-17T08:30:00Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn a_refusal_takes_one_line() {
        assert_eq!(refused("no such subnet"), "refused: no such subnet");
        assert_eq!(refused("one\ntwo\nthree"), "refused: one (and 2 more lines: see --json)");
    }

    #[test]
    fn uptimes_are_short() {
        assert_eq!([up(5), up(245), up(11_040), up(183_600)], ["5 s", "4 min 5 s", "3 h 4 min", "2 d 3 h"]);
    }

    #[test]
    fn the_status_is_shown_whole() {
        let mut status = Status {
            version: "0.1.0".to_owned(),
            pid: 77,
            uptime_seconds: 65,
            generation: 3,
            document: "/etc/sidestep/demo.toml".into(),
            switched_endpoints: [("spoke/workload Microsoft.Storage".to_owned(), true)].into(),
            catalogue: Some(CatalogueStatus {
                path: "/etc/sidestep/tags.json".into(),
                tags: 12,
                change_number: 7,
                refused: Some("it is empty".to_owned()),
            }),
            workers: 2,
            draining: false,
            flows: FlowUse { used: 1, limit: 1_048_576, limit_per_nic: 500_000, owners: Vec::new() },
            flow_log: Default::default(),
            ports: vec![PortStatus {
                name: "vm1".to_owned(),
                kind: "nic".to_owned(),
                interface: "eth0".to_owned(),
                netns: Some("vm1".to_owned()),
                io: "plain".to_owned(),
            }],
            state: Some(StateStatus {
                file: "/var/lib/sidestep/state".into(),
                restored: Some(RestoredStatus { flows: 7, expired: 1, left_out: 2, blackout_us: 41_700 }),
            }),
            privileges: Some(PrivilegesStatus {
                devices: vec!["CAP_NET_ADMIN".to_owned(), "CAP_SYS_ADMIN".to_owned()],
                no_new_privileges: true,
                system_calls_filtered: true,
                ..PrivilegesStatus::default()
            }),
            changes: vec![
                Change {
                    at: 1_763_368_200,
                    who: "start".to_owned(),
                    what: "load demo.toml".to_owned(),
                    generation: 1,
                    refused: None,
                    effect: None,
                },
                Change {
                    at: 1_763_368_260,
                    who: "catalogue".to_owned(),
                    what: "reload the catalogue".to_owned(),
                    generation: 2,
                    refused: None,
                    effect: Some(ChangeEffect {
                        subnets: 1,
                        routes: Vec::new(),
                        flows_reset: 2,
                        flows_moved: 3,
                        flows_kept: 40,
                        flows_complete: true,
                    }),
                },
            ],
        };
        let counters = Counters {
            received: 5,
            forwarded: 4,
            dropped: [("no_route".to_owned(), 1)].into(),
            flows: 1,
            flows_created: 2,
            ..Counters::default()
        };
        assert_eq!(
            text(&status, &counters),
            "\
generation  3
node        sidestep 0.1.0, process 77, up 1 min 5 s
workers     2
document    /etc/sidestep/demo.toml
switched    spoke/workload Microsoft.Storage on
catalogue   /etc/sidestep/tags.json, 12 tags, change number 7
            its file has changed and is refused: it is empty
packets     5 received, 4 forwarded, 0 answered, 1 dropped
            dropped no_route 1
flows       1 of 1048576 (0 %), 500000 for each NIC; 2 made, 0 reset by changes
state       devices stay at the end, flows are saved to /var/lib/sidestep/state
            7 flows restored, 1 expired, 2 left out, 42 ms blackout
privileges  devices: CAP_NET_ADMIN CAP_SYS_ADMIN; control: none; workers: none
            system calls are filtered, nothing can be gained

Port  Kind  Interface  Namespace  Device
vm1   nic   eth0       vm1        plain

Time                  Generation  Who        What                  Result
2025-11-17T08:30:00Z  1           start      load demo.toml        done
2025-11-17T08:31:00Z  2           catalogue  reload the catalogue  done: routes of 1 subnet change, flows reset 2, moved 3, kept 40
"
        );

        status.draining = true;
        status.flows.used = 901_776;
        let owner = |port: &str, flows| FlowOwner { port: port.to_owned(), flows };
        status.flows.owners = vec![owner("vm1", 500_000), owner("vm2", 401_776)];
        let text = text(&status, &counters);
        let expected = "\
draining    no new flows are taken; `sidestep drain --end` takes them again
flows       901776 of 1048576 (86 %), 500000 for each NIC; 2 made, 0 reset by changes
            nearly full; most of them: vm1 500000, vm2 401776
";
        assert!(text.contains(expected), "{text}");
    }
}
