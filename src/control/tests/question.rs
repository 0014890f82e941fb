//! Questions: devices and what the kernel is told, explanations, flows.

use super::*;
use crate::control::answers::ExplainQuery;
use crate::control::explain::PacketVerdict;
use crate::control::ports::attachments;
use crate::control::top::TopQuery;

fn query(from: &str, to: &str, protocol: &str, port: Option<u16>) -> ExplainQuery {
    ExplainQuery { from: from.to_owned(), to: to.to_owned(), protocol: protocol.to_owned(), port }
}

#[test]
fn the_kernels_side_of_a_port_follows_from_its_role() {
    let folder = Setup::new().folder;
    let backbone = "\n[backbone]\ndevice = { tun = \"bb0\" }\n";
    let ethernet = "\n[[service]]\nname = \"wire\"\nservice = \"Microsoft.Sql\"\nlocation = \"westeurope\"\n\
                    addresses = [\"20.61.0.1\"]\n\
                    device = { ethernet = \"veth0\", addresses = [\"192.0.2.1/24\"], next_hop = [\"192.0.2.2\"] }\n";
    let document = Document {
        path: folder.path().join("network.toml"),
        text: format!("{DOCUMENT}{SECOND_SERVICE}{backbone}{ethernet}"),
    };
    let loaded = Loaded::load(document, Overrides::default()).unwrap();
    let shown: Vec<String> = attachments(loaded.network(), loaded.snapshot())
        .iter()
        .map(|port| {
            let list = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            format!("{} {}: {} | {}", port.name, port.interface(), list(&port.addresses), list(&port.routes))
        })
        .collect();
    let mut shown = shown;
    shown.sort();
    assert_eq!(
        shown,
        [
            "backbone bb0:  | 10.0.0.0/16 10.1.0.0/16 fd00:1::/48",
            "data data0: 20.60.1.10/32 | 0.0.0.0/0",
            "gateway gw0: 192.168.0.1/24 | 10.0.0.0/16 10.1.0.0/16 fd00:1::/48",
            "internet edge0:  | 20.60.1.10/32 20.60.1.11/32 20.61.0.1/32 203.0.113.200/32",
            "vm1 vm0: 10.1.1.4/24 fd00:1:0:1::4/64 | 0.0.0.0/0 ::/0",
            "wire veth0:  | ",
        ],
        "a service without a device has no port to open, and an Ethernet interface is not ours to configure"
    );
}

#[test]
fn the_kernels_know_what_addresses_are_translated_to() {
    let folder = Setup::new().folder;
    let text = format!(
        "{DOCUMENT}{SECOND_SERVICE}device = {{ tun = \"more0\" }}\n[backbone]\ndevice = {{ tun = \"bb0\" }}\n\
         [[nat_gateway]]\nname = \"egress\"\npublic_addresses = [\"203.0.113.30\", \"2001:db8:ffff::30\"]\n\
         [[snat_pool]]\nname = \"pool\"\naddresses = [\"198.51.100.10\"]\n"
    );
    let endpoint = |source: &str| {
        format!(
            "address_prefixes = [\"10.1.2.0/24\"]\n  service_endpoints = \
                 [{{ service = \"{STORAGE}\", source = {source} }}]"
        )
    };
    let text = text
        .replace("\"20.60.1.11\"", "\"20.60.1.11\", \"2603:1020::11\"")
        .replace("name = \"vm1\"\nsubnet", "name = \"vm1\"\npublic_addresses = [\"203.0.113.40\"]\nsubnet");
    let shown = |source: &str, port: &str| {
        let text = text.replace("address_prefixes = [\"10.1.2.0/24\"]", &endpoint(source));
        let document = Document { path: folder.path().join("network.toml"), text };
        let loaded = Loaded::load(document, Overrides::default()).unwrap();
        let all = attachments(loaded.network(), loaded.snapshot());
        let port = all.into_iter().find(|attachment| attachment.name == port).unwrap();
        let list = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        format!("{} | {}", list(&port.addresses), list(&port.routes))
    };
    assert_eq!(
        shown("\"private\"", "internet"),
        " | 20.60.1.10/32 20.60.1.11/32 203.0.113.30/32 203.0.113.40/32 203.0.113.200/32 2001:db8:ffff::30/128 \
         2603:1020::11/128"
    );
    assert_eq!(shown("\"private\"", "backbone"), " | 10.0.0.0/16 10.1.0.0/16 198.51.100.10/32 fd00:1::/48");
    assert_eq!(
        shown("{ prefix_map = \"100.64.8.0/24\" }", "backbone"),
        " | 10.0.0.0/16 10.1.0.0/16 100.64.8.0/24 198.51.100.10/32 fd00:1::/48"
    );
    assert_eq!(
        shown("\"identity6\"", "backbone"),
        " | 10.0.0.0/16 10.1.0.0/16 198.51.100.10/32 fd00:1::/48 fde4:8dba::/32"
    );
    assert_eq!(shown("\"private\"", "data"), "20.60.1.10/32 | 0.0.0.0/0");
    assert_eq!(shown("\"identity6\"", "data"), "20.60.1.10/32 64:ff9b::143c:10a/128 | 0.0.0.0/0 ::/0");
    assert_eq!(shown("\"identity6\"", "more"), "20.60.1.11/32 2603:1020::11/128 | 0.0.0.0/0 ::/0");
}

#[test]
fn a_packet_is_explained_by_every_stage() {
    let setup = Setup::new();
    let answer = setup.node.explain(&query("vm1", "data.blob.example", "tcp", Some(80))).unwrap();
    assert_eq!((answer.nic.as_str(), answer.subnet.as_str(), answer.generation), ("vm1", WORKLOAD, 1));
    assert_eq!((answer.source.as_str(), answer.destination.as_str()), ("10.1.1.4:49152", "20.60.1.10:80"));
    let stages: Vec<&str> = answer.stages.iter().map(|stage| stage.stage.as_str()).collect();
    assert!(stages.starts_with(&["parse", "flow", "origin", "route"]), "{stages:?}");
    assert_eq!(
        answer.verdict,
        PacketVerdict::Forwarded {
            port: "gateway".to_owned(),
            next_hop_type: "VirtualNetworkGateway".to_owned(),
            source_seen: "10.1.1.4".parse().unwrap(),
        }
    );
    assert_eq!(answer.next_hop.route.unwrap().name.as_deref(), Some("default"));
    assert_eq!(answer.next_hop.candidates.len(), 1, "the system's default route lost");

    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    let answer = setup.node.explain(&query(WORKLOAD, "20.60.1.10", "tcp", None)).unwrap();
    assert_eq!((answer.generation, answer.destination.as_str()), (2, "20.60.1.10:443"));
    assert!(matches!(&answer.verdict, PacketVerdict::Forwarded { port, .. } if port == "data"), "{:?}", answer.verdict);
}

#[test]
fn the_path_and_the_plan_agree_for_every_protocol() {
    let setup = Setup::new();
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    for to in ["20.60.1.10", "198.51.100.1", "192.168.0.9", "10.1.1.200", "172.16.0.1", "fd00:1:0:1::9", "2603:1020::1"]
    {
        for protocol in ["tcp", "udp", "icmp", "gre", "esp", "sctp", "33", "136", "253"] {
            let answer = setup.node.explain(&query("vm1", to, protocol, None)).unwrap();
            match &answer.verdict {
                PacketVerdict::Forwarded { port, next_hop_type, .. } => {
                    assert_eq!(Some(port), answer.next_hop.port.as_ref(), "{protocol} to {to}");
                    assert_eq!(*next_hop_type, answer.next_hop.next_hop_type, "{protocol} to {to}");
                }
                PacketVerdict::Dropped { reason, .. } => {
                    assert!(!reason.starts_with("malformed"), "{protocol} to {to}: {reason}");
                    assert!(
                        answer.next_hop.unroutable.is_some() || reason == "no_outbound_address",
                        "{protocol} to {to}: {reason}"
                    );
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_explained_is_said() {
    let setup = Setup::new();
    let refused = |from: &str, to: &str, protocol: &str, port: Option<u16>| {
        let refusal = setup.node.explain(&query(from, to, protocol, port)).unwrap_err();
        (refusal.status(), refusal.to_string())
    };
    let (status, text) = refused("vm9", "20.60.1.10", "tcp", None);
    assert_eq!((status, text.as_str()), (404, "there is no subnet or NIC `vm9`; did you mean `vm1`?"));
    let (status, text) = refused("vm1", "data.blob.exampel", "tcp", None);
    assert_eq!(status, 404);
    assert!(text.ends_with("did you mean `data.blob.example`?"), "{text}");
    let (status, text) = refused("spoke/empty", "20.60.1.10", "tcp", None);
    let expected = "the subnet spoke/empty has no NIC with an IPv4 address to talk with 20.60.1.10";
    assert_eq!((status, text.as_str()), (409, expected));
    let (status, text) = refused("vm1", "20.60.1.10", "tpc", None);
    assert_eq!(status, 400);
    assert!(text.starts_with("`tpc` is no protocol: "), "{text}");
    let (status, text) = refused("vm1", "20.60.1.10", "icmp", Some(80));
    assert_eq!((status, text.as_str()), (400, "icmp has no ports: leave --port out"));
    let (status, _) = refused("vm1", "2603:1020::1", "44", None);
    assert_eq!(status, 400);
}

#[test]
fn flows_and_counters_have_names_for_numbers() {
    let setup = Setup::new();
    *setup.stage.flows.lock().unwrap() = vec![flow([20, 60, 1, 10]), flow([198, 51, 100, 80])];
    let answer = setup.node.flows(1);
    assert_eq!((answer.total, answer.flows.len()), (2, 1));
    let flow = &answer.flows[0];
    assert_eq!((flow.protocol.as_str(), flow.ingress.as_str(), flow.egress.as_str()), ("tcp", "vm1", "gateway"));
    assert_eq!((flow.source.as_str(), flow.destination.as_str()), ("10.1.1.4:40000", "20.60.1.10:443"));
    assert_eq!(setup.node.counters().ports["vm1"]["received"], 5);
}

/// More flows are faster than are told; the slow one that is asked for is found all the same.
#[test]
fn a_slow_flow_is_found_by_its_words() {
    let setup = Setup::new();
    let set = |round: u64| {
        let flows = (1..=100_u8).map(|number| {
            let mut flow = flow([20, 60, 1, number]);
            flow.state.bytes = [round * u64::from(number) * 1000, 0];
            flow
        });
        *setup.stage.flows.lock().unwrap() = flows.collect();
    };
    let ask = |filter: &str, by: &str| {
        let (limit, by) = (Some(3), Some(by.to_owned()));
        let query = TopQuery { watcher: "test".to_owned(), limit, by, filter: filter.to_owned(), path: None };
        let told = setup.node.top(&query).unwrap().flows;
        told.into_iter().map(|flow| flow.flow.destination).collect::<Vec<_>>()
    };
    set(1);
    ask("", "bytes");
    set(2);
    assert_eq!(ask("", "bytes"), ["20.60.1.100:443", "20.60.1.99:443", "20.60.1.98:443"]);
    set(3);
    assert_eq!(ask("20.60.1.7: VM1", "bytes"), ["20.60.1.7:443"]);
    assert_eq!(ask("20.60.1.7: vm2", "bytes"), Vec::<String>::new());
    // Nothing since; what they have carried in all is what they are ordered by.
    assert_eq!(ask("20.60.1.1", "total"), ["20.60.1.100:443", "20.60.1.19:443", "20.60.1.18:443"]);
    let long = TopQuery { filter: "x".repeat(65), ..TopQuery::default() };
    assert_eq!(setup.node.top(&long).unwrap_err().status(), 400);
}
