//! Super-packets through every source mode: they stay whole, and the kernel cuts them into segments with the right
//! addresses and checksums.

use sidestep::packet::frame::{Checksum, Frame, Offload, SegmentKind, Segmentation};
use sidestep::packet::parse::parse;
use sidestep::packet::segment::segment;
use sidestep::path::Verdict;
use sidestep::table::flow::Direction;

use crate::bench::Bench;
use crate::packets::{Seen, Tcp, decode};
use crate::site::{A1, BY_GATEWAY, Connection, End, GATEWAY, SERVER, Site};

/// Bytes of each segment, and of the super-packet.
pub(crate) const SIZE: u16 = 1_360;
const WHOLE: usize = 30_000;

/// A super-packet as a kernel hands it over: its checksum is the sum of the pseudo header.
pub(crate) fn super_packet(packet: Tcp<'_>) -> Frame {
    let mut bytes = packet.bytes();
    let v4 = bytes[0] >> 4 == 4;
    let start: u16 = if v4 { 20 } else { 40 };
    let addresses = if v4 { 12..20 } else { 8..40 };
    let length = (bytes.len() - usize::from(start)) as u32;
    let pairs = bytes[addresses].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = pairs.sum::<u32>() + length + 6;
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let at = usize::from(start) + 16;
    bytes[at..at + 2].copy_from_slice(&(sum as u16).to_be_bytes());
    let kind = if v4 { SegmentKind::TcpV4 } else { SegmentKind::TcpV6 };
    let mut frame = Frame::from_packet(&bytes);
    frame.offload = Offload {
        checksum: Checksum::Partial { start, offset: 16 },
        segmentation: Some(Segmentation { kind, size: SIZE, ecn: false }),
    };
    frame
}

/// A super-packet enters and leaves whole; gives its segments as the next kernel makes them, checksums verified.
#[track_caller]
fn pass(bench: &mut Bench, from: &str, packet: Tcp<'_>, to: &str) -> Vec<Seen> {
    assert_eq!(bench.inject_frame(from, &mut super_packet(packet)), Verdict::Forwarded(bench.port(to)));
    assert_eq!(bench.sent.packets.len(), 1, "whole");
    let (_, bytes, frame) = bench.sent.packets.remove(0);
    let parsed = parse(&bytes).unwrap();
    let mut segments = Vec::new();
    segment(&frame, &parsed, &mut Frame::new(), |one| segments.push(decode(one.bytes())));
    segments
}

/// Both directions of a connection in super-packets.
#[track_caller]
fn both_ways(bench: &mut Bench, inside: End<'_>, remote: End<'_>) {
    let payload: Vec<u8> = (0..WHOLE).map(|place| place as u8).collect();
    let syn = Tcp { from: inside.socket, to: remote.socket, ..Tcp::default() };
    let seen = bench.forward(inside.port, syn.bytes(), remote.port);
    let (source, shown) = (seen.source.to_string(), seen.destination.to_string());
    let (from, to) = ((shown.as_str(), seen.destination_port), (source.as_str(), seen.source_port));
    let answer = Tcp { from, to, flags: "SA", sequence: 9_000, acknowledgment: 1_001, ..Tcp::default() };
    bench.forward(remote.port, answer.bytes(), inside.port);
    let out = Tcp { flags: "A", sequence: 1_001, acknowledgment: 9_001, payload: &payload, ..syn };
    let back = Tcp { flags: "A", sequence: 9_001, payload: &payload, ..answer };
    let expected = WHOLE.div_ceil(usize::from(SIZE));
    for (segments, ends) in [
        (pass(bench, inside.port, out, remote.port), (to, from)),
        (pass(bench, remote.port, back, inside.port), (remote.socket, inside.socket)),
    ] {
        assert_eq!(segments.len(), expected);
        assert_eq!(segments.iter().flat_map(|segment| segment.payload.iter().copied()).collect::<Vec<_>>(), payload);
        for segment in segments {
            assert_eq!((segment.source.to_string().as_str(), segment.source_port), ends.0);
            assert_eq!((segment.destination.to_string().as_str(), segment.destination_port), ends.1);
        }
    }
}

#[test]
fn super_packets_stay_whole_in_every_source_mode() {
    let pool = "[[snat_pool]]\nname = \"pool\"\naddresses = [\"100.64.9.1\", \"fd00:65::1\"]\n";
    let four = (End { port: "a1", socket: ("10.1.1.4", 40_000) }, End { port: "data", socket: ("20.60.1.10", 443) });
    let six = (
        End { port: "a1", socket: ("fd00:1:0:1::4", 40_000) },
        End { port: "data", socket: ("2603:1020:206:100::10", 443) },
    );
    let both = [four, six];
    let modes: [(&str, &[(End<'_>, End<'_>)]); 4] = [
        ("\"private\"", &both),
        ("{ prefix_map = [\"100.64.8.0/24\", \"fd00:64:0:1::/64\"] }", &both),
        ("{ snat = \"pool\" }", &both),
        ("\"identity6\"", &both[..1]),
    ];
    for (source, ends) in modes {
        let one = format!("service_endpoints = [{{ service = \"Microsoft.Storage\", source = {source} }}]");
        let mut bench = Site { one: &one, pools: pool, ..Site::default() }.bench();
        for (inside, remote) in ends {
            both_ways(&mut bench, *inside, *remote);
        }
    }
}

#[test]
fn super_packets_stay_whole_at_a_nat_gateway() {
    let mut bench = Site { one: BY_GATEWAY, pools: GATEWAY, ..Site::default() }.bench();
    both_ways(&mut bench, A1, SERVER);
}

#[test]
fn segments_that_are_too_large_are_answered_by_their_size_not_by_the_whole() {
    let document = Site::default().document().replace("{ tun = \"t-edge\" }", "{ tun = \"t-edge\", mtu = 1300 }");
    let mut bench = Bench::with(&document);
    let connection = Connection::open(&mut bench, A1, SERVER);
    let payload = [7; WHOLE];
    let packet = Tcp {
        from: A1.socket,
        to: connection.remote.socket,
        flags: "A",
        sequence: 1_001,
        acknowledgment: 9_001,
        payload: &payload,
        ..Tcp::default()
    };
    // Segments of 1,400 bytes with headers, and one that fits.
    let mut whole = super_packet(packet);
    whole.bytes_mut()[6] = 0x40;
    crate::packets::fix_header(whole.bytes_mut());
    let mut fits = Frame::new();
    fits.copy_from(&whole);
    assert_eq!(bench.inject_frame("a1", &mut whole), Verdict::Answered(sidestep::path::Answer::PacketTooBig));
    let error = bench.sent.packets.remove(0).1;
    assert_eq!(((error[20], error[21]), &error[26..28]), ((3, 4), &1_300_u16.to_be_bytes()[..]));
    fits.offload.segmentation = Some(Segmentation { kind: SegmentKind::TcpV4, size: 1_260, ecn: false });
    assert_eq!(bench.inject_frame("a1", &mut fits), Verdict::Forwarded(bench.port("internet")));
    assert_eq!(bench.sent.packets.len(), 1);
}

#[test]
fn segments_of_a_super_packet_have_identifications_of_their_own() {
    let mut bench = Site::default().bench();
    let connection = Connection::open(&mut bench, A1, SERVER);
    let payload = [7; WHOLE];
    let packet = Tcp {
        from: A1.socket,
        to: connection.remote.socket,
        flags: "A",
        sequence: 1_001,
        acknowledgment: 9_001,
        payload: &payload,
        ..Tcp::default()
    };
    let mut seen = std::collections::HashSet::new();
    for _ in 0..3 {
        let mut frame = super_packet(packet);
        // Its segments may be fragmented on the way.
        frame.bytes_mut()[6] = 0;
        crate::packets::fix_header(frame.bytes_mut());
        assert_eq!(bench.inject_frame("a1", &mut frame), Verdict::Forwarded(bench.port("internet")));
        let (_, bytes, frame) = bench.sent.packets.remove(0);
        segment(&frame, &parse(&bytes).unwrap(), &mut Frame::new(), |one| {
            let bytes = one.bytes();
            assert!(seen.insert([bytes[4], bytes[5]]), "two segments have one identification");
        });
    }
    assert_eq!(seen.len(), 3 * WHOLE.div_ceil(usize::from(SIZE)));
}

#[test]
fn what_a_super_packet_has_sent_is_what_its_segments_have() {
    let payload = [7; WHOLE];
    // What the client has acknowledged, and far ahead of it and far behind.
    for sequence in [9_001, 2_000_000_000, 4_000_000_000] {
        let numbers = [true, false].map(|whole| {
            let mut bench = Site::default().bench();
            let connection = Connection::begin(&mut bench, A1, SERVER);
            bench.forward("a1", connection.out("A", 1_001, 9_001), "internet");
            let (from, to) = (SERVER.socket, (connection.presented.0.as_str(), connection.presented.1));
            let packet =
                Tcp { from, to, flags: "A", sequence, acknowledgment: 1_001, payload: &payload, ..Tcp::default() };
            let mut frame = super_packet(packet);
            let mut come = |frame: &mut Frame| {
                assert_eq!(bench.inject_frame("internet", frame), Verdict::Forwarded(bench.port("a1")));
            };
            if whole {
                come(&mut frame);
            } else {
                let parsed = parse(frame.bytes()).unwrap();
                segment(&frame, &parsed, &mut Frame::new(), |one| come(one));
            }
            bench.flows()[0].state.reset_numbers(Direction::Forward)
        });
        assert_eq!(numbers[0], numbers[1]);
        assert_eq!(numbers[0].sent, Some(sequence + WHOLE as u32));
    }
}
