use std::env;
use std::path::PathBuf;

use ipnet::IpNet;
use proptest::prelude::*;

use super::*;

/// One week of Azure's public cloud, if it is there. In CI it has to be.
fn weekly_file() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ServiceTags_Public_20251117.json");
    if path.exists() {
        return Some(path);
    }
    assert_ne!(env::var("CI").as_deref(), Ok("true"), "{} is missing", path.display());
    eprintln!("skipped: {} is missing", path.display());
    None
}

fn parse(text: &str) -> Result<Catalogue, CatalogueError> {
    Catalogue::parse(text.as_bytes(), "tags.json")
}

/// The mistakes of a document, as text.
fn refused(text: &str) -> String {
    parse(text).expect_err("the document has to be refused").to_string()
}

/// A document of tags: name, region and prefixes.
fn document(tags: &[(&str, &str, &[&str])]) -> String {
    let values: Vec<_> = tags
        .iter()
        .map(|(name, region, prefixes)| {
            serde_json::json!({ "name": name, "properties": { "region": region, "addressPrefixes": prefixes } })
        })
        .collect();
    serde_json::json!({ "changeNumber": 1, "cloud": "Public", "values": values }).to_string()
}

fn names(found: &[(&Tag, IpNet)]) -> Vec<String> {
    found.iter().map(|(tag, prefix)| format!("{} {prefix}", tag.name)).collect()
}

#[test]
fn the_weekly_file_loads_whole() {
    let Some(path) = weekly_file() else { return };
    let catalogue = Catalogue::load(&path).unwrap();
    let statistics = catalogue.statistics();
    assert_eq!((catalogue.change_number, catalogue.cloud.as_str()), (376, "Public"));
    assert_eq!(statistics.tags, 3_041);
    assert_eq!(statistics.prefixes, 95_823);
    assert_eq!(statistics.distinct_v4, 39_638);
    assert_eq!(statistics.distinct_v6, 13_948);
    assert_eq!(
        statistics.endpoint_tags,
        [
            "AppService",
            "AzureActiveDirectory",
            "AzureContainerRegistry",
            "AzureCosmosDB",
            "AzureKeyVault",
            "EventHub",
            "ServiceBus",
            "Sql",
            "Storage"
        ]
    );
    // `null` network features are none at all, not an empty list.
    assert_eq!(catalogue.tags().filter(|tag| tag.network_features.is_none()).count(), 1_534);
}

#[test]
fn regional_tags_of_the_weekly_file_are_found_by_every_spelling() {
    let Some(path) = weekly_file() else { return };
    let catalogue = Catalogue::load(&path).unwrap();
    for (location, name, region_id) in [
        ("westeurope", "Storage.WestEurope", 18),
        ("West Europe", "Storage.WestEurope", 18),
        ("francecentral", "Storage.FranceCentral", 19),
        ("centralfrance", "Storage.FranceCentral", 19),
        ("FranceCentral", "Storage.FranceCentral", 19),
        ("francesouth", "Storage.FranceSouth", 20),
        ("germanywestcentral", "Storage.GermanyWestCentral", 71),
        ("germanynorth", "Storage.GermanyNorth", 72),
        ("norwayeast", "Storage.NorwayEast", 63),
        ("norwayw", "Storage.NorwayWest", 74),
        ("switzerlandnorth", "Storage.SwitzerlandNorth", 66),
        ("switzerlandwest", "Storage.SwitzerlandWest", 67),
        ("brazilsoutheast", "Storage.BrazilSoutheast", 77),
        ("chilecentral", "Storage.ChileCentral", 10),
        ("eastus2", "Storage.EastUS2", 33),
    ] {
        let tag = catalogue.regional_tag("Storage", location).unwrap_or_else(|| panic!("Storage in {location}"));
        assert_eq!((tag.name.as_str(), tag.region_id), (name, region_id), "{location}");
    }
    for (location, name) in [
        ("westeurope", "AzureCloud.westeurope"),
        ("francecentral", "AzureCloud.centralfrance"),
        ("chilecentral", "AzureCloud.chilec"),
        ("SwitzerlandNorth", "AzureCloud.switzerlandn"),
    ] {
        assert_eq!(catalogue.regional_tag("AzureCloud", location).map(|tag| tag.name.as_str()), Some(name));
    }
    // Every regional tag is the answer for its own suffix.
    for tag in catalogue.tags().filter(|tag| !tag.region.is_empty()) {
        let (global, suffix) = tag.name.split_once('.').unwrap();
        assert_eq!(catalogue.regional_tag(global, suffix), Some(tag));
    }
}

#[test]
fn the_known_spellings_of_regions_are_those_of_the_weekly_file() {
    let Some(path) = weekly_file() else { return };
    let catalogue = Catalogue::load(&path).unwrap();
    let without_document = Regions::learn(&[]);
    for tag in catalogue.tags().filter(|tag| !tag.region.is_empty()) {
        let (_, suffix) = tag.name.split_once('.').unwrap();
        // Two regions have a stage of their own that shares the region's field.
        if !suffix.ends_with("Stage") {
            assert!(without_document.spellings(suffix).contains(&tag.region), "{}: {}", tag.name, tag.region);
        }
    }
}

#[test]
fn regions_that_no_list_knows_are_learned_from_the_document() {
    let catalogue = parse(&document(&[
        ("AzureCloud.atlantisc", "atlantisc", &["192.0.2.0/24"]),
        ("Storage.AtlantisCentral", "atlantisc", &["192.0.2.0/25"]),
        ("Storage.EastUS2", "eastus2", &["198.51.100.0/25"]),
        ("Batch.EastUS2Stage", "eastus2", &["198.51.100.128/25"]),
        ("Door.Backend", "", &["203.0.113.0/24"]),
    ]))
    .unwrap();
    let name = |global, location| catalogue.regional_tag(global, location).map(|tag| tag.name.as_str());
    assert_eq!(name("AzureCloud", "atlantiscentral"), Some("AzureCloud.atlantisc"));
    assert_eq!(name("storage", "AtlantisC"), Some("Storage.AtlantisCentral"));
    assert_eq!(name("Storage", "eastus2"), Some("Storage.EastUS2"));
    assert_eq!(name("Batch", "eastus2"), None, "a stage is not its region");
    assert_eq!(name("Door", "backend"), None, "a suffix without a region is no location");
    assert_eq!(name("Storage", "westeurope"), None);
}

#[test]
fn known_spellings_serve_a_document_too_small_to_learn_from() {
    let catalogue = parse(&document(&[("AzureCloud.centralfrance", "centralfrance", &["192.0.2.0/24"])])).unwrap();
    let found = catalogue.regional_tag("AzureCloud", "francecentral").map(|tag| tag.name.as_str());
    assert_eq!(found, Some("AzureCloud.centralfrance"));
}

#[test]
fn the_built_in_catalogue_knows_the_demo() {
    let catalogue = Catalogue::built_in().unwrap();
    assert_eq!(catalogue.tags().len(), 12);
    assert_eq!(
        names(&catalogue.lookup("20.60.1.10".parse().unwrap())),
        [
            "Storage 20.60.1.0/24",
            "Storage.WestEurope 20.60.1.0/24",
            "AzureCloud 20.60.0.0/17",
            "AzureCloud.westeurope 20.60.0.0/17"
        ]
    );
    assert_eq!(
        names(&catalogue.lookup("2603:1020:206:100::10".parse().unwrap())),
        [
            "Storage 2603:1020:206:100::/64",
            "Storage.WestEurope 2603:1020:206:100::/64",
            "AzureCloud 2603:1020:200::/40",
            "AzureCloud.westeurope 2603:1020:200::/40"
        ]
    );
    for elsewhere in ["198.51.100.80", "203.0.113.10", "203.0.113.200", "10.1.1.4", "fd00:1:0:1::4"] {
        assert_eq!(names(&catalogue.lookup(elsewhere.parse().unwrap())), [""; 0], "{elsewhere}");
    }
    let endpoint_tags = ["AzureCosmosDB", "AzureKeyVault", "EventHub", "ServiceBus", "Sql", "Storage"];
    assert_eq!(catalogue.statistics().endpoint_tags, endpoint_tags);
}

#[test]
fn regional_tags_of_the_built_in_catalogue_lie_inside_their_global_ones() {
    let catalogue = Catalogue::built_in().unwrap();
    for regional in catalogue.tags().filter(|tag| !tag.region.is_empty()) {
        let (global, _) = regional.name.split_once('.').unwrap();
        let global = catalogue.get(global).unwrap();
        for prefix in regional.prefixes() {
            assert!(global.prefixes().any(|wider| wider.contains(&prefix)), "{}: {prefix}", regional.name);
        }
    }
}

#[test]
fn the_management_api_form_loads() {
    let catalogue = parse(
        r#"{
          "name": "Public", "id": "/subscriptions/s1/providers/Microsoft.Network/serviceTags/Public",
          "type": "Microsoft.Network/serviceTags", "changeNumber": "63", "cloud": "Public", "nextLink": "",
          "values": [
            { "name": "Storage.WestEurope", "id": "Storage.WestEurope", "serviceTagChangeNumber": "63",
              "properties": { "changeNumber": "12", "region": "westeurope", "state": "GA", "networkFeatures": ["API"],
                "systemService": "AzureStorage", "addressPrefixes": ["192.0.2.0\/24", "2001:db8::/32"] } },
            { "name": "Sql", "properties": { "changeNumber": "7", "region": null, "addressPrefixes": [] } }
          ] }"#,
    )
    .unwrap();
    assert_eq!((catalogue.change_number, catalogue.next_link.as_deref()), (63, None));
    let storage = catalogue.get("STORAGE.westeurope").unwrap();
    assert_eq!((storage.change_number, storage.region_id, storage.state.as_deref()), (12, 0, Some("GA")));
    assert_eq!(
        storage.prefixes().map(|prefix| prefix.to_string()).collect::<Vec<_>>(),
        ["192.0.2.0/24", "2001:db8::/32"]
    );
    let sql = catalogue.get("Sql").unwrap();
    assert_eq!((sql.id.as_str(), sql.region.as_str(), sql.network_features.as_ref()), ("Sql", "", None));
}

#[test]
fn a_catalogue_without_tags_is_refused() {
    let CatalogueError::Broken { mistakes, .. } = parse(r#"{ "values": [] }"#).unwrap_err() else { panic!("broken") };
    assert_eq!(mistakes.len(), 1);
    assert_eq!((mistakes[0].line, mistakes[0].column, mistakes[0].kind.clone()), (1, 13, MistakeKind::NoTags));
}

#[test]
fn one_page_of_several_keeps_the_address_of_the_next() {
    let catalogue = parse(r#"{ "values": [{ "name": "T", "properties": { "addressPrefixes": [] } }], "nextLink": "https://management.example/next" }"#).unwrap();
    assert_eq!(catalogue.next_link.as_deref(), Some("https://management.example/next"));
}

#[test]
fn a_byte_order_mark_is_no_mistake() {
    assert_eq!(parse(&format!("\u{feff}{}", document(&[("A", "", &[])]))).unwrap().tags().len(), 1);
}

#[test]
fn an_empty_document_is_refused() {
    for text in ["", " \n\t", "\u{feff}"] {
        assert_eq!(refused(text), "tags.json: the document of service tags is empty");
    }
}

#[test]
fn a_missing_file_is_named_with_its_cause() {
    let error = Catalogue::load(Path::new("no-such-folder/tags.json")).unwrap_err();
    assert_eq!(error.to_string(), "no-such-folder/tags.json: the service tags cannot be read");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("No such file or directory"), "{cause}");
}

#[test]
fn a_document_without_values_is_refused() {
    assert_eq!(refused("{ \"changeNumber\": 1 }"), "tags.json:1:1: `values` is missing");
    assert_eq!(refused("{ \"values\": null }"), "tags.json:1:1: `values` is missing");
    assert_eq!(refused("{ \"values\": 5 }"), "tags.json:1:13: `values` has to be a list, not 5");
    assert_eq!(refused(" [1, 2]"), "tags.json:1:2: the document has to be an object, not [1, 2]");
    assert_eq!(refused("<html>\n</html>"), "tags.json:1:1: the document has to be an object, not <html> </html>");
    assert_eq!(
        refused(r#"{ "values": [["Sql", "Sql", {}]] }"#),
        "tags.json:1:14: values[0]: an entry of `values` has to be an object, not [\"Sql\", \"Sql\", {}]"
    );
    assert_eq!(
        refused(r#"{ "values": [{ "name": "Sql", "properties": [] }] }"#),
        "tags.json:1:45: values[0] \"Sql\": `properties` has to be an object, not []"
    );
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_place() {
    let error = Catalogue::parse(b"{\n \"cloud\": \"\xff\" }", "tags.json").unwrap_err();
    assert_eq!(error.to_string(), "tags.json:2:12: the text is not UTF-8");
}

const TWO_TAGS: &str = r#"{
  "changeNumber": 1,
  "values": [
    { "name": "Sql", "properties": { "addressPrefixes": ["192.0.2.0/24"] } },
    {
      "name": "Storage",
      "properties": {
        "addressPrefixes": [
          "198.51.100.0/24",
          "203.0.113.0/24"
        ]
      }
    }
  ]
}
"#;

#[test]
fn cut_off_json_names_tag_entry_and_place() {
    parse(TWO_TAGS).unwrap();
    let cut = |after: &str| {
        let end = TWO_TAGS.find(after).unwrap() + after.len();
        refused(&TWO_TAGS[..end])
    };
    assert_eq!(
        cut("\"203.0"),
        "tags.json:10:16: values[1] \"Storage\", addressPrefixes[1]: the JSON is cut off: EOF while parsing a string"
    );
    assert_eq!(
        cut("\"198.51.100.0/24\""),
        "tags.json:9:27: values[1] \"Storage\", addressPrefixes[1]: the JSON is cut off: EOF while parsing a list"
    );
    assert_eq!(
        cut("\n        ]\n"),
        "tags.json:12:1: values[1] \"Storage\": the JSON is cut off: EOF while parsing an object"
    );
    assert_eq!(cut("\n  ]\n"), "tags.json:15:1: the JSON is cut off: EOF while parsing an object");
    assert_eq!(
        cut("\"Storage\",\n"),
        "tags.json:7:1: values[1] \"Storage\": the JSON is cut off: EOF while parsing an object"
    );
    assert_eq!(cut("    {\n"), "tags.json:6:1: values[1]: the JSON is cut off: EOF while parsing an object");
    assert_eq!(cut("\"changeNumber\""), "tags.json:2:16: the JSON is cut off: EOF while parsing an object");
}

#[test]
fn no_cut_of_a_document_is_taken_for_a_whole_one() {
    let whole = TWO_TAGS.trim_end();
    for end in 0..whole.len() {
        let message = refused(&whole[..end]);
        assert!(message.starts_with("tags.json:") && !message.contains(" mistakes"), "{end}: {message}");
    }
}

#[test]
fn broken_json_names_tag_entry_and_place() {
    assert_eq!(
        refused(&TWO_TAGS.replace("\"203.0.113.0/24\"", "203.0.113.0/24")),
        "tags.json:10:16: values[1] \"Storage\", addressPrefixes[1]: the JSON is broken: expected `,` or `]`"
    );
    assert_eq!(
        refused(&TWO_TAGS.replace("\"Storage\",", "\"Storage\"")),
        "tags.json:7:7: values[1] \"Storage\": the JSON is broken: expected `,` or `}`"
    );
}

#[test]
fn every_mistake_of_a_document_is_reported_in_its_order() {
    let text = r#"{
  "changeNumber": "soon",
  "values": [
    { "name": "Sql", "properties": {
        "regionId": -1, "networkFeatures": "UDR",
        "addressPrefixes": ["192.0.2.1/24", "Berlin", 7, "2001:db8::/129", "192.0.2.0"] } },
    { "properties": { "addressPrefixes": [] } },
    { "name": "Web" },
    { "name": "Batch", "properties": { "region": "westeurope" } },
    { "name": "sQL", "properties": { "addressPrefixes": ["198.51.100.0/24"] } },
    17,
    { "name": "Öl", "id": "é", "properties": { "addressPrefixes": ["é", "10.0.0.0/99"] } },
    { "name": "Twice", "name": "Twice", "properties": { "addressPrefixes": [] } }
  ]
}"#;
    let expected = [
        "tags.json: 16 mistakes in the service tags",
        "2:19: `changeNumber` has to be a whole number, not \"soon\"",
        "5:21: values[0] \"Sql\": `regionId` has to be a whole number, not -1",
        "5:44: values[0] \"Sql\": `networkFeatures` has to be a list of strings or null, not \"UDR\"",
        "6:29: values[0] \"Sql\", addressPrefixes[0]: \"192.0.2.1/24\" has host bits set; the prefix is \"192.0.2.0/24\"",
        "6:45: values[0] \"Sql\", addressPrefixes[1]: \"Berlin\" is no address prefix such as \"192.0.2.0/24\" or \
         \"2001:db8::/32\"",
        "6:55: values[0] \"Sql\", addressPrefixes[2]: 7 is no address prefix such as \"192.0.2.0/24\" or \
         \"2001:db8::/32\"",
        "6:58: values[0] \"Sql\", addressPrefixes[3]: \"2001:db8::/129\" has a prefix length above 128",
        "6:76: values[0] \"Sql\", addressPrefixes[4]: \"192.0.2.0\" has no prefix length; a single address is written \
         \"192.0.2.0/32\"",
        "7:5: values[1]: `name` is missing",
        "8:5: values[2] \"Web\": `properties` is missing",
        "9:38: values[3] \"Batch\": `addressPrefixes` is missing",
        "10:15: values[4] \"sQL\": the tag is there already: values[0] \"Sql\" on line 4",
        "11:5: values[5]: an entry of `values` has to be an object, not 17",
        "12:68: values[6] \"Öl\", addressPrefixes[0]: \"é\" is no address prefix such as \"192.0.2.0/24\" or \
         \"2001:db8::/32\"",
        "12:73: values[6] \"Öl\", addressPrefixes[1]: \"10.0.0.0/99\" has a prefix length above 32",
        "13:29: values[7]: duplicate field `name`",
    ];
    let text = refused(text);
    let lines: Vec<_> = text.lines().collect();
    let expected: Vec<_> = std::iter::once(expected[0].to_owned())
        .chain(expected[1..].iter().map(|line| format!("  tags.json:{line}")))
        .collect();
    assert_eq!(lines, expected);
}

#[test]
fn names_are_found_whatever_their_case() {
    let catalogue = Catalogue::built_in().unwrap();
    assert_eq!(catalogue.get("azurecloud.WESTEUROPE").map(|tag| tag.name.as_str()), Some("AzureCloud.westeurope"));
    assert_eq!(catalogue.get("Storage.Mars"), None);
}

#[test]
fn the_nearest_name_is_the_one_that_was_meant() {
    let catalogue = Catalogue::built_in().unwrap();
    for (written, meant) in [
        ("Storge", Some("Storage")),
        ("sotrage", Some("Storage")),
        ("Storage.WestEurop", Some("Storage.WestEurope")),
        ("KeyVault", Some("AzureKeyVault")),
        ("Sq", Some("Sql")),
        ("Mars", None),
        ("zz", None),
        ("", None),
    ] {
        assert_eq!(catalogue.nearest(written), meant, "{written}");
    }
}

#[test]
fn lookup_gives_each_tag_once_with_its_longest_prefix() {
    let catalogue = parse(&document(&[
        ("Wide", "", &["0.0.0.0/0", "::/0", "10.0.0.0/8"]),
        ("Narrow", "", &["10.1.0.0/16", "10.1.2.3/32", "2001:db8::1/128"]),
        ("Other", "", &["10.1.0.0/16"]),
    ]))
    .unwrap();
    let found = |address: &str| names(&catalogue.lookup(address.parse().unwrap()));
    assert_eq!(found("10.1.2.3"), ["Narrow 10.1.2.3/32", "Other 10.1.0.0/16", "Wide 10.0.0.0/8"]);
    assert_eq!(found("10.1.2.4"), ["Narrow 10.1.0.0/16", "Other 10.1.0.0/16", "Wide 10.0.0.0/8"]);
    assert_eq!(found("255.255.255.255"), ["Wide 0.0.0.0/0"]);
    assert_eq!(found("2001:db8::1"), ["Narrow 2001:db8::1/128", "Wide ::/0"]);
    assert_eq!(found("::a01:203"), ["Wide ::/0"], "an IPv6 address is never an IPv4 one");
}

/// Prefixes that are likely to contain one another: few bits, any length.
fn prefix() -> impl Strategy<Value = IpNet> {
    let v4 = (any::<u8>(), any::<u8>(), 0..=32u8).prop_map(|(high, low, length)| {
        IpNet::new(std::net::Ipv4Addr::new(high & 3, 0, 0, low & 3).into(), length).unwrap().trunc()
    });
    let v6 = (0..4u16, 0..4u16, 0..=128u8).prop_map(|(high, low, length)| {
        IpNet::new(std::net::Ipv6Addr::new(high, 0, 0, 0, 0, 0, 0, low).into(), length).unwrap().trunc()
    });
    prop_oneof![v4, v6]
}

fn address() -> impl Strategy<Value = IpAddr> {
    prefix().prop_flat_map(|prefix| prop_oneof![Just(prefix.network()), Just(prefix.broadcast())])
}

proptest! {
    #[test]
    fn lookup_equals_a_naive_scan(
        tags in prop::collection::vec(prop::collection::vec(prefix(), 0..8), 1..8),
        addresses in prop::collection::vec(address(), 1..16),
    ) {
        let values: Vec<_> = tags.iter().enumerate().map(|(number, prefixes)| {
            serde_json::json!({ "name": format!("T{number}"), "properties": { "addressPrefixes": prefixes } })
        }).collect();
        let catalogue = parse(&serde_json::json!({ "values": values }).to_string()).unwrap();
        for address in addresses {
            let mut expected: Vec<(usize, IpNet)> = tags.iter().enumerate().filter_map(|(number, prefixes)| {
                let longest = prefixes.iter().filter(|prefix| prefix.contains(&address)).max_by_key(|prefix| prefix.prefix_len());
                longest.map(|prefix| (number, *prefix))
            }).collect();
            expected.sort_by_key(|(number, prefix)| (std::cmp::Reverse(prefix.prefix_len()), *number));
            let expected: Vec<_> = expected.iter().map(|(number, prefix)| format!("T{number} {prefix}")).collect();
            prop_assert_eq!(names(&catalogue.lookup(address)), expected);
        }
    }

    #[test]
    fn no_damage_to_a_document_makes_the_reader_panic(position in 0..TWO_TAGS.len(), byte in any::<u8>()) {
        let mut bytes = TWO_TAGS.as_bytes().to_vec();
        bytes[position] = byte;
        if let Err(error) = Catalogue::parse(&bytes, "tags.json") {
            prop_assert!(error.to_string().starts_with("tags.json:"));
        }
    }
}
