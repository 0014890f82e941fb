//! Where a chosen route takes a packet: the NIC, service or edge behind its next hop.

use std::collections::HashMap;
use std::net::IpAddr;

use super::effective::{NextHop, reaches_gateway};
use crate::model::network::Network;
use crate::snapshot::{SourceAction, Unroutable};

/// What a packet is delivered to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// A NIC, by its index.
    Nic(usize),
    /// The virtual network gateway.
    Gateway,
    /// The internet edge.
    Internet,
    /// Services without a resource of their own.
    Backbone,
    /// A resource of a service, by its index.
    Service(usize),
    /// The platform's addresses.
    Platform,
}

/// A packet's delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) target: Target,
    pub(crate) source: SourceAction,
    /// As in [`crate::snapshot::HopAction::Deliver`].
    pub(crate) forwarded_allowed: bool,
}

/// Whose table a route is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// The subnets of a virtual network, by its index.
    Network(usize),
    /// The virtual network gateway, which is in this network.
    Gateway(usize),
}

impl Owner {
    fn network(self) -> usize {
        match self {
            Self::Network(network) | Self::Gateway(network) => network,
        }
    }
}

/// Finds what is behind next hops: addresses of NICs by network, since unrelated networks may overlap, and of services.
#[derive(Debug)]
pub(crate) struct Resolver {
    nics: HashMap<(usize, IpAddr), usize>,
    services: HashMap<IpAddr, usize>,
}

impl Resolver {
    pub(crate) fn new(network: &Network) -> Self {
        let mut nics = HashMap::new();
        for (index, nic) in network.nics.iter().enumerate() {
            for address in &nic.private_addresses {
                nics.entry((nic.subnet.virtual_network, *address)).or_insert(index);
            }
        }
        let mut services = HashMap::new();
        for (index, service) in network.services.iter().enumerate() {
            for address in &service.addresses {
                services.entry(*address).or_insert(index);
            }
        }
        Self { nics, services }
    }

    /// Every address that is told apart from its neighbours, unordered; one may be there more than once.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.nics.keys().map(|(_, address)| *address).chain(self.services.keys().copied())
    }

    /// Follows a route's next hop for a destination. `None` stands for a destination that neither a NIC nor a service
    /// has.
    pub(crate) fn resolve(
        &self,
        network: &Network,
        owner: Owner,
        next_hop: NextHop,
        destination: Option<IpAddr>,
    ) -> Result<Delivery, Unroutable> {
        let own = owner.network();
        let at_gateway = matches!(owner, Owner::Gateway(_));
        let nic = |network: usize, address: IpAddr| self.nics.get(&(network, address)).copied();
        let service = || destination.and_then(|address| self.services.get(&address).copied());
        let deliver = |target, source, forwarded_allowed| Ok(Delivery { target, source, forwarded_allowed });
        // On-premises traffic reaches peers by gateway transit, which `allow_forwarded_traffic` does not concern.
        let forwarded = |remote: usize| at_gateway || takes_forwarded(network, own, remote);
        match next_hop {
            NextHop::None => Err(Unroutable::NextHopNone),
            NextHop::VnetLocal => {
                let nic = destination.and_then(|address| nic(own, address)).ok_or(Unroutable::AddressUnassigned)?;
                deliver(Target::Nic(nic), SourceAction::Keep, true)
            }
            NextHop::Peering(remote) => {
                let nic = destination.and_then(|address| nic(remote, address)).ok_or(Unroutable::AddressUnassigned)?;
                deliver(Target::Nic(nic), SourceAction::Keep, forwarded(remote))
            }
            NextHop::Appliance(address) => {
                let peers = network.virtual_networks[own].peerings.iter().map(|peering| peering.remote);
                let found = nic(own, address).map(|nic| (nic, true)).or_else(|| {
                    peers.into_iter().find_map(|remote| nic(remote, address).map(|nic| (nic, forwarded(remote))))
                });
                let (nic, forwarded_allowed) = found.ok_or(Unroutable::ApplianceUnreachable)?;
                // What is addressed to the appliance itself is not forwarded by it.
                if !network.nics[nic].ip_forwarding && destination != Some(address) {
                    return Err(Unroutable::ApplianceWithoutForwarding);
                }
                deliver(Target::Nic(nic), SourceAction::Keep, forwarded_allowed)
            }
            NextHop::Gateway | NextHop::Internet if at_gateway => Err(Unroutable::NoRoute),
            NextHop::Gateway if reaches_gateway(network, own) => deliver(Target::Gateway, SourceAction::Keep, true),
            NextHop::Gateway => Err(Unroutable::NoGateway),
            NextHop::Endpoint(number) => match service() {
                Some(service) => deliver(Target::Service(service), SourceAction::Endpoint(number), true),
                None if network.backbone.is_some() => deliver(Target::Backbone, SourceAction::Endpoint(number), true),
                None => Err(Unroutable::NoSuchResource),
            },
            NextHop::Internet => match service() {
                Some(service) => deliver(Target::Service(service), SourceAction::Outbound, true),
                None if network.internet.is_some() => deliver(Target::Internet, SourceAction::Outbound, true),
                None => Err(Unroutable::NoInternetEdge),
            },
        }
    }
}

/// Whether a peered network takes packets from `own` whose source is outside `own`'s address space.
fn takes_forwarded(network: &Network, own: usize, remote: usize) -> bool {
    let peerings = &network.virtual_networks[remote].peerings;
    peerings.iter().any(|peering| peering.remote == own && peering.allow_forwarded_traffic)
}
