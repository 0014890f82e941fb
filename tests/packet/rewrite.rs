//! After every rewrite, checksums are what a full computation gives, and nothing else changed.

use std::net::IpAddr;

use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, icmpv4, icmpv6};
use proptest::prelude::*;
use sidestep::packet::checksum;
use sidestep::packet::fragment::fragment_v4;
use sidestep::packet::frame::{Checksum, Frame};
use sidestep::packet::icmp::embedded;
use sidestep::packet::parse::{Fragment, Parsed, parse};
use sidestep::packet::rewrite::{Translation, decrement_hop_limit, set_identification, translate, translate_embedded};
use sidestep::packet::segment::segment;

use crate::sample::{
    Recipe, Transport, addresses_of, assert_sums, fix_ipv4_checksum, partial, recipe, slow_sum, tcp_v4, udp_v4,
};

fn with_translation(v4: bool) -> impl Strategy<Value = Translation> {
    (addresses_of(v4), any::<(u16, u16)>()).prop_map(|((source, destination), (source_port, destination_port))| {
        Translation { source, destination, source_port, destination_port }
    })
}

fn recipe_and_translation() -> impl Strategy<Value = (Recipe, Translation)> {
    recipe().prop_flat_map(|recipe| {
        let v4 = recipe.is_v4();
        (Just(recipe), with_translation(v4))
    })
}

/// The packet that etherparse builds with the translation's values.
fn rebuilt(recipe: &Recipe, to: &Translation) -> Vec<u8> {
    let mut recipe = recipe.clone();
    recipe.source = to.source;
    recipe.destination = to.destination;
    match &mut recipe.transport {
        Transport::Tcp { source, destination, .. }
        | Transport::Udp { source, destination }
        | Transport::UdpUnsummed { source, destination } => {
            *source = to.source_port;
            *destination = to.destination_port;
        }
        Transport::Echo { identifier, reply, .. } => {
            *identifier = if *reply { to.destination_port } else { to.source_port };
        }
        Transport::Raw { .. } => {}
    }
    recipe.build()
}

/// An ICMP error of a random kind about a packet.
fn error_about(quote: &[u8], (source, destination): (IpAddr, IpAddr)) -> Vec<u8> {
    let mut out = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let kind = Icmpv4Type::TimeExceeded(icmpv4::TimeExceededCode::TtlExceededInTransit);
            let builder = PacketBuilder::ipv4(source.octets(), destination.octets(), 60).icmpv4(kind);
            builder.write(&mut out, quote).unwrap();
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let kind = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port);
            let builder = PacketBuilder::ipv6(source.octets(), destination.octets(), 60).icmpv6(kind);
            builder.write(&mut out, quote).unwrap();
        }
        _ => unreachable!("addresses of one family"),
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn translating_equals_building_anew((recipe, to) in recipe_and_translation()) {
        let packet = recipe.build();
        let parsed = parse(&packet).unwrap();
        let mut frame = Frame::from_packet(&packet);
        translate(&mut frame, &parsed, &to);
        prop_assert_eq!(frame.bytes(), &rebuilt(&recipe, &to)[..]);
        assert_sums(frame.bytes());
    }

    #[test]
    fn translating_partial_then_finishing_equals_building_anew((recipe, to) in recipe_and_translation()) {
        prop_assume!(matches!(recipe.transport, Transport::Tcp { .. } | Transport::Udp { .. }));
        let packet = recipe.build();
        let parsed = parse(&packet).unwrap();
        let mut frame = partial(&packet);
        let ports_in_payload_sum = frame.bytes()[usize::from(parsed.transport) + 4..].to_vec();
        translate(&mut frame, &parsed, &Translation { source: recipe.source, destination: recipe.destination, ..to });
        if !matches!(recipe.transport, Transport::Raw { .. }) {
            // Ports alone leave all behind them untouched.
            prop_assert_eq!(&frame.bytes()[usize::from(parsed.transport) + 4..], &ports_in_payload_sum[..]);
        }
        translate(&mut frame, &parsed, &to);
        prop_assert!(decrement_hop_limit(&mut frame, &parsed) == (recipe.hop_limit > 1));
        prop_assert!(checksum::finish(&mut frame));
        prop_assert_eq!(frame.offload.checksum, Checksum::Complete);
        let finished = parse(frame.bytes()).unwrap();
        prop_assert_eq!(checksum::verify(frame.bytes(), &finished), Some(true));
        let mut expected = Recipe { hop_limit: recipe.hop_limit.max(2) - 1, ..recipe.clone() };
        if recipe.hop_limit <= 1 {
            expected.hop_limit = recipe.hop_limit;
        }
        let expected = rebuilt(&expected, &to);
        let sum = usize::from(parsed.transport) + if parsed.protocol == 6 { 16 } else { 6 };
        prop_assert_eq!(&frame.bytes()[..sum], &expected[..sum]);
        prop_assert_eq!(&frame.bytes()[sum + 2..], &expected[sum + 2..]);
    }

    #[test]
    fn decrementing_equals_building_anew(recipe in recipe()) {
        let packet = recipe.build();
        let parsed = parse(&packet).unwrap();
        let mut frame = Frame::from_packet(&packet);
        let went = decrement_hop_limit(&mut frame, &parsed);
        prop_assert_eq!(went, recipe.hop_limit > 1);
        let left = if went { recipe.hop_limit - 1 } else { recipe.hop_limit };
        prop_assert_eq!(frame.bytes(), &Recipe { hop_limit: left, ..recipe }.build()[..]);
    }

    /// The error that comes back about a translated packet becomes the error about the packet as it was sent.
    #[test]
    fn errors_are_translated_with_what_they_quote(
        (recipe, to) in recipe_and_translation(),
        router in any::<u64>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let sent = recipe.build();
        let translated = rebuilt(&recipe, &to);
        let header = usize::from(parse(&sent).unwrap().transport);
        let quoted = header + 8 + cut.index(sent.len().saturating_sub(header + 8) + 1);
        let quoted = quoted.min(sent.len());
        let from = match recipe.source {
            IpAddr::V4(_) => IpAddr::from((0x0a00_0000 | (router as u32 & 0xff_ffff)).to_be_bytes()),
            IpAddr::V6(_) => IpAddr::from((u128::from(router) | (0x2001 << 112)).to_be_bytes()),
        };
        let back = error_about(&translated[..quoted], (from, to.source));
        let parsed = parse(&back).unwrap();
        let Some(inner) = embedded(&back, &parsed) else {
            prop_assert!(quoted < header + 8, "a quote of 8 transport bytes is enough");
            return Ok(());
        };
        prop_assert_eq!(inner.source(), to.source);
        prop_assert_eq!(inner.destination(), to.destination);

        let original = parse(&sent).unwrap();
        let undo = Translation {
            source: recipe.source,
            destination: recipe.destination,
            source_port: original.source_port,
            destination_port: original.destination_port,
        };
        let mut frame = Frame::from_packet(&back);
        translate_embedded(&mut frame, &parsed, &inner, (to.destination, recipe.source), &undo);
        assert_sums(frame.bytes());
        // A quote that ends between the two bytes of the TCP checksum keeps the first as it was.
        if original.protocol == 6 && quoted == header + 17 {
            return Ok(());
        }
        prop_assert_eq!(frame.bytes(), &error_about(&sent[..quoted], (to.destination, recipe.source))[..]);
        let again = embedded(frame.bytes(), &parse(frame.bytes()).unwrap()).unwrap();
        prop_assert_eq!((again.source_port, again.destination_port), (original.source_port, original.destination_port));
    }

    #[test]
    fn sum_equals_the_textbook(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        prop_assert_eq!(checksum::sum(&bytes), slow_sum(&bytes));
    }
}

fn to_v4(parsed: &Parsed) -> Translation {
    Translation {
        source: "192.0.2.9".parse().unwrap(),
        destination: parsed.destination(),
        source_port: 1024,
        destination_port: parsed.destination_port,
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    let mut packet = tcp_v4(b"data");
    packet[43] ^= 0xff;
    let parsed = parse(&packet).unwrap();
    assert_eq!(checksum::verify(&packet, &parsed), Some(false));
    let mut frame = Frame::from_packet(&packet);
    translate(&mut frame, &parsed, &to_v4(&parsed));
    assert_eq!(checksum::verify(frame.bytes(), &parse(frame.bytes()).unwrap()), Some(false));
}

#[test]
fn udp_checksum_that_becomes_zero_is_sent_as_ones() {
    let packet = udp_v4(b"ab");
    let parsed = parse(&packet).unwrap();
    let mut frame = Frame::from_packet(&packet);
    // The source port that brings the sum to 0xffff: the old one plus the checksum, in one's complement.
    let old = u16::from_be_bytes([packet[26], packet[27]]);
    let port = checksum::add(parsed.source_port, old);
    let to = Translation {
        source: parsed.source(),
        destination: parsed.destination(),
        source_port: port,
        destination_port: parsed.destination_port,
    };
    translate(&mut frame, &parsed, &to);
    assert_eq!(frame.bytes()[26..28], [0xff, 0xff]);
    assert_sums(frame.bytes());
}

#[test]
fn a_first_fragment_keeps_the_checksum_of_the_whole() {
    let whole = udp_v4(&[7; 64]);
    let mut first = whole[..20 + 8 + 32].to_vec();
    first[3] = first.len() as u8;
    first[6] = 0x20;
    fix_ipv4_checksum(&mut first);
    let parsed = parse(&first).unwrap();
    assert_eq!(parsed.fragment, Fragment::First);
    let mut frame = Frame::from_packet(&first);
    let to = to_v4(&parsed);
    translate(&mut frame, &parsed, &to);

    let mut expected = Frame::from_packet(&whole);
    translate(&mut expected, &parse(&whole).unwrap(), &to);
    assert_sums(expected.bytes());
    assert_eq!(frame.bytes()[20..], expected.bytes()[20..60]);
    let parsed = parse(frame.bytes()).unwrap();
    assert_eq!((parsed.source_port, parsed.destination_port), (to.source_port, to.destination_port));

    // What is left of a checksum of the whole cannot be finished from a piece of it.
    frame.offload.checksum = Checksum::Partial { start: 20, offset: 6 };
    let before = frame.bytes().to_vec();
    let mut scratch = Frame::new();
    assert_eq!(fragment_v4(&mut frame, &parsed, 40, &mut scratch, |_| ()), 0);
    segment(&frame, &parsed, &mut scratch, |piece| assert_eq!(piece.bytes(), before));
}

#[test]
fn an_identification_is_ipv4s_alone() {
    for packet in [udp_v4(b"data"), tcp_v4(b"")] {
        let mut frame = Frame::from_packet(&packet);
        for id in [1, 0xffff, 0, 0x1234] {
            let parsed = parse(frame.bytes()).unwrap();
            set_identification(&mut frame, &parsed, id);
            // The parser checks the header checksum.
            assert_eq!(parse(frame.bytes()).unwrap().identification, u32::from(id));
            assert_eq!(frame.bytes()[12..], packet[12..]);
        }
    }
    let mut packet = Vec::new();
    PacketBuilder::ipv6([0x20; 16], [0x21; 16], 9).udp(1, 2).write(&mut packet, b"data").unwrap();
    let mut frame = Frame::from_packet(&packet);
    set_identification(&mut frame, &parse(&packet).unwrap(), 7);
    assert_eq!(frame.bytes(), packet);
}

#[test]
fn a_later_fragment_changes_in_its_header_alone() {
    let mut later = udp_v4(&[7; 64]);
    later[7] = 4;
    fix_ipv4_checksum(&mut later);
    let parsed = parse(&later).unwrap();
    let mut frame = Frame::from_packet(&later);
    translate(&mut frame, &parsed, &to_v4(&parsed));
    assert_eq!(frame.bytes()[20..], later[20..]);
    assert_eq!(parse(frame.bytes()).unwrap().source(), "192.0.2.9".parse::<IpAddr>().unwrap());
}

#[test]
fn families_that_differ_change_nothing() {
    let packet = tcp_v4(b"data");
    let parsed = parse(&packet).unwrap();
    let mut frame = Frame::from_packet(&packet);
    let to = Translation { source: "2001:db8::1".parse().unwrap(), ..to_v4(&parsed) };
    translate(&mut frame, &parsed, &to);
    assert_eq!(frame.bytes(), packet);
}

#[test]
fn a_partial_checksum_of_an_inner_packet_leaves_the_outer_one_complete() {
    // UDP encapsulation: the offload state speaks of a TCP header 30 bytes into the UDP payload.
    let packet = udp_v4(&[9; 100]);
    let parsed = parse(&packet).unwrap();
    let mut frame = Frame::from_packet(&packet);
    frame.offload.checksum = Checksum::Partial { start: 58, offset: 16 };
    translate(&mut frame, &parsed, &to_v4(&parsed));
    assert_sums(frame.bytes());
    assert_eq!(frame.offload.checksum, Checksum::Partial { start: 58, offset: 16 });
}

#[test]
fn sctp_ports_change_its_crc() {
    // CRC32c of an SCTP packet of a common header (ports 1 and 2, tag 3) and a COOKIE-ACK chunk, by bitwise division.
    fn crc(bytes: &[u8]) -> [u8; 4] {
        let mut register = !0_u32;
        for byte in bytes {
            register ^= u32::from(*byte);
            for _ in 0..8 {
                register = (register >> 1) ^ if register & 1 == 1 { 0x82f6_3b78 } else { 0 };
            }
        }
        (!register).to_le_bytes()
    }
    let build = |source: u16, destination: u16, host: [u8; 4]| {
        let mut sctp = vec![0; 16];
        sctp[0..2].copy_from_slice(&source.to_be_bytes());
        sctp[2..4].copy_from_slice(&destination.to_be_bytes());
        sctp[4..8].copy_from_slice(&3_u32.to_be_bytes());
        sctp[12..16].copy_from_slice(&[11, 0, 0, 4]);
        let sum = crc(&sctp);
        sctp[8..12].copy_from_slice(&sum);
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4(host, [20, 60, 1, 7], 64);
        builder.write(&mut packet, etherparse::IpNumber::SCTP, &sctp).unwrap_or_else(|error| panic!("{error}"));
        packet
    };
    let packet = build(1, 2, [10, 1, 0, 4]);
    let parsed = parse(&packet).unwrap();
    let mut frame = Frame::from_packet(&packet);
    let to = Translation { source: "192.0.2.9".parse().unwrap(), source_port: 5000, ..to_v4(&parsed) };
    translate(&mut frame, &parsed, &to);
    assert_eq!(frame.bytes(), build(5000, 2, [192, 0, 2, 9]));
}
