//! Who was denied what.

use super::*;
use crate::path::DropReason;
use crate::snapshot::ResourceId;

fn denial(number: u16) -> Denial {
    Denial {
        reason: DropReason::FirewallDenied,
        protocol: 6,
        ingress: PortId(0),
        source: ("10.1.1.4".parse().unwrap(), number),
        presented: Some("203.0.113.200".parse().unwrap()),
        destination: ("20.60.1.10".parse().unwrap(), 443),
        endpoint: false,
        identity: None,
        resource: Some(ResourceId(0)),
        name: Some("data.blob.example".to_owned()),
        unnamed: None,
        answered_at: None,
        is_sql: false,
        generation: 1,
    }
}

#[test]
fn the_newest_denials_are_kept_with_names_for_numbers() {
    let setup = Setup::with(DOCUMENT).unwrap();
    assert_eq!(setup.node.denials(10).total, 0);
    *setup.stage.denials.lock().unwrap() = (0..1_500).map(denial).collect();
    let answer = setup.node.denials(2);
    assert_eq!((answer.total, answer.lost, answer.denials.len()), (1_500, 0, 2));
    let newest = &answer.denials[1];
    assert_eq!((newest.ingress.as_str(), newest.source.as_str()), ("vm1", "10.1.1.4:1499"));
    assert_eq!((newest.resource.as_deref(), newest.service.as_deref()), (Some("data"), Some(STORAGE)));
    assert_eq!((newest.reason.as_str(), newest.destination.as_str()), ("firewall_denied", "20.60.1.10:443"));
    assert_eq!(setup.node.denials(10_000).denials.len(), 1_000, "older ones are gone");
}

#[test]
fn an_identity_is_shown_by_the_name_of_its_subnet_as_long_as_there_is_one() {
    let document = DOCUMENT
        .replace("name = \"spoke\"", "name = \"spoke\"\ntraffic_tag = 5")
        .replace("name = \"workload\"", "name = \"workload\"\ntraffic_tag = 3");
    let setup = Setup::with(&document).unwrap();
    let key = crate::snapshot::SubnetKey { network_tag: 5, subnet_tag: 3 };
    let over_endpoint = Denial { identity: Some(key), endpoint: true, ..denial(1) };
    let gone = Denial { identity: Some(crate::snapshot::SubnetKey { network_tag: 1, subnet_tag: 2 }), ..denial(2) };
    *setup.stage.denials.lock().unwrap() = vec![over_endpoint, gone];
    let identities: Vec<_> = setup.node.denials(10).denials.into_iter().filter_map(|denial| denial.identity).collect();
    assert_eq!(identities, ["spoke/workload", "000001:0002"]);
}
