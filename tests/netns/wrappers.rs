//! What the document puts around a port: a line with delay and loss, and a capture.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::node::{Site, WORKLOAD, port_counter};
use crate::site::FAMILIES;
use crate::support::{privileged, skipped};

/// The fastest answer, in milliseconds.
#[track_caller]
fn fastest(ping: &str) -> f64 {
    let text = ping.split("rtt min/avg/max/mdev = ").nth(1).and_then(|rest| rest.split('/').next());
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("ping says {ping}"))
}

#[test]
fn a_line_delays_and_a_capture_shows_it() {
    if !privileged() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let capture = folder.path().join("vm1.pcapng");
    let site = Site::new(&["vm1", "onprem", "internet", "storage"]);
    let (vm1, gateway) = (site.lab.name("vm1"), "\"fd00:c0a8::1/64\"] }");
    let site = site.replace(gateway, "\"fd00:c0a8::1/64\"], link = { delay = \"15ms\" } }");
    let pcap = format!("netns = \"{vm1}\", pcap = \"{}\" }}", capture.display());
    let node = site.replace(&format!("netns = \"{vm1}\" }}"), &pcap).start(&[]);
    for family in FAMILIES {
        // There and back.
        let slow = fastest(&node.ping("vm1", family.service));
        assert!((30.0..200.0).contains(&slow), "{slow} ms through the tunnel");
    }
    node.endpoint(WORKLOAD, true);
    for family in FAMILIES {
        let fast = fastest(&node.ping("vm1", family.service));
        assert!(fast < 30.0, "{fast} ms over the backbone");
    }
    node.finish();

    // Through a pipe: where tcpdump may read files is not this test's matter.
    let file = File::open(&capture).expect("the capture");
    match Command::new("tcpdump").args(["-n", "-r", "-"]).stdin(Stdio::from(file)).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8_lossy(&output.stdout);
            for [a, b, family] in [["10.1.1.4", "20.60.1.10", ""], ["fd00:1:0:1::4", "2603:1020:206:100::10", "6"]] {
                for (there, what) in [(format!("{a} > {b}"), "request"), (format!("{b} > {a}"), "reply")] {
                    let line = format!("{there}: ICMP{family}{} echo {what}", if family.is_empty() { "" } else { "," });
                    assert_eq!(text.matches(&line).count(), 6, "`{line}` in\n{text}");
                }
            }
        }
        Err(_) => skipped("tcpdump, which would read the capture"),
    }
}

#[test]
fn a_line_counts_what_it_loses() {
    if !privileged() {
        return;
    }
    let site = Site::new(&["vm1", "storage"]);
    let storage = format!("netns = \"{}\"", site.lab.name("storage"));
    let lossy = format!("{storage}, link = {{ loss = \"30%\", seed = 7 }}");
    let node = site.replace(&storage, &lossy).start(&[]);
    node.endpoint(WORKLOAD, true);
    let ping = ["ping", "-q", "-c", "60", "-i", "0.01", "-W", "1", FAMILIES[0].service];
    let output = node.site.lab.command("vm1", &ping).output().expect("run ping");
    let text = String::from_utf8_lossy(&output.stdout);
    let received = text.split(" received").next().and_then(|start| start.rsplit(' ').next());
    let received: u64 = received.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("ping says {text}"));
    let status = node.finish();
    let lost: u64 =
        ["link_in_lost", "link_out_lost"].iter().map(|name| port_counter(&status, "contosodata", name)).sum();
    assert_eq!(lost, 60 - received, "{text}");
    // Half of 60 get through both ways; fewer than one run in a million is outside of this.
    assert!((10..50).contains(&lost), "{lost} of 60 lost");
}
