//! The prefix lists that routes match: one for each service tag or set of tags that a route refers to, one for each
//! prefix that is written out. Routes that match the same prefixes share one list, also across subnets, so that the
//! compiler meets every prefix once.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

/// Index of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ListId(pub(crate) u32);

/// The address families that a virtual network has address space of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Families {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

impl Families {
    /// The families of some ranges.
    pub(crate) fn of(ranges: &[IpNet]) -> Self {
        Self {
            v4: ranges.iter().any(|range| matches!(range, IpNet::V4(_))),
            v6: ranges.iter().any(|range| matches!(range, IpNet::V6(_))),
        }
    }

    /// Whether a prefix is of one of them.
    pub(crate) fn has(self, prefix: &IpNet) -> bool {
        match prefix {
            IpNet::V4(_) => self.v4,
            IpNet::V6(_) => self.v6,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Prefix(IpNet),
    Tags(Vec<String>, Families),
}

/// All lists.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    lists: Vec<Arc<[IpNet]>>,
    known: HashMap<Key, ListId>,
}

impl Lists {
    /// The list of one prefix.
    pub(crate) fn prefix(&mut self, prefix: IpNet) -> ListId {
        self.intern(Key::Prefix(prefix), || vec![prefix])
    }

    /// The list of the prefixes of some tags that are of these families; `prefixes` gives those of one tag.
    pub(crate) fn tags(&mut self, tags: &[&str], families: Families, prefixes: impl Fn(&str) -> Vec<IpNet>) -> ListId {
        let key = Key::Tags(tags.iter().map(|tag| (*tag).to_owned()).collect(), families);
        self.intern(key, || {
            let of_tag = |tag: &&str| prefixes(tag).into_iter().filter(|prefix| families.has(prefix));
            let mut all: Vec<IpNet> = tags.iter().flat_map(of_tag).collect();
            if tags.len() > 1 {
                all.sort();
                all.dedup();
            }
            all
        })
    }

    /// A list's prefixes.
    pub(crate) fn prefixes(&self, list: ListId) -> &Arc<[IpNet]> {
        &self.lists[list.0 as usize]
    }

    /// Every list.
    pub(crate) fn all(&self) -> impl Iterator<Item = (ListId, &Arc<[IpNet]>)> {
        (0..).map(ListId).zip(&self.lists)
    }

    fn intern(&mut self, key: Key, prefixes: impl FnOnce() -> Vec<IpNet>) -> ListId {
        if let Some(&list) = self.known.get(&key) {
            return list;
        }
        let list = ListId(self.lists.len() as u32);
        self.lists.push(prefixes().into());
        self.known.insert(key, list);
        list
    }
}
