//! What operators do with a node between real kernels: drain it, and tell about it in a bundle.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;

use serde_json::Value;

use crate::conversation::{accept, connect, listen};
use crate::node::{PATIENCE, Site, WORKLOAD};
use crate::site::FAMILIES;
use crate::support::{privileged, wait_for};

/// Sends bytes one way, and back.
#[track_caller]
fn echo(client: &mut TcpStream, server: &mut TcpStream, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    client.write_all(bytes).expect("send");
    server.read_exact(&mut received).expect("receive");
    server.write_all(&received).expect("send back");
    client.read_exact(&mut received).expect("receive back");
    assert_eq!(received, bytes);
}

#[test]
fn a_connection_goes_on_while_the_node_drains_and_a_new_one_waits_for_the_end_of_it() {
    if !privileged() {
        return;
    }
    let node = Site::new(&["vm1", "storage"]).start(&[]);
    node.endpoint(WORKLOAD, true);
    for (family, port) in FAMILIES.iter().zip(7_001..) {
        let to = family.socket(family.service, port);
        let listener = listen(&node.site.lab, "storage", port);
        let mut client = connect(&node.site.lab, "vm1", to).expect("connect");
        let (mut server, _) = accept(&listener);
        echo(&mut client, &mut server, b"before");

        let answer = node.tell(&["drain"]);
        assert_eq!((&answer["draining"], &answer["changed"]), (&Value::Bool(true), &Value::Bool(true)));
        assert_eq!(node.status()["draining"], true);
        echo(&mut client, &mut server, &[7; 100_000]);

        let dropped = || node.status()["counters"]["dropped"]["draining"].as_u64().unwrap_or(0);
        let before = dropped();
        thread::scope(|scope| {
            let second = scope.spawn(|| connect(&node.site.lab, "vm1", to));
            wait_for("the SYN is dropped by its name", PATIENCE, || (dropped() > before).then_some(()));
            listener.set_nonblocking(true).expect("set");
            assert_eq!(listener.accept().expect_err("nobody comes").kind(), ErrorKind::WouldBlock);
            assert!(!second.is_finished(), "no answer ends the attempt");
            echo(&mut client, &mut server, b"meanwhile");
            // The client tries again, and gets through once flows are taken.
            assert_eq!(node.tell(&["drain", "--end"])["draining"], false);
            listener.set_nonblocking(false).expect("set");
            second.join().expect("no panic").expect("connect at last");
            accept(&listener);
        });
        echo(&mut client, &mut server, b"after");
    }
    node.finish();
}

/// Nothing that a node on real devices tells of itself gets past the bundle's placeholders.
#[test]
fn a_bundle_of_a_node_at_work_has_its_devices_and_no_address() {
    if !privileged() {
        return;
    }
    let node = Site::new(&["vm1", "storage"]).start(&[]);
    node.endpoint(WORKLOAD, true);
    for family in FAMILIES {
        node.ping("vm1", family.service);
    }
    let bundle = |arguments: &[&str]| {
        let output = node.ask(&[&["support-bundle", "-o", "-"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let text = bundle(&[]);
    let told: Value = serde_json::from_str(&text).expect("JSON");
    let queue = &told["node"]["queues"][0];
    assert!(queue["device"].as_str().expect("text").contains("offload"), "{queue}");
    assert!(told["node"]["counters"]["forwarded"].as_u64() > Some(0));
    assert!(told["system"]["kernel"].is_string() && told["node"]["status"]["privileges"].is_object());
    let folder = node.document().parent().expect("a folder").display().to_string();
    assert!(!text.contains(&folder), "the folder of the document is told");
    for family in FAMILIES {
        assert!(!text.contains(family.service), "{} is told", family.service);
    }
    assert!(bundle(&["--addresses"]).contains(&folder));
    node.finish();
}
