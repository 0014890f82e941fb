//! Segmentation and fragmentation: the pieces are right one by one, and together they are the whole.

use proptest::collection::vec;
use proptest::prelude::*;
use sidestep::packet::checksum;
use sidestep::packet::fragment::fragment_v4;
use sidestep::packet::frame::{Checksum, Frame, Offload, SegmentKind, Segmentation};
use sidestep::packet::parse::{Fragment, Parsed, TransportKind, parse};
use sidestep::packet::segment::{segment, segment_count, wire_size};

use crate::sample::{Recipe, Transport, addresses, assert_sums, fix_ipv4_checksum, partial, tcp_v4, udp_v4};

pub(crate) fn super_packet(recipe: &Recipe, size: u16) -> Frame {
    let mut frame = partial(&recipe.build());
    let kind = match (&recipe.transport, recipe.is_v4()) {
        (Transport::Tcp { .. }, true) => SegmentKind::TcpV4,
        (Transport::Tcp { .. }, false) => SegmentKind::TcpV6,
        _ => SegmentKind::Udp,
    };
    frame.offload.segmentation = Some(Segmentation { kind, size, ecn: false });
    frame
}

pub(crate) fn segments(frame: &Frame) -> Vec<Vec<u8>> {
    let parsed = parse(frame.bytes()).unwrap();
    let mut out = Vec::new();
    let mut scratch = Frame::new();
    let count = segment(frame, &parsed, &mut scratch, |piece| {
        assert_eq!(piece.offload, Offload::default());
        out.push(piece.bytes().to_vec());
    });
    assert_eq!(count, out.len());
    assert_eq!(count, segment_count(frame, &parsed));
    out
}

pub(crate) fn large() -> impl Strategy<Value = Recipe> {
    let transport = prop_oneof![
        (any::<(u16, u16, u32, u32)>(), any::<u8>(), 0_usize..=10).prop_map(
            |((source, destination, sequence, acknowledgment), flags, options)| {
                Transport::Tcp { source, destination, sequence, acknowledgment, flags, window: 99, options }
            }
        ),
        any::<(u16, u16)>().prop_map(|(source, destination)| Transport::Udp { source, destination }),
    ];
    (addresses(), any::<u8>(), transport, vec(any::<u8>(), 1..20_000)).prop_map(
        |((source, destination), extra, transport, payload)| Recipe {
            source,
            destination,
            hop_limit: 9,
            dont_fragment: true,
            extra,
            transport,
            payload,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn segments_are_the_packets_that_would_have_been_sent(recipe in large(), size in 100_u16..9000) {
        let frame = super_packet(&recipe, size);
        let pieces = segments(&frame);
        prop_assert_eq!(pieces.len(), recipe.payload.len().div_ceil(usize::from(size)));
        let parsed = parse(frame.bytes()).unwrap();
        prop_assert_eq!(pieces.iter().map(Vec::len).max().unwrap(), wire_size(&frame, &parsed));
        for (index, (piece, payload)) in pieces.iter().zip(recipe.payload.chunks(usize::from(size))).enumerate() {
            assert_sums(piece);
            let mut one = Recipe { payload: payload.to_vec(), ..recipe.clone() };
            if let Transport::Tcp { sequence, flags, .. } = &mut one.transport {
                *sequence = sequence.wrapping_add((index * usize::from(size)) as u32);
                if index > 0 {
                    *flags &= !Parsed::CWR;
                }
                if index + 1 < pieces.len() {
                    *flags &= !(Parsed::FIN | Parsed::PSH);
                }
            }
            let mut expected = one.build();
            if recipe.is_v4() {
                expected[4..6].copy_from_slice(&0xfffe_u16.wrapping_add(index as u16).to_be_bytes());
                fix_ipv4_checksum(&mut expected);
            }
            prop_assert_eq!(piece, &expected);
        }
    }

    #[test]
    fn fragments_reassemble(
        payload in vec(any::<u8>(), 0..9000),
        mtu in 68_usize..3000,
        again in 68_usize..1500,
        words in 0_u8..=10,
        partially in any::<bool>(),
    ) {
        let recipe = Recipe {
            source: [10, 1, 0, 4].into(),
            destination: [20, 60, 1, 7].into(),
            hop_limit: 9,
            dont_fragment: false,
            extra: words,
            transport: Transport::Udp { source: 4, destination: 5 },
            payload,
        };
        let whole = recipe.build();
        let mut frame = if partially { partial(&whole) } else { Frame::from_packet(&whole) };
        let mut scratch = Frame::new();
        let mut pieces = Vec::new();
        // Twice: the fragments are cut by a second, smaller MTU.
        let parsed = parse(frame.bytes()).unwrap();
        let made = fragment_v4(&mut frame, &parsed, mtu, &mut scratch, |piece| {
            assert!(piece.len() <= mtu);
            let parsed = parse(piece.bytes()).unwrap();
            let mut second = Frame::new();
            let made = fragment_v4(piece, &parsed, again, &mut second, |piece| {
                assert!(piece.len() <= again);
                pieces.push(piece.bytes().to_vec());
            });
            assert!(made > 0);
        });
        prop_assert!(made > 0);
        let mut payload: Vec<u8> = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let parsed = parse(piece).unwrap();
            let last = index + 1 == pieces.len();
            let expected = match (index, last) {
                (0, true) => Fragment::None,
                (0, false) => Fragment::First,
                _ => Fragment::Later,
            };
            prop_assert_eq!(parsed.fragment, expected);
            let field = u16::from_be_bytes([piece[6], piece[7]]);
            prop_assert_eq!(usize::from(field & 0x1fff) * 8, payload.len());
            prop_assert_eq!(field & 0x2000 != 0, !last);
            // Router alert has the copied bit, the no-operations behind it have not.
            let options = if words == 0 { 0 } else if index == 0 { usize::from(words) * 4 } else { 4 };
            prop_assert_eq!(usize::from(parsed.transport), 20 + options);
            prop_assert_eq!(&piece[4..6], &whole[4..6]);
            payload.extend(&piece[usize::from(parsed.transport)..]);
        }
        prop_assert_eq!(payload, &whole[20 + usize::from(words) * 4..]);
    }
}

fn fragments(packet: &[u8], mtu: usize) -> usize {
    let parsed = parse(packet).unwrap();
    fragment_v4(&mut Frame::from_packet(packet), &parsed, mtu, &mut Frame::new(), |_| ())
}

#[test]
fn what_must_not_be_cut_is_not() {
    let packet = udp_v4(&[0; 1000]);
    assert_eq!(fragments(&packet, 500), 3);
    assert_eq!(fragments(&packet, 1028), 1);
    assert_eq!(fragments(&packet, 27), 0, "no room for 8 bytes");
    let mut never = packet.clone();
    never[6] = 0x40;
    fix_ipv4_checksum(&mut never);
    assert_eq!(fragments(&never, 500), 0);
    assert_eq!(fragments(&never, 1028), 1);

    // The parser refuses such a packet; here it comes with what was parsed before.
    let parsed = parse(&packet).unwrap();
    let mut at_the_end = packet;
    at_the_end[6..8].copy_from_slice(&[0x1f, 0xff]);
    let mut frame = Frame::from_packet(&at_the_end);
    assert_eq!(fragment_v4(&mut frame, &parsed, 500, &mut Frame::new(), |_| ()), 0, "offsets would not fit");

    let mut frame = Frame::from_packet(&udp_v4(&[0; 1000]));
    frame.offload.segmentation = Some(Segmentation { kind: SegmentKind::Udp, size: 400, ecn: false });
    let parsed = parse(frame.bytes()).unwrap();
    assert_eq!(fragment_v4(&mut frame, &parsed, 500, &mut Frame::new(), |_| ()), 0, "segments come first");
}

#[test]
fn a_packet_that_is_no_super_packet_goes_out_once_and_finished() {
    let frame = partial(&tcp_v4(b"data"));
    let pieces = segments(&frame);
    assert_eq!(pieces.len(), 1);
    assert_eq!(pieces[0], tcp_v4(b"data"));

    let mut frame = partial(&tcp_v4(b"data"));
    frame.offload.segmentation = Some(Segmentation { kind: SegmentKind::TcpV4, size: 0, ecn: false });
    assert_eq!(segments(&frame), [tcp_v4(b"data")]);
    frame.offload.segmentation = Some(Segmentation { kind: SegmentKind::TcpV4, size: 4, ecn: false });
    assert_eq!(segments(&frame), [tcp_v4(b"data")]);
}

#[test]
fn datagrams_without_a_checksum_stay_without() {
    let mut packet = udp_v4(&[3; 100]);
    packet[26..28].fill(0);
    let mut frame = Frame::from_packet(&packet);
    frame.offload.segmentation = Some(Segmentation { kind: SegmentKind::Udp, size: 40, ecn: false });
    let pieces = segments(&frame);
    assert_eq!(pieces.len(), 3);
    for piece in pieces {
        assert_eq!(piece[26..28], [0, 0]);
        assert_eq!(parse(&piece).unwrap().kind, TransportKind::Udp);
    }
}

/// A super-packet is parsed once, translated, and cut: the segments carry the new addresses in their checksums.
#[test]
fn segments_after_a_translation() {
    use sidestep::packet::rewrite::{Translation, decrement_hop_limit, translate};
    let mut frame = partial(&tcp_v4(&[5; 5000]));
    frame.offload.segmentation = Some(Segmentation { kind: SegmentKind::TcpV4, size: 1448, ecn: false });
    let parsed = parse(frame.bytes()).unwrap();
    let to = Translation {
        source: [192, 0, 2, 1].into(),
        destination: parsed.destination(),
        source_port: 7,
        destination_port: 443,
    };
    translate(&mut frame, &parsed, &to);
    assert!(decrement_hop_limit(&mut frame, &parsed));
    let mut count = 0;
    segment(&frame, &parsed, &mut Frame::new(), |piece| {
        count += 1;
        assert_sums(piece.bytes());
        let found = parse(piece.bytes()).unwrap();
        assert_eq!((found.source(), found.source_port, found.hop_limit), (to.source, 7, 63));
    });
    assert_eq!(count, 4);
}

#[test]
fn wire_size_is_the_largest_segment() {
    let packet = tcp_v4(&[0; 5000]);
    let parsed = parse(&packet).unwrap();
    let mut frame = Frame::from_packet(&packet);
    assert_eq!(wire_size(&frame, &parsed), 5040);
    frame.offload.segmentation = Some(Segmentation { kind: SegmentKind::TcpV4, size: 1460, ecn: false });
    assert_eq!(wire_size(&frame, &parsed), 1500);
    frame.offload.segmentation = Some(Segmentation { kind: SegmentKind::TcpV4, size: 9000, ecn: false });
    assert_eq!(wire_size(&frame, &parsed), 5040);
}

#[test]
fn finishing_outside_the_packet_fails() {
    let mut frame = Frame::from_packet(&tcp_v4(b""));
    for (start, offset) in [(41, 0), (20, 19), (40, 0), (u16::MAX, u16::MAX)] {
        frame.offload.checksum = Checksum::Partial { start, offset };
        assert!(!checksum::finish(&mut frame));
        assert_eq!(frame.bytes(), tcp_v4(b""));
    }
}

/// 0 and 0xffff are one number to whoever checks, but 0xffff is none that a TCP sender computes, and tools call it wrong.
#[test]
fn a_finished_checksum_of_0_is_0_in_tcp_and_ones_in_udp() {
    for (offset, expected) in [(16_u16, [0, 0]), (6, [0xff, 0xff])] {
        let mut bytes = [0; 20];
        bytes[0] = 0xff;
        bytes[1] = 0xff;
        let mut frame = Frame::from_packet(&bytes);
        frame.offload.checksum = Checksum::Partial { start: 0, offset };
        assert!(checksum::finish(&mut frame));
        assert_eq!(frame.bytes()[usize::from(offset)..][..2], expected);
    }
}
