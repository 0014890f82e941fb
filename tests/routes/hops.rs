//! What is behind next hops: ports, their numbers and surroundings.

use std::net::IpAddr;

use sidestep::snapshot::{HopAction, PortEntry, PortKind, Snapshot, SourceAction};

use super::{TCP, hop, outcome, plan, table};

/// A hub with gateway and appliances, a spoke that uses the gateway, one that does not, and a network apart with the
/// addresses of the first spoke.
const HUB_AND_SPOKES: &str = r#"
    [[virtual_network]]
    name = "hub"
    address_space = ["10.0.0.0/16", "fd00::/48"]
    peerings = [
      { remote = "spoke", allow_gateway_transit = true },
      { remote = "closed", allow_forwarded_traffic = true },
    ]
    [[virtual_network.subnet]]
    name = "GatewaySubnet"
    address_prefixes = ["10.0.255.0/27", "fd00:0:0:ff::/64"]
    route_table = "from-on-premises"
    [[virtual_network.subnet]]
    name = "appliances"
    address_prefixes = ["10.0.100.0/24", "10.0.101.0/24"]
    route_table = "tunnel"
    [[virtual_network]]
    name = "spoke"
    address_space = ["10.1.0.0/16", "fd00:1::/48"]
    peerings = [{ remote = "hub", allow_forwarded_traffic = true, use_remote_gateways = true }]
    [[virtual_network.subnet]]
    name = "workload"
    address_prefixes = ["10.1.1.0/24", "fd00:1:0:1::/64"]
    route_table = "spoke"
    service_endpoints = [{ service = "Microsoft.Storage", locations = ["westeurope"] }, { service = "Microsoft.Sql" }]
    [[virtual_network]]
    name = "closed"
    address_space = ["10.2.0.0/16"]
    peerings = [{ remote = "hub" }]
    [[virtual_network.subnet]]
    name = "workload"
    address_prefixes = ["10.2.1.0/24"]
    route_table = "tunnel"
    [[virtual_network]]
    name = "apart"
    address_space = ["10.1.0.0/16"]
    [[virtual_network.subnet]]
    name = "workload"
    address_prefixes = ["10.1.1.0/24"]
    [[route_table]]
    name = "from-on-premises"
    routes = [
      { name = "inspect", address_prefix = "10.1.1.0/28", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.101.4" },
      { name = "back", address_prefix = "172.31.0.0/16", next_hop_type = "VirtualNetworkGateway" },
    ]
    [[route_table]]
    name = "spoke"
    routes = [
      { name = "open", address_prefix = "198.51.100.0/28", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.101.4" },
      { name = "shut", address_prefix = "198.51.100.16/28", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.100.5" },
      { name = "itself", address_prefix = "10.0.100.0/24", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.100.5" },
      { name = "gone", address_prefix = "198.51.100.32/28", next_hop_type = "VirtualAppliance", next_hop_ip_address = "10.0.100.99" },
    ]
    [[route_table]]
    name = "tunnel"
    routes = [{ name = "tunnel", address_prefix = "172.31.0.0/16", next_hop_type = "VirtualNetworkGateway" }]
    [[nic]]
    name = "vm1"
    subnet = "spoke/workload"
    private_addresses = ["10.1.1.4", "fd00:1:0:1::4"]
    device = { tun = "eth0", netns = "vm1" }
    [[nic]]
    name = "vm2"
    subnet = "closed/workload"
    private_addresses = ["10.2.1.4"]
    device = { tun = "eth0", netns = "vm2" }
    [[nic]]
    name = "far"
    subnet = "apart/workload"
    private_addresses = ["10.1.1.4", "10.1.1.9"]
    device = { tun = "eth0", netns = "far", mtu = 1400 }
    [[nic]]
    name = "appliance"
    subnet = "hub/appliances"
    private_addresses = ["10.0.101.4"]
    ip_forwarding = true
    device = { tun = "eth0", netns = "appliance" }
    [[nic]]
    name = "plain"
    subnet = "hub/appliances"
    private_addresses = ["10.0.100.5"]
    device = { tun = "eth0", netns = "plain" }
    [[nic]]
    name = "paper"
    subnet = "spoke/workload"
    private_addresses = ["10.1.1.99"]
    [gateway]
    virtual_network = "hub"
    learned_routes = ["192.168.0.0/16"]
    device = { tun = "gw0", netns = "onprem" }
    [internet]
    public_addresses = ["203.0.113.200", "2001:db8:ffff::200"]
    device = { tun = "edge0", netns = "internet" }
    [[service]]
    name = "data"
    service = "Microsoft.Storage"
    location = "westeurope"
    addresses = ["191.239.203.10"]
    host_names = ["data.blob.core.windows.net"]
    device = { tun = "eth0", netns = "storage" }
"#;

#[test]
fn next_hops_lead_to_ports() {
    let plan = plan(HUB_AND_SPOKES);
    let snapshot = plan.compile(7, None).unwrap();
    assert_eq!(snapshot.generation, 7);
    for (from, to, expected) in [
        // Inside the network, and that of another network with the same addresses.
        ("vm1", "10.1.1.4", "vm1"),
        ("vm1", "fd00:1:0:1::4", "vm1"),
        ("vm1", "10.1.1.9", "AddressUnassigned"),
        ("far", "10.1.1.4", "far"),
        ("far", "10.1.1.9", "far"),
        ("far", "10.1.1.5", "AddressUnassigned"),
        ("vm1", "10.1.1.99", "NoDevice"),
        // Peers, which are not transitive.
        ("vm1", "10.0.101.4", "appliance"),
        ("appliance", "10.1.1.4", "vm1"),
        ("appliance", "10.1.1.9", "AddressUnassigned"),
        ("appliance", "10.2.1.4", "vm2"),
        ("vm1", "10.2.1.4", "NextHopNone"),
        ("far", "10.0.101.4", "NextHopNone"),
        // Appliances (R16).
        ("vm1", "198.51.100.1", "appliance"),
        ("vm1", "198.51.100.17", "ApplianceWithoutForwarding"),
        ("vm1", "198.51.100.33", "ApplianceUnreachable"),
        ("vm1", "10.0.100.5", "plain"),
        ("vm1", "10.0.100.6", "ApplianceWithoutForwarding"),
        // The gateway: its network, the spoke that uses it, and no others.
        ("vm1", "192.168.3.4", "gateway"),
        ("appliance", "192.168.3.4", "gateway"),
        ("vm2", "192.168.3.4", "NextHopNone"),
        ("vm2", "172.31.0.1", "NoGateway"),
        ("appliance", "172.31.0.1", "gateway"),
        // Internet and services; the storage endpoint covers one region.
        ("vm1", "198.51.100.80", "internet"),
        ("vm1", "2001:db8::1", "internet"),
        ("vm2", "2001:db8::1", "NoRoute"),
        ("vm1", "191.239.203.10", "data"),
        ("vm2", "191.239.203.10", "data"),
        ("vm1", "191.239.203.11", "NoSuchResource"),
        ("vm1", "191.235.255.11", "internet"),
        ("vm1", "20.61.9.1", "NoSuchResource"),
        ("vm1", "20.61.8.1", "internet"),
        ("vm2", "191.239.203.11", "internet"),
        // What came through the tunnel.
        ("hub/GatewaySubnet", "10.0.100.5", "plain"),
        ("hub/GatewaySubnet", "10.1.1.99", "NoDevice"),
        ("hub/GatewaySubnet", "10.1.1.4", "appliance"),
        ("hub/GatewaySubnet", "10.2.1.4", "NoRoute"),
        ("hub/GatewaySubnet", "192.168.9.9", "NoRoute"),
        ("hub/GatewaySubnet", "172.31.0.1", "NoRoute"),
        ("hub/GatewaySubnet", "191.239.203.10", "NoRoute"),
        ("hub/GatewaySubnet", "198.51.100.80", "NoRoute"),
    ] {
        assert_eq!(outcome(&plan, &snapshot, from, to, TCP), expected, "{from} to {to}");
        if from == "hub/GatewaySubnet" {
            let in_subnet = hop(&snapshot, "hub/GatewaySubnet", to, TCP);
            assert_eq!(hop(&snapshot, "gateway", to, TCP), in_subnet, "{to}");
        }
    }
}

#[test]
fn hops_carry_source_and_forwarding() {
    let plan = plan(HUB_AND_SPOKES);
    let snapshot = plan.compile(1, None).unwrap();
    let deliver = |from: &str, to: &str| match hop(&snapshot, from, to, TCP).unwrap().action {
        HopAction::Deliver { source, forwarded_allowed, .. } => (source, forwarded_allowed),
        HopAction::Drop(reason) => panic!("{from} to {to}: {reason:?}"),
    };
    let keep = SourceAction::Keep;
    assert_eq!(deliver("spoke/workload", "10.1.1.4"), (keep, true));
    assert_eq!(deliver("spoke/workload", "192.168.0.9"), (keep, true));
    assert_eq!(deliver("spoke/workload", "191.239.203.10"), (SourceAction::Endpoint(0), true));
    assert_eq!(deliver("closed/workload", "191.239.203.10"), (SourceAction::Outbound, true));
    assert_eq!(deliver("closed/workload", "8.8.8.8"), (SourceAction::Outbound, true));
    // The side that receives decides: the hub takes forwarded packets from `closed` and not from `spoke`.
    assert_eq!(deliver("spoke/workload", "10.0.101.4"), (keep, false));
    assert_eq!(deliver("spoke/workload", "198.51.100.1"), (keep, false));
    assert_eq!(deliver("closed/workload", "10.0.101.4"), (keep, true));
    assert_eq!(deliver("hub/appliances", "10.1.1.4"), (keep, true));
    assert_eq!(deliver("hub/appliances", "10.2.1.4"), (keep, false));
    // Gateway transit is not forwarding.
    assert_eq!(deliver("gateway", "10.1.1.4"), (keep, true));
}

#[test]
fn backbone_takes_what_no_service_has() {
    let plan = plan(&format!("{HUB_AND_SPOKES}\n[backbone]\ndevice = {{ tun = \"bb0\", netns = \"backbone\" }}\n"));
    let snapshot = plan.compile(1, None).unwrap();
    assert_eq!(outcome(&plan, &snapshot, "vm1", "191.239.203.11", TCP), "backbone");
    assert_eq!(outcome(&plan, &snapshot, "vm1", "191.239.203.10", TCP), "data");
    assert_eq!(outcome(&plan, &snapshot, "vm1", "191.235.255.11", TCP), "internet");
}

fn port<'s>(snapshot: &'s Snapshot, name: &str) -> &'s PortEntry {
    snapshot.ports.iter().find(|port| port.name == name).expect("the port is there")
}

#[test]
fn ports_know_their_surroundings() {
    let snapshot = plan(HUB_AND_SPOKES).compile(1, None).unwrap();
    let routers = |name: &str| {
        let port = port(&snapshot, name);
        let text = |address: Option<IpAddr>| address.map_or("-".to_owned(), |address| address.to_string());
        (text(port.router_v4.map(Into::into)), text(port.router_v6.map(Into::into)))
    };
    let pair = |v4: &str, v6: &str| (v4.to_owned(), v6.to_owned());
    assert_eq!(routers("vm1"), pair("10.1.1.1", "fd00:1:0:1::1"));
    assert_eq!(routers("vm2"), pair("10.2.1.1", "-"));
    assert_eq!(routers("appliance"), pair("10.0.101.1", "-"));
    assert_eq!(routers("plain"), pair("10.0.100.1", "-"));
    assert_eq!(routers("gateway"), pair("10.0.255.1", "fd00:0:0:ff::1"));
    assert_eq!(routers("internet"), pair("203.0.113.200", "2001:db8:ffff::200"));
    assert_eq!(routers("data"), pair("-", "-"));

    let vm1 = port(&snapshot, "vm1");
    assert_eq!((vm1.kind, vm1.mtu, vm1.ip_forwarding), (PortKind::Nic, 1500, false));
    assert_eq!(vm1.table, Some(table(&snapshot, "spoke/workload")));
    assert_eq!(vm1.address_space.len(), 2);
    assert_eq!(port(&snapshot, "far").mtu, 1400);
    assert!(port(&snapshot, "appliance").ip_forwarding);
    assert_eq!(port(&snapshot, "gateway").table, Some(table(&snapshot, "gateway")));
    let data = port(&snapshot, "data");
    assert_eq!((data.kind, data.table, data.address_space.len()), (PortKind::Service, None, 0));
    let public = snapshot.public_port("191.239.203.10".parse().unwrap()).unwrap();
    assert_eq!(snapshot.port(public).unwrap().name, "data");
    assert_eq!(snapshot.pools[0].v4, ["203.0.113.200".parse::<std::net::Ipv4Addr>().unwrap()]);
    assert_eq!(snapshot.pools[0].v6, ["2001:db8:ffff::200".parse::<std::net::Ipv6Addr>().unwrap()]);
}

#[test]
fn ports_keep_their_numbers() {
    let names = |snapshot: &Snapshot| snapshot.ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    let document = |nics: &[&str]| {
        let nic = |name: &&str| {
            let last = 4 + name.bytes().map(u32::from).sum::<u32>() % 200;
            format!("[[nic]]\nname = \"{name}\"\nsubnet = \"net/all\"\nprivate_addresses = [\"10.0.0.{last}\"]\n")
        };
        let nics: String = nics.iter().map(nic).collect();
        format!(
            "[[virtual_network]]\nname = \"net\"\naddress_space = [\"10.0.0.0/16\"]\n\
             [[virtual_network.subnet]]\nname = \"all\"\naddress_prefixes = [\"10.0.0.0/24\"]\n{nics}"
        )
    };
    let first = plan(&document(&["a", "b", "c"])).compile(1, None).unwrap();
    assert_eq!(names(&first), ["a", "b", "c"]);
    // A number that is given up stays vacant for one snapshot, and the order of the document does not matter.
    let second = plan(&document(&["d", "c", "a"])).compile(2, Some(&first)).unwrap();
    assert_eq!(names(&second), ["a", "", "c", "d"]);
    assert_eq!(second.ports[1].kind, PortKind::Vacant);
    let third = plan(&document(&["e", "d", "c", "a"])).compile(3, Some(&second)).unwrap();
    assert_eq!(names(&third), ["a", "e", "c", "d"]);
}

#[test]
fn names_are_found_and_nearest_ones_suggested() {
    let plan = plan(HUB_AND_SPOKES);
    let workload = plan.find_subnet_or_nic("spoke/workload").unwrap();
    assert_eq!(plan.find_subnet_or_nic("vm1"), Ok(workload));
    assert_eq!(plan.find_subnet_or_nic("Spoke/Workload"), Ok(workload));
    let error = plan.find_subnet_or_nic("spoke/workloads").unwrap_err().to_string();
    assert_eq!(error, "there is no subnet or NIC `spoke/workloads`; did you mean `spoke/workload`?");
    assert_eq!(plan.find_destination("DATA.blob.core.windows.net"), Ok("191.239.203.10".parse().unwrap()));
    let error = plan.find_destination("date.blob.core.windows.net").unwrap_err().to_string();
    let expected = "there is no address, service or host name of a service `date.blob.core.windows.net`; did you mean \
                    `data.blob.core.windows.net`?";
    assert_eq!(error, expected);
}
