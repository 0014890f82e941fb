//! Servers and clients inside namespaces, by sockets of this process.

#![allow(dead_code, reason = "every test binary has a copy and uses a part of it")]

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use sidestep::port::namespace;

use crate::node::PATIENCE;
use crate::support::Lab;

/// Listens on a host, on every address of both families.
pub(crate) fn listen(lab: &Lab, host: &str, port: u16) -> TcpListener {
    namespace::run(Some(&lab.name(host)), || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))
        .expect("a namespace")
        .expect("listen")
}

/// Connects from a host. Reads and writes give up in the end, so that a test cannot hang.
pub(crate) fn connect(lab: &Lab, host: &str, to: SocketAddr) -> io::Result<TcpStream> {
    let stream =
        namespace::run(Some(&lab.name(host)), || TcpStream::connect_timeout(&to, PATIENCE)).expect("a namespace")?;
    limit(&stream)?;
    Ok(stream)
}

/// Takes a connection.
pub(crate) fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let (stream, peer) = listener.accept().expect("accept");
    limit(&stream).expect("limit");
    (stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

fn limit(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// A web server that answers with the address that it saw, until it is dropped.
pub(crate) struct Web {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    /// Serves on a host, on port 80 of every address.
    pub(crate) fn serve(lab: &Lab, host: &str) -> Self {
        let listener = listen(lab, host, 80);
        let accepting = listener.try_clone().expect("a descriptor");
        let thread = std::thread::spawn(move || {
            while let Ok((stream, peer)) = accepting.accept() {
                // A client that went away is not this side's matter.
                let _gone = answer(stream, peer);
            }
        });
        Self { listener, thread: Some(thread) }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // Ends a waiting accept.
        let _closed = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn answer(mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    limit(&stream)?;
    let mut request: Vec<u8> = Vec::new();
    let mut bytes = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            read => request.extend(&bytes[..read]),
        }
    }
    let source = peer.ip().to_canonical().to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", source.len());
    stream.write_all(format!("{head}{source}").as_bytes())?;
    stream.shutdown(Shutdown::Write)
}
