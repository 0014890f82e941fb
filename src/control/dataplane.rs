//! What the control side needs of the workers and of devices, as traits, so that a node can be tested without either.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::answers::Counters;
use super::ports::Attachment;
use super::refusal::Refusal;
use crate::path::denial::Denial;
use crate::path::forwarder::FlowSummary;
use crate::path::look::{self, Look};
use crate::path::record::Records;
use crate::path::redecide::Foreseen;
use crate::port::Port;
use crate::snapshot::{PortId, Snapshot};
use crate::table::pool_use::PoolCounts;
use crate::worker::{self, PortErrors, PortReport, Stopped, Wanted, Watching};

/// The queues of an opened device, one for each worker.
pub type Queues = Vec<Box<dyn Port>>;

/// The running workers. Dropping them stops them and closes all devices.
pub trait Dataplane: Send + Sync {
    /// Waits until every worker forwards by a generation and has decided its flows anew; false when time ran out.
    fn wait_for_generation(&self, generation: u64, timeout: Duration) -> bool;

    /// At most this many flows.
    fn flows(&self, limit: usize) -> Vec<FlowSummary>;

    /// What would become of the flows under a snapshot; none where that was not found out in time.
    fn foresee(&self, snapshot: Arc<Snapshot>, timeout: Duration) -> Option<Foreseen>;

    /// Looks at the flows of every worker once more, each with what it remembered, none at first.
    fn look(&self, looks: Vec<Look>, wanted: &look::Wanted) -> Vec<Look>;

    /// What the last change did to the flows, complete once [`Dataplane::wait_for_generation`] has seen it done; none
    /// where a worker does not answer.
    fn last_change(&self) -> Option<Foreseen>;

    /// Flows of the node, and the ports with the most of them, largest first, up to a number.
    fn flow_owners(&self, count: usize) -> (u32, Vec<(PortId, u32)>);

    /// Takes records of who was denied what, at most so many, and tells how many were lost since the start.
    fn take_denials(&self, most: usize) -> (Vec<Denial>, u64);

    /// Lets the workers make records of flows, each into a queue of its own, which is given; or no more.
    fn log(&self, wanted: bool) -> Vec<Arc<Records>>;

    /// What the workers' clock shows, in milliseconds.
    fn milliseconds(&self) -> u64;

    /// Lets no flow begin from now on, or lets them again.
    fn set_draining(&self, draining: bool);

    /// Whether no flow may begin.
    fn is_draining(&self) -> bool;

    /// Sums over all workers, and what their ports count. Ports are named by their number.
    fn counters(&self) -> Counters;

    /// What each worker counts, and the queues of all ports that they serve. Ports are named by their number.
    fn workers(&self) -> (Vec<Counters>, Vec<PortReport>);

    /// How much of the pools below a number is in use.
    fn pool_counts(&self, pools: usize) -> Vec<PoolCounts>;

    /// How ports failed, those too whose device is gone.
    fn port_errors(&self) -> Vec<PortErrors>;

    /// Watches packets from now on, in a node with so many ports; none where no more can be watched.
    fn watch(&self, wanted: Wanted, ports: usize) -> Option<Watching>;

    /// Takes new ports in; one with the number of an old one replaces it.
    fn add_ports(&self, ports: Vec<(PortId, Queues)>);

    /// Lets ports go; their devices are closed when this returns.
    fn remove_ports(&self, ports: &[PortId]);

    /// Ends the workers, closes all devices, and gives what is left.
    fn stop(&self) -> Stopped;
}

/// Opens devices.
pub trait Devices: Send + Sync {
    /// Opens the device of a port, with its addresses and routes.
    ///
    /// # Errors
    /// [`Refusal::Failed`] or [`Refusal::Conflict`], naming port and interface; then nothing is left of it.
    fn open(&self, attachment: &Attachment) -> Result<Queues, Refusal>;

    /// Lets a device that was opened stay when the process ends, where devices are to. Nothing of the opening can fail any
    /// more then.
    ///
    /// # Errors
    /// When the system refuses.
    fn keep(&self, queues: &mut Queues) -> io::Result<()>;

    /// Tells the kernel what addresses and routes an open device has now.
    ///
    /// # Errors
    /// As [`Devices::open`]; then the device has those of `before`.
    fn adjust(&self, before: &Attachment, after: &Attachment) -> Result<(), Refusal>;
}

impl Dataplane for worker::Handle {
    fn wait_for_generation(&self, generation: u64, timeout: Duration) -> bool {
        worker::Handle::wait_for_generation(self, generation, timeout)
    }

    fn flows(&self, limit: usize) -> Vec<FlowSummary> {
        worker::Handle::flows(self, limit)
    }

    fn foresee(&self, snapshot: Arc<Snapshot>, timeout: Duration) -> Option<Foreseen> {
        worker::Handle::foresee(self, snapshot, timeout)
    }

    fn look(&self, looks: Vec<Look>, wanted: &look::Wanted) -> Vec<Look> {
        worker::Handle::look(self, looks, wanted)
    }

    fn last_change(&self) -> Option<Foreseen> {
        worker::Handle::last_change(self)
    }

    fn flow_owners(&self, count: usize) -> (u32, Vec<(PortId, u32)>) {
        worker::Handle::flow_owners(self, count)
    }

    fn take_denials(&self, most: usize) -> (Vec<Denial>, u64) {
        worker::Handle::take_denials(self, most)
    }

    fn log(&self, wanted: bool) -> Vec<Arc<Records>> {
        worker::Handle::log(self, wanted)
    }

    fn milliseconds(&self) -> u64 {
        worker::Handle::milliseconds(self)
    }

    fn set_draining(&self, draining: bool) {
        worker::Handle::set_draining(self, draining);
    }

    fn is_draining(&self) -> bool {
        worker::Handle::is_draining(self)
    }

    fn counters(&self) -> Counters {
        let mut sum = Counters::sum(&worker::Handle::counters(self));
        for report in self.ports() {
            let port = sum.ports.entry(report.port.to_string()).or_default();
            for (name, count) in report.counters {
                *port.entry(name).or_default() += count;
            }
        }
        sum
    }

    fn workers(&self) -> (Vec<Counters>, Vec<PortReport>) {
        let counters = worker::Handle::counters(self);
        (counters.iter().map(|worker| Counters::sum(std::slice::from_ref(worker))).collect(), self.ports())
    }

    fn pool_counts(&self, pools: usize) -> Vec<PoolCounts> {
        worker::Handle::pool_counts(self, pools)
    }

    fn port_errors(&self) -> Vec<PortErrors> {
        worker::Handle::port_errors(self)
    }

    fn watch(&self, wanted: Wanted, ports: usize) -> Option<Watching> {
        worker::Handle::watch(self, wanted, ports)
    }

    fn add_ports(&self, ports: Vec<(PortId, Queues)>) {
        worker::Handle::add_ports(self, ports);
    }

    fn remove_ports(&self, ports: &[PortId]) {
        worker::Handle::remove_ports(self, ports);
    }

    fn stop(&self) -> Stopped {
        worker::Handle::stop(self)
    }
}
