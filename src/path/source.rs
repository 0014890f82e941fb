//! Third stage: which source address does the next network see?
//!
//! Inside the network, to the gateway and to endpoints it stays. Towards the internet and, without an endpoint, towards
//! services it becomes a public address of default outbound access, with a port of its own; where there is no such
//! address the packet is denied, never sent untranslated.

use std::net::IpAddr;

use super::observer::{Observer, StageRecord};
use super::subject::Subject;
use super::verdict::DropReason;
use crate::snapshot::{Snapshot, SourceAction};

/// The source address that the next network sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// The packet's own.
    Own,
    /// A public address; the port is chosen when the flow is made.
    Public(IpAddr),
}

/// Chooses the source address.
///
/// # Errors
/// The reason to deny the packet.
pub fn choose(
    snapshot: &Snapshot,
    subject: &Subject,
    action: SourceAction,
    observer: &mut impl Observer,
) -> Result<Presented, DropReason> {
    let result = match action {
        SourceAction::Keep => Ok(Presented::Own),
        SourceAction::DefaultOutbound => outbound(snapshot, subject).map(Presented::Public),
    };
    observer.stage(|| match result {
        Ok(Presented::Own) => StageRecord::new("source", format!("{} stays", subject.source)),
        Ok(Presented::Public(address)) => {
            StageRecord::new("source", format!("becomes {address}")).with("default outbound access")
        }
        Err(reason) => StageRecord::new("source", format!("drop: {}", reason.name())).with(reason.text()),
    });
    result
}

/// The public address of a source: always the same for the same one, so that a host shows one address (RFC 4787,
/// requirement 2).
fn outbound(snapshot: &Snapshot, subject: &Subject) -> Result<IpAddr, DropReason> {
    let address = match subject.source {
        IpAddr::V4(v4) => nth(&snapshot.outbound_v4, u128::from(v4.to_bits())).map(IpAddr::V4),
        IpAddr::V6(v6) => nth(&snapshot.outbound_v6, v6.to_bits()).map(IpAddr::V6),
    };
    address.ok_or(DropReason::NoOutboundAddress)
}

fn nth<T: Copy>(list: &[T], number: u128) -> Option<T> {
    let count = u128::try_from(list.len()).ok()?;
    let index = usize::try_from(number.checked_rem(count)?).ok()?;
    list.get(index).copied()
}
