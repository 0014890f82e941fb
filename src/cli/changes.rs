//! What a change does, or would do, to routes and flows, as text.

use std::fmt::Write as _;

use super::flows;
use crate::control::answers::{ChangeEffect, DocumentAnswer, FlowChanges, RouteChanges};

/// Flows that are shown; JSON has all that the node lists.
const SHOWN: usize = 20;

/// The routes that change, like a difference: nothing where there are none.
pub(crate) fn routes(changes: &[RouteChanges]) -> String {
    let mut text = String::new();
    for change in changes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", change.subnet);
        for (sign, routes) in [('-', &change.removed), ('+', &change.added)] {
            for route in routes {
                let _ = writeln!(text, "  {sign} {route}");
            }
        }
    }
    text
}

/// The flows that are cut, the first of them, and how many more there are: nothing where there are none.
pub(crate) fn flows_cut(changes: &FlowChanges, dry_run: bool) -> String {
    let shown = changes.cut.len().min(SHOWN);
    if shown == 0 {
        return String::new();
    }
    let heading = if dry_run { "flows that would be cut" } else { "flows cut" };
    let mut text = format!("{heading}:\n{}\n", flows::rows(&changes.cut[..shown]));
    let more = (changes.reset + changes.moved).saturating_sub(shown as u64);
    if more > 0 {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "and {more} more");
    }
    text
}

/// `flows reset 1, moved 2, kept 4`, or `flows that would be …`.
pub(crate) fn flows_counted(changes: &FlowChanges, dry_run: bool) -> String {
    let FlowChanges { complete, reset, moved, kept, .. } = changes;
    let would_be = if dry_run { "that would be " } else { "" };
    format!("flows {would_be}reset {reset}, moved {moved}, kept {kept}{}", so_far(*complete))
}

/// What follows counts that are too low.
fn so_far(complete: bool) -> &'static str {
    if complete { "" } else { " so far: not every worker has taken the change in yet" }
}

/// What putting a document or a catalogue in force does, as a difference and a last line.
pub(crate) fn document(answer: &DocumentAnswer) -> String {
    let mut text = routes(&answer.routes);
    for (what, ports) in [
        ("new ports", &answer.ports_added),
        ("ports gone", &answer.ports_removed),
        ("ports changed", &answer.ports_changed),
    ] {
        if !ports.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{what}: {}", ports.join(", "));
        }
    }
    text.push_str(&flows_cut(&answer.flows, answer.dry_run));
    let subnets = subnets_counted(answer.routes.len());
    let flows = flows_counted(&answer.flows, answer.dry_run);
    let done = if answer.dry_run { "nothing done, still generation" } else { "generation" };
    let _ = writeln!(text, "{done} {}: {subnets}, {flows}", answer.generation);
    text
}

/// `routes of 2 subnets change`
fn subnets_counted(count: usize) -> String {
    match count {
        0 => "no routes change".to_owned(),
        1 => "routes of 1 subnet change".to_owned(),
        count => format!("routes of {count} subnets change"),
    }
}

/// What a change that is done did, in short: for the history.
pub(crate) fn effect(effect: &ChangeEffect) -> String {
    let ChangeEffect { subnets, flows_reset, flows_moved, flows_kept, flows_complete, .. } = effect;
    let flows = format!("flows reset {flows_reset}, moved {flows_moved}, kept {flows_kept}");
    format!("{}, {flows}{}", subnets_counted(*subnets), so_far(*flows_complete))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flows::tests::flow;

    #[test]
    fn the_first_flows_are_shown_and_the_others_counted() {
        let mut changes = FlowChanges { complete: true, reset: 1, moved: 0, kept: 4, cut: vec![flow()] };
        assert_eq!(
            flows_cut(&changes, true),
            "\
flows that would be cut:
Protocol  From  Source          To           Destination     Source seen  Destination seen  Next hop type                  Phase        Packets  Bytes
tcp       vm1   10.1.1.4:40000  contosodata  20.60.1.10:443  =            =                 VirtualNetworkServiceEndpoint  established  10/12    1000/90000
"
        );
        assert_eq!(flows_counted(&changes, true), "flows that would be reset 1, moved 0, kept 4");
        assert_eq!(flows_counted(&changes, false), "flows reset 1, moved 0, kept 4");

        // 130 are cut, of which the node lists 100.
        changes = FlowChanges { complete: true, reset: 30, moved: 100, kept: 0, cut: vec![flow(); 100] };
        let text = flows_cut(&changes, false);
        assert!(text.starts_with("flows cut:\nProtocol "), "{text}");
        assert_eq!(text.lines().count(), 1 + 1 + 20 + 1, "{text}");
        assert!(text.ends_with("\nand 110 more\n"), "{text}");

        changes.cut.truncate(20);
        changes = FlowChanges { reset: 20, moved: 0, ..changes };
        assert_eq!(flows_cut(&changes, false).lines().count(), 1 + 1 + 20, "there are no more");
        changes.cut.clear();
        assert_eq!(flows_cut(&changes, true), "");
        changes.complete = false;
        assert_eq!(
            flows_counted(&changes, false),
            "flows reset 20, moved 0, kept 0 so far: not every worker has taken the change in yet"
        );
    }

    #[test]
    fn changes_are_shown_like_a_difference() {
        let mut answer = DocumentAnswer {
            generation: 4,
            dry_run: true,
            routes: vec![RouteChanges {
                subnet: "spoke/workload".to_owned(),
                added: vec!["Default Active 3 prefixes VirtualNetworkServiceEndpoint Microsoft.Storage".to_owned()],
                removed: vec!["User Active 20.0.0.0/8 Internet direct".to_owned()],
            }],
            ports_added: vec!["vm2".to_owned(), "vm3".to_owned()],
            ports_removed: Vec::new(),
            ports_changed: vec!["internet".to_owned()],
            flows: FlowChanges { complete: true, reset: 1, moved: 1, kept: 5, cut: vec![flow()] },
        };
        assert_eq!(
            document(&answer),
            "\
spoke/workload
  - User Active 20.0.0.0/8 Internet direct
  + Default Active 3 prefixes VirtualNetworkServiceEndpoint Microsoft.Storage
new ports: vm2, vm3
ports changed: internet
flows that would be cut:
Protocol  From  Source          To           Destination     Source seen  Destination seen  Next hop type                  Phase        Packets  Bytes
tcp       vm1   10.1.1.4:40000  contosodata  20.60.1.10:443  =            =                 VirtualNetworkServiceEndpoint  established  10/12    1000/90000
and 1 more
nothing done, still generation 4: routes of 1 subnet change, flows that would be reset 1, moved 1, kept 5
"
        );
        answer.dry_run = false;
        let text = document(&answer);
        assert!(text.contains("\nflows cut:\n"), "{text}");
        assert!(
            text.ends_with("\ngeneration 4: routes of 1 subnet change, flows reset 1, moved 1, kept 5\n"),
            "{text}"
        );
    }
}
