//! Draining: what the node, its socket's answers, its metrics and its readiness say of it.

use super::*;
use crate::control::answers::ExplainQuery;
use crate::control::explain::PacketVerdict;
use crate::telemetry::metrics;

#[test]
fn a_node_that_drains_says_so_until_it_ends() {
    let Setup { node, stage, .. } = &Setup::new();
    stage.flows.lock().unwrap().push(flow([20, 60, 1, 10]));
    let row = |name: &str| {
        let text = metrics::text(node.seen()).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned)).unwrap()
    };
    assert!(!node.status().draining);
    assert_eq!((row("sidestep_draining"), row("sidestep_ready")), ("0.0".to_owned(), "1.0".to_owned()));

    let answer = node.drain("test", true);
    assert_eq!((answer.draining, answer.changed, answer.flows), (true, true, 1));
    assert!(*stage.draining.lock().unwrap() && node.status().draining);
    assert_eq!((row("sidestep_draining"), row("sidestep_ready")), ("1.0".to_owned(), "0.0".to_owned()));
    let change = node.status().changes.last().cloned().unwrap();
    assert_eq!((change.who.as_str(), change.what.as_str(), change.generation), ("test", "drain", 1));

    let asked = ExplainQuery {
        from: "vm1".to_owned(),
        to: "20.60.1.10".to_owned(),
        protocol: "tcp".to_owned(),
        port: Some(443),
    };
    let explained = node.explain(&asked).unwrap();
    assert!(explained.draining && matches!(explained.verdict, PacketVerdict::Forwarded { .. }), "{explained:?}");

    // A change of what is in force is no end of it.
    node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    assert!(node.is_draining());
    let before = node.status().changes.len();
    assert!(!node.drain("test", true).changed);
    assert_eq!(node.status().changes.len(), before, "what changes nothing is no change");

    let answer = node.drain("test", false);
    assert_eq!((answer.draining, answer.changed), (false, true));
    assert!(!node.status().draining && !node.explain(&asked).unwrap().draining);
    assert_eq!(node.status().changes.last().unwrap().what, "end the drain");
}
