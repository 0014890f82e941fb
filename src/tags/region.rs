//! The spellings of regions.
//!
//! Azure Resource Manager says `francecentral`, tags are named `Storage.FranceCentral`, but the `region` field of those
//! tags, and the names of `AzureCloud`'s, say `centralfrance`. Tag suffix and Resource Manager differ in case alone.

use std::collections::BTreeSet;

use super::Tag;

/// The regions whose `region` field differs from the suffix in lower case, as the documents of 2025 have them. Others are
/// learned from the document at hand; these hold for one that is too small to learn from.
const KNOWN: [(&str, &str); 12] = [
    ("brazilsoutheast", "brazilse"),
    ("chilecentral", "chilec"),
    ("eastusstg", "usstagee"),
    ("francecentral", "centralfrance"),
    ("francesouth", "southfrance"),
    ("germanynorth", "germanyn"),
    ("germanywestcentral", "germanywc"),
    ("norwayeast", "norwaye"),
    ("norwaywest", "norwayw"),
    ("southcentralusstg", "usstagec"),
    ("switzerlandnorth", "switzerlandn"),
    ("switzerlandwest", "switzerlandw"),
];

/// The one family of tags that is named by the `region` field.
const NAMED_BY_REGION: &str = "AzureCloud";

/// Pairs of suffix and `region` field, in lower case, of regions where these differ.
#[derive(Debug, Clone, Default)]
pub(super) struct Regions {
    pairs: BTreeSet<(String, String)>,
}

impl Regions {
    /// Learns the pairs of a document.
    ///
    /// A region whose field is the suffix of other tags has a spelling already: `EastUS2Stage`, whose field is
    /// `eastus2`, is no other name of `EastUS2`.
    pub(super) fn learn(tags: &[Tag]) -> Self {
        let seen: BTreeSet<(String, String)> = tags
            .iter()
            .filter(|tag| !tag.region.is_empty())
            .filter_map(|tag| Some((tag.name.split_once('.')?, &tag.region)))
            .filter(|((family, _), _)| !family.eq_ignore_ascii_case(NAMED_BY_REGION))
            .map(|((_, suffix), region)| (normal(suffix), normal(region)))
            .collect();
        let known = KNOWN.iter().map(|(suffix, region)| ((*suffix).to_owned(), (*region).to_owned()));
        let learned = seen.iter().filter(|(_, region)| !seen.contains(&(region.clone(), region.clone()))).cloned();
        Self { pairs: known.chain(learned).collect() }
    }

    /// The spellings of a location, its own in lower case first.
    pub(super) fn spellings(&self, location: &str) -> Vec<String> {
        let own = normal(location);
        let others = self.pairs.iter().filter_map(|(suffix, region)| {
            if *suffix == own {
                Some(region.clone())
            } else if *region == own {
                Some(suffix.clone())
            } else {
                None
            }
        });
        let others: Vec<_> = others.collect();
        std::iter::once(own).chain(others).collect()
    }

    /// The region of a tag's `region` field as Azure Resource Manager spells it: `centralfrance` as `francecentral`.
    pub(super) fn resource_manager(&self, field: &str) -> String {
        let field = normal(field);
        let suffix = self.pairs.iter().find(|(_, region)| *region == field).map(|(suffix, _)| suffix.clone());
        suffix.unwrap_or(field)
    }
}

/// Lower case without spaces: `West Europe` as `westeurope`.
pub(super) fn normal(location: &str) -> String {
    location.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_ascii_lowercase()).collect()
}
