//! Who was denied what, and why: records for people, made where a policy or a firewall says no.
//!
//! Workers put them into a bounded queue that the control side empties; what does not fit is counted. Nothing waits.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::queue::ArrayQueue;

use super::verdict::DropReason;
use crate::packet::server_name::Unnamed;
use crate::snapshot::{PortId, ResourceId, SubnetKey};

/// Records that wait for the control side: 16,000 a second if it looks four times in one.
const WAITING: usize = 4_096;

/// One denial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: DropReason,
    /// IP protocol number.
    pub protocol: u8,
    /// Where the packet entered.
    pub ingress: PortId,
    /// Its source there.
    pub source: (IpAddr, u16),
    /// The source address that the service would see, or sees: none where that was not decided.
    pub presented: Option<IpAddr>,
    /// Its destination.
    pub destination: (IpAddr, u16),
    /// Whether it came over an endpoint.
    pub endpoint: bool,
    /// The identity of the subnet, over an endpoint.
    pub identity: Option<SubnetKey>,
    /// The resource, where it is known.
    pub resource: Option<ResourceId>,
    /// The name that the connection gave.
    pub name: Option<String>,
    /// Why it gave none.
    pub unnamed: Option<Unnamed>,
    /// The port of the resource that answers in place of the one that was wanted.
    pub answered_at: Option<u16>,
    /// Whether the resource is a database server of Azure SQL.
    pub is_sql: bool,
    /// The generation that it was decided under.
    pub generation: u64,
}

impl Denial {
    /// The number of the error that Azure SQL gives (Azure, "Use virtual network service endpoints and rules for servers"):
    /// 40914 where the subnet has the endpoint and no rule admits it, 40615 where no rule admits the public address.
    pub fn error(&self) -> Option<u16> {
        let is_denied = self.is_sql && self.reason == DropReason::FirewallDenied;
        is_denied.then_some(if self.endpoint { 40914 } else { 40615 })
    }
}

/// The records that wait.
#[derive(Debug)]
pub struct Denials {
    waiting: ArrayQueue<Denial>,
    lost: AtomicU64,
}

impl Denials {
    pub(super) fn new() -> Self {
        Self { waiting: ArrayQueue::new(WAITING), lost: AtomicU64::new(0) }
    }

    /// Adds a record, or counts it as lost.
    pub(super) fn add(&self, denial: Denial) {
        if self.waiting.push(denial).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// The oldest record.
    pub fn take(&self) -> Option<Denial> {
        self.waiting.pop()
    }

    /// How many records found no room.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
}
