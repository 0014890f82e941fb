//! The node: what is in force, and how it changes.
//!
//! What is in force is one immutable value behind a pointer; questions take the pointer and never wait for a change.
//! Changes are made one after the other: validate, compile, open what is new, publish, wait for the workers, close what
//! is gone. A refusal on the way leaves everything as it was.

mod drain;
mod ending;
mod endpoint;
mod flow_log;
mod metrics;
mod support;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::answers::{
    CatalogueStatus, Change, ChangeEffect, Counters, DenialsAnswer, DocumentAnswer, ExplainQuery, FlowChanges,
    FlowOwner, FlowUse, FlowsAnswer, Health, PortStatus, ROUTES_REMEMBERED, RouteChanges, StateStatus, Status,
    VerifyQuery,
};
use super::dataplane::{Dataplane, Devices, Queues};
use super::denials::{self, DenialLog};
use super::difference::{self, PortChanges};
use super::document::{CatalogueFile, Document};
use super::endpoints;
use super::explain::{self, ExplainAnswer};
use super::flow_log::FlowLog;
use super::follow::Follows;
use super::fullness::{self, Fullness};
use super::ports::{Attachment, attachments, kind_name};
use super::privileges;
use super::refusal::Refusal;
use super::state::{ByHand, StateError};
use super::top::{self, TopAnswer, TopQuery, Watchers};
use super::verify::{self, VerifyAnswer};
use super::watch::Stamp;
use crate::model::network::{IoMode, Network};
use crate::path::look::{self, Found, Look};
use crate::plan::explain::{NextHopAnswer, RoutesAnswer};
use crate::plan::nsg::NsgAnswer;
use crate::plan::{Plan, advice};
use crate::snapshot::{PortId, Publisher, Snapshot};

/// How long a change waits for the workers. They look at the generation between batches; deciding every flow anew takes
/// a few hundred milliseconds for a million flows.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a question what a change would do to the flows waits for the workers. They look at some flows at a time
/// between packets, however many there are.
const PATIENCE_FORESEEING: Duration = Duration::from_secs(45);

/// Ports that are named as those with the most flows.
const TOP_OWNERS: usize = 5;

/// Changes that the status tells.
const HISTORY: usize = 32;

/// What the command line says instead of the document. Holds for every document that is applied later, too.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The catalogue's file.
    pub tags: Option<PathBuf>,
    /// How TUN devices are opened.
    pub io: Option<IoMode>,
    /// How many workers there are.
    pub workers: Option<u16>,
}

/// What is in force.
pub(super) struct Current {
    document: Document,
    catalogue: CatalogueFile,
    /// Endpoints that were switched since the document was loaded.
    switched: BTreeMap<(String, &'static str), bool>,
    pub(super) network: Arc<Network>,
    plan: Plan,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) attachments: Vec<Attachment>,
    compiled_in: Duration,
    since: SystemTime,
}

/// What could be in force next.
struct Prepared {
    document: Document,
    catalogue: CatalogueFile,
    switched: BTreeMap<(String, &'static str), bool>,
    network: Arc<Network>,
    plan: Plan,
    snapshot: Arc<Snapshot>,
    attachments: Vec<Attachment>,
    /// How long it took to compile the snapshot.
    compiled_in: Duration,
}

/// A running node.
pub struct Node {
    overrides: Overrides,
    publisher: Arc<Publisher>,
    devices: Box<dyn Devices>,
    pub(super) dataplane: Box<dyn Dataplane>,
    /// `flows.limit` that the workers were started with.
    largest_flow_limit: u32,
    current: Mutex<Arc<Current>>,
    /// Held by the one change that is being made.
    changing: Mutex<()>,
    history: Mutex<VecDeque<Change>>,
    /// Why the catalogue's file as it is now was not taken, and its state then.
    catalogue_refused: Mutex<Option<CatalogueRefusal>>,
    /// What each port's device was granted when it was opened.
    granted: Mutex<BTreeMap<PortId, String>>,
    /// What was last said about too many flows.
    fullness: Mutex<Fullness>,
    denials: Mutex<DenialLog>,
    flow_log: FlowLog,
    /// What the workers left, once they have ended.
    /// What came of writing the state, once the workers have ended: none where there was none to write, or it was told.
    saved: Mutex<Option<Option<Result<usize, StateError>>>>,
    /// What each who looks again and again saw last.
    watchers: Watchers,
    pub(super) follows: Follows,
    /// What outlives the process.
    state: Mutex<Option<StateStatus>>,
    started: Instant,
    started_at: SystemTime,
}

struct CatalogueRefusal {
    /// State of the file that was refused; none where there is no file.
    state: Option<Stamp>,
    reason: String,
}

/// A document that was checked and compiled, and has no devices yet.
pub struct Loaded {
    prepared: Prepared,
    overrides: Overrides,
}

impl Loaded {
    /// Checks and compiles a document.
    ///
    /// # Errors
    /// [`Refusal::Document`] with every mistake, [`Refusal::Conflict`] for what cannot be compiled.
    pub fn load(document: Document, overrides: Overrides) -> Result<Self, Refusal> {
        Self::resume(document, overrides, &ByHand::default())
    }

    /// Checks and compiles a document with what was changed by hand in an earlier process. If that cannot be done, the
    /// document is taken as it is, with a warning. A catalogue that the command line names comes before the one that was
    /// put in force.
    ///
    /// # Errors
    /// As [`Loaded::load`].
    pub fn resume(document: Document, overrides: Overrides, by_hand: &ByHand) -> Result<Self, Refusal> {
        if *by_hand != ByHand::default() {
            match prepare_by_hand(document.clone(), &overrides, by_hand) {
                Ok(prepared) => {
                    warn_of_stale_rules(&prepared.network);
                    return Ok(Self { prepared, overrides });
                }
                Err(refusal) => {
                    let reason = refusal.full_text();
                    tracing::warn!(reason, "endpoints and catalogue are not as before the restart");
                }
            }
        }
        let catalogue = document.catalogue(overrides.tags.as_deref())?;
        let prepared = prepare(document, catalogue, &overrides, BTreeMap::new(), 1, None)?;
        warn_of_stale_rules(&prepared.network);
        Ok(Self { prepared, overrides })
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.prepared.network
    }

    /// Its snapshot, of generation 1.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.prepared.snapshot
    }

    /// Files that its devices write.
    pub(super) fn device_files(&self) -> Vec<PathBuf> {
        self.prepared.attachments.iter().filter_map(|attachment| attachment.device.pcap.clone()).collect()
    }

    /// Opens the devices and starts workers on them.
    ///
    /// # Errors
    /// [`Refusal`]; every device that was opened is closed again. Where devices are to stay, those of workers that could
    /// not be started do, for the next attempt.
    pub fn start<D: Dataplane + 'static>(
        self,
        devices: Box<dyn Devices>,
        workers: impl FnOnce(Arc<Publisher>, Vec<(PortId, Queues)>) -> io::Result<D>,
    ) -> Result<Node, Refusal> {
        let Self { prepared, overrides } = self;
        let Prepared { document, catalogue, switched, network, plan, snapshot, attachments, compiled_in } = prepared;
        let Opened { mut queues, granted } = open(&*devices, &attachments)?;
        keep(&*devices, &mut queues);
        let publisher = Arc::new(Publisher::new(snapshot));
        let dataplane = workers(publisher.clone(), queues)
            .map_err(|error| Refusal::Failed(format!("cannot start the workers: {error}")))?;
        let snapshot = publisher.current();
        let what = format!("load {}", file_name(&document.path));
        let since = SystemTime::now();
        let current =
            Current { document, catalogue, switched, network, plan, snapshot, attachments, compiled_in, since };
        let node = Node {
            overrides,
            publisher,
            devices,
            dataplane: Box::new(dataplane),
            largest_flow_limit: current.network.flows.limit,
            current: Mutex::new(Arc::new(current)),
            changing: Mutex::new(()),
            history: Mutex::default(),
            catalogue_refused: Mutex::default(),
            granted: Mutex::new(granted),
            fullness: Mutex::default(),
            denials: Mutex::default(),
            flow_log: FlowLog::default(),
            saved: Mutex::default(),
            watchers: Watchers::default(),
            follows: Follows::default(),
            state: Mutex::default(),
            started: Instant::now(),
            started_at: since,
        };
        node.remember("start", &what, Ok(None));
        Ok(node)
    }
}

impl Node {
    /// Whether it is there, and its generation.
    pub fn health(&self) -> Health {
        Health { status: "ok".to_owned(), generation: self.publisher.generation() }
    }

    /// What is in force.
    pub fn status(&self) -> Status {
        let current = self.current();
        let refused = lock(&self.catalogue_refused).as_ref().map(|refusal| refusal.reason.clone());
        let catalogue = current.catalogue.path.clone().map(|path| {
            let catalogue = &current.catalogue.catalogue;
            CatalogueStatus { path, tags: catalogue.tags().len(), change_number: catalogue.change_number, refused }
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            generation: current.snapshot.generation,
            document: current.document.path.clone(),
            switched_endpoints: current
                .switched
                .iter()
                .map(|((subnet, service), enabled)| (format!("{subnet} {service}"), *enabled))
                .collect(),
            catalogue,
            workers: current.network.workers,
            draining: self.is_draining(),
            flows: self.flow_use(&current.snapshot),
            ports: self.ports(),
            flow_log: self.flow_log.totals(),
            state: lock(&self.state).clone(),
            privileges: privileges::status(),
            changes: lock(&self.history).iter().cloned().collect(),
        }
    }

    /// How many flows there are, and may be, with their owners where that is much.
    fn flow_use(&self, snapshot: &Snapshot) -> FlowUse {
        let (used, mut owners) = self.dataplane.flow_owners(TOP_OWNERS);
        let (limit, limit_per_nic) = (snapshot.flow_limit, snapshot.flow_limit_per_nic);
        let nic_is_full = owners.first().is_some_and(|(_, flows)| fullness::is_nearly_full(*flows, limit_per_nic));
        if !fullness::is_nearly_full(used, limit) && !nic_is_full {
            owners.clear();
        }
        let owners =
            owners.into_iter().map(|(port, flows)| FlowOwner { port: snapshot.port_name(port), flows }).collect();
        FlowUse { used, limit, limit_per_nic, owners }
    }

    /// Says in the log when the node or a NIC comes to have nearly as many flows as it may have. To be called about once
    /// a second. Gives what was said.
    pub fn look_at_flows(&self) -> Vec<String> {
        let current = self.current();
        let snapshot = &current.snapshot;
        let (used, owners) = self.dataplane.flow_owners(usize::MAX);
        let name = |port| snapshot.port_name(port);
        let limits = (snapshot.flow_limit, snapshot.flow_limit_per_nic);
        let warnings = lock(&self.fullness).look(used, &owners, limits, TOP_OWNERS, name);
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        warnings
    }

    /// Takes in who was denied what, and says it in the log. To be called a few times a second.
    pub fn look_at_denials(&self) {
        let (denials, lost) = self.dataplane.take_denials(denials::TAKEN);
        lock(&self.denials).add(denials, lost, &self.current().snapshot);
    }

    /// Who was denied what, the newest, up to a number.
    pub fn denials(&self, limit: usize) -> DenialsAnswer {
        self.look_at_denials();
        lock(&self.denials).newest(limit)
    }

    /// Tells the status what outlives the process.
    pub fn set_state(&self, state: StateStatus) {
        *lock(&self.state) = Some(state);
    }

    /// The network in force, its generation, and the file of its document.
    pub(super) fn drawn(&self) -> (Arc<Network>, u64, PathBuf) {
        let current = self.current();
        (current.network.clone(), current.snapshot.generation, current.document.path.clone())
    }

    /// The snapshot in force.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.current().snapshot.clone()
    }

    /// The last changes, oldest first.
    pub(super) fn changes(&self) -> Vec<Change> {
        lock(&self.history).iter().cloned().collect()
    }

    /// Ports with a device.
    pub fn ports(&self) -> Vec<PortStatus> {
        let granted = lock(&self.granted);
        let current = self.current();
        let status = |attachment: &Attachment| PortStatus {
            name: attachment.name.clone(),
            kind: kind_name(attachment.kind).to_owned(),
            interface: attachment.interface().to_owned(),
            netns: attachment.device.netns.clone(),
            io: granted.get(&attachment.port).cloned().unwrap_or_default(),
        };
        current.attachments.iter().map(status).collect()
    }

    /// The effective routes of a NIC or subnet.
    ///
    /// # Errors
    /// [`Refusal::Unknown`]
    pub fn routes(&self, of: &str) -> Result<RoutesAnswer, Refusal> {
        explain::routes(&self.current().plan, of)
    }

    /// The next hop from a NIC or subnet to an address or host name.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] for names, [`Refusal::Malformed`] for a protocol that is none.
    pub fn next_hop(&self, from: &str, to: &str, protocol: Option<&str>) -> Result<NextHopAnswer, Refusal> {
        explain::next_hop(&self.current().plan, from, to, protocol)
    }

    /// What would become of a packet.
    ///
    /// # Errors
    /// As [`Node::next_hop`]; [`Refusal::Conflict`] for a subnet without a NIC.
    pub fn explain(&self, query: &ExplainQuery) -> Result<ExplainAnswer, Refusal> {
        let current = self.current();
        let answer = explain::explain(&current.plan, &current.snapshot, query)?;
        Ok(ExplainAnswer { draining: self.is_draining(), ..answer })
    }

    /// The network security groups of a NIC or subnet.
    ///
    /// # Errors
    /// [`Refusal::Unknown`]
    pub fn network_security_groups(&self, of: &str) -> Result<NsgAnswer, Refusal> {
        verify::network_security_groups(&self.current().plan, of)
    }

    /// Whether network security groups would let a packet pass.
    ///
    /// # Errors
    /// As [`verify::verify`].
    pub fn verify(&self, query: &VerifyQuery) -> Result<VerifyAnswer, Refusal> {
        let current = self.current();
        verify::verify(&current.plan, &current.snapshot, query)
    }

    /// At most this many flows.
    pub fn flows(&self, limit: usize) -> FlowsAnswer {
        let current = self.current();
        let flows = self.dataplane.flows(limit);
        let flows = flows.iter().map(|flow| difference::flow_answer(flow, &current.snapshot)).collect();
        FlowsAnswer { total: self.dataplane.counters().flows, flows }
    }

    /// The fastest flows, and what each kind of path, each port and each reason to drop counts.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] where the question says so.
    pub fn top(&self, query: &TopQuery) -> Result<TopAnswer, Refusal> {
        let snapshot = self.snapshot();
        let wanted = query.wanted(snapshot.ports.iter().map(|port| port.name.as_str()))?;
        let (found, looks) = self.look_at_rates(self.watchers.take(&query.watcher), &wanted);
        self.watchers.keep(&query.watcher, looks);
        let (current, workers, ports) = self.in_force();
        Ok(top::answer(&found, &current.snapshot, &current.attachments, &workers, &ports, self.started.elapsed()))
    }

    /// Looks at the flows of every worker once more, with what was remembered of the look before, nothing at first: what was
    /// found, and what is to be remembered.
    pub(super) fn look_at_rates(&self, looks: Vec<Look>, wanted: &look::Wanted) -> (Found, Vec<Look>) {
        top::found(self.dataplane.look(looks, wanted), wanted)
    }

    /// Sums over all workers, with the ports' names.
    pub fn counters(&self) -> Counters {
        let current = self.current();
        let mut counters = self.dataplane.counters();
        counters.flow_limit = current.snapshot.flow_limit.into();
        counters.ports = std::mem::take(&mut counters.ports)
            .into_iter()
            .map(|(number, values)| {
                let port = number.parse().ok().and_then(|number| current.snapshot.port(PortId(number)));
                (port.map_or(number, |port| port.name.clone()), values)
            })
            .collect();
        counters
    }

    /// What applying a document would do; nothing is done.
    ///
    /// # Errors
    /// As [`Node::apply`].
    pub fn try_document(&self, text: &str, path: Option<&Path>) -> Result<DocumentAnswer, Refusal> {
        let current = self.current();
        let next = self.prepare_document(&current, text, path)?;
        self.try_next(&current, next)
    }

    /// What putting something in force would do.
    fn try_next(&self, current: &Current, next: Prepared) -> Result<DocumentAnswer, Refusal> {
        let ports = PortChanges::between(&current.attachments, &next.attachments)?;
        let routes = difference::routes(&current.plan, &next.plan);
        let flows = self.foresee(current, next.snapshot.clone())?;
        Ok(ports.answer(current.snapshot.generation, true, routes, flows))
    }

    /// Puts something in force, and says what that did.
    fn put(&self, current: &Current, next: Prepared) -> Result<DocumentAnswer, Refusal> {
        let routes = difference::routes(&current.plan, &next.plan);
        let (ports, flows) = self.commit(current, next)?;
        Ok(ports.answer(self.publisher.generation(), false, routes, flows))
    }

    /// Puts a document in force, all or nothing. `path` is the file that it came from; without it, relative paths and
    /// places refer to the file of the document before.
    ///
    /// # Errors
    /// [`Refusal::Document`] with every mistake; [`Refusal::Conflict`] for what only a restart can change;
    /// [`Refusal::Failed`] where a device or file fails. Nothing has changed then.
    pub fn apply(&self, who: &str, text: &str, path: Option<&Path>) -> Result<DocumentAnswer, Refusal> {
        let _changing = lock(&self.changing);
        let current = self.current();
        let what = format!("apply {}", file_name(path.unwrap_or(&current.document.path)));
        let result = self.prepare_document(&current, text, path).and_then(|next| self.put(&current, next));
        self.remember(who, &what, result.as_ref().map(|done| Some(effect(&done.routes, &done.flows))));
        if result.is_ok() {
            *lock(&self.catalogue_refused) = None;
            warn_of_stale_rules(&self.current().network);
        }
        result
    }

    /// What putting another catalogue in force would do; nothing is done.
    ///
    /// # Errors
    /// As [`Node::apply_catalogue`].
    pub fn try_catalogue(&self, path: &Path) -> Result<DocumentAnswer, Refusal> {
        let current = self.current();
        let next = self.prepare_catalogue(&current, path)?;
        self.try_next(&current, next)
    }

    /// Puts another catalogue in force, as if the command line had named it: instead of the one that this document and
    /// those that are applied later name. From then on its file is the one that is looked at for changes.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for a path that is not absolute, [`Refusal::Failed`] for a file that cannot be read or is
    /// no catalogue, [`Refusal::Conflict`] where it lacks a tag that the network needs. Nothing has changed then.
    pub fn apply_catalogue(&self, who: &str, path: &Path) -> Result<DocumentAnswer, Refusal> {
        let _changing = lock(&self.changing);
        let current = self.current();
        let result = self.prepare_catalogue(&current, path).and_then(|next| self.put(&current, next));
        let what = format!("apply the catalogue {}", file_name(path));
        self.remember(who, &what, result.as_ref().map(|done| Some(effect(&done.routes, &done.flows))));
        if result.is_ok() {
            *lock(&self.catalogue_refused) = None;
        }
        result
    }

    fn prepare_catalogue(&self, current: &Current, path: &Path) -> Result<Prepared, Refusal> {
        if !path.is_absolute() {
            return Err(Refusal::Malformed(format!("the catalogue's path {} is not absolute", path.display())));
        }
        let catalogue = CatalogueFile::read(Some(path.to_owned()))?;
        self.prepare_with(current, CatalogueFile { is_override: true, ..catalogue }).map_err(|refusal| {
            // Its mistakes have places in the document, which is not what was written.
            let document = current.document.path.display();
            let reason = refusal.full_text();
            Refusal::Conflict(format!("{} does not do for the document {document}: {reason}", path.display()))
        })
    }

    /// Compiles what is in force with another catalogue.
    fn prepare_with(&self, current: &Current, catalogue: CatalogueFile) -> Result<Prepared, Refusal> {
        let generation = current.snapshot.generation + 1;
        let (document, switched) = (current.document.clone(), current.switched.clone());
        prepare(document, catalogue, &self.overrides, switched, generation, Some(&current.snapshot))
    }

    /// What would become of the flows under a snapshot.
    fn foresee(&self, current: &Current, next: Arc<Snapshot>) -> Result<FlowChanges, Refusal> {
        let foreseen = self.dataplane.foresee(next, PATIENCE_FORESEEING);
        let foreseen = foreseen.ok_or_else(|| {
            Refusal::Failed("the workers have not looked at every flow in time; nothing was done".to_owned())
        })?;
        Ok(difference::flow_changes(&foreseen, &current.snapshot))
    }

    /// Takes the catalogue's file in if it has changed; true where a new generation came of it. A file that is broken or
    /// lacks a tag that the network needs is refused once, in the log, the history and the status; the catalogue before
    /// it stays.
    pub fn reload_catalogue(&self) -> bool {
        if self.is_catalogue_settled() {
            return false;
        }
        let _changing = lock(&self.changing);
        let current = self.current();
        // A change may have been waiting in front of this one.
        if self.is_catalogue_settled() {
            return false;
        }
        let state = current.catalogue.stamp_now();
        let is_override = current.catalogue.is_override;
        let result = CatalogueFile::read(current.catalogue.path.clone()).and_then(|catalogue| {
            let next = self.prepare_with(&current, CatalogueFile { is_override, ..catalogue })?;
            self.put(&current, next)
        });
        let done = result.as_ref().map(|done| Some(effect(&done.routes, &done.flows)));
        self.remember("catalogue", "reload the catalogue", done);
        let refused = result.as_ref().err().map(Refusal::full_text);
        if let Some(reason) = &refused {
            tracing::warn!(reason, "the changed catalogue is refused; the one before stays in force");
        }
        *lock(&self.catalogue_refused) = refused.map(|reason| CatalogueRefusal { state, reason });
        result.is_ok()
    }

    /// Whether the catalogue's file is the one in force, or the one that was refused.
    fn is_catalogue_settled(&self) -> bool {
        let current = self.current();
        let refused = lock(&self.catalogue_refused);
        current.catalogue.path.is_none()
            || current.catalogue.is_current()
            || refused.as_ref().is_some_and(|refusal| refusal.state == current.catalogue.stamp_now())
    }

    fn prepare_document(&self, current: &Current, text: &str, path: Option<&Path>) -> Result<Prepared, Refusal> {
        let path = path.map_or_else(|| current.document.path.clone(), Path::to_owned);
        if !path.is_absolute() {
            return Err(Refusal::Malformed(format!("the document's path {} is not absolute", path.display())));
        }
        let document = Document { path, text: text.to_owned() };
        let overriding = current.catalogue.overriding();
        let catalogue_path = document.catalogue_path(overriding);
        let catalogue = if catalogue_path == current.catalogue.path && current.catalogue.is_current() {
            current.catalogue.clone()
        } else {
            document.catalogue(overriding)?
        };
        let generation = current.snapshot.generation + 1;
        let next = prepare(document, catalogue, &self.overrides, BTreeMap::new(), generation, Some(&current.snapshot))?;
        for (what, same) in [
            ("workers", current.network.workers == next.network.workers),
            ("poll", current.network.poll == next.network.poll),
            ("io", current.network.io == next.network.io),
            ("control", current.network.control == next.network.control),
        ] {
            if !same {
                return Err(Refusal::Conflict(format!(
                    "`{what}` differs from the running node's: restart it for that"
                )));
            }
        }
        let limit = next.network.flows.limit;
        if limit > self.largest_flow_limit {
            return Err(Refusal::Conflict(format!(
                "`flows.limit` {limit} is above {}, which the running node's tables were made for: restart it for that",
                self.largest_flow_limit
            )));
        }
        Ok(next)
    }

    /// Puts what was prepared in force. Everything that can fail comes before anything that cannot be undone.
    fn commit(&self, current: &Current, next: Prepared) -> Result<(PortChanges, FlowChanges), Refusal> {
        let ports = PortChanges::between(&current.attachments, &next.attachments)?;
        let Opened { mut queues, granted } = open(&*self.devices, &ports.added)?;
        for (done, (before, after)) in ports.changed.iter().enumerate() {
            if let Err(refusal) = self.devices.adjust(before, after) {
                for (before, after) in &ports.changed[..done] {
                    if let Err(error) = self.devices.adjust(after, before) {
                        tracing::error!(port = before.name, %error, "cannot take a change of the interface back");
                    }
                }
                return Err(refusal);
            }
        }

        let generation = next.snapshot.generation;
        keep(&*self.devices, &mut queues);
        self.dataplane.add_ports(queues);
        let since = SystemTime::now();
        self.publisher.publish(next.snapshot);
        let adopted = self.dataplane.wait_for_generation(generation, PATIENCE);
        if !adopted {
            tracing::warn!(generation, "not every worker forwards by the new generation yet");
        }
        let changed = self.dataplane.last_change();
        if changed.is_none() {
            tracing::warn!(generation, "not every worker tells what became of its flows");
        }
        let complete = adopted && changed.is_some();
        let changed = changed.unwrap_or_default();
        let gone: Vec<PortId> = ports.gone();
        {
            let mut all = lock(&self.granted);
            all.retain(|port, _| !gone.contains(port));
            all.extend(granted);
        }
        let flows = difference::flow_changes(&changed, &current.snapshot);
        let Prepared { document, catalogue, switched, network, plan, attachments, compiled_in, .. } = next;
        let snapshot = self.publisher.current();
        let current =
            Current { document, catalogue, switched, network, plan, snapshot, attachments, compiled_in, since };
        *lock(&self.current) = Arc::new(current);
        // No earlier: who asks what is missing must not be told of ports that are to go.
        if !gone.is_empty() {
            self.dataplane.remove_ports(&gone);
        }
        Ok((ports, FlowChanges { complete, ..flows }))
    }

    pub(super) fn current(&self) -> Arc<Current> {
        lock(&self.current).clone()
    }

    /// Puts a change, and what it did, or why it was refused, into log and history.
    fn remember(&self, who: &str, what: &str, done: Result<Option<ChangeEffect>, &Refusal>) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let generation = self.publisher.generation();
        match &done {
            Ok(None) => tracing::info!(who, what, generation, "done"),
            Ok(Some(effect)) => {
                let ChangeEffect { subnets, flows_reset, flows_moved, flows_kept, .. } = effect;
                tracing::info!(who, what, generation, subnets, flows_reset, flows_moved, flows_kept, "done");
            }
            Err(refusal) => tracing::info!(who, what, generation, reason = refusal.full_text(), "refused"),
        }
        let (effect, refused) = match done {
            Ok(effect) => (effect, None),
            Err(refusal) => (None, Some(refusal.full_text())),
        };
        let mut history = lock(&self.history);
        if history.len() == HISTORY {
            history.pop_front();
        }
        let (who, what) = (who.to_owned(), what.to_owned());
        history.push_back(Change { at, who, what, generation, refused, effect });
    }
}

/// Says in the log that a document is taken in which rules name subnets that are gone.
fn warn_of_stale_rules(network: &Network) {
    let rules = advice::stale_rules(network);
    if rules > 0 {
        let advice = advice::Kind::StaleSubnet.name();
        tracing::warn!(rules, advice, "virtual network rules admit nobody; `sidestep check --advice` tells which");
    }
}

/// What the history says about a change.
fn effect(routes: &[RouteChanges], flows: &FlowChanges) -> ChangeEffect {
    ChangeEffect {
        subnets: routes.len(),
        routes: routes.iter().take(ROUTES_REMEMBERED).cloned().collect(),
        flows_reset: flows.reset,
        flows_moved: flows.moved,
        flows_kept: flows.kept,
        flows_complete: flows.complete,
    }
}

/// Checks and compiles a document with what was changed by hand in an earlier process.
fn prepare_by_hand(document: Document, overrides: &Overrides, by_hand: &ByHand) -> Result<Prepared, Refusal> {
    let known = |(subnet, service, enabled): &(String, String, bool)| {
        Ok(((subnet.clone(), endpoints::service(service)?.name), *enabled))
    };
    let switched = by_hand.switched.iter().map(known).collect::<Result<_, Refusal>>()?;
    let catalogue = document.catalogue(overrides.tags.as_deref().or(by_hand.catalogue.as_deref()))?;
    prepare(document, catalogue, overrides, switched, 1, None)
}

/// Checks a document and compiles it with the endpoints that were switched.
fn prepare(
    document: Document,
    catalogue: CatalogueFile,
    overrides: &Overrides,
    switched: BTreeMap<(String, &'static str), bool>,
    generation: u64,
    previous: Option<&Snapshot>,
) -> Result<Prepared, Refusal> {
    let mut network = document.check(&catalogue)?;
    network.io = overrides.io.unwrap_or(network.io);
    network.workers = overrides.workers.unwrap_or(network.workers);
    for ((subnet, service), enabled) in &switched {
        let subnet = explain::subnet(&network, subnet)?;
        endpoints::switch(&mut network, subnet, endpoints::service(service)?, *enabled, None)?;
    }
    compile(document, catalogue, network, switched, generation, previous)
}

fn compile(
    document: Document,
    catalogue: CatalogueFile,
    network: Network,
    switched: BTreeMap<(String, &'static str), bool>,
    generation: u64,
    previous: Option<&Snapshot>,
) -> Result<Prepared, Refusal> {
    let start = Instant::now();
    let network = Arc::new(network);
    let plan = Plan::new(network.clone(), catalogue.catalogue.clone());
    let snapshot = Arc::new(plan.compile(generation, previous).map_err(|error| Refusal::Conflict(error.to_string()))?);
    let attachments = attachments(&network, &snapshot);
    let compiled_in = start.elapsed();
    Ok(Prepared { document, catalogue, switched, network, plan, snapshot, attachments, compiled_in })
}

/// Devices that were opened, and what each was granted.
#[derive(Default)]
struct Opened {
    queues: Vec<(PortId, Queues)>,
    granted: BTreeMap<PortId, String>,
}

/// Opens devices. Where one fails, all are closed.
fn open(devices: &dyn Devices, attachments: &[Attachment]) -> Result<Opened, Refusal> {
    let mut opened = Opened::default();
    for attachment in attachments {
        let queues = devices.open(attachment)?;
        opened.granted.insert(attachment.port, queues.first().map(|queue| queue.describe()).unwrap_or_default());
        opened.queues.push((attachment.port, queues));
    }
    Ok(opened)
}

/// Lets devices stay that are to. One that does not is only missed when the process ends.
fn keep(devices: &dyn Devices, queues: &mut [(PortId, Queues)]) {
    for (port, queues) in queues {
        if let Err(error) = devices.keep(queues) {
            tracing::error!(port = port.0, %error, "the port's device will not stay when the process ends");
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Locks; what a panic left is whole, since values are replaced, never changed in part.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
