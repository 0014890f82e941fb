//! Datagrams with a number and a time in them, and the sockets that they pass between.
//!
//! Both ends are threads of this process, whose sockets belong to the namespaces of the two hosts: so one clock tells how
//! long a datagram was on its way, and nothing has to be agreed on between processes.

use std::io::{ErrorKind, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBufForce, UdpGroSegment, UdpGsoSegment};
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg, setsockopt};
use sidestep::port::namespace;

use crate::sites::Site;
use crate::support::wait_for;

/// Headers of IPv4 and UDP: what is named by the size of its IP packet has so much less inside.
pub(crate) const HEADERS: usize = 28;

/// Datagrams that one system call sends or receives at most.
pub(crate) const BURST: usize = 32;

/// The longest that a UDP socket hands over: datagrams that the kernel has put together.
const LONGEST: usize = 65_535;

/// How long a receiver waits until it looks whether it is still wanted.
pub(crate) const SILENCE: Duration = Duration::from_millis(40);

/// What a receiving socket may keep: some 10,000 small datagrams or 3,000 large ones. Enough for a receiver that has to
/// wait for a processor, too little to hide for a whole measurement one that is too slow.
const RECEIVE_BUFFER: usize = 8 << 20;

/// What every datagram begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which of several flows, or which of several measurements: others are not looked at.
    pub(crate) stream: u32,
    /// Number of the datagram in its stream, from 0.
    pub(crate) number: u64,
    /// When it was sent, in nanoseconds of [`clock`].
    pub(crate) time: u64,
}

impl Stamp {
    /// Bytes of a stamp.
    pub(crate) const LENGTH: usize = 20;

    /// Writes it to the beginning of a datagram.
    pub(crate) fn write(self, datagram: &mut [u8]) {
        datagram[..4].copy_from_slice(&self.stream.to_ne_bytes());
        datagram[4..12].copy_from_slice(&self.number.to_ne_bytes());
        datagram[12..20].copy_from_slice(&self.time.to_ne_bytes());
    }

    /// Reads it; none from a datagram that is too short.
    pub(crate) fn read(datagram: &[u8]) -> Option<Self> {
        let (stream, rest) = datagram.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (time, _) = rest.split_first_chunk()?;
        Some(Self {
            stream: u32::from_ne_bytes(*stream),
            number: u64::from_ne_bytes(*number),
            time: u64::from_ne_bytes(*time),
        })
    }
}

/// Nanoseconds since the first call.
pub(crate) fn clock() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// The two ends of one flow through a forwarder, both connected.
pub(crate) struct Link {
    /// At `left`.
    pub(crate) sender: UdpSocket,
    /// At `right`.
    pub(crate) receiver: UdpSocket,
}

impl Link {
    /// A new flow, with a datagram each way behind it.
    pub(crate) fn new(site: &Site) -> Self {
        let receiver = socket(site, "right", 0);
        let sender = socket(site, "left", 0);
        let port = receiver.local_addr().expect("an address").port();
        sender.connect((site.to, port)).expect("a route");
        wait_for("a datagram passes, and its answer", Duration::from_secs(10), || {
            sender.send(b"hello").ok()?;
            let (_, peer) = receiver.recv_from(&mut [0; 8]).ok()?;
            receiver.connect(peer).expect("a route");
            receiver.send(b"hello").expect("send");
            sender.recv(&mut [0; 8]).ok()
        });
        Self { sender, receiver }
    }

    /// Lets the sender hand over as much as it likes in one call, to be cut by whoever is last into datagrams of this size.
    pub(crate) fn segment(&self, size: usize) {
        setsockopt(&self.sender, UdpGsoSegment, &(size as i32)).expect("segmentation of UDP");
    }

    /// Lets the receiver take what has been put together as it is.
    pub(crate) fn receive_whole(&self) {
        setsockopt(&self.receiver, UdpGroSegment, &true).expect("super-packets of UDP");
    }
}

/// A socket of a host.
pub(crate) fn socket(site: &Site, host: &str, port: u16) -> UdpSocket {
    let socket = namespace::run(Some(&site.lab.name(host)), || UdpSocket::bind(("0.0.0.0", port)));
    let socket = socket.expect("a namespace").expect("bind");
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER).expect("a large buffer");
    socket.set_read_timeout(Some(SILENCE)).expect("a limit");
    socket
}

/// Sends datagrams of one size, several with each system call.
pub(crate) struct Outbox<'a> {
    socket: &'a UdpSocket,
    size: usize,
    stream: u32,
    bytes: Vec<u8>,
    headers: MultiHeaders<()>,
    /// How many were sent.
    pub(crate) sent: u64,
}

impl<'a> Outbox<'a> {
    pub(crate) fn new(socket: &'a UdpSocket, size: usize, stream: u32) -> Self {
        assert!(size >= Stamp::LENGTH, "no room for a stamp");
        let headers = MultiHeaders::preallocate(BURST, None);
        Self { socket, size, stream, bytes: vec![0; size * BURST], headers, sent: 0 }
    }

    /// Sends some, at most [`BURST`].
    pub(crate) fn send(&mut self, count: usize) {
        let count = count.min(BURST);
        let time = clock();
        for (number, datagram) in (self.sent..).zip(self.bytes.chunks_exact_mut(self.size)).take(count) {
            Stamp { stream: self.stream, number, time }.write(datagram);
        }
        let slices: Vec<[IoSlice<'_>; 1]> =
            self.bytes.chunks_exact(self.size).take(count).map(|datagram| [IoSlice::new(datagram)]).collect();
        let nobody = [None; BURST];
        let fd = self.socket.as_raw_fd();
        match sendmmsg(fd, &mut self.headers, &slices, nobody, [], MsgFlags::empty()) {
            Ok(results) => self.sent += results.count() as u64,
            // Where the way out is full the kernel may say so: lost, as elsewhere.
            Err(Errno::ENOBUFS) => self.sent += 1,
            Err(Errno::EINTR) => {}
            Err(error) => panic!("send: {error}"),
        }
    }

    /// Sends some as one super-packet, on a socket that segments.
    pub(crate) fn send_whole(&mut self, count: usize) {
        let time = clock();
        self.bytes.resize((self.size * count).max(self.bytes.len()), 0);
        for (number, datagram) in (self.sent..).zip(self.bytes.chunks_exact_mut(self.size)).take(count) {
            Stamp { stream: self.stream, number, time }.write(datagram);
        }
        self.socket.send(&self.bytes[..self.size * count]).expect("send");
        self.sent += count as u64;
    }
}

/// Receives datagrams of one size, several with each system call.
pub(crate) struct Inbox<'a> {
    socket: &'a UdpSocket,
    /// Size of a datagram: what is longer was put together.
    size: usize,
    bytes: Vec<u8>,
    /// Bytes of the buffer for what one datagram, or several put together, may have.
    room: usize,
    headers: MultiHeaders<()>,
}

impl<'a> Inbox<'a> {
    /// `whole`: datagrams may come put together.
    pub(crate) fn new(socket: &'a UdpSocket, size: usize, whole: bool) -> Self {
        let room = if whole { LONGEST } else { size };
        Self { socket, size, bytes: vec![0; room * BURST], room, headers: MultiHeaders::preallocate(BURST, None) }
    }

    /// Waits for datagrams and shows the stamp of each; false where none came in [`SILENCE`].
    pub(crate) fn receive(&mut self, mut each: impl FnMut(Stamp)) -> bool {
        let mut lengths = [0; BURST];
        {
            let mut slices: Vec<[IoSliceMut<'_>; 1]> =
                self.bytes.chunks_exact_mut(self.room).map(|room| [IoSliceMut::new(room)]).collect();
            let fd = self.socket.as_raw_fd();
            match recvmmsg(fd, &mut self.headers, slices.iter_mut(), MsgFlags::MSG_WAITFORONE, None) {
                Ok(results) => {
                    for (length, result) in lengths.iter_mut().zip(results) {
                        *length = result.bytes;
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return false,
                // Somebody was not there when a datagram came.
                Err(Errno::ECONNREFUSED) => return true,
                Err(error) => panic!("receive: {error}"),
            }
        }
        for (room, length) in self.bytes.chunks_exact(self.room).zip(lengths) {
            room[..length].chunks(self.size).filter_map(Stamp::read).for_each(&mut each);
        }
        true
    }
}

/// Whether a read ended because nothing came.
pub(crate) fn silent(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
