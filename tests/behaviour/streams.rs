//! Inspected connections whose client or server begins anew on the same ports: what was named is of one connection alone.

use sidestep::path::{Answer, DropReason, Verdict};

use crate::client::{Client, SERVER, another_syn, bench, hello, name, nothing_passes};
use crate::guarded::{SHARED, resets};
use crate::packets::Tcp;

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
    for (what, before) in [("nothing", &[][..]), ("a reset", &["R"]), ("a reset that is taken back", &["R", "A"])] {
        let mut bench = bench();
        let mut client = Client::open(&mut bench, 443);
        client.send(&mut bench, &hello(&name("first")));
        bench.take();
        client.acknowledge(&mut bench);
        assert_eq!(bench.report().undecided, 0);
        for flags in before {
            bench.forward("blue1", client.packet(flags, client.next, b""), "front");
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
        // The server has a byte of the SYN already, as of a probe; but then the rest follows.
        bench.forward("blue1", client.packet("A", 1_000, b"x"), "front");
        nothing_passes(&mut bench, &client, 991, &long);
    }
}
