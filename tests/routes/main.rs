//! The choice of routes by the cases that Azure documents and labs observe: each under both values of both switches,
//! explained and compiled, which have to agree.

mod cases;
mod hops;
mod rows;
mod sources;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use sidestep::model;
use sidestep::plan::Plan;
use sidestep::snapshot::{Hop, HopAction, Snapshot, TableId, Unroutable};
use sidestep::tags::Catalogue;

const TCP: u8 = 6;

fn catalogue() -> Catalogue {
    let tags: [(&str, &str, &[&str]); 8] = [
        ("Storage", "", &["20.60.0.0/16", "191.239.203.0/24", "191.235.255.0/24", "20.70.0.0/24", "2603:1020::/32"]),
        ("Storage.WestEurope", "westeurope", &["191.239.203.0/24"]),
        ("Storage.NorthEurope", "northeurope", &["191.235.255.0/24"]),
        ("Storage.EastUS", "eastus", &["20.70.0.0/24"]),
        ("Sql", "", &["20.61.0.0/16"]),
        ("Sql.WestEurope", "westeurope", &["20.61.9.0/25"]),
        ("AzureCloud.eastus", "eastus", &["20.70.0.0/24"]),
        ("AzureCloud", "", &["20.60.0.0/15", "20.70.0.0/24", "20.70.0.128/25"]),
    ];
    let values: Vec<_> = tags
        .iter()
        .map(|(name, region, prefixes)| {
            json!({ "name": name, "id": name, "properties": {
                "changeNumber": 1, "region": region, "regionId": region_id(region), "platform": "Azure", "systemService": "",
                "addressPrefixes": prefixes, "networkFeatures": null,
            } })
        })
        .collect();
    let document = json!({ "changeNumber": 1, "cloud": "Public", "values": values });
    Catalogue::parse(document.to_string().as_bytes(), "test").unwrap()
}

/// The numbers of regions that Azure's weekly file has.
fn region_id(region: &str) -> u32 {
    match region {
        "northeurope" => 17,
        "westeurope" => 18,
        _ => 0,
    }
}

fn plan(document: &str) -> Plan {
    let catalogue = catalogue();
    let document = format!("location = \"westeurope\"\ntags = \"tags.json\"\n{document}");
    let network = match model::parse(&document, Path::new("test.toml"), Some(&catalogue)) {
        Ok(network) => network,
        Err(mistakes) => panic!("{mistakes}\n{document}"),
    };
    Plan::new(Arc::new(network), Arc::new(catalogue))
}

fn table(snapshot: &Snapshot, name: &str) -> TableId {
    let found = snapshot.tables.iter().position(|table| table.name == name);
    TableId(found.expect("the table is there") as u16)
}

fn hop<'s>(snapshot: &'s Snapshot, name: &str, to: &str, protocol: u8) -> Option<&'s Hop> {
    snapshot.route(table(snapshot, name), to.parse().unwrap(), protocol)
}

/// What becomes of a packet: the name of its port, or why there is none. Explanation and snapshot have to agree.
fn outcome(plan: &Plan, snapshot: &Snapshot, from: &str, to: &str, protocol: u8) -> String {
    let destination: IpAddr = to.parse().unwrap();
    let answer = plan.next_hop(plan.find_subnet_or_nic(from).unwrap(), destination, protocol);
    let hop = hop(snapshot, &answer.from, to, protocol);
    let compiled = hop.map_or("None", |hop| hop.next_hop_type.name());
    assert_eq!(answer.next_hop_type, compiled, "{from} to {to}: {answer:#?}");
    match hop.map(|hop| hop.action) {
        Some(HopAction::Deliver { port, .. }) => {
            let name = snapshot.port(port).unwrap().name.clone();
            assert_eq!(answer.port.as_deref(), Some(name.as_str()), "{answer:#?}");
            name
        }
        Some(HopAction::Drop(reason)) => {
            assert!(reason == Unroutable::NoDevice || answer.unroutable.is_some(), "{answer:#?}");
            format!("{reason:?}")
        }
        None => {
            assert!(answer.route.is_none() && answer.port.is_none(), "{answer:#?}");
            "NoRoute".to_owned()
        }
    }
}
