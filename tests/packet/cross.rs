//! From one family to the other: what comes out is what etherparse builds in the other family, in every state that
//! checksums may be in, and segments and errors are those of the packets that were crossed.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use proptest::prelude::*;
use sidestep::packet::checksum;
use sidestep::packet::cross::{cross, cross_error};
use sidestep::packet::fragment::fragment_v4;
use sidestep::packet::frame::{Checksum, Frame, SegmentKind, Segmentation};
use sidestep::packet::icmp::{IcmpError, build_error, embedded};
use sidestep::packet::parse::{Fragment, Parsed, TransportKind, parse};
use sidestep::packet::rewrite::{Translation, decrement_hop_limit};
use sidestep::packet::segment::wire_size;

use crate::cut::{large, segments, super_packet};
use crate::sample::{
    Recipe, Transport, addresses_of, assert_sums, fix_ipv4_checksum, partial, recipe, slow_pseudo, tcp_v4, udp_v4,
};

const ID: u16 = 0x4321;

fn translation(v4: bool) -> impl Strategy<Value = Translation> {
    (addresses_of(v4), any::<(u16, u16)>()).prop_map(|((source, destination), (source_port, destination_port))| {
        Translation { source, destination, source_port, destination_port }
    })
}

/// A packet and what it becomes in the other family.
fn crossing(recipe: impl Strategy<Value = Recipe>) -> impl Strategy<Value = (Recipe, Translation)> {
    recipe.prop_flat_map(|recipe| {
        let v4 = recipe.is_v4();
        (Just(recipe), translation(!v4))
    })
}

fn to_v6() -> Translation {
    Translation {
        source: "fde4:8dba:1200::a02:126".parse().unwrap(),
        destination: "2001:db8::7".parse().unwrap(),
        source_port: 1111,
        destination_port: 443,
    }
}

fn to_v4() -> Translation {
    Translation {
        source: "192.0.2.9".parse().unwrap(),
        destination: "198.51.100.7".parse().unwrap(),
        source_port: 2222,
        destination_port: 53,
    }
}

/// What brings a packet back to what it was.
fn back(parsed: &Parsed) -> Translation {
    Translation {
        source: parsed.source(),
        destination: parsed.destination(),
        source_port: parsed.source_port,
        destination_port: parsed.destination_port,
    }
}

fn is_echo(recipe: &Recipe) -> bool {
    matches!(recipe.transport, Transport::Echo { .. })
}

/// The packet with a partial checksum, of ICMP too.
fn in_state(recipe: &Recipe, is_partial: bool) -> Frame {
    let packet = recipe.build();
    if !is_partial {
        return Frame::from_packet(&packet);
    }
    if !is_echo(recipe) {
        return partial(&packet);
    }
    let parsed = parse(&packet).unwrap();
    let mut frame = Frame::from_packet(&packet);
    let length = parsed.total - u32::from(parsed.transport);
    let sum = if recipe.is_v4() { 0 } else { slow_pseudo(&packet, &parsed, length) };
    let at = usize::from(parsed.transport) + 2;
    frame.bytes_mut()[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    frame.offload.checksum = Checksum::Partial { start: parsed.transport, offset: 2 };
    frame
}

/// The packet that etherparse builds in the other family.
fn rebuilt(recipe: &Recipe, to: &Translation, is_partial: bool) -> Vec<u8> {
    let mut recipe = recipe.clone();
    let (was_v4, atomic) = (recipe.is_v4(), !recipe.is_v4() && recipe.extra & 8 != 0);
    (recipe.source, recipe.destination, recipe.extra) = (to.source, to.destination, 0);
    match &mut recipe.transport {
        Transport::Tcp { source, destination, .. } | Transport::Udp { source, destination } => {
            (*source, *destination) = (to.source_port, to.destination_port);
        }
        Transport::UdpUnsummed { .. } => {
            let (source, destination) = (to.source_port, to.destination_port);
            recipe.transport = if was_v4 || is_partial {
                Transport::Udp { source, destination }
            } else {
                Transport::UdpUnsummed { source, destination }
            };
        }
        Transport::Echo { identifier, reply, .. } => {
            *identifier = if *reply { to.destination_port } else { to.source_port };
        }
        Transport::Raw { .. } => {}
    }
    let mut packet = recipe.build();
    if !was_v4 {
        let (id, flags) = if atomic {
            (77, 0)
        } else if packet.len() > 1260 {
            (0, 0x40)
        } else {
            (ID, 0)
        };
        packet[4..6].copy_from_slice(&id.to_be_bytes());
        packet[6] = flags;
        fix_ipv4_checksum(&mut packet);
    }
    packet
}

/// Equal, with checksums that are right; all ones and 0 are one number there.
#[track_caller]
fn assert_same(ours: &[u8], expected: &[u8]) {
    let (mut ours, mut expected) = (ours.to_vec(), expected.to_vec());
    let parsed = parse(&ours).unwrap();
    assert_eq!(checksum::verify(&ours, &parsed), checksum::verify(&expected, &parse(&expected).unwrap()));
    let offset = match parsed.kind {
        TransportKind::Tcp { .. } => 16,
        TransportKind::IcmpEcho { .. } => 2,
        _ => 0,
    };
    if offset > 0 {
        let at = usize::from(parsed.transport) + offset;
        ours[at..at + 2].fill(0);
        expected[at..at + 2].fill(0);
    }
    assert_eq!(ours, expected);
}

/// Without what the translator chooses: identification and DF, and the checksum that covers them.
fn without_choice(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[4..6].fill(0);
        packet[6] &= !0x40;
        fix_ipv4_checksum(&mut packet);
    }
    packet
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn crossing_equals_building_anew((recipe, to) in crossing(recipe()), in_partial: bool) {
        let raw = matches!(recipe.transport, Transport::Raw { .. });
        let mut frame = in_state(&recipe, in_partial && !raw);
        let parsed = parse(frame.bytes()).unwrap();
        let crossed = cross(&mut frame, &parsed, &to, ID);
        if raw {
            prop_assert_eq!(crossed, None);
            return Ok(());
        }
        let crossed = crossed.unwrap();
        prop_assert_eq!(crossed, parse(frame.bytes()).unwrap());
        if let Checksum::Partial { start, .. } = frame.offload.checksum {
            prop_assert!(in_partial);
            prop_assert_eq!(start, crossed.transport);
        }
        prop_assert!(checksum::finish(&mut frame));
        assert_same(frame.bytes(), &rebuilt(&recipe, &to, in_partial));
    }

    #[test]
    fn there_and_back_is_the_same_packet((recipe, to) in crossing(recipe()), in_partial: bool) {
        prop_assume!(!matches!(recipe.transport, Transport::Raw { .. } | Transport::UdpUnsummed { .. }));
        let recipe = Recipe { extra: 0, ..recipe };
        let mut frame = in_state(&recipe, in_partial);
        let offload = frame.offload;
        let parsed = parse(frame.bytes()).unwrap();
        let other = cross(&mut frame, &parsed, &to, ID).unwrap();
        cross(&mut frame, &other, &back(&parsed), ID).unwrap();
        prop_assert_eq!(frame.offload, offload);
        prop_assert!(checksum::finish(&mut frame));
        assert_same(&without_choice(frame.bytes()), &without_choice(&recipe.build()));
    }

    /// Behind the IP header, the error is the one that the other family would have sent about the crossed packet.
    #[test]
    fn errors_are_those_of_the_other_family((recipe, to) in crossing(recipe()), which in 0_usize..5) {
        prop_assume!(!matches!(recipe.transport, Transport::Raw { .. } | Transport::UdpUnsummed { .. }));
        let recipe = Recipe { extra: 0, hop_limit: 9, ..recipe };
        let v4 = recipe.is_v4();
        let (ours, theirs) = [
            (IcmpError::TimeExceeded, IcmpError::TimeExceeded),
            (IcmpError::PortUnreachable, IcmpError::PortUnreachable),
            if v4 {
                (IcmpError::NetworkUnreachable, IcmpError::NetworkUnreachable)
            } else {
                (IcmpError::NetworkUnreachable, IcmpError::HostUnreachable)
            },
            if v4 {
                (IcmpError::AdministrativelyProhibited, IcmpError::AdministrativelyProhibited)
            } else {
                (IcmpError::HostUnreachable, IcmpError::HostUnreachable)
            },
            (
                IcmpError::PacketTooBig { mtu: if v4 { 1400 } else { 1420 } },
                IcmpError::PacketTooBig { mtu: if v4 { 1420 } else { 1400 } },
            ),
        ][which];
        let packet = recipe.build();
        let parsed = parse(&packet).unwrap();
        let mut crossed = Frame::from_packet(&packet);
        let crossed_parsed = cross(&mut crossed, &parsed, &to, 0).unwrap();

        let mut frame = Frame::new();
        let from: [IpAddr; 2] = ["10.9.9.9".parse().unwrap(), "fd00::9".parse().unwrap()];
        prop_assume!(build_error(ours, &packet, &parsed, from[usize::from(!v4)], &mut frame));
        let mut expected = Frame::new();
        prop_assume!(build_error(theirs, crossed.bytes(), &crossed_parsed, from[usize::from(v4)], &mut expected));

        let error = parse(frame.bytes()).unwrap();
        let inner = embedded(frame.bytes(), &error).unwrap();
        let outer = (from[usize::from(v4)], to.source);
        let result = cross_error(&mut frame, &error, &inner, outer, &to, ID).unwrap();
        prop_assert_eq!(result, parse(frame.bytes()).unwrap());
        prop_assert_eq!((result.source(), result.destination(), result.hop_limit), (outer.0, outer.1, 64));
        prop_assert_eq!(checksum::verify(frame.bytes(), &result), Some(true));
        let inner = embedded(frame.bytes(), &result).unwrap();
        prop_assert_eq!(back(&inner), back(&crossed_parsed));
        let at = usize::from(result.transport);
        let mut ours = frame.bytes()[at..].to_vec();
        let mut theirs = expected.bytes()[at..].to_vec();
        if is_echo(&recipe) {
            // All ones in a quoted checksum are 0.
            let quoted = usize::from(inner.transport) - at + 2;
            for bytes in [&mut ours, &mut theirs] {
                bytes[2..4].fill(0);
                bytes[quoted..quoted + 2].fill(0);
            }
        }
        prop_assert_eq!(ours, theirs);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn segments_of_the_crossed_are_the_crossed_segments((recipe, to) in crossing(large()), size in 100_u16..9000) {
        let mut frame = super_packet(&recipe, size);
        let one_by_one: Vec<Vec<u8>> = segments(&frame)
            .iter()
            .map(|piece| {
                let mut piece = Frame::from_packet(piece);
                let parsed = parse(piece.bytes()).unwrap();
                cross(&mut piece, &parsed, &to, ID).unwrap();
                without_choice(piece.bytes())
            })
            .collect();
        let parsed = parse(frame.bytes()).unwrap();
        let headers = wire_size(&frame, &parsed) - usize::from(parsed.transport);
        let crossed = cross(&mut frame, &parsed, &to, ID).unwrap();
        prop_assert_eq!(wire_size(&frame, &crossed), headers + usize::from(crossed.transport));
        if crossed.is_v4() && recipe.extra & 8 == 0 {
            prop_assert_eq!(crossed.dont_fragment, wire_size(&frame, &crossed) > 1260);
        }
        let kind = frame.offload.segmentation.unwrap().kind;
        match (recipe.transport, crossed.is_v4()) {
            (Transport::Tcp { .. }, true) => prop_assert_eq!(kind, SegmentKind::TcpV4),
            (Transport::Tcp { .. }, false) => prop_assert_eq!(kind, SegmentKind::TcpV6),
            _ => prop_assert_eq!(kind, SegmentKind::Udp),
        }
        let at_once: Vec<Vec<u8>> = segments(&frame).iter().map(|piece| without_choice(piece)).collect();
        prop_assert_eq!(at_once.len(), one_by_one.len());
        for (one, other) in at_once.iter().zip(&one_by_one) {
            assert_same(one, other);
        }
    }

    #[test]
    fn fragments_cross_one_by_one(payload in prop::collection::vec(any::<u8>(), 1000..4000), mtu in 100_usize..900) {
        let whole = udp_v4(&payload);
        let parsed = parse(&whole).unwrap();
        let mut expected = Frame::from_packet(&whole);
        let expected_parsed = cross(&mut expected, &parsed, &to_v6(), 0).unwrap();
        let mut together = Vec::new();
        let mut last = false;
        fragment_v4(&mut Frame::from_packet(&whole), &parsed, mtu, &mut Frame::new(), |piece| {
            let before = piece.bytes().to_vec();
            let fragment = parse(&before).unwrap();
            let crossed = cross(piece, &fragment, &to_v6(), 0).unwrap();
            assert_eq!(crossed.fragment, fragment.fragment);
            assert_eq!(crossed.identification, fragment.identification);
            assert_eq!(usize::from(crossed.fragment_offset), together.len());
            assert_eq!(crossed.total, fragment.total + 28);
            last = !crossed.more_fragments;
            together.extend_from_slice(&piece.bytes()[48..]);
            cross(piece, &crossed, &back(&fragment), 0).unwrap();
            assert_eq!(piece.bytes(), before);
        });
        prop_assert!(last);
        prop_assert_eq!(&together[..], &expected.bytes()[usize::from(expected_parsed.transport)..]);
    }
}

#[test]
fn an_unsummed_super_packet_gets_a_partial_checksum() {
    let recipe = Recipe {
        source: "10.1.0.4".parse().unwrap(),
        destination: "20.60.1.7".parse().unwrap(),
        hop_limit: 9,
        dont_fragment: true,
        extra: 0,
        transport: Transport::UdpUnsummed { source: 1, destination: 2 },
        payload: vec![7; 5000],
    };
    let mut frame = Frame::from_packet(&recipe.build());
    frame.offload.segmentation = Some(Segmentation { kind: SegmentKind::Udp, size: 1200, ecn: false });
    let parsed = parse(frame.bytes()).unwrap();
    cross(&mut frame, &parsed, &to_v6(), 0).unwrap();
    assert_eq!(frame.offload.checksum, Checksum::Partial { start: 40, offset: 6 });
    let pieces = segments(&frame);
    assert_eq!(pieces.len(), 5);
    for piece in pieces {
        assert_eq!(checksum::verify(&piece, &parse(&piece).unwrap()), Some(true));
    }
    assert!(checksum::finish(&mut frame));
    assert_sums(frame.bytes());
}

#[test]
fn headers_keep_what_both_families_have() {
    let mut packet = tcp_v4(b"data");
    packet[1] = 0xb9;
    fix_ipv4_checksum(&mut packet);
    let parsed = parse(&packet).unwrap();
    packet.extend([0xee; 6]);
    let mut frame = Frame::from_packet(&packet);
    assert!(decrement_hop_limit(&mut frame, &parsed));
    let crossed = cross(&mut frame, &parsed, &to_v6(), 0).unwrap();
    assert_eq!(crossed.hop_limit, parsed.hop_limit - 1, "as the bytes have it");
    assert_eq!(frame.len(), 40 + 20 + 4, "what is behind the packet is cut");
    assert_eq!(frame.bytes()[..4], [0x6b, 0x90, 0, 0]);
    cross(&mut frame, &crossed, &to_v4(), 0).unwrap();
    assert_eq!(frame.bytes()[1], 0xb9);
}

#[test]
fn what_has_no_form_in_the_other_family_is_refused() {
    let refused = |packet: &[u8], to: &Translation| {
        let mut frame = Frame::from_packet(packet);
        cross(&mut frame, &parse(packet).unwrap(), to, 0).is_none()
    };
    let packet = udp_v4(&[0; 16]);
    assert!(!refused(&packet, &to_v6()));
    assert!(refused(&packet, &to_v4()), "the same family");
    assert!(refused(&packet, &Translation { source: to_v4().source, ..to_v6() }), "both families");

    let mut unsummed = packet.clone();
    unsummed[26..28].fill(0);
    assert!(!refused(&unsummed, &to_v6()));
    unsummed[6] = 0x20;
    fix_ipv4_checksum(&mut unsummed);
    assert!(refused(&unsummed, &to_v6()), "the checksum of what is not here");

    let mut echo = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).icmpv4_echo_request(1, 2).write(&mut echo, &[0; 8]).unwrap();
    assert!(!refused(&echo, &to_v6()));
    for field in [[0x20, 0], [0, 4]] {
        echo[6..8].copy_from_slice(&field);
        fix_ipv4_checksum(&mut echo);
        assert!(refused(&echo, &to_v6()), "an ICMP fragment");
    }
    let mut other = Vec::new();
    let timestamp = PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9).icmpv4_raw(13, 0, [0; 4]);
    timestamp.write(&mut other, &[0; 12]).unwrap();
    assert!(refused(&other, &to_v6()));

    // Destination options between the fragment header and UDP count to the offsets of later fragments.
    let mut first = Vec::new();
    PacketBuilder::ipv6([0x20; 16], [0x21; 16], 9).udp(1, 2).write(&mut first, &[0; 8]).unwrap();
    first[5] += 16;
    first[6] = 44;
    first.splice(40..40, [60, 0, 0, 1, 0, 0, 0, 9, 17, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(parse(&first).unwrap().fragment, Fragment::First);
    assert!(refused(&first, &to_v4()));
    first.splice(48..56, []);
    first[5] -= 8;
    first[40] = 17;
    assert!(!refused(&first, &to_v4()));
}

/// An ICMP error of the given words about a packet of the family, with its own quote.
fn error(v4: bool, message: u8, code: u8, rest: [u8; 4], quote: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if v4 {
        let builder = PacketBuilder::ipv4([10, 9, 9, 9], [10, 1, 0, 4], 64);
        builder.icmpv4_raw(message, code, rest).write(&mut out, quote).unwrap();
    } else {
        let builder = PacketBuilder::ipv6([0x29; 16], [0x20; 16], 64);
        builder.icmpv6_raw(message, code, rest).write(&mut out, quote).unwrap();
    }
    out
}

fn crossed_error(packet: &[u8]) -> Option<Vec<u8>> {
    let parsed = parse(packet).unwrap();
    let inner = embedded(packet, &parsed)?;
    let mut frame = Frame::from_packet(packet);
    let to = if parsed.is_v4() { to_v6() } else { to_v4() };
    let result = cross_error(&mut frame, &parsed, &inner, (to.destination, to.source), &to, ID)?;
    assert_eq!(checksum::verify(frame.bytes(), &result), Some(true));
    Some(frame.bytes()[usize::from(result.transport)..].to_vec())
}

/// Type, code and the rest of the header after the crossing.
fn words(v4: bool, message: u8, code: u8, rest: [u8; 4]) -> Option<(u8, u8, [u8; 4])> {
    let mut quote = Vec::new();
    if v4 {
        quote = udp_v4(&[0; 1400]);
        quote.truncate(200);
    } else {
        PacketBuilder::ipv6([0x20; 16], [0x21; 16], 9).udp(1, 2).write(&mut quote, &[0; 100]).unwrap();
    }
    let new = crossed_error(&error(v4, message, code, rest, &quote))?;
    Some((new[0], new[1], [new[4], new[5], new[6], new[7]]))
}

#[test]
fn types_and_codes_of_ipv4_errors() {
    let zero = [0; 4];
    for code in [0, 1, 5, 6, 7, 8, 11, 12] {
        assert_eq!(words(true, 3, code, zero), Some((1, 0, zero)));
    }
    for code in [9, 10, 13, 15] {
        assert_eq!(words(true, 3, code, zero), Some((1, 1, zero)));
    }
    assert_eq!(words(true, 3, 2, zero), Some((4, 1, [0, 0, 0, 6])));
    assert_eq!(words(true, 3, 3, zero), Some((1, 4, zero)));
    for (mtu, expected) in [(1400_u16, 1420_u32), (576, 1280), (65_535, 65_555)] {
        let [high, low] = mtu.to_be_bytes();
        assert_eq!(words(true, 3, 4, [0, 0, high, low]), Some((2, 0, expected.to_be_bytes())));
    }
    // The quoted packet has 1428 bytes; 1006 is the plateau below it, and IPv6 knows no MTU below 1280.
    assert_eq!(words(true, 3, 4, zero), Some((2, 0, 1280_u32.to_be_bytes())));
    let mut large = udp_v4(&[0; 3000]);
    large.truncate(100);
    let new = crossed_error(&error(true, 3, 4, zero, &large)).unwrap();
    assert_eq!(new[4..8], 2022_u32.to_be_bytes());
    assert_eq!(words(true, 11, 0, zero), Some((3, 0, zero)));
    assert_eq!(words(true, 11, 1, zero), Some((3, 1, zero)));
    let pointers = [(0, 0), (1, 1), (2, 4), (3, 4), (8, 7), (9, 6), (12, 8), (15, 8), (16, 24), (19, 24)];
    for (pointer, expected) in pointers {
        assert_eq!(words(true, 12, 0, [pointer, 0, 0, 0]), Some((4, 0, [0, 0, 0, expected])));
        assert_eq!(words(true, 12, 2, [pointer, 0, 0, 0]), Some((4, 0, [0, 0, 0, expected])));
    }
    for (message, code, pointer) in
        [(3, 14, 0), (3, 16, 0), (4, 0, 0), (12, 1, 0), (12, 0, 4), (12, 0, 10), (12, 0, 20)]
    {
        assert_eq!(words(true, message, code, [pointer, 0, 0, 0]), None);
    }
}

#[test]
fn types_and_codes_of_ipv6_errors() {
    let zero = [0; 4];
    for (code, expected) in [(0, 1), (1, 10), (2, 1), (3, 1), (4, 3)] {
        assert_eq!(words(false, 1, code, zero), Some((3, expected, zero)));
    }
    for (mtu, expected) in [(1500_u32, 1480_u16), (1280, 1260), (10, 0), (100_000, 65_535)] {
        let [high, low] = expected.to_be_bytes();
        assert_eq!(words(false, 2, 0, mtu.to_be_bytes()), Some((3, 4, [0, 0, high, low])));
    }
    assert_eq!(words(false, 3, 0, zero), Some((11, 0, zero)));
    assert_eq!(words(false, 3, 1, zero), Some((11, 1, zero)));
    let pointers = [(0, 0), (1, 1), (4, 2), (5, 2), (6, 9), (7, 8), (8, 12), (23, 12), (24, 16), (39, 16)];
    for (pointer, expected) in pointers {
        assert_eq!(words(false, 4, 0, [0, 0, 0, pointer]), Some((12, 0, [expected, 0, 0, 0])));
    }
    assert_eq!(words(false, 4, 1, [0, 0, 0, 6]), Some((3, 2, zero)));
    for (message, code, pointer) in [(1, 5, 0), (4, 2, 0), (4, 0, 2), (4, 0, 40)] {
        assert_eq!(words(false, message, code, [0, 0, 0, pointer]), None);
    }
}

#[test]
fn quotes_are_cut_to_what_errors_may_have() {
    let mut quote = Vec::new();
    PacketBuilder::ipv6([0x20; 16], [0x21; 16], 9).udp(1, 2).write(&mut quote, &[3; 1180]).unwrap();
    assert_eq!(crossed_error(&error(false, 3, 0, [0; 4], &quote)).unwrap().len(), 576 - 20);
    let quote = udp_v4(&[3; 1300]);
    assert_eq!(crossed_error(&error(true, 11, 0, [0; 4], &quote)).unwrap().len(), 1280 - 40);

    // Extensions behind 128 bytes of quote, RFC 4884.
    let quote = &quote[..140];
    let new = crossed_error(&error(true, 11, 0, [0, 32, 0, 0], quote)).unwrap();
    assert_eq!((new.len(), &new[4..8]), (8 + 128 + 20, &[0; 4][..]));
    // A length beyond what is there adds nothing.
    assert_eq!(crossed_error(&error(true, 11, 0, [0, 200, 0, 0], quote)).unwrap().len(), 8 + 140 + 20);
}

#[test]
fn a_wrong_error_is_not_made_right() {
    let mut packet = error(true, 11, 0, [0; 4], &udp_v4(&[3; 20]));
    assert!(crossed_error(&packet).is_some());
    packet[60] ^= 1;
    assert_eq!(crossed_error(&packet), None);
}
