//! What coturn finds out about the NAT (RFC 5780) is what the document asks for.

use std::process::Stdio;

use crate::network::{DEFAULT, V4, Variant, network, ready};
use crate::node::{Node, PATIENCE};
use crate::site::ip;
use crate::support::{Process, wait_for};

/// The server's second address.
const SECOND: &str = "198.51.100.81";

/// A STUN server with the two addresses and two ports that discovery takes.
fn server(node: &Node) -> Process {
    let lab = &node.site.lab;
    ip(lab, "internet", &["address", "add", &format!("{SECOND}/32"), "dev", "lo"]);
    let (pid, users) = (node.site.file("turnserver.pid"), node.site.file("turndb"));
    let mut command =
        lab.command("internet", &["turnserver", "-n", "--stun-only", "--no-tls", "--no-dtls", "--no-cli"]);
    command.args(["--log-file", "stdout", "--listening-port", "3478", "--alt-listening-port", "3479"]);
    command.args(["-L", V4.web, "-L", SECOND]);
    command.arg("--pidfile").arg(pid).arg("--userdb").arg(users);
    let server = Process(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start turnserver"));
    wait_for("turnserver listens", PATIENCE, || {
        let sockets = node.exec("internet", &["ss", "-Hlun"]);
        let all = [V4.web, SECOND]
            .iter()
            .all(|address| ["3478", "3479"].iter().all(|port| sockets.contains(&format!("{address}:{port}"))));
        all.then_some(())
    });
    server
}

/// The kind of NAT that coturn's client names, as the language's words for mapping and filtering.
#[track_caller]
fn found(node: &Node, option: &str, what: &str) -> &'static str {
    let text = node.exec("vm1", &["timeout", "60", "turnutils_natdiscovery", option, V4.web]);
    let kinds = [
        ("Address and Port Dependent", "address-and-port-dependent"),
        ("Address Dependent", "address-dependent"),
        ("Endpoint Independent", "endpoint-independent"),
    ];
    let named = kinds.iter().filter(|(name, _)| text.contains(&format!("NAT with {name} {what}!")));
    match *named.map(|(_, word)| *word).collect::<Vec<_>>() {
        [word] => word,
        _ => panic!("turnutils_natdiscovery {option} says {text}"),
    }
}

fn agrees(mapping: &str, filtering: &str) {
    if !ready() {
        return;
    }
    let translation = format!("mapping = \"{mapping}\"\nfiltering = \"{filtering}\"");
    let node = network(&["vm1", "internet"], Variant { translation: &translation, ..DEFAULT }).start(&[]);
    let server = server(&node);
    assert_eq!(found(&node, "-m", "Mapping"), mapping);
    assert_eq!(found(&node, "-f", "Filtering"), filtering);
    drop(server);
    node.finish();
}

#[test]
fn what_documents_do_not_say_depends_on_address_and_port() {
    if !ready() {
        return;
    }
    let node = network(&["vm1", "internet"], DEFAULT).start(&[]);
    let server = server(&node);
    assert_eq!(found(&node, "-m", "Mapping"), "address-and-port-dependent");
    assert_eq!(found(&node, "-f", "Filtering"), "address-and-port-dependent");
    drop(server);
    node.finish();
}

#[test]
fn endpoint_independent_mapping_with_endpoint_independent_filtering() {
    agrees("endpoint-independent", "endpoint-independent");
}

#[test]
fn endpoint_independent_mapping_with_address_dependent_filtering() {
    agrees("endpoint-independent", "address-dependent");
}

#[test]
fn endpoint_independent_mapping_with_address_and_port_dependent_filtering() {
    agrees("endpoint-independent", "address-and-port-dependent");
}
