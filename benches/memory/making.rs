//! How fast flows are made and ended where their memory is there already, and what a flow takes of it.

use sidestep::path::Forwarder;
use sidestep::path::flow::{FlowState, Phase};
use sidestep::snapshot::{NextHopType, PortId};
use sidestep::table::flow::{FlowKey, FlowTable};
use sidestep::table::quota::Quota;

use crate::Measure;
use crate::batch::{Batch, Packets};
use crate::forwarding::{LIFETIME, Sink, forwarder, network_with_endpoint, packet, port, processor_time};
use crate::report::{Report, Wanted};

/// A step of CSIT's session scale.
const FLOWS: u32 = 1_032_192;

/// Flows that end at a time, as a worker lets them.
const ENDED: usize = 256;

/// A path that has made as many flows as it may, all of which have ended.
pub(crate) struct Making {
    vm1: PortId,
    forwarder: Forwarder,
    packets: Packets,
    batch: Batch,
    now: u64,
    flow_bytes: f64,
}

impl Making {
    /// Makes the flows and lets them end.
    pub(crate) fn new(report: &mut Report) -> Self {
        report.row("new_flows_per_s", "flows made in a second, no rules", Wanted::AtLeast(500_000.0));
        report.row("flow_lives_per_s", "flows made and ended in a second", Wanted::Anything);
        report.row("flow_bytes", "bytes of an IPv4 flow, 1,032,192 at one worker", Wanted::AtMost(128.0));
        let snapshot = network_with_endpoint(FLOWS);
        let vm1 = port(&snapshot, "vm1");
        let mut making = Self {
            vm1,
            forwarder: forwarder(snapshot, FLOWS as usize),
            packets: (0..FLOWS).map(packet).collect(),
            batch: Batch::new(8),
            now: 0,
            flow_bytes: flow_bytes(),
        };
        making.batch.pass(&mut making.forwarder, 0, vm1, &making.packets);
        making.end_all();
        making
    }

    fn end_all(&mut self) {
        assert_eq!(self.forwarder.flow_count(), FLOWS as usize);
        self.now += 2 * LIFETIME;
        while self.forwarder.flow_count() > 0 {
            self.forwarder.expire(self.now, ENDED, &mut Sink);
            // The wheel turns on where nothing is due yet.
            self.now += 64;
        }
    }
}

/// What a full table and the counts of all owners take, for each flow.
fn flow_bytes() -> f64 {
    let mut table = FlowTable::<u32, FlowState>::new(FLOWS as usize, 3);
    let quota = Quota::new(1 << 16);
    let state = FlowState::at(Phase::Datagram, NextHopType::VirtualNetworkServiceEndpoint, 1);
    for number in 0..FLOWS {
        let (source, destination) = (0x0a01_0000 + number % 60_000, 0x143c_0000 + number / 60_000);
        let key = |port| FlowKey::new(source, destination, number as u16, 443, port, 6);
        table.insert(key(0), key(1), state, LIFETIME, true).expect("room for the flow");
        quota.take(0, FLOWS, FLOWS).expect("room for the flow");
    }
    (table.memory() + quota.memory()) as f64 / f64::from(FLOWS)
}

impl Measure for Making {
    fn round(&mut self, report: &mut Report) {
        let made = self.batch.path(&mut self.forwarder, self.now, self.vm1, &self.packets);
        let start = processor_time();
        self.end_all();
        let ended = (processor_time() - start).as_nanos() as f64 / f64::from(FLOWS);
        report.note("new_flows_per_s", 1e9 / made);
        report.note("flow_lives_per_s", 1e9 / (made + ended));
        report.note("flow_bytes", self.flow_bytes);
    }
}
