//! What the control side needs of the workers and of devices, as traits, so that a node can be tested without either.

use std::net::IpAddr;
use std::time::Duration;

use super::answers::Counters;
use super::ports::Attachment;
use super::refusal::Refusal;
use crate::path::forwarder::FlowSummary;
use crate::port::Port;
use crate::snapshot::{NextHopType, PortId};
use crate::worker;

/// The queues of an opened device, one for each worker.
pub type Queues = Vec<Box<dyn Port>>;

/// The running workers. Dropping them stops them and closes all devices.
pub trait Dataplane: Send + Sync {
    /// Waits until every worker forwards by a generation and has decided its flows anew; false when time ran out.
    fn wait_for_generation(&self, generation: u64, timeout: Duration) -> bool;

    /// At most this many flows.
    fn flows(&self, limit: usize) -> Vec<Flow>;

    /// Sums over all workers, and what their ports count. Ports are named by their number.
    fn counters(&self) -> Counters;

    /// Takes new ports in; one with the number of an old one replaces it.
    fn add_ports(&self, ports: Vec<(PortId, Queues)>);

    /// Lets ports go; their devices are closed when this returns.
    fn remove_ports(&self, ports: &[PortId]);
}

/// A flow, with both sides as the packets carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// IP protocol number.
    pub protocol: u8,
    /// Where its first packet entered.
    pub ingress: PortId,
    /// Source address and port there.
    pub source: (IpAddr, u16),
    /// Destination address and port there.
    pub destination: (IpAddr, u16),
    /// Where it leaves.
    pub egress: PortId,
    /// Source address and port that the next network sees.
    pub presented: (IpAddr, u16),
    /// Type of its next hop.
    pub next_hop_type: NextHopType,
    /// How far the conversation is: `established`.
    pub phase: &'static str,
    /// Packets there and back.
    pub packets: [u64; 2],
    /// Bytes there and back.
    pub bytes: [u64; 2],
}

/// Opens devices.
pub trait Devices: Send + Sync {
    /// Opens the device of a port, with its addresses and routes.
    ///
    /// # Errors
    /// [`Refusal::Failed`] or [`Refusal::Conflict`], naming port and interface; then nothing is left of it.
    fn open(&self, attachment: &Attachment) -> Result<Queues, Refusal>;

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

    fn flows(&self, limit: usize) -> Vec<Flow> {
        let flow = |flow: FlowSummary| Flow {
            protocol: flow.protocol,
            ingress: flow.ingress,
            source: flow.source,
            destination: flow.destination,
            egress: flow.egress,
            presented: flow.presented,
            next_hop_type: flow.state.next_hop_type,
            phase: flow.state.phase.name(),
            packets: flow.state.packets,
            bytes: flow.state.bytes,
        };
        worker::Handle::flows(self, limit).into_iter().map(flow).collect()
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

    fn add_ports(&self, ports: Vec<(PortId, Queues)>) {
        worker::Handle::add_ports(self, ports);
    }

    fn remove_ports(&self, ports: &[PortId]) {
        worker::Handle::remove_ports(self, ports);
    }
}
