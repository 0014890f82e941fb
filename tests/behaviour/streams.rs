//! Inspected connections whose client or server begins anew on the same ports: what was named is of one connection alone.

use etherparse::TcpHeader;
use sidestep::path::{Answer, DropReason, Verdict};

use crate::client::{Client, SERVER, another_syn, bench, hello, name, nothing_passes};
use crate::guarded::{SHARED, resets};
use crate::packets::{Tcp, fix_header};

#[test]
fn another_connection_on_the_same_ports_has_to_name_what_it_wants() {
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    client.send(&mut bench, &hello(&name("first")));
    bench.take();
    client.acknowledge(&mut bench);
    // Both ends finish, and the client uses its port again.
    bench.forward("blue1", client.packet("FA", client.next, b""), "front");
    bench.forward("front", client.server("FA", SERVER + 1, client.next + 1, b""), "blue1");
    bench.forward(
        "blue1",
        Tcp {
            to: (SHARED, 443),
            from: ("10.1.1.4", 40_000),
            flags: "A",
            sequence: client.next + 1,
            acknowledgment: SERVER + 2,
            ..Tcp::default()
        }
        .bytes(),
        "front",
    );
    let mut again = Client { port: 443, next: 500_001 };
    bench.forward("blue1", Tcp { to: (SHARED, 443), sequence: 500_000, ..Tcp::default() }.bytes(), "front");
    bench.forward("front", again.server("SA", SERVER, 500_001, b""), "blue1");
    assert_eq!(bench.report().undecided, 1);
    assert_eq!(again.send(&mut bench, &hello(&name("second"))), Verdict::Answered(Answer::PolicyDenied));
    bench.take();
}

#[test]
fn a_second_syn_does_not_move_the_start_of_the_stream() {
    let (good, bad) = (hello(&name("first")), hello(&name("second")));
    // Before anything was said, and in the middle of a hello.
    for said in [0, 20] {
        let mut bench = bench();
        let mut client = Client::open(&mut bench, 443);
        if said > 0 {
            client.send(&mut bench, &bad[..said]);
            bench.take();
        }
        // A server answers with a challenge and keeps the connection that it has (RFC 5961 section 4).
        bench.forward("blue1", another_syn(900_000), "front");
        bench.forward("front", client.server("A", SERVER + 1, client.next, b""), "blue1");
        nothing_passes(&mut bench, &client, 900_001, &good);
        nothing_passes(&mut bench, &client, client.next, &bad[said..]);
        nothing_passes(&mut bench, &client, client.next, b"anything");
    }
}

#[test]
fn a_server_that_takes_another_syn_is_asked_about_with_the_stream_that_it_takes() {
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    client.send(&mut bench, &hello(&name("second"))[..20]);
    bench.take();
    bench.forward("blue1", client.packet("R", client.next, b""), "front");
    bench.forward("blue1", another_syn(900_000), "front");
    nothing_passes(&mut bench, &client, 900_001, &hello(&name("first")));
    bench.forward("front", client.server("SA", SERVER, 900_001, b""), "blue1");
    client.next = 900_001;
    assert_eq!(client.send(&mut bench, &hello(&name("first"))), Verdict::Forwarded(bench.port("front")));
    bench.take();
}

#[test]
fn a_connection_that_begins_with_data_is_reset() {
    let mut bench = bench();
    let client = Client { port: 443, next: 7_777 };
    let packet = client.packet("PA", 7_777, &hello(&name("first")));
    let sent = bench.answered("blue1", packet, Answer::FlowEnded);
    assert_eq!(resets(&sent, "blue1").len(), 1);
    assert_eq!(bench.forwarder.flow_count(), 0);
}

#[test]
fn a_reset_that_the_server_does_not_take_does_not_begin_another_stream() {
    let (good, bad) = (hello(&name("first")), hello(&name("second")));
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    client.send(&mut bench, &bad[..20]);
    bench.take();
    let spoil = |mut packet: Vec<u8>| {
        packet[36] ^= 0xff;
        packet
    };
    bench.dropped("blue1", spoil(client.packet("R", client.next, b"")), DropReason::UndecidedMalformed);
    bench.dropped("blue1", spoil(another_syn(client.next - 1)), DropReason::UndecidedMalformed);
    // Good ones that the server does not take: it never answers by SYN and ACK.
    bench.forward("blue1", client.packet("R", client.next, b""), "front");
    bench.forward("blue1", another_syn(client.next - 1), "front");
    nothing_passes(&mut bench, &client, client.next, &good);
    nothing_passes(&mut bench, &client, client.next, b"more");
}

#[test]
fn ports_of_a_connection_that_was_allowed_are_asked_again_whatever_has_ended_it() {
    for (what, before) in [("nothing", &[][..]), ("a reset", &["R"]), ("two resets", &["R", "R"])] {
        let mut bench = bench();
        let mut client = Client::open(&mut bench, 443);
        client.send(&mut bench, &hello(&name("first")));
        bench.take();
        client.acknowledge(&mut bench);
        assert_eq!(bench.report().undecided, 0);
        for flags in before {
            bench.forward("blue1", client.packet(flags, client.next, b""), "front");
            // A server that keeps nothing of a SYN would begin by the next segment again (RFC 4987 section 3.6).
            for (flags, payload) in [("A", &b""[..]), ("PA", b"more")] {
                let after = client.packet(flags, client.next, payload);
                bench.dropped("blue1", after, DropReason::UndecidedMalformed);
            }
        }
        // Late ones of the same connection mean nothing, and a server that has given it up must not take them.
        bench.dropped("blue1", another_syn(1_000), DropReason::UndecidedMalformed);
        assert_eq!(bench.report().undecided, 0, "{what}");
        bench.forward("blue1", another_syn(500_000), "front");
        assert_eq!(bench.report().undecided, 1, "{what}");
        bench.forward("front", client.server("SA", SERVER, 500_001, b""), "blue1");
        client.next = 500_001;
        let verdict = client.send(&mut bench, &hello(&name("second")));
        assert_eq!(verdict, Verdict::Answered(Answer::PolicyDenied), "{what}");
        bench.take();
    }
}

#[test]
fn a_stream_may_cross_the_end_of_sequence_numbers() {
    for account in ["first", "second"] {
        let mut bench = bench();
        bench.forward("blue1", another_syn(u32::MAX - 9), "front");
        let mut client = Client { port: 443, next: u32::MAX - 8 };
        bench.forward("front", client.server("SA", SERVER, client.next, b""), "blue1");
        for part in hello(&name(account)).chunks(7) {
            let packet = client.packet("PA", client.next, part);
            client.next = client.next.wrapping_add(part.len() as u32);
            if !matches!(bench.inject("blue1", packet), Verdict::Forwarded(_)) {
                break;
            }
        }
        let denied = bench.denials().take();
        assert_eq!(denied.is_some(), account == "second", "{denied:?}");
        bench.take();
    }
}

/// Numbers of another server stream than that of [`SERVER`].
const OTHER: u32 = 3_000_000_000;

#[test]
fn a_late_answer_to_an_earlier_syn_says_nothing_about_the_latest() {
    let (good, bad) = (hello(&name("first")), hello(&name("second")));
    let mut bench = bench();
    bench.forward("blue1", another_syn(1_000), "front");
    let mut client = Client { port: 443, next: 1_001 };
    let late = client.server("SA", OTHER, 1_001, b"");
    // The client gives that one up before the answer is here.
    bench.forward("blue1", client.packet("R", 1_001, b""), "front");
    bench.forward("blue1", another_syn(500_000), "front");
    // It passes, for a server may still wait in it, and the client has to reset it; but it opens nothing.
    bench.forward("front", late.clone(), "blue1");
    nothing_passes(&mut bench, &client, 1_001, &good);
    nothing_passes(&mut bench, &client, 500_001, &good);
    bench.forward("front", client.server("SA", SERVER, 500_001, b""), "blue1");
    bench.dropped("front", late, DropReason::UndecidedMalformed);
    client.next = 500_001;
    assert_eq!(client.send(&mut bench, &good[..20]), Verdict::Forwarded(bench.port("front")));
    bench.take();
    // In the same way of what is acknowledged: the hello is the server's only where this one says so.
    bench.forward("front", client.server("A", OTHER + 1, 500_001 + good.len() as u32, b""), "blue1");
    assert_eq!(client.send(&mut bench, &good[20..]), Verdict::Forwarded(bench.port("front")));
    bench.take();
    bench.forward("front", client.server("A", OTHER + 1, client.next, b""), "blue1");
    assert_eq!(bench.report().undecided, 1, "late of a connection before");
    nothing_passes(&mut bench, &client, 500_001, &bad);
    assert_eq!(bench.denials().take().unwrap().reason, DropReason::UndecidedInconsistent);
}

#[test]
fn what_another_server_stream_would_take_does_not_pass_before_the_name_is_known() {
    let good = hello(&name("first"));
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    let of_another = |flags, payload| {
        let (from, to) = (("10.1.1.4", 40_000), (SHARED, 443));
        Tcp { from, to, flags, sequence: 1_001, acknowledgment: OTHER + 1, payload, ..Tcp::default() }.bytes()
    };
    bench.dropped("blue1", of_another("A", b""), DropReason::UndecidedMalformed);
    bench.dropped("blue1", of_another("PA", &good), DropReason::UndecidedMalformed);
    bench.dropped("blue1", of_another("P", &good), DropReason::UndecidedMalformed);
    bench.dropped("blue1", of_another("SA", b""), DropReason::UndecidedMalformed);
    // What the server itself has sent may be acknowledged, and nothing beyond.
    bench.forward("front", client.server("PA", SERVER + 1, 1_001, b"welcome"), "blue1");
    let of_this = |acknowledgment| {
        let (from, to) = (("10.1.1.4", 40_000), (SHARED, 443));
        Tcp { from, to, flags: "A", sequence: 1_001, acknowledgment, ..Tcp::default() }.bytes()
    };
    bench.dropped("blue1", of_this(SERVER + 9), DropReason::UndecidedMalformed);
    bench.forward("blue1", of_this(SERVER + 8), "front");
    assert_eq!(client.send(&mut bench, &good), Verdict::Forwarded(bench.port("front")));
    bench.take();
    client.acknowledge(&mut bench);
    assert_eq!(bench.report().undecided, 0);
}

#[test]
fn a_server_that_takes_the_same_syn_once_more_is_asked_about_again() {
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    client.send(&mut bench, &hello(&name("first")));
    bench.take();
    client.acknowledge(&mut bench);
    // Late ones: of the handshake that was, and of one that the client has given up.
    bench.forward("front", client.server("SA", SERVER, 1_001, b""), "blue1");
    bench.dropped("front", client.server("SA", OTHER, 999, b""), DropReason::UndecidedMalformed);
    assert_eq!(bench.report().undecided, 0);
    // A copy of the first SYN has reached the server after a reset.
    bench.forward("front", client.server("SA", OTHER, 1_001, b""), "blue1");
    assert_eq!(bench.report().undecided, 1);
    let bad = hello(&name("second"));
    let (from, to) = (("10.1.1.4", 40_000), (SHARED, 443));
    let packet =
        Tcp { from, to, flags: "PA", sequence: 1_001, acknowledgment: OTHER + 1, payload: &bad, ..Tcp::default() };
    bench.answered("blue1", packet.bytes(), Answer::PolicyDenied);
}

#[test]
fn what_begins_before_the_stream_does_not_reach_behind_its_request() {
    let request = format!("GET /c HTTP/1.1\r\nHost: {}\r\n\r\n", name("first"));
    let long = vec![b'x'; request.len() + 11];
    for ends_watch in [false, true] {
        let mut bench = bench();
        let mut client = Client::open(&mut bench, 80);
        client.send(&mut bench, request.as_bytes());
        bench.take();
        if ends_watch {
            client.acknowledge(&mut bench);
        }
        nothing_passes(&mut bench, &client, 991, &long);
    }
}

#[test]
fn a_connection_of_which_one_end_is_reset_says_nothing_more() {
    for by_server in [false, true] {
        let mut bench = bench();
        let mut client = Client::open(&mut bench, 443);
        client.send(&mut bench, &hello(&name("first")));
        bench.take();
        client.acknowledge(&mut bench);
        // One that neither end can have sent, and one of theirs.
        let forged = client.packet("R", client.next.wrapping_add(900_000), b"");
        bench.forward("blue1", forged, "front");
        assert_eq!(client.send(&mut bench, b"more"), Verdict::Forwarded(bench.port("front")));
        bench.take();
        if by_server {
            bench.forward("front", client.server("R", SERVER + 1, 0, b""), "blue1");
        } else {
            bench.forward("blue1", client.packet("R", client.next, b""), "front");
        }
        nothing_passes(&mut bench, &client, client.next, b"more");
        nothing_passes(&mut bench, &client, 1_001, &hello(&name("second")));
        bench.dropped("blue1", client.packet("A", 1_001, b""), DropReason::UndecidedMalformed);
        // It can begin another connection.
        bench.forward("blue1", another_syn(500_000), "front");
        bench.forward("front", client.server("SA", SERVER, 500_001, b""), "blue1");
        client.next = 500_001;
        assert_eq!(client.send(&mut bench, &hello(&name("first"))), Verdict::Forwarded(bench.port("front")));
        bench.take();
        // But not go back to the one before.
        bench.dropped("blue1", another_syn(1_000), DropReason::UndecidedMalformed);
    }
}

#[test]
fn a_connection_that_both_have_finished_says_nothing_more() {
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    client.send(&mut bench, &hello(&name("first")));
    bench.take();
    client.acknowledge(&mut bench);
    bench.forward("blue1", client.packet("FA", client.next, b""), "front");
    bench.forward("front", client.server("FA", SERVER + 1, client.next + 1, b""), "blue1");
    let (from, to) = (("10.1.1.4", 40_000), (SHARED, 443));
    let last = |flags, payload| {
        let (sequence, acknowledgment) = (client.next + 1, SERVER + 2);
        Tcp { from, to, flags, sequence, acknowledgment, payload, ..Tcp::default() }.bytes()
    };
    bench.forward("blue1", last("A", b""), "front");
    bench.dropped("blue1", last("PA", b"more"), DropReason::UndecidedMalformed);
}

/// Whoever says nothing and closes is no case for a verdict.
#[test]
fn connections_that_end_before_they_have_named_anything_end_quietly() {
    for server_first in [false, true] {
        let mut bench = bench();
        let client = Client::open(&mut bench, 443);
        let (from, to) = (("10.1.1.4", 40_000), (SHARED, 443));
        let of_client = |flags, sequence, acknowledgment| {
            Tcp { from, to, flags, sequence, acknowledgment, ..Tcp::default() }.bytes()
        };
        if server_first {
            bench.forward("front", client.server("FA", SERVER + 1, 1_001, b""), "blue1");
            bench.forward("blue1", of_client("A", 1_001, SERVER + 2), "front");
            bench.forward("blue1", of_client("FA", 1_001, SERVER + 2), "front");
            bench.forward("front", client.server("A", SERVER + 2, 1_002, b""), "blue1");
        } else {
            bench.forward("blue1", of_client("FA", 1_001, SERVER + 1), "front");
            bench.forward("front", client.server("FA", SERVER + 1, 1_002, b""), "blue1");
            bench.forward("blue1", of_client("A", 1_002, SERVER + 2), "front");
        }
        bench.now += 60_000;
        bench.expire();
        assert!(bench.take().is_empty(), "nobody is reset");
        assert_eq!((bench.report().undecided, bench.denials().take()), (0, None));
    }
}

#[test]
fn the_option_of_multipath_tcp_does_not_pass_where_a_name_decides() {
    const CAPABLE: [u8; 12] = [30, 12, 1, 0x81, 1, 2, 3, 4, 5, 6, 7, 8];
    let with_option = |mut packet: Vec<u8>| {
        let length = (packet.len() + CAPABLE.len()) as u16;
        packet.splice(40..40, CAPABLE);
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[32] = ((20 + CAPABLE.len() as u8) / 4) << 4;
        fix_header(&mut packet);
        let (tcp, payload) = TcpHeader::from_slice(&packet[20..]).unwrap();
        let [source, destination] = [12, 16].map(|at| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        let checksum = tcp.calc_checksum_ipv4_raw(source, destination, payload).unwrap();
        packet[36..38].copy_from_slice(&checksum.to_be_bytes());
        packet
    };
    let mut bench = bench();
    let client = Client { port: 443, next: 1_001 };
    bench.inject("blue1", with_option(another_syn(1_000)));
    let passed = bench.sent.packets.pop().unwrap().1;
    assert_eq!(passed[40..52], [1; 12], "no-operations in its place");
    bench.inject("front", with_option(client.server("SA", SERVER, 1_001, b"")));
    let passed = bench.sent.packets.pop().unwrap().1;
    assert_eq!(passed[40..52], [1; 12]);
    bench.dropped("blue1", with_option(client.packet("A", 1_001, b"")), DropReason::UndecidedMalformed);
    bench.dropped(
        "blue1",
        with_option(client.packet("PA", 1_001, &hello(&name("first")))),
        DropReason::UndecidedMalformed,
    );
    bench.forward("blue1", client.packet("A", 1_001, b""), "front");
}
