//! Third stage: which source address does the next network see?
//!
//! Inside the network and to the gateway it stays. Towards a service over an endpoint it is what the endpoint says.
//! Towards the internet and, without an endpoint, towards services it becomes a public address: of the subnet's NAT
//! gateway, else the NIC's own, else that of default outbound access. Where a policy gives no address to use, the packet
//! is denied, never sent untranslated.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::observer::{Observer, StageRecord};
use super::subject::Subject;
use super::verdict::DropReason;
use crate::packet::parse::protocol;
use crate::snapshot::{EndpointSource, Identity6, Pool, PoolId, PortEntry, PortId, Snapshot, SourceAction};

/// The source address that the next network sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented {
    /// The packet's own.
    Own,
    /// Another address, one to one; ports stay.
    OneToOne(IpAddr),
    /// An address and port of a pool, chosen when the flow is made.
    Pool(PoolId),
    /// IPv6 addresses that stand for the packet's IPv4 ones.
    Identity6 {
        /// Identity and private address.
        source: Ipv6Addr,
        /// The service.
        destination: Ipv6Addr,
    },
}

/// Chooses the source address of what entered through `port` and leaves through `egress`.
///
/// # Errors
/// The reason to deny the packet.
pub fn choose(
    snapshot: &Snapshot,
    port: &PortEntry,
    subject: &Subject,
    action: SourceAction,
    egress: PortId,
    observer: &mut impl Observer,
) -> Result<Presented, DropReason> {
    let (result, how) = match action {
        SourceAction::Keep => (Ok(Presented::Own), ""),
        SourceAction::Outbound => outbound(snapshot, port, subject),
        SourceAction::Endpoint(endpoint) => match port.endpoint_sources.get(usize::from(endpoint)) {
            Some(source) => at_endpoint(snapshot, source, subject, egress),
            None => (Err(DropReason::NoSourceAddress), "endpoint"),
        },
    };
    observer.stage(|| record(snapshot, subject, result, how));
    result
}

fn record(
    snapshot: &Snapshot,
    subject: &Subject,
    result: Result<Presented, DropReason>,
    how: &'static str,
) -> StageRecord {
    let decision = match result {
        Ok(Presented::Own) => format!("{} stays", subject.source),
        Ok(Presented::OneToOne(address)) => format!("becomes {address}, ports stay"),
        Ok(Presented::Pool(pool)) => {
            let pool = snapshot.pool(pool);
            let addresses = pool.map(|pool| match subject.source {
                IpAddr::V4(_) => joined(&pool.v4),
                IpAddr::V6(_) => joined(&pool.v6),
            });
            let name = pool.map_or("?", |pool| pool.name.as_str());
            format!("becomes {} of {name}, with a port of the pool", addresses.unwrap_or_default())
        }
        Ok(Presented::Identity6 { source, destination }) => format!("becomes {source}, towards {destination}"),
        Err(reason) => return StageRecord::new("source", format!("drop: {}", reason.name())).with(reason.text()),
    };
    let record = StageRecord::new("source", decision);
    if how.is_empty() { record } else { record.with(how) }
}

fn joined(addresses: &[impl ToString]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// The public source, in Azure's order. A method without an address of the packet's family is passed over.
fn outbound(snapshot: &Snapshot, port: &PortEntry, subject: &Subject) -> (Result<Presented, DropReason>, &'static str) {
    let has_family = |pool: PoolId| {
        snapshot.pool(pool).is_some_and(|pool| match subject.source {
            IpAddr::V4(_) => !pool.v4.is_empty(),
            IpAddr::V6(_) => !pool.v6.is_empty(),
        })
    };
    if let Some(pool) = port.outbound.nat_gateway.filter(|pool| has_family(*pool)) {
        return (of_pool(snapshot, pool, subject), "NAT gateway");
    }
    if let Some((_, public)) = port.outbound.instance.iter().find(|(private, _)| *private == subject.source) {
        return (Ok(Presented::OneToOne(*public)), "instance public address");
    }
    match port.outbound.default.filter(|pool| has_family(*pool)) {
        Some(pool) => (of_pool(snapshot, pool, subject), "default outbound access"),
        None => (Err(DropReason::NoOutboundAddress), ""),
    }
}

/// A pool, if it takes the packet's protocol.
fn of_pool(snapshot: &Snapshot, pool: PoolId, subject: &Subject) -> Result<Presented, DropReason> {
    let restricted = snapshot.pool(pool).is_some_and(|pool| pool.tcp_udp_only);
    if restricted && !matches!(subject.protocol, protocol::TCP | protocol::UDP) {
        return Err(DropReason::ProtocolNotTranslatable);
    }
    Ok(Presented::Pool(pool))
}

fn at_endpoint(
    snapshot: &Snapshot,
    source: &EndpointSource,
    subject: &Subject,
    egress: PortId,
) -> (Result<Presented, DropReason>, &'static str) {
    let none = Err(DropReason::NoSourceAddress);
    match source {
        EndpointSource::Private => (Ok(Presented::Own), "private"),
        EndpointSource::PrefixMap(pairs) => {
            let mapped = pairs.iter().find_map(|(from, to)| map(*from, *to, subject.source));
            (mapped.map(Presented::OneToOne).ok_or(DropReason::NoSourceAddress), "prefix_map")
        }
        EndpointSource::Identity6(identity) => {
            (identity6(snapshot, identity, subject, egress).ok_or(DropReason::NoSourceAddress), "identity6")
        }
        EndpointSource::Snat(pool) => {
            let has_family = snapshot.pool(*pool).is_some_and(|pool| match subject.source {
                IpAddr::V4(_) => !pool.v4.is_empty(),
                IpAddr::V6(_) => !pool.v6.is_empty(),
            });
            (if has_family { of_pool(snapshot, *pool, subject) } else { none }, "snat")
        }
    }
}

/// An address of one prefix at the same place of another, which is as long.
fn map(from: IpNet, to: IpNet, address: IpAddr) -> Option<IpAddr> {
    if !from.contains(&address) {
        return None;
    }
    match (address, from, to) {
        (IpAddr::V4(address), IpNet::V4(from), IpNet::V4(to)) => {
            let host = address.to_bits() & from.hostmask().to_bits();
            Some(std::net::Ipv4Addr::from_bits(to.network().to_bits() | host).into())
        }
        (IpAddr::V6(address), IpNet::V6(from), IpNet::V6(to)) => {
            let host = address.to_bits() & from.hostmask().to_bits();
            Some(Ipv6Addr::from_bits(to.network().to_bits() | host).into())
        }
        _ => None,
    }
}

/// Both addresses of a packet in IPv6: the private address under the identity; the service's own IPv6 address, else its
/// IPv4 address embedded (RFC 6052 section 2.2).
fn identity6(snapshot: &Snapshot, identity: &Identity6, subject: &Subject, egress: PortId) -> Option<Presented> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (subject.source, subject.destination) else { return None };
    let own = snapshot.port(egress)?.identity_addresses.iter().find(|(v4, _)| *v4 == destination);
    let embedded = || Ipv6Addr::from_bits(identity.destination.to_bits() | u128::from(destination.to_bits()));
    Some(Presented::Identity6 {
        source: Ipv6Addr::from_bits(identity.source.to_bits() | u128::from(source.to_bits())),
        destination: own.map_or_else(embedded, |(_, v6)| *v6),
    })
}

/// The address of a pool for a source: always the same one for the same source, so that a host shows one address (RFC
/// 4787 REQ-2). With `step` the others follow in turn, for when the first has no port left.
pub fn paired(pool: &Pool, source: IpAddr, step: usize) -> Option<IpAddr> {
    match source {
        IpAddr::V4(v4) => nth(&pool.v4, u128::from(v4.to_bits()), step).map(IpAddr::V4),
        IpAddr::V6(v6) => nth(&pool.v6, v6.to_bits(), step).map(IpAddr::V6),
    }
}

fn nth<T: Copy>(list: &[T], number: u128, step: usize) -> Option<T> {
    let count = u128::try_from(list.len()).ok()?;
    let index = usize::try_from(number.wrapping_add(step as u128).checked_rem(count)?).ok()?;
    list.get(index).copied()
}
