//! Starting, asking and stopping the workers of a node.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use rustix::event::epoll;

use super::hand_over::Rings;
use super::poll::{Poll, Waiting};
use super::ports::{PortErrors, PortReport, Ports};
use super::restore::{Paths, Share};
use super::run::{Clock, Worker};
use super::shared::{Adopted, Command, Waker};
use super::turns::Turns;
use super::watch::{MOST_WATCHES, Wanted, Watch, Watches, Watching};
use crate::path::DropReason;
use crate::path::Forwarder;
use crate::path::counters::Counters;
use crate::path::denial::Denial;
use crate::path::forwarder::FlowSummary;
use crate::path::look::{self, Look};
use crate::path::nsg::Direction;
use crate::path::record::{Record, Records};
use crate::path::redecide::Foreseen;
use crate::path::save::SavedFlow;
use crate::path::shared::Shared;
use crate::port::{self, Port};
use crate::privileges::{self, CapabilitySet, filter::Filter};
use crate::snapshot::{PoolId, PortId, Publisher, Snapshot};
use crate::table::pool_use::PoolCounts;

/// How long the control side waits for a worker's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What workers are made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many workers; each owns one queue of every port.
    pub workers: u16,
    /// Most flows that the tables of each family and worker can ever have; the snapshot's limits may be lower.
    pub flow_limit: usize,
    /// Seed of the flow tables and of port selection: random in a node, fixed in tests.
    pub seed: u64,
    /// How workers wait for packets.
    pub poll: Poll,
}

impl Settings {
    /// Settings with a random seed.
    pub fn new(workers: u16, flow_limit: u32, poll: Poll) -> Self {
        Self { workers: workers.max(1), flow_limit: flow_limit as usize, seed: fastrand::u64(..), poll }
    }
}

/// A port with its queues, one for each worker.
pub type PortQueues = (PortId, Vec<Box<dyn Port>>);

struct Side {
    commands: Sender<Command>,
    waker: Waker,
    adopted: Arc<Adopted>,
    counters: Arc<Counters>,
}

/// The running workers. Dropping it stops them.
pub struct Handle {
    workers: Vec<Side>,
    rings: Arc<Rings>,
    shared: Arc<Shared>,
    clock: Clock,
    /// Watches that may still be read.
    watches: Mutex<Vec<Weak<Watch>>>,
    /// By worker; none once they are stopped.
    threads: Mutex<Vec<JoinHandle<Forwarder>>>,
}

/// What workers that have stopped leave.
pub struct Stopped {
    /// When the last one had stopped.
    pub at: SystemTime,
    /// The path of each worker by its number; none where a worker has panicked.
    forwarders: Vec<Option<Forwarder>>,
    clock: Clock,
}

impl Stopped {
    /// Workers that had nothing.
    pub fn empty() -> Self {
        Self { at: SystemTime::now(), forwarders: Vec::new(), clock: Clock::starting_at(0) }
    }

    /// How many flows they had.
    pub fn flow_count(&self) -> usize {
        self.forwarders.iter().flatten().map(Forwarder::flow_count).sum()
    }

    /// How many flows [`Stopped::save`] visits at most, by the worker that had them.
    pub fn shares(&self) -> Vec<Share> {
        let share =
            |forwarder: &Option<Forwarder>| forwarder.as_ref().map(Forwarder::saved_at_most).unwrap_or_default();
        self.forwarders.iter().map(share).collect()
    }

    /// What is left to tell of every flow, where records were made; `saved`: the flows outlive the process.
    pub fn log_rest(&mut self, saved: bool, mut visit: impl FnMut(Record)) {
        let now = self.clock.milliseconds(Instant::now());
        for forwarder in self.forwarders.iter_mut().flatten() {
            forwarder.log_rest(saved, now, &mut visit);
        }
    }

    /// Visits every flow that outlives the process, with its worker's number.
    pub fn save(&self, mut visit: impl FnMut(u16, SavedFlow)) {
        let now = self.clock.milliseconds(Instant::now());
        for (number, forwarder) in (0..).zip(&self.forwarders) {
            if let Some(forwarder) = forwarder {
                forwarder.save(now, |flow| visit(number, flow));
            }
        }
    }
}

impl Handle {
    /// Starts the workers on their ports. Each gives up all privileges before it reads a packet.
    ///
    /// # Errors
    /// When the system refuses a descriptor or a thread, or does not take privileges back.
    pub fn start(publisher: Arc<Publisher>, ports: Vec<PortQueues>, paths: Paths) -> io::Result<Self> {
        let sweeping = paths.restored().restored > 0;
        let Paths { forwarders, shared, clock, poll, .. } = paths;
        let count = forwarders.len() as u16;
        let wakers = (0..count).map(|_| Waker::new()).collect::<io::Result<Vec<_>>>()?;
        let rings = Arc::new(Rings::new(wakers.clone()));
        let (watches, threads) = (Mutex::default(), Mutex::default());
        let mut handle = Self { workers: Vec::new(), rings: rings.clone(), shared, clock, watches, threads };
        let mut shares = shares(usize::from(count), ports).into_iter();
        let (confined, confinements) = bounded(usize::from(count));
        for ((number, waker), (forwarder, counters)) in (0..count).zip(wakers).zip(forwarders) {
            let (commands, received) = unbounded();
            let adopted = Arc::new(Adopted::default());
            let mut worker = Worker {
                number,
                forwarder,
                ports: Ports::new(epoll::create(epoll::CreateFlags::CLOEXEC)?),
                publisher: publisher.clone(),
                commands: received,
                waker: waker.clone(),
                adopted: adopted.clone(),
                rings: rings.clone(),
                clock,
                sweeping,
                turns: Turns::default(),
                waiting: Waiting::new(poll),
                foreseeing: Vec::new(),
                looking: Vec::new(),
                watching: Watches::default(),
            };
            for (id, port) in shares.next().into_iter().flatten() {
                worker.ports.add(id, port);
            }
            let confined = confined.clone();
            let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                // Its devices are open: from here on it needs nothing but its descriptors. Where there are no filters,
                // whoever restricts the control side says so.
                let result = privileges::restrict(CapabilitySet::empty(), Filter::Worker { requests: port::REQUESTS });
                let failed = result.is_err();
                let _ = confined.send(result.map(drop));
                if failed { worker.forwarder } else { worker.run() }
            })?;
            handle.workers.push(Side { commands, waker, adopted, counters });
            lock(&handle.threads).push(thread);
        }
        drop(confined);
        for _ in 0..count {
            confinements.recv().map_err(io::Error::other)??;
        }
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
        let shares = shares(self.workers.len(), ports);
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

    /// What would become of the flows of all workers under a snapshot; nothing is done. Packets go on meanwhile. None
    /// where a worker does not answer in time.
    pub fn foresee(&self, snapshot: Arc<Snapshot>, timeout: Duration) -> Option<Foreseen> {
        self.sum(self.ask_for(timeout, |reply| Command::Foresee(snapshot.clone(), reply)))
    }

    /// Looks at the flows of every worker once more, each with what it remembered, none at first; packets go on
    /// meanwhile. Of a worker that does not answer in time everything is forgotten.
    pub fn look(&self, looks: Vec<Look>, wanted: &look::Wanted) -> Vec<Look> {
        let mut looks = looks.into_iter();
        let deadline = Instant::now() + PATIENCE;
        let ask = |worker: &Side| -> Option<Receiver<Box<Look>>> {
            let (reply, answer) = bounded(1);
            let mut look = Box::new(looks.next().unwrap_or_default());
            look.begin(wanted.clone());
            worker.commands.send(Command::Look(look, reply)).ok()?;
            worker.waker.wake();
            Some(answer)
        };
        let answers: Vec<_> = self.workers.iter().map(ask).collect();
        let answer = |answer: Option<Receiver<Box<Look>>>| answer?.recv_deadline(deadline).ok();
        answers.into_iter().map(|asked| answer(asked).map_or_else(Look::default, |look| *look)).collect()
    }

    /// What the last change did to the flows of all workers, complete once [`Handle::wait_for_generation`] has seen it
    /// done. None where a worker does not answer in time.
    pub fn last_change(&self) -> Option<Foreseen> {
        self.sum(self.ask(Command::LastChange))
    }

    /// The sum over all workers; none where one is missing.
    fn sum(&self, answers: Vec<Foreseen>) -> Option<Foreseen> {
        let all = answers.len() == self.workers.len();
        let mut sum = Foreseen::default();
        for answer in answers {
            sum.add(answer);
        }
        all.then_some(sum)
    }

    /// Flows of the node, and the ports with the most of them, largest first, up to a number.
    pub fn flow_owners(&self, count: usize) -> (u32, Vec<(PortId, u32)>) {
        let top = self.shared.top_owners(count);
        (self.shared.flows(), top.into_iter().map(|(port, flows)| (PortId(port), flows)).collect())
    }

    /// How much of the pools below a number is in use.
    pub fn pool_counts(&self, pools: usize) -> Vec<PoolCounts> {
        let pools = u16::try_from(pools).unwrap_or(u16::MAX);
        (0..pools).map(|pool| self.shared.pool_counts(PoolId(pool))).collect()
    }

    /// Takes records of who was denied what, at most so many, and tells how many were lost since the start.
    pub fn take_denials(&self, most: usize) -> (Vec<Denial>, u64) {
        let denials = self.shared.denials();
        (std::iter::from_fn(|| denials.take()).take(most).collect(), denials.lost())
    }

    /// Lets every worker make records of flows, each into a queue of its own, or lets all stop it; then there is none, and
    /// nothing more comes when this returns. Gives the queues.
    pub fn log(&self, wanted: bool) -> Vec<Arc<Records>> {
        if !wanted {
            // What they kept is freed here.
            self.ask(|reply| Command::Log(None, reply));
            return Vec::new();
        }
        let give = |worker: &Side| {
            let records = Arc::new(Records::default());
            let (nobody_waits, _) = bounded(1);
            let _ = worker.commands.send(Command::Log(Some(records.clone()), nobody_waits));
            worker.waker.wake();
            records
        };
        self.workers.iter().map(give).collect()
    }

    /// What the workers' clock shows, in milliseconds.
    pub fn milliseconds(&self) -> u64 {
        self.clock.milliseconds(Instant::now())
    }

    /// Lets no flow begin from now on, or lets them again.
    pub fn set_draining(&self, draining: bool) {
        self.shared.set_draining(draining);
    }

    /// Whether no flow may begin.
    pub fn is_draining(&self) -> bool {
        self.shared.is_draining()
    }

    /// Watches packets from now on, in a node with so many ports, until what this gives is dropped. None where as many are
    /// watched as may be ([`MOST_WATCHES`]), or a worker does not answer.
    pub fn watch(&self, wanted: Wanted, ports: usize) -> Option<Watching> {
        let workers = self.workers.iter().map(|worker| (worker.commands.clone(), worker.waker.clone())).collect();
        let (watching, watch) = {
            let mut watches = lock(&self.watches);
            watches.retain(|watch| watch.strong_count() > 0);
            if watches.len() >= MOST_WATCHES {
                return None;
            }
            let (watching, watch) = Watching::new(wanted, ports, workers);
            watches.push(Arc::downgrade(&watch));
            (watching, watch)
        };
        let begun = self.ask(|reply| Command::Watch(watch.clone(), reply));
        (begun.len() == self.workers.len()).then_some(watching)
    }

    /// How many watches there are that a worker or a reader still knows.
    pub fn watch_count(&self) -> usize {
        lock(&self.watches).iter().filter(|watch| watch.strong_count() > 0).count()
    }

    /// What the ports of all workers count and were granted.
    pub fn ports(&self) -> Vec<PortReport> {
        self.ask(Command::Ports).into_iter().flatten().collect()
    }

    /// How the ports of all workers failed, those too whose device is gone.
    pub fn port_errors(&self) -> Vec<PortErrors> {
        self.ask(Command::PortErrors).into_iter().flatten().collect()
    }

    /// The counters of each worker; they go on counting.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.workers.iter().map(|worker| worker.counters.clone()).collect()
    }

    /// Stops the workers and closes their ports. What they leave is theirs who stopped them first.
    pub fn stop(&self) -> Stopped {
        for worker in &self.workers {
            let _ = worker.commands.send(Command::Stop);
            worker.waker.wake();
        }
        let threads = std::mem::take(&mut *lock(&self.threads));
        let forwarders: Vec<Option<Forwarder>> = threads
            .into_iter()
            .map(|thread| thread.join().inspect_err(|_| tracing::error!("a worker ended by a panic")).ok())
            .collect();
        let at = SystemTime::now();
        // What was on its way between workers ends here, by name; nobody else counts any more.
        let now = self.clock.milliseconds(Instant::now());
        for (number, worker) in (0..).zip(&self.workers) {
            let forwarder = forwarders.get(usize::from(number)).and_then(Option::as_ref);
            while let Some((ingress, frame)) = self.rings.take(number) {
                match forwarder {
                    Some(forwarder) => forwarder.count_hand_over(now, ingress, frame.len(), false),
                    None => {
                        let snapshot = forwarders.iter().flatten().map(Forwarder::snapshot).next();
                        let through = |snapshot: &Arc<Snapshot>| Direction::through(snapshot, ingress);
                        let direction = snapshot.map_or(Direction::Inbound, through);
                        worker.counters.count_drop(DropReason::HandOverFull, direction);
                    }
                }
            }
        }
        Stopped { at, forwarders, clock: self.clock }
    }

    fn ask<T>(&self, command: impl Fn(Sender<T>) -> Command) -> Vec<T> {
        self.ask_for(PATIENCE, command)
    }

    /// Asks all workers at once; the answers of those that give one within the time, by worker.
    fn ask_for<T>(&self, timeout: Duration, command: impl Fn(Sender<T>) -> Command) -> Vec<T> {
        let deadline = Instant::now() + timeout;
        let ask = |worker: &Side| -> Option<Receiver<T>> {
            let (reply, answer) = bounded(1);
            worker.commands.send(command(reply)).ok()?;
            worker.waker.wake();
            Some(answer)
        };
        let answers: Vec<_> = self.workers.iter().filter_map(ask).collect();
        answers.into_iter().filter_map(|answer| answer.recv_deadline(deadline).ok()).collect()
    }
}

/// Each worker's queues of ports.
fn shares(workers: usize, ports: Vec<PortQueues>) -> Vec<Vec<(PortId, Box<dyn Port>)>> {
    let mut shares: Vec<Vec<(PortId, Box<dyn Port>)>> = (0..workers).map(|_| Vec::new()).collect();
    for (id, queues) in ports {
        for (share, queue) in shares.iter_mut().zip(queues) {
            share.push((id, queue));
        }
    }
    shares
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}
