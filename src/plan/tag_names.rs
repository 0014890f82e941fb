//! What the check of a document asks of the catalogue.

use std::collections::BTreeSet;

use crate::model::TagNames;
use crate::tags::{Catalogue, Tag};

/// The network feature that marks tags which route tables may use.
const ROUTE_FEATURE: &str = "UDR";

/// The network feature that marks tags which security rules may use.
const RULE_FEATURE: &str = "NSG";

/// The tag of all Azure, and of all Azure in a region.
const AZURE_CLOUD: &str = "AzureCloud";

/// Letters that may be wrong, missing, too many or swapped in the name of a region that was meant to be another.
const MOST_SLIPS: usize = 2;

impl TagNames for Catalogue {
    fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn nearest(&self, name: &str) -> Option<String> {
        Catalogue::nearest(self, name).map(str::to_owned)
    }

    /// Where the catalogue lists no features at all, it does not say, and the tag is taken. `AzureCloud` and its
    /// regional variants are taken too: Azure's page on routing gives them a rank among routes, though the weekly file
    /// does not list the feature.
    fn usable_in_routes(&self, name: &str) -> bool {
        self.get(name).is_some_and(|tag| {
            let global = tag.name.split_once('.').map_or(tag.name.as_str(), |(global, _)| global);
            tag.network_features.is_none() || tag.has_feature(ROUTE_FEATURE) || global == AZURE_CLOUD
        })
    }

    /// Where the catalogue lists no features, it does not say, and the tag is taken.
    fn usable_in_rules(&self, name: &str) -> bool {
        self.get(name).is_some_and(|tag| tag.network_features.is_none() || tag.has_feature(RULE_FEATURE))
    }

    fn has_regional(&self, name: &str, location: &str) -> bool {
        let is_regional = |tag: &Tag| {
            let global = tag.name.split_once('.').map(|(global, _)| global);
            global.is_some_and(|global| global.eq_ignore_ascii_case(name)) && !tag.region.is_empty()
        };
        self.regional_tag(name, location).is_some() || !self.tags().any(is_regional)
    }

    /// Regions whose letters agree and whose numbers differ are different regions, one of them perhaps newer than the
    /// catalogue; letters that differ a little are a slip.
    fn mistyped_region(&self, location: &str) -> Option<String> {
        let regional = || self.tags().filter(|tag| !tag.region.is_empty()).filter_map(|tag| tag.name.split_once('.'));
        let services: BTreeSet<&str> = regional().map(|(service, _)| service).collect();
        if services.iter().any(|service| self.regional_tag(service, location).is_some()) {
            return None;
        }
        fn letters(region: &str) -> &str {
            region.trim_end_matches(|last: char| last.is_ascii_digit())
        }
        let regions: BTreeSet<String> = regional().map(|(_, region)| region.to_ascii_lowercase()).collect();
        let slips = |region: &String| strsim::damerau_levenshtein(region, location);
        regions
            .iter()
            .filter(|region| letters(region) != letters(location))
            .min_by_key(|region| slips(region))
            .filter(|region| slips(region) <= MOST_SLIPS)
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use crate::model::TagNames;
    use crate::tags::Catalogue;

    const DOCUMENT: &str = r#"{ "changeNumber": 1, "cloud": "Public", "values": [
        { "name": "Storage", "id": "Storage", "properties": { "changeNumber": 1, "region": "", "regionId": 0,
          "platform": "Azure", "systemService": "AzureStorage", "addressPrefixes": ["20.60.0.0/16"],
          "networkFeatures": ["API", "NSG", "UDR", "FW", "VSE"] } },
        { "name": "Storage.WestEurope", "id": "Storage.WestEurope", "properties": { "changeNumber": 1,
          "region": "westeurope", "regionId": 18, "platform": "Azure", "systemService": "AzureStorage",
          "addressPrefixes": ["20.60.1.0/24"], "networkFeatures": ["API", "NSG", "UDR", "FW"] } },
        { "name": "AzureCloud", "id": "AzureCloud", "properties": { "changeNumber": 1, "region": "", "regionId": 0,
          "platform": "Azure", "systemService": "", "addressPrefixes": ["20.0.0.0/8"],
          "networkFeatures": ["API", "NSG"] } },
        { "name": "GuestAndHybridManagement", "id": "GuestAndHybridManagement", "properties": { "changeNumber": 1,
          "region": "", "regionId": 0, "platform": "Azure", "systemService": "X",
          "addressPrefixes": ["20.70.0.0/16"], "networkFeatures": ["API", "NSG"] } },
        { "name": "Silent", "id": "Silent", "properties": { "changeNumber": 1, "region": "", "regionId": 0,
          "platform": "Azure", "systemService": "X", "addressPrefixes": ["20.71.0.0/16"], "networkFeatures": null } }
    ] }"#;

    #[test]
    fn catalogue_answers_the_check() {
        let catalogue = Catalogue::parse(DOCUMENT.as_bytes(), "test").unwrap();
        let tags: &dyn TagNames = &catalogue;
        assert!(tags.contains("Storage") && tags.contains("storage.westeurope") && !tags.contains("Sql"));
        assert_eq!(tags.nearest("Storag").as_deref(), Some("Storage"));
        for (name, usable) in [
            ("Storage", true),
            ("AzureCloud", true),
            ("GuestAndHybridManagement", false),
            ("Silent", true),
            ("Sql", false),
        ] {
            assert_eq!(tags.usable_in_routes(name), usable, "{name}");
        }
        assert!(tags.has_regional("Storage", "West Europe") && !tags.has_regional("Storage", "northeurope"));
        assert!(tags.has_regional("GuestAndHybridManagement", "northeurope"));
    }

    #[test]
    fn a_region_is_mistyped_where_its_letters_are_nearly_anothers() {
        let tags = Catalogue::parse(DOCUMENT.as_bytes(), "tags.json").unwrap();
        assert_eq!(tags.mistyped_region("westeurop").as_deref(), Some("westeurope"));
        assert_eq!(tags.mistyped_region("wsteurope").as_deref(), Some("westeurope"));
        for known_or_new in ["westeurope", "westeurope2", "brazilsouth"] {
            assert_eq!(tags.mistyped_region(known_or_new), None, "{known_or_new}");
        }
    }
}
