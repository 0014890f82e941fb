//! Asking what a change would do. `tests/dry_run.rs` holds the answers to what real workers then do.

use super::*;
use crate::control::answers::{DocumentAnswer, EndpointAnswer};
use crate::control::state::Reading;

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

/// A catalogue beside the one in force; gives its path.
fn write_catalogue(setup: &Setup, name: &str, prefixes: &str) -> PathBuf {
    let path = setup.path(name);
    fs::write(&path, catalogue(prefixes)).unwrap();
    path
}

#[test]
fn a_catalogue_is_asked_about_and_put_in_force_with_the_same_answer() {
    let setup = setup();
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    // A flow as the first generation has it: what the catalogue sends back to the gateway lives on.
    let next = write_catalogue(&setup, "next.json", r#""20.99.0.0/16""#);
    let before = setup.in_force();
    let dry = setup.node.try_catalogue(&next).unwrap();
    assert_eq!((dry.generation, dry.dry_run), (2, true));
    assert_eq!((&*dry.ports_added, &*dry.ports_removed), (&[][..], &[][..]));
    let routes = &dry.routes[0];
    assert_eq!((dry.routes.len(), routes.subnet.as_str()), (1, WORKLOAD));
    assert_eq!(routes.removed, [ENDPOINT_ROUTE]);
    assert_eq!(routes.added, ["Default Active 20.99.0.0/16 VirtualNetworkServiceEndpoint Microsoft.Storage"]);
    assert_eq!((dry.flows.reset, dry.flows.moved, dry.flows.kept), (0, 0, 2));
    assert_eq!(setup.in_force(), before);
    assert_eq!(setup.node.status().changes.len(), 2, "a question is no change");
    assert_eq!(setup.node.status().catalogue.unwrap().path, setup.path("tags.json"));

    let done = setup.node.apply_catalogue("test", &next).unwrap();
    assert_eq!(done, DocumentAnswer { dry_run: false, generation: 3, ..dry.clone() });
    let change = setup.last_change();
    assert_eq!((change.who.as_str(), change.what.as_str()), ("test", "apply the catalogue next.json"));
    let effect = change.effect.unwrap();
    assert_eq!((effect.subnets, &effect.routes), (1, &dry.routes));
    assert_eq!([effect.flows_reset, effect.flows_moved, effect.flows_kept], [0, 0, 2]);
    assert_eq!(setup.node.status().catalogue.unwrap().path, next);
    assert_eq!(setup.next_hop_type(), "VirtualNetworkGateway");

    // Its file is the one that is looked at now, and the automatic reload does what was foreseen.
    write_catalogue(&setup, "tags.json", r#""20.98.0.0/16""#);
    assert!(!setup.node.reload_catalogue(), "the document's file is not in force");
    let foreseen = setup.node.try_catalogue(&write_catalogue(&setup, "third.json", r#""20.60.0.0/16""#)).unwrap();
    assert_eq!((foreseen.flows.reset, foreseen.flows.kept), (1, 1));
    fs::rename(setup.path("third.json"), &next).unwrap();
    assert!(setup.node.reload_catalogue());
    let change = setup.last_change();
    assert_eq!((change.who.as_str(), change.what.as_str()), ("catalogue", "reload the catalogue"));
    let effect = change.effect.unwrap();
    assert_eq!((effect.subnets, effect.routes), (1, foreseen.routes));
    let flows = [foreseen.flows.reset, foreseen.flows.moved, foreseen.flows.kept];
    assert_eq!([effect.flows_reset, effect.flows_moved, effect.flows_kept], flows);

    setup.node.apply("test", DOCUMENT, None).unwrap();
    assert_eq!(setup.node.status().catalogue.unwrap().path, next, "documents that come later have it, too");
    setup.node.apply_catalogue("test", &setup.path("tags.json")).unwrap();
    assert_eq!(setup.node.status().catalogue.unwrap().path, setup.path("tags.json"));
}

#[test]
fn a_catalogue_that_cannot_be_is_refused_the_same_way() {
    let setup = setup();
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    fs::write(setup.path("broken.json"), "{ \"values\": [").unwrap();
    let other = catalogue(r#""20.60.0.0/16""#).replace("\"Storage\"", "\"Other\"");
    fs::write(setup.path("other.json"), other).unwrap();
    let before = setup.in_force();
    for (path, status, expected) in [
        (setup.path("broken.json"), 500, "broken.json"),
        (setup.path("missing.json"), 500, "missing.json"),
        (setup.path("other.json"), 409, "other.json does not do for the document"),
        ("tags.json".into(), 400, "the catalogue's path tags.json is not absolute"),
    ] {
        let refusal = setup.node.try_catalogue(&path).unwrap_err();
        assert_eq!(refusal.status(), status);
        assert!(refusal.to_string().contains(expected), "{refusal}");
        assert_eq!(setup.node.apply_catalogue("test", &path).unwrap_err(), refusal);
        assert_eq!(setup.in_force(), before);
        let change = setup.last_change();
        assert_eq!((change.refused, change.effect), (Some(refusal.to_string()), None));
    }
    assert_eq!(setup.node.status().catalogue.unwrap().refused, None, "the one in force is as it was");
}

#[test]
fn what_was_changed_by_hand_is_there_again_after_a_restart() {
    let setup = setup();
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    let next = write_catalogue(&setup, "next.json", r#""20.99.0.0/16""#);
    setup.node.apply_catalogue("test", &next).unwrap();
    setup.node.save(&setup.path("state")).unwrap();
    let by_hand = Reading::begin(&setup.path("state")).unwrap().unwrap().by_hand(DOCUMENT);
    assert_eq!(by_hand.catalogue.as_deref(), Some(&*next));

    let again = |overrides: Overrides| {
        let document = Document::read(&setup.path("network.toml")).unwrap();
        let stage = setup.stage.clone();
        Loaded::resume(document, overrides, &by_hand)
            .unwrap()
            .start(Box::new(FakeDevices(stage.clone())), |publisher, _| {
                Ok(FakeWorkers { stage, started: Instant::now(), publisher })
            })
            .unwrap()
    };
    let node = again(Overrides::default());
    assert_eq!(node.status().catalogue.unwrap().path, next);
    assert_eq!(node.status().switched_endpoints.len(), 1);
    let named = setup.path("tags.json");
    let node = again(Overrides { tags: Some(named.clone()), ..Overrides::default() });
    assert_eq!(node.status().catalogue.unwrap().path, named, "what the command line says comes first");
    node.save(&setup.path("state")).unwrap();
    let by_hand_then = Reading::begin(&setup.path("state")).unwrap().unwrap().by_hand(DOCUMENT);
    assert_eq!(by_hand_then.catalogue, None, "that is not by hand");
    fs::remove_file(&next).unwrap();
    let node = again(Overrides::default());
    assert_eq!(node.status().catalogue.unwrap().path, named, "a file that is gone keeps no node from starting");
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
    assert_eq!(setup.node.try_catalogue(&setup.path("tags.json")).unwrap_err(), refusal);
    let done = setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    assert_eq!((done.changed, done.generation), (true, 2), "the change itself does not wait for what is told about it");
    assert!(!done.flows.complete, "and says that it does not know");
    assert_eq!(setup.last_change().effect.map(|effect| effect.flows_complete), Some(false));
    *setup.stage.silent.lock().unwrap() = false;
    let off = setup.node.set_endpoint("test", WORKLOAD, STORAGE, false).unwrap();
    assert!(off.flows.complete);
    *setup.stage.late.lock().unwrap() = true;
    let on = setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    assert!(!on.flows.complete, "workers that are late count too little");
}
