//! Changes of documents and of the catalogue's file while packets pass.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::conversation::Web;
use crate::node::{Node, PATIENCE, Pinging, Site, WORKLOAD, has_interface};
use crate::site::FAMILIES;
use crate::support::{privileged, wait_for};

/// Writes a document beside the node's and gives its path.
fn write(node: &Node, name: &str, text: &str) -> String {
    let path = node.site.file(name);
    fs::write(&path, text).expect("write the document");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn a_document_is_applied_under_traffic_or_refused_whole() {
    if !privileged() {
        return;
    }
    let site = Site::new(&["vm1", "vm3", "onprem", "internet", "storage"]);
    let whole = site.text.clone();
    let vm3 = site.lab.name("vm3");
    let start = whole.find("[[nic]]\nname = \"vm3\"").expect("vm3");
    let length = whole[start..].find("[[nic]]\nname = \"appliance\"").expect("the next NIC");
    let nic = whole[start..start + length].to_owned();
    let node = site.replace(&nic, "").start(&[]);
    let [ipv4, ipv6] = FAMILIES;
    for family in FAMILIES {
        node.ping("vm1", family.service);
    }
    let pings = [Pinging::start(&node, "vm1", ipv4.service), Pinging::start(&node, "vm1", ipv6.service)];
    assert!(!has_interface(Some(&vm3), "eth0"));

    let added = write(&node, "added.toml", &whole);
    let dry = node.tell(&["apply", "-c", &added, "--dry-run"]);
    assert_eq!((&dry["ports_added"], &dry["generation"]), (&json!(["vm3"]), &json!(1)));
    assert!(!has_interface(Some(&vm3), "eth0"));
    let answer = node.tell(&["apply", "-c", &added]);
    assert_eq!((&answer["ports_added"], &answer["generation"]), (&json!(["vm3"]), &json!(2)));
    for (family, [_, _, address]) in FAMILIES.map(|family| (family, family.vms)) {
        node.ping("vm1", address);
        node.ping("vm3", family.vms[0]);
    }

    let bad = whole.replace("10.1.3.0/24", "10.1.2.0/25");
    let bad = bad.replace("\"Microsoft.Storage\"", "\"Microsoft.Storge\"");
    let output = node.ask(&["apply", "-c", &write(&node, "bad.toml", &bad)]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for mistake in ["10.1.2.0/25", "Microsoft.Storge", "bad.toml:"] {
        assert!(text.contains(mistake), "{text}");
    }
    assert_eq!(node.status()["generation"], 2);
    assert!(node.status()["changes"].as_array().expect("a list").last().expect("a change")["refused"].is_string());
    node.ping("vm3", ipv4.vms[0]);

    let document = node.document();
    let answer = node.tell(&["apply", "-c", document.to_str().expect("UTF-8")]);
    assert_eq!((&answer["ports_removed"], &answer["generation"]), (&json!(["vm3"]), &json!(3)));
    assert!(!has_interface(Some(&vm3), "eth0"));
    for ping in pings {
        ping.finish();
    }
    node.finish_by(Signal::INT);
}

/// Replaces the catalogue's file in one step.
fn replace_catalogue(node: &Node, text: &str) {
    let new = node.site.file("new.json");
    fs::write(&new, text).expect("write the catalogue");
    fs::rename(new, node.site.file("service-tags.json")).expect("rename");
}

#[test]
fn the_catalogue_is_reloaded_or_refused_aloud() {
    if !privileged() {
        return;
    }
    let node = Site::new(&["vm1", "onprem", "internet", "storage"]).start(&[]);
    let _service = Web::serve(&node.site.lab, "storage");
    let [ipv4, ipv6] = FAMILIES;
    let seen = |source: [&str; 2]| {
        for (family, source) in FAMILIES.iter().zip(source) {
            assert_eq!(node.curl("vm1", &family.url(family.service)), source);
        }
    };
    node.endpoint(WORKLOAD, true);
    seen([ipv4.vms[0], ipv6.vms[0]]);

    // The week after, the IPv4 prefix of the service is no storage any more.
    let original = fs::read_to_string(node.site.file("service-tags.json")).expect("read the catalogue");
    let mut changed: Value = serde_json::from_str(&original).expect("JSON");
    let mut removed = 0;
    for tag in changed["values"].as_array_mut().expect("tags") {
        if tag["name"].as_str().is_some_and(|name| name.starts_with("Storage")) {
            let prefixes = tag["properties"]["addressPrefixes"].as_array_mut().expect("prefixes");
            let before = prefixes.len();
            prefixes.retain(|prefix| !prefix.as_str().is_some_and(|prefix| prefix.starts_with("20.60.")));
            removed += before - prefixes.len();
        }
    }
    assert!(removed > 0, "storage has no such prefix");
    let generation = |wanted: u64| {
        wait_for("a new generation", PATIENCE, || (node.status()["generation"] == wanted).then_some(()));
    };
    replace_catalogue(&node, &changed.to_string());
    generation(3);
    seen([ipv4.onprem_public, ipv6.vms[0]]);

    replace_catalogue(&node, &original[..original.len() / 2]);
    let refused =
        wait_for("the refusal", PATIENCE, || node.status()["catalogue"]["refused"].as_str().map(str::to_owned));
    assert!(refused.contains("service-tags.json"), "{refused}");
    assert!(node.log().contains("the changed catalogue is refused"), "{}", node.log());
    assert_eq!(node.status()["generation"], 3);
    seen([ipv4.onprem_public, ipv6.vms[0]]);

    replace_catalogue(&node, &original);
    generation(4);
    assert_eq!(node.status()["catalogue"]["refused"], Value::Null);
    seen([ipv4.vms[0], ipv6.vms[0]]);
    node.finish();
}
