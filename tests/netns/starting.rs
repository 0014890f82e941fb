//! How a node starts and ends, and what a second one on the same devices or socket is told.

use std::fs::File;
use std::process::Stdio;

use crate::node::{PATIENCE, Site, WORKLOAD};
use crate::site::FAMILIES;
use crate::support::{Process, privileged, wait_for_end};

/// Starts a node that must be refused with exit code 1, and gives what it says.
#[track_caller]
fn refused(site: &Site, socket: &str) -> String {
    let log = site.file("second.log");
    let mut command = site.run_command("site.toml", socket);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(&log).expect("make the log"));
    let mut second = Process(command.spawn().expect("start sidestep"));
    let end = wait_for_end("the second node ends", PATIENCE, &mut second.0);
    let text = std::fs::read_to_string(log).expect("read the log");
    assert_eq!(end.code(), Some(1), "{text}");
    text
}

#[test]
fn a_second_node_is_refused_and_the_first_goes_on() {
    if !privileged() {
        return;
    }
    let node = Site::new(&["vm1", "storage"]).start(&[]);
    node.endpoint(WORKLOAD, true);
    node.ping("vm1", FAMILIES[0].service);

    let text = refused(&node.site, "second.sock");
    let place = format!(
        "port `vm1`: the interface `eth0` exists already in the network namespace `{}`",
        node.site.lab.name("vm1")
    );
    assert!(text.contains(&place), "{text}");
    assert!(text.contains("another sidestep may be running"), "{text}");
    assert!(!node.site.file("second.sock").exists());

    let text = refused(&node.site, "control.sock");
    let socket = node.site.file("control.sock");
    assert!(text.contains(&format!("another node runs on {}", socket.display())), "{text}");

    for family in FAMILIES {
        node.ping("vm1", family.service);
    }
    assert_eq!(node.status()["generation"], 2);
    node.finish();
}

#[test]
fn a_document_with_mistakes_does_not_start() {
    if !privileged() {
        return;
    }
    let site = Site::new(&["vm1"]).replace("route_table = \"to-appliance\"", "route_table = \"to-aplliance\"");
    std::fs::write(site.file("site.toml"), &site.text).expect("write the document");
    let text = refused(&site, "control.sock");
    assert!(text.contains("site.toml:") && text.contains("to-aplliance") && text.contains("1 mistake"), "{text}");
    assert!(!site.file("control.sock").exists());
    assert!(!site.lab.exec("vm1", &["ip", "link"]).contains("eth0"));
}

#[test]
fn the_end_of_stdin_is_the_end() {
    if !privileged() {
        return;
    }
    let node = Site::new(&["vm1", "storage"]).start(&[]);
    node.endpoint(WORKLOAD, true);
    node.ping("vm1", FAMILIES[0].service);
    node.finish_by_stdin();
}
