//! Whatever the bytes are, and whatever packet the offsets belong to, nothing panics.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use sidestep::packet::checksum;
use sidestep::packet::cross::{cross, cross_error};
use sidestep::packet::fragment::fragment_v4;
use sidestep::packet::frame::{Checksum, Frame, Offload, SegmentKind, Segmentation};
use sidestep::packet::icmp::{IcmpError, build_error, embedded};
use sidestep::packet::mss::clamp_mss;
use sidestep::packet::parse::{Parsed, parse};
use sidestep::packet::rewrite::{Translation, decrement_hop_limit, set_identification, translate, translate_embedded};
use sidestep::packet::segment::{segment, segment_count, wire_size};
use sidestep::packet::tcp::sequence_span;

use crate::sample::{addresses, fix_ipv4_checksum, recipe};

/// Noise behind the start of an IP header, so that some of it gets through the parser.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let protocols =
        prop_oneof![Just(1_u8), Just(6), Just(17), Just(58), Just(132), Just(136), Just(44), Just(0), any::<u8>()];
    (vec(any::<u8>(), 0..200), 0_u8..4, protocols, any::<bool>()).prop_map(|(mut bytes, shape, protocol, short)| {
        let length = bytes.len() as u16;
        match shape {
            0 | 1 if bytes.len() >= 20 => {
                bytes[0] = if shape == 0 { 0x45 } else { 0x40 | (bytes[0] & 0x0f) };
                bytes[2..4].copy_from_slice(&length.to_be_bytes());
                bytes[9] = protocol;
                if short {
                    bytes[6..8].fill(0);
                }
                fix_ipv4_checksum(&mut bytes);
            }
            2 if bytes.len() >= 40 => {
                bytes[0] = 0x60;
                bytes[4..6].copy_from_slice(&(length - 40).to_be_bytes());
                bytes[6] = protocol;
            }
            _ => {}
        }
        bytes
    })
}

fn offload() -> impl Strategy<Value = Offload> {
    let checksum = prop_oneof![
        Just(Checksum::Complete),
        Just(Checksum::Verified),
        any::<(u16, u16)>().prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        (20_u16..61, 0_u16..20).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
    ];
    let kinds = prop_oneof![Just(SegmentKind::TcpV4), Just(SegmentKind::TcpV6), Just(SegmentKind::Udp)];
    let segmentation =
        proptest::option::of((kinds, 0_u16..300, any::<bool>()).prop_map(|(kind, size, ecn)| Segmentation {
            kind,
            size,
            ecn,
        }));
    (checksum, segmentation).prop_map(|(checksum, segmentation)| Offload { checksum, segmentation })
}

/// Calls everything that takes bytes and a [`Parsed`], which need not belong together.
fn exercise(bytes: &[u8], parsed: &Parsed, inner: &Parsed, offload: Offload, to: &Translation) {
    let length = bytes.len();
    let mut frame = Frame::from_packet(bytes);
    frame.offload = offload;
    let mut scratch = Frame::new();
    decrement_hop_limit(&mut frame, parsed);
    translate(&mut frame, parsed, to);
    translate_embedded(&mut frame, parsed, inner, (to.destination, to.source), to);
    clamp_mss(&mut frame, parsed, to.source_port);
    set_identification(&mut frame, parsed, to.source_port);
    assert_eq!(frame.len(), length, "a rewrite keeps the length");
    let found = embedded(frame.bytes(), parsed);
    if let Some(found) = found {
        assert!(usize::from(found.transport) <= length);
        translate_embedded(&mut frame, parsed, &found, (to.source, to.destination), to);
    }
    for error in [IcmpError::TimeExceeded, IcmpError::PacketTooBig { mtu: u32::MAX }] {
        build_error(error, frame.bytes(), parsed, to.source, &mut scratch);
        assert!(scratch.len() <= 1280);
    }
    checksum::verify(frame.bytes(), parsed);
    for id in [0, u16::MAX] {
        let mut crossed = Frame::new();
        crossed.copy_from(&frame);
        if let Some(new) = cross(&mut crossed, parsed, to, id) {
            assert_eq!(new.total as usize, crossed.len());
        }
        crossed.copy_from(&frame);
        if let Some(new) = cross_error(&mut crossed, parsed, inner, (to.source, to.destination), to, id) {
            assert_eq!(checksum::verify(crossed.bytes(), &new), Some(true));
        }
    }
    sequence_span(parsed);
    assert!(wire_size(&frame, parsed) <= parsed.total as usize);
    let mut made = 0;
    let count = segment(&frame, parsed, &mut scratch, |_| made += 1);
    assert_eq!(made, count);
    assert!(count <= segment_count(&frame, parsed));
    let mut made = 0;
    assert_eq!(fragment_v4(&mut frame, parsed, 100, &mut scratch, |_| made += 1), made);
    checksum::finish(&mut frame);
}

fn translation() -> impl Strategy<Value = Translation> {
    (addresses(), any::<(u16, u16)>()).prop_map(
        |((source, destination), (source_port, destination_port)): ((IpAddr, IpAddr), _)| Translation {
            source,
            destination,
            source_port,
            destination_port,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn noise_panics_nowhere(bytes in noise(), offload in offload(), to in translation()) {
        if let Ok(parsed) = parse(&bytes) {
            exercise(&bytes, &parsed, &parsed, offload, &to);
        }
    }

    #[test]
    fn offsets_of_another_packet_panic_nowhere(
        bytes in noise(),
        recipe in recipe(),
        other in recipe(),
        offload in offload(),
        to in translation(),
    ) {
        let (parsed, inner) = (parse(&recipe.build()).unwrap(), parse(&other.build()).unwrap());
        exercise(&bytes, &parsed, &inner, offload, &to);
        exercise(&other.build(), &parsed, &inner, offload, &to);
        exercise(&[], &parsed, &inner, offload, &to);
    }

    /// Errors that quote noise.
    #[test]
    fn quotes_of_noise_panic_nowhere(quote in noise(), v4 in any::<bool>(), message in 1_u8..13, to in translation()) {
        let mut packet = Vec::new();
        if v4 {
            let builder = etherparse::PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 9);
            builder.icmpv4_raw(message, 0, [0; 4]).write(&mut packet, &quote).unwrap();
        } else {
            let builder = etherparse::PacketBuilder::ipv6([0x20; 16], [0x21; 16], 9);
            builder.icmpv6_raw(message, 0, [0; 4]).write(&mut packet, &quote).unwrap();
        }
        let parsed = match parse(&packet) {
            Ok(parsed) => parsed,
            Err(error) => panic!("{error}"),
        };
        let inner = embedded(&packet, &parsed).unwrap_or(parsed);
        exercise(&packet, &parsed, &inner, Offload::default(), &to);
        let mut frame = Frame::from_packet(&packet);
        if inner.network > 0 && to.source.is_ipv4() == v4 {
            // However odd the quote, the error's own checksum is right after the rewrite.
            translate_embedded(&mut frame, &parsed, &inner, (to.destination, to.source), &to);
            let parsed = parse(frame.bytes()).unwrap();
            prop_assert_eq!(checksum::verify(frame.bytes(), &parsed), Some(true));
        }
    }
}
