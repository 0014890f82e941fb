//! Ethernet port: attaches to an existing interface, a veth or a real NIC, by a packet socket of `pnet`, and is a host on
//! that link with a neighbour cache of its own.
//!
//! The socket is made here, in the interface's namespace, and given to `pnet`, which binds it, makes it non-blocking and
//! closes its own copy. With `PACKET_VNET_HDR` each frame that `pnet` hands over or takes begins with the virtio net
//! header, so super-packets and unfinished checksums, as a veth's other end sends them, travel as they are; what the
//! interface cannot do itself the kernel does on the way out. `PACKET_IGNORE_OUTGOING` hides our own frames. `pnet`
//! asks `poll` before each frame; with timeouts of zero it never waits.
//!
//! Received are frames for the interface's own link-layer address. Questions and answers about neighbours are handled
//! here and never seen by the node. The kernel's own stack sees the interface's frames too: it should have no address
//! there.
//!
//! Several queues are sockets that share the frames by the flow's hash. They share one neighbour cache, behind a lock
//! that a queue takes when it meets a neighbour that it has not met within the last second.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use pnet::datalink::{self, Channel, DataLinkReceiver, DataLinkSender};
use pnet::packet::ethernet::EtherTypes;
use pnet::util::MacAddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::neighbour::{Held, Lookup, Neighbours};
use super::resolution::{self, ETHERNET, Message, Written};
use super::software::Software;
use super::vnet::{self, HEADER};
use super::{Port, SendError, netlink, send_error, sys};
use crate::packet::frame::{Frame, HEADROOM, MAX_PACKET, SegmentKind};

/// What stands in front of a packet on the socket.
const FRONT: usize = HEADER + ETHERNET;

const _: () = assert!(FRONT <= HEADROOM);

/// Room for the socket's queue: some hundred super-packets, since the kernel counts buffers and not bytes.
const SOCKET_BUFFER: usize = 8 << 20;

/// How long a queue believes its own copy of a neighbour.
const COPY: Duration = Duration::from_secs(1);

/// Copies a queue keeps at most, as many as the cache.
const COPIES: usize = 1024;

/// Frames that are thrown away at most when queues have been joined; a busy link never runs dry.
const DRAIN: usize = 1024;

/// Who the port is on its link.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) interface: netlink::Interface,
    /// Addresses that questions are answered for, with the prefixes that are on the link.
    pub(crate) addresses: Vec<IpNet>,
    /// Who gets what is not on the link.
    pub(crate) next_hop: Vec<IpAddr>,
}

/// What the queues of an interface share.
struct Shared {
    identity: Identity,
    mac: MacAddr,
    neighbours: Mutex<Neighbours>,
    /// Counts changes that make copies of neighbours invalid.
    version: AtomicU64,
    /// Marks the interface as taken in its namespace as long as a queue lives.
    _claim: UnixDatagram,
}

/// One queue of an interface.
pub(crate) struct Ethernet {
    shared: Arc<Shared>,
    fd: OwnedFd,
    sender: Box<dyn DataLinkSender>,
    receiver: Box<dyn DataLinkReceiver>,
    copies: HashMap<IpAddr, (MacAddr, Instant)>,
    copies_version: u64,
    /// When this queue looks after unanswered questions.
    question_due: Option<Instant>,
    software: Software,
    /// Kinds of segments that the kernel refused.
    refused_kinds: Vec<SegmentKind>,
    /// Where packets are written from that do not come in a frame; made at the first one.
    scratch: Option<Box<Frame>>,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    super_packets_in: u64,
    super_packets_out: u64,
    cut_in_software: u64,
    invalid: u64,
    not_ours: u64,
    questions: u64,
    answers: u64,
    held_dropped: u64,
    fallbacks: u64,
}

/// Attaches to an interface in the network namespace of the calling thread.
///
/// # Errors
/// `AddrInUse` when another port of any process has the interface.
pub(crate) fn open(identity: Identity, queues: u16) -> io::Result<Vec<Ethernet>> {
    let mac = match *identity.interface.mac.as_slice() {
        [a, b, c, d, e, f] => MacAddr(a, b, c, d, e, f),
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the interface has no Ethernet address")),
    };
    let claim = claim(&identity.name)?;
    let shared =
        Arc::new(Shared { identity, mac, neighbours: Mutex::default(), version: AtomicU64::new(0), _claim: claim });
    let mut ports = Vec::new();
    let mut group = None;
    for _ in 0..queues.max(1) {
        let port = attach(&shared)?;
        if queues > 1 {
            group = Some(sys::packet_fanout(port.fd.as_fd(), group)?);
        }
        ports.push(port);
    }
    if queues > 1 {
        // Between binding and joining, a socket got frames that another one has too.
        for port in &mut ports {
            let _dropped = (0..DRAIN).take_while(|_| port.receiver.next().is_ok()).count();
        }
    }
    Ok(ports)
}

/// Takes an abstract socket name for the interface: such names belong to a network namespace and go with their holder.
fn claim(name: &str) -> io::Result<UnixDatagram> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(format!("sidestep/ethernet/{name}"))?;
    UnixDatagram::bind_addr(&address)
}

fn attach(shared: &Arc<Shared>) -> io::Result<Ethernet> {
    let Identity { name, interface, .. } = &shared.identity;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    // Without a protocol nothing is received until pnet binds it.
    let fd = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    sys::packet_set_vnet_header(fd.as_fd())?;
    sys::packet_ignore_outgoing(fd.as_fd())?;
    sys::packet_all_multicast(fd.as_fd(), interface.index)?;
    // Beyond the system's limit where we may, else up to it.
    if sockopt::set_socket_recv_buffer_size_force(&fd, SOCKET_BUFFER).is_err() {
        sockopt::set_socket_recv_buffer_size(&fd, SOCKET_BUFFER)?;
    }
    sockopt::set_socket_send_buffer_size(&fd, SOCKET_BUFFER)?;
    let config = datalink::Config {
        read_buffer_size: FRONT + MAX_PACKET,
        write_buffer_size: FRONT + MAX_PACKET,
        read_timeout: Some(Duration::ZERO),
        write_timeout: Some(Duration::ZERO),
        promiscuous: false,
        socket_fd: Some(fd.try_clone()?.into_raw_fd()),
        ..datalink::Config::default()
    };
    let interface = datalink::NetworkInterface {
        name: name.clone(),
        description: String::new(),
        index: interface.index,
        mac: Some(shared.mac),
        ips: Vec::new(),
        flags: 0,
    };
    let (sender, receiver) = match datalink::channel(&interface, config)? {
        Channel::Ethernet(sender, receiver) => (sender, receiver),
        _ => return Err(io::Error::from(io::ErrorKind::Unsupported)),
    };
    Ok(Ethernet {
        shared: shared.clone(),
        fd,
        sender,
        receiver,
        copies: HashMap::with_capacity(COPIES),
        copies_version: 0,
        question_due: None,
        software: Software::default(),
        refused_kinds: Vec::new(),
        scratch: None,
        counters: Counters::default(),
    })
}

impl Shared {
    fn neighbours(&self) -> MutexGuard<'_, Neighbours> {
        self.neighbours.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The neighbour that a packet for an address goes to.
    fn next_hop(&self, destination: IpAddr) -> Option<IpAddr> {
        if self.is_on_link(destination) {
            return Some(destination);
        }
        self.identity.next_hop.iter().copied().find(|hop| hop.is_ipv4() == destination.is_ipv4())
    }

    fn is_on_link(&self, address: IpAddr) -> bool {
        self.identity.addresses.iter().any(|own| own.contains(&address))
    }

    /// An address of ours to ask a neighbour from: one of the neighbour's prefix rather than another of its family.
    fn own_for(&self, neighbour: IpAddr) -> Option<IpAddr> {
        let own = &self.identity.addresses;
        own.iter()
            .find(|own| own.contains(&neighbour))
            .or_else(|| own.iter().find(|own| own.addr().is_ipv4() == neighbour.is_ipv4()))
            .map(IpNet::addr)
    }

    fn owns(&self, address: IpAddr) -> bool {
        self.identity.addresses.iter().any(|own| own.addr() == address)
    }
}

/// What to do with a frame from the socket.
enum Received {
    /// It is a packet for the node, from there in the buffer on.
    Packet,
    /// It was a message about neighbours.
    Message(Message),
    /// It is somebody else's, or of a protocol that we do not have.
    NotOurs,
    Invalid,
}

impl Ethernet {
    /// Reads one frame from `bytes` into `frame` if it is a packet for the node.
    fn take(bytes: &[u8], mac: MacAddr, frame: &mut Frame) -> Received {
        let Some((header, ethernet)) = bytes.split_first_chunk::<HEADER>() else { return Received::Invalid };
        let Some((link, packet)) = ethernet.split_first_chunk::<ETHERNET>() else { return Received::Invalid };
        let [d0, d1, d2, d3, d4, d5, _, _, _, _, _, _, type0, type1] = *link;
        let kind = u16::from_be_bytes([type0, type1]);
        let is_message = kind == EtherTypes::Arp.0 || (kind == EtherTypes::Ipv6.0 && resolution::is_discovery(packet));
        let for_us = MacAddr(d0, d1, d2, d3, d4, d5) == mac;
        if is_message && (for_us || d0 & 1 == 1) {
            return resolution::read(ethernet).map_or(Received::Invalid, Received::Message);
        }
        if !for_us || (kind != EtherTypes::Ipv4.0 && kind != EtherTypes::Ipv6.0) {
            return Received::NotOurs;
        }
        match vnet::decode(*header, ETHERNET as u16, packet) {
            Ok(offload) => {
                frame.set_packet(packet);
                frame.offload = offload;
                if offload.segmentation.is_none() {
                    let length = ip_length(packet).unwrap_or(packet.len());
                    frame.set_len(length.min(packet.len()));
                }
                Received::Packet
            }
            Err(_) => Received::Invalid,
        }
    }

    /// Answers a question for us, learns from it, and learns from answers.
    fn handle(&mut self, message: Message, now: Instant) {
        let shared = self.shared.clone();
        let (neighbour, released, dropped) = match message {
            Message::Question { target, sender, mac } => {
                if !shared.owns(target) || shared.owns(sender) {
                    return;
                }
                if let Some(answer) = resolution::answer(target, shared.mac, sender, mac) {
                    self.counters.answers += 1;
                    self.send_message(&answer);
                }
                if sender.is_unspecified() || !(shared.is_on_link(sender) || shared.next_hop(sender) == Some(sender)) {
                    return;
                }
                let (released, dropped) = shared.neighbours().asked_by(sender, mac, now);
                (sender, released.map(|held| (held, mac)), dropped)
            }
            Message::Answer { address, mac } => {
                (address, shared.neighbours().answered(address, mac, now).map(|held| (held, mac)), 0)
            }
        };
        shared.version.fetch_add(1, Ordering::Release);
        self.counters.held_dropped += dropped;
        if let Some((held, mac)) = released {
            let mut frame = self.scratch.take().unwrap_or_default();
            frame.set_packet(&held.bytes);
            frame.offload = held.offload;
            if self.transmit(&mut frame, mac).is_err() {
                self.counters.held_dropped += 1;
            }
            self.scratch = Some(frame);
        }
        tracing::debug!(interface = shared.identity.name, %neighbour, "heard of a neighbour");
    }

    fn send_message(&mut self, message: &Written) {
        let mut bytes = [0; HEADER + resolution::MESSAGE];
        let frame = message.bytes();
        let Some(room) = bytes.get_mut(HEADER..HEADER + frame.len()) else { return };
        room.copy_from_slice(frame);
        // A lost message is asked again.
        let _sent = self.sender.send_to(bytes.get(..HEADER + frame.len()).unwrap_or_default(), None);
    }

    fn ask(&mut self, neighbour: IpAddr, believed: Option<MacAddr>) {
        let question = self
            .shared
            .own_for(neighbour)
            .and_then(|own| resolution::question(neighbour, own, self.shared.mac, believed));
        if let Some(question) = question {
            self.counters.questions += 1;
            self.send_message(&question);
        }
    }

    /// The link-layer address that a packet goes to; asks where it has to.
    fn resolve(&mut self, now: Instant, frame: &Frame) -> Result<Option<MacAddr>, SendError> {
        let destination = destination(frame.bytes()).ok_or_else(|| super::refused(vnet::VnetError::NoIpHeader))?;
        if let Some(mac) = resolution::group_mac(destination) {
            return Ok(Some(mac));
        }
        let neighbour = self
            .shared
            .next_hop(destination)
            .ok_or_else(|| SendError::Device(io::Error::from(io::ErrorKind::NetworkUnreachable)))?;
        let version = self.shared.version.load(Ordering::Acquire);
        if version != self.copies_version {
            self.copies.clear();
            self.copies_version = version;
        }
        if let Some((mac, until)) = self.copies.get(&neighbour)
            && now < *until
        {
            return Ok(Some(*mac));
        }
        let shared = self.shared.clone();
        let mut neighbours = shared.neighbours();
        let (lookup, dropped) = neighbours.lookup(neighbour, now);
        self.counters.held_dropped += dropped;
        let result = match lookup {
            Lookup::Known { mac, ask } => {
                if self.copies.len() >= COPIES {
                    self.copies.clear();
                }
                self.copies.insert(neighbour, (mac, now + COPY));
                if ask {
                    self.ask(neighbour, Some(mac));
                }
                Ok(Some(mac))
            }
            Lookup::Ask => {
                neighbours.hold(neighbour, Held { bytes: frame.bytes().to_vec(), offload: frame.offload });
                self.ask(neighbour, None);
                Ok(None)
            }
            Lookup::Waiting => Err(SendError::NeighbourUnknown),
        };
        self.question_due = neighbours.deadline();
        result
    }

    /// Sends a packet to a link-layer address.
    fn transmit(&mut self, frame: &mut Frame, to: MacAddr) -> Result<(), SendError> {
        let Some(segmentation) = frame.offload.segmentation else { return self.write(frame, to) };
        if !self.refused_kinds.contains(&segmentation.kind) {
            match self.write(frame, to) {
                Ok(()) => {
                    self.counters.super_packets_out += 1;
                    return Ok(());
                }
                Err(SendError::Device(error)) if error.raw_os_error() == Some(libc::EINVAL) => {
                    self.refused_kinds.push(segmentation.kind);
                    self.counters.fallbacks += 1;
                    tracing::warn!(
                        interface = self.shared.identity.name,
                        kind = ?segmentation.kind,
                        "the kernel refused a segmented packet: such packets are cut in software from now on"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        self.counters.cut_in_software += 1;
        let mut software = std::mem::take(&mut self.software);
        let mut piece = self.scratch.take().unwrap_or_default();
        let sent = software.finish(frame, |segment| {
            piece.set_packet(segment);
            self.write(&mut piece, to)
        });
        self.software = software;
        self.scratch = Some(piece);
        sent
    }

    /// Puts the headers in front of a packet, writes it, and takes them off again.
    fn write(&mut self, frame: &mut Frame, to: MacAddr) -> Result<(), SendError> {
        let header = vnet::encode(&frame.offload, ETHERNET as u16, frame.bytes()).map_err(super::refused)?;
        let kind = match frame.bytes().first().map(|byte| byte >> 4) {
            Some(6) => EtherTypes::Ipv6.0,
            _ => EtherTypes::Ipv4.0,
        };
        let from = self.shared.mac;
        let front = frame
            .push_front(FRONT)
            .ok_or_else(|| SendError::Device(io::Error::new(io::ErrorKind::InvalidData, "no room for the headers")))?;
        let parts = [&header[..], &to.octets()[..], &from.octets()[..], &kind.to_be_bytes()[..]];
        for (room, byte) in front.iter_mut().zip(parts.into_iter().flatten()) {
            *room = *byte;
        }
        let sent = self.sender.send_to(frame.bytes(), None);
        frame.pull_front(FRONT);
        match sent {
            Some(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(SendError::Full(Some(libc::EAGAIN))),
            Some(Err(error)) => Err(send_error(error)),
            Some(Ok(())) => Ok(()),
            None => Err(SendError::TooBig),
        }
    }
}

impl Port for Ethernet {
    fn receive(&mut self, now: Instant, batch: &mut [Frame]) -> io::Result<usize> {
        let mut received = 0;
        while let Some(frame) = batch.get_mut(received) {
            let taken = match self.receiver.next() {
                Ok(bytes) => Self::take(bytes, self.shared.mac, frame),
                Err(error) => match (error.kind(), error.raw_os_error()) {
                    (io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock, _) => break,
                    (io::ErrorKind::Interrupted, _) => continue,
                    // The kernel has a packet whose offloads the header cannot say; it is gone.
                    (_, Some(libc::EINVAL)) => Received::Invalid,
                    _ if received > 0 => break,
                    // `poll` saw an error and nothing else: the socket says which.
                    (_, None) => match sockopt::socket_error(&self.fd)? {
                        Err(error) => return Err(error.into()),
                        Ok(()) => return Err(error),
                    },
                    _ => return Err(error),
                },
            };
            match taken {
                Received::Packet => {
                    self.counters.super_packets_in += u64::from(frame.offload.segmentation.is_some());
                    received += 1;
                }
                Received::Message(message) => self.handle(message, now),
                Received::NotOurs => self.counters.not_ours += 1,
                Received::Invalid => self.counters.invalid += 1,
            }
        }
        Ok(received)
    }

    fn send(&mut self, now: Instant, frame: &mut Frame) -> Result<(), SendError> {
        match self.resolve(now, frame)? {
            Some(mac) => self.transmit(frame, mac),
            // It is held and goes with the answer.
            None => Ok(()),
        }
    }

    fn readable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }

    fn deadline(&self) -> Option<Instant> {
        self.question_due
    }

    fn advance(&mut self, now: Instant) {
        if self.question_due.is_none_or(|due| due > now) {
            return;
        }
        let (due, next) = {
            let mut neighbours = self.shared.neighbours();
            let due = neighbours.advance(now);
            (due, neighbours.deadline())
        };
        self.question_due = next;
        self.counters.held_dropped += due.dropped;
        for (neighbour, believed) in due.ask {
            self.ask(neighbour, believed);
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let counters = &self.counters;
        vec![
            ("super_packets_in", counters.super_packets_in),
            ("super_packets_out", counters.super_packets_out),
            ("cut_in_software", counters.cut_in_software),
            ("invalid_frames", counters.invalid),
            ("frames_not_ours", counters.not_ours),
            ("neighbour_questions", counters.questions),
            ("neighbour_answers", counters.answers),
            ("neighbour_held_dropped", counters.held_dropped),
            ("offload_fallbacks", counters.fallbacks),
        ]
    }

    fn describe(&self) -> String {
        let kinds = [(SegmentKind::TcpV4, "tcp4"), (SegmentKind::TcpV6, "tcp6"), (SegmentKind::Udp, "udp")];
        let names = kinds.into_iter().filter(|(kind, _)| !self.refused_kinds.contains(kind));
        names.fold(format!("ethernet {}, offload checksum", self.shared.identity.name), |text, (_, name)| {
            text + " " + name
        })
    }
}

/// Where a packet goes.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// How long a packet is by its header, since short frames are padded to 60 bytes; `None` where the header does not say.
fn ip_length(packet: &[u8]) -> Option<usize> {
    let (at, fixed) = match packet.first()? >> 4 {
        4 => (2, 0),
        6 => (4, 40),
        _ => return None,
    };
    match u16::from_be_bytes(*packet.get(at..)?.first_chunk::<2>()?) {
        0 => None,
        length => Some(usize::from(length) + fixed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

    fn frame(to: [u8; 6], kind: u16, packet: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes.extend(to);
        bytes.extend([2, 0, 0, 0, 0, 2]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(packet);
        bytes
    }

    fn packet(length: u16) -> Vec<u8> {
        let mut packet = vec![0; usize::from(length)];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&length.to_be_bytes());
        packet[16..20].copy_from_slice(&[10, 0, 0, 9]);
        packet
    }

    #[test]
    fn only_frames_for_us_are_taken_and_padding_is_cut() {
        let mut taken = Frame::new();
        let mut padded = packet(28);
        padded.resize(46, 0);
        let bytes = frame(OURS.octets(), 0x0800, &padded);
        assert!(matches!(Ethernet::take(&bytes, OURS, &mut taken), Received::Packet));
        assert_eq!(taken.bytes(), packet(28));
        for (to, kind) in [([2, 0, 0, 0, 0, 9], 0x0800), ([0xff; 6], 0x0800), (OURS.octets(), 0x88cc)] {
            let bytes = frame(to, kind, &packet(28));
            assert!(matches!(Ethernet::take(&bytes, OURS, &mut taken), Received::NotOurs));
        }
        for length in 0..FRONT {
            assert!(matches!(Ethernet::take(&bytes[..length], OURS, &mut taken), Received::Invalid));
        }
    }

    #[test]
    fn the_destination_is_read_from_either_header() {
        assert_eq!(destination(&packet(20)), Some(IpAddr::from([10, 0, 0, 9])));
        assert_eq!(destination(&packet(20)[..18]), None);
        let mut v6 = [0; 40];
        v6[0] = 0x60;
        v6[39] = 7;
        assert_eq!(destination(&v6), Some("::7".parse().expect("address")));
        assert_eq!(destination(&[]), None);
    }
}
