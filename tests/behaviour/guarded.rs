//! Networks whose services are guarded: two virtual networks with the same addresses, an appliance, storage accounts with
//! addresses of their own and accounts that share one, a database server, and an internet edge.

use crate::bench::Bench;
use crate::packets::{Seen, Tcp};

/// What a test puts into the document.
#[derive(Clone, Copy)]
pub(crate) struct Guarded<'a> {
    /// Lines of the subnet `blue/app`, which has a storage endpoint.
    pub(crate) app: &'a str,
    /// Lines of the subnet `blue/bare`, which has none.
    pub(crate) bare: &'a str,
    /// `firewall = …` of the account `own`, which has 20.60.1.10 alone.
    pub(crate) own: &'a str,
    /// The same of `first`, which shares 20.60.1.20 with `second` and `third`.
    pub(crate) first: &'a str,
    /// `firewall = …` of the database server `sql` at 20.61.9.10.
    pub(crate) sql: &'a str,
    /// Anything else.
    pub(crate) more: &'a str,
}

const STORAGE: &str = r#"service_endpoints = [{ service = "Microsoft.Storage" }, { service = "Microsoft.Sql" }]"#;

impl Default for Guarded<'_> {
    fn default() -> Self {
        Self { app: STORAGE, bare: "", own: "", first: "", sql: "", more: "" }
    }
}

impl Guarded<'_> {
    pub(crate) fn document(&self) -> String {
        let Self { app, bare, own, first, sql, more } = self;
        format!(
            r#"
location = "westeurope"
tags = "service-tags.json"

[[virtual_network]]
name = "blue"
address_space = ["10.1.0.0/16"]
  [[virtual_network.subnet]]
  name = "app"
  address_prefixes = ["10.1.1.0/24"]
  {app}
  [[virtual_network.subnet]]
  name = "bare"
  address_prefixes = ["10.1.2.0/24"]
  {bare}
  [[virtual_network.subnet]]
  name = "behind"
  address_prefixes = ["10.1.3.0/24"]
  route_table = "to-appliance"
  [[virtual_network.subnet]]
  name = "appliances"
  address_prefixes = ["10.1.100.0/24"]
  service_endpoints = [{{ service = "Microsoft.Storage" }}]

[[virtual_network]]
name = "green"
address_space = ["10.1.0.0/16"]
  [[virtual_network.subnet]]
  name = "app"
  address_prefixes = ["10.1.1.0/24"]
  service_endpoints = [{{ service = "Microsoft.Storage" }}]

[[virtual_network]]
name = "far"
location = "italynorth"
address_space = ["10.9.0.0/16"]
  [[virtual_network.subnet]]
  name = "app"
  address_prefixes = ["10.9.1.0/24"]
  service_endpoints = [{{ service = "Microsoft.Storage" }}]
  [[virtual_network.subnet]]
  name = "everywhere"
  address_prefixes = ["10.9.2.0/24"]
  service_endpoints = [{{ service = "Microsoft.Storage.Global" }}]

[[route_table]]
name = "to-appliance"
routes = [
  {{ name = "default", address_prefix = "0.0.0.0/0", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.1.100.4" }},
]

[[nic]]
name = "blue1"
subnet = "blue/app"
private_addresses = ["10.1.1.4"]
device = {{ tun = "t1" }}
[[nic]]
name = "bare1"
subnet = "blue/bare"
private_addresses = ["10.1.2.4"]
device = {{ tun = "t2" }}
[[nic]]
name = "behind1"
subnet = "blue/behind"
private_addresses = ["10.1.3.4"]
device = {{ tun = "t3" }}
[[nic]]
name = "appliance"
subnet = "blue/appliances"
private_addresses = ["10.1.100.4"]
ip_forwarding = true
device = {{ tun = "t4" }}
[[nic]]
name = "green1"
subnet = "green/app"
private_addresses = ["10.1.1.4"]
device = {{ tun = "t5" }}
[[nic]]
name = "far1"
subnet = "far/app"
private_addresses = ["10.9.1.4"]
device = {{ tun = "t6" }}
[[nic]]
name = "far2"
subnet = "far/everywhere"
private_addresses = ["10.9.2.4"]
device = {{ tun = "t7" }}

[internet]
public_addresses = ["203.0.113.200"]
device = {{ tun = "edge" }}

[[service]]
name = "own"
service = "Microsoft.Storage"
id = "/subscriptions/s1/resourceGroups/data/providers/Microsoft.Storage/storageAccounts/own"
addresses = ["20.60.1.10"]
host_names = ["own.blob.core.windows.net"]
{own}
device = {{ tun = "t-own" }}

[[service]]
name = "front"
service = "Microsoft.Storage"
addresses = ["20.60.1.20"]
device = {{ tun = "t-front" }}
  [[service.resource]]
  name = "first"
  id = "/subscriptions/s1/resourceGroups/data/providers/Microsoft.Storage/storageAccounts/first"
  host_names = ["first.blob.core.windows.net"]
  {first}
  [[service.resource]]
  name = "second"
  id = "/subscriptions/s2/resourceGroups/loot/providers/Microsoft.Storage/storageAccounts/second"
  host_names = ["second.blob.core.windows.net"]
  [[service.resource]]
  name = "third"
  id = "/subscriptions/s1/resourceGroups/jobs/providers/Microsoft.Storage/storageAccounts/third"
  service_alias = "/services/Azure/Batch"
  host_names = ["third.blob.core.windows.net"]

[[service]]
name = "sql"
service = "Microsoft.Sql"
addresses = ["20.61.9.10"]
host_names = ["sql.database.windows.net"]
{sql}
device = {{ tun = "t-sql" }}

{more}
"#
        )
    }

    pub(crate) fn bench(&self) -> Bench {
        Bench::with(&self.document())
    }
}

/// The address of the account that has one alone, and of those that share one.
pub(crate) const OWN: &str = "20.60.1.10";
pub(crate) const SHARED: &str = "20.60.1.20";
pub(crate) const SQL: &str = "20.61.9.10";

/// A SYN.
pub(crate) fn syn(from: &str, to: &str, port: u16) -> Vec<u8> {
    Tcp { from: (from, 40_000), to: (to, port), ..Tcp::default() }.bytes()
}

/// The resets among what was sent to a port.
pub(crate) fn resets<'s>(sent: &'s [(String, Seen)], to: &str) -> Vec<&'s Seen> {
    let to_port = sent.iter().filter(|(port, _)| port == to).map(|(_, seen)| seen);
    to_port.filter(|seen| seen.tcp.as_ref().is_some_and(|tcp| tcp.reset)).collect()
}
