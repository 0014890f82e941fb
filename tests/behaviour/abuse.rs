//! Attacks from the inside and the outside, each with the counter that shows it. Those on connections whose resource is
//! not known yet are with [`crate::policies`], floods of fragments with [`crate::fragments`], and a flood of first packets
//! that would hold up other NICs in the test of workers.

use sidestep::path::{Answer, DropReason, Verdict};

use crate::bench::Bench;
use crate::guarded::{Guarded, OWN, syn};
use crate::packets::{Tcp, echo, fix_header, udp};

/// The counter of a reason.
fn count(bench: &Bench, reason: DropReason) -> u64 {
    bench.report().dropped.get(reason.name()).copied().unwrap_or_default()
}

#[test]
fn nobody_sends_from_an_address_that_is_not_its_own() {
    let mut bench = Bench::with_endpoint();
    for (from, source) in [("vm1", "10.1.1.5"), ("vm1", "10.1.2.4"), ("vm3", "203.0.113.200"), ("vm1", "127.0.0.1")] {
        bench.dropped(from, syn(source, OWN, 443), DropReason::SpoofedSource);
    }
    for source in ["10.1.1.4", "20.60.1.10", "203.0.113.200"] {
        bench.dropped("internet", syn(source, OWN, 443), DropReason::SpoofedSource);
    }
    bench.dropped("gateway", syn("10.1.1.4", "10.1.3.4", 443), DropReason::SpoofedSource);
    assert_eq!(count(&bench, DropReason::SpoofedSource), 8);
}

#[test]
fn identities_cannot_be_forged() {
    let more = r#"
[[nic]]
name = "router"
subnet = "blue/appliances"
private_addresses = ["10.1.100.5"]
ip_forwarding = true
device = { tun = "t9" }
[[snat_pool]]
name = "pool"
addresses = ["100.64.9.1"]
"#;
    let app = r#"service_endpoints = [{ service = "Microsoft.Storage", source = { prefix_map = "100.64.8.0/24" } }]"#;
    let mut bench = Guarded { app, more, ..Guarded::default() }.bench();
    // An address that stands for a subnet, whoever shows it: an appliance that may forward for anybody, or the internet.
    let identity = "fde4:8dba:1200:98db:6a12:300:a02:126";
    let with_identity = || udp((identity, 5_000), ("2603:1020:206:100::10", 443), b"x");
    for from in ["router", "internet", "blue1"] {
        bench.dropped(from, with_identity(), DropReason::ForgedIdentity);
    }
    for source in ["100.64.8.4", "100.64.9.1"] {
        bench.dropped("router", syn(source, OWN, 443), DropReason::ForgedIdentity);
    }
    // Behind a service nobody begins anything.
    bench.dropped("own", udp((identity, 5_000), ("2603:1020:206:100::10", 443), b"x"), DropReason::Unsolicited);
    assert_eq!(count(&bench, DropReason::ForgedIdentity), 5);
}

/// An IPv4 packet with options in its header.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut packet = udp(("10.1.1.4", 5_000), (OWN, 443), b"x");
    packet.splice(20..20, options.iter().copied());
    packet[0] = 0x40 | (5 + options.len() as u8 / 4);
    let total = packet.len() as u16;
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    // The checksum covers the options, too.
    packet[10..12].fill(0);
    let header = 20 + options.len();
    let mut sum: u32 = packet[..header].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

#[test]
fn source_routes_and_other_options_go_nowhere() {
    let mut bench = Bench::with_endpoint();
    let loose = [131, 7, 4, 198, 51, 100, 7, 0];
    let strict = [137, 7, 4, 198, 51, 100, 7, 0];
    for options in [loose, strict] {
        bench.dropped("vm1", with_options(&options), DropReason::SourceRouting);
    }
    let record_route = [7, 7, 4, 0, 0, 0, 0, 0];
    let timestamp = [68, 8, 5, 0, 0, 0, 0, 0];
    let router_alert = [148, 4, 0, 0];
    for options in [&record_route[..], &timestamp, &router_alert, &[1, 1, 1, 0]] {
        bench.dropped("vm1", with_options(options), DropReason::IpOptions);
    }
    // Nor does a flow let them through.
    bench.forward("vm1", udp(("10.1.1.4", 5_000), (OWN, 443), b"x"), "contosodata");
    bench.dropped("vm1", with_options(&router_alert), DropReason::IpOptions);
    assert_eq!((count(&bench, DropReason::SourceRouting), count(&bench, DropReason::IpOptions)), (2, 5));
}

#[test]
fn a_flood_of_denied_packets_makes_bounded_answers() {
    let own = r#"firewall = { default_action = "Deny", denial = "prohibited" }"#;
    let mut bench = Guarded { own, ..Guarded::default() }.bench();
    let verdicts: Vec<Verdict> = (0..2_000)
        .map(|number| {
            let flood = Tcp { from: ("10.1.1.4", 1_000 + number), to: (OWN, 443), ..Tcp::default() };
            bench.inject("blue1", flood.bytes())
        })
        .collect();
    let answered = verdicts.iter().filter(|verdict| **verdict == Verdict::Answered(Answer::FirewallDenied)).count();
    let dropped = verdicts.iter().filter(|verdict| **verdict == Verdict::Dropped(DropReason::FirewallDenied)).count();
    assert_eq!(answered + dropped, 2_000);
    assert!(answered <= 100, "ICMP errors are paid for: {answered}");
    assert_eq!(bench.take().len(), answered);
    assert_eq!(bench.forwarder.flow_count(), 0, "nor does it leave anything behind");
}

#[test]
fn platform_addresses_are_outside_routes_and_rules() {
    let more = "[platform]\ndevice = { tun = \"t-host\" }\n";
    let app = "network_security_group = \"closed\"";
    let closed = r#"
[[network_security_group]]
name = "closed"
security_rules = [
  { name = "none", priority = 100, direction = "Outbound", access = "Deny", protocol = "*", destination_address_prefix = "*", destination_port_range = "*" },
]
"#;
    let mut bench = Guarded { app, more: &format!("{more}{closed}"), ..Guarded::default() }.bench();
    // Whatever routes and rules say: a subnet that may send nothing, and one whose default route is an appliance.
    for (from, source) in [("blue1", "10.1.1.4"), ("behind1", "10.1.3.4")] {
        let seen = bench.forward(from, udp((source, 5_000), ("168.63.129.16", 53), b"q"), "platform");
        assert_eq!(seen.source.to_string(), source);
        bench.forward("platform", udp(("168.63.129.16", 53), (source, 5_000), b"a"), from);
        bench.forward(from, echo(source, "169.254.169.254", false, 9, 64), "platform");
    }
    bench.dropped("internet", syn("198.51.100.7", "168.63.129.16", 80), DropReason::NoPublicAddress);
    let mut bench = Guarded::default().bench();
    bench.dropped("blue1", udp(("10.1.1.4", 5_000), ("168.63.129.16", 53), b"q"), DropReason::PlatformAddress);
}

#[test]
fn headers_that_lie_go_nowhere() {
    let mut bench = Bench::with_endpoint();
    let mut short = syn("10.1.1.4", OWN, 443);
    short[0] = 0x44;
    fix_header(&mut short);
    bench.dropped("vm1", short, DropReason::HeaderLength);
    let mut long = syn("10.1.1.4", OWN, 443);
    long[2..4].copy_from_slice(&2_000_u16.to_be_bytes());
    fix_header(&mut long);
    bench.dropped("vm1", long, DropReason::Truncated);
}
