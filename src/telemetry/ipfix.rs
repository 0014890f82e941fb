//! Flow records for an IPFIX collector (RFC 7011), over UDP or TCP.
//!
//! A flow is one record in both directions (RFC 5103), with what translation made of it; a flow that a pool or an endpoint
//! translates is told as a NAT session that is made and ends, too, and ports or flows that are used up as events (RFC 8158).
//! Counts are those since the record before of the flow. Information elements are IANA's:
//!
//! | template | what |
//! |---|---|
//! | 256 to 259 | a flow, or a packet that did not leave (`firewallEvent` 3, `forwardingStatus` 128 and up): IPv4 or IPv6 on each side |
//! | 260 to 263 | a NAT session is made or ends: IPv4 (`natEvent` 4, 5), IPv6 to IPv4 (6, 7), and, which RFC 8158 has no events of, the others (1, 2); `natType` says which |
//! | 264 | a pool is used up (`natEvent` 3): its number and name |
//! | 265 | there are as many flows as there may be (13, `natQuotaExceededEvent` 1), and how many that is |
//! | 266 | packets that were dropped and no flow or address is known of |
//! | 267, 268 | a NIC has as many flows as it may have (13, 3), and how many that is |
//! | 512 | options: the name of each interface, by number |
//!
//! An interface is a port of the node; its number is that of the port and one, and 0 where it is not known. The path of a flow
//! is its egress interface, whose name option records tell, and by its name in `applicationName`: `endpoint`, `tunnel`,
//! `internet`, `inside`. What is used up is told once a second for each interface (RFC 8158 asks for a limit), however many
//! packets meet it; each of these is told as a packet that did not leave.
//!
//! # What is known to have arrived
//! Over UDP nothing: what counts as exported was sent. Over TCP a message counts as exported when the collector's host has
//! acknowledged it; until then it is kept, and sent again where the connection breaks, so that it may come twice. Messages
//! that wait are bounded; what finds no room counts as lost. Whether the collector has read what its host took in before it
//! ended is what nobody can know.

mod message;
mod tcp;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, UdpSocket};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::flow_record::{FlowEvent, FlowRecord, Socket};
use crate::path::observer::Silent;
use crate::path::record::{About, Event, Record};
use crate::path::redecide::Sides;
use crate::path::route;
use crate::path::source::{self, Presented};
use crate::path::subject::Subject;
use crate::path::verdict::DropReason;
use crate::snapshot::{PoolId, Snapshot};
use message::{
    DROPPED, FLOWS, FLOWS_EXHAUSTED, INTERFACES, NAT_SESSIONS, NIC_EXHAUSTED, POOL_EXHAUSTED, families, message,
    put_address, put_addresses, put_set, put_text, status, templates,
};
use tcp::{Message, Tcp};

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

/// Bytes of messages that wait for a collector over TCP to be there, and to have acknowledged them.
const WAITING: usize = 1 << 20;

/// How often it is told at most that something is used up.
const EXHAUSTED_AGAIN: Duration = Duration::from_secs(1);

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

/// An exporter to one collector.
#[derive(Debug)]
pub struct Exporter {
    way: Way,
    /// Data records sent so far, over TCP on this connection: the sequence number of the next message (RFC 7011 section 3.1).
    sequence: u32,
    /// Sets of the message that is being made, by template. Their memory is used again.
    sets: BTreeMap<u16, Vec<u8>>,
    /// Data records and bytes in it.
    records: u32,
    bytes: usize,
    /// The data record that is being made.
    body: Vec<u8>,
    /// Names of ports, and whether there are some that the collector does not know.
    names: BTreeMap<u32, Name>,
    untold: bool,
    templates_sent: Option<Instant>,
    /// When it was told last that something is used up, by what and the interface.
    exhausted: BTreeMap<(u8, u16), Instant>,
    /// Whether the collector did not take the last message.
    failing: bool,
    sent: u64,
    lost: u64,
}

#[derive(Debug)]
struct Name {
    text: String,
    told: bool,
}

#[derive(Debug)]
enum Way {
    Udp {
        socket: UdpSocket,
        /// Data records of the last message: that nobody took it is told with the next one.
        unconfirmed: u32,
    },
    Tcp(Tcp),
}

/// What is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exhausted {
    Pool,
    Flows,
    FlowsOfNic,
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
                Way::Udp { socket, unconfirmed: 0 }
            }
            Address::Tcp(to) => {
                Way::Tcp(Tcp { to: *to, connection: None, pause: None, waiting: VecDeque::new(), bytes: 0 })
            }
        };
        Ok(Self {
            way,
            sequence: 0,
            sets: BTreeMap::new(),
            records: 0,
            bytes: 0,
            body: Vec::new(),
            names: BTreeMap::new(),
            untold: false,
            templates_sent: None,
            exhausted: BTreeMap::new(),
            failing: false,
            sent: 0,
            lost: 0,
        })
    }

    /// Data records that have been sent, over TCP those that have arrived, and those that are lost. Names of interfaces are
    /// in neither.
    pub fn counts(&self) -> (u64, u64) {
        (self.sent, self.lost)
    }

    /// What [`Exporter::counts`] has, from when it was taken last.
    pub fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.sent), std::mem::take(&mut self.lost))
    }

    /// Takes a record in. It leaves with the next message that is full, or [`Exporter::flush`].
    pub fn add(&mut self, record: &FlowRecord) {
        if record.event == FlowEvent::Reply {
            return;
        }
        for (port, name) in [(record.ingress_port, &record.ingress), (record.egress_port, &record.egress)] {
            if let (Some(_), Some(name)) = (port, name) {
                self.name(interface(port), name);
            }
        }
        let (Some(source), Some(destination), true) =
            (record.source, record.destination, record.event != FlowEvent::Unsent)
        else {
            return self.dropped(record);
        };
        let (post_source, post_destination) =
            (record.presented.unwrap_or(source), record.reached.unwrap_or(destination));
        // An IPv4 address that a flow between the families keeps as IPv6 is told as what it is.
        let sides = [source, destination, post_source, post_destination]
            .map(|side| Socket { address: side.address.to_canonical(), ..side });
        self.flow(record, &sides);
        if record.presented.is_some() && sides[..2] != sides[2..] {
            self.session(record, &sides);
        }
    }

    /// Tells what a packet could not begin a flow for, if that was not told a moment ago. `time`: in milliseconds since 1970.
    pub fn add_exhausted(&mut self, record: &Record, time: u64) {
        let what = match record.event {
            Event::Dropped(DropReason::NoFreePort) => Exhausted::Pool,
            Event::Dropped(DropReason::FlowTableFull) => Exhausted::Flows,
            Event::Dropped(DropReason::FlowLimitOfNic) => Exhausted::FlowsOfNic,
            _ => return,
        };
        let About::Packet(subject) = &record.about else { return };
        let whose = (what as u8, subject.ingress.0);
        if self.exhausted.get(&whose).is_some_and(|told| told.elapsed() < EXHAUSTED_AGAIN) {
            return;
        }
        self.exhausted.insert(whose, Instant::now());
        let snapshot = &*record.snapshot;
        let mut body = self.begin();
        body.extend(time.to_be_bytes());
        match what {
            Exhausted::Pool => {
                let pool = pool_of(snapshot, subject);
                body.extend([3, subject.protocol]);
                body.extend(pool.map_or(u32::MAX, |pool| u32::from(pool.0)).to_be_bytes());
                put_text(&mut body, pool.and_then(|pool| snapshot.pool(pool)).map_or("", |pool| &pool.name));
                self.put(POOL_EXHAUSTED, body);
            }
            Exhausted::Flows => {
                body.push(13);
                body.extend(1_u32.to_be_bytes());
                body.extend(snapshot.flow_limit.to_be_bytes());
                self.put(FLOWS_EXHAUSTED, body);
            }
            Exhausted::FlowsOfNic => {
                body.push(13);
                body.extend(3_u32.to_be_bytes());
                body.extend(snapshot.flow_limit_per_nic.to_be_bytes());
                body.extend(interface(Some(subject.ingress.0)).to_be_bytes());
                let source = subject.source.to_canonical();
                put_address(&mut body, source);
                self.put(NIC_EXHAUSTED + u16::from(source.is_ipv6()), body);
            }
        }
    }

    fn flow(&mut self, record: &FlowRecord, sides: &[Socket; 4]) {
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
        let mut body = self.begin();
        body.extend(record.began.to_be_bytes());
        body.extend(record.time.to_be_bytes());
        body.push(record.protocol.unwrap_or_default());
        body.extend(interface(record.ingress_port).to_be_bytes());
        body.extend(interface(record.egress_port).to_be_bytes());
        for side in sides {
            body.extend(side.port.to_be_bytes());
        }
        for count in [record.packets[0], record.bytes[0], record.packets[1], record.bytes[1]] {
            body.extend(count.to_be_bytes());
        }
        body.extend([end_reason, firewall_event, if denied { status(record.reason.as_deref()) } else { 64 }]);
        put_addresses(&mut body, sides);
        put_text(&mut body, record.path.map_or("", crate::path::kind::PathKind::name));
        self.put(FLOWS + families(sides), body);
    }

    fn session(&mut self, record: &FlowRecord, sides: &[Socket; 4]) {
        let ends = match record.event {
            FlowEvent::Begin => 0,
            FlowEvent::End => 1,
            _ => return,
        };
        // IANA, natType: NAT44, NAT64, NAT46, NAT66.
        let (event, kind) = match (sides[0].address.is_ipv6(), sides[2].address.is_ipv6()) {
            (false, false) => (4, 1),
            (true, false) => (6, 2),
            (false, true) => (1, 3),
            (true, true) => (1, 5),
        };
        let mut body = self.begin();
        body.extend(record.time.to_be_bytes());
        body.extend([event + ends, kind, record.protocol.unwrap_or_default()]);
        for side in sides {
            body.extend(side.port.to_be_bytes());
        }
        put_addresses(&mut body, sides);
        self.put(NAT_SESSIONS + families(sides), body);
    }

    fn dropped(&mut self, record: &FlowRecord) {
        let mut body = self.begin();
        body.extend(record.time.to_be_bytes());
        body.extend(interface(record.ingress_port).to_be_bytes());
        body.extend(record.packets[0].to_be_bytes());
        body.extend(record.bytes[0].to_be_bytes());
        body.push(status(record.reason.as_deref()));
        self.put(DROPPED, body);
    }

    /// Tells the name of a port, once, and again with the templates.
    fn name(&mut self, port: u32, name: &str) {
        match self.names.get_mut(&port) {
            Some(known) if known.text == name => return,
            Some(known) => *known = Name { text: name.to_owned(), told: false },
            None => drop(self.names.insert(port, Name { text: name.to_owned(), told: false })),
        }
        self.untold = true;
    }

    /// Memory for a data record, which [`Exporter::put`] takes back.
    fn begin(&mut self) -> Vec<u8> {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        body
    }

    fn put(&mut self, template: u16, body: Vec<u8>) {
        if self.bytes + body.len() + 4 > LARGEST - 16 {
            self.end_message();
        }
        let set = self.sets.entry(template).or_default();
        self.bytes += body.len() + if set.is_empty() { 4 } else { 0 };
        set.extend_from_slice(&body);
        self.records += 1;
        self.body = body;
    }

    /// Sends what waits, and looks at what has become of what was sent before. To be called often, also where nothing was
    /// added.
    pub fn flush(&mut self) {
        self.end_message();
        if let Way::Udp { socket, unconfirmed } = &mut self.way {
            let refused = matches!(socket.take_error(), Ok(Some(_)));
            let records = u64::from(std::mem::take(unconfirmed));
            *if refused { &mut self.lost } else { &mut self.sent } += records;
        }
        self.pump();
    }

    /// Sends what waits and, over TCP, waits a while until it has arrived. What has not arrived then is lost.
    pub fn finish(&mut self) {
        self.flush();
        self.wait_for_room(0);
        if let Way::Tcp(tcp) = &mut self.way {
            if let Some(connection) = tcp.connection.take() {
                // It ends by itself where this fails.
                let _ = connection.stream.shutdown(Shutdown::Write);
            }
            self.lost += tcp.waiting.drain(..).map(|message| u64::from(message.records)).sum::<u64>();
            tcp.bytes = 0;
        }
    }

    /// Ends the message that is being made: over UDP it is sent, over TCP it waits for that.
    fn end_message(&mut self) {
        if self.records == 0 {
            return;
        }
        let mut sets = Vec::with_capacity(LARGEST);
        for (template, body) in &mut self.sets {
            if !body.is_empty() {
                put_set(&mut sets, *template, body);
                body.clear();
            }
        }
        let records = std::mem::take(&mut self.records);
        self.bytes = 0;
        match &mut self.way {
            Way::Udp { .. } => self.send_datagram(&sets, records),
            Way::Tcp(tcp) => {
                tcp.bytes += sets.len();
                tcp.waiting.push_back(Message { sets, records, end: None });
                if tcp.bytes > WAITING {
                    self.pump();
                    self.wait_for_room(WAITING / 2);
                    self.bound();
                }
            }
        }
    }

    /// Over TCP: waits until so many bytes wait at most, or there is no connection. One on which nothing arrives ends.
    fn wait_for_room(&mut self, most: usize) {
        let mut least = (usize::MAX, Instant::now());
        loop {
            let Way::Tcp(tcp) = &mut self.way else { return };
            if tcp.connection.is_none() || tcp.bytes <= most {
                return;
            }
            if tcp.bytes < least.0 {
                least = (tcp.bytes, Instant::now());
            } else if least.1.elapsed() >= PATIENCE {
                tcp.fail();
                return self.note(Err(io::Error::new(io::ErrorKind::TimedOut, "it acknowledges nothing")));
            }
            std::thread::sleep(Duration::from_millis(1));
            self.pump();
        }
    }

    /// Forgets the oldest messages where too many wait.
    fn bound(&mut self) {
        let Way::Tcp(tcp) = &mut self.way else { return };
        while tcp.bytes > WAITING {
            let Some(message) = tcp.waiting.pop_front() else { return };
            tcp.bytes -= message.sets.len();
            self.lost += u64::from(message.records);
        }
    }

    fn send_datagram(&mut self, sets: &[u8], records: u32) {
        if self.templates_sent.is_none_or(|sent| sent.elapsed() >= TEMPLATES_AGAIN) {
            let mut templates_sets = Vec::new();
            templates(&mut templates_sets);
            if self.datagram(&templates_sets).is_ok() {
                self.templates_sent = Some(Instant::now());
            }
            self.tell_names_again();
        }
        for (sets, count, ports) in self.untold_names() {
            if self.datagram(&sets).is_ok() {
                self.sequence = self.sequence.wrapping_add(count);
                self.told(&ports);
            }
        }
        let result = self.datagram(sets);
        // A record that is missing shows by the number of the next message.
        self.sequence = self.sequence.wrapping_add(records);
        if let Way::Udp { unconfirmed, .. } = &mut self.way {
            match result {
                Ok(()) => *unconfirmed = records,
                Err(_) => self.lost += u64::from(records),
            }
        }
        self.note(result);
    }

    /// Sends a datagram, and counts the one before.
    fn datagram(&mut self, sets: &[u8]) -> io::Result<()> {
        let message = message(sets, self.sequence);
        let Way::Udp { socket, unconfirmed } = &mut self.way else { return Ok(()) };
        let before = u64::from(std::mem::take(unconfirmed));
        match socket.send(&message) {
            // That nobody listened is told of a message before; this one has not been sent for it.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.lost += before;
                socket.send(&message)?;
                Ok(())
            }
            result => {
                self.sent += before;
                result.map(drop)
            }
        }
    }

    /// Over TCP: finds out what has arrived, and writes what has not been written.
    fn pump(&mut self) {
        let Way::Tcp(tcp) = &mut self.way else { return };
        self.sent += tcp.look();
        let is_written = tcp.waiting.back().is_none_or(|message| message.end.is_some());
        if is_written || tcp.pause.is_some_and(|pause| pause.elapsed() < PAUSE) {
            return;
        }
        let result = self.write_waiting();
        if let (Err(_), Way::Tcp(tcp)) = (&result, &mut self.way) {
            tcp.fail();
        }
        self.note(result);
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        if let Way::Tcp(tcp) = &mut self.way
            && tcp.connection.is_none()
        {
            tcp.connect()?;
            // Another stream, which nothing was told on yet.
            self.sequence = 0;
            self.tell_names_again();
            let mut sets = Vec::new();
            templates(&mut sets);
            self.write(&sets, 0)?;
        }
        for (sets, count, ports) in self.untold_names() {
            self.write(&sets, count)?;
            self.told(&ports);
        }
        let mut next = 0;
        loop {
            let Way::Tcp(tcp) = &mut self.way else { return Ok(()) };
            let Some(message) = tcp.waiting.get_mut(next) else { return Ok(()) };
            next += 1;
            if message.end.is_some() {
                continue;
            }
            let (sets, records) = (std::mem::take(&mut message.sets), message.records);
            let result = self.write(&sets, records);
            let Way::Tcp(tcp) = &mut self.way else { return Ok(()) };
            let written = tcp.connection.as_ref().map(|connection| connection.written);
            if let Some(message) = tcp.waiting.get_mut(next - 1) {
                message.sets = sets;
                message.end = written.filter(|_| result.is_ok());
            }
            result?;
        }
    }

    /// Writes a message to the connection.
    fn write(&mut self, sets: &[u8], records: u32) -> io::Result<()> {
        let message = message(sets, self.sequence);
        let Way::Tcp(Tcp { connection: Some(connection), .. }) = &mut self.way else { return Ok(()) };
        connection.stream.write_all(&message)?;
        connection.written += message.len() as u64;
        self.sequence = self.sequence.wrapping_add(records);
        Ok(())
    }

    /// Says when the collector begins to fail, and when it takes records again.
    fn note(&mut self, result: io::Result<()>) {
        match result {
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!(%error, "the IPFIX collector does not take records; what is lost is counted");
            }
            Ok(()) if self.failing => {
                self.failing = false;
                tracing::info!("the IPFIX collector takes records again");
            }
            _ => {}
        }
    }

    fn tell_names_again(&mut self) {
        self.names.values_mut().for_each(|name| name.told = false);
        self.untold = !self.names.is_empty();
    }

    /// Sets of every name that the collector does not know, each as large as a message may be, with how many there are, and
    /// the ports.
    fn untold_names(&mut self) -> Vec<(Vec<u8>, u32, Vec<u32>)> {
        if !self.untold {
            return Vec::new();
        }
        let mut bodies: Vec<(Vec<u8>, Vec<u32>)> = Vec::new();
        for (port, name) in self.names.iter().filter(|(_, name)| !name.told) {
            if bodies.last().is_none_or(|(body, _)| body.len() + 4 + 1 + 254 > LARGEST - 20) {
                bodies.push(Default::default());
            }
            if let Some((body, ports)) = bodies.last_mut() {
                body.extend(port.to_be_bytes());
                put_text(body, &name.text);
                ports.push(*port);
            }
        }
        let set = |(body, ports): (Vec<u8>, Vec<u32>)| {
            let mut sets = Vec::with_capacity(body.len() + 4);
            put_set(&mut sets, INTERFACES, &body);
            (sets, ports.len() as u32, ports)
        };
        bodies.into_iter().map(set).collect()
    }

    fn told(&mut self, ports: &[u32]) {
        for port in ports {
            if let Some(name) = self.names.get_mut(port) {
                name.told = true;
            }
        }
        self.untold = self.names.values().any(|name| !name.told);
    }
}

/// How many data records a record becomes.
pub fn data_records(record: &Record) -> u64 {
    let is_session = |sides: &Sides| {
        let translated = (sides.presented, sides.reached) != (sides.source, sides.destination);
        translated && matches!(record.event, Event::Begin | Event::End(_))
    };
    match (record.event, &record.about) {
        (Event::Reply, _) => 0,
        (_, About::Flow(sides)) => 1 + u64::from(is_session(sides)),
        _ => 1,
    }
}

/// The number of an interface: 0 is none that is known, so that ports, which begin with 0, have the next ones.
fn interface(port: Option<u16>) -> u32 {
    port.map_or(0, |port| u32::from(port) + 1)
}

/// The pool that a packet should have had a port of.
fn pool_of(snapshot: &Snapshot, subject: &Subject) -> Option<PoolId> {
    let port = snapshot.port(subject.ingress)?;
    let chosen = route::choose(snapshot, port, subject, &mut Silent).ok()?;
    match source::choose(snapshot, port, subject, chosen.source, chosen.egress, &mut Silent).ok()? {
        Presented::Pool(pool) => Some(pool),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
