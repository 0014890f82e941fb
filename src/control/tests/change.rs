//! Changes: all or nothing, one after the other.

use std::fs;
use std::time::Duration;

use super::*;

#[test]
fn an_endpoint_is_switched_on_and_off_again() {
    let setup = Setup::new();
    *setup.stage.flows.lock().unwrap() = vec![flow([20, 60, 1, 10]), flow([192, 168, 0, 9]), flow([192, 168, 0, 10])];
    assert_eq!((setup.generation(), setup.next_hop_type().as_str()), (1, "VirtualNetworkGateway"));

    let on = setup.node.set_endpoint("test", "SPOKE/workload", "microsoft.storage", true).unwrap();
    assert_eq!((on.subnet.as_str(), on.service.as_str()), (WORKLOAD, STORAGE), "names are as the document has them");
    assert_eq!((on.enabled, on.changed, on.generation), (true, true, 2));
    assert_eq!((on.flows.reset, on.flows.moved, on.flows.kept), (1, 0, 2));
    assert_eq!(setup.next_hop_type(), "VirtualNetworkServiceEndpoint");
    assert_eq!(*setup.stage.waited.lock().unwrap(), [2], "the answer comes after the workers");
    assert_eq!(setup.node.status().switched_endpoints, [(format!("{WORKLOAD} {STORAGE}"), true)].into());

    let again = setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    assert_eq!(
        (again.changed, again.generation, again.flows.kept),
        (false, 2, 2),
        "what the change before left does not count"
    );

    let off = setup.node.set_endpoint("test", WORKLOAD, STORAGE, false).unwrap();
    assert_eq!((off.enabled, off.changed, off.generation), (false, true, 3));
    assert_eq!(setup.next_hop_type(), "VirtualNetworkGateway");
    assert!(setup.node.status().switched_endpoints.is_empty(), "it is again as the document has it");

    let what: Vec<String> = setup.node.status().changes.into_iter().map(|change| change.what).collect();
    assert_eq!(
        what,
        [
            "load network.toml",
            "enable microsoft.storage on SPOKE/workload",
            "disable Microsoft.Storage on spoke/workload"
        ]
    );
}

#[test]
fn an_endpoint_that_cannot_be_is_refused_and_changes_nothing() {
    let setup = Setup::new();
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    let before = setup.in_force();
    let refuse = |subnet: &str, service: &str| {
        let refusal = setup.node.set_endpoint("test", subnet, service, true).unwrap_err();
        assert_eq!(setup.in_force(), before, "{refusal}");
        assert_eq!(setup.last_change().refused, Some(refusal.to_string()));
        (refusal.status(), refusal.to_string())
    };
    let (status, text) = refuse(WORKLOAD, "Microsoft.Storage.Global");
    assert_eq!(status, 409);
    assert_eq!(
        text,
        "spoke/workload has an endpoint for Microsoft.Storage, which excludes Microsoft.Storage.Global: disable it first"
    );
    let (status, text) = refuse("spoke/workloda", STORAGE);
    assert_eq!(
        (status, text.as_str()),
        (
            404,
            "there is no subnet `spoke/workloda`; did you mean `spoke/workload`? (there are spoke/workload, spoke/empty)"
        )
    );
    let (status, text) = refuse(WORKLOAD, "Microsoft.Stroage");
    assert_eq!(status, 404);
    assert!(
        text.starts_with(
            "there is no service with endpoints `Microsoft.Stroage`; did you mean `Microsoft.Storage`? (there"
        ),
        "{text}"
    );
    let (status, text) = refuse(WORKLOAD, "Microsoft.KeyVault");
    assert_eq!(status, 409);
    assert!(text.contains("AzureKeyVault"), "the tag that the catalogue misses is named: {text}");
}

#[test]
fn a_document_is_applied_with_its_ports() {
    let setup = Setup::new();
    let text = format!("{DOCUMENT}{SECOND_NIC}{SECOND_SERVICE}").replace("endpoints = []", "");
    let answer = setup.node.apply("test", &text, None).unwrap();
    assert_eq!((answer.generation, answer.dry_run), (2, false));
    assert_eq!(answer.ports_added, ["vm2"]);
    assert_eq!(answer.ports_removed, [""; 0]);
    assert_eq!(answer.ports_changed, ["internet"], "the internet leads to the new service, too");
    assert_eq!(answer.routes, [], "neither NIC nor service is a route");
    assert_eq!(
        *setup.stage.adjusted.lock().unwrap(),
        [(
            "internet".to_owned(),
            vec!["20.60.1.10/32".to_owned(), "20.60.1.11/32".to_owned(), "203.0.113.200/32".to_owned()]
        )]
    );
    assert_eq!(setup.stage.serving.lock().unwrap().len(), 5);

    let back = setup.node.apply("test", DOCUMENT, None).unwrap();
    assert_eq!((back.generation, back.ports_removed), (3, vec!["vm2".to_owned()]));
    assert_eq!(setup.stage.serving.lock().unwrap().len(), 4);
    assert_eq!(setup.node.ports().len(), 4);
}

#[test]
fn an_endpoint_that_was_switched_off_comes_back_as_the_document_has_it() {
    let setup = Setup::new();
    let with = |source: &str| {
        let subnet = "address_prefixes = [\"10.1.2.0/24\"]";
        let endpoint = format!("  service_endpoints = [{{ service = \"{STORAGE}\", source = {source} }}]");
        DOCUMENT.replace(subnet, &format!("{subnet}\n{endpoint}"))
    };
    let empty = "spoke/empty";
    let source = |setup: &Setup| {
        let answer = setup.node.routes(empty).unwrap();
        answer.routes.into_iter().find_map(|row| row.route.endpoint_source)
    };
    setup.node.apply("test", &with("\"identity6\""), None).unwrap();
    assert_eq!(source(&setup).as_deref(), Some("identity6"));
    setup.node.set_endpoint("test", empty, STORAGE, false).unwrap();
    assert_eq!(source(&setup), None);
    setup.node.set_endpoint("test", empty, STORAGE, true).unwrap();
    assert_eq!(source(&setup).as_deref(), Some("identity6"));
    // A change of the source is a change of the route.
    let changes = setup.node.try_document(&with("{ prefix_map = \"100.64.8.0/24\" }"), None).unwrap().routes;
    let endpoint = "Default Active 2 prefixes VirtualNetworkServiceEndpoint Microsoft.Storage";
    assert_eq!(changes[0].removed, [format!("{endpoint} (identity6)")]);
    assert_eq!(changes[0].added, [format!("{endpoint} (prefix_map 10.1.2.0/24 to 100.64.8.0/24)")]);
}

#[test]
fn applying_ends_what_was_switched_by_hand() {
    let setup = Setup::new();
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    let answer = setup.node.apply("test", DOCUMENT, None).unwrap();
    assert_eq!(setup.next_hop_type(), "VirtualNetworkGateway");
    assert!(setup.node.status().switched_endpoints.is_empty());
    assert_eq!(answer.routes.len(), 1);
    assert_eq!(answer.routes[0].subnet, WORKLOAD);
    assert_eq!(answer.routes[0].removed, ["Default Active 2 prefixes VirtualNetworkServiceEndpoint Microsoft.Storage"]);
}

#[test]
fn every_mistake_of_a_document_is_told_and_nothing_is_done() {
    let setup = Setup::new();
    let before = setup.in_force();
    let text = DOCUMENT.replace("\"forced\"\n\n", "\"forcde\"\n\n").replace("10.1.1.4", "10.9.1.4");
    let Err(Refusal::Document { summary, mistakes }) = setup.node.apply("test", &text, None) else {
        panic!("mistakes are refused as such")
    };
    assert_eq!(summary, format!("{} has 2 mistakes", setup.path("network.toml").display()));
    assert_eq!(mistakes.len(), 2);
    assert!(mistakes[0].message.contains("forcde"), "{mistakes:?}");
    assert_eq!(mistakes[0].line, Some(18));
    assert!(mistakes[1].message.contains("10.9.1.4"), "{mistakes:?}");
    assert_eq!(setup.in_force(), before);
    assert!(setup.last_change().refused.unwrap().contains("line 18"));
}

#[test]
fn a_catalogue_that_cannot_be_used_is_a_mistake_of_the_document() {
    let setup = Setup::new();
    let text = DOCUMENT.replace("tags.json", "none.json");
    let Err(Refusal::Document { mistakes, .. }) = setup.node.apply("test", &text, None) else { panic!("refused") };
    assert_eq!((mistakes.len(), mistakes[0].line), (1, Some(3)));
    assert!(mistakes[0].message.contains("none.json"), "{mistakes:?}");
}

#[test]
fn a_device_that_fails_leaves_everything_as_it_was() {
    let setup = Setup::new();
    let before = setup.in_force();
    let text = format!("{DOCUMENT}{SECOND_NIC}{SECOND_SERVICE}");

    *setup.stage.refuse_open.lock().unwrap() = Some("vm2".to_owned());
    let refusal = setup.node.apply("test", &text, None).unwrap_err();
    assert_eq!((refusal.status(), refusal.to_string().as_str()), (500, "port `vm2`: no device today"));
    assert_eq!(setup.in_force(), before);
    assert!(setup.stage.adjusted.lock().unwrap().is_empty());

    *setup.stage.refuse_open.lock().unwrap() = None;
    *setup.stage.refuse_adjust.lock().unwrap() = Some("internet".to_owned());
    setup.node.apply("test", &text, None).unwrap_err();
    assert_eq!(setup.in_force(), before);

    *setup.stage.refuse_adjust.lock().unwrap() = None;
    setup.node.apply("test", &text, None).unwrap();
    assert_eq!(setup.generation(), 2, "refused changes take no generation");
}

#[test]
fn adjusted_devices_are_taken_back_when_a_later_one_fails() {
    let setup = Setup::new();
    // A new network at the gateway changes the gateway's routes, a new service those of the internet.
    let text = format!("{DOCUMENT}{SECOND_SERVICE}").replace(r#"["10.0.0.0/16"]"#, r#"["10.0.0.0/16", "10.3.0.0/16"]"#);
    *setup.stage.refuse_adjust.lock().unwrap() = Some("internet".to_owned());
    setup.node.apply("test", &text, None).unwrap_err();
    let adjusted: Vec<(String, usize)> =
        setup.stage.adjusted.lock().unwrap().iter().map(|(name, routes)| (name.clone(), routes.len())).collect();
    assert_eq!(adjusted, [("gateway".to_owned(), 4), ("gateway".to_owned(), 3)]);
}

#[test]
fn what_only_a_restart_can_change_is_refused() {
    let setup = Setup::new();
    let before = setup.in_force();
    for (text, expected) in [
        (format!("workers = 3\n{DOCUMENT}"), "`workers` differs from the running node's: restart it for that"),
        (format!("io = \"plain\"\n{DOCUMENT}"), "`io` differs from the running node's: restart it for that"),
        (format!("poll = \"adaptive\"\n{DOCUMENT}"), "`poll` differs from the running node's: restart it for that"),
        (
            format!("{DOCUMENT}\n[flows]\nlimit = 2000000\n"),
            "`flows.limit` 2000000 is above 1048576, which the running node's tables were made for: restart it for that",
        ),
        (
            DOCUMENT.replace("\"edge0\"", "\"edge0\", mtu = 1400"),
            "the interface edge0 of internet would have to be made anew for internet: apply a document without it first, \
             or restart the node",
        ),
    ] {
        let refusal = setup.node.apply("test", &text, None).unwrap_err();
        assert_eq!((refusal.status(), refusal.to_string().as_str()), (409, expected));
        assert_eq!(setup.in_force(), before);
    }
}

#[test]
fn changes_that_come_together_are_made_one_after_the_other() {
    let setup = Setup::new();
    *setup.stage.slow.lock().unwrap() = Duration::from_millis(2);
    std::thread::scope(|scope| {
        for subnet in [WORKLOAD, "spoke/empty"] {
            for _ in 0..4 {
                let node = &setup.node;
                scope.spawn(move || {
                    for enabled in [true, false] {
                        node.set_endpoint("test", subnet, STORAGE, enabled).unwrap();
                    }
                });
            }
        }
    });
    let waited = setup.stage.waited.lock().unwrap().clone();
    assert_eq!(waited, (2..=setup.generation()).collect::<Vec<_>>(), "each generation once, in order");
    assert!(setup.node.status().switched_endpoints.is_empty());
}

#[test]
fn questions_do_not_wait_for_a_change() {
    let setup = Setup::new();
    let applied = std::thread::scope(|scope| {
        *setup.stage.slow.lock().unwrap() = Duration::from_secs(1);
        let change = scope.spawn(|| setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap());
        let mut asked = 0;
        while !change.is_finished() {
            setup.node.status();
            setup.next_hop_type();
            asked += 1;
        }
        change.join().unwrap();
        asked
    });
    assert!(applied > 10, "{applied} questions in a second");
}

#[test]
fn a_changed_catalogue_is_taken_in() {
    let setup = Setup::new();
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    assert!(!setup.node.reload_catalogue(), "nothing has changed");

    fs::write(setup.path("tags.json"), catalogue(r#""20.99.0.0/16", "2603:1020::/40""#)).unwrap();
    assert!(setup.node.reload_catalogue());
    assert_eq!(setup.generation(), 3);
    assert_eq!(setup.next_hop_type(), "VirtualNetworkGateway", "the service's address is in the tag no more");
    let moved = setup.node.next_hop(WORKLOAD, "20.99.0.1", None).unwrap();
    assert_eq!(moved.next_hop_type, "VirtualNetworkServiceEndpoint", "what was switched by hand stays");
    assert_eq!(setup.last_change().who, "catalogue");
    assert!(!setup.node.reload_catalogue());
}

#[test]
fn a_broken_catalogue_is_refused_once_and_the_one_before_stays() {
    let setup = Setup::new();
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    let before = setup.in_force();

    fs::write(setup.path("tags.json"), "{ \"values\": [").unwrap();
    assert!(!setup.node.reload_catalogue());
    assert_eq!(setup.in_force(), before);
    let reason = setup.node.status().catalogue.unwrap().refused.unwrap();
    assert!(reason.contains("tags.json"), "{reason}");
    let changes = setup.node.status().changes.len();
    assert!(!setup.node.reload_catalogue());
    assert_eq!(setup.node.status().changes.len(), changes, "the same file is refused once");

    // A good file that lacks the tag of the endpoint would leave the endpoint without routes.
    fs::write(setup.path("tags.json"), catalogue(r#""20.60.0.0/16""#).replace("\"Storage\"", "\"Other\"")).unwrap();
    assert!(!setup.node.reload_catalogue());
    assert_eq!(setup.in_force(), before);

    fs::remove_file(setup.path("tags.json")).unwrap();
    assert!(!setup.node.reload_catalogue());
    assert_eq!(setup.in_force(), before);

    fs::write(setup.path("tags.json"), catalogue(r#""20.60.1.0/24""#)).unwrap();
    assert!(setup.node.reload_catalogue());
    assert_eq!(setup.generation(), before.0 + 1);
    assert_eq!(setup.node.status().catalogue.unwrap().refused, None);
}

#[test]
fn a_node_whose_device_fails_does_not_start() {
    let folder = Setup::new().folder;
    let stage = Arc::new(Stage::default());
    *stage.refuse_open.lock().unwrap() = Some("gateway".to_owned());
    let refusal = Setup::start(&folder, &stage).err().unwrap();
    assert_eq!(refusal, Refusal::Failed("port `gateway`: no device today".to_owned()));
    assert!(stage.serving.lock().unwrap().is_empty());
}
