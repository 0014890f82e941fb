//! Compiled network security groups against a plain interpreter of the document's rules: random groups, networks, route
//! tables and packets, both families. The interpreter knows neither the plan's sets of addresses nor the classifier.

mod interpreter;
mod random;

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use sidestep::path::nsg::{Direction, asked, check, decide};
use sidestep::path::observer::Silent;
use sidestep::path::order::Standing;
use sidestep::path::subject::Subject;
use sidestep::plan::Plan;
use sidestep::snapshot::PLATFORM;
use sidestep::snapshot::{Access, PortEntry, PortId, Snapshot};

use interpreter::{Interpreter, Packet};
use random::{Choices, addresses, catalogue, network};

/// Protocols with ports that rules of the random groups tell apart, and protocols without.
const PROTOCOLS: [(u8, Option<(u16, u16)>); 9] = [
    (6, Some((40_000, 80))),
    (6, Some((80, 443))),
    (17, Some((53, 53))),
    (17, Some((1_024, 80))),
    (132, Some((40_000, 80))),
    (1, None),
    (58, None),
    (50, None),
    (51, None),
];

/// The groups of a NIC, what each says, and by which rule.
fn compiled(snapshot: &Snapshot, port: &PortEntry, direction: Direction, subject: &Subject) -> Vec<String> {
    asked(port, direction)
        .map(|(_, group)| {
            let ruling = decide(snapshot, group, direction, subject).expect("the group is there");
            let rule = ruling.rule.map_or("-", |rule| rule.name.as_str());
            format!("{} {:?} {rule}", ruling.nsg.name, ruling.access)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn compiled_groups_do_what_the_rules_say(
        choices in proptest::collection::vec(any::<u16>(), 0..600),
        seed in any::<u64>(),
    ) {
        let mut choices = Choices(choices.iter());
        let network = network(&mut choices);
        let catalogue = catalogue();
        let interpreter = Interpreter { network: &network, catalogue: &catalogue };
        let plan = Plan::new(Arc::new(network.clone()), Arc::new(catalogue.clone()));
        let snapshot = plan.compile(1, None).unwrap();
        let addresses = addresses();
        let mut random = fastrand::Rng::with_seed(seed);
        for (index, nic) in network.nics.iter().enumerate() {
            let place = snapshot.ports.iter().position(|port| port.name == nic.name).unwrap();
            let port = &snapshot.ports[place];
            for direction in [Direction::Inbound, Direction::Outbound] {
                for turn in 0..160 {
                    let platform = [PLATFORM[0].into(), PLATFORM[1].into()];
                    let remotes = if turn % 16 == 1 { &platform[..] } else { &addresses };
                    let remote = remotes[random.usize(..remotes.len())];
                    // Mostly the NIC's own address, at times that of somebody whom it forwards for.
                    let mut local: Vec<IpAddr> = if turn % 8 == 0 { &addresses } else { &nic.private_addresses }.clone();
                    local.retain(|address| address.is_ipv4() == remote.is_ipv4());
                    if local.is_empty() {
                        continue;
                    }
                    let local = local[random.usize(..local.len())];
                    let (protocol, ports) = PROTOCOLS[random.usize(..PROTOCOLS.len())];
                    let (source, destination) = match direction {
                        Direction::Inbound => (remote, local),
                        Direction::Outbound => (local, remote),
                    };
                    let packet = Packet { source, destination, protocol, ports };
                    let (source_port, destination_port) = ports.unwrap_or((7, 7));
                    let ingress = PortId(place as u16);
                    let subject = Subject { ingress, source, destination, protocol, source_port, destination_port };
                    let expected = interpreter.judge(index, direction == Direction::Inbound, &packet);
                    let found = compiled(&snapshot, port, direction, &subject);
                    prop_assert_eq!(&found, &expected, "{} {:?} {:?}", nic.name, direction, packet);
                    let passes = check(&snapshot, port, direction, &subject, Standing::New, &mut Silent).is_ok();
                    let denied = expected.iter().any(|said| said.contains(&format!(" {:?} ", Access::Deny)));
                    prop_assert_eq!(passes, !denied);
                }
            }
        }
    }
}
