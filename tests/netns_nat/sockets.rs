//! Sockets of this process inside namespaces, bound where a test wants them.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketType, bind, connect, ipproto, listen, sendto, socket};
use sidestep::port::namespace;

use crate::node::PATIENCE;
use crate::support::{Lab, wait_for};

/// Runs something on a host.
pub(crate) fn on<T: Send>(lab: &Lab, host: &str, work: impl FnOnce() -> T + Send) -> T {
    namespace::run(Some(&lab.name(host)), work).expect("a namespace")
}

fn family_of(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 }
}

/// A TCP socket that is bound to an address that others may be bound to, too.
pub(crate) fn bound(lab: &Lab, host: &str, local: SocketAddr) -> OwnedFd {
    on(lab, host, || {
        let socket = socket(family_of(local.ip()), SocketType::STREAM, None).expect("a socket");
        sockopt::set_socket_reuseaddr(&socket, true).expect("set SO_REUSEADDR");
        sockopt::set_socket_reuseport(&socket, true).expect("set SO_REUSEPORT");
        bind(&socket, &local).expect("bind");
        socket
    })
}

/// Connects a bound socket, within a time.
pub(crate) fn connect_within(socket: OwnedFd, to: SocketAddr, time: Duration) -> io::Result<TcpStream> {
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(time))?;
    loop {
        match connect(&socket, &to) {
            // The connection is under way, and another call waits for it (connect(2)).
            Err(Errno::INTR) => {}
            Ok(()) | Err(Errno::ISCONN) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Connects a bound socket.
#[track_caller]
pub(crate) fn connected(socket: OwnedFd, to: SocketAddr) -> TcpStream {
    connect_within(socket, to, PATIENCE).unwrap_or_else(|error| panic!("connect to {to}: {error}"))
}

/// Listens at a bound socket.
pub(crate) fn listening(socket: OwnedFd) -> TcpListener {
    listen(&socket, 8).expect("listen");
    TcpListener::from(socket)
}

/// A UDP socket that gives up waiting in the end.
pub(crate) fn udp(lab: &Lab, host: &str, local: SocketAddr) -> UdpSocket {
    let socket = on(lab, host, || UdpSocket::bind(local)).expect("bind");
    socket.set_read_timeout(Some(PATIENCE)).expect("limit");
    socket
}

/// A datagram, which has to be this one, and who sent it.
#[track_caller]
pub(crate) fn receive(socket: &UdpSocket, expected: &[u8]) -> SocketAddr {
    let mut bytes = [0; 2048];
    let (length, from) = loop {
        match socket.recv_from(&mut bytes) {
            // A wait with a limit is not taken up again after the process was halted.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other.expect("receive"),
        }
    };
    assert_eq!(&bytes[..length], expected, "from {from}");
    from
}

/// Sends a datagram from a connected socket again and again until the network says that nobody takes it: kernels make only so
/// many errors at a time, for all hosts together.
#[track_caller]
pub(crate) fn refused(socket: &UdpSocket) {
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("limit");
    wait_for("the error", PATIENCE, || {
        let sent = socket.send(b"ping").and_then(|_| socket.recv(&mut [0; 16]));
        sent.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused).then_some(())
    });
    socket.set_read_timeout(Some(PATIENCE)).expect("limit");
}

/// Says something at one end of a connection and hears it at the other, both ways.
#[track_caller]
pub(crate) fn talk(one: &mut TcpStream, other: &mut TcpStream, text: &str) {
    say_and_hear(one, other, text);
    say_and_hear(other, one, text);
}

/// Says something at one end of a connection and hears it at the other.
#[track_caller]
pub(crate) fn say_and_hear(one: &mut TcpStream, other: &mut TcpStream, text: &str) {
    one.write_all(text.as_bytes()).expect("write");
    let mut bytes = vec![0; text.len()];
    other.read_exact(&mut bytes).expect("read");
    assert_eq!(String::from_utf8_lossy(&bytes), text);
}

/// A socket for ICMP packets of a family; the kernel makes the IP header.
pub(crate) struct Icmp(OwnedFd);

impl Icmp {
    /// Opens it on a host.
    pub(crate) fn open(lab: &Lab, host: &str, family: IpAddr) -> Self {
        let protocol: Protocol = if family.is_ipv4() { ipproto::ICMP } else { ipproto::ICMPV6 };
        Self(on(lab, host, || socket(family_of(family), SocketType::RAW, Some(protocol)).expect("a raw socket")))
    }

    /// Sends an ICMP message.
    pub(crate) fn send(&self, message: &[u8], to: IpAddr) {
        let sent = sendto(&self.0, message, SendFlags::empty(), &SocketAddr::new(to, 0)).expect("send");
        assert_eq!(sent, message.len());
    }
}
