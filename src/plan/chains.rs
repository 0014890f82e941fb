//! The prefixes of many lists as chains: for each prefix, which lists contain it and the prefixes around it.
//!
//! What a table decides for an address depends only on the lists that contain the address, in the order of the lengths
//! of the prefixes by which they do. Few such chains exist, however many prefixes there are: all prefixes of one tag
//! below the default route have the same one. So every decision is made once for a chain, not once for a prefix.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::lists::ListId;
use crate::table::prefix::Address;

/// An address family: how its prefixes are read.
pub(crate) trait Family: Address + std::hash::Hash {
    /// Address and length of a prefix of this family.
    fn prefix(prefix: &IpNet) -> Option<(Self, u8)>;
    /// An address of this family.
    fn from_address(address: IpAddr) -> Option<Self>;
    /// The address that an integer stands for.
    fn to_address(self) -> IpAddr;
}

impl Family for u32 {
    fn prefix(prefix: &IpNet) -> Option<(Self, u8)> {
        match prefix {
            IpNet::V4(prefix) => Some((prefix.network().to_bits(), prefix.prefix_len())),
            IpNet::V6(_) => None,
        }
    }

    fn from_address(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address.to_bits()),
            IpAddr::V6(_) => None,
        }
    }

    fn to_address(self) -> IpAddr {
        Ipv4Addr::from_bits(self).into()
    }
}

impl Family for u128 {
    fn prefix(prefix: &IpNet) -> Option<(Self, u8)> {
        match prefix {
            IpNet::V4(_) => None,
            IpNet::V6(prefix) => Some((prefix.network().to_bits(), prefix.prefix_len())),
        }
    }

    fn from_address(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address.to_bits()),
        }
    }

    fn to_address(self) -> IpAddr {
        Ipv6Addr::from_bits(self).into()
    }
}

/// A chain: what contains a prefix.
#[derive(Debug)]
pub(crate) struct Node<A> {
    /// The chain of the next shorter prefix; always before this one in [`Chains::nodes`].
    pub(crate) parent: Option<u32>,
    /// Lists that have the prefix itself, ascending.
    pub(crate) lists: Vec<ListId>,
    /// Set where the prefix is an address that a NIC or service has; then no other prefix shares the chain.
    pub(crate) host: Option<A>,
    /// How many chains are above.
    pub(crate) depth: u8,
}

/// What tells chains apart: parent, lists and host of a [`Node`].
type Identity<A> = (Option<u32>, Vec<ListId>, Option<A>);

/// The chains of a set of prefixes.
#[derive(Debug)]
pub(crate) struct Chains<A> {
    /// Distinct chains.
    pub(crate) nodes: Vec<Node<A>>,
    /// Distinct prefixes, each after those that contain it: address, length, chain.
    pub(crate) prefixes: Vec<(A, u8, u32)>,
}

impl<A: Family> Chains<A> {
    /// Builds the chains of lists and host addresses.
    pub(crate) fn build<'l>(
        lists: impl IntoIterator<Item = (ListId, &'l [IpNet])>,
        hosts: impl IntoIterator<Item = A>,
    ) -> Self {
        let mut entries: Vec<(A, u8, Option<ListId>)> = Vec::new();
        for (list, prefixes) in lists {
            entries
                .extend(prefixes.iter().filter_map(A::prefix).map(|(address, length)| (address, length, Some(list))));
        }
        entries.extend(hosts.into_iter().map(|address| (address, A::BITS, None)));
        // A prefix comes right before everything inside it.
        entries.sort_unstable();
        entries.dedup();

        let mut chains = Self { nodes: Vec::new(), prefixes: Vec::new() };
        let mut known: HashMap<Identity<A>, u32> = HashMap::new();
        let mut around: Vec<(A, u8, u32)> = Vec::new();
        for same in entries.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
            let Some(&(address, length, _)) = same.first() else { continue };
            while around.pop_if(|(outer, shorter, _)| address.masked(*shorter) != *outer).is_some() {}
            let parent = around.last().map(|(_, _, node)| *node);
            let lists: Vec<ListId> = same.iter().filter_map(|(_, _, list)| *list).collect();
            let host = same.iter().any(|(_, _, list)| list.is_none()).then_some(address);
            let nodes = &mut chains.nodes;
            let node = *known.entry((parent, lists, host)).or_insert_with_key(|(parent, lists, host)| {
                let depth = parent.and_then(|parent| nodes.get(parent as usize)).map_or(0, |parent| parent.depth + 1);
                nodes.push(Node { parent: *parent, lists: lists.clone(), host: *host, depth });
                (nodes.len() - 1) as u32
            });
            chains.prefixes.push((address, length, node));
            around.push((address, length, node));
        }
        chains
    }

    /// The lists of a chain from the longest prefix to the shortest, each with its depth.
    pub(crate) fn lists(&self, node: u32) -> impl Iterator<Item = (u8, ListId)> {
        let chain = std::iter::successors(self.nodes.get(node as usize), |node| {
            node.parent.and_then(|parent| self.nodes.get(parent as usize))
        });
        chain.flat_map(|node| node.lists.iter().map(|list| (node.depth, *list)))
    }
}
