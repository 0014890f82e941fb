//! Which service tags an endpoint covers.
//!
//! An endpoint covers its service's global tag, or the regional tags of its `locations` if it lists any but `*`.
//! `Microsoft.Sql` has the network's region as its only location. With `everywhere` the locations do not count. A service of which the catalogue has no regional tag
//! at all (`AzureActiveDirectory`) is covered by the global tag whatever the locations.

use crate::model::network::ServiceEndpoint;
use crate::model::services::{SQL, endpoint_service};
use crate::tags::{Catalogue, Tag};

/// What an endpoint covers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Coverage<'c> {
    /// Names of tags of the catalogue, sorted.
    pub(crate) tags: Vec<&'c str>,
    /// Names of tags that the catalogue should have and has not.
    pub(crate) missing: Vec<String>,
}

/// Finds the tags that an endpoint covers. `region` is the network's.
pub(crate) fn coverage<'c>(
    endpoint: &ServiceEndpoint,
    region: &str,
    everywhere: bool,
    catalogue: &'c Catalogue,
) -> Coverage<'c> {
    let mut locations: Vec<&str> = if endpoint.service.eq_ignore_ascii_case(SQL) {
        vec![region]
    } else {
        endpoint.locations.iter().map(String::as_str).collect()
    };
    if everywhere || locations.contains(&"*") {
        locations.clear();
    }
    let mut coverage = Coverage { tags: Vec::new(), missing: Vec::new() };
    for &global in endpoint_service(&endpoint.service).map(|service| service.tags).unwrap_or_default() {
        if locations.is_empty() || !catalogue.tags().any(|tag| is_regional(tag, global)) {
            match catalogue.get(global) {
                Some(tag) => coverage.tags.push(&tag.name),
                None => coverage.missing.push(global.to_owned()),
            }
            continue;
        }
        for location in &locations {
            match catalogue.regional_tag(global, location) {
                Some(tag) => coverage.tags.push(&tag.name),
                None => coverage.missing.push(format!("{global}.{location}")),
            }
        }
    }
    coverage.tags.sort_unstable();
    coverage.tags.dedup();
    coverage
}

/// Whether a tag is a regional one of a global tag: `Storage.WestEurope` of `Storage`.
fn is_regional(tag: &Tag, global: &str) -> bool {
    !tag.region.is_empty() && tag.name.split_once('.').is_some_and(|(name, _)| name.eq_ignore_ascii_case(global))
}
