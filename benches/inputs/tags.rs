//! The service tags that benchmarks measure with: Azure's weekly file, which `SIDESTEP_TAGS` names or `../shared/data`
//! has, else something of the project's own, said aloud.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::json;
use sidestep::tags::Catalogue;

/// Where Azure's weekly file should be.
pub(crate) fn weekly_file() -> PathBuf {
    std::env::var_os("SIDESTEP_TAGS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ServiceTags_Public_20251117.json"),
        PathBuf::from,
    )
}

/// The weekly file, or what is measured with instead.
pub(crate) fn weekly_or(instead: &str, other: impl FnOnce() -> Catalogue) -> Catalogue {
    let file = weekly_file();
    Catalogue::load(&file).unwrap_or_else(|error| {
        eprintln!("{}: {error}; measuring with {instead}", file.display());
        other()
    })
}

/// The weekly file, or the catalogue of the project.
pub(crate) fn catalogue() -> Catalogue {
    weekly_or("the project's catalogue", || Catalogue::built_in().expect("the project's catalogue is good"))
}

/// The tags of nine services with endpoints, with the number of their IPv4 prefixes in the weekly file of 2025-11-17,
/// rounded.
const TAGS: [(&str, u32); 9] = [
    ("Storage", 500),
    ("Sql", 1100),
    ("AzureCosmosDB", 600),
    ("AzureKeyVault", 350),
    ("ServiceBus", 450),
    ("EventHub", 350),
    ("AzureActiveDirectory", 200),
    ("AppService", 1100),
    ("AzureContainerRegistry", 600),
];

/// The weekly file, or invented tags of the nine services of [`super::endpoints`].
pub(crate) fn catalogue_of_nine() -> Catalogue {
    weekly_or("invented tags", || {
        Catalogue::parse(invented().to_string().as_bytes(), "invented").expect("the invented tags are good")
    })
}

/// A document of service tags, the weekly one or the invented one.
pub(crate) fn document_of_nine() -> serde_json::Value {
    match std::fs::read(weekly_file()) {
        Ok(text) => serde_json::from_slice(&text).expect("a JSON document"),
        Err(_) => invented(),
    }
}

fn invented() -> serde_json::Value {
    let mut next = u32::from(Ipv4Addr::new(20, 0, 0, 0));
    let mut prefixes = |count: u32| -> Vec<String> {
        let step = |_| {
            next += 64;
            format!("{}/27", Ipv4Addr::from(next))
        };
        (0..count).map(step).collect()
    };
    let values: Vec<_> = TAGS
        .iter()
        .map(|(name, count)| {
            json!({ "name": name, "id": name, "properties": {
                "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure", "systemService": "",
                "addressPrefixes": prefixes(*count), "networkFeatures": null,
            } })
        })
        .collect();
    json!({ "changeNumber": 1, "cloud": "Public", "values": values })
}

/// Prefixes with their length and number, IPv4 and IPv6.
pub(crate) type Prefixes = (Vec<(u32, u8, u32)>, Vec<(u128, u8, u32)>);

/// The distinct prefixes of the weekly file, or made-up ones: as many, with the same mix of lengths.
pub(crate) fn prefixes() -> Prefixes {
    let file = weekly_file();
    let nets = match Catalogue::load(&file) {
        Ok(catalogue) => catalogue.tags().flat_map(|tag| tag.prefixes().collect::<Vec<_>>()).collect(),
        Err(error) => {
            println!("{}: {error}; measuring with made-up prefixes", file.display());
            made_up()
        }
    };
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (number, net) in nets.into_iter().enumerate() {
        match net {
            IpNet::V4(net) => v4.push((net.addr().to_bits(), net.prefix_len(), number as u32)),
            IpNet::V6(net) => v6.push((net.addr().to_bits(), net.prefix_len(), number as u32)),
        }
    }
    (v4, v6)
}

/// As many prefixes in as few blocks, with the lengths that are most frequent.
fn made_up() -> BTreeSet<IpNet> {
    let mut random = Rng::with_seed(4);
    let blocks: Vec<u32> = (0..780).map(|_| random.u32(1 << 24..224 << 24) & 0xffff_0000).collect();
    let mut nets = BTreeSet::new();
    while nets.len() < 39_638 {
        let length = random.u8(22..=32);
        let address = blocks[random.usize(..blocks.len())] | random.u32(..=0xffff);
        nets.insert(IpNet::V4(Ipv4Net::new(address.into(), length).expect("a length").trunc()));
    }
    let sites: Vec<u128> = (0..1400).map(|_| 0x2603 << 112 | (random.u128(..) >> 24 >> 64) << 64).collect();
    while nets.len() < 39_638 + 13_948 {
        let length = if random.u8(..4) == 0 { random.u8(46..=64) } else { random.u8(119..=128) };
        let address = sites[random.usize(..sites.len())] | random.u128(..=0xfff);
        nets.insert(IpNet::V6(Ipv6Net::new(address.into(), length).expect("a length").trunc()));
    }
    nets
}

/// How many addresses are looked up in turn: enough that the processor doesn't learn their order.
pub(crate) const ADDRESSES: usize = 65_536;

/// Addresses in prefixes that are drawn from a list.
pub(crate) fn addresses_v4(prefixes: &[(u32, u8, u32)], random: &mut Rng) -> Vec<u32> {
    let mut draw = || {
        let (prefix, length, _) = prefixes[random.usize(..prefixes.len())];
        prefix | random.u32(..).checked_shr(length.into()).unwrap_or(0)
    };
    (0..ADDRESSES).map(|_| draw()).collect()
}

/// The same in IPv6.
pub(crate) fn addresses_v6(prefixes: &[(u128, u8, u32)], random: &mut Rng) -> Vec<u128> {
    let mut draw = || {
        let (prefix, length, _) = prefixes[random.usize(..prefixes.len())];
        prefix | random.u128(..).checked_shr(length.into()).unwrap_or(0)
    };
    (0..ADDRESSES).map(|_| draw()).collect()
}
