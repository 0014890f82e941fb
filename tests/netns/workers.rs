//! Two workers, and default outbound access, whose replies have to find the worker that owns their flow.

use crate::conversation::Web;
use crate::node::Site;
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
