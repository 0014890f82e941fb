//! Two workers, and default outbound access, whose replies have to find the worker that owns their flow; workers that look
//! for packets before they sleep.

use crate::conversation::Web;
use crate::node::{Site, WORKLOAD};
use crate::site::FAMILIES;
use crate::support::privileged;

#[test]
fn two_workers_share_what_passes() {
    if !privileged() {
        return;
    }
    let node = Site::new(&["vm3", "internet"]).start(&["--workers", "2"]);
    let _web = Web::serve(&node.site.lab, "internet");
    assert_eq!(node.status()["workers"], 2);
    for family in FAMILIES {
        node.ping("vm3", family.web);
        // Many flows: some replies come in at the other worker.
        for _ in 0..8 {
            assert_eq!(node.curl("vm3", &family.url(family.web)), family.public);
        }
        for arguments in [&["-t", "1", "-P", "4"][..], &["-t", "1", "-P", "4", "-R"]] {
            node.iperf("vm3", "internet", family.web, arguments);
        }
    }
    let status = node.finish();
    assert!(status["counters"]["received_super"].as_u64() > Some(100), "{:#}", status["counters"]);
    assert!(status["counters"]["flows_created"].as_u64() >= Some(2 * (1 + 8 + 10)), "{:#}", status["counters"]);
}

#[test]
fn a_worker_that_looks_for_packets_before_it_sleeps_serves_and_obeys() {
    if !privileged() {
        return;
    }
    let site = Site::new(&["vm1", "storage", "onprem"]);
    let node = site.replace("tags = ", "poll = \"adaptive\"\ntags = ").start(&["--workers", "2"]);
    for family in FAMILIES {
        node.exec("vm1", &["ping", "-c", "200", "-i", "0.002", "-W", "2", family.onprem]);
        node.iperf("vm1", "onprem", family.onprem, &["-t", "1", "-P", "4"]);
        // A change is noticed by one that looks, and traffic goes on.
        node.endpoint(WORKLOAD, true);
        node.exec("vm1", &["ping", "-c", "200", "-i", "0.002", "-W", "2", family.service]);
        node.endpoint(WORKLOAD, false);
    }
    node.finish();
}
