//! What `VirtualNetwork` and `Internet` stand for where a group is used (Azure, "Virtual network service tags").
//!
//! `VirtualNetwork` is the address space of the network; of the networks that it is peered with and may reach by
//! `allow_virtual_network_access` of its own side of the peering; what the virtual network gateway has learned, where the
//! network has it or uses that of a peer, whether or not a route table stops propagation; the address of the host; and
//! every prefix of a route of the subnet's route table, whatever its next hop, service tags included. So a route for
//! 0.0.0.0/0, learned or written, makes it contain every IPv4 address, as Azure's page says: `AllowVnetInBound` and
//! `AllowVnetOutBound` then allow everything of that family, and rules that mean to deny have to come before them.
//!
//! `Internet` is every public address outside the spaces of the network, of all its peers, and of on-premises, Azure's
//! own addresses included. Prefixes of route tables and default routes change nothing about it: they say how an address is
//! reached, not whose it is. So with a route for 0.0.0.0/0 a public address is in both tags.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv4Subnets, Ipv6Net, Ipv6Subnets};

use crate::model::network::{AddressPrefix, Network, RouteTable};
use crate::plan::effective::reaches_gateway;
use crate::tags::Catalogue;

/// The address of the host: DNS, DHCP, and the source of probes.
pub(super) const PLATFORM_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16));
/// The instance metadata service.
pub(super) const PLATFORM_IMDS: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// IPv4 prefixes that are not public (RFC 6890): this network, private use, shared by carriers, loopback, link-local,
/// multicast, reserved; and Azure's platform. Ranges for documentation and benchmarks count as public: networks in a
/// laboratory use them as such.
const NOT_PUBLIC: [(Ipv4Addr, u8); 10] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// IPv6 prefixes that are public: what is given out of global unicast (RFC 4291 section 2.4), and IPv4 addresses behind a
/// translator (RFC 6052).
const PUBLIC_V6: [(Ipv6Addr, u8); 2] =
    [(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96), (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)];

/// `VirtualNetwork` in subnets of a network with a route table.
pub(super) fn virtual_network(
    network: &Network,
    own: usize,
    table: Option<&RouteTable>,
    catalogue: &Catalogue,
) -> Vec<IpNet> {
    let declared = &network.virtual_networks[own];
    let mut prefixes = declared.address_space.clone();
    for peering in declared.peerings.iter().filter(|peering| peering.allow_virtual_network_access) {
        prefixes.extend(&network.virtual_networks[peering.remote].address_space);
    }
    prefixes.extend(on_premises(network, own));
    prefixes.push(PLATFORM_DNS.into());
    for route in table.iter().flat_map(|table| &table.routes) {
        match &route.address_prefix {
            AddressPrefix::Prefix(prefix) => prefixes.push(*prefix),
            AddressPrefix::ServiceTag(tag) => prefixes.extend(catalogue.get(tag).iter().flat_map(|tag| tag.prefixes())),
        }
    }
    prefixes
}

/// `Internet` in a network, as the fewest prefixes.
pub(super) fn internet(network: &Network, own: usize) -> Vec<IpNet> {
    let declared = &network.virtual_networks[own];
    let peers = declared.peerings.iter().flat_map(|peering| &network.virtual_networks[peering.remote].address_space);
    let spaces = declared.address_space.iter().chain(peers).copied();
    let spaces = spaces.chain(on_premises(network, own).filter(|prefix| prefix.prefix_len() > 0));
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for space in spaces {
        match space {
            IpNet::V4(space) => v4.push(range_v4(space)),
            IpNet::V6(space) => v6.push(range_v6(space)),
        }
    }
    v4.extend(NOT_PUBLIC.iter().map(|(address, length)| range_v4(Ipv4Net::new_assert(*address, *length))));
    let public_v4 = without((0, u32::MAX.into()), v4).into_iter().flat_map(|(first, last)| {
        Ipv4Subnets::new(Ipv4Addr::from_bits(first as u32), Ipv4Addr::from_bits(last as u32), 0)
    });
    let public_v6 = PUBLIC_V6.iter().map(|(address, length)| range_v6(Ipv6Net::new_assert(*address, *length)));
    let public_v6 = public_v6
        .flat_map(|public| without(public, v6.clone()))
        .flat_map(|(first, last)| Ipv6Subnets::new(Ipv6Addr::from_bits(first), Ipv6Addr::from_bits(last), 0));
    public_v4.map(IpNet::V4).chain(public_v6.map(IpNet::V6)).collect()
}

/// The prefixes behind the gateway that a network reaches.
fn on_premises(network: &Network, own: usize) -> impl Iterator<Item = IpNet> {
    let gateway = network.gateway.as_ref().filter(|_| reaches_gateway(network, own));
    gateway.into_iter().flat_map(|gateway| gateway.learned_routes.iter().copied())
}

/// First and last address of a range, as numbers.
type Range = (u128, u128);

fn range_v4(prefix: Ipv4Net) -> Range {
    (prefix.network().to_bits().into(), prefix.broadcast().to_bits().into())
}

fn range_v6(prefix: Ipv6Net) -> Range {
    (prefix.network().to_bits(), prefix.broadcast().to_bits())
}

/// What is left of a range, in order.
fn without((first, last): Range, mut taken: Vec<Range>) -> Vec<Range> {
    taken.retain(|(from, to)| *to >= first && *from <= last);
    taken.sort_unstable();
    let mut left = Vec::new();
    let mut next = Some(first);
    for (from, to) in taken {
        let Some(start) = next else { break };
        if from > start {
            left.push((start, from - 1));
        }
        next = if to < start { Some(start) } else { to.checked_add(1).filter(|next| *next <= last) };
    }
    left.extend(next.map(|start| (start, last)));
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_taken_away() {
        assert_eq!(without((0, 9), vec![]), [(0, 9)]);
        assert_eq!(without((0, 9), vec![(0, 9)]), []);
        assert_eq!(without((0, 9), vec![(5, 6), (2, 3), (2, 2), (6, 7)]), [(0, 1), (4, 4), (8, 9)]);
        assert_eq!(without((4, 9), vec![(0, 4), (9, 12), (20, 30)]), [(5, 8)]);
        assert_eq!(without((0, u128::MAX), vec![(1, u128::MAX)]), [(0, 0)]);
    }
}
