//! Merging: what is cut again is what was merged, and what does not belong together stays apart.

use proptest::prelude::*;
use sidestep::packet::frame::{Checksum, Frame, Offload, SegmentKind, Segmentation};
use sidestep::packet::merge::{Merged, Piece};
use sidestep::packet::parse::{Parsed, parse};

use crate::cut::{large, segments, super_packet};
use crate::sample::{Recipe, Transport, fix_ipv4_checksum, partial, tcp_v4, udp_v4};

/// Packets whose checksum has been verified.
fn verified(packet: &[u8]) -> Frame {
    let mut frame = Frame::from_packet(packet);
    frame.offload.checksum = Checksum::Verified;
    frame
}

/// Merges packets in turn as far as they go together: super-packets and single packets, in order.
fn merged(frames: Vec<Frame>) -> Vec<Frame> {
    let mut out = Vec::new();
    let mut open: Option<Merged> = None;
    let close = |merged: Option<Merged>, out: &mut Vec<Frame>| {
        if let Some(mut merged) = merged {
            out.push(std::mem::take(merged.finish()));
        }
    };
    for mut frame in frames {
        let Some(piece) = Piece::of(&frame) else {
            close(open.take(), &mut out);
            out.push(frame);
            continue;
        };
        if let Some(merged) = &mut open
            && merged.is_of_flow(&frame, &piece)
            && merged.add(&frame, &piece)
        {
            continue;
        }
        close(open.take(), &mut out);
        let mut merged = Merged::new();
        merged.begin(&mut frame, piece);
        open = Some(merged);
    }
    close(open.take(), &mut out);
    out
}

/// What a device would put on the wire.
fn on_wire(frames: &[Frame]) -> Vec<Vec<u8>> {
    let wire = |frame: &Frame| match frame.offload {
        Offload { checksum: Checksum::Verified, segmentation: None } => vec![frame.bytes().to_vec()],
        _ => segments(frame),
    };
    frames.iter().flat_map(wire).collect()
}

/// Super-packets of packets that may be merged.
fn mergeable() -> impl Strategy<Value = Recipe> {
    (large(), any::<bool>(), any::<bool>()).prop_map(|(mut recipe, push, dont_fragment)| {
        if let Transport::Tcp { flags, .. } = &mut recipe.transport {
            *flags = Parsed::ACK | if push { Parsed::PSH } else { 0 };
        }
        recipe.extra = 0;
        recipe.dont_fragment = dont_fragment;
        recipe
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The segments of a super-packet, merged and cut again, are the same segments.
    #[test]
    fn merging_and_cutting_is_the_identity(recipe in mergeable(), size in 500_u16..3_000, unsummed: bool) {
        let pieces = segments(&super_packet(&recipe, size));
        let frames = pieces.iter().map(|piece| if unsummed { partial(piece) } else { verified(piece) }).collect();
        let whole = merged(frames);
        prop_assert_eq!(whole.len(), 1);
        prop_assert_eq!(on_wire(&whole), pieces);
    }

    /// Whatever the packets are, they arrive as they were sent.
    #[test]
    fn anything_arrives_as_it_was_sent(recipe in large(), size in 500_u16..3_000, unsummed: bool) {
        let pieces = segments(&super_packet(&recipe, size));
        let frames = pieces.iter().map(|piece| if unsummed { partial(piece) } else { verified(piece) }).collect();
        prop_assert_eq!(on_wire(&merged(frames)), pieces);
    }

    /// A packet that differs anywhere in its headers from what would follow is not taken for it.
    #[test]
    fn a_changed_header_is_kept(recipe in mergeable(), size in 500_u16..3_000, at in 0_usize..80, change in 1_u8..) {
        let pieces = segments(&super_packet(&recipe, size));
        let mut frames: Vec<Frame> = pieces.iter().map(|piece| verified(piece)).collect();
        let middle = frames.len() / 2;
        let payload = parse(frames[middle].bytes()).expect("a packet").payload();
        if let Some(byte) = frames[middle].bytes_mut()[..payload].get_mut(at) {
            *byte ^= change;
        }
        let sent: Vec<Vec<u8>> = frames.iter().map(|frame| frame.bytes().to_vec()).collect();
        let wire = on_wire(&merged(frames));
        // The checksum of the changed packet is wrong, and the only thing that may be put right.
        prop_assert_eq!(wire.len(), sent.len());
        for (index, (got, was)) in wire.iter().zip(&sent).enumerate() {
            if index != middle {
                prop_assert_eq!(got, was);
                continue;
            }
            // With DF the identification means nothing.
            let v4 = was[0] >> 4 == 4;
            let free = if v4 && was[6] & 0x40 != 0 { 4..6 } else { 0..0 };
            let transport = if v4 { 20 } else { 40 };
            let checksum = transport + if matches!(recipe.transport, Transport::Tcp { .. }) { 16 } else { 6 };
            for (place, (one, other)) in got.iter().zip(was).enumerate() {
                let right = [checksum, checksum + 1].contains(&place) || transport == 20 && [10, 11].contains(&place);
                prop_assert!(one == other || right || free.contains(&place), "byte {} of {:?}", place, was);
            }
        }
    }
}

/// The datagram of a flow that is sent as number `number`: identifications count up.
fn datagram(number: u16, size: usize) -> Frame {
    let mut packet = udp_v4(&vec![number as u8; size]);
    packet[4..6].copy_from_slice(&number.wrapping_add(65_500).to_be_bytes());
    fix_ipv4_checksum(&mut packet);
    partial(&packet)
}

/// `count` datagrams of one flow with payloads of a size.
fn datagrams(count: u16, size: usize) -> Vec<Frame> {
    (0..count).map(|number| datagram(number, size)).collect()
}

/// A segment with these flags.
fn tcp(flags: u8, payload: &[u8]) -> Frame {
    let mut packet = tcp_v4(payload);
    packet[33] = flags;
    verified(&packet)
}

#[test]
fn datagrams_of_one_flow_become_one_packet() {
    let frames = datagrams(10, 1_000);
    let sent = on_wire(&frames);
    let whole = merged(frames);
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].offload.segmentation.map(|segmentation| segmentation.size), Some(1_000));
    assert_eq!(on_wire(&whole), sent);
}

#[test]
fn segments_of_one_connection_become_one_packet_up_to_a_push() {
    let mut whole = partial(&tcp_v4(&[5; 10_000]));
    whole.bytes_mut()[33] = Parsed::ACK | Parsed::PSH;
    whole.offload.segmentation = Some(Segmentation { kind: SegmentKind::TcpV4, size: 1_448, ecn: false });
    let pieces = segments(&whole);
    assert_eq!(pieces.len(), 7);
    let back = merged(pieces.iter().map(|piece| verified(piece)).collect());
    assert_eq!(back.len(), 1);
    assert_eq!((back[0].bytes(), back[0].offload), (whole.bytes(), whole.offload));
    // Out of order, acknowledging more, with another window, after a push: not one packet.
    let merges = |change: &dyn Fn(&mut Vec<Frame>)| {
        let mut frames: Vec<Frame> = pieces.iter().map(|piece| verified(piece)).collect();
        change(&mut frames);
        merged(frames).len()
    };
    assert_eq!(merges(&|frames| frames.swap(2, 3)), 4);
    assert_eq!(merges(&|frames| frames[3].bytes_mut()[31] += 1), 3);
    assert_eq!(merges(&|frames| frames[3].bytes_mut()[35] += 1), 3);
    assert_eq!(merges(&|frames| frames[3].bytes_mut()[33] |= Parsed::PSH), 2);
    assert_eq!(merges(&|frames| frames.truncate(1)), 1);
}

#[test]
fn a_super_packet_has_at_most_64_datagrams_and_65535_bytes() {
    let count = |frames| merged(frames).iter().map(|frame| segments(frame).len()).collect::<Vec<_>>();
    assert_eq!(count(datagrams(150, 36)), [64, 64, 22]);
    assert_eq!(count(datagrams(60, 1_472)), [44, 16]);
}

#[test]
fn a_shorter_datagram_is_the_last_and_a_longer_one_begins_anew() {
    let sizes = [100, 100, 60, 100, 100, 120];
    let whole = merged((0..).zip(sizes).map(|(number, size)| datagram(number, size)).collect());
    assert_eq!(whole.iter().map(|frame| segments(frame).len()).collect::<Vec<_>>(), [3, 2, 1]);
}

#[test]
fn one_packet_goes_as_it_came() {
    let frame = partial(&udp_v4(b"alone"));
    let (bytes, offload) = (frame.bytes().to_vec(), frame.offload);
    let whole = merged(vec![frame]);
    assert_eq!((whole[0].bytes(), whole[0].offload), (&*bytes, offload));
}

#[test]
fn what_is_sent_alone() {
    let unverified = Frame::from_packet(&udp_v4(b"anybody could have broken it"));
    assert_eq!(unverified.offload, Offload::default());
    assert_eq!(Piece::of(&unverified), None);
    let mut unsummed = verified(&udp_v4(b"no checksum"));
    unsummed.bytes_mut()[26..28].fill(0);
    assert_eq!(Piece::of(&unsummed), None);
    for flags in 0..=u8::MAX {
        let plain = [Parsed::ACK, Parsed::ACK | Parsed::PSH].contains(&flags);
        assert_eq!(Piece::of(&tcp(flags, b"x")).is_some(), plain, "{flags:#b}");
        assert_eq!(Piece::of(&tcp(flags, b"")), None, "{flags:#b}");
    }
    // A checksum that is left to the device, but that of a packet inside.
    let mut tunnelled = partial(&udp_v4(&[0; 100]));
    tunnelled.offload.checksum = Checksum::Partial { start: 64, offset: 16 };
    assert_eq!(Piece::of(&tunnelled), None);
    for length in 0..28 {
        assert_eq!(Piece::of(&verified(&udp_v4(b"cut")[..length])), None);
    }
}

#[test]
fn a_fragment_is_sent_alone() {
    for bits in [[0x20, 0], [0, 1]] {
        let mut frame = verified(&udp_v4(b"fragment"));
        frame.bytes_mut()[6..8].copy_from_slice(&bits);
        assert_eq!(Piece::of(&frame), None);
    }
}
