//! A collector over TCP: its connection, and what it has not acknowledged.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Instant;

use super::PATIENCE;
use crate::port::sys;

/// A collector over TCP.
#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) to: SocketAddr,
    pub(super) connection: Option<Connection>,
    /// When it failed last.
    pub(super) pause: Option<Instant>,
    /// Messages that are not acknowledged, the oldest first: those that were written come before those that were not.
    pub(super) waiting: VecDeque<Message>,
    /// Bytes of them.
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    /// Bytes written so far.
    pub(super) written: u64,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) sets: Vec<u8>,
    pub(super) records: u32,
    /// How many bytes the connection had behind it, once it was written.
    pub(super) end: Option<u64>,
}

impl Tcp {
    pub(super) fn connect(&mut self) -> io::Result<()> {
        let stream = TcpStream::connect_timeout(&self.to, PATIENCE)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        self.connection = Some(Connection { stream, written: 0 });
        self.pause = None;
        Ok(())
    }

    /// Ends the connection, for a while.
    pub(super) fn fail(&mut self) {
        self.pause = Some(Instant::now());
        self.disconnect();
    }

    /// Everything that was not acknowledged is to be written again.
    fn disconnect(&mut self) {
        self.connection = None;
        self.waiting.iter_mut().for_each(|message| message.end = None);
    }

    /// Lets go what the collector's host has acknowledged, and tells how many data records that is. A connection that the
    /// collector has closed ends here.
    pub(super) fn look(&mut self) -> u64 {
        let Some(connection) = &mut self.connection else { return 0 };
        let is_open = connection.is_open();
        let arrived = connection.written.saturating_sub(connection.unacknowledged());
        let mut records = 0;
        while let Some(message) = self.waiting.front().filter(|message| message.end.is_some_and(|end| end <= arrived)) {
            records += u64::from(message.records);
            self.bytes -= message.sets.len();
            self.waiting.pop_front();
        }
        if !is_open {
            self.disconnect();
        }
        records
    }
}

impl Connection {
    /// Whether the collector has neither closed it nor ended.
    fn is_open(&mut self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        // Collectors say nothing; what one says nevertheless is let go.
        let open = loop {
            match self.stream.read(&mut [0; 512]) {
                Ok(0) => break false,
                Ok(_) => {}
                Err(error) => break error.kind() == io::ErrorKind::WouldBlock,
            }
        };
        open && self.stream.set_nonblocking(false).is_ok()
    }

    /// Bytes that the collector's host has not acknowledged.
    fn unacknowledged(&self) -> u64 {
        // Where the kernel does not say, all of them.
        sys::unacknowledged(self.stream.as_fd()).map_or(self.written, u64::from)
    }
}
