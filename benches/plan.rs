//! How long a plan and its snapshot take: fifty subnets, each with nine endpoints and a route table of its own, under
//! Azure's weekly file where it lies beside the package, else under invented tags of the same sizes.

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::json;
use sidestep::model;
use sidestep::model::network::Network;
use sidestep::plan::Plan;
use sidestep::tags::Catalogue;

const SUBNETS: usize = 50;
const SERVICES: [&str; 9] = [
    "Microsoft.Storage",
    "Microsoft.Sql",
    "Microsoft.AzureCosmosDB",
    "Microsoft.KeyVault",
    "Microsoft.ServiceBus",
    "Microsoft.EventHub",
    "Microsoft.AzureActiveDirectory",
    "Microsoft.Web",
    "Microsoft.ContainerRegistry",
];
/// The tags of these services with the number of their IPv4 prefixes in the weekly file of 2025-11-17, rounded.
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

fn catalogue() -> Catalogue {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/ServiceTags_Public_20251117.json");
    if let Ok(catalogue) = Catalogue::load(&path) {
        return catalogue;
    }
    eprintln!("{} is missing: measuring with invented tags", path.display());
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
    let document = json!({ "changeNumber": 1, "cloud": "Public", "values": values });
    Catalogue::parse(document.to_string().as_bytes(), "invented").expect("the invented tags are good")
}

/// `distinct`: each subnet has a route table with routes of its own; else all share one.
fn network(catalogue: &Catalogue, distinct: bool) -> Network {
    let endpoints: String = SERVICES.iter().map(|service| format!("{{ service = \"{service}\" }}, ")).collect();
    let table = |subnet: usize| if distinct { subnet } else { 0 };
    let subnets: String = (0..SUBNETS)
        .map(|subnet| {
            format!(
                "[[virtual_network.subnet]]\nname = \"s{subnet}\"\naddress_prefixes = [\"10.0.{subnet}.0/24\", \
                 \"fd00:0:0:{subnet}::/64\"]\nroute_table = \"t{}\"\nservice_endpoints = [{endpoints}]\n",
                table(subnet)
            )
        })
        .collect();
    let tables: String = (0..if distinct { SUBNETS } else { 1 })
        .map(|table| {
            format!(
                "[[route_table]]\nname = \"t{table}\"\nroutes = [\n\
                 {{ name = \"default\", address_prefix = \"0.0.0.0/0\", next_hop_type = \"VirtualNetworkGateway\" }},\n\
                 {{ name = \"own\", address_prefix = \"198.51.{table}.0/24\", next_hop_type = \"None\" }},\n]\n"
            )
        })
        .collect();
    let nics: String = (0..SUBNETS)
        .map(|nic| {
            format!("[[nic]]\nname = \"n{nic}\"\nsubnet = \"net/s{nic}\"\nprivate_addresses = [\"10.0.{nic}.4\"]\n")
        })
        .collect();
    let document = format!(
        "location = \"westeurope\"\ntags = \"tags.json\"\n\
         [[virtual_network]]\nname = \"net\"\naddress_space = [\"10.0.0.0/16\", \"fd00::/48\"]\n{subnets}{tables}{nics}\
         [gateway]\nvirtual_network = \"net\"\n"
    );
    model::parse(&document, Path::new("bench.toml"), Some(catalogue)).expect("the document is good")
}

fn plan(criterion: &mut Criterion) {
    let catalogue = Arc::new(catalogue());
    let mut group = criterion.benchmark_group("plan");
    group.sample_size(20).measurement_time(Duration::from_secs(5));
    for (name, distinct) in [("50 subnets, one route table", false), ("50 subnets, 50 route tables", true)] {
        let network = Arc::new(network(&catalogue, distinct));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let plan = Plan::new(network.clone(), catalogue.clone());
                black_box(plan.compile(1, None).expect("the network compiles"))
            });
        });
    }
    let network = Arc::new(network(&catalogue, true));
    let subnet = network.find_subnet("net/s0").expect("the subnet is there");
    group.bench_function("effective routes of one subnet", |bencher| {
        bencher.iter_batched(
            || Plan::new(network.clone(), catalogue.clone()),
            |plan| black_box(plan.effective_routes(subnet).len()),
            criterion::BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, plan);
criterion_main!(benches);
