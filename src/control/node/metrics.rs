//! What metrics and readiness are told from.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Current, Node};
use crate::control::answers::Counters;
use crate::control::ports::Attachment;
use crate::snapshot::{Mapping, PoolKind};
use crate::telemetry::metrics::{PoolSeen, PortSeen, Seen};
use crate::worker::{PortErrors, PortReport};

impl Node {
    /// What metrics tell, read now.
    pub fn seen(&self) -> Seen {
        let (current, workers, ports) = self.in_force();
        let without_device = missing(&current, &ports);
        // A port that a change is just adding has no name yet.
        let seen = |report: PortReport| {
            let attachment = current.attachments.iter().find(|attachment| attachment.port.0 == report.port)?;
            Some(PortSeen {
                port: attachment.name.clone(),
                worker: report.worker,
                traffic: report.traffic,
                device: report.device,
                counters: report.counters.into_iter().collect(),
            })
        };
        let pools = current.snapshot.pools.iter().zip(self.dataplane.pool_counts(current.snapshot.pools.len()));
        let pools = pools.filter(|(pool, _)| pool.kind != PoolKind::Vacant).map(|(pool, counts)| PoolSeen {
            name: pool.name.clone(),
            kind: pool.kind,
            addresses: [pool.v4.len() as u64, pool.v6.len() as u64],
            ports: pool.ports.count().into(),
            maps: pool.mapping == Mapping::EndpointIndependent,
            only_tcp_udp: pool.tcp_udp_only,
            counts,
        });
        let pools = pools.collect();
        let failed = |errors: PortErrors| {
            let attachment = current.attachments.iter().find(|attachment| attachment.port == errors.port)?;
            Some((attachment.name.clone(), errors))
        };
        let port_errors = self.dataplane.port_errors().into_iter().filter_map(failed).collect();
        Seen {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            generation: current.snapshot.generation,
            in_force_since: unix(current.since),
            compiled_in: current.compiled_in.as_secs_f64(),
            started: unix(self.started_at),
            flow_limit: current.snapshot.flow_limit.into(),
            flow_log: self.flow_log.totals(),
            ready: without_device.is_empty() && !self.is_draining(),
            draining: self.is_draining(),
            workers,
            ports: ports.into_iter().filter_map(seen).collect(),
            port_errors,
            pools,
        }
    }

    /// Ports whose device a worker has lost: none in a node that is ready.
    pub fn without_device(&self) -> Vec<String> {
        let (current, _, ports) = self.in_force();
        missing(&current, &ports)
    }

    /// What is in force, and what the workers have for it; asked again where a change came in between.
    pub(super) fn in_force(&self) -> (Arc<Current>, Vec<Counters>, Vec<PortReport>) {
        loop {
            let current = self.current();
            let (workers, ports) = self.dataplane.workers();
            if Arc::ptr_eq(&current, &self.current()) {
                return (current, workers, ports);
            }
        }
    }
}

/// Names of ports of which not every worker has a queue.
fn missing(current: &Current, reports: &[PortReport]) -> Vec<String> {
    let whole = |attachment: &&Attachment| {
        let queues = reports.iter().filter(|report| report.port == attachment.port.0).count();
        queues < usize::from(current.network.workers)
    };
    current.attachments.iter().filter(whole).map(|attachment| attachment.name.clone()).collect()
}

/// Seconds since 1970 UTC.
fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
