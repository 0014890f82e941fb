//! Datagrams that come in bursts leave as super-packets, and every one arrives as it was sent, in its order.

use std::net::UdpSocket;

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use sidestep::port::namespace;

use crate::node::{Node, PATIENCE, Site, WORKLOAD, port_counter};
use crate::site::FAMILIES;
use crate::support::privileged;

/// Datagrams of a burst, and bursts.
const BURST: u32 = 200;
const BURSTS: u32 = 20;

/// What datagram `number` holds: its number, and as many bytes more as its length says, all different from its neighbours'.
fn content(number: u32) -> Vec<u8> {
    // Runs of one length, each ended by a shorter one, and now and then one longer than those before.
    let length = match number % 50 {
        49 => 17,
        20 => 1_400,
        _ => 100 + (number / 50 % 10) as usize * 130,
    };
    number.to_be_bytes().into_iter().chain((0..length).map(|place| (number as usize + place) as u8)).collect()
}

#[test]
fn bursts_of_datagrams_arrive_whole_and_in_order() {
    if !privileged() {
        return;
    }
    let node: Node = Site::new(&["vm1", "storage"]).start(&[]);
    node.endpoint(WORKLOAD, true);
    for family in &FAMILIES {
        let open = |host: &str, address: &str| {
            let socket = namespace::run(Some(&node.site.lab.name(host)), || UdpSocket::bind(family.socket(address, 0)));
            let socket = socket.expect("a namespace").expect("bind");
            socket.set_read_timeout(Some(PATIENCE)).expect("limit");
            set_socket_recv_buffer_size_force(&socket, 4 << 20).expect("room");
            socket
        };
        let (client, server) = (open("vm1", family.vms[0]), open("storage", family.service));
        client.connect(server.local_addr().expect("an address")).expect("connect");
        let before = port_counter(&node.status(), "contosodata", "super_packets_out");
        for burst in 0..BURSTS {
            for number in burst * BURST..(burst + 1) * BURST {
                client.send(&content(number)).expect("send");
            }
            let mut bytes = [0; 2_048];
            for number in burst * BURST..(burst + 1) * BURST {
                let length = server.recv(&mut bytes).unwrap_or_else(|error| panic!("datagram {number}: {error}"));
                assert_eq!(bytes[..length], content(number), "datagram {number}");
            }
        }
        let merged = port_counter(&node.status(), "contosodata", "super_packets_out") - before;
        assert!(merged > 0, "no super-packet in {} datagrams", BURST * BURSTS);
    }
    node.finish();
}
