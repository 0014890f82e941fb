//! Packets in fragments: in any order, through every translation, bounded, and never overlapping.

use std::net::IpAddr;

use sidestep::packet::frame::Frame;
use sidestep::path::{Answer, DropReason, Verdict};

use crate::bench::Bench;
use crate::packets::{Seen, Tcp, decode, echo, fix_header, udp};
use crate::site::{BY_GATEWAY, GATEWAY, Site, WEB, WEB6};

/// How long the fragments of a packet are waited for.
const WAIT: u64 = 30_000;

/// A part of a packet: where it begins behind the IP header, where it ends.
type Part = (usize, usize);

/// Cuts an IPv4 packet without options. The last part is what ends where the packet does.
fn cut_v4(packet: &[u8], identification: u16, parts: &[Part]) -> Vec<Vec<u8>> {
    let payload = &packet[20..];
    let cut = |&(start, end): &Part| {
        let mut fragment = packet[..20].to_vec();
        fragment.extend(&payload[start..end]);
        let total = fragment.len() as u16;
        let more = if end < payload.len() { 0x2000 } else { 0 };
        fragment[2..4].copy_from_slice(&total.to_be_bytes());
        fragment[4..6].copy_from_slice(&identification.to_be_bytes());
        fragment[6..8].copy_from_slice(&(more | (start / 8) as u16).to_be_bytes());
        fix_header(&mut fragment);
        fragment
    };
    parts.iter().map(cut).collect()
}

/// Cuts an IPv6 packet without extension headers.
fn cut_v6(packet: &[u8], identification: u32, parts: &[Part]) -> Vec<Vec<u8>> {
    let payload = &packet[40..];
    let cut = |&(start, end): &Part| {
        let mut fragment = packet[..40].to_vec();
        fragment[4..6].copy_from_slice(&((end - start + 8) as u16).to_be_bytes());
        fragment[6] = 44;
        let more = u16::from(end < payload.len());
        fragment.extend([packet[6], 0]);
        fragment.extend((start as u16 | more).to_be_bytes());
        fragment.extend(identification.to_be_bytes());
        fragment.extend(&payload[start..end]);
        fragment
    };
    parts.iter().map(cut).collect()
}

/// What the receiver makes of the fragments: one packet, with its identification.
fn put_together(fragments: &[Vec<u8>]) -> (u32, Seen) {
    let v4 = fragments[0][0] >> 4 == 4;
    let header = if v4 { 20 } else { 48 };
    let mut identifications = Vec::new();
    let mut parts = Vec::new();
    for fragment in fragments {
        let (field, identification) = if v4 {
            let field = u16::from_be_bytes([fragment[6], fragment[7]]);
            (usize::from(field & 0x1fff) * 8, u32::from(u16::from_be_bytes([fragment[4], fragment[5]])))
        } else {
            assert_eq!(fragment[6], 44, "a fragment header");
            let field = u16::from_be_bytes([fragment[42], fragment[43]]);
            (usize::from(field & 0xfff8), u32::from_be_bytes(fragment[44..48].try_into().unwrap()))
        };
        identifications.push(identification);
        parts.push((field, &fragment[header..]));
    }
    identifications.dedup();
    assert_eq!(identifications.len(), 1, "one identification for all");
    parts.sort_unstable_by_key(|(start, _)| *start);
    let mut payload: Vec<u8> = Vec::new();
    for (start, part) in parts {
        assert_eq!(start, payload.len(), "no gap, no overlap");
        payload.extend(part);
    }
    let mut packet = fragments[0][..if v4 { 20 } else { 40 }].to_vec();
    if v4 {
        packet[2..4].copy_from_slice(&((20 + payload.len()) as u16).to_be_bytes());
        packet[6..8].fill(0);
        fix_header(&mut packet);
    } else {
        packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
        packet[6] = fragments[0][40];
    }
    packet.extend(payload);
    (identifications[0], decode(&packet))
}

impl Bench {
    /// Fragments enter in an order; gives what left.
    #[track_caller]
    fn pass(&mut self, from: &str, fragments: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
        for fragment in fragments {
            let verdict = self.inject(from, fragment);
            assert!(matches!(verdict, Verdict::Forwarded(_) | Verdict::Held), "{verdict:?}");
            let verdicts = self.release();
            assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Forwarded(_))), "{verdicts:?}");
        }
        std::mem::take(&mut self.sent.packets).into_iter().map(|(_, bytes, _)| bytes).collect()
    }
}

const THREE: [Part; 3] = [(0, 16), (16, 32), (32, 48)];
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// 48 bytes behind the IP header.
const DATA: [u8; 40] = *b"0123456789012345678901234567890123456789";

fn nat() -> Bench {
    Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench()
}

#[test]
fn fragments_are_translated_in_any_order_and_both_ways() {
    for order in ORDERS {
        let mut bench = nat();
        let fragments = cut_v4(&udp(("10.1.1.4", 5_000), (WEB, 53), &DATA), 7, &THREE);
        let (out, seen) = put_together(&bench.pass("a1", order.map(|place| fragments[place].clone())));
        assert!(seen.source.to_string().starts_with("203.0.113.3"), "{order:?}");
        assert_eq!((seen.destination_port, seen.payload.as_slice()), (53, &DATA[..]));
        let public = seen.source.to_string();
        let back = cut_v4(&udp((WEB, 53), (&public, seen.source_port), &DATA), out as u16, &THREE);
        let (_, seen) = put_together(&bench.pass("internet", order.map(|place| back[place].clone())));
        assert_eq!((seen.destination.to_string().as_str(), seen.destination_port), ("10.1.1.4", 5_000));
        assert_eq!(bench.flows().len(), 1);
        assert_eq!(bench.report().fragments_held, 0);
    }
}

#[test]
fn ipv6_fragments_are_translated_in_any_order() {
    for order in ORDERS {
        let mut bench = nat();
        let fragments = cut_v6(&udp(("fd00:1:0:1::4", 5_000), (WEB6, 53), &DATA), 7, &THREE);
        let (_, seen) = put_together(&bench.pass("a1", order.map(|place| fragments[place].clone())));
        assert_eq!(seen.source.to_string(), "2001:db8:ffff::30");
        assert_eq!(seen.payload, DATA);
    }
}

#[test]
fn fragments_of_tcp_and_of_queries_are_translated() {
    let mut bench = nat();
    let syn = Tcp { from: ("10.1.1.4", 5_000), to: (WEB, 443), payload: &DATA, ..Tcp::default() }.bytes();
    let (_, seen) = put_together(&bench.pass("a1", cut_v4(&syn, 1, &[(0, 24), (24, 60)])));
    assert_eq!(seen.payload, DATA);
    let ping = echo("10.1.1.4", WEB, false, 77, 64);
    let (_, seen) = put_together(&bench.pass("a1", cut_v4(&ping, 2, &[(0, 8), (8, 12)])));
    assert_eq!(seen.icmp, Some((8, 0)));
    assert_eq!(bench.flows().len(), 2);
}

#[test]
fn a_fragmented_reply_of_a_service_reaches_the_vm() {
    let mut bench = Bench::with_endpoint();
    bench.forward("vm1", udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), b"q"), "contosodata");
    let fragments = cut_v4(&udp(("20.60.1.10", 443), ("10.1.1.4", 5_000), &DATA), 9, &THREE);
    let (identification, seen) =
        put_together(&bench.pass("contosodata", [2, 1, 0].map(|place| fragments[place].clone())));
    assert_eq!((seen.payload.as_slice(), identification), (&DATA[..], 9));
}

#[test]
fn identity6_fragments_arrive_as_fragments() {
    let one = "service_endpoints = [{ service = \"Microsoft.Storage\", source = \"identity6\" }]";
    let mut bench = Site { one, ..Site::default() }.bench();
    let fragments = cut_v4(&udp(("10.1.1.4", 5_000), ("20.60.1.10", 443), &DATA), 7, &THREE);
    let (_, seen) = put_together(&bench.pass("a1", [1, 0, 2].map(|place| fragments[place].clone())));
    assert_eq!(seen.payload, DATA);
    let (service, source) = (seen.destination.to_string(), seen.source.to_string());
    let back = cut_v6(&udp((&service, 443), (&source, 5_000), &DATA), 7, &THREE);
    let (_, seen) = put_together(&bench.pass("data", [2, 0, 1].map(|place| back[place].clone())));
    assert_eq!((seen.source.to_string().as_str(), seen.destination.to_string().as_str()), ("20.60.1.10", "10.1.1.4"));
}

#[test]
fn two_hosts_behind_one_address_never_send_fragments_of_one_identification() {
    let mut bench = Site::default().bench();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..5 {
        for (port, address) in [("a1", "10.1.1.4"), ("a2", "10.1.1.5")] {
            let fragments = cut_v4(&udp((address, 5_000), (WEB, 53), &DATA), 7, &THREE);
            assert!(seen.insert(put_together(&bench.pass(port, fragments)).0));
        }
        bench.now += WAIT + 128;
        bench.expire();
    }
}

#[test]
fn a_fragment_that_comes_twice_passes_once() {
    let mut bench = nat();
    let fragments = cut_v4(&udp(("10.1.1.4", 5_000), (WEB, 53), &DATA), 7, &THREE);
    bench.pass("a1", fragments[..2].to_vec());
    bench.dropped("a1", fragments[1].clone(), DropReason::FragmentDuplicate);
    bench.dropped("a1", fragments[0].clone(), DropReason::FragmentDuplicate);
    assert_eq!(bench.pass("a1", fragments[2..].to_vec()).len(), 1);
}

#[test]
fn overlapping_fragments_end_their_packet() {
    let mut bench = nat();
    let packet = udp(("10.1.1.4", 5_000), (WEB, 53), &DATA);
    let fragments = cut_v4(&packet, 7, &[(0, 24), (16, 40), (40, 48)]);
    bench.pass("a1", fragments[..1].to_vec());
    bench.dropped("a1", fragments[1].clone(), DropReason::FragmentOverlap);
    bench.dropped("a1", fragments[2].clone(), DropReason::FragmentOverlap);
    // What waited is dropped with it.
    let fragments = cut_v4(&packet, 8, &[(16, 40), (32, 48), (0, 16)]);
    assert_eq!(bench.inject("a1", fragments[0].clone()), Verdict::Held);
    bench.dropped("a1", fragments[1].clone(), DropReason::FragmentOverlap);
    bench.dropped("a1", fragments[2].clone(), DropReason::FragmentOverlap);
    assert_eq!(bench.report().fragments_held, 0);
    // And another packet of the host is not touched by it.
    assert_eq!(bench.pass("a1", cut_v4(&packet, 9, &THREE)).len(), 3);
}

#[test]
fn fragments_that_cut_a_header_are_dropped_by_name() {
    let mut bench = nat();
    let syn = Tcp { from: ("10.1.1.4", 5_000), to: (WEB, 443), payload: &DATA, ..Tcp::default() }.bytes();
    for fragment in cut_v4(&syn, 1, &[(0, 8), (8, 60)]) {
        bench.dropped("a1", fragment, DropReason::FragmentTiny);
    }
    // One before the last is a multiple of 8 bytes.
    let odd = cut_v4(&udp(("10.1.1.4", 5_000), (WEB, 53), &DATA), 2, &[(0, 20)]).remove(0);
    bench.dropped("a1", odd, DropReason::FragmentMalformed);
}

#[test]
fn fragments_whose_first_does_not_come_are_dropped_in_time() {
    let mut bench = nat();
    let fragments = cut_v4(&udp(("10.1.1.4", 5_000), (WEB, 53), &DATA), 7, &THREE);
    for fragment in &fragments[1..] {
        assert_eq!(bench.inject("a1", fragment.clone()), Verdict::Held);
    }
    assert_eq!(bench.report().fragments_held, 2);
    bench.now += WAIT - 1;
    bench.expire();
    assert_eq!(bench.report().fragments_held, 2);
    bench.now += 129;
    bench.expire();
    assert_eq!(bench.report().fragments_held, 0);
    assert_eq!(bench.report().dropped[DropReason::FragmentTimeout.name()], 2);
}

#[test]
fn a_flood_of_fragments_takes_bounded_room() {
    let mut bench = nat();
    let tail = |identification: u16| cut_v4(&udp(("10.1.1.4", 5_000), (WEB, 53), &DATA), identification, &THREE[1..2]);
    for identification in 0..5_000 {
        let verdict = bench.inject("a1", tail(identification).remove(0));
        assert!(matches!(verdict, Verdict::Held | Verdict::Dropped(DropReason::FragmentsFull)), "{verdict:?}");
    }
    let report = bench.report();
    let held = report.fragments_held;
    assert!((1..=256).contains(&held), "{held} fragments are held");
    assert_eq!(held + report.dropped[DropReason::FragmentsFull.name()], 5_000, "the oldest made room");
    // What comes in order passes all the same, another port has room, and so has this one when they are over.
    let fragments = cut_v4(&udp(("10.1.1.4", 5_000), (WEB, 53), &DATA), 9_000, &THREE);
    assert_eq!(bench.pass("a1", fragments).len(), 3);
    let fragments = cut_v4(&udp(("10.1.1.5", 5_000), (WEB, 53), &DATA), 7, &THREE);
    assert_eq!(bench.pass("a2", fragments.into_iter().rev()).len(), 3);
    bench.now += WAIT + 128;
    bench.expire();
    bench.expire();
    let fragments = cut_v4(&udp(("10.1.1.4", 5_000), (WEB, 53), &DATA), 7, &THREE);
    assert_eq!(bench.pass("a1", fragments.into_iter().rev()).len(), 3);
}

#[test]
fn later_fragments_begin_nothing() {
    let mut bench = nat();
    let fragments = cut_v4(&udp((WEB, 53), ("203.0.113.30", 5_000), &DATA), 7, &THREE);
    assert_eq!(bench.inject("internet", fragments[1].clone()), Verdict::Held);
    // The first gets in nowhere, so neither do the others.
    assert_eq!(bench.inject("internet", fragments[0].clone()), Verdict::Dropped(DropReason::NoMapping));
    let verdicts = bench.release();
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Dropped(_))), "{verdicts:?}");
    assert_eq!(verdicts.len(), 1);
    assert!(matches!(bench.inject("internet", fragments[2].clone()), Verdict::Dropped(_)));
    bench.release();
    assert!(bench.flows().is_empty() && bench.sent.packets.is_empty());
}

/// A network whose edge takes packets of 1,280 bytes at most.
fn narrow() -> Bench {
    Bench::with(&Site::default().document().replace("{ tun = \"t-edge\" }", "{ tun = \"t-edge\", mtu = 1280 }"))
}

#[test]
fn a_packet_that_may_be_cut_is_cut_for_a_narrow_port() {
    let mut bench = narrow();
    let mut packet = udp(("10.1.1.4", 5_000), (WEB, 53), &[7; 1_400]);
    packet[6..8].fill(0);
    fix_header(&mut packet);
    let fragments = bench.pass("a1", [packet]);
    assert_eq!(fragments.len(), 2);
    assert!(fragments.iter().all(|fragment| fragment.len() <= 1_280));
    let (_, seen) = put_together(&fragments);
    assert_eq!((seen.source.to_string().as_str(), seen.payload.len()), ("203.0.113.200", 1_400));
}

#[test]
fn a_packet_that_may_not_be_cut_is_answered_with_the_size_that_fits() {
    let mut bench = narrow();
    let mut packet = udp(("10.1.1.4", 5_000), (WEB, 53), &[7; 1_400]);
    packet[6] = 0x40;
    fix_header(&mut packet);
    let sent = bench.answered("a1", packet, Answer::PacketTooBig);
    assert_eq!((sent.len(), sent[0].0.as_str(), sent[0].1.icmp), (1, "a1", Some((3, 4))));
    assert_eq!(sent[0].1.payload[12..16], [10, 1, 1, 4], "it quotes what was sent, not what was made of it");
    let six = udp(("fd00:1:0:1::4", 5_000), (WEB6, 53), &[7; 1_400]);
    let sent = bench.answered("a1", six, Answer::PacketTooBig);
    assert_eq!((sent[0].0.as_str(), sent[0].1.icmp), ("a1", Some((2, 0))));
    assert_eq!(sent[0].1.source, "fd00:1:0:1::1".parse::<IpAddr>().unwrap());
}

#[test]
fn fragments_that_are_too_large_are_cut_again() {
    let mut bench = narrow();
    let packet = udp(("10.1.1.4", 5_000), (WEB, 53), &[7; 2_000]);
    let fragments = bench.pass("a1", cut_v4(&packet, 3, &[(0, 1_400), (1_400, 2_008)]));
    assert_eq!(fragments.len(), 3);
    let (_, seen) = put_together(&fragments);
    assert_eq!(seen.payload.len(), 2_000);
}

#[test]
fn a_fragment_that_is_handed_back_is_as_it_came() {
    let mut bench = nat();
    let fragments = cut_v4(&udp(("10.1.1.4", 5_000), (WEB, 53), &DATA), 7, &THREE);
    assert_eq!(bench.inject("a1", fragments[1].clone()), Verdict::Held);
    bench.inject("a1", fragments[0].clone());
    let mut frame = Frame::new();
    assert!(bench.forwarder.released(&mut frame).is_some());
    assert_eq!(frame.bytes(), fragments[1]);
    let port = bench.port("a1");
    let verdict = bench.forwarder.resume(bench.now, port, &mut frame, &mut bench.sent);
    assert!(matches!(verdict, Verdict::Forwarded(_)));
    assert!(bench.forwarder.released(&mut frame).is_none());
}
