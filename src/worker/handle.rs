//! Starting, asking and stopping the workers of a node.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use rustix::event::epoll;

use super::hand_over::Rings;
use super::ports::{PortReport, Ports};
use super::run::Worker;
use super::shared::{Adopted, Command, Waker};
use crate::path::DropReason;
use crate::path::Forwarder;
use crate::path::counters::Counters;
use crate::path::forwarder::{FlowSummary, Settings as PathSettings};
use crate::port::Port;
use crate::snapshot::{PortId, Publisher};
use crate::table::directory::Directory;
use crate::table::port_pool::PortRange;

/// How long the control side waits for a worker's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ports that translations use: the ones below are for servers (RFC 6056 section 3.2).
const PORTS: PortRange = PortRange { first: 1024, last: u16::MAX };

/// What workers are made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many workers; each owns one queue of every port.
    pub workers: u16,
    /// Most flows of each address family and worker.
    pub flow_limit: usize,
    /// Seed of the flow tables and of port selection: random in a node, fixed in tests.
    pub seed: u64,
}

impl Settings {
    /// Settings with Azure's 500,000 flows of a NIC as each worker's bound and a random seed.
    pub fn new(workers: u16) -> Self {
        Self { workers: workers.max(1), flow_limit: 500_000, seed: fastrand::u64(..) }
    }
}

/// A port with its queues, one for each worker.
pub type PortQueues = (PortId, Vec<Box<dyn Port>>);

struct Side {
    commands: Sender<Command>,
    waker: Waker,
    adopted: Arc<Adopted>,
    counters: Arc<Counters>,
    thread: Option<JoinHandle<()>>,
}

/// The running workers. Dropping it stops them.
pub struct Handle {
    workers: Vec<Side>,
    rings: Arc<Rings>,
}

impl Handle {
    /// Starts the workers on their ports.
    ///
    /// # Errors
    /// When the system refuses a descriptor or a thread.
    pub fn start(publisher: Arc<Publisher>, ports: Vec<PortQueues>, settings: &Settings) -> io::Result<Self> {
        let count = settings.workers.max(1);
        let wakers = (0..count).map(|_| Waker::new()).collect::<io::Result<Vec<_>>>()?;
        let rings = Arc::new(Rings::new(wakers.clone()));
        let directory = (count > 1).then(|| Arc::new(Directory::new()));
        let start = Instant::now();
        let mut handle = Self { workers: Vec::new(), rings: rings.clone() };
        for (number, waker) in (0..count).zip(wakers) {
            let counters = Arc::new(Counters::new());
            let forwarder = Forwarder::new(
                publisher.current(),
                counters.clone(),
                PathSettings {
                    flow_limit: settings.flow_limit,
                    seed: settings.seed,
                    worker: number,
                    port_range: PORTS.slice(number, count).unwrap_or(PORTS),
                    directory: directory.clone(),
                },
            );
            let (commands, received) = unbounded();
            let adopted = Arc::new(Adopted::default());
            let worker = Worker {
                number,
                forwarder,
                ports: Ports::new(epoll::create(epoll::CreateFlags::CLOEXEC)?),
                publisher: publisher.clone(),
                commands: received,
                waker: waker.clone(),
                adopted: adopted.clone(),
                rings: rings.clone(),
                start,
                sweeping: false,
            };
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || worker.run())?;
            handle.workers.push(Side { commands, waker, adopted, counters, thread: Some(thread) });
        }
        handle.add_ports(ports);
        Ok(handle)
    }

    /// Lets every worker look at the generation and its commands.
    pub fn wake(&self) {
        for worker in &self.workers {
            worker.waker.wake();
        }
    }

    /// Waits until every worker forwards by a generation and has decided every flow again; false where the time is
    /// over first.
    pub fn wait_for_generation(&self, generation: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        self.wake();
        self.workers.iter().all(|worker| worker.adopted.wait(generation, deadline))
    }

    /// Gives each worker its queue of new ports.
    pub fn add_ports(&self, ports: Vec<PortQueues>) {
        let mut shares: Vec<Vec<(PortId, Box<dyn Port>)>> = self.workers.iter().map(|_| Vec::new()).collect();
        for (id, queues) in ports {
            for (share, queue) in shares.iter_mut().zip(queues) {
                share.push((id, queue));
            }
        }
        for (worker, share) in self.workers.iter().zip(shares) {
            let _ = worker.commands.send(Command::Add(share));
            worker.waker.wake();
        }
    }

    /// Closes ports; their devices are gone when this returns.
    pub fn remove_ports(&self, ports: &[PortId]) {
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Remove(ports.to_vec()));
            worker.waker.wake();
        }
        // An answer to a later command tells that the earlier one is done.
        self.ports();
    }

    /// Flows of all workers, up to a number.
    pub fn flows(&self, limit: usize) -> Vec<FlowSummary> {
        let mut flows: Vec<_> = self.ask(|reply| Command::Flows(limit, reply)).into_iter().flatten().collect();
        flows.truncate(limit);
        flows
    }

    /// What the ports of all workers count and were granted.
    pub fn ports(&self) -> Vec<PortReport> {
        self.ask(Command::Ports).into_iter().flatten().collect()
    }

    /// The counters of each worker; they go on counting.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.workers.iter().map(|worker| worker.counters.clone()).collect()
    }

    /// Stops the workers and closes their ports.
    pub fn stop(mut self) {
        self.end();
    }

    fn ask<T>(&self, command: impl Fn(Sender<T>) -> Command) -> Vec<T> {
        let ask = |worker: &Side| -> Option<Receiver<T>> {
            let (reply, answer) = bounded(1);
            worker.commands.send(command(reply)).ok()?;
            worker.waker.wake();
            Some(answer)
        };
        let answers: Vec<_> = self.workers.iter().filter_map(ask).collect();
        answers.into_iter().filter_map(|answer| answer.recv_timeout(PATIENCE).ok()).collect()
    }

    fn end(&mut self) {
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Stop);
            worker.waker.wake();
        }
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take()
                && thread.join().is_err()
            {
                tracing::error!("a worker ended by a panic");
            }
        }
        // What was on its way between workers ends here, by name; nobody else counts any more.
        for (number, worker) in (0..).zip(&self.workers) {
            while self.rings.take(number).is_some() {
                worker.counters.count_drop(DropReason::HandOverFull);
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.end();
    }
}
