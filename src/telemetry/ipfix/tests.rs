use std::io::Read;
use std::net::{TcpListener, TcpStream};

use super::*;

/// Bytes of [`record`] as a flow.
const FLOW: usize = 8 + 8 + 1 + 4 + 4 + 8 + 32 + 3 + 16 + 1 + "internet".len();

#[test]
fn collectors_are_named_as_people_write_them() {
    let parse = |text: &str| text.parse::<Address>();
    assert_eq!(parse("192.0.2.9"), Ok(Address::Udp("192.0.2.9:4739".parse().unwrap())));
    assert_eq!(parse("tcp:[2001:db8::9]:99"), Ok(Address::Tcp("[2001:db8::9]:99".parse().unwrap())));
    assert_eq!(parse("udp:2001:db8::9"), Ok(Address::Udp("[2001:db8::9]:4739".parse().unwrap())));
    for wrong in ["", "tcp:", "collector.example.com", "192.0.2.9:99999"] {
        assert!(parse(wrong).unwrap_err().contains("tcp:127.0.0.1:4739"), "{wrong}");
    }
}

fn record(event: FlowEvent) -> FlowRecord {
    let json = serde_json::json!({
        "time": 2_000, "event": event, "protocol": 6, "packets": [3, 4], "bytes": [300, 400], "began": 1_000,
        "generation": 1, "worker": 0, "ingress": "vm1", "ingress_port": 1, "egress": "data", "egress_port": 7,
        "source": { "address": "10.1.1.4", "port": 40_000 }, "destination": { "address": "20.60.1.10", "port": 443 },
        "presented": { "address": "203.0.113.9", "port": 1_024 }, "reached": { "address": "20.60.1.10", "port": 443 },
        "path": "internet",
    });
    serde_json::from_value(json).unwrap()
}

/// The sets of the messages that a collector over UDP gets: their ids and lengths.
fn sets(socket: &UdpSocket, messages: usize) -> Vec<(u16, usize)> {
    let mut sets = Vec::new();
    for _ in 0..messages {
        let mut buffer = [0; 2_000];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([buffer[2], buffer[3]])), length);
        let mut place = 16;
        while place < length {
            let size = usize::from(u16::from_be_bytes([buffer[place + 2], buffer[place + 3]]));
            sets.push((u16::from_be_bytes([buffer[place], buffer[place + 1]]), size));
            place += size;
        }
    }
    sets
}

#[test]
fn templates_and_names_come_first_and_translations_are_sessions() {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    collector.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut exporter = Exporter::new(&Address::Udp(collector.local_addr().unwrap())).unwrap();
    exporter.add(&record(FlowEvent::Begin));
    exporter.add(&record(FlowEvent::Reply));
    exporter.add(&record(FlowEvent::End));
    let denied = FlowRecord {
        reason: Some("no_route".to_owned()),
        presented: None,
        reached: None,
        path: None,
        ..record(FlowEvent::Denied)
    };
    exporter.add(&denied);
    exporter.flush();
    let session = 8 + 3 + 8 + 16;
    let sets = sets(&collector, 3);
    assert_eq!(sets.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 3, 512, 256, 260]);
    // The one that is denied has no path.
    assert_eq!(sets[3..], [(256, 4 + 3 * FLOW - "internet".len()), (260, 4 + 2 * session)]);
    // Three flows and two sessions; two names have numbers of their own.
    assert_eq!(exporter.counts(), (5, 0));
    assert_eq!(exporter.sequence, 7);
}

#[test]
fn messages_are_bounded_and_what_nobody_takes_is_counted() {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    collector.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut exporter = Exporter::new(&Address::Udp(collector.local_addr().unwrap())).unwrap();
    for _ in 0..100 {
        exporter.add(&record(FlowEvent::Continue));
    }
    exporter.flush();
    assert_eq!(exporter.counts(), (100, 0));
    let mut left = 100;
    let mut buffer = [0; 2_000];
    while left > 0 {
        let length = collector.recv(&mut buffer).unwrap();
        assert!(length <= LARGEST);
        if buffer[16..18] == 256_u16.to_be_bytes() {
            left -= (length - 20) / FLOW;
        }
    }
    drop(collector);
    // Over UDP the machine says that nobody listens.
    exporter.add(&record(FlowEvent::Continue));
    exporter.flush();
    assert_eq!(exporter.counts(), (100, 1));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let mut exporter = Exporter::new(&Address::Tcp(gone)).unwrap();
    for _ in 0..3 {
        exporter.add(&record(FlowEvent::Continue));
        exporter.flush();
    }
    // It may come back until the end.
    assert_eq!(exporter.counts(), (0, 0));
    exporter.finish();
    assert_eq!(exporter.counts(), (0, 3));
}

/// What a collector over TCP was sent on one connection.
fn read(stream: &mut TcpStream, records: usize) -> Vec<(u32, u16)> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut found = Vec::new();
    while found.iter().filter(|(_, id)| *id == FLOWS).count() < records {
        let mut head = [0; 16];
        stream.read_exact(&mut head).unwrap();
        let mut sets = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]])) - 16];
        stream.read_exact(&mut sets).unwrap();
        let sequence = u32::from_be_bytes(head[8..12].try_into().unwrap());
        let mut place = 0;
        while place < sets.len() {
            found.push((sequence, u16::from_be_bytes([sets[place], sets[place + 1]])));
            place += usize::from(u16::from_be_bytes([sets[place + 2], sets[place + 3]]));
        }
    }
    found
}

fn wait_for(exporter: &mut Exporter, counts: (u64, u64)) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while exporter.counts() != counts {
        assert!(Instant::now() < deadline, "{:?}", exporter.counts());
        std::thread::sleep(Duration::from_millis(5));
        exporter.flush();
    }
}

#[test]
fn a_collector_that_starts_anew_gets_everything_that_comes_after() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut exporter = Exporter::new(&Address::Tcp(listener.local_addr().unwrap())).unwrap();
    for sent in 1..=3 {
        exporter.add(&record(FlowEvent::Continue));
        exporter.flush();
        let (mut stream, _) = listener.accept().unwrap();
        // Each connection is a stream of its own, with templates and names.
        assert_eq!(read(&mut stream, 1), [(0, 2), (0, 3), (0, 512), (2, 256)]);
        wait_for(&mut exporter, (sent, 0));
        assert!(!exporter.failing);
    }
}

#[test]
fn what_a_collector_does_not_read_is_never_told_as_exported() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut exporter = Exporter::new(&Address::Tcp(listener.local_addr().unwrap())).unwrap();
    // More than buffers hold.
    let records = 60_000;
    for _ in 0..records {
        exporter.add(&record(FlowEvent::Continue));
    }
    exporter.finish();
    let (sent, lost) = exporter.counts();
    assert_eq!(sent + lost, records);
    assert!(lost > 0);
    // What was told as exported is in buffers of the collector's host, on one connection or another.
    listener.set_nonblocking(true).unwrap();
    let arrived: u64 =
        listener.incoming().map_while(Result::ok).map(|stream| rustix::io::ioctl_fionread(&stream).unwrap()).sum();
    assert!(sent * FLOW as u64 <= arrived, "{sent} records in {arrived} bytes");
}

#[test]
fn no_interface_is_not_the_first_port() {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    collector.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut exporter = Exporter::new(&Address::Udp(collector.local_addr().unwrap())).unwrap();
    let denied = FlowRecord {
        ingress_port: Some(0),
        egress: None,
        egress_port: None,
        presented: None,
        reached: None,
        ..record(FlowEvent::Denied)
    };
    exporter.add(&denied);
    exporter.flush();
    let mut buffer = [0; 2_000];
    let mut message = || {
        let length = collector.recv(&mut buffer).unwrap();
        buffer[20..length].to_vec()
    };
    let (_templates, names, flows) = (message(), message(), message());
    assert_eq!(names, [&[0, 0, 0, 1, 3][..], b"vm1"].concat());
    assert_eq!(flows[17..25], [0, 0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn every_name_comes_before_the_flows() {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    collector.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut exporter = Exporter::new(&Address::Udp(collector.local_addr().unwrap())).unwrap();
    for port in 0..100_u16 {
        let name = format!("{port}-{}", "ä".repeat(200));
        let (egress, egress_port) = (None, None);
        exporter.name(interface(Some(port)), &name);
        if port == 99 {
            exporter.add(&FlowRecord {
                ingress: Some(name),
                ingress_port: Some(port),
                egress,
                egress_port,
                ..record(FlowEvent::Continue)
            });
        }
    }
    exporter.flush();
    let mut told = 0;
    let mut buffer = [0; 2_000];
    loop {
        let length = collector.recv(&mut buffer).unwrap();
        assert!(length <= LARGEST);
        match u16::from_be_bytes([buffer[16], buffer[17]]) {
            INTERFACES => {
                let mut place = 20;
                while place < length {
                    let size = usize::from(buffer[place + 4]);
                    let name = std::str::from_utf8(&buffer[place + 5..place + 5 + size]).unwrap();
                    assert!(name.starts_with(&format!("{told}-ä")), "{name}");
                    told += 1;
                    place += 5 + size;
                }
            }
            FLOWS => break,
            _ => {}
        }
    }
    assert_eq!((told, exporter.counts()), (100, (1, 0)));
}

#[test]
fn translations_are_called_what_they_are() {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    collector.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut exporter = Exporter::new(&Address::Udp(collector.local_addr().unwrap())).unwrap();
    let side = |address: &str, port| Some(Socket { address: address.parse().unwrap(), port });
    let mut session = |inside: &str, outside: &str| {
        let flow = FlowRecord {
            source: side(inside, 1),
            destination: side(inside, 2),
            presented: side(outside, 3),
            reached: side(outside, 4),
            ..record(FlowEvent::End)
        };
        exporter.add(&flow);
        exporter.flush();
        let mut buffer = [0; 2_000];
        loop {
            let length = collector.recv(&mut buffer).unwrap();
            let mut place = 16;
            while place < length {
                let id = u16::from_be_bytes([buffer[place], buffer[place + 1]]);
                if (NAT_SESSIONS..POOL_EXHAUSTED).contains(&id) {
                    return (id, buffer[place + 12], buffer[place + 13]);
                }
                place += usize::from(u16::from_be_bytes([buffer[place + 2], buffer[place + 3]]));
            }
        }
    };
    assert_eq!(session("10.1.1.4", "203.0.113.9"), (260, 5, 1));
    assert_eq!(session("fd00::4", "203.0.113.9"), (262, 7, 2));
    assert_eq!(session("::ffff:10.1.1.4", "2001:db8::9"), (261, 2, 3));
    assert_eq!(session("fd00::4", "2001:db8::9"), (263, 2, 5));
}

#[test]
fn why_a_packet_did_not_leave_is_iana_s_number() {
    assert_eq!(status(Some("nsg_outbound_denied")), 129);
    assert_eq!(status(Some("firewall_denied")), 130);
    assert_eq!(status(Some("no_route")), 131);
    assert_eq!(status(Some("spoofed_source")), 140);
    assert_eq!(status(None), 128);
}
