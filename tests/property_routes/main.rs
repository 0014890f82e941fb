//! The compiled tables against a plain interpreter of the routing rules: random networks, every address near a prefix
//! that occurs, IPv4 and IPv6, all values of both switches.

mod interpreter;
mod random;

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use sidestep::model::network::SubnetRef;
use sidestep::plan::Plan;
use sidestep::plan::table::RouteState;
use sidestep::snapshot::{HopAction, Snapshot, TableId, Unroutable};

use interpreter::{Interpreter, Whose};
use random::{Choices, catalogue, destinations, network};

/// The same words from the snapshot.
fn compiled(snapshot: &Snapshot, table: TableId, destination: IpAddr, protocol: u8) -> (&'static str, String) {
    match snapshot.route(table, destination, protocol) {
        None => ("None", "NoRoute".to_owned()),
        Some(hop) => {
            let outcome = match hop.action {
                HopAction::Drop(reason) => format!("{reason:?}"),
                HopAction::Deliver { port, source, forwarded_allowed } => {
                    format!("{} {source:?} {forwarded_allowed}", snapshot.port(port).unwrap().name)
                }
            };
            (hop.next_hop_type.name(), outcome)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    /// Snapshot, explanation and interpreter agree for every table, destination and protocol.
    #[test]
    fn compiled_tables_do_what_the_rules_say(choices in proptest::collection::vec(any::<u16>(), 0..260)) {
        let mut choices = Choices(choices.iter());
        let network = network(&mut choices);
        let catalogue = catalogue(&mut choices);
        let interpreter = Interpreter { network: &network, catalogue: &catalogue };
        let plan = Plan::new(Arc::new(network.clone()), Arc::new(catalogue.clone()));
        let snapshot = plan.compile(1, None).unwrap();

        let gateway_subnet = interpreter.gateway_subnet();
        let mut tables = Vec::new();
        for (virtual_network, declared) in network.virtual_networks.iter().enumerate() {
            for subnet in 0..declared.subnets.len() {
                let subnet = SubnetRef { virtual_network, subnet };
                let whose = if gateway_subnet == Some(subnet) { Whose::Gateway } else { Whose::Subnet(subnet) };
                tables.push((network.subnet_name(subnet), whose, Some(subnet)));
            }
        }
        if network.gateway.is_some() {
            tables.push(("gateway".to_owned(), Whose::Gateway, None));
        }
        prop_assert_eq!(snapshot.tables.len(), tables.len());
        for (index, (name, whose, subnet)) in tables.into_iter().enumerate() {
            prop_assert_eq!(&snapshot.tables[index].name, &name);
            for destination in destinations() {
                for protocol in [6, 17] {
                    let expected = interpreter.route(whose, destination, protocol);
                    let found = compiled(&snapshot, TableId(index as u16), destination, protocol);
                    prop_assert_eq!(&found, &expected, "{} to {} by {}", name, destination, protocol);
                    if let Some(subnet) = subnet {
                        let answer = plan.next_hop(subnet, destination, protocol);
                        prop_assert_eq!(answer.next_hop_type.as_str(), expected.0, "{} to {}", name, destination);
                    }
                }
            }
        }
    }

    /// A route that wins for some destination is Active, and the route of a hop is the one that the explanation names.
    #[test]
    fn winners_are_active(choices in proptest::collection::vec(any::<u16>(), 0..260)) {
        let mut choices = Choices(choices.iter());
        let network = network(&mut choices);
        let catalogue = catalogue(&mut choices);
        let plan = Plan::new(Arc::new(network.clone()), Arc::new(catalogue));
        let snapshot = plan.compile(1, None).unwrap();
        for (index, table) in snapshot.tables.iter().enumerate() {
            let Some(subnet) = network.find_subnet(&table.name) else { continue };
            let routes = plan.effective_routes(subnet);
            let mut won = vec![false; routes.len()];
            for destination in destinations() {
                for protocol in [6, 17] {
                    let Some(hop) = snapshot.route(TableId(index as u16), destination, protocol) else { continue };
                    if let Some(won) = won.get_mut(hop.route as usize) {
                        *won = true;
                    } else {
                        prop_assert_eq!(hop.action, HopAction::Drop(Unroutable::NoRoute));
                    }
                }
            }
            for (route, won) in routes.iter().zip(won) {
                prop_assert!(!won || route.state == RouteState::Active, "{}: {}", table.name, route.route.text());
            }
        }
    }
}
