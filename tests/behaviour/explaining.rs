//! Explaining runs the stages of forwarding: what it says is what happens.

use sidestep::packet::frame::Frame;
use sidestep::path::{DropReason, Verdict, explain};

use crate::bench::Bench;
use crate::packets::{Tcp, echo, udp};

#[test]
fn the_explanation_names_every_stage_and_its_decision() {
    let bench = Bench::with_endpoint();
    let frame = Frame::from_packet(&Tcp::default().bytes());
    let explanation = explain(bench.forwarder.snapshot(), bench.port("vm1"), &frame);
    let stages: Vec<_> = explanation.stages.iter().map(|record| record.stage.as_str()).collect();
    assert_eq!(stages, ["parse", "flow", "origin", "route", "next hop", "source", "send"]);
    let said: Vec<_> = explanation.stages.iter().map(|record| record.decision.as_str()).collect();
    assert_eq!(said[2], "pass");
    assert!(said[3].contains("VirtualNetworkServiceEndpoint"), "{}", said[3]);
    assert_eq!(said[4], "VirtualNetworkServiceEndpoint through contosodata");
    assert_eq!(said[5], "10.1.1.4 stays");
}

#[test]
fn the_explanation_agrees_with_forwarding() {
    let mut bench = Bench::new();
    let packets = [
        ("vm1", Tcp::default().bytes()),
        ("vm1", Tcp { from: ("10.1.1.9", 1), ..Tcp::default() }.bytes()),
        ("vm2", udp(("10.1.2.4", 1), ("198.18.0.1", 1), b"")),
        ("vm3", udp(("10.1.3.4", 1), ("198.51.100.80", 1), b"")),
        ("gateway", echo("192.168.0.9", "10.1.3.4", false, 1, 64)),
        ("internet", udp(("198.51.100.80", 1), ("10.1.1.4", 1), b"")),
        ("contosodata", udp(("20.60.1.10", 1), ("10.1.1.4", 1), b"")),
        ("vm1", vec![0x45, 0]),
    ];
    for (port, packet) in packets {
        let said = explain(bench.forwarder.snapshot(), bench.port(port), &Frame::from_packet(&packet)).result;
        let done = bench.inject(port, packet);
        bench.take();
        match said {
            Ok(decision) => assert_eq!(done, Verdict::Forwarded(decision.egress), "{port}"),
            Err(reason) => assert_eq!(done, Verdict::Dropped(reason), "{port}"),
        }
    }
}

#[test]
fn explaining_changes_nothing() {
    let bench = Bench::with_endpoint();
    let frame = Frame::from_packet(&Tcp { hop_limit: 1, ..Tcp::default() }.bytes());
    let explanation = explain(bench.forwarder.snapshot(), bench.port("vm1"), &frame);
    assert_eq!(explanation.result, Err(DropReason::HopLimitExceeded));
    assert!(bench.flows().is_empty());
    assert_eq!(bench.report().received, 0);
}
