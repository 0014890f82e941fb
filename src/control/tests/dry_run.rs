//! Asking what a change would do. `tests/dry_run.rs` holds the answers to what real workers then do.

use super::*;
use crate::control::answers::{DocumentAnswer, EndpointAnswer};

const ENDPOINT_ROUTE: &str = "Default Active 2 prefixes VirtualNetworkServiceEndpoint Microsoft.Storage";

fn setup() -> Setup {
    let setup = Setup::new();
    *setup.stage.flows.lock().unwrap() = vec![flow([20, 60, 1, 10]), flow([198, 51, 100, 80])];
    setup
}

#[test]
fn switching_an_endpoint_is_asked_about_and_done_with_the_same_answer() {
    let setup = setup();
    let before = setup.in_force();
    let dry = setup.node.try_endpoint("SPOKE/workload", "microsoft.storage", true).unwrap();
    assert_eq!((dry.subnet.as_str(), dry.service.as_str()), (WORKLOAD, STORAGE));
    assert_eq!((dry.enabled, dry.changed, dry.dry_run, dry.generation), (true, true, true, 1));
    assert_eq!((dry.routes.len(), dry.routes[0].added.as_slice()), (1, [ENDPOINT_ROUTE.to_owned()].as_slice()));
    assert_eq!((dry.flows.reset, dry.flows.moved, dry.flows.kept), (1, 0, 1));
    assert_eq!(dry.flows.cut.len(), 1);
    assert_eq!(
        (dry.flows.cut[0].destination.as_str(), dry.flows.cut[0].egress.as_str()),
        ("20.60.1.10:443", "gateway")
    );
    assert_eq!(setup.in_force(), before);
    assert_eq!(setup.node.status().changes.len(), 1, "a question is no change");
    assert!(setup.node.status().switched_endpoints.is_empty());

    let done = setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    assert_eq!(done, EndpointAnswer { dry_run: false, generation: 2, ..dry });

    let again = setup.node.try_endpoint(WORKLOAD, STORAGE, true).unwrap();
    assert_eq!((again.changed, again.dry_run, again.generation), (false, true, 2));
    assert_eq!((again.routes.len(), again.flows.kept, again.flows.cut.len()), (0, 1, 0));
    let off = setup.node.try_endpoint(WORKLOAD, STORAGE, false).unwrap();
    assert_eq!((off.changed, off.routes[0].removed.as_slice()), (true, [ENDPOINT_ROUTE.to_owned()].as_slice()));
    assert_eq!(setup.next_hop_type(), "VirtualNetworkServiceEndpoint", "asked, not done");
}

#[test]
fn applying_a_document_is_asked_about_and_done_with_the_same_answer() {
    let setup = setup();
    let before = setup.in_force();
    let text = format!("{DOCUMENT}{SECOND_NIC}").replace(
        "route_table = \"forced\"",
        "route_table = \"forced\"\n  service_endpoints = [{ service = \"Microsoft.Storage\" }]",
    );
    let dry = setup.node.try_document(&text, None).unwrap();
    assert_eq!((dry.generation, dry.dry_run), (1, true));
    assert_eq!((dry.flows.reset, dry.flows.moved, dry.flows.kept), (1, 0, 1));
    assert_eq!((dry.flows.cut.len(), dry.flows.cut[0].destination.as_str()), (1, "20.60.1.10:443"));
    assert_eq!(dry.ports_added, ["vm2"]);
    assert_eq!((dry.routes.len(), dry.routes[0].added.as_slice()), (1, [ENDPOINT_ROUTE.to_owned()].as_slice()));
    assert_eq!(setup.in_force(), before);
    assert_eq!(setup.node.status().changes.len(), 1, "a question is no change");

    let done = setup.node.apply("test", &text, None).unwrap();
    assert_eq!(done, DocumentAnswer { dry_run: false, generation: 2, ..dry });
}

#[test]
fn what_would_be_refused_is_refused_when_it_is_asked_about() {
    let setup = setup();
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    for (subnet, service) in
        [(WORKLOAD, "Microsoft.Storage.Global"), ("spoke/none", STORAGE), (WORKLOAD, "Microsoft.KeyVault")]
    {
        let asked = setup.node.try_endpoint(subnet, service, true).unwrap_err();
        assert_eq!(asked, setup.node.set_endpoint("test", subnet, service, true).unwrap_err());
    }
}

#[test]
fn an_answer_that_is_not_whole_is_not_given() {
    let setup = setup();
    *setup.stage.silent.lock().unwrap() = true;
    let refusal = setup.node.try_endpoint(WORKLOAD, STORAGE, true).unwrap_err();
    assert_eq!(
        (refusal.status(), refusal.to_string().as_str()),
        (500, "the workers have not looked at every flow in time; nothing was done")
    );
    assert_eq!(setup.node.try_document(DOCUMENT, None).unwrap_err(), refusal);
    let done = setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    assert_eq!((done.changed, done.generation), (true, 2), "the change itself does not wait for what is told about it");
}
