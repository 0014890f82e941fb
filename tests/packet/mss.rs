//! Lowering the maximum segment size changes the option and the checksum, and nothing where there is nothing to lower.

use etherparse::{PacketBuilder, TcpHeader};
use proptest::prelude::*;
use sidestep::packet::checksum;
use sidestep::packet::frame::{Checksum, Frame};
use sidestep::packet::mss::clamp_mss;
use sidestep::packet::parse::{Parsed, parse};

use crate::sample::{assert_sums, fix_ipv4_checksum, partial};

/// A TCP packet with raw options, padded by no-operations.
fn packet(v4: bool, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut header = TcpHeader::new(40_000, 443, 1000, 512);
    header.syn = flags & Parsed::SYN != 0;
    header.ack = flags & Parsed::ACK != 0;
    let mut padded = options.to_vec();
    padded.resize(padded.len().next_multiple_of(4), 1);
    header.set_options_raw(&padded).unwrap();
    let mut out = Vec::new();
    if v4 {
        PacketBuilder::ipv4([10, 1, 0, 4], [20, 60, 1, 7], 64).tcp_header(header).write(&mut out, b"").unwrap();
    } else {
        PacketBuilder::ipv6([0x20; 16], [0x21; 16], 64).tcp_header(header).write(&mut out, b"").unwrap();
    }
    out
}

/// Options with the MSS behind some no-operations, and others around it.
fn options(ahead: usize, mss: u16) -> Vec<u8> {
    let [high, low] = mss.to_be_bytes();
    [&vec![1; ahead][..], &[4, 2, 2, 4, high, low, 3, 3, 7]].concat()
}

proptest! {
    #[test]
    fn clamping_equals_building_with_less(
        v4: bool, ack: bool, ahead in 0_usize..4, mss: u16, largest: u16, in_partial: bool,
    ) {
        let flags = Parsed::SYN | if ack { Parsed::ACK } else { 0 };
        let before = packet(v4, flags, &options(ahead, mss));
        let expected = packet(v4, flags, &options(ahead, mss.min(largest)));
        let mut frame = if in_partial { partial(&before) } else { Frame::from_packet(&before) };
        let offload = frame.offload;
        let parsed = parse(&before).unwrap();
        prop_assert_eq!(clamp_mss(&mut frame, &parsed, largest), mss > largest);
        prop_assert_eq!(frame.offload, offload);
        prop_assert!(checksum::finish(&mut frame));
        prop_assert_eq!(frame.bytes(), &expected[..]);
        assert_sums(frame.bytes());
    }
}

#[track_caller]
fn assert_left_alone(packet: &[u8]) {
    let mut frame = Frame::from_packet(packet);
    let parsed = parse(packet).unwrap();
    assert!(!clamp_mss(&mut frame, &parsed, 500));
    assert_eq!(frame.bytes(), packet);
    assert_eq!(frame.offload.checksum, Checksum::Complete);
}

#[test]
fn what_has_no_segment_size_to_lower_is_left_alone() {
    for v4 in [true, false] {
        let syn = |options: &[u8]| packet(v4, Parsed::SYN, options);
        let mut frame = Frame::from_packet(&syn(&options(0, 1460)));
        let parsed = parse(frame.bytes()).unwrap();
        assert!(clamp_mss(&mut frame, &parsed, 500), "else the rest shows nothing");

        assert_left_alone(&packet(v4, Parsed::ACK, &options(0, 1460)));
        assert_left_alone(&syn(&[]));
        assert_left_alone(&syn(&[1, 1, 3, 3, 7]));
        assert_left_alone(&syn(&[0, 2, 4, 5, 0xb4]));
        assert_left_alone(&syn(&[2, 3, 5, 1]));
        assert_left_alone(&syn(&[2, 6, 5, 0xb4, 0, 0]));
        assert_left_alone(&syn(&[3, 0, 2, 4, 5, 0xb4]));
        assert_left_alone(&syn(&[2, 4, 5, 0xb4, 8, 10, 1, 1]));
        assert_left_alone(&syn(&[1, 1, 1, 2]));
    }
}

#[test]
fn a_first_fragment_has_the_checksum_of_the_whole() {
    let whole = packet(true, Parsed::SYN, &[2, 4, 5, 0xb4]);
    let mut first = whole.clone();
    first[6..8].copy_from_slice(&[0x20, 0]);
    fix_ipv4_checksum(&mut first);
    let (mut whole, mut first) = (Frame::from_packet(&whole), Frame::from_packet(&first));
    for frame in [&mut whole, &mut first] {
        let parsed = parse(frame.bytes()).unwrap();
        assert!(clamp_mss(frame, &parsed, 500));
    }
    assert_eq!(first.bytes()[20..], whole.bytes()[20..]);
    assert_sums(whole.bytes());
}
