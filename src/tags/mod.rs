//! The service-tag catalogue: load it, look things up in it, compare two weeks of it.
//!
//! The format is that of Azure's weekly `ServiceTags_Public_*.json`, and of what the management API answers under
//! `…/locations/{location}/serviceTags`. A document is taken whole or not at all: [`Catalogue::parse`] collects every
//! mistake with its place.
//!
//! Stands outside the packet's way: the plan takes the prefixes of the tags that a network refers to. A catalogue does
//! not change once it is made. Tags that are computed (`VirtualNetwork`, `Internet`, `AzureLoadBalancer`) are not in it.

mod difference;
mod document;
mod error;
mod index;
mod prefix;
mod region;
mod statistics;

pub use self::difference::{Difference, FieldChange, TagChange};
pub use self::error::{CatalogueError, Mistake, MistakeKind};
pub use self::statistics::Statistics;

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use self::index::Index;
use self::region::Regions;

/// The value of [`Tag::network_features`] that marks tags of services that have a service endpoint.
pub const ENDPOINT_FEATURE: &str = "VSE";

/// The tags that Azure computes from the network: usable in rules, never listed in a catalogue.
pub const COMPUTED_TAGS: [&str; 3] = ["VirtualNetwork", "Internet", "AzureLoadBalancer"];

/// A document of service tags, checked and indexed. The default is one without tags.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    /// Grows when any tag of the cloud changes; 0 where the document does not say.
    pub change_number: u64,
    /// `Public`, `AzureGovernment`, …; empty where the document does not say.
    pub cloud: String,
    /// The address of the next page, if this document is one page of an answer of the management API. Tags of other
    /// pages are not in this catalogue.
    pub next_link: Option<String>,
    tags: Vec<Tag>,
    /// Index in `tags` by the name in lower case.
    by_name: HashMap<String, usize>,
    v4: Index<u32>,
    v6: Index<u128>,
    regions: Regions,
}

/// A service tag: a named list of prefixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    /// `Storage`, `Storage.WestEurope`: unique in its catalogue whatever the case.
    pub name: String,
    /// The id, in Azure's documents equal to the name.
    pub id: String,
    /// The region as this document spells it (`westeurope`, but `centralfrance`); empty for global tags.
    pub region: String,
    /// Azure's number of the region; 0 for global tags and where the document does not say.
    pub region_id: u32,
    /// `Azure`, or empty where the document does not say.
    pub platform: String,
    /// `AzureStorage`, …; empty for tags that belong to no single service.
    pub system_service: String,
    /// Grows when this tag changes; 0 where the document does not say.
    pub change_number: u64,
    /// `GA`, …: only the management API says it.
    pub state: Option<String>,
    /// Where the tag may be used: `API`, `NSG`, `UDR`, `FW`, `VSE`. None where the document has `null` or nothing.
    pub network_features: Option<Vec<String>>,
    /// IPv4 prefixes in the order of the document.
    pub prefixes_v4: Vec<Ipv4Net>,
    /// IPv6 prefixes in the order of the document.
    pub prefixes_v6: Vec<Ipv6Net>,
}

impl Tag {
    /// Every prefix, IPv4 first.
    pub fn prefixes(&self) -> impl Iterator<Item = IpNet> {
        self.prefixes_v4.iter().copied().map(IpNet::V4).chain(self.prefixes_v6.iter().copied().map(IpNet::V6))
    }

    /// How many prefixes the tag has.
    pub fn prefix_count(&self) -> usize {
        self.prefixes_v4.len() + self.prefixes_v6.len()
    }

    /// Whether the document lists a use (`UDR`, [`ENDPOINT_FEATURE`]) among the tag's network features.
    pub fn has_feature(&self, feature: &str) -> bool {
        self.network_features.iter().flatten().any(|listed| listed.eq_ignore_ascii_case(feature))
    }
}

impl Catalogue {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or [`Catalogue::parse`] refuses what is in it.
    pub fn load(path: &Path) -> Result<Self, CatalogueError> {
        let name = path.display().to_string();
        match fs::read(path) {
            Ok(document) => Self::parse(&document, &name),
            Err(error) => Err(CatalogueError::Read { name, error }),
        }
    }

    /// The small invented catalogue that comes with the program.
    ///
    /// # Errors
    /// As [`Catalogue::parse`]; a test holds that there are none.
    pub fn built_in() -> Result<Self, CatalogueError> {
        Self::parse(include_bytes!("../../config/service-tags.json"), "the built-in service tags")
    }

    /// Takes a document; `name` is what errors call it.
    ///
    /// # Errors
    /// Every mistake of the document at once. There is no partial catalogue.
    pub fn parse(document: &[u8], name: &str) -> Result<Self, CatalogueError> {
        let parsed = document::parse(document, name)?;
        if let Some(next) = &parsed.next_link {
            tracing::warn!("{name} is one page of several, and the tags of the others are missing; the next is {next}");
        }
        let v4 = Index::new(parsed.tags.iter().enumerate().flat_map(|(tag, entry)| {
            entry.prefixes_v4.iter().map(move |prefix| (prefix.network().to_bits(), prefix.prefix_len(), tag))
        }));
        let v6 = Index::new(parsed.tags.iter().enumerate().flat_map(|(tag, entry)| {
            entry.prefixes_v6.iter().map(move |prefix| (prefix.network().to_bits(), prefix.prefix_len(), tag))
        }));
        Ok(Self {
            change_number: parsed.change_number,
            cloud: parsed.cloud,
            next_link: parsed.next_link,
            regions: Regions::learn(&parsed.tags),
            tags: parsed.tags,
            by_name: parsed.by_name,
            v4,
            v6,
        })
    }

    /// The tag of a name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&Tag> {
        self.by_name.get(&name.to_ascii_lowercase()).map(|index| &self.tags[*index])
    }

    /// Every tag in the order of the document.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = &Tag> {
        self.tags.iter()
    }

    /// The name that was probably meant by one that is not in the catalogue: the one with the fewest typing mistakes, if
    /// they are few, or else the shortest that contains what was written (`KeyVault`: `AzureKeyVault`).
    pub fn nearest(&self, name: &str) -> Option<&str> {
        let name = name.to_ascii_lowercase();
        let few = 1 + name.len() / 4;
        let mistyped = self
            .tags
            .iter()
            .map(|tag| (strsim::damerau_levenshtein(&name, &tag.name.to_ascii_lowercase()), tag))
            .min_by_key(|(distance, _)| *distance)
            .filter(|(distance, _)| *distance <= few)
            .map(|(_, tag)| tag);
        let shortened = || {
            let containing = self.tags.iter().filter(|tag| tag.name.to_ascii_lowercase().contains(&name));
            containing.min_by_key(|tag| tag.name.len()).filter(|_| name.len() >= 3)
        };
        mistyped.or_else(shortened).map(|tag| tag.name.as_str())
    }

    /// Every tag that contains an address, each once with the longest of its prefixes that does. The longest prefix
    /// comes first; where they are equally long, the order of the document holds.
    pub fn lookup(&self, address: IpAddr) -> Vec<(&Tag, IpNet)> {
        let mut found: Vec<(usize, IpNet)> = Vec::new();
        let mut add = |tag: usize, prefix: IpNet| {
            if !found.iter().any(|(known, _)| *known == tag) {
                found.push((tag, prefix));
            }
        };
        match address {
            IpAddr::V4(v4) => self.v4.containing(v4.to_bits(), |network, length, tag| {
                add(tag, IpNet::V4(Ipv4Net::new_assert(network.into(), length)));
            }),
            IpAddr::V6(v6) => self.v6.containing(v6.to_bits(), |network, length, tag| {
                add(tag, IpNet::V6(Ipv6Net::new_assert(network.into(), length)));
            }),
        }
        found.into_iter().map(|(tag, prefix)| (&self.tags[tag], prefix)).collect()
    }

    /// The regional variant of a global tag: `Storage` and `westeurope` give `Storage.WestEurope`.
    ///
    /// `location` is a region as Azure Resource Manager, the tag's suffix or the tag's `region` field spells it, in any
    /// case, with or without spaces: `francecentral`, `FranceCentral`, `France Central` and `centralfrance` are one. None
    /// where the tag has no variant there.
    pub fn regional_tag(&self, global: &str, location: &str) -> Option<&Tag> {
        self.regions
            .spellings(location)
            .into_iter()
            .filter_map(|spelling| self.get(&format!("{global}.{spelling}")))
            .find(|tag| !tag.region.is_empty())
    }

    /// Azure's number of a region in any spelling. None where no tag of the region tells it.
    pub fn region_id(&self, location: &str) -> Option<u16> {
        let spellings = self.regions.spellings(location);
        let of_region = |tag: &&Tag| tag.region_id != 0 && spellings.contains(&region::normal(&tag.region));
        self.tags.iter().find(of_region).and_then(|tag| u16::try_from(tag.region_id).ok())
    }

    /// The region that has a number, as Azure Resource Manager spells it if the catalogue tells (`westeurope`).
    pub fn region_of_id(&self, id: u16) -> Option<String> {
        let tag = self.tags.iter().find(|tag| tag.region_id == u32::from(id) && !tag.region.is_empty())?;
        Some(self.regions.resource_manager(&tag.region))
    }

    /// Figures about the catalogue.
    pub fn statistics(&self) -> Statistics {
        Statistics::of(self)
    }

    /// What changed from this catalogue to a newer one.
    pub fn difference<'a>(&'a self, newer: &'a Catalogue) -> Difference<'a> {
        Difference::between(self, newer)
    }
}

#[cfg(test)]
mod tests;
