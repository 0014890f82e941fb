//! What a worker and the control side share: commands one way, the state of adoption the other.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use super::ports::{PortErrors, PortReport};
use super::watch::Watch;
use crate::path::forwarder::FlowSummary;
use crate::path::log::Freed;
use crate::path::look::Look;
use crate::path::record::Records;
use crate::path::redecide::Foreseen;
use crate::port::Port;
use crate::snapshot::{PortId, Snapshot};

/// What a worker can be asked. Answers go through channels of capacity 1, so that the worker never waits.
pub(super) enum Command {
    /// Take ports, each one queue.
    Add(Vec<(PortId, Box<dyn Port>)>),
    /// Close ports.
    Remove(Vec<PortId>),
    /// Tell flows, up to a number.
    Flows(usize, Sender<Vec<FlowSummary>>),
    /// Tell what would become of the flows under a snapshot.
    Foresee(Arc<Snapshot>, Sender<Foreseen>),
    /// Look at the flows once more.
    Look(Box<Look>, Sender<Box<Look>>),
    /// Tell what the last change did to the flows.
    LastChange(Sender<Foreseen>),
    /// Tell what the ports count.
    Ports(Sender<Vec<PortReport>>),
    /// Tell how ports failed.
    PortErrors(Sender<Vec<PortErrors>>),
    /// Make records of flows, or none any more; answered with what was kept for it, which takes its time to be freed.
    Log(Option<Arc<Records>>, Sender<Freed>),
    /// Watch packets; answered once that has begun.
    Watch(Arc<Watch>, Sender<()>),
    /// Forget watches that are over.
    Unwatch,
    /// End.
    Stop,
}

/// Wakes a worker out of its wait.
#[derive(Debug, Clone)]
pub(super) struct Waker(pub(super) Arc<OwnedFd>);

impl Waker {
    pub(super) fn new() -> std::io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Makes the descriptor readable. A full counter is readable already.
    pub(super) fn wake(&self) {
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Makes it unreadable again.
    pub(super) fn acknowledge(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.0, &mut count);
    }
}

/// The generation that a worker forwards by, with every flow decided again.
#[derive(Debug, Default)]
pub(super) struct Adopted {
    generation: AtomicU64,
    changed: Condvar,
    lock: Mutex<()>,
}

impl Adopted {
    pub(super) fn set(&self, generation: u64) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.generation.store(generation, Ordering::Release);
        self.changed.notify_all();
    }

    /// Waits until the worker has at least this generation; false where the time is over first.
    pub(super) fn wait(&self, generation: u64, deadline: Instant) -> bool {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.generation.load(Ordering::Acquire) < generation {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            guard = self.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}
