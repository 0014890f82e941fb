//! Flow records for an IPFIX collector (RFC 7011), over UDP or TCP.
//!
//! A flow is one record in both directions (RFC 5103), with what translation made of it; a flow that a pool or an endpoint
//! translates is told as a NAT session that is made and ends, too, and ports or flows that are used up as events (RFC 8158).
//! Counts are those since the record before of the flow. Information elements are IANA's:
//!
//! | template | what |
//! |---|---|
//! | 256 to 259 | a flow, or a packet that did not leave (`firewallEvent` 3, `forwardingStatus` 128 and up): IPv4 or IPv6 on each side |
//! | 260 to 263 | a NAT session is made (`natEvent` 4, 6) or ends (5, 7) |
//! | 264, 265 | ports are used up (`natEvent` 12), or flows are (13) |
//! | 266 | packets that were dropped and no flow or address is known of |
//! | 512 | options: the name of each interface, by number: the ports of the node |
//!
//! The path of a flow is its egress interface, whose name option records tell, and by its name in `applicationName`: `endpoint`,
//! `tunnel`, `internet`, `inside`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::flow_record::{FlowEvent, FlowRecord, Socket};
use crate::path::verdict::DropReason;

/// The port of collectors (IANA: ipfix).
const PORT: u16 = 4739;

/// The largest message over UDP: what fits an Ethernet frame with room for a tunnel (RFC 7011 section 10.3.3).
const LARGEST: usize = 1_400;

/// How often templates and names are sent again over UDP (RFC 7011 section 8.4).
const TEMPLATES_AGAIN: Duration = Duration::from_secs(60);

/// How long a collector over TCP may take before what was to be sent is counted as lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long nothing is tried after a collector over TCP failed.
const PAUSE: Duration = Duration::from_secs(2);

/// The enterprise number of elements that count the other direction (RFC 5103 section 6.1).
const REVERSE: u32 = 29_305;

/// Length of what is as long as it says (RFC 7011 section 7).
const VARIABLE: u16 = 65_535;

/// Set ids of templates and options templates (RFC 7011 section 3.3.2).
const TEMPLATE_SET: u16 = 2;
const OPTIONS_SET: u16 = 3;

const FLOWS: u16 = 256;
const NAT_SESSIONS: u16 = 260;
const NAT_EXHAUSTED: u16 = 264;
const DROPPED: u16 = 266;
const INTERFACES: u16 = 512;

/// Where a collector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Over UDP: what is lost on the way is lost.
    Udp(SocketAddr),
    /// Over TCP.
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (tcp, address) = match (text.strip_prefix("tcp:"), text.strip_prefix("udp:")) {
            (Some(address), _) => (true, address),
            (None, Some(address)) => (false, address),
            (None, None) => (false, text),
        };
        let socket = address
            .parse()
            .or_else(|_| address.parse().map(|address: IpAddr| SocketAddr::new(address, PORT)))
            .map_err(|_| {
                "expected an address with or without a port, udp: or tcp: before it: tcp:127.0.0.1:4739".to_owned()
            })?;
        Ok(if tcp { Self::Tcp(socket) } else { Self::Udp(socket) })
    }
}

/// An element of a template: number, length, whether it counts the other direction.
type Element = (u16, u16, bool);

/// What every flow record begins with, before the addresses.
const FLOW_HEAD: &[Element] = &[
    (152, 8, false), // flowStartMilliseconds
    (153, 8, false), // flowEndMilliseconds
    (4, 1, false),   // protocolIdentifier
    (10, 4, false),  // ingressInterface
    (14, 4, false),  // egressInterface
    (7, 2, false),   // sourceTransportPort
    (11, 2, false),  // destinationTransportPort
    (227, 2, false), // postNAPTSourceTransportPort
    (228, 2, false), // postNAPTDestinationTransportPort
    (2, 8, false),   // packetDeltaCount
    (1, 8, false),   // octetDeltaCount
    (2, 8, true),    // reverse packetDeltaCount
    (1, 8, true),    // reverse octetDeltaCount
    (136, 1, false), // flowEndReason
    (233, 1, false), // firewallEvent
    (89, 1, false),  // forwardingStatus
];

/// What it ends with: the path.
const FLOW_TAIL: &[Element] = &[(96, VARIABLE, false)]; // applicationName

const NAT_HEAD: &[Element] = &[
    (323, 8, false), // observationTimeMilliseconds
    (230, 1, false), // natEvent
    (4, 1, false),   // protocolIdentifier
    (7, 2, false),   // sourceTransportPort
    (11, 2, false),  // destinationTransportPort
    (227, 2, false), // postNAPTSourceTransportPort
    (228, 2, false), // postNAPTDestinationTransportPort
];

const EXHAUSTED_HEAD: &[Element] = &[
    (323, 8, false), // observationTimeMilliseconds
    (230, 1, false), // natEvent
    (466, 4, false), // natQuotaExceededEvent
    (4, 1, false),   // protocolIdentifier
    (7, 2, false),   // sourceTransportPort
];

const DROPPED_ELEMENTS: &[Element] = &[
    (323, 8, false), // observationTimeMilliseconds
    (10, 4, false),  // ingressInterface
    (133, 8, false), // droppedPacketDeltaCount
    (132, 8, false), // droppedOctetDeltaCount
    (89, 1, false),  // forwardingStatus
];

/// Source and destination addresses, as they enter and as they leave, by family.
fn addresses(v6: bool, post_v6: bool) -> [Element; 4] {
    let (source, destination) = if v6 { ((27, 16, false), (28, 16, false)) } else { ((8, 4, false), (12, 4, false)) };
    let (post_source, post_destination) =
        if post_v6 { ((281, 16, false), (282, 16, false)) } else { ((225, 4, false), (226, 4, false)) };
    [source, destination, post_source, post_destination]
}

/// The number of a template among four by the families.
fn family(v6: bool, post_v6: bool) -> u16 {
    u16::from(v6) << 1 | u16::from(post_v6)
}

/// An exporter to one collector.
#[derive(Debug)]
pub struct Exporter {
    way: Way,
    /// Data records sent so far: the sequence number of the next message (RFC 7011 section 3.1).
    sequence: u32,
    /// Sets of the message that is being made, by template.
    sets: BTreeMap<u16, Vec<u8>>,
    /// Data records and bytes in it.
    records: u32,
    bytes: usize,
    /// Ports whose names the collector knows.
    names: BTreeMap<u32, (String, bool)>,
    templates_sent: Option<Instant>,
    sent: u64,
    lost: u64,
}

#[derive(Debug)]
enum Way {
    Udp(UdpSocket),
    Tcp { to: SocketAddr, stream: Option<TcpStream>, pause: Option<Instant> },
}

impl Exporter {
    /// An exporter. Over UDP its socket is made now; over TCP it connects with the first records, and again when it has to.
    ///
    /// # Errors
    /// When there is no socket.
    pub fn new(address: &Address) -> io::Result<Self> {
        let way = match address {
            Address::Udp(to) => {
                let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
                let socket = UdpSocket::bind(any)?;
                socket.connect(to)?;
                socket.set_nonblocking(true)?;
                Way::Udp(socket)
            }
            Address::Tcp(to) => Way::Tcp { to: *to, stream: None, pause: None },
        };
        Ok(Self {
            way,
            sequence: 0,
            sets: BTreeMap::new(),
            records: 0,
            bytes: 0,
            names: BTreeMap::new(),
            templates_sent: None,
            sent: 0,
            lost: 0,
        })
    }

    /// Data records sent, and those that could not be.
    pub fn counts(&self) -> (u64, u64) {
        (self.sent, self.lost)
    }

    /// Takes a record in. It leaves with the next message that is full, or [`Exporter::flush`].
    pub fn add(&mut self, record: &FlowRecord) {
        for (port, name) in [(record.ingress_port, &record.ingress), (record.egress_port, &record.egress)] {
            if let (Some(port), Some(name)) = (port, name) {
                self.name(u32::from(port), name);
            }
        }
        match record.event {
            FlowEvent::Reply => return,
            FlowEvent::Unsent => return self.dropped(record),
            _ => {}
        }
        let (Some(source), Some(destination)) = (record.source, record.destination) else {
            return self.dropped(record);
        };
        let (post_source, post_destination) =
            (record.presented.unwrap_or(source), record.reached.unwrap_or(destination));
        let sides = [source, destination, post_source, post_destination];
        self.flow(record, &sides);
        if record.presented.is_some() && sides[..2] != sides[2..] {
            self.session(record, &sides);
        }
        let exhausted = record.reason.as_deref();
        if exhausted == Some(DropReason::NoFreePort.name()) {
            self.exhausted(record, source, 12, 0);
        } else if exhausted == Some(DropReason::FlowTableFull.name()) {
            self.exhausted(record, source, 13, 1);
        } else if exhausted == Some(DropReason::FlowLimitOfNic.name()) {
            self.exhausted(record, source, 13, 3);
        }
    }

    fn flow(&mut self, record: &FlowRecord, sides: &[Socket; 4]) {
        let [source, destination, post_source, post_destination] = sides;
        let denied = record.event == FlowEvent::Denied;
        // RFC 5102: idle timeout, active timeout, end, forced, lack of resources; 0 where it does not end.
        let end_reason = match (record.event, record.reason.as_deref()) {
            (FlowEvent::Continue, _) => 2,
            (FlowEvent::End, Some("evicted")) => 5,
            (FlowEvent::End, Some("changed" | "denied" | "stopped")) => 4,
            (FlowEvent::End, _) if matches!(record.phase.as_deref(), Some("closed" | "aborted")) => 3,
            (FlowEvent::End, _) => 1,
            _ => 0,
        };
        // IANA: created, deleted, denied, update.
        let firewall_event = match record.event {
            FlowEvent::Begin => 1,
            FlowEvent::End => 2,
            FlowEvent::Denied => 3,
            _ => 5,
        };
        let mut body = Vec::with_capacity(160);
        body.extend(record.began.to_be_bytes());
        body.extend(record.time.to_be_bytes());
        body.push(record.protocol.unwrap_or_default());
        body.extend(u32::from(record.ingress_port.unwrap_or_default()).to_be_bytes());
        body.extend(u32::from(record.egress_port.unwrap_or_default()).to_be_bytes());
        for side in [source, destination, post_source, post_destination] {
            body.extend(side.port.to_be_bytes());
        }
        for count in [record.packets[0], record.bytes[0], record.packets[1], record.bytes[1]] {
            body.extend(count.to_be_bytes());
        }
        body.extend([end_reason, firewall_event, if denied { status(record.reason.as_deref()) } else { 64 }]);
        put_addresses(&mut body, sides);
        let path = record.path.map_or("", crate::path::kind::PathKind::name);
        body.push(path.len() as u8);
        body.extend(path.as_bytes());
        self.put(FLOWS + families(sides), &body);
    }

    fn session(&mut self, record: &FlowRecord, sides: &[Socket; 4]) {
        let is_64 = sides[0].address.is_ipv6() != sides[2].address.is_ipv6();
        let event = match (record.event, is_64) {
            (FlowEvent::Begin, false) => 4,
            (FlowEvent::End, false) => 5,
            (FlowEvent::Begin, true) => 6,
            (FlowEvent::End, true) => 7,
            _ => return,
        };
        let mut body = Vec::with_capacity(96);
        body.extend(record.time.to_be_bytes());
        body.extend([event, record.protocol.unwrap_or_default()]);
        for side in sides {
            body.extend(side.port.to_be_bytes());
        }
        put_addresses(&mut body, sides);
        self.put(NAT_SESSIONS + families(sides), &body);
    }

    fn exhausted(&mut self, record: &FlowRecord, source: Socket, event: u8, quota: u32) {
        let mut body = Vec::with_capacity(40);
        body.extend(record.time.to_be_bytes());
        body.push(event);
        body.extend(quota.to_be_bytes());
        body.push(record.protocol.unwrap_or_default());
        body.extend(source.port.to_be_bytes());
        put_address(&mut body, source.address);
        self.put(NAT_EXHAUSTED + u16::from(source.address.is_ipv6()), &body);
    }

    fn dropped(&mut self, record: &FlowRecord) {
        let mut body = Vec::with_capacity(32);
        body.extend(record.time.to_be_bytes());
        body.extend(u32::from(record.ingress_port.unwrap_or_default()).to_be_bytes());
        body.extend(record.packets[0].to_be_bytes());
        body.extend(record.bytes[0].to_be_bytes());
        body.push(status(record.reason.as_deref()));
        self.put(DROPPED, &body);
    }

    /// Tells the name of a port, once, and again with the templates.
    fn name(&mut self, port: u32, name: &str) {
        if self.names.get(&port).is_some_and(|(known, _)| known == name) {
            return;
        }
        self.names.insert(port, (name.to_owned(), false));
    }

    fn put(&mut self, template: u16, body: &[u8]) {
        if self.bytes + body.len() + 4 > LARGEST - 16 {
            self.flush();
        }
        let set = self.sets.entry(template).or_default();
        self.bytes += body.len() + if set.is_empty() { 4 } else { 0 };
        set.extend(body);
        self.records += 1;
    }

    /// Sends what waits.
    pub fn flush(&mut self) {
        if self.sets.is_empty() {
            return;
        }
        let mut message = Vec::with_capacity(LARGEST);
        self.templates_and_names();
        let sets = std::mem::take(&mut self.sets);
        for (template, body) in &sets {
            put_set(&mut message, *template, body);
        }
        let records = std::mem::take(&mut self.records);
        self.bytes = 0;
        self.send(&message, records);
    }

    /// Sends templates where the collector does not know them, and names that it does not know.
    fn templates_and_names(&mut self) {
        let again = match &self.way {
            Way::Udp(_) => self.templates_sent.is_none_or(|sent| sent.elapsed() >= TEMPLATES_AGAIN),
            Way::Tcp { stream, .. } => self.templates_sent.is_none() || stream.is_none(),
        };
        if again {
            let mut message = Vec::new();
            templates(&mut message);
            if self.send(&message, 0) {
                self.templates_sent = Some(Instant::now());
            }
            for (_, told) in self.names.values_mut() {
                *told = false;
            }
        }
        let mut told = Vec::new();
        let mut body = Vec::new();
        for (port, (name, known)) in &self.names {
            if !known && body.len() + name.len() + 8 < LARGEST - 20 {
                body.extend(port.to_be_bytes());
                let name = name.as_bytes().get(..254).unwrap_or(name.as_bytes());
                body.push(name.len() as u8);
                body.extend(name);
                told.push(*port);
            }
        }
        if told.is_empty() {
            return;
        }
        let mut message = Vec::new();
        put_set(&mut message, INTERFACES, &body);
        if self.send(&message, told.len() as u32) {
            for port in told {
                if let Some((_, known)) = self.names.get_mut(&port) {
                    *known = true;
                }
            }
        }
    }

    /// Sends a message of sets with so many data records; false where that failed.
    fn send(&mut self, sets: &[u8], records: u32) -> bool {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32;
        let mut message = Vec::with_capacity(sets.len() + 16);
        message.extend(10_u16.to_be_bytes());
        message.extend((sets.len() as u16 + 16).to_be_bytes());
        message.extend(time.to_be_bytes());
        message.extend(self.sequence.to_be_bytes());
        message.extend(0_u32.to_be_bytes());
        message.extend(sets);
        let sent = self.way.send(&message);
        self.sequence = self.sequence.wrapping_add(records);
        match sent {
            Ok(()) => self.sent += u64::from(records),
            Err(error) => {
                if self.lost == 0 {
                    tracing::warn!(%error, "the IPFIX collector does not take records; what is lost is counted");
                }
                self.lost += u64::from(records);
                if matches!(self.way, Way::Tcp { .. }) {
                    self.templates_sent = None;
                }
                return false;
            }
        }
        true
    }
}

impl Way {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => match socket.send(message) {
                // That nobody listened is told of the message before; this one has not been sent for it.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => socket.send(message).map(drop),
                result => result.map(drop),
            },
            Self::Tcp { to, stream, pause } => {
                if pause.is_some_and(|pause| pause.elapsed() < PAUSE) {
                    return Err(io::Error::new(io::ErrorKind::NotConnected, "not connected"));
                }
                let result = (|| {
                    let connection = match stream {
                        Some(connection) => connection,
                        None => {
                            let connection = TcpStream::connect_timeout(to, PATIENCE)?;
                            connection.set_write_timeout(Some(PATIENCE))?;
                            connection.set_nodelay(true)?;
                            stream.insert(connection)
                        }
                    };
                    connection.write_all(message)
                })();
                *pause = result.is_err().then(Instant::now);
                if result.is_err() {
                    *stream = None;
                }
                result
            }
        }
    }
}

fn families(sides: &[Socket; 4]) -> u16 {
    family(sides[0].address.is_ipv6(), sides[2].address.is_ipv6())
}

fn put_addresses(body: &mut Vec<u8>, sides: &[Socket; 4]) {
    for side in sides {
        put_address(body, side.address);
    }
}

fn put_address(body: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => body.extend(v4.octets()),
        IpAddr::V6(v6) => body.extend(v6.octets()),
    }
}

fn put_set(message: &mut Vec<u8>, id: u16, body: &[u8]) {
    message.extend(id.to_be_bytes());
    message.extend((body.len() as u16 + 4).to_be_bytes());
    message.extend(body);
}

/// Every template, and the options template, as sets.
fn templates(message: &mut Vec<u8>) {
    let mut body = Vec::new();
    let mut template = |id: u16, parts: &[&[Element]]| {
        let count: usize = parts.iter().map(|part| part.len()).sum();
        body.extend(id.to_be_bytes());
        body.extend((count as u16).to_be_bytes());
        for (number, length, reverse) in parts.iter().copied().flatten().copied() {
            body.extend((if reverse { number | 0x8000 } else { number }).to_be_bytes());
            body.extend(length.to_be_bytes());
            if reverse {
                body.extend(REVERSE.to_be_bytes());
            }
        }
    };
    for (v6, post_v6) in [(false, false), (false, true), (true, false), (true, true)] {
        let addresses = addresses(v6, post_v6);
        template(FLOWS + family(v6, post_v6), &[FLOW_HEAD, &addresses, FLOW_TAIL]);
        template(NAT_SESSIONS + family(v6, post_v6), &[NAT_HEAD, &addresses]);
    }
    template(NAT_EXHAUSTED, &[EXHAUSTED_HEAD, &[(8, 4, false)]]);
    template(NAT_EXHAUSTED + 1, &[EXHAUSTED_HEAD, &[(27, 16, false)]]);
    template(DROPPED, &[DROPPED_ELEMENTS]);
    put_set(message, TEMPLATE_SET, &body);
    let mut options = Vec::new();
    // ingressInterface as scope, interfaceName.
    for number in [INTERFACES, 2, 1, 10, 4, 82, VARIABLE] {
        options.extend(number.to_be_bytes());
    }
    put_set(message, OPTIONS_SET, &options);
}

/// `forwardingStatus` of a packet that did not leave (RFC 7270 section 4.12): dropped, and why as far as it has a number.
fn status(reason: Option<&str>) -> u8 {
    let is = |list: &[DropReason]| list.iter().any(|known| reason == Some(known.name()));
    if is(&[DropReason::NsgOutboundDenied, DropReason::NsgInboundDenied]) {
        129
    } else if is(&[DropReason::PolicyDenied, DropReason::PolicyUnidentified, DropReason::FirewallDenied]) {
        130
    } else if is(&[DropReason::SpoofedSource, DropReason::ForgedIdentity, DropReason::EndpointBypassed]) {
        140
    } else if is(&[DropReason::NoRoute, DropReason::NextHopNone, DropReason::NoGateway, DropReason::NoInternetEdge]) {
        131
    } else if is(&[DropReason::AddressUnassigned, DropReason::NoSuchResource, DropReason::NoDevice]) {
        132
    } else if is(&[DropReason::HopLimitExceeded]) || reason == Some("time_exceeded") {
        137
    } else if is(&[DropReason::PacketTooBig]) {
        133
    } else {
        128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let used_up = FlowRecord {
            reason: Some("no_free_port".to_owned()),
            presented: None,
            reached: None,
            ..record(FlowEvent::Denied)
        };
        exporter.add(&used_up);
        exporter.flush();
        let flow = 8 + 8 + 1 + 4 + 4 + 8 + 32 + 3 + 16 + 1 + "internet".len();
        // The one that is denied has no path.
        let flows = 4 + 3 * flow;
        let session = 8 + 2 + 8 + 16;
        let exhausted = 8 + 1 + 4 + 1 + 2 + 4;
        let sets = sets(&collector, 3);
        assert_eq!(sets.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, 3, 512, 256, 260, 264]);
        assert_eq!(sets[3..], [(256, flows), (260, 4 + 2 * session), (264, 4 + exhausted)]);
        // Two names, three flows, two sessions, one event.
        assert_eq!(exporter.counts(), (8, 0));
        assert_eq!(exporter.sequence, 8);
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
        assert_eq!(exporter.counts(), (102, 0));
        let mut left = 100;
        let mut buffer = [0; 2_000];
        while left > 0 {
            let length = collector.recv(&mut buffer).unwrap();
            assert!(length <= LARGEST);
            if buffer[16..18] == 256_u16.to_be_bytes() {
                left -= (length - 20) / (8 + 8 + 1 + 4 + 4 + 8 + 32 + 3 + 16 + 1 + "internet".len());
            }
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = listener.local_addr().unwrap();
        drop(listener);
        let mut exporter = Exporter::new(&Address::Tcp(gone)).unwrap();
        exporter.add(&record(FlowEvent::Continue));
        exporter.flush();
        assert_eq!(exporter.counts(), (0, 3));
    }

    #[test]
    fn why_a_packet_did_not_leave_is_iana_s_number() {
        assert_eq!(status(Some("nsg_outbound_denied")), 129);
        assert_eq!(status(Some("firewall_denied")), 130);
        assert_eq!(status(Some("no_route")), 131);
        assert_eq!(status(Some("spoofed_source")), 140);
        assert_eq!(status(None), 128);
    }
}
