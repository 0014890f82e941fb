//! The paths of workers before there are workers, with the flows of a process before where it left some.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::channel::{Sender, unbounded};

use super::handle::Settings;
use super::poll::Poll;
use super::run::Clock;
use crate::path::Forwarder;
use crate::path::counters::Counters;
use crate::path::flow::FlowState;
use crate::path::forwarder::Settings as PathSettings;
use crate::path::record::Records;
use crate::path::save::{Refused, SavedFlow};
use crate::path::shared::Shared;
use crate::port;
use crate::snapshot::{PortId, ResourceId, Snapshot};

/// What became of flows that were to be restored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restored {
    /// Flows that live on.
    pub restored: u64,
    /// Flows whose time is over.
    pub expired: u64,
    /// Flows that there is no room for, that another one contradicts, or whose port is gone.
    pub refused: u64,
}

impl Restored {
    fn add(&mut self, other: Self) {
        self.restored += other.restored;
        self.expired += other.expired;
        self.refused += other.refused;
    }
}

/// Some flows of a worker before, as [`SavedFlow::to_bytes`] wrote them one behind the other. What they are is found out
/// where they are taken in.
#[derive(Debug, Default)]
pub struct SavedBlock {
    /// The number of the worker that had them.
    pub worker: u16,
    /// How many there are.
    pub count: usize,
    /// Bytes that have the flows at their end.
    pub bytes: Vec<u8>,
    /// Where those begin.
    pub start: usize,
}

/// A block has other flows than it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a block has other flows than it says")]
pub struct OtherFlows;

/// A block on its way to a worker.
#[derive(Clone)]
enum Given {
    /// All of it.
    All(Arc<SavedBlock>),
    /// The flows that fall to this worker of so many.
    Part(Arc<SavedBlock>),
}

/// What saved flows are now. It is worked out where a flow is taken in: a million of them then go through memory once.
#[derive(Debug, Default)]
pub struct Meaning {
    /// How many milliseconds ago they were saved.
    pub older: u64,
    /// What each port is called now, by its number then; none where they are called the same.
    pub ports: Option<Vec<Option<PortId>>>,
    /// The same of resources.
    pub resources: Option<Vec<Option<ResourceId>>>,
}

impl Meaning {
    /// Makes a flow what it is now.
    #[inline]
    fn apply(&self, flow: &mut SavedFlow) -> Result<(), Refused> {
        flow.grow_older(self.older);
        let resource = match &self.resources {
            Some(resources) => flow.map_resource(|resource| *resources.get(resource.0 as usize)?),
            None => true,
        };
        let ports = match &self.ports {
            Some(ports) => flow.map_ports(|port| *ports.get(usize::from(port.0))?),
            None => true,
        };
        if resource && ports { Ok(()) } else { Err(Refused::Gone) }
    }
}

/// How many flows a worker had at most, of IPv4 and of IPv6.
pub type Share = [usize; 2];

/// The paths of workers, by their number.
pub struct Paths {
    pub(super) forwarders: Vec<(Forwarder, Arc<Counters>)>,
    pub(super) shared: Arc<Shared>,
    pub(super) clock: Clock,
    pub(super) poll: Poll,
    restored: Restored,
    records: Vec<Arc<Records>>,
}

impl Paths {
    /// Those of workers without flows.
    pub fn new(snapshot: &Arc<Snapshot>, settings: &Settings) -> Self {
        let count = settings.workers.max(1);
        let shared = Arc::new(Shared::new(count));
        let forwarder = |worker| {
            let counters = Arc::new(Counters::new());
            let (flow_limit, seed) = (settings.flow_limit, settings.seed);
            let settings = PathSettings { flow_limit, seed, worker, shared: shared.clone() };
            let mut forwarder = Forwarder::new(snapshot.clone(), counters.clone(), settings);
            forwarder.spread_out().into_iter().for_each(port::prefer_huge_pages);
            (forwarder, counters)
        };
        let forwarders = (0..count).map(forwarder).collect();
        let (clock, poll) = (Clock::starting_at(0), settings.poll);
        Self { forwarders, shared, clock, poll, restored: Restored::default(), records: Vec::new() }
    }

    /// Takes in flows of workers before, by the number that those had, as they come. Where there is no such worker, flows
    /// are spread over those that there are. They are decided again before or when a packet meets them. `shares` says how
    /// many each had at most, for their room.
    ///
    /// # Errors
    /// The first error of the blocks, or [`OtherFlows`]; nothing is to be used then.
    pub fn restore<E: From<OtherFlows>>(
        mut self,
        shares: &[Share],
        meaning: &Meaning,
        blocks: impl Iterator<Item = Result<SavedBlock, E>>,
    ) -> Result<Self, E> {
        // There has to be a time for the last packet of every flow that may live on.
        let longest =
            self.forwarders.first().map_or(0, |(forwarder, _)| FlowState::longest_lifetime(forwarder.snapshot()));
        self.clock = Clock::starting_at(longest);
        let now = self.clock.milliseconds(Instant::now());
        let workers = self.forwarders.len();
        let sum = |[v4, v6]: Share, [more_v4, more_v6]: Share| [v4.saturating_add(more_v4), v6.saturating_add(more_v6)];
        let homeless = shares.iter().skip(workers).copied().fold(Share::default(), sum);
        let more = homeless.map(|flows| flows.div_ceil(workers.max(1)));
        let room = |worker: usize| sum(shares.get(worker).copied().unwrap_or_default(), more);
        let restored = std::thread::scope(|scope| {
            let mut to_workers = Vec::with_capacity(workers);
            let mut threads = Vec::with_capacity(workers);
            for (worker, (forwarder, _)) in self.forwarders.iter_mut().enumerate() {
                // All that is read: a worker whose flows come first must not hold up the others.
                let (to_worker, blocks) = unbounded::<Given>();
                to_workers.push(to_worker);
                let room = room(worker);
                threads.push(scope.spawn(move || {
                    forwarder.reserve(room);
                    let mut sum = Restored::default();
                    for block in blocks {
                        let taken = match &block {
                            Given::All(block) => {
                                take(forwarder, now, block, |flow| Some(meaning.apply(flow)), &mut sum)
                            }
                            Given::Part(block) => {
                                let mine = |flow: &SavedFlow| flow.spread() % workers as u64 == worker as u64;
                                let of = |flow: &mut SavedFlow| mine(flow).then(|| meaning.apply(flow));
                                take(forwarder, now, block, of, &mut sum)
                            }
                        };
                        taken?;
                    }
                    Ok(sum)
                }));
            }
            let distributed = distribute(blocks, &to_workers);
            drop(to_workers);
            let mut restored = Restored::default();
            let mut taken = Ok(());
            for thread in threads {
                match thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                    Ok(sum) => restored.add(sum),
                    Err(error) => taken = Err(E::from(error)),
                }
            }
            taken.and(distributed).map(|()| restored)
        });
        restored.map(|restored| Self { restored, ..self })
    }

    /// Lets every worker make records of flows, each into a queue of its own. Before flows are taken in, so that those that are
    /// left out are told, too.
    #[must_use]
    pub fn logged(mut self) -> Self {
        let now = self.clock.milliseconds(Instant::now());
        let give = |(forwarder, _): &mut (Forwarder, Arc<Counters>)| {
            let records = Arc::new(Records::default());
            let _nothing = forwarder.log_to(Some(records.clone()), now);
            records
        };
        self.records = self.forwarders.iter_mut().map(give).collect();
        self
    }

    /// The queues of records, by worker; none where none are made.
    pub fn records(&self) -> Vec<Arc<Records>> {
        self.records.clone()
    }

    /// What became of the flows.
    pub fn restored(&self) -> Restored {
        self.restored
    }
}

/// Takes the flows of a block in.
fn take(
    forwarder: &mut Forwarder,
    now: u64,
    block: &SavedBlock,
    of: impl Fn(&mut SavedFlow) -> Option<Result<(), Refused>>,
    sum: &mut Restored,
) -> Result<(), OtherFlows> {
    let mut bytes = block.bytes.get(block.start..).unwrap_or_default();
    let whole = forwarder.restore_all(now, &mut bytes, block.count, of, |result| match result {
        Ok(()) => sum.restored += 1,
        Err(Refused::Expired) => sum.expired += 1,
        Err(Refused::Gone | Refused::Taken | Refused::Full) => sum.refused += 1,
    });
    if whole && bytes.is_empty() { Ok(()) } else { Err(OtherFlows) }
}

/// Gives blocks to the workers that had them.
fn distribute<E>(blocks: impl Iterator<Item = Result<SavedBlock, E>>, to_workers: &[Sender<Given>]) -> Result<(), E> {
    for block in blocks {
        let block = Arc::new(block?);
        // A worker that takes nothing more has found something wrong, which shows where it is waited for.
        if let Some(to_worker) = to_workers.get(usize::from(block.worker)) {
            let _ended = to_worker.send(Given::All(block));
            continue;
        }
        for to_worker in to_workers {
            let _ended = to_worker.send(Given::Part(block.clone()));
        }
    }
    Ok(())
}
