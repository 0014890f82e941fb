//! The document as text: syntax, types, keys, words, quantities; what a good document becomes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{BASE, Tags, base_with, case, check_cases, check_document, good};
use crate::model::network::{
    EndpointPrecedence, EndpointProtocols, EndpointSource, Interface, IoMode, PollMode, ServiceEndpoint,
};
use crate::model::{Mistake, Mistakes, mistake_at_tags, parse, tags_path};

#[test]
fn everything_written_is_in_the_network() {
    let network = good(BASE);
    assert_eq!(network.location, "westeurope");
    assert_eq!(network.tags, Some(PathBuf::from("tags.json")));
    assert_eq!((network.io, network.workers), (IoMode::Plain, 2));
    assert_eq!(good(&format!("poll = \"adaptive\"\n{BASE}")).poll, PollMode::Adaptive);
    assert_eq!(network.control, Some(PathBuf::from("run/control.sock")));
    assert_eq!(network.semantics.endpoint_precedence, EndpointPrecedence::LongestPrefix);
    assert_eq!(network.semantics.endpoint_protocols, EndpointProtocols::Only(vec![6, 17]));

    let hub = &network.virtual_networks[0];
    assert_eq!(hub.peerings[0].remote, 1);
    assert!(hub.peerings[0].allow_virtual_network_access && hub.peerings[0].allow_gateway_transit);
    assert!(hub.peerings[0].allow_forwarded_traffic && !hub.peerings[0].use_remote_gateways);
    assert!(network.virtual_networks[1].peerings[0].use_remote_gateways);
    let workload = network.find_subnet("spoke/WORKLOAD").unwrap();
    let endpoint = |service: &str, locations: &[&str]| ServiceEndpoint {
        service: service.to_owned(),
        locations: locations.iter().map(|location| (*location).to_owned()).collect(),
        source: EndpointSource::Private,
    };
    assert_eq!(
        network.subnet(workload).service_endpoints,
        [endpoint("Microsoft.Storage", &["westeurope"]), endpoint("Microsoft.Sql", &[])]
    );
    assert_eq!(hub.subnets[1].service_endpoints, [endpoint("Microsoft.KeyVault", &[])]);
    assert!(network.route_tables[0].disable_bgp_route_propagation);

    let device = network.nics[0].device.as_ref().unwrap();
    assert_eq!((device.mtu, device.netns.as_deref()), (1400, Some("vm1")));
    assert_eq!(device.pcap, Some(PathBuf::from("vm1.pcap")));
    assert!(network.nics[1].ip_forwarding);
    let device = network.gateway.as_ref().unwrap().device.as_ref().unwrap();
    let Interface::Ethernet { name, addresses, next_hop } = &device.interface else { panic!("{device:?}") };
    assert_eq!((name.as_str(), addresses.len(), next_hop.len()), ("veth0", 2, 2));
    assert_eq!(addresses[0].to_string(), "192.168.0.1/24");
    let link = device.link.unwrap();
    assert_eq!((link.delay, link.rate, link.seed), (Duration::from_millis(20), Some(200_000_000), 7));
    assert!((link.loss - 0.01).abs() < 1e-12 && (link.reorder - 0.02).abs() < 1e-12);

    assert_eq!(network.services[0].service, "Microsoft.Storage");
    assert_eq!(network.services[1].location, "westeurope");
    let hosts = &network.lab.as_ref().unwrap().hosts;
    assert_eq!(hosts[0].masquerade.len(), 1);
    assert_eq!(hosts[0].connect.as_deref(), Some("internet"));
    assert_eq!(hosts[1].web_names, ["www.example.com"]);
}

#[test]
fn little_is_needed() {
    let network = good("location = \"westeurope\"");
    assert_eq!((network.io, network.workers, network.tags), (IoMode::Offload, 1, None));
    assert_eq!(network.poll, PollMode::Sleep);
    assert_eq!(network.semantics, crate::model::network::Semantics::default());
}

#[test]
fn any_protocol_is_a_word_and_a_list_of_it() {
    for any in ["\"any\"", "[\"any\"]"] {
        let network = good(&base_with("[\"udp\", \"tcp\"]", any));
        assert_eq!(network.semantics.endpoint_protocols, EndpointProtocols::Any);
    }
}

#[test]
fn relative_paths_are_relative_to_the_document() {
    let network = parse(BASE, Path::new("/etc/sidestep/network.toml"), Some(&Tags)).unwrap();
    assert_eq!(network.tags, Some(PathBuf::from("/etc/sidestep/tags.json")));
    assert_eq!(network.control, Some(PathBuf::from("/etc/sidestep/run/control.sock")));
    let network = good(&base_with("\"run/control.sock\"", "\"/run/control.sock\""));
    assert_eq!(network.control, Some(PathBuf::from("/run/control.sock")));
}

#[test]
fn syntax_errors_have_places_and_come_alone() {
    check_document("location = \"westeurope\"\nworkers = §2 2\n", &[("must be quoted", "")]);
    check_document("location = \"westeurope\"\n§location = \"northeurope\"\n", &[("duplicate key", "")]);
    let text = "workers = \n[virtual_network\nlocation = \"x\"\n";
    let mistakes = parse(text, Path::new("n.toml"), None).unwrap_err().mistakes;
    assert!(mistakes.len() > 1 && mistakes[0].line == 1 && mistakes[1].line == 2, "{mistakes:?}");
}

#[test]
fn columns_count_characters() {
    let text = "lab = { host = [{ netns = \"größe\", §colour = 1 }] }\nlocation = \"x\"\n";
    check_document(text, &[("unknown key `colour` in a lab host", "")]);
}

#[test]
fn types() {
    check_cases(&[
        case("workers = 2", "workers = §\"2\"", &[("expected an integer, found a string", "")]),
        case("workers = 2", "workers = §99999999999999999999", &[("too large", "")]),
        case("io = \"plain\"", "io = §true", &[("expected a string, found a boolean", "")]),
        case("ip_forwarding = true", "ip_forwarding = §1", &[("expected true or false, found an integer", "")]),
        case(
            "address_space = [\"10.2.0.0/16\"]",
            "address_space = §\"10.2.0.0/16\"",
            &[("expected a list, found a string", "write [\"10.2.0.0/16\"]")],
        ),
        case("peerings = [{ remote = \"hub\" }]", "peerings = §{ remote = \"hub\" }", &[("found a table", "[{ … }]")]),
        case("[backbone]\ndevice = {", "[backbone]\ndevice = §7 # {", &[("expected a table, found an integer", "")]),
        case("\"20.61.1.10\"", "§20.61", &[("expected an address, found a float", "")]),
        case("\"20.61.1.10\"", "§\"20.61.1.10/32\"", &[("`20.61.1.10/32` is not an address", "\"20.61.1.10\"")]),
        case("\"20.61.1.10\"", "§\"20.61.1\"", &[("`20.61.1` is not an address", "such as")]),
        case("\"203.0.113.129/32\"", "§\"203.0.113.129\"", &[("not an address with a prefix length", "113.129/32\"")]),
        case("\"203.0.113.129/32\"", "§\"here\"", &[("not an address with a prefix length", "such as")]),
        case("\"192.168.0.0/16\"", "§\"192.168.0.0/33\"", &[("`192.168.0.0/33` is not a prefix", "such as")]),
        case("\"192.168.0.0/16\"", "§\"192.168.0.0\"", &[("is not a prefix", "write \"192.168.0.0/32\"")]),
        case("\"192.168.0.0/16\"", "§\"192.168.1.0/16\"", &[("has host bits set", "write \"192.168.0.0/16\"")]),
        case("\"fd00:c0a8::/32\"", "§\"fd00:c0a8::1/32\"", &[("has host bits set", "write \"fd00:c0a8::/32\"")]),
    ]);
}

#[test]
fn one_wrong_type_does_not_hide_other_mistakes() {
    let text = base_with("workers = 2", "workers = §[]").replace("\"20.61.1.10\"", "§\"here\"");
    check_document(&text, &[("expected an integer, found a list", ""), ("`here` is not an address", "such as")]);
}

#[test]
fn keys() {
    check_cases(&[
        case("workers = 2", "§worker = 2", &[("unknown key `worker` in the document", "`workers`")]),
        case("workers = 2", "§colour = 2", &[("unknown key `colour` in the document", "")]),
        case("ip_forwarding = true", "§enable_ip_forwarding = true", &[("unknown key `enable_ip_forwarding`", "")]),
        case("seed = 7", "§sed = 7", &[("unknown key `sed` in a link", "`seed`")]),
        case(
            "[[virtual_network.subnet]]\n  name = \"spare\"\n  address_prefixes",
            "§[[virtual_network.subnet]]\n  name = \"spare\"\n  §address_prefixs",
            &[
                ("a subnet has no `address_prefixes`", "add address_prefixes ="),
                ("unknown key `address_prefixs` in a subnet", "`address_prefixes`"),
            ],
        ),
        case("location = \"West Europe\"\ntags", "§tags", &[("the document has no `location`", "add location =")]),
    ]);
}

#[test]
fn words_and_numbers() {
    check_cases(&[
        case("io = \"plain\"", "io = §\"fast\"", &[("unknown io mode `fast`", "\"offload\" or \"plain\"")]),
        case(
            "workers = 2",
            "workers = 2\npoll = §\"busy\"",
            &[("unknown poll mode `busy`", "\"sleep\" or \"adaptive\"")],
        ),
        case("workers = 2", "workers = §0", &[("`workers` is out of range: 0", "1 to 64")]),
        case("workers = 2", "workers = §65", &[("`workers` is out of range: 65", "1 to 64")]),
        case("\"longest-prefix\"", "§\"best\"", &[("unknown endpoint precedence `best`", "\"documented\"")]),
        case("\"udp\", \"tcp\"", "\"udp\", §\"tpc\"", &[("unknown protocol `tpc`", "\"tcp\"")]),
        case("[\"udp\", \"tcp\"]", "§[]", &[("steers no protocol", "\"any\"")]),
        case("\"West Europe\"\ntags", "§\"west-europe\"\ntags", &[("`west-europe` is not a region", "westeurope")]),
        case("tags = \"tags.json\"", "tags = §\"\"", &[("this is not a path", "")]),
        case("mtu = 1400", "mtu = §1279", &[("`mtu` is out of range: 1279", "1280 to 9000")]),
        case("mtu = 1400", "mtu = §9001", &[("`mtu` is out of range: 9001", "1280 to 9000")]),
        case("seed = 7", "seed = §-7", &[("`seed` is out of range: -7", "0 to")]),
        case("\"20ms\"", "§\"11s\"", &[("the delay `11s` is out of range", "10s at most")]),
        case("\"20ms\"", "§\"20\"", &[("`20` is not a duration", "\"20ms\"")]),
        case("\"20ms\"", "§\"-20ms\"", &[("`-20ms` is not a duration", "\"20ms\"")]),
        case("\"20ms\"", "§20", &[("expected a string, found an integer", "")]),
        case("\"200mbit\"", "§\"0mbit\"", &[("the rate `0mbit` is out of range", "1bit to 1000gbit")]),
        case("\"200mbit\"", "§\"1001gbit\"", &[("the rate `1001gbit` is out of range", "1bit to 1000gbit")]),
        case("\"200mbit\"", "§\"200MB\"", &[("`200MB` is not a rate", "\"200mbit\"")]),
        case("\"1%\"", "§\"101%\"", &[("`101%` is not a probability", "from 0 to 1")]),
        case("\"1%\"", "§1.5", &[("`1.5` is not a probability", "from 0 to 1")]),
        case("\"1%\"", "§\"some\"", &[("`some` is not a probability", "from 0 to 1")]),
        case("\"1%\"", "§nan", &[("`nan` is not a probability", "from 0 to 1")]),
        case("0.02", "§-0.02", &[("`-0.02` is not a probability", "from 0 to 1")]),
    ]);
}

#[test]
fn probabilities_may_be_zero_and_one() {
    let network = good(&base_with("\"1%\"", "1").replace("0.02", "\"0%\""));
    let link = network.gateway.unwrap().device.unwrap().link.unwrap();
    assert_eq!((link.loss, link.reorder), (1.0, 0.0));
}

#[test]
fn mistakes_are_shown_as_text_and_json() {
    let text = "location = \"westeurope\"\nworkers = 0\nio = \"fast\"\n";
    let mistakes = parse(text, Path::new("config/n.toml"), None).unwrap_err();
    let shown = "config/n.toml:2:11: error: `workers` is out of range: 0\n  \
                 help: write a number from 1 to 64\n\
                 config/n.toml:3:6: error: unknown io mode `fast`\n  \
                 help: write \"offload\" or \"plain\"";
    assert_eq!(mistakes.to_string(), shown);
    let json = serde_json::to_value(&mistakes).unwrap();
    assert_eq!(json["path"], "config/n.toml");
    assert_eq!(json["mistakes"][1]["line"], 3);
    assert_eq!(json["mistakes"][1]["column"], 6);
    assert_eq!(json["mistakes"][1]["help"], "write \"offload\" or \"plain\"");
}

#[test]
fn a_mistake_without_help_is_one_line() {
    let mistake = Mistake { line: 1, column: 2, message: "bad".to_owned(), help: None };
    let mistakes = Mistakes { path: PathBuf::from("n.toml"), mistakes: vec![mistake] };
    assert_eq!(mistakes.to_string(), "n.toml:1:2: error: bad");
}

#[test]
fn tags_path_survives_other_mistakes() {
    let text = "workers = \"many\"\ntags = \"weekly.json\"\nbroken = = 1\n";
    assert_eq!(tags_path(text, Path::new("config/n.toml")), Some(PathBuf::from("config/weekly.json")));
    assert_eq!(tags_path("location = \"x\"", Path::new("n.toml")), None);
    assert_eq!(tags_path("tags = 7", Path::new("n.toml")), None);
    let mistake = mistake_at_tags(text, "cut off".to_owned(), None);
    assert_eq!((mistake.line, mistake.column, mistake.message.as_str()), (2, 8, "cut off"));
    let mut mistakes = parse("workers = 0", Path::new("n.toml"), None).unwrap_err();
    mistakes.add(mistake);
    assert_eq!(mistakes.mistakes.last().map(|mistake| mistake.line), Some(2));
}
