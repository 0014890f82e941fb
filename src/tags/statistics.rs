//! Figures about a catalogue.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;
use serde::Serialize;

use super::{Catalogue, ENDPOINT_FEATURE};

/// Figures about a catalogue. Counts of prefixes count a prefix as often as tags list it, unless they say distinct.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// The catalogue's change number.
    pub change_number: u64,
    /// The cloud.
    pub cloud: String,
    /// All tags.
    pub tags: usize,
    /// Tags without a region.
    pub global_tags: usize,
    /// Tags with a region.
    pub regional_tags: usize,
    /// Distinct regions.
    pub regions: usize,
    /// Prefixes of all tags.
    pub prefixes: usize,
    /// IPv4 prefixes of all tags.
    pub prefixes_v4: usize,
    /// IPv6 prefixes of all tags.
    pub prefixes_v6: usize,
    /// Distinct IPv4 prefixes.
    pub distinct_v4: usize,
    /// Distinct IPv6 prefixes.
    pub distinct_v6: usize,
    /// IPv4 addresses in at least one prefix.
    pub addresses_v4: u64,
    /// How many tags list each network feature.
    pub network_features: BTreeMap<String, usize>,
    /// The tags of services that have a service endpoint, sorted.
    pub endpoint_tags: Vec<String>,
}

impl Statistics {
    pub(super) fn of(catalogue: &Catalogue) -> Self {
        let tags = &catalogue.tags;
        let prefixes_v4 = tags.iter().map(|tag| tag.prefixes_v4.len()).sum();
        let prefixes_v6 = tags.iter().map(|tag| tag.prefixes_v6.len()).sum();
        let global_tags = tags.iter().filter(|tag| tag.region.is_empty()).count();
        let regions: BTreeSet<&str> =
            tags.iter().map(|tag| tag.region.as_str()).filter(|name| !name.is_empty()).collect();
        let mut network_features = BTreeMap::new();
        for feature in tags.iter().flat_map(|tag| tag.network_features.iter().flatten()) {
            *network_features.entry(feature.clone()).or_default() += 1;
        }
        let endpoint_tags: BTreeSet<&str> =
            tags.iter().filter(|tag| tag.has_feature(ENDPOINT_FEATURE)).map(|tag| tag.name.as_str()).collect();
        let all_v4: Vec<Ipv4Net> = tags.iter().flat_map(|tag| tag.prefixes_v4.iter().copied()).collect();
        let addresses_v4 = Ipv4Net::aggregate(&all_v4).iter().map(|net| 1_u64 << (32 - net.prefix_len())).sum();
        Self {
            change_number: catalogue.change_number,
            cloud: catalogue.cloud.clone(),
            tags: tags.len(),
            global_tags,
            regional_tags: tags.len() - global_tags,
            regions: regions.len(),
            prefixes: prefixes_v4 + prefixes_v6,
            prefixes_v4,
            prefixes_v6,
            distinct_v4: catalogue.v4.distinct(),
            distinct_v6: catalogue.v6.distinct(),
            addresses_v4,
            network_features,
            endpoint_tags: endpoint_tags.into_iter().map(str::to_owned).collect(),
        }
    }
}
