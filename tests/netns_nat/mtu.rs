//! Path MTU: a device of 1280 bytes at the service or the internet edge, and a link of 1280 bytes behind it.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::chain::{FAR, Link, SERVER, extend};
use crate::network::{DEFAULT, Family, V4, V6, Variant, network, ping, ready};
use crate::node::{Node, PATIENCE};
use crate::site::ip;
use crate::sockets::udp;
use crate::support::wait_for;

/// The narrow place, in bytes.
const NARROW: u16 = 1280;

/// What is left of it between the families, where the header grows by 20 bytes.
const CROSSING: u16 = NARROW - 20;

/// Who talks to whom.
#[derive(Clone, Copy)]
struct Pair {
    host: &'static str,
    server: &'static str,
    to: &'static str,
    family: Family,
}

/// TCP gets through both ways, and the sender's kernel learns what the path takes: packets of that size that must not be
/// fragmented pass, by ICMP and by UDP.
#[track_caller]
fn learns(node: &Node, pair: Pair, path: u16) {
    let Pair { host, server, to, family } = pair;
    let lab = &node.site.lab;
    let (option, headers, any) = if family.option == "-4" { ("-4", 28, "0.0.0.0") } else { ("-6", 48, "::") };
    for arguments in [&["-n", "2M"][..], &["-n", "2M", "-R"]] {
        node.iperf(host, server, to, arguments);
    }
    let known = || {
        let route = ip(lab, host, &[option, "route", "get", to]);
        let mtu = route.split(" mtu ").nth(1).and_then(|rest| rest.split_whitespace().next());
        mtu.map_or(1500, |mtu| mtu.parse::<u16>().expect("a number"))
    };
    wait_for("the sender learns the path's MTU", PATIENCE, || {
        let mtu = known();
        assert!(mtu >= path, "{mtu} instead of {path}");
        let size = (mtu - headers).to_string();
        let probe = ["ping", "-M", "do", "-c", "1", "-W", "1", "-s", &size, to];
        let _too_long = lab.command(host, &probe).output().expect("run ping");
        (known() == path).then_some(())
    });
    let size = (path - headers).to_string();
    let text = node.exec(host, &["ping", "-M", "do", "-c", "2", "-i", "0.1", "-W", "3", "-s", &size, to]);
    assert!(text.contains(" 0% packet loss"), "{text}");
    let far = udp(lab, server, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 7000));
    let near = udp(lab, host, SocketAddr::new(any.parse().expect("an address"), 0));
    // What the path takes, and more, which its sender fragments.
    for length in [path - headers, 1472, 1900] {
        let words = vec![b'x'; usize::from(length)];
        // Fragments may have to be smaller still between the families, which the sender learns by the first that is lost.
        let mut came = vec![0; 2048];
        let from = wait_for("the datagram", PATIENCE, || {
            let _too_long = near.send_to(&words, family.socket(to, 7000));
            far.set_read_timeout(Some(Duration::from_secs(1))).expect("limit");
            far.recv_from(&mut came).ok().filter(|(length, _)| came[..*length] == words).map(|(_, from)| from)
        });
        // The other end has to learn it, too: its first datagram may be lost for that.
        let mut answer = [0; 2048];
        wait_for("the answer", PATIENCE, || {
            let _too_long = far.send_to(&words, from);
            near.set_read_timeout(Some(Duration::from_secs(1))).expect("limit");
            near.recv(&mut answer).is_ok_and(|got| got == words.len()).then_some(())
        });
    }
}

fn service(source: &str, families: &[(Family, u16)]) {
    if !ready() {
        return;
    }
    let site = network(&["vm1", "storage"], Variant { one: source, ..DEFAULT });
    let device = format!("netns = \"{}\"", site.lab.name("storage"));
    let node = site.replace(&device, &format!("{device}, mtu = {NARROW}")).start(&[]);
    for (family, path) in families {
        learns(&node, Pair { host: "vm1", server: "storage", to: family.service, family: *family }, *path);
    }
    node.finish();
}

/// A NIC that is narrower than the service: the service learns it. The NIC's own kernel knows, and says so in its SYNs;
/// datagrams have nothing but the path to tell them.
fn narrow_nic(source: &str, families: &[(Family, u16)]) {
    if !ready() {
        return;
    }
    let site = network(&["vm1", "storage"], Variant { one: source, ..DEFAULT });
    let device = format!("netns = \"{}\"", site.lab.name("vm1"));
    let node = site.replace(&device, &format!("{device}, mtu = {NARROW}")).start(&[]);
    let lab = &node.site.lab;
    for (family, path) in families {
        for arguments in [&["-n", "2M"][..], &["-n", "2M", "-R"]] {
            node.iperf("vm1", "storage", family.service, arguments);
        }
        let far = udp(lab, "storage", SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 7000));
        let any = if family.option == "-4" { "0.0.0.0" } else { "::" };
        let near = udp(lab, "vm1", SocketAddr::new(any.parse().expect("an address"), 0));
        near.send_to(b"who am I", family.socket(family.service, 7000)).expect("send");
        let mut came = vec![0; 2048];
        far.set_read_timeout(Some(PATIENCE)).expect("limit");
        let (_, from) = far.recv_from(&mut came).expect("the datagram");
        near.set_read_timeout(Some(Duration::from_secs(1))).expect("limit");
        // What the device of the service takes, in one piece, until its kernel has learnt better.
        let words = vec![b'x'; 1400];
        wait_for("the answer", PATIENCE, || {
            let _too_long = far.send_to(&words, from);
            near.recv(&mut came).is_ok_and(|got| got == words.len()).then_some(())
        });
        let name = from.ip().to_canonical().to_string();
        let option = if name.contains(':') { "-6" } else { "-4" };
        let route = ip(lab, "storage", &[option, "route", "get", &name]);
        assert!(route.contains(&format!(" mtu {path} ")), "{source}: {route}");
        assert_eq!(crate::network::dropped(&node.status(), "packet_too_big"), 0);
    }
    node.finish();
}

fn behind_the_service(source: &str, families: &[(Family, u16)]) {
    if !ready() {
        return;
    }
    let node = network(&["vm1", "storage", "server"], Variant { one: source, ..DEFAULT }).start(&[]);
    extend(&node, Link { mtu: NARROW, ..SERVER }, true);
    for (family, path) in families {
        learns(&node, Pair { host: "vm1", server: "server", to: family.service, family: *family }, *path);
    }
    node.finish();
}

const BOTH: [(Family, u16); 2] = [(V4, NARROW), (V6, NARROW)];

const MAP: &str = r#"{ prefix_map = ["100.64.1.0/24", "fd00:64:1::/64"] }"#;

#[test]
fn a_narrow_service() {
    service("\"private\"", &BOTH);
}

#[test]
fn a_narrow_service_by_mapped_prefixes() {
    service(MAP, &BOTH);
}

#[test]
fn a_narrow_service_by_a_pool() {
    service(r#"{ snat = "shared" }"#, &BOTH);
}

#[test]
fn a_narrow_service_by_identities() {
    service("\"identity6\"", &[(V4, CROSSING)]);
}

#[test]
fn a_narrow_nic() {
    narrow_nic("\"private\"", &BOTH);
}

#[test]
fn a_narrow_nic_by_mapped_prefixes() {
    narrow_nic(MAP, &BOTH);
}

#[test]
fn a_narrow_nic_by_a_pool() {
    narrow_nic(r#"{ snat = "shared" }"#, &BOTH);
}

#[test]
fn a_narrow_nic_by_identities() {
    narrow_nic("\"identity6\"", &[(V4, NARROW + 20)]);
}

#[test]
fn a_narrow_link_behind_the_service() {
    behind_the_service("\"private\"", &BOTH);
}

#[test]
fn a_narrow_link_behind_the_service_by_mapped_prefixes() {
    behind_the_service(MAP, &BOTH);
}

#[test]
fn a_narrow_link_behind_the_service_by_a_pool() {
    behind_the_service(r#"{ snat = "shared" }"#, &BOTH);
}

#[test]
fn a_narrow_link_behind_the_service_by_identities() {
    behind_the_service("\"identity6\"", &[(V4, CROSSING)]);
}

#[test]
fn a_narrow_internet() {
    if !ready() {
        return;
    }
    let site = network(&["vm1", "public", "internet", "far"], DEFAULT);
    let site =
        site.replace("\"2001:db8:ffff::129/128\"] }", &format!("\"2001:db8:ffff::129/128\"], mtu = {NARROW} }}"));
    let node = site.start(&[]);
    extend(&node, FAR, true);
    for host in ["vm1", "public"] {
        for family in [V4, V6] {
            learns(&node, Pair { host, server: "far", to: family.far, family }, NARROW);
        }
    }
    node.finish();
}

#[test]
fn a_narrow_link_of_the_internet() {
    if !ready() {
        return;
    }
    let node = network(&["vm1", "public", "internet", "far"], DEFAULT).start(&[]);
    extend(&node, Link { mtu: NARROW, ..FAR }, true);
    for host in ["vm1", "public"] {
        for family in [V4, V6] {
            learns(&node, Pair { host, server: "far", to: family.far, family }, NARROW);
            // The other way the far end is the one who is told, by its own router here and by the node elsewhere.
            ping(&node, host, family.far, 4000);
        }
    }
    node.finish();
}
