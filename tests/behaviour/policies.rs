//! Endpoint policies: which resources a subnet reaches over its storage endpoint, and what passes before a connection has
//! said which one it wants. S10 to S12 are the cases of the conformance table.

use sidestep::packet::frame::{Checksum, Frame, Offload, SegmentKind, Segmentation};
use sidestep::path::save::SavedFlow;
use sidestep::path::{Answer, DropReason, Verdict};

use crate::bench::Bench;
use crate::client::{ACCOUNT, APP, Client, SERVER, bench, closed, hello, name, policy};
use crate::guarded::{Guarded, OWN, SHARED, resets, syn};
use crate::packets::{Tcp, make_fragment, udp};

#[test]
fn s10_the_listed_account_is_reached_and_another_behind_the_same_address_is_not() {
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    assert_eq!(client.send(&mut bench, &hello(&name("first"))), Verdict::Forwarded(bench.port("front")));
    bench.take();
    client.acknowledge(&mut bench);
    assert_eq!(client.send(&mut bench, b"more"), Verdict::Forwarded(bench.port("front")));
    bench.take();
    assert_eq!((bench.report().undecided, bench.denials().take()), (0, None));

    let mut bench = self::bench();
    let mut client = Client::open(&mut bench, 443);
    assert_eq!(client.send(&mut bench, &hello(&name("second"))), Verdict::Answered(Answer::PolicyDenied));
    closed(&mut bench, 1_001);
    let denial = bench.denials().take().unwrap();
    assert_eq!((denial.name.as_deref(), denial.endpoint), (Some(name("second").as_str()), true));
    let resource = bench.forwarder.snapshot().resources.get(denial.resource.unwrap()).unwrap();
    assert_eq!(resource.name, "second");
    // What still comes of it is reset, and the application can try again at once.
    assert_eq!(client.send(&mut bench, b"more"), Verdict::Answered(Answer::Reset));
    bench.take();
    bench.forward("blue1", Tcp { to: (SHARED, 443), sequence: 77_000, ..Tcp::default() }.bytes(), "front");
}

#[test]
fn s11_two_policies_let_through_what_either_lists() {
    let app = APP.replace("\"only-first\"", "\"only-first\", \"jobs\"");
    let more = policy("only-first", "Microsoft.Storage", ACCOUNT) + &policy("jobs", "Global", "/services/Azure/Batch");
    for (account, allowed) in [("first", true), ("third", true), ("second", false)] {
        let mut bench = Guarded { app: &app, more: &more, ..Guarded::default() }.bench();
        let mut client = Client::open(&mut bench, 443);
        let verdict = client.send(&mut bench, &hello(&name(account)));
        assert_eq!(matches!(verdict, Verdict::Forwarded(_)), allowed, "{account}: {verdict:?}");
        bench.take();
    }
}

#[test]
fn s12_with_a_policy_the_endpoint_is_global_and_the_policy_governs() {
    let app = r#"service_endpoints = [{ service = "Microsoft.Storage", locations = ["westeurope"] }]"#;
    let far = r#"
[[service]]
name = "distant"
service = "Microsoft.Storage"
location = "northeurope"
id = "/subscriptions/s1/resourceGroups/data/providers/Microsoft.Storage/storageAccounts/distant"
addresses = ["20.60.201.10"]
firewall = { default_action = "Deny", virtual_network_rules = [{ subnet = "blue/app" }] }
device = { tun = "t-distant" }
"#;
    let mut bench = Guarded { app, more: far, ..Guarded::default() }.bench();
    bench.answered("blue1", syn("10.1.1.4", "20.60.201.10", 443), Answer::FirewallDenied);
    let with_policy = format!("{app}\n  service_endpoint_policies = [\"data\"]");
    let more = far.to_owned() + &policy("data", "Microsoft.Storage", "/subscriptions/S1/resourcegroups/data");
    let mut bench = Guarded { app: &with_policy, more: &more, ..Guarded::default() }.bench();
    let seen = bench.forward("blue1", syn("10.1.1.4", "20.60.201.10", 443), "distant");
    assert_eq!(seen.source.to_string(), "10.1.1.4");
    bench.change(|network| network.service_endpoint_policies[0].definitions[0].service_resources.clear());
    let again = Tcp { from: ("10.1.1.4", 40_001), to: ("20.60.201.10", 443), ..Tcp::default() }.bytes();
    bench.answered("blue1", again, Answer::PolicyDenied);
}

#[test]
fn an_address_of_its_own_tells_the_resource_without_a_word() {
    let mut bench = bench();
    let sent = bench.answered("blue1", syn("10.1.1.4", OWN, 443), Answer::PolicyDenied);
    assert_eq!(resets(&sent, "blue1").len(), 1);
    bench.answered("blue1", udp(("10.1.1.4", 5_000), (OWN, 443), b"quic"), Answer::PolicyDenied);
    // Another subnet without the policy goes where it likes.
    bench.forward("appliance", syn("10.1.100.4", OWN, 443), "own");
}

#[test]
fn without_the_endpoint_policies_mean_nothing() {
    let more = policy("only-first", "Microsoft.Storage", ACCOUNT);
    let mut bench =
        Guarded { app: "service_endpoint_policies = [\"only-first\"]", more: &more, ..Guarded::default() }.bench();
    bench.forward("blue1", syn("10.1.1.4", OWN, 443), "own");
}

#[test]
fn what_names_nothing_follows_the_default_of_the_policy() {
    type Speak = fn(&mut Bench) -> Verdict;
    let speak: [(&str, Speak); 6] = [
        ("an unknown name", |bench| Client::open(bench, 443).send(bench, &hello("x.example"))),
        ("no TLS", |bench| Client::open(bench, 443).send(bench, b"SSH-2.0-x\r\n")),
        ("an address for a name", |bench| {
            Client::open(bench, 80).send(bench, b"GET / HTTP/1.1\r\nHost: 20.60.1.20\r\n\r\n")
        }),
        ("another port", |bench| bench.inject("blue1", syn("10.1.1.4", SHARED, 445))),
        ("QUIC", |bench| bench.inject("blue1", udp(("10.1.1.4", 5_000), (SHARED, 443), b"quic"))),
        ("the name of an account behind another address", |bench| {
            Client::open(bench, 443).send(bench, &hello(&name("own")))
        }),
    ];
    for (what, speak) in speak {
        let mut bench = bench();
        assert_eq!(speak(&mut bench), Verdict::Answered(Answer::PolicyUnidentified), "{what}");
        let denial = bench.denials().take().unwrap();
        assert_eq!(denial.reason, DropReason::PolicyUnidentified, "{what}");
        let allow = policy("only-first", "Microsoft.Storage", ACCOUNT)
            .replace("name = \"only-first\"", "name = \"only-first\"\nunidentified = \"Allow\"");
        let mut bench = Guarded { app: APP, more: &allow, ..Guarded::default() }.bench();
        assert_eq!(speak(&mut bench), Verdict::Forwarded(bench.port("front")), "{what}");
    }
}

#[test]
fn plain_http_is_judged_by_its_host() {
    for (account, allowed) in [("first", true), ("second", false)] {
        let mut bench = bench();
        let mut client = Client::open(&mut bench, 80);
        let request = format!("PUT /c/b HTTP/1.1\r\nHost: {}\r\nContent-Length: 3\r\n\r\nabc", name(account));
        let (head, rest) = request.split_at(20);
        assert_eq!(client.send(&mut bench, head.as_bytes()), Verdict::Forwarded(bench.port("front")));
        bench.take();
        let verdict = client.send(&mut bench, rest.as_bytes());
        assert_eq!(matches!(verdict, Verdict::Forwarded(_)), allowed, "{account}: {verdict:?}");
        bench.take();
    }
}

#[test]
fn one_connection_of_plain_http_carries_one_request() {
    let request =
        |account: &str, more: &str| format!("PUT /c/b HTTP/1.1\r\nHost: {}\r\n{more}\r\n", name(account)).into_bytes();
    let first = [request("first", "Content-Length: 3\r\n"), b"abc".to_vec()].concat();
    // In one segment with the first, right behind it, and after the server has answered.
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 80);
    let both = [first.clone(), request("second", "")].concat();
    assert_eq!(client.send(&mut bench, &both), Verdict::Answered(Answer::SecondRequest));
    closed(&mut bench, 1_001);
    for answered in [false, true] {
        let mut bench = self::bench();
        let mut client = Client::open(&mut bench, 80);
        // The content may come in parts, and twice.
        let (one, other) = first.split_at(first.len() - 2);
        assert_eq!(client.send(&mut bench, one), Verdict::Forwarded(bench.port("front")));
        bench.take();
        if answered {
            client.acknowledge(&mut bench);
        }
        assert_eq!(client.send(&mut bench, other), Verdict::Forwarded(bench.port("front")));
        bench.take();
        let again = client.packet("PA", client.next - 2, other);
        bench.forward("blue1", again, "front");
        if answered {
            bench.forward(
                "front",
                client.server("PA", SERVER + 1, client.next, b"HTTP/1.1 201 Created\r\n\r\n"),
                "blue1",
            );
        }
        let verdict = client.send(&mut bench, &request("second", ""));
        assert_eq!(verdict, Verdict::Answered(Answer::SecondRequest), "answered: {answered}");
        assert!(bench.take().iter().all(|(_, seen)| seen.tcp.as_ref().unwrap().reset), "nothing but resets");
        assert_eq!(bench.denials().take().unwrap().reason, DropReason::SecondRequest);
    }
}

#[test]
fn a_hello_may_come_byte_by_byte_and_in_any_order() {
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    let hello = hello(&name("second"));
    let (start, last) = hello.split_at(hello.len() - 1);
    for (index, byte) in start.iter().enumerate() {
        if index % 7 == 3 {
            // One that overtakes another waits for its sender to send it again.
            let early = client.packet("A", client.next + 1, b"x");
            bench.dropped("blue1", early, DropReason::UndecidedOutOfOrder);
        }
        if index % 11 == 5 {
            let again = client.packet("A", client.next - 1, &hello[index - 1..index]);
            bench.forward("blue1", again, "front");
        }
        if (1..=3).contains(&index) {
            // One of the first has to wait until the server has those before it: with SYN cookies it may go without them.
            let early = client.packet("PA", client.next, &[*byte]);
            bench.dropped("blue1", early, DropReason::UndecidedOutOfOrder);
            client.acknowledge(&mut bench);
        }
        assert_eq!(client.send(&mut bench, &[*byte]), Verdict::Forwarded(bench.port("front")), "byte {index}");
        bench.take();
    }
    client.acknowledge(&mut bench);
    assert_eq!(client.send(&mut bench, last), Verdict::Answered(Answer::PolicyDenied));
    closed(&mut bench, 1_001 + start.len() as u32);
}

/// A super-packet with a checksum that is left to the device.
fn super_packet(packet: &[u8], size: u16) -> Frame {
    let mut frame = Frame::from_packet(packet);
    frame.offload = Offload {
        checksum: Checksum::Partial { start: 20, offset: 16 },
        segmentation: Some(Segmentation { kind: SegmentKind::TcpV4, size, ecn: false }),
    };
    frame
}

#[test]
fn a_hello_in_a_super_packet_is_read_before_any_of_it_passes() {
    for (account, allowed) in [("first", true), ("second", false)] {
        let mut bench = bench();
        let client = Client::open(&mut bench, 443);
        let stream = [hello(&name(account)), vec![0x17; 9_000]].concat();
        let mut frame = super_packet(&client.packet("PA", client.next, &stream), 1_400);
        let verdict = bench.inject_frame("blue1", &mut frame);
        assert_eq!(matches!(verdict, Verdict::Forwarded(_)), allowed, "{account}: {verdict:?}");
        if !allowed {
            closed(&mut bench, 1_001);
        }
        bench.take();
    }
}

#[test]
fn other_bytes_for_those_that_were_read_close_the_connection() {
    // Before the name is known, after it is, and after the server has it.
    let good = hello(&name("first"));
    let mut bad = hello(&name("first"));
    let place = bad.windows(5).position(|window| window == b"first").unwrap();
    bad[place..place + 5].copy_from_slice(b"evill");
    for settled in [false, true] {
        let mut bench = bench();
        let mut client = Client::open(&mut bench, 443);
        let cut = if settled { good.len() } else { place + 5 };
        assert_eq!(client.send(&mut bench, &good[..cut]), Verdict::Forwarded(bench.port("front")));
        bench.take();
        let verdict = bench.inject("blue1", client.packet("PA", 1_001, &bad[..cut]));
        assert_eq!(verdict, Verdict::Answered(Answer::UndecidedInconsistent), "settled: {settled}");
        closed(&mut bench, 1_001);
    }
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    client.send(&mut bench, &good);
    bench.take();
    client.acknowledge(&mut bench);
    // What the server has it needs not again, whatever it is, and one that has forgotten must not take it.
    bench.dropped("blue1", client.packet("PA", 1_001, &bad), DropReason::UndecidedMalformed);
    bench.dropped("blue1", client.packet("PA", client.next - 1, b"more"), DropReason::UndecidedMalformed);
    bench.forward("blue1", client.packet("PA", client.next, b"more"), "front");
}

#[test]
fn what_servers_could_read_otherwise_does_not_pass() {
    let mut bench = bench();
    let client = Client::open(&mut bench, 443);
    let hello = hello(&name("first"));
    let mut wrong = client.packet("PA", client.next, &hello);
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    bench.dropped("blue1", wrong, DropReason::UndecidedMalformed);
    let mut urgent = client.packet("PA", client.next, &hello);
    urgent[20 + 13] |= 0x20;
    // The checksum takes the flag into account.
    let sum = u16::from_be_bytes([urgent[36], urgent[37]]);
    urgent[36..38].copy_from_slice(&sum.wrapping_sub(0x20).to_be_bytes());
    bench.dropped("blue1", urgent, DropReason::UndecidedMalformed);
    // What is not the last fragment of a packet carries a multiple of 8 bytes.
    let mut fragment = client.packet("PA", client.next, &hello[..84]);
    make_fragment(&mut fragment);
    bench.dropped("blue1", fragment, DropReason::UndecidedMalformed);
    let with_data = Tcp { from: ("10.1.1.4", 40_777), to: (SHARED, 443), payload: &hello, ..Tcp::default() }.bytes();
    bench.dropped("blue1", with_data, DropReason::UndecidedMalformed);
}

#[test]
fn no_part_of_a_hello_passes_in_fragments() {
    let mut bench = bench();
    let client = Client::open(&mut bench, 443);
    // A first fragment without data, and the hello in the ones behind it, which have no TCP header.
    let hello = hello(&name("second"));
    let whole = client.packet("PA", client.next, &hello[..hello.len() / 8 * 8 + 4]);
    let mut first = whole[..44].to_vec();
    first[2..4].copy_from_slice(&44_u16.to_be_bytes());
    make_fragment(&mut first);
    bench.dropped("blue1", first, DropReason::UndecidedMalformed);
    let mut later = [&whole[..20], &whole[44..]].concat();
    let total = later.len() as u16;
    later[2..4].copy_from_slice(&total.to_be_bytes());
    later[6..8].copy_from_slice(&3_u16.to_be_bytes());
    crate::packets::fix_header(&mut later);
    bench.dropped("blue1", later, DropReason::UndecidedMalformed);
}

#[test]
fn a_listed_name_is_worth_nothing_at_an_address_that_nobody_is_known_to_have() {
    let more = policy("only-first", "Microsoft.Storage", ACCOUNT) + "[backbone]\ndevice = { tun = \"t-backbone\" }\n";
    let mut bench = Guarded { app: APP, more: &more, ..Guarded::default() }.bench();
    let unknown = "20.60.1.77";
    bench.forward("blue1", syn("10.1.1.4", unknown, 443), "backbone");
    let answer = Tcp {
        from: (unknown, 443),
        to: ("10.1.1.4", 40_000),
        flags: "SA",
        sequence: SERVER,
        acknowledgment: 1_001,
        ..Tcp::default()
    };
    bench.forward("backbone", answer.bytes(), "blue1");
    let hello = hello(&name("first"));
    let packet = Tcp {
        to: (unknown, 443),
        flags: "PA",
        sequence: 1_001,
        acknowledgment: SERVER + 1,
        payload: &hello,
        ..Tcp::default()
    };
    bench.answered("blue1", packet.bytes(), Answer::PolicyUnidentified);
    assert_eq!(bench.denials().take().unwrap().name.as_deref(), Some(name("first").as_str()));
}

#[test]
fn the_internet_opens_no_way_past_a_policy() {
    let more = policy("only-first", "Microsoft.Storage", ACCOUNT)
        + "[backbone]\ndevice = { tun = \"t-backbone\" }\n[[nat_gateway]]\nname = \"egress\"\npublic_addresses = [\"203.0.113.9\"]\n\
           mapping = \"endpoint-independent\"\nfiltering = \"endpoint-independent\"\n";
    // An accomplice shows the address of an account, to draw the answers of the NIC out of the endpoint.
    let mut bench = Guarded { app: APP, more: &more, ..Guarded::default() }.bench();
    bench.change(|network| network.nics[0].public_addresses = vec!["203.0.113.41".parse().unwrap()]);
    let from_outside = |to: (&str, u16)| udp(("20.60.1.77", 443), to, b"come");
    bench.dropped("internet", from_outside(("203.0.113.41", 41_000)), DropReason::EndpointBypassed);
    let syn_from_outside = Tcp { from: ("20.60.1.77", 443), to: ("203.0.113.41", 41_000), ..Tcp::default() };
    bench.dropped("internet", syn_from_outside.bytes(), DropReason::EndpointBypassed);
    // The same by a mapping of a NAT gateway.
    bench.change(|network| {
        network.nics[0].public_addresses.clear();
        network.virtual_networks[0].subnets[0].nat_gateway = Some(0);
    });
    let out = bench.forward("blue1", udp(("10.1.1.4", 41_000), ("198.51.100.7", 53), b"q"), "internet");
    bench.dropped("internet", from_outside(("203.0.113.9", out.source_port)), DropReason::EndpointBypassed);
    bench.forward("internet", udp(("198.51.100.8", 443), ("203.0.113.9", out.source_port), b"come"), "blue1");
}

#[test]
fn a_flood_from_outside_leaves_room_at_a_guarded_front_end() {
    let first = r#"firewall = { default_action = "Deny", ip_rules = ["198.51.100.0/24"] }"#;
    let mut bench = Bench::with_room(&Guarded { first, ..Guarded::default() }.document(), 30_000);
    let from =
        |number: u16| Tcp { from: ("198.51.100.7", 1_000 + number), to: (SHARED, 443), ..Tcp::default() }.bytes();
    for number in 0..20_000 {
        bench.forward("internet", from(number), "front");
    }
    assert_eq!(bench.report().undecided, 16_384, "a quarter of the room");
    let client = Tcp { from: ("198.51.100.9", 40_000), to: (SHARED, 443), ..Tcp::default() };
    bench.forward("internet", client.bytes(), "front");
    let answer = Tcp {
        from: (SHARED, 443),
        to: ("198.51.100.9", 40_000),
        flags: "SA",
        sequence: SERVER,
        acknowledgment: 1_001,
        ..Tcp::default()
    };
    bench.forward("front", answer.bytes(), "internet");
    let hello = hello(&name("first"));
    bench.forward(
        "internet",
        Tcp { flags: "PA", sequence: 1_001, acknowledgment: SERVER + 1, payload: &hello, ..client }.bytes(),
        "front",
    );
    // One that had to make room goes no further, unless it begins again.
    bench.forward("front", Tcp { to: ("198.51.100.7", 1_000), ..answer }.bytes(), "internet");
    let late = Tcp {
        from: ("198.51.100.7", 1_000),
        to: (SHARED, 443),
        flags: "PA",
        sequence: 1_001,
        acknowledgment: SERVER + 1,
        payload: b"x",
        ..Tcp::default()
    };
    bench.dropped("internet", late.bytes(), DropReason::UndecidedFull);
    bench.forward("internet", from(0), "front");
}

#[test]
fn errors_of_the_client_wait_until_the_resource_is_known() {
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    let quoted = client.server("A", SERVER + 1, client.next, b"");
    let error = crate::packets::port_unreachable("10.1.1.4", SHARED, &quoted);
    bench.dropped("blue1", error.clone(), DropReason::UndecidedMalformed);
    client.send(&mut bench, &hello(&name("first")));
    bench.take();
    client.acknowledge(&mut bench);
    bench.forward("blue1", error, "front");
}

#[test]
fn a_hello_that_never_ends_is_ended() {
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 80);
    assert!(matches!(client.send(&mut bench, b"GET / HTTP/1.1\r\nX: "), Verdict::Forwarded(_)));
    let mut sent = 0;
    let verdict = loop {
        match client.send(&mut bench, &[b'x'; 1_000]) {
            Verdict::Forwarded(_) => sent += 1_000,
            other => break other,
        }
    };
    assert_eq!(verdict, Verdict::Answered(Answer::PolicyUnidentified));
    assert!((15_000..=22_000).contains(&sent), "{sent}");
    bench.take();

    // And one that falls silent.
    let mut bench = self::bench();
    let mut client = Client::open(&mut bench, 443);
    client.send(&mut bench, &hello(&name("first"))[..30]);
    bench.take();
    bench.now += 29_000;
    bench.expire();
    assert!(bench.take().is_empty());
    bench.now += 1_000;
    bench.expire();
    closed(&mut bench, 1_001);
    assert_eq!((bench.report().undecided, bench.report().undecided_timeouts), (0, 1));
    assert_eq!(bench.denials().take().unwrap().reason, DropReason::UndecidedTimeout);
}

#[test]
fn a_policy_that_changes_judges_what_is_open_by_what_it_named() {
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    client.send(&mut bench, &hello(&name("first")));
    bench.take();
    client.acknowledge(&mut bench);
    // What does not concern it, it survives.
    bench.change(|network| network.service_endpoint_policies[0].name = "renamed".into());
    bench.sweep();
    assert!(bench.take().is_empty());
    assert!(matches!(client.send(&mut bench, b"on"), Verdict::Forwarded(_)));
    bench.take();
    bench.change(|network| network.service_endpoint_policies[0].definitions[0].service_resources.clear());
    bench.sweep();
    let sent = bench.take();
    assert!(!resets(&sent, "blue1").is_empty() && !resets(&sent, "front").is_empty(), "{sent:?}");
}

#[test]
fn a_policy_that_comes_later_closes_what_it_cannot_judge() {
    let more = policy("only-first", "Microsoft.Storage", ACCOUNT);
    let app = r#"service_endpoints = [{ service = "Microsoft.Storage" }]"#;
    let mut bench = Guarded { app, more: &more, ..Guarded::default() }.bench();
    let mut client = Client::open(&mut bench, 443);
    client.send(&mut bench, &hello(&name("first")));
    bench.take();
    bench.change(|network| network.virtual_networks[0].subnets[0].service_endpoint_policies = vec![0]);
    bench.sweep();
    let sent = bench.take();
    assert!(!resets(&sent, "blue1").is_empty() && !resets(&sent, "front").is_empty(), "{sent:?}");
}

#[test]
fn a_policy_that_is_taken_away_lets_undecided_connections_go() {
    let mut bench = bench();
    let mut client = Client::open(&mut bench, 443);
    client.send(&mut bench, &hello(&name("second"))[..30]);
    bench.take();
    bench.change(|network| network.virtual_networks[0].subnets[0].service_endpoint_policies.clear());
    bench.sweep();
    assert_eq!(bench.report().undecided, 0);
    assert!(matches!(client.send(&mut bench, b"anything"), Verdict::Forwarded(_)));
    bench.take();
}

#[test]
fn the_name_tells_whose_firewall_it_is_where_accounts_share_an_address() {
    let first = r#"firewall = { default_action = "Deny", virtual_network_rules = [{ subnet = "blue/app" }] }"#;
    let mut bench = Guarded { first, ..Guarded::default() }.bench();
    let mut client = Client::open(&mut bench, 443);
    assert!(matches!(client.send(&mut bench, &hello(&name("first"))), Verdict::Forwarded(_)));
    bench.take();
    let other = r#"firewall = { default_action = "Deny", virtual_network_rules = [{ subnet = "blue/bare" }] }"#;
    let mut bench = Guarded { first: other, ..Guarded::default() }.bench();
    let mut client = Client::open(&mut bench, 443);
    assert_eq!(client.send(&mut bench, &hello(&name("first"))), Verdict::Answered(Answer::FirewallDenied));
    bench.take();
    assert_eq!(bench.denials().take().unwrap().name.as_deref(), Some(name("first").as_str()));
    let mut bench = Guarded { first: other, ..Guarded::default() }.bench();
    let mut client = Client::open(&mut bench, 443);
    assert!(
        matches!(client.send(&mut bench, &hello(&name("second"))), Verdict::Forwarded(_)),
        "nobody guards that one"
    );
    bench.take();
}

#[test]
fn ten_thousand_half_open_connections_leave_room_for_others() {
    let more = policy("only-first", "Microsoft.Storage", ACCOUNT);
    let mut bench = Bench::with_room(&Guarded { app: APP, more: &more, ..Guarded::default() }.document(), 30_000);
    let half_open =
        |number: u16| Tcp { from: ("10.1.1.4", 1_000 + number), to: (SHARED, 443), ..Tcp::default() }.bytes();
    for number in 0..10_000 {
        bench.forward("blue1", half_open(number), "front");
    }
    assert_eq!(bench.report().undecided, 10_000);
    let mut client = Client::open(&mut bench, 443);
    assert!(matches!(client.send(&mut bench, &hello(&name("first"))), Verdict::Forwarded(_)));
    bench.take();
    client.acknowledge(&mut bench);
    // A NIC has a quarter of the room; beyond that those go that have waited longest and said nothing.
    for number in 10_000..18_000 {
        bench.forward("blue1", half_open(number), "front");
    }
    assert_eq!(bench.report().undecided, 16_384);
    for _ in 0..100 {
        bench.now += 6_000;
        bench.expire();
    }
    assert_eq!((bench.report().undecided, bench.forwarder.flow_count()), (0, 1), "nothing is left of them");
    bench.take();
}

#[test]
fn what_a_connection_named_outlives_the_process() {
    let save = |bench: &Bench| {
        let mut flows: Vec<SavedFlow> = Vec::new();
        bench.forwarder.save(bench.now, |flow| flows.push(flow));
        assert!(flows.len() <= bench.forwarder.saved_at_most()[0]);
        flows
    };
    let mut before = bench();
    let mut client = Client::open(&mut before, 443);
    client.send(&mut before, &hello(&name("first")));
    before.take();
    client.acknowledge(&mut before);
    // A second one has not named anything yet.
    before.forward("blue1", Tcp { from: ("10.1.1.4", 40_001), to: (SHARED, 443), ..Tcp::default() }.bytes(), "front");
    let flows = save(&before);
    assert_eq!((flows.len(), before.forwarder.flow_count()), (1, 2), "what has named nothing is asked again");
    let mut after = bench();
    after.forwarder.restore(after.now, &flows[0]).unwrap();
    assert_eq!(client.send(&mut after, b"on"), Verdict::Forwarded(after.port("front")));
    after.take();
    after.change(|network| network.service_endpoint_policies[0].definitions[0].service_resources.clear());
    after.sweep();
    assert!(!resets(&after.take(), "blue1").is_empty(), "it is still judged by what it named");
}
