//! How traffic presents itself: pools and their numbers, what each NIC becomes on the internet, and what each endpoint
//! makes of its subnet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::ports::{v4, v6};
use super::{PlanError, identity};
use crate::model::network::{self as model, FlowLifetimes, NatProtocols, Network, Nic, SubnetRef, Translation};
use crate::snapshot::{
    EndpointSource, Filtering, Identity6, Lifetimes, Mapping, Outbound, Pool, PoolId, PoolKind, Snapshot,
    SubnetIdentity,
};
use crate::table::port_pool::PortRange;

/// Ports of NAT gateways and default outbound access: 64,512 for each address (Azure, "Azure NAT Gateway").
const PORTS: PortRange = PortRange { first: 1024, last: u16::MAX };

/// What a network's traffic presents itself with.
pub(super) struct Sources<'n> {
    network: &'n Network,
    /// The number of each virtual network's region.
    regions: &'n [u16],
    /// The tags of every subnet, and the retired ones.
    pub(super) identities: Vec<SubnetIdentity>,
    /// Every pool by its number, vacant numbers included.
    pub(super) pools: Vec<Pool>,
    /// The number of each pool in the order of [`declared`].
    numbers: Vec<PoolId>,
}

impl<'n> Sources<'n> {
    /// Numbers what a network has; `regions` are the numbers of its virtual networks' regions. Tags of subnets and numbers of pools that `previous` has stay; a number
    /// that loses its pool now stays vacant for one snapshot at least, so that no flow can take another pool for its own.
    ///
    /// # Errors
    /// [`PlanError::TooManySubnetTags`].
    pub(super) fn new(
        network: &'n Network,
        regions: &'n [u16],
        previous: Option<&Snapshot>,
    ) -> Result<Self, PlanError> {
        let tags = previous.map(|before| &*before.identities).unwrap_or_default();
        let before = previous.map(|before| &*before.pools).unwrap_or_default();
        let mut pools: Vec<Pool> = before.iter().map(|_| vacant()).collect();
        let mut free = (0..before.len()).filter(|number| before[*number].kind == PoolKind::Vacant);
        let mut numbers = Vec::new();
        for pool in declared(network) {
            let kept = before.iter().position(|old| old.kind == pool.kind && old.name == pool.name);
            let number = kept.or_else(|| free.next()).unwrap_or(pools.len());
            match pools.get_mut(number) {
                Some(place) => *place = pool,
                None => pools.push(pool),
            }
            numbers.push(PoolId(number as u16));
        }
        Ok(Self { network, regions, identities: identity::assign(network, regions, tags)?, pools, numbers })
    }

    fn nat_gateway(&self, index: usize) -> Option<PoolId> {
        self.numbers.get(usize::from(self.network.internet.is_some()) + index).copied()
    }

    fn snat_pool(&self, index: usize) -> Option<PoolId> {
        let before = usize::from(self.network.internet.is_some()) + self.network.nat_gateways.len();
        self.numbers.get(before + index).copied()
    }

    /// How a NIC gets a public source.
    pub(super) fn outbound(&self, nic: &Nic) -> Outbound {
        let subnet = self.network.subnet(nic.subnet);
        Outbound {
            nat_gateway: subnet.nat_gateway.and_then(|index| self.nat_gateway(index)),
            instance: instance_addresses(nic).collect(),
            default: self
                .numbers
                .first()
                .copied()
                .filter(|_| self.network.internet.is_some() && subnet.default_outbound_access),
        }
    }

    /// How the endpoints of a subnet present its traffic, in their order.
    pub(super) fn endpoints(&self, subnet: SubnetRef) -> Vec<EndpointSource> {
        let endpoints = &self.network.subnet(subnet).service_endpoints;
        let compiled = |source: &model::EndpointSource| match source {
            model::EndpointSource::Private => EndpointSource::Private,
            model::EndpointSource::PrefixMap(pairs) => EndpointSource::PrefixMap(pairs.clone()),
            model::EndpointSource::Identity6 => {
                match identity::source(self.network, self.regions, &self.identities, subnet) {
                    Some(source) => {
                        let destination = self.network.identity.destination_prefix;
                        EndpointSource::Identity6(Identity6 { source, destination })
                    }
                    None => nothing(),
                }
            }
            model::EndpointSource::Snat(index) => self.snat_pool(*index).map_or_else(nothing, EndpointSource::Snat),
        };
        endpoints.iter().map(|endpoint| compiled(&endpoint.source)).collect()
    }
}

/// A source that denies every packet.
fn nothing() -> EndpointSource {
    EndpointSource::PrefixMap(Vec::new())
}

/// The pools of a network: default outbound access if there is an internet edge, NAT gateways, SNAT pools.
fn declared(network: &Network) -> impl Iterator<Item = Pool> {
    let restricted = network.semantics.nat_protocols == NatProtocols::TcpAndUdp;
    let own = lifetimes(&network.flows.lifetimes, Lifetimes::RFC);
    // Its ports are everybody's, as a NAT gateway's are: Azure's figures, where the document gives none.
    let shared = lifetimes(&network.flows.lifetimes, Lifetimes::NAT_GATEWAY);
    let default = network.internet.iter().map(move |internet| Pool {
        tcp_udp_only: restricted,
        ..pool(
            "default outbound access",
            PoolKind::DefaultOutbound,
            &internet.public_addresses,
            internet.translation,
            shared,
        )
    });
    let gateways = network.nat_gateways.iter().map(move |gateway| {
        let idle = milliseconds(gateway.idle_timeout);
        let azure = Lifetimes { established: idle, closing: idle, ..Lifetimes::NAT_GATEWAY };
        let lifetimes = lifetimes(&gateway.lifetimes, azure);
        let addresses = &gateway.public_addresses;
        Pool {
            tcp_udp_only: restricted,
            ..pool(&gateway.name, PoolKind::NatGateway, addresses, gateway.translation, lifetimes)
        }
    });
    let pools = network.snat_pools.iter().map(move |written| Pool {
        ports: PortRange { first: *written.ports.start(), last: *written.ports.end() },
        ..pool(&written.name, PoolKind::Snat, &written.addresses, written.translation, own)
    });
    default.chain(gateways).chain(pools)
}

/// A number without a pool.
fn vacant() -> Pool {
    pool("", PoolKind::Vacant, &[], Translation::default(), Lifetimes::RFC)
}

/// A NIC's private addresses with the public ones that they are, one to one: the first of each family.
pub(super) fn instance_addresses(nic: &Nic) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    nic.public_addresses.iter().filter_map(|public| {
        let private = nic.private_addresses.iter().find(|private| private.is_ipv4() == public.is_ipv4())?;
        Some((*private, *public))
    })
}

/// The IPv6 address that stands for each IPv4 address of a service: its own in the same place, else its first.
pub(super) fn identity_addresses(addresses: &[IpAddr]) -> Vec<(Ipv4Addr, Ipv6Addr)> {
    let six: Vec<Ipv6Addr> = addresses.iter().copied().filter_map(v6).collect();
    let pairs = addresses.iter().copied().filter_map(v4).enumerate();
    pairs.filter_map(|(place, v4)| Some((v4, *six.get(place).or_else(|| six.first())?))).collect()
}

/// A pool of every protocol and port.
fn pool(name: &str, kind: PoolKind, addresses: &[IpAddr], translation: Translation, lifetimes: Lifetimes) -> Pool {
    Pool {
        name: name.to_owned(),
        kind,
        v4: addresses.iter().copied().filter_map(v4).collect(),
        v6: addresses.iter().copied().filter_map(v6).collect(),
        ports: PORTS,
        mapping: match translation.mapping {
            model::Mapping::AddressAndPortDependent => Mapping::AddressAndPortDependent,
            model::Mapping::EndpointIndependent => Mapping::EndpointIndependent,
        },
        filtering: match translation.filtering {
            model::Filtering::AddressAndPortDependent => Filtering::AddressAndPortDependent,
            model::Filtering::AddressDependent => Filtering::AddressDependent,
            model::Filtering::EndpointIndependent => Filtering::EndpointIndependent,
        },
        tcp_udp_only: false,
        lifetimes,
    }
}

/// The lifetimes of a document; those that it does not give are the `default` ones.
pub(super) fn lifetimes(written: &FlowLifetimes, default: Lifetimes) -> Lifetimes {
    let or = |written: Option<Duration>, default| written.map_or(default, milliseconds);
    Lifetimes {
        query: or(written.icmp, default.query),
        datagram: or(written.udp, default.datagram),
        opening: or(written.tcp_opening, default.opening),
        established: or(written.tcp_established, default.established),
        closing: or(written.tcp_closing, default.closing),
        closed: or(written.tcp_closed, default.closed),
        aborted: or(written.tcp_reset, default.aborted),
        rest: or(written.port_rest, default.rest),
        rest_half_open: or(written.port_rest_half_open, default.rest_half_open),
    }
}

/// A duration of the document: a day at most.
fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
