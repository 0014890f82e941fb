//! Firewalls of services: who comes in by identity, by address, by exception, and what the others hear. S1 to S9 are the
//! cases of the conformance table.

use sidestep::model::network::{Access, VirtualNetworkRule};
use sidestep::path::{Answer, DropReason};

use crate::bench::Bench;
use crate::guarded::{Guarded, OWN, SHARED, SQL, resets, syn};
use crate::packets::{Tcp, echo, udp};

const RULE: &str = r#"firewall = { default_action = "Deny", virtual_network_rules = [{ subnet = "blue/app" }] }"#;
const IP_RULE: &str = r#"firewall = { default_action = "Deny", ip_rules = ["203.0.113.200"] }"#;

fn with(own: &str) -> Bench {
    Guarded { own, ..Guarded::default() }.bench()
}

/// A SYN that the account's firewall denies: the sender is reset at once, and nothing arrives.
#[track_caller]
fn denied(bench: &mut Bench, from: &str, source: &str) {
    let sent = bench.answered(from, syn(source, OWN, 443), Answer::FirewallDenied);
    let [(port, reset)] = sent.as_slice() else { panic!("one reset: {sent:?}") };
    let tcp = reset.tcp.as_ref().unwrap();
    assert_eq!((port.as_str(), reset.source.to_string().as_str()), (from, OWN));
    assert_eq!((tcp.reset, tcp.acknowledgment), (true, Some(1_001)), "a SYN is answered by acknowledging it");
}

#[test]
fn s1_a_virtual_network_rule_admits_the_subnet_with_its_private_address() {
    let mut bench = with(RULE);
    let seen = bench.forward("blue1", syn("10.1.1.4", OWN, 443), "own");
    assert_eq!(seen.source.to_string(), "10.1.1.4");
}

#[test]
fn s2_with_the_endpoint_an_ip_rule_for_the_public_address_admits_nobody() {
    let mut bench = with(IP_RULE);
    denied(&mut bench, "blue1", "10.1.1.4");
    let seen = bench.forward("bare1", syn("10.1.2.4", OWN, 443), "own");
    assert_eq!(seen.source.to_string(), "203.0.113.200", "without the endpoint it does");
}

#[test]
fn s3_without_the_endpoint_a_virtual_network_rule_admits_nobody() {
    let rule = r#"firewall = { default_action = "Deny", virtual_network_rules = [{ subnet = "blue/bare" }] }"#;
    let mut bench = with(rule);
    denied(&mut bench, "bare1", "10.1.2.4");
    let mut with_private_addresses_in_ip_rules = with(IP_RULE);
    with_private_addresses_in_ip_rules.change(|network| {
        let firewall = network.services[0].resources[0].firewall.as_mut().unwrap();
        firewall.ip_rules = vec!["10.1.1.0/24".parse().unwrap()];
    });
    denied(&mut with_private_addresses_in_ip_rules, "blue1", "10.1.1.4");
}

#[test]
fn s4_rules_mean_nothing_while_the_default_is_to_allow() {
    for firewall in ["", "firewall = {}", r#"firewall = { virtual_network_rules = [{ subnet = "blue/bare" }] }"#] {
        let mut bench = with(firewall);
        bench.forward("blue1", syn("10.1.1.4", OWN, 443), "own");
        bench.forward("bare1", syn("10.1.2.4", OWN, 443), "own");
        bench.forward("internet", syn("198.51.100.7", OWN, 443), "own");
    }
}

#[test]
fn s5_of_two_networks_with_the_same_addresses_only_the_one_with_a_rule_comes_in() {
    let mut bench = with(RULE);
    bench.forward("blue1", syn("10.1.1.4", OWN, 443), "own");
    let other = Tcp { from: ("10.1.1.4", 40_001), to: (OWN, 443), ..Tcp::default() }.bytes();
    bench.answered("green1", other, Answer::FirewallDenied);
}

/// Takes the subnet `blue/app` and its NIC away, or puts them back.
fn without_subnet(bench: &mut Bench, change: impl FnOnce(&mut sidestep::model::network::Network)) {
    bench.change(change);
    bench.sweep();
}

#[test]
fn s6_a_subnet_made_anew_under_its_old_name_has_no_access_until_the_rule_is_made_anew() {
    let mut bench = with(RULE);
    bench.forward("blue1", syn("10.1.1.4", OWN, 443), "own");
    let all = bench.network.clone();
    without_subnet(&mut bench, |network| {
        network.virtual_networks[0].subnets.remove(0);
        network.nics.remove(0);
        for nic in network.nics.iter_mut().filter(|nic| nic.subnet.virtual_network == 0) {
            nic.subnet.subnet -= 1;
        }
        let firewall = network.services[0].resources[0].firewall.as_mut().unwrap();
        firewall.virtual_network_rules[0].subnet = None;
    });
    without_subnet(&mut bench, |network| *network = all.clone());
    denied(&mut bench, "blue1", "10.1.1.4");
    let rules = |bench: &mut Bench, rules: Vec<VirtualNetworkRule>| {
        bench.change(|network| {
            network.services[0].resources[0].firewall.as_mut().unwrap().virtual_network_rules = rules;
        });
    };
    let rule = all.services[0].resources[0].firewall.as_ref().unwrap().virtual_network_rules.clone();
    rules(&mut bench, vec![]);
    rules(&mut bench, rule);
    bench.forward("blue1", syn("10.1.1.4", OWN, 443), "own");
}

#[test]
fn s7_an_endpoint_enabled_under_an_open_connection_closes_it_and_the_next_one_is_private() {
    let mut bench = Guarded { app: "", ..Guarded::default() }.bench();
    let public = bench.forward("blue1", syn("10.1.1.4", OWN, 443), "own");
    assert_eq!(public.source.to_string(), "203.0.113.200");
    let answer = Tcp {
        from: (OWN, 443),
        to: ("203.0.113.200", public.source_port),
        flags: "SA",
        sequence: 9_000,
        acknowledgment: 1_001,
        ..Tcp::default()
    };
    bench.forward("own", answer.bytes(), "blue1");
    bench.change(|network| {
        let endpoints = &mut network.virtual_networks[0].subnets[0].service_endpoints;
        endpoints.push(sidestep::model::network::ServiceEndpoint {
            service: "Microsoft.Storage".into(),
            locations: vec![],
            source: sidestep::model::network::EndpointSource::Private,
        });
    });
    bench.sweep();
    let sent = bench.take();
    assert!(!resets(&sent, "blue1").is_empty() && !resets(&sent, "own").is_empty(), "{sent:?}");
    let again = Tcp { from: ("10.1.1.4", 40_001), to: (OWN, 443), ..Tcp::default() }.bytes();
    assert_eq!(bench.forward("blue1", again, "own").source.to_string(), "10.1.1.4");
}

#[test]
fn s8_behind_an_appliance_the_service_sees_the_appliances_subnet() {
    let rule = r#"firewall = { default_action = "Deny", virtual_network_rules = [{ subnet = "blue/appliances" }] }"#;
    let mut bench = with(rule);
    let packet = syn("10.1.3.4", OWN, 443);
    bench.forward("behind1", packet.clone(), "appliance");
    let seen = bench.forward("appliance", packet, "own");
    assert_eq!(seen.source.to_string(), "10.1.3.4", "the appliance does not translate here");
    let mut bench =
        with(r#"firewall = { default_action = "Deny", virtual_network_rules = [{ subnet = "blue/behind" }] }"#);
    let packet = syn("10.1.3.4", OWN, 443);
    bench.forward("behind1", packet.clone(), "appliance");
    bench.answered("appliance", packet, Answer::FirewallDenied);
}

#[test]
fn s9_sql_says_40914_over_the_endpoint_and_40615_by_public_address() {
    let sql = r#"firewall = { default_action = "Deny", answering_port = 14330 }"#;
    let mut bench = Guarded { sql, ..Guarded::default() }.bench();
    let seen = bench.forward("blue1", syn("10.1.1.4", SQL, 1433), "sql");
    assert_eq!((seen.destination_port, seen.source.to_string().as_str()), (14330, "10.1.1.4"));
    bench.forward("bare1", syn("10.1.2.4", SQL, 1433), "sql");
    let denials: Vec<_> = std::iter::from_fn(|| bench.denials().take()).collect();
    let of = |denial: &sidestep::path::denial::Denial| (denial.endpoint, denial.answered_at, denial.error());
    assert_eq!(
        denials.iter().map(of).collect::<Vec<_>>(),
        [(true, Some(14330), Some(40914)), (false, Some(14330), Some(40615))]
    );
    let back = Tcp {
        from: (SQL, 14330),
        to: ("10.1.1.4", 40_000),
        flags: "SA",
        sequence: 1,
        acknowledgment: 1_001,
        ..Tcp::default()
    };
    assert_eq!(bench.forward("sql", back.bytes(), "blue1").source_port, 1433, "the client never sees the other port");
}

#[test]
fn plain_http_is_answered_at_the_answering_port_and_https_is_reset() {
    let mut bench = with(r#"firewall = { default_action = "Deny", answering_port = 8403 }"#);
    let seen = bench.forward("blue1", syn("10.1.1.4", OWN, 80), "own");
    assert_eq!(seen.destination_port, 8403);
    denied(&mut bench, "blue1", "10.1.1.4");
    // Once the firewall admits the subnet, the connection to the answer is closed, and the next one is the account's.
    bench.change(|network| {
        network.services[0].resources[0].firewall.as_mut().unwrap().default_action = Access::Allow;
    });
    bench.sweep();
    let again = Tcp { from: ("10.1.1.4", 40_009), to: (OWN, 80), ..Tcp::default() }.bytes();
    assert_eq!(bench.forward("blue1", again, "own").destination_port, 80);
}

#[test]
fn what_is_no_tcp_is_told_that_it_is_prohibited() {
    let mut bench = with(r#"firewall = { default_action = "Deny" }"#);
    for packet in [udp(("10.1.1.4", 5_000), (OWN, 443), b"q"), echo("10.1.1.4", OWN, false, 7, 64)] {
        let sent = bench.answered("blue1", packet, Answer::FirewallDenied);
        assert_eq!((sent[0].0.as_str(), sent[0].1.icmp), ("blue1", Some((3, 13))));
    }
    let mut bench = with(r#"firewall = { default_action = "Deny", denial = "prohibited" }"#);
    let sent = bench.answered("blue1", syn("10.1.1.4", OWN, 443), Answer::FirewallDenied);
    assert_eq!(sent[0].1.icmp, Some((3, 13)), "as configured");
}

#[test]
fn a_reset_is_never_answered() {
    let mut bench = with(r#"firewall = { default_action = "Deny" }"#);
    let reset = Tcp { to: (OWN, 443), flags: "R", ..Tcp::default() }.bytes();
    bench.dropped("blue1", reset, DropReason::FirewallDenied);
}

#[test]
fn disabled_public_access_keeps_all_out_but_exceptions() {
    let firewall = r#"firewall = { public_network_access = "Disabled", virtual_network_rules = [{ subnet = "blue/app" }], bypass = ["AzureServices"] }"#;
    let mut bench = with(firewall);
    denied(&mut bench, "blue1", "10.1.1.4");
    bench.change(|network| network.nics[0].trusted_service = true);
    bench.forward("blue1", syn("10.1.1.4", OWN, 443), "own");
}

#[test]
fn a_resource_instance_comes_in_by_its_id() {
    let id = "/subscriptions/s1/resourceGroups/r/providers/Microsoft.Synapse/workspaces/w";
    let firewall = format!(r#"firewall = {{ default_action = "Deny", resource_access_rules = ["{id}"] }}"#);
    let mut bench = with(&firewall);
    denied(&mut bench, "blue1", "10.1.1.4");
    bench.change(|network| network.nics[0].resource_id = Some(id.to_uppercase()));
    bench.forward("blue1", syn("10.1.1.4", OWN, 443), "own");
}

#[test]
fn a_network_in_another_region_needs_the_global_endpoint() {
    let firewall = r#"firewall = { default_action = "Deny", virtual_network_rules = [{ subnet = "far/app" }, { subnet = "far/everywhere" }] }"#;
    let mut bench = with(firewall);
    denied(&mut bench, "far1", "10.9.1.4");
    bench.forward("far2", syn("10.9.2.4", OWN, 443), "own");
    bench.change(|network| network.services[0].location = "germanywestcentral".into());
    bench.sweep();
    bench.change(|network| network.virtual_networks[2].location = "germanynorth".into());
    bench.forward("far1", syn("10.9.1.4", OWN, 443), "own");
}

#[test]
fn on_premises_comes_in_by_its_public_address_and_nothing_else() {
    let mut bench = with(
        r#"firewall = { default_action = "Deny", ip_rules = ["198.51.100.0/24"], virtual_network_rules = [{ subnet = "blue/app" }] }"#,
    );
    bench.forward("internet", syn("198.51.100.7", OWN, 443), "own");
    denied(&mut bench, "internet", "198.51.101.7");
    // Nobody outside has a private address, and the rule for a subnet is no rule for its addresses.
    bench.dropped("internet", syn("10.1.1.4", OWN, 443), DropReason::SpoofedSource);
}

#[test]
fn a_rule_taken_away_closes_connections_and_others_live_on() {
    let mut bench = with(RULE);
    bench.forward("blue1", syn("10.1.1.4", OWN, 443), "own");
    let answer = Tcp {
        from: (OWN, 443),
        to: ("10.1.1.4", 40_000),
        flags: "SA",
        sequence: 9_000,
        acknowledgment: 1_001,
        ..Tcp::default()
    };
    bench.forward("own", answer.bytes(), "blue1");
    bench.change(|network| {
        network.services[0].resources[0].firewall.as_mut().unwrap().virtual_network_rules.clear();
    });
    bench.sweep();
    let sent = bench.take();
    assert!(!resets(&sent, "blue1").is_empty() && !resets(&sent, "own").is_empty(), "{sent:?}");
}

#[test]
fn whoever_shares_an_address_with_guarded_resources_is_known_by_name_alone() {
    let first = r#"firewall = { default_action = "Deny" }"#;
    let mut bench = Guarded { first, ..Guarded::default() }.bench();
    // Not knowing whom UDP is for, it would have to be let in by all.
    bench.answered("blue1", udp(("10.1.1.4", 5_000), (SHARED, 443), b"q"), Answer::FirewallDenied);
    bench.forward("blue1", syn("10.1.1.4", SHARED, 443), "front");
    assert_eq!(bench.report().undecided, 1);
}
