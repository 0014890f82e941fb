//! Path MTU towards a NIC that is narrower than the service: who sends too much is told, by somebody whom it knows.

use std::net::IpAddr;

use sidestep::path::{Answer, Verdict};

use crate::bench::Bench;
use crate::packets::{Seen, Tcp, fix_header, udp};
use crate::site::Site;
use crate::supers::super_packet;

/// What the NIC takes.
const NARROW: u32 = 1_300;

const SERVICE: &str = "20.60.1.10";
const SERVICE6: &str = "2603:1020:206:100::10";

/// Each source mode, the client and the service as the client knows it, and the size that the service is told.
const MODES: [(&str, &str, &str, u32); 7] = [
    ("\"private\"", "10.1.1.4", SERVICE, NARROW),
    ("\"private\"", "fd00:1:0:1::4", SERVICE6, NARROW),
    (MAP, "10.1.1.4", SERVICE, NARROW),
    (MAP, "fd00:1:0:1::4", SERVICE6, NARROW),
    (SNAT, "10.1.1.4", SERVICE, NARROW),
    (SNAT, "fd00:1:0:1::4", SERVICE6, NARROW),
    // Its packets are 20 bytes longer than what becomes of them.
    ("\"identity6\"", "10.1.1.4", SERVICE, NARROW + 20),
];
const MAP: &str = r#"{ prefix_map = ["100.64.1.0/24", "fd00:64:1::/64"] }"#;
const SNAT: &str = r#"{ snat = "pool" }"#;

fn narrow(source: &str) -> Bench {
    let one = format!("service_endpoints = [{{ service = \"Microsoft.Storage\", source = {source} }}]");
    let pools = "[[snat_pool]]\nname = \"pool\"\naddresses = [\"100.64.9.1\", \"fd00:64:9::1\"]\n";
    let document = Site { one: &one, pools, ..Site::default() }.document();
    Bench::with(&document.replace("{ tun = \"t-a1\" }", &format!("{{ tun = \"t-a1\", mtu = {NARROW} }}")))
}

/// The service has been told a size, by the NIC's router or in the name that it calls the NIC by.
#[track_caller]
fn assert_told(bench: &mut Bench, client: &Seen, router: Option<&str>, mtu: u32) {
    let [(_, bytes, _)] = bench.sent.packets.as_slice() else { panic!("one error") };
    let v4 = client.source.is_ipv4();
    let place = if v4 { 24 } else { 44 };
    assert_eq!(u32::from_be_bytes(bytes[place..place + 4].try_into().unwrap()), mtu);
    let (port, error) = bench.take().remove(0);
    assert_eq!((port.as_str(), error.icmp), ("data", Some(if v4 { (3, 4) } else { (2, 0) })));
    let from = router.map_or(client.source, |router| router.parse::<IpAddr>().unwrap());
    assert_eq!((error.source, error.destination), (from, client.destination));
    let quoted = if v4 { 12..16 } else { 8..24 };
    let octets = match client.destination {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    assert_eq!(error.payload[quoted], octets, "it quotes what was sent");
}

/// The router that shows where addresses stay.
fn router(source: &str, client: &str) -> Option<&'static str> {
    (source == "\"private\"").then_some(if client.contains(':') { "fd00:1:0:1::1" } else { "10.1.1.1" })
}

#[test]
fn a_service_is_told_what_a_narrow_nic_takes_of_its_datagrams() {
    for (source, client, service, mtu) in MODES {
        let mut bench = narrow(source);
        let seen = bench.forward("a1", udp((client, 5_000), (service, 443), b"q"), "data");
        let (from, to) = (seen.destination.to_string(), seen.source.to_string());
        let headers = if seen.source.is_ipv4() { 28 } else { 48 };
        let answer = |length: u32| {
            let payload = vec![7; (length - headers) as usize];
            let mut packet = udp((&from, 443), (&to, seen.source_port), &payload);
            if seen.source.is_ipv4() {
                packet[6] = 0x40;
                fix_header(&mut packet);
            }
            packet
        };
        bench.forward("data", answer(mtu), "a1");
        assert_eq!(bench.inject("data", answer(mtu + 1)), Verdict::Answered(Answer::PacketTooBig));
        assert_told(&mut bench, &seen, router(source, client), mtu);
    }
}

#[test]
fn a_service_is_told_what_a_narrow_nic_takes_of_its_super_packets() {
    for (source, client, service, mtu) in MODES {
        let mut bench = narrow(source);
        let syn = Tcp { from: (client, 5_000), to: (service, 443), ..Tcp::default() };
        let seen = bench.forward("a1", syn.bytes(), "data");
        let (from, to) = (seen.destination.to_string(), seen.source.to_string());
        let answer = Tcp {
            from: (&from, 443),
            to: (&to, seen.source_port),
            flags: "SA",
            sequence: 9_000,
            acknowledgment: 1_001,
            ..Tcp::default()
        };
        bench.forward("data", answer.bytes(), "a1");
        bench.forward("a1", Tcp { flags: "A", sequence: 1_001, acknowledgment: 9_001, ..syn }.bytes(), "data");
        // A service that does not know of the NIC's size: its segments are as long as its own device takes.
        let payload = vec![7; 20_000];
        let data = Tcp { flags: "A", sequence: 9_001, payload: &payload, ..answer };
        let verdict = bench.inject_frame("data", &mut super_packet(data));
        assert_eq!(verdict, Verdict::Answered(Answer::PacketTooBig), "{source} {client}");
        assert_told(&mut bench, &seen, router(source, client), mtu);
    }
}
