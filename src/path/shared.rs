//! What the workers of a node share, and touch only when a flow is made or ends: who owns which flow, how many flows there
//! are, and endpoint-independent mappings.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::denial::Denials;
use super::flow::{Family, FlowState};
use crate::snapshot::{PoolId, PortId, PortKind, Snapshot};
use crate::table::directory::Directory;
use crate::table::flow::FlowKey;
use crate::table::fragments::FragmentKey;
use crate::table::mapping::{Inside, Mappings, Outside};
use crate::table::pool_use::{PoolCounts, PoolUse, PortSpace};
use crate::table::quota::{Exceeded, Quota};

/// What the workers of a node share.
#[derive(Debug)]
pub struct Shared {
    /// Who owns which flow; none where there is one worker.
    pub(super) directory: Option<Directory>,
    /// How many flows there are, by the port that they count for.
    pub(super) quota: Quota,
    /// Endpoint-independent mappings.
    pub(super) mappings: Mappings,
    /// How much of pools is in use.
    pools: PoolUse,
    /// Who was denied what.
    pub(super) denials: Denials,
    /// Rooms that are kept free for workers that have found the node full and could not make room themselves.
    kept: AtomicU32,
    /// Whether no flow may begin.
    draining: AtomicBool,
    workers: u16,
    hasher: RandomState,
}

/// Most rooms that are kept: what one packet may have to make, so that the search stays short.
const KEPT_MOST: u32 = 16;

/// Of the node's limit at most this part, so that a small node is not kept empty.
const KEPT_PART: u32 = 8;

impl Shared {
    /// For this many workers.
    pub fn new(workers: u16) -> Self {
        Self {
            directory: (workers > 1).then(Directory::new),
            quota: Quota::new(usize::from(u16::MAX) + 1),
            mappings: Mappings::new(),
            pools: PoolUse::new(),
            denials: Denials::new(),
            kept: AtomicU32::new(0),
            draining: AtomicBool::new(false),
            workers: workers.max(1),
            hasher: RandomState::new(),
        }
    }

    /// Flows of the node.
    pub fn flows(&self) -> u32 {
        self.quota.used()
    }

    /// The ports with the most flows, largest first, up to a number.
    pub fn top_owners(&self, count: usize) -> Vec<(u16, u32)> {
        self.quota.top(count)
    }

    /// How much of a pool is in use.
    pub fn pool_counts(&self, pool: PoolId) -> PoolCounts {
        PoolCounts { mapped: self.mappings.of_pool(pool.0), ..self.pools.of(pool.0) }
    }

    /// Makes room for counts of a snapshot's pools.
    pub(super) fn reserve_pools(&self, snapshot: &Snapshot) {
        self.pools.reserve(snapshot.pools.len());
    }

    /// Counts a flow that a pool translates, if one does.
    pub(super) fn take_of_pool<A: Family>(&self, pool: Option<PoolId>, forward: &FlowKey<A>) {
        if let Some(pool) = pool {
            self.pools.take(pool.0, port_space(forward));
        }
    }

    /// Takes that back.
    pub(super) fn give_back_of_pool<A: Family>(&self, pool: Option<PoolId>, forward: &FlowKey<A>) {
        if let Some(pool) = pool {
            self.pools.give_back(pool.0, port_space(forward));
        }
    }

    /// Counts a packet whose flow a pool had no port for.
    pub(super) fn exhausted<A: Family>(&self, pool: PoolId, forward: &FlowKey<A>) {
        self.pools.exhausted(pool.0, port_space(forward));
    }

    /// Endpoint-independent mappings now.
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    /// Lets no flow begin from now on, or lets them again. Those that there are go on.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Whether no flow may begin. Asked by what would begin one, never by a packet of a flow.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Who was denied what, for people.
    pub fn denials(&self) -> &Denials {
        &self.denials
    }

    /// The worker that follows the fragments of a packet: the same one for all of them, whichever queue they come in by.
    pub(super) fn follower(&self, key: &FragmentKey) -> u16 {
        let hash = self.hasher.hash_one(key);
        (hash % u64::from(self.workers)) as u16
    }

    /// Lets the mappings of a flow admit others, or no more, when it goes on or comes to an end.
    pub(super) fn set_live<A: Family>(&self, forward: &FlowKey<A>, reverse: &FlowKey<A>, state: &FlowState) {
        let set = |(outside, remote)| {
            if state.is_live() {
                self.mappings.wake(&outside, remote);
            } else {
                self.mappings.rest(&outside, remote);
            }
        };
        if state.maps_source() {
            set(mapped_source(reverse));
        }
        if state.maps_destination() {
            set(mapped_destination(forward, reverse));
        }
    }

    /// Room for one more flow of a port, but for what is kept.
    pub(super) fn take_room(&self, snapshot: &Snapshot, owner: u16) -> Result<(), Exceeded> {
        self.take(snapshot, owner, snapshot.flow_limit.saturating_sub(self.kept(snapshot)))
    }

    /// Rooms that are kept for workers that could not make room themselves.
    pub(super) fn kept(&self, snapshot: &Snapshot) -> u32 {
        self.kept.load(Ordering::Relaxed).min(KEPT_MOST).min(snapshot.flow_limit / KEPT_PART)
    }

    /// Room for one more flow of a port of a worker that has no flow to end for it: a room that is kept for it, or one is
    /// kept from now on, which the others make with their next flows.
    pub(super) fn take_kept_room(&self, snapshot: &Snapshot, owner: u16) -> Result<(), Exceeded> {
        let taken = self.take(snapshot, owner, snapshot.flow_limit);
        let change = |kept: u32| match taken {
            Ok(()) => kept.checked_sub(1),
            Err(Exceeded::Total) => (kept < KEPT_MOST).then_some(kept + 1),
            Err(Exceeded::Owner) => None,
        };
        let _unchanged = self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change);
        taken
    }

    fn take(&self, snapshot: &Snapshot, owner: u16, limit: u32) -> Result<(), Exceeded> {
        // What comes from elsewhere to a service is bounded by the node's limit alone.
        let is_nic = snapshot.port(PortId(owner)).is_some_and(|port| port.kind == PortKind::Nic);
        let most = if is_nic { snapshot.flow_limit_per_nic } else { snapshot.flow_limit };
        self.quota.take(owner, most, limit)
    }

    /// Gives back what a flow had. The hashes are those of its keys.
    pub(super) fn release<A: Family>(
        &self,
        worker: u16,
        (forward, forward_hash): (&FlowKey<A>, u64),
        (reverse, reverse_hash): (&FlowKey<A>, u64),
        state: &FlowState,
    ) {
        self.unclaim(worker, (forward_hash, reverse_hash));
        self.unmap(forward, reverse, state);
        self.quota.give_back(state.owner.0);
        self.give_back_of_pool(state.pool(), forward);
    }

    /// Makes a worker the owner of both keys of a flow, or of neither.
    pub(super) fn claim(&self, worker: u16, (forward, reverse): (u64, u64)) -> bool {
        let Some(directory) = &self.directory else { return true };
        if directory.claim(forward, worker).is_err() {
            return false;
        }
        let both = directory.claim(reverse, worker).is_ok();
        if !both {
            directory.release(forward, worker);
        }
        both
    }

    /// Takes that back.
    pub(super) fn unclaim(&self, worker: u16, (forward, reverse): (u64, u64)) {
        if let Some(directory) = &self.directory {
            directory.release(forward, worker);
            directory.release(reverse, worker);
        }
    }

    /// Takes the mappings again that a restored flow had, or none. Each is of the pool that has its address.
    pub(super) fn map_again<A: Family>(
        &self,
        snapshot: &Snapshot,
        forward: &FlowKey<A>,
        reverse: &FlowKey<A>,
        state: &FlowState,
    ) -> bool {
        let pool_of = |address: A| snapshot.pool_of(address.to_ip()).unwrap_or(PoolId(u16::MAX));
        let source = || {
            let (outside, remote) = mapped_source(reverse);
            self.mappings.acquire_exact(&inside_source(forward, pool_of(reverse.destination)), &outside, remote)
        };
        if state.maps_source() && !source() {
            return false;
        }
        let destination = || {
            let (outside, remote) = mapped_destination(forward, reverse);
            self.mappings.acquire_exact(&inside_source(reverse, pool_of(forward.destination)), &outside, remote)
        };
        if state.maps_destination() && !destination() {
            if state.maps_source() {
                let (outside, remote) = mapped_source(reverse);
                self.mappings.release(&outside, remote, true);
            }
            return false;
        }
        if !state.is_live() {
            self.set_live(forward, reverse, state);
        }
        true
    }

    /// Lets the mappings of a flow go.
    pub(super) fn unmap<A: Family>(&self, forward: &FlowKey<A>, reverse: &FlowKey<A>, state: &FlowState) {
        if state.maps_source() {
            let (outside, remote) = mapped_source(reverse);
            self.mappings.release(&outside, remote, state.is_live());
        }
        if state.maps_destination() {
            let (outside, remote) = mapped_destination(forward, reverse);
            self.mappings.release(&outside, remote, state.is_live());
        }
    }
}

/// The port that a flow counts for: the NIC that it begins at, else the NIC that it reaches.
pub(super) fn owner_of<A: Family>(snapshot: &Snapshot, forward: &FlowKey<A>, reverse: &FlowKey<A>) -> PortId {
    let is_nic = |port: u16| snapshot.port(PortId(port)).is_some_and(|port| port.kind == PortKind::Nic);
    PortId(if !is_nic(forward.port) && is_nic(reverse.port) { reverse.port } else { forward.port })
}

/// Which ports of a pool a flow takes one of.
fn port_space<A: Family>(forward: &FlowKey<A>) -> PortSpace {
    PortSpace::of(forward.source.to_ip().is_ipv4(), forward.protocol)
}

/// An address as mappings keep it.
pub(super) fn widened<A: Family>(address: A) -> u128 {
    u128::from_ip(address.to_ip()).unwrap_or_default()
}

/// The inside socket that packets of a key come from, as a pool knows it.
pub(super) fn inside_source<A: Family>(key: &FlowKey<A>, pool: PoolId) -> Inside {
    Inside {
        address: widened(key.source),
        number: key.source_port,
        port: key.port,
        protocol: key.protocol,
        pool: pool.0,
    }
}

/// The outside socket that a flow's source is mapped to, and whom it talks to.
pub(super) fn mapped_source<A: Family>(reverse: &FlowKey<A>) -> (Outside, u128) {
    let outside =
        Outside { address: widened(reverse.destination), number: reverse.destination_port, protocol: reverse.protocol };
    (outside, widened(reverse.source))
}

/// The outside socket that a flow came in by, and who came.
pub(super) fn mapped_destination<A: Family>(forward: &FlowKey<A>, reverse: &FlowKey<A>) -> (Outside, u128) {
    let outside =
        Outside { address: widened(forward.destination), number: forward.destination_port, protocol: forward.protocol };
    (outside, widened(reverse.destination))
}
