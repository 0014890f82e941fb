//! What changed between two weeks.

use std::collections::BTreeSet;

use ipnet::IpNet;
use serde::Serialize;

use super::{Catalogue, Tag};

/// What changed from one catalogue to another; tags in the order of their names, prefixes IPv4 first and ascending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference<'a> {
    /// Change number of the first catalogue.
    pub from: u64,
    /// Change number of the second.
    pub to: u64,
    /// Tags that only the second has, with all their prefixes as added.
    pub added: Vec<TagChange<'a>>,
    /// Tags that only the first has, with all their prefixes as removed.
    pub removed: Vec<TagChange<'a>>,
    /// Tags of both that differ.
    pub changed: Vec<TagChange<'a>>,
}

/// What changed in a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TagChange<'a> {
    /// The tag's name, as the newer of the catalogues that have it spells it.
    pub name: &'a str,
    /// Its fields that changed, apart from the prefixes.
    pub fields: Vec<FieldChange>,
    /// Prefixes that only the second has.
    pub added_prefixes: Vec<IpNet>,
    /// Prefixes that only the first has.
    pub removed_prefixes: Vec<IpNet>,
}

/// A field of a tag that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldChange {
    /// Its name in the document.
    pub field: &'static str,
    /// What it was.
    pub from: String,
    /// What it is.
    pub to: String,
}

impl<'a> Difference<'a> {
    pub(super) fn between(older: &'a Catalogue, newer: &'a Catalogue) -> Self {
        let mut difference = Self {
            from: older.change_number,
            to: newer.change_number,
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
        };
        for tag in newer.tags() {
            match older.get(&tag.name) {
                Some(before) => difference.changed.extend(TagChange::between(before, tag)),
                None => difference.added.push(TagChange::whole(tag, prefix_set(tag), BTreeSet::new())),
            }
        }
        let gone = older.tags().filter(|tag| newer.get(&tag.name).is_none());
        difference.removed.extend(gone.map(|tag| TagChange::whole(tag, BTreeSet::new(), prefix_set(tag))));
        for list in [&mut difference.added, &mut difference.removed, &mut difference.changed] {
            list.sort_by_cached_key(|change| change.name.to_ascii_lowercase());
        }
        difference
    }

    /// Whether nothing of any tag changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }

    /// How many prefixes were added, those of added tags included.
    pub fn added_prefixes(&self) -> usize {
        self.added.iter().chain(&self.changed).map(|change| change.added_prefixes.len()).sum()
    }

    /// How many prefixes were removed, those of removed tags included.
    pub fn removed_prefixes(&self) -> usize {
        self.removed.iter().chain(&self.changed).map(|change| change.removed_prefixes.len()).sum()
    }
}

impl<'a> TagChange<'a> {
    /// None where the two are the same.
    fn between(before: &Tag, after: &'a Tag) -> Option<Self> {
        let (old, new) = (prefix_set(before), prefix_set(after));
        let fields = field_changes(before, after);
        (old != new || !fields.is_empty()).then(|| Self {
            name: &after.name,
            fields,
            added_prefixes: new.difference(&old).copied().collect(),
            removed_prefixes: old.difference(&new).copied().collect(),
        })
    }

    fn whole(tag: &'a Tag, added: BTreeSet<IpNet>, removed: BTreeSet<IpNet>) -> Self {
        Self {
            name: &tag.name,
            fields: Vec::new(),
            added_prefixes: added.into_iter().collect(),
            removed_prefixes: removed.into_iter().collect(),
        }
    }
}

/// The prefixes of a tag: their order, and one listed twice, are no difference.
fn prefix_set(tag: &Tag) -> BTreeSet<IpNet> {
    tag.prefixes().collect()
}

fn field_changes(before: &Tag, after: &Tag) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    let mut compare = |field, from: String, to: String| {
        if from != to {
            changes.push(FieldChange { field, from, to });
        }
    };
    compare("name", before.name.clone(), after.name.clone());
    compare("changeNumber", before.change_number.to_string(), after.change_number.to_string());
    compare("region", before.region.clone(), after.region.clone());
    // The management API leaves the number out, which is no change of it.
    if before.region_id != 0 && after.region_id != 0 {
        compare("regionId", before.region_id.to_string(), after.region_id.to_string());
    }
    compare("systemService", before.system_service.clone(), after.system_service.clone());
    compare("networkFeatures", feature_text(before), feature_text(after));
    changes
}

/// The network features in a fixed order, since documents list them in several.
fn feature_text(tag: &Tag) -> String {
    let features: BTreeSet<&str> = tag.network_features.iter().flatten().map(String::as_str).collect();
    features.into_iter().collect::<Vec<_>>().join(", ")
}
