//! Bulk traffic in datagrams as QUIC sends it: so many may be on their way without an acknowledgement, and each
//! acknowledgement lets more out. The pace is that of the slowest on the way, and nothing is lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::datagrams::{BURST, Inbox, Link, Outbox, Stamp, silent};
use crate::ending::Ending;

/// Datagrams that may be on their way: about 700 kB. Less than the queue of any device on the way holds.
const WINDOW: u64 = 512;

/// Datagrams that one acknowledgement stands for.
const ACKNOWLEDGED: u64 = 16;

/// Datagrams of a super-packet: the most of 1,400 bytes that fit into 64 KiB.
const SEGMENTS: usize = 46;

/// How long the first datagrams are not counted.
const WARM: Duration = Duration::from_millis(20);

/// How datagrams leave the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Each by itself.
    Single,
    /// Many as one super-packet.
    Super,
}

/// What arrived of a window's traffic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goodput {
    /// Bits of datagrams in a second, without headers.
    pub(crate) rate: f64,
    /// Super-packets that were sent.
    pub(crate) super_packets: u64,
    /// Times that the sender waited in vain for an acknowledgement.
    pub(crate) stalls: u64,
}

/// Sends datagrams of one size, as many as are taken.
pub(crate) fn bulk(link: &Link, size: usize, sending: Sending, time: Duration) -> Goodput {
    if sending == Sending::Super {
        link.segment(size);
    }
    link.receive_whole();
    let stream = fastrand::u32(..);
    let (arrived, ending) = (AtomicU64::new(0), Ending::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut inbox = Inbox::new(&link.receiver, size, true);
            let (mut count, mut next, mut acknowledged) = (0, 0, 0);
            while !ending.has_come() {
                inbox.receive(|stamp| {
                    if stamp.stream == stream {
                        count += 1;
                        next = next.max(stamp.number + 1);
                    }
                });
                arrived.store(count, Ordering::Relaxed);
                if next >= acknowledged + ACKNOWLEDGED {
                    acknowledged = next;
                    let mut datagram = [0; Stamp::LENGTH];
                    Stamp { stream, number: next, time: 0 }.write(&mut datagram);
                    link.receiver.send(&datagram).expect("acknowledge");
                }
            }
        });

        let _guard = ending.guard();
        let mut outbox = Outbox::new(&link.sender, size, stream);
        let (mut acknowledged, mut super_packets, mut stalls) = (0, 0, 0);
        let start = Instant::now();
        let mut early = None;
        while start.elapsed() < time {
            if early.is_none() && start.elapsed() > WARM {
                early = Some((Instant::now(), arrived.load(Ordering::Relaxed)));
            }
            let free = (acknowledged + WINDOW).saturating_sub(outbox.sent) as usize;
            match sending {
                Sending::Single if free > 0 => {
                    outbox.send(free.min(BURST));
                    continue;
                }
                Sending::Super if free >= SEGMENTS => {
                    outbox.send_whole(SEGMENTS);
                    super_packets += 1;
                    continue;
                }
                _ => {}
            }
            let mut datagram = [0; Stamp::LENGTH];
            match link.sender.recv(&mut datagram) {
                Ok(length) => {
                    let stamp = Stamp::read(&datagram[..length]).filter(|stamp| stamp.stream == stream);
                    acknowledged = acknowledged.max(stamp.map_or(0, |stamp| stamp.number));
                }
                Err(error) if silent(&error) => {
                    // Too many are lost for an acknowledgement: begin anew.
                    stalls += 1;
                    acknowledged = outbox.sent;
                }
                Err(error) => panic!("receive: {error}"),
            }
        }
        let (since, before) = early.unwrap_or((start, 0));
        let datagrams = arrived.load(Ordering::Relaxed) - before;
        let rate = (datagrams as usize * size * 8) as f64 / since.elapsed().as_secs_f64();
        Goodput { rate, super_packets, stalls }
    })
}
