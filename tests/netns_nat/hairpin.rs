//! Hosts inside that talk to each other by their public addresses: each sees the other's public side (RFC 4787 REQ-9,
//! RFC 5382 REQ-8, RFC 5508 REQ-7).

use std::net::SocketAddr;

use crate::conversation::{Web, accept, listen};
use crate::network::{DEFAULT, Family, OPEN, V4, V6, Variant, dropped, network, ready};
use crate::node::Node;
use crate::sockets::{bound, connected, listening, receive, refused, talk, udp};

fn open() -> Node {
    network(&["vm1", "vm2", "public", "internet"], Variant { translation: OPEN, ..DEFAULT }).start(&[])
}

/// What the internet calls a UDP socket.
#[track_caller]
fn outside(node: &Node, family: Family, socket: &std::net::UdpSocket) -> SocketAddr {
    let server = udp(&node.site.lab, "internet", family.socket(family.web, 0));
    socket.send_to(b"who am I", server.local_addr().expect("an address")).expect("send");
    receive(&server, b"who am I")
}

#[test]
fn udp_by_the_address_of_the_pool() {
    if !ready() {
        return;
    }
    let node = open();
    for family in [V4, V6] {
        let one = udp(&node.site.lab, "vm1", family.socket(family.vm1, 4001));
        let two = udp(&node.site.lab, "vm2", family.socket(family.vm2, 4002));
        let (one_outside, two_outside) = (outside(&node, family, &one), outside(&node, family, &two));
        assert_eq!(one_outside.ip(), family.socket(family.egress, 0).ip());
        one.send_to(b"ping", two_outside).expect("send");
        assert_eq!(receive(&two, b"ping"), one_outside);
        two.send_to(b"pong", one_outside).expect("send");
        assert_eq!(receive(&one, b"pong"), two_outside);
        // It shows the same side to the internet as before.
        assert_eq!(outside(&node, family, &one), one_outside);

        // Nobody has the port any more: the error comes back as one about the public address.
        drop(two);
        one.connect(two_outside).expect("connect");
        refused(&one);
    }
    node.finish();
}

#[test]
fn tcp_by_the_address_of_the_pool() {
    if !ready() {
        return;
    }
    let node = open();
    let lab = &node.site.lab;
    let server = listen(lab, "internet", 7000);
    for family in [V4, V6] {
        // The port is known outside by a connection from it, and then listens.
        let local = family.socket(family.vm2, 4002);
        let known = connected(bound(lab, "vm2", local), family.socket(family.web, 7000));
        let (_kept, two_outside) = accept(&server);
        let two = listening(bound(lab, "vm2", local));
        let mut one = connected(bound(lab, "vm1", family.socket(family.vm1, 4001)), two_outside);
        let (mut arrived, from) = accept(&two);
        assert_eq!(from.ip(), family.socket(family.egress, 0).ip());
        talk(&mut one, &mut arrived, "by the pool");
        drop(known);
    }
    node.finish();
}

#[test]
fn by_an_instance_address() {
    if !ready() {
        return;
    }
    let node = open();
    let _inside = Web::serve(&node.site.lab, "public");
    let _beside = Web::serve(&node.site.lab, "vm1");
    for family in [V4, V6] {
        assert_eq!(node.curl("vm1", &family.url(family.instance)), family.egress);
        node.ping("vm1", family.instance);
        // By its private address it sees the private one.
        assert_eq!(node.curl("vm1", &family.url(family.public)), family.vm1);

        let one = udp(&node.site.lab, "vm1", family.socket(family.vm1, 4001));
        let one_outside = outside(&node, family, &one);
        let instance = udp(&node.site.lab, "public", family.socket(family.public, 4003));
        instance.send_to(b"hello", one_outside).expect("send");
        assert_eq!(receive(&one, b"hello"), family.socket(family.instance, 4003));
        one.send_to(b"hello yourself", family.socket(family.instance, 4003)).expect("send");
        assert_eq!(receive(&instance, b"hello yourself"), one_outside);
    }
    let status = node.finish();
    assert_eq!(dropped(&status, "no_mapping"), 0, "{:#}", status["counters"]);
}
