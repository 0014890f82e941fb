//! The way of a packet to the worker that owns its flow: a bounded ring for each worker, and a pool of spare frames
//! that travel through the rings, so that handing over allocates nothing.

use crossbeam::queue::ArrayQueue;

use super::shared::Waker;
use crate::packet::frame::Frame;
use crate::snapshot::PortId;

/// Packets that a ring holds: 16 batches of another worker, which reads few at a time where it hands over. A frame is 64 KiB, so a ring takes at most 8 MiB.
const RING: usize = 128;

/// The rings of all workers.
#[derive(Debug)]
pub(super) struct Rings {
    rings: Vec<ArrayQueue<(PortId, Frame)>>,
    spare: ArrayQueue<Frame>,
    wakers: Vec<Waker>,
}

impl Rings {
    /// Rings for as many workers as there are wakers; none where there is one worker only.
    pub(super) fn new(wakers: Vec<Waker>) -> Self {
        let workers = if wakers.len() > 1 { wakers.len() } else { 0 };
        let spare = ArrayQueue::new((RING * workers).max(1));
        for _ in 0..RING * workers {
            let _ = spare.push(Frame::new());
        }
        Self { rings: (0..workers).map(|_| ArrayQueue::new(RING)).collect(), spare, wakers }
    }

    /// Gives a packet to a worker; false where its ring is full. The frame is empty afterwards.
    pub(super) fn give(&self, worker: u16, ingress: PortId, frame: &mut Frame) -> bool {
        let Some(ring) = self.rings.get(usize::from(worker)) else { return false };
        let Some(spare) = self.spare.pop() else { return false };
        let packet = std::mem::replace(frame, spare);
        match ring.push((ingress, packet)) {
            Ok(()) => {
                if let Some(waker) = self.wakers.get(usize::from(worker)) {
                    waker.wake();
                }
                true
            }
            Err((_, packet)) => {
                let spare = std::mem::replace(frame, packet);
                let _ = self.spare.push(spare);
                false
            }
        }
    }

    /// Takes the next packet given to a worker.
    pub(super) fn take(&self, worker: u16) -> Option<(PortId, Frame)> {
        self.rings.get(usize::from(worker))?.pop()
    }

    /// Gives a frame back to the pool.
    pub(super) fn give_back(&self, mut frame: Frame) {
        frame.clear();
        let _ = self.spare.push(frame);
    }
}
