//! Tags of virtual networks and subnets, and the `identity6` addresses that carry them.
//!
//! # Layout
//! That of the addresses that storage logs show (there is no published specification): 32 bits prefix, 16 bits region,
//! 32 bits network tag, 16 bits subnet tag, 32 bits private IPv4 address; region and tags little endian. The upper byte
//! of a network tag is the lower byte of the region.
//!
//! # Tags
//! The lower 24 bits of a network's tag are its `traffic_tag` in the document; else what it had in the snapshot before;
//! else the hash of its name (FNV-1a of the lower case, folded to 24 bits), or the next number that no other network
//! has or had. A subnet's tag is its `traffic_tag`; else what it had in the snapshot before; else the lowest number
//! from 1 on, in the order of the document, that no subnet of the network has or had: a service that admits a subnet
//! never admits another by mistake, not even one that is made anew under the same name. Only a `traffic_tag` of the
//! document gives a number a second time: then the operator says that it is the same subnet.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::PlanError;
use crate::model::network::{Network, SubnetRef};
use crate::snapshot::{SubnetIdentity, SubnetKey};

/// The bits of a network's tag that are not the region's.
const OWN_BITS: u32 = 0x00ff_ffff;

/// An `identity6` address, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityAddress {
    /// The upper 32 bits.
    pub prefix: u32,
    /// Number of the region.
    pub region: u16,
    /// Tag of the virtual network.
    pub network_tag: u32,
    /// Tag of the subnet.
    pub subnet_tag: u16,
    /// The private address.
    pub private: Ipv4Addr,
}

impl From<IdentityAddress> for Ipv6Addr {
    fn from(parts: IdentityAddress) -> Self {
        let mut octets = [0; 16];
        octets[..4].copy_from_slice(&parts.prefix.to_be_bytes());
        octets[4..6].copy_from_slice(&parts.region.to_le_bytes());
        octets[6..10].copy_from_slice(&parts.network_tag.to_le_bytes());
        octets[10..12].copy_from_slice(&parts.subnet_tag.to_le_bytes());
        octets[12..].copy_from_slice(&parts.private.octets());
        octets.into()
    }
}

impl From<Ipv6Addr> for IdentityAddress {
    fn from(address: Ipv6Addr) -> Self {
        let [p0, p1, p2, p3, r0, r1, n0, n1, n2, n3, s0, s1, a, b, c, d] = address.octets();
        Self {
            prefix: u32::from_be_bytes([p0, p1, p2, p3]),
            region: u16::from_le_bytes([r0, r1]),
            network_tag: u32::from_le_bytes([n0, n1, n2, n3]),
            subnet_tag: u16::from_le_bytes([s0, s1]),
            private: Ipv4Addr::new(a, b, c, d),
        }
    }
}

/// The tags of every subnet, in the order of the document; behind them the retired ones.
///
/// # Errors
/// [`PlanError::TooManySubnetTags`].
pub(super) fn assign(
    network: &Network,
    regions: &[u16],
    previous: &[SubnetIdentity],
) -> Result<Vec<SubnetIdentity>, PlanError> {
    let tags = network_tags(network, previous);
    let living: HashMap<(String, String), u16> =
        previous.iter().filter(|known| !known.retired).map(|known| (key(known), known.subnet_tag)).collect();
    let retired: HashSet<(u32, u16)> = previous.iter().filter(|known| known.retired).map(pair).collect();
    let mut taken: HashSet<(u32, u16)> = previous.iter().map(pair).collect();
    let mut assigned = Vec::new();
    let mut in_use = HashSet::new();
    for ((declared, own), region) in network.virtual_networks.iter().zip(tags).zip(regions) {
        let given: HashSet<u16> = declared.subnets.iter().filter_map(|subnet| subnet.traffic_tag).collect();
        taken.extend(given.iter().map(|tag| (own, *tag)));
        let kept = |name: &str| {
            let tag = *living.get(&(declared.name.to_ascii_lowercase(), name.to_ascii_lowercase()))?;
            (!given.contains(&tag) && !retired.contains(&(own, tag))).then_some(tag)
        };
        let kept: Vec<Option<u16>> = declared.subnets.iter().map(|subnet| kept(&subnet.name)).collect();
        taken.extend(kept.iter().flatten().map(|tag| (own, *tag)));
        let mut free = 1..=u16::MAX;
        for (subnet, kept) in declared.subnets.iter().zip(kept) {
            let tag = subnet.traffic_tag.or(kept).or_else(|| free.find(|tag| !taken.contains(&(own, *tag))));
            let tag = tag.ok_or_else(|| PlanError::TooManySubnetTags(declared.name.clone()))?;
            in_use.insert((own, tag));
            assigned.push(SubnetIdentity {
                network: declared.name.clone(),
                subnet: subnet.name.clone(),
                network_tag: u32::from(region & 0xff) << 24 | own,
                subnet_tag: tag,
                retired: false,
            });
        }
    }
    let retired = previous.iter().filter(|known| !in_use.contains(&pair(known)));
    assigned.extend(retired.map(|known| SubnetIdentity { retired: true, ..known.clone() }));
    Ok(assigned)
}

/// The lower 24 bits of every network's tag.
fn network_tags(network: &Network, previous: &[SubnetIdentity]) -> Vec<u32> {
    let mut before: HashMap<String, u32> = HashMap::new();
    // The living ones count, and they come first.
    for known in previous {
        before.entry(known.network.to_ascii_lowercase()).or_insert(known.network_tag & OWN_BITS);
    }
    let networks = &network.virtual_networks;
    let given: HashSet<u32> = networks.iter().filter_map(|network| network.traffic_tag).collect();
    let mut taken: HashSet<u32> =
        previous.iter().map(|known| known.network_tag & OWN_BITS).chain(given.clone()).collect();
    let tag = |network: &crate::model::network::VirtualNetwork| {
        let kept = || before.get(&network.name.to_ascii_lowercase()).copied().filter(|tag| !given.contains(tag));
        network.traffic_tag.or_else(kept).unwrap_or_else(|| {
            let mut tag = hash(&network.name);
            // A document has at most a thousand networks, a process not many more: there is a free number.
            while !taken.insert(tag) {
                tag = (tag + 1) & OWN_BITS;
            }
            tag
        })
    };
    networks.iter().map(tag).collect()
}

/// FNV-1a of a name in lower case, its upper byte folded into the lower three.
fn hash(name: &str) -> u32 {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193));
    (hash >> 24) ^ (hash & OWN_BITS)
}

fn key(known: &SubnetIdentity) -> (String, String) {
    (known.network.to_ascii_lowercase(), known.subnet.to_ascii_lowercase())
}

/// What must differ between subnets, whatever the region.
fn pair(known: &SubnetIdentity) -> (u32, u16) {
    (known.network_tag & OWN_BITS, known.subnet_tag)
}

/// The tags of a subnet; `identities` are those that [`assign`] made.
fn find<'i>(network: &Network, identities: &'i [SubnetIdentity], subnet: SubnetRef) -> Option<&'i SubnetIdentity> {
    let before: usize = network.virtual_networks[..subnet.virtual_network].iter().map(|it| it.subnets.len()).sum();
    identities.get(before + subnet.subnet)
}

/// The identity of a subnet; `identities` are those that [`assign`] made.
pub(super) fn of_subnet(network: &Network, identities: &[SubnetIdentity], subnet: SubnetRef) -> Option<SubnetKey> {
    find(network, identities, subnet).map(SubnetIdentity::key)
}

/// The upper 96 bits of a subnet's addresses; `identities` are those that [`assign`] made.
pub(super) fn source(
    network: &Network,
    regions: &[u16],
    identities: &[SubnetIdentity],
    subnet: SubnetRef,
) -> Option<Ipv6Addr> {
    let found = find(network, identities, subnet)?;
    let region = *regions.get(subnet.virtual_network)?;
    let [p0, p1, p2, p3, ..] = network.identity.prefix.octets();
    let parts = IdentityAddress {
        prefix: u32::from_be_bytes([p0, p1, p2, p3]),
        region,
        network_tag: found.network_tag,
        subnet_tag: found.subnet_tag,
        private: Ipv4Addr::UNSPECIFIED,
    };
    Some(parts.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_samples_are_taken_apart_and_put_together() {
        for (sample, region, network_tag, subnet_tag, private) in [
            ("fde4:8dba:1200:98db:6a12:300:a02:126", 18, 0x126a_db98, 3, "10.2.1.38"),
            ("fde4:8dba:1f00:8ef5:6c1f:100:c0a8:fa06", 31, 0x1f6c_f58e, 1, "192.168.250.6"),
        ] {
            let address: Ipv6Addr = sample.parse().unwrap();
            let parts = IdentityAddress::from(address);
            let private = private.parse().unwrap();
            assert_eq!(parts, IdentityAddress { prefix: 0xfde4_8dba, region, network_tag, subnet_tag, private });
            assert_eq!(Ipv6Addr::from(parts), address);
        }
    }

    #[test]
    fn the_hash_is_the_same_for_ever() {
        // FNV-1a of "a" is e40c292c, that of "foobar" bf9cf968.
        assert_eq!(hash("a"), 0x0c_292c ^ 0xe4);
        assert_eq!(hash("FooBar"), 0x9c_f968 ^ 0xbf);
    }
}
