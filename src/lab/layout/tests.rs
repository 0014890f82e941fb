use super::*;
use crate::model;
use std::path::Path;

/// A forced tunnel through an on-premises site, as small as it can be.
const DOCUMENT: &str = r#"
location = "westeurope"

[[virtual_network]]
name = "spoke"
address_space = ["10.1.0.0/16", "fd00:1::/48"]

  [[virtual_network.subnet]]
  name = "workload"
  address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]

  [[virtual_network.subnet]]
  name = "appliances"
  address_prefixes = ["10.1.2.0/24"]

  [[virtual_network.subnet]]
  name = "GatewaySubnet"
  address_prefixes = ["10.1.255.0/27"]

[[nic]]
name = "vm1"
subnet = "spoke/workload"
private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]
device = { tun = "eth0", netns = "vm1" }

[[nic]]
name = "nva"
subnet = "spoke/appliances"
private_addresses = ["10.1.2.4"]
ip_forwarding = true
device = { tun = "eth0", netns = "nva" }

[gateway]
virtual_network = "spoke"
learned_routes = ["192.168.0.0/16"]
device = { tun = "link0", netns = "onprem", addresses = ["192.168.0.1/24"] }

[internet]
public_addresses = ["203.0.113.200"]
device = { tun = "edge0", netns = "internet" }

[[service]]
name = "contosodata"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["20.60.1.10", "2603:1020:206::10"]
host_names = ["contosodata.blob.core.windows.net"]
device = { tun = "eth0", netns = "storage" }

[lab]
  [[lab.host]]
  netns = "onprem"
  masquerade = ["203.0.113.10", "2001:db8::10"]
  connect = { to = "internet" }

  [[lab.host]]
  netns = "internet"
  web = ["198.51.100.80"]
  web_names = ["www.example.com"]
"#;

fn network(document: &str) -> Network {
    model::parse(document, Path::new("test.toml"), None).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn layout(document: &str) -> Layout {
    Layout::of(&network(document)).expect("layout")
}

fn namespace<'a>(layout: &'a Layout, name: &str) -> &'a Namespace {
    layout.namespaces.iter().find(|namespace| namespace.name == name).expect("namespace")
}

fn routes(namespace: &Namespace) -> Vec<String> {
    namespace.routes.iter().map(|r| format!("{} via {} dev {}", r.prefix, r.via, r.interface)).collect()
}

#[test]
fn every_device_and_host_has_its_namespace_once() {
    let layout = layout(DOCUMENT);
    let names: Vec<_> = layout.namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
    assert_eq!(names, ["vm1", "nva", "onprem", "internet", "storage"]);
    assert!(layout.own_interfaces.is_empty());
}

#[test]
fn only_who_has_to_forwards() {
    let layout = layout(DOCUMENT);
    let forwarding = |name| namespace(&layout, name).forwarding;
    assert_eq!(["vm1", "nva", "onprem", "internet", "storage"].map(forwarding), [false, true, true, true, false]);
}

#[test]
fn the_link_leads_to_the_internet_and_back_to_the_public_address() {
    let layout = layout(DOCUMENT);
    let [link] = layout.links.as_slice() else { panic!("one link") };
    let [near, far] = &link.ends;
    assert_eq!((near.netns.as_str(), far.netns.as_str()), ("onprem", "internet"));
    assert_eq!(near.interface, "link1", "link0 is a device of the document");
    assert_eq!(far.interface, "link0");
    assert_eq!(near.addresses, ["192.0.2.1/30".parse().unwrap(), "2001:db8:ffff:ffff::1/126".parse().unwrap()]);
    assert_eq!(
        routes(namespace(&layout, "onprem")),
        ["0.0.0.0/0 via 192.0.2.2 dev link1", "::/0 via 2001:db8:ffff:ffff::2 dev link1"]
    );
    assert_eq!(
        routes(namespace(&layout, "internet")),
        ["203.0.113.10/32 via 192.0.2.1 dev link0", "2001:db8::10/128 via 2001:db8:ffff:ffff::1 dev link0"]
    );
}

#[test]
fn the_site_hides_each_family_behind_its_public_address() {
    let layout = layout(DOCUMENT);
    assert_eq!(
        namespace(&layout, "onprem").nftables,
        "table ip sidestep {\n\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat\n\
         \t\toifname \"link1\" ip saddr != 203.0.113.10 snat to 203.0.113.10\n\t}\n}\n\
         table ip6 sidestep {\n\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat\n\
         \t\toifname \"link1\" ip6 saddr != 2001:db8::10 snat to 2001:db8::10\n\t}\n}\n"
    );
    assert!(namespace(&layout, "internet").nftables.is_empty());
}

#[test]
fn a_site_that_hides_nothing_is_reached_by_its_networks() {
    let document = DOCUMENT.replace(r#"masquerade = ["203.0.113.10", "2001:db8::10"]"#, "");
    let layout = layout(&document);
    let prefixes: Vec<_> = namespace(&layout, "internet").routes.iter().map(|r| r.prefix.to_string()).collect();
    assert_eq!(prefixes, ["10.1.0.0/16", "192.168.0.0/16", "fd00:1::/48"]);
    assert!(namespace(&layout, "onprem").nftables.is_empty());
}

#[test]
fn hosts_behind_hosts_are_reached_too() {
    let branch =
        "\n  [[lab.host]]\n  netns = \"branch\"\n  web = [\"198.51.100.90\"]\n  connect = { to = \"onprem\" }\n";
    let layout = layout(&format!("{DOCUMENT}{branch}"));
    let to_branch: Vec<_> =
        routes(namespace(&layout, "onprem")).into_iter().filter(|r| r.starts_with("198.51.100.90/32")).collect();
    assert_eq!(to_branch, ["198.51.100.90/32 via 192.0.2.5 dev link2"]);
    let from_internet = routes(namespace(&layout, "internet"));
    assert!(from_internet.contains(&"198.51.100.90/32 via 192.0.2.1 dev link0".to_owned()), "{from_internet:?}");
}

#[test]
fn link_addresses_keep_clear_of_the_document() {
    let document = DOCUMENT.replace("198.51.100.80", "192.0.2.2");
    assert_eq!(layout(&document).links[0].ends[0].addresses[0].to_string(), "192.0.2.5/30");
    let document =
        DOCUMENT.replace(r#"learned_routes = ["192.168.0.0/16"]"#, r#"learned_routes = ["0.0.0.0/0", "192.0.0.0/16"]"#);
    assert_eq!(layout(&document).links[0].ends[0].addresses[0].to_string(), "198.18.0.1/30");
}

#[test]
fn translated_addresses_are_known_to_the_lab() {
    let parts = "\n[[nat_gateway]]\nname = \"egress\"\npublic_addresses = [\"192.0.2.2\"]\n\
                 [[snat_pool]]\nname = \"pool\"\naddresses = [\"192.0.2.6\"]\n";
    let layout = layout(&format!("{DOCUMENT}{parts}"));
    assert_eq!(layout.links[0].ends[0].addresses[0].to_string(), "192.0.2.9/30", "links keep clear of both");
    let edge_behind = format!("{DOCUMENT}{parts}")
        .replace("netns = \"internet\" }\n\n[[service]]", "netns = \"onprem\" }\n\n[[service]]");
    let edge_behind = self::layout(&edge_behind);
    let back = routes(namespace(&edge_behind, "internet"));
    assert!(back.iter().any(|route| route.starts_with("192.0.2.2/32 via ")), "{back:?}");
}

#[test]
fn names_point_at_public_addresses_in_every_namespace() {
    let layout = layout(DOCUMENT);
    for namespace in &layout.namespaces {
        assert_eq!(
            namespace.hosts,
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n\
             20.60.1.10 contosodata.blob.core.windows.net\n2603:1020:206::10 contosodata.blob.core.windows.net\n\
             198.51.100.80 www.example.com\n"
        );
    }
    let answers = |name| namespace(&layout, name).answers.iter().map(|(_, who)| who.as_str()).collect::<Vec<_>>();
    assert_eq!(answers("storage"), ["contosodata", "contosodata"]);
    assert_eq!(answers("internet"), ["www.example.com"]);
    assert!(answers("vm1").is_empty());
}

#[test]
fn a_device_outside_of_namespaces_is_an_interface_of_ours() {
    let layout = layout(&DOCUMENT.replace(r#"{ tun = "eth0", netns = "nva" }"#, r#"{ tun = "ss-nva" }"#));
    assert_eq!(layout.own_interfaces, ["ss-nva"]);
    assert!(layout.namespaces.iter().all(|namespace| namespace.name != "nva"));
}

#[test]
fn services_answer_whom_they_deny_at_their_own_ports() {
    let guarded = |port: u16| {
        let firewall = format!("firewall = {{ default_action = \"Deny\", answering_port = {port} }}\n");
        DOCUMENT.replace(
            "device = { tun = \"eth0\", netns = \"storage\" }",
            &format!("{firewall}device = {{ tun = \"eth0\", netns = \"storage\" }}"),
        )
    };
    let layout = layout(&guarded(8403));
    let refusals: Vec<_> = namespace(&layout, "storage").refusals.iter().map(ToString::to_string).collect();
    assert_eq!(refusals, ["20.60.1.10:8403=http", "[2603:1020:206::10]:8403=http"]);
    let sources: Vec<_> = layout.endpoint_sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["10.1.0.0/16", "fd00:1::/48"]);
    let sql = guarded(14330).replace("Microsoft.Storage", "Microsoft.Sql");
    assert!(self::layout(&sql).namespaces.iter().flat_map(|n| &n.refusals).all(|r| r.language == Language::Sql));
    let taken = Layout::of(&network(&guarded(443))).expect_err("refused");
    assert_eq!(taken, LayoutError::AnsweringPort { service: "contosodata".to_owned(), port: 443 });
}

#[test]
fn what_makes_no_lab_is_refused() {
    let refused = |document: &str| Layout::of(&network(document)).expect_err("refused");
    let ring = DOCUMENT.replace("web_names = [", "connect = { to = \"onprem\" }\n  web_names = [");
    assert_eq!(refused(&ring), LayoutError::Ring { host: "onprem".to_owned() });
    assert_eq!(refused("location = \"westeurope\"\n"), LayoutError::Empty);
    let nowhere = DOCUMENT.replace("web = [", "masquerade = [\"203.0.113.99\"]\n  web = [");
    assert_eq!(refused(&nowhere), LayoutError::MasqueradeNowhere { host: "internet".to_owned() });
}
