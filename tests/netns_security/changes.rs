//! Changes under open connections: an endpoint, and rules of a security group.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::support::{Lab, Running};
use super::{APP, BACKUP, CONTOSO, FIREWALL, JUMPBOX, SECURED, curl, curl_line, on_both, secured};

/// A download over TLS that takes longer than any test, whose first bytes have arrived.
fn downloading(lab: &Lab, host: &str, name: &str) -> Running {
    let file = lab.folder().join("download");
    let line =
        curl_line(lab, &format!("--max-time 60 --limit-rate 2M -o {} https://{name}/bytes/1000000000", file.display()));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.netns(host)]).args(line.split_whitespace());
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start curl");
    let download = Running(child);
    let until = Instant::now() + Duration::from_secs(15);
    while file.metadata().map_or(0, |data| data.len()) == 0 {
        assert!(Instant::now() < until, "nothing arrives from {name}");
        std::thread::sleep(Duration::from_millis(10));
    }
    download
}

/// The exit code of a download that ends.
#[track_caller]
fn ended(download: &mut Child) -> Option<i32> {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until {
        if let Some(status) = download.try_wait().expect("wait") {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the download goes on")
}

/// That a download makes progress.
#[track_caller]
fn goes_on(lab: &Lab, download: &mut Child) {
    let length = || lab.folder().join("download").metadata().expect("a file").len();
    // Behind what may be in the sockets' buffers.
    let enough = length() + (12 << 20);
    let until = Instant::now() + Duration::from_secs(20);
    while length() < enough {
        assert!(download.try_wait().expect("wait").is_none(), "the download has ended");
        assert!(Instant::now() < until, "the download stands still");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn s7_an_endpoint_enabled_under_a_download_resets_it_and_the_next_one_is_private() {
    let rules = r#"ip_rules = ["203.0.113.200"], virtual_network_rules = [{ subnet = "spoke/jumpbox", ignore_missing_endpoint = true }] }"#;
    let rules = format!(r#"firewall = {{ default_action = "Deny", {rules}"#);
    on_both("s7", &secured(FIREWALL, &rules), |lab| {
        assert_eq!(curl(lab, JUMPBOX, &format!("https://{BACKUP}/")).source(), "203.0.113.200");
        let mut download = downloading(lab, JUMPBOX, BACKUP);
        lab.run(&["endpoint", "enable", "spoke/jumpbox", "Microsoft.Storage"]);
        assert_eq!(ended(&mut download.0), Some(56), "curl says that the connection was reset");
        assert_eq!(curl(lab, JUMPBOX, &format!("https://{BACKUP}/")).source(), "10.1.2.4");
    });
}

/// The rule that lets the subnet reach storage, turned around.
fn denied(document: &str) -> String {
    let (start, end) = document.split_once("access = \"Allow\"").expect("a rule that allows");
    format!("{start}access = \"Deny\"{end}")
}

#[test]
fn a_rule_that_denies_ends_downloads_where_the_group_flushes() {
    on_both("flush", SECURED, |lab| {
        let mut download = downloading(lab, APP, CONTOSO);
        lab.apply(&denied(SECURED));
        assert_eq!(ended(&mut download.0), Some(56));
        let curl = curl(lab, APP, &format!("--connect-timeout 1 https://{CONTOSO}/"));
        assert_eq!(curl.code, Some(28), "{curl:?}");
    });
}

#[test]
fn n3_a_rule_that_denies_leaves_downloads_where_it_does_not() {
    let document = secured("flush_connection = true", "flush_connection = false");
    on_both("stay", &document, |lab| {
        let mut download = downloading(lab, APP, CONTOSO);
        lab.apply(&denied(&document));
        goes_on(lab, &mut download.0);
        let curl = curl(lab, APP, &format!("--connect-timeout 1 https://{CONTOSO}/"));
        assert_eq!(curl.code, Some(28), "{curl:?}");
    });
}
