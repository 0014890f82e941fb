//! The flow log of a node, from the workers' first record to their last.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Current, Loaded, Node};
use crate::control::flow_log::{FlowLogAnswer, FlowLogOptions, files};
use crate::control::refusal::Refusal;
use crate::control::round_trips::RoundTrip;
use crate::control::streamed::Streamed;
use crate::path::record::Records;
use crate::telemetry::ipfix::Exporter;
use crate::telemetry::vnet_flow_log::VnetFlowLog;

impl Loaded {
    /// The files of flow logs, if any are wanted.
    ///
    /// # Errors
    /// [`Refusal::Unknown`] for a target that is none.
    pub(in crate::control) fn flow_log_files(&self, options: &FlowLogOptions) -> Result<Option<VnetFlowLog>, Refusal> {
        files(options, &self.prepared.network)
    }
}

impl Node {
    /// Begins to log flows to what was opened for it, from the records that the workers make.
    ///
    /// # Errors
    /// When there is no thread.
    pub(in crate::control) fn start_flow_log(
        &self,
        records: Vec<Arc<Records>>,
        files: Option<VnetFlowLog>,
        interval: Duration,
        exporter: Option<Exporter>,
    ) -> io::Result<()> {
        self.flow_log.start(records, files, interval, exporter)
    }

    /// Takes records of flows in, and writes what is due. To be called many times a second; does nothing while nobody wants
    /// records.
    pub fn look_at_flow_log(&self) {
        let current = self.current();
        self.flow_log.look(&*self.dataplane, current.snapshot.generation, || regions(&current));
    }

    /// Whether records of flows are made.
    pub(in crate::control) fn logs_flows(&self) -> bool {
        self.flow_log.is_wanted()
    }

    /// The newest records of flows, up to a number. Nothing new comes while nobody wants records.
    pub fn flow_log(&self, limit: usize) -> FlowLogAnswer {
        self.look_at_flow_log();
        self.flow_log.newest(limit)
    }

    /// Every record of a flow from now on, as lines.
    ///
    /// # Errors
    /// [`Refusal::Conflict`] where as many follow as may.
    pub(in crate::control) fn follow_flow_log(&self) -> Result<Streamed, Refusal> {
        self.flow_log.follow(&*self.dataplane)
    }

    /// How long first answers took on each path since somebody asked last. While somebody asks again and again, workers tell.
    pub(in crate::control) fn round_trips(&self) -> Vec<RoundTrip> {
        self.flow_log.round_trips(&*self.dataplane)
    }
}

/// Regions of virtual networks by their names.
pub(super) fn regions(current: &Current) -> HashMap<String, String> {
    let networks = current.network.virtual_networks.iter();
    networks.map(|network| (network.name.clone(), network.location.clone())).collect()
}
