//! Fifty subnets, each with endpoints of nine services and a NIC.

use std::path::Path;

use sidestep::model;
use sidestep::model::network::Network;
use sidestep::tags::Catalogue;

/// How many.
pub(crate) const SUBNETS: usize = 50;
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

/// The network. `distinct`: each subnet has a route table with routes of its own; else all share one.
pub(crate) fn network(catalogue: &Catalogue, distinct: bool) -> Network {
    let document = document(Path::new("tags.json"), distinct, None);
    model::parse(&document, Path::new("bench.toml"), Some(catalogue)).expect("the document is good")
}

/// Its document. Each NIC `nNUMBER` has a device in the namespace that `namespace` names for it, or there is none.
pub(crate) fn document(tags: &Path, distinct: bool, namespace: Option<&dyn Fn(&str) -> String>) -> String {
    let endpoints: String = SERVICES.iter().map(|service| format!("{{ service = \"{service}\" }}, ")).collect();
    let table = |subnet: usize| if distinct { subnet } else { 0 };
    let device = |nic: usize| {
        let name = format!("n{nic}");
        namespace.map(|of| format!("device = {{ tun = \"eth0\", netns = \"{}\" }}\n", of(&name))).unwrap_or_default()
    };
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
            format!(
                "[[nic]]\nname = \"n{nic}\"\nsubnet = \"net/s{nic}\"\nprivate_addresses = [\"10.0.{nic}.4\"]\n{}",
                device(nic)
            )
        })
        .collect();
    format!(
        "location = \"westeurope\"\ntags = {tags:?}\n\
         [[virtual_network]]\nname = \"net\"\naddress_space = [\"10.0.0.0/16\", \"fd00::/48\"]\n{subnets}{tables}{nics}\
         [gateway]\nvirtual_network = \"net\"\n"
    )
}
