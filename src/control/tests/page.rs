//! The page: who is refused, what is told and how much of it, and the switch of an endpoint.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use serde_json::Value;

use super::*;
use crate::control::page::Page;
use crate::control::page::live::{Watch, Way};
use crate::path::DropReason;
use crate::path::look::REMEMBERED;
use crate::path::record::Event;

/// A node whose page is served, until the runtime ends.
struct Shown {
    setup: Setup,
    address: SocketAddr,
    token: String,
    _runtime: tokio::runtime::Runtime,
}

impl Shown {
    fn new() -> Self {
        let setup = Setup::new();
        let page = Page::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = page.url();
        let (address, token) = url.strip_prefix("http://").unwrap().split_once("/#").unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(page.serve(setup.node.clone()));
        Self { setup, address: address.parse().unwrap(), token: token.to_owned(), _runtime: runtime }
    }

    /// Sends a request with these headers and returns the whole answer.
    fn send(&self, request: &str, headers: &[String]) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        write!(stream, "{request} HTTP/1.1\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn host(&self) -> String {
        format!("Host: {}", self.address)
    }

    fn origin(&self) -> String {
        format!("Origin: http://{}", self.address)
    }

    fn authorization(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }

    /// What the page itself would be answered.
    fn ask(&self, request: &str) -> (u16, Value) {
        let answer = self.send(request, &[self.host(), self.origin(), self.authorization()]);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (status(head), serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {answer}")))
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn switch(enabled: bool, dry_run: bool) -> String {
    switch_of(enabled, dry_run, 1)
}

fn switch_of(enabled: bool, dry_run: bool, generation: u64) -> String {
    format!(
        "POST /api/endpoint?subnet={WORKLOAD}&service={STORAGE}&enabled={enabled}&dry_run={dry_run}&generation={generation}"
    )
}

/// Any user of the machine can connect.
#[test]
fn who_has_no_token_is_told_nothing_and_changes_nothing() {
    let shown = Shown::new();
    let other = "0".repeat(shown.token.len());
    let prefix = &shown.token[..31];
    let given = [None, Some(""), Some(&*other), Some(prefix), Some("Bearer")];
    for request in
        ["GET /api/live", "GET /api/picture", "GET /api/v1/routes?of=vm1", &switch(true, false), "GET /api/none"]
    {
        for given in given {
            let mut headers = vec![shown.host(), shown.origin()];
            headers.extend(given.map(|token| format!("Authorization: Bearer {token}")));
            let answer = shown.send(request, &headers);
            assert_eq!(status(&answer), 401, "{request} {given:?}: {answer}");
            assert!(answer.contains("open the URL that `sidestep run` has printed"), "{answer}");
        }
        let basic =
            shown.send(request, &[shown.host(), shown.origin(), format!("Authorization: Basic {}", shown.token)]);
        assert_eq!(status(&basic), 401, "{basic}");
    }
    // Neither does a query, which would end in logs and histories.
    let asked = shown.send(&format!("GET /api/live?token={}", shown.token), &[shown.host()]);
    assert_eq!(status(&asked), 401, "{asked}");
    assert_eq!(shown.setup.generation(), 1);
}

#[test]
fn every_start_has_another_token() {
    let tokens: Vec<String> = (0..2).map(|_| Page::listen("127.0.0.1:0".parse().unwrap()).unwrap().url()).collect();
    let token = |url: &str| url.split_once('#').unwrap().1.to_owned();
    assert_ne!(token(&tokens[0]), token(&tokens[1]));
    assert_eq!(token(&tokens[0]).len(), 32);
}

/// A web page whose name is made to lead to loopback is of the browser's same origin as this one: only the name tells.
#[test]
fn a_host_that_is_not_loopback_is_misdirected() {
    let shown = Shown::new();
    let port = shown.address.port();
    for host in
        ["evil.example", "localhost.evil.example", "10.1.1.4", "127.0.0.1.evil.example", "x@127.0.0.1", "", "0.0.0.0"]
    {
        for path in ["/", "/page.js", "/api/live"] {
            let headers = [format!("Host: {host}:{port}"), shown.authorization()];
            let answer = shown.send(&format!("GET {path}"), &headers);
            assert!([400, 421].contains(&status(&answer)), "{host}: {answer}");
        }
    }
    for headers in [vec![], vec![shown.host(), "Host: evil.example".to_owned()]] {
        let answer = shown.send("GET /api/live", &[headers, vec![shown.authorization()]].concat());
        assert!([400, 421].contains(&status(&answer)), "{answer}");
    }
    // Also through a tunnel that has another port at its other end.
    for host in ["localhost", "localhost:8080", "127.0.0.1:1", "127.0.0.2:1", "[::1]:9799"] {
        let answer = shown.send("GET /api/live", &[format!("Host: {host}"), shown.authorization()]);
        assert_eq!(status(&answer), 200, "{host}: {answer}");
    }
}

#[test]
fn other_web_pages_are_refused_even_with_the_token() {
    let shown = Shown::new();
    let (host, own, authorization) = (shown.host(), shown.origin(), shown.authorization());
    let port = shown.address.port();
    let foreign = [
        "https://evil.example".to_owned(),
        "null".to_owned(),
        format!("https://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        "http://127.0.0.1".to_owned(),
    ];
    for origin in foreign {
        for request in ["GET /api/live", &switch(true, false), &switch(true, true)] {
            let answer = shown.send(request, &[host.clone(), format!("Origin: {origin}"), authorization.clone()]);
            assert_eq!(status(&answer), 403, "{origin}: {answer}");
        }
    }
    let two = shown.send(&switch(true, false), &[host.clone(), own.clone(), own.clone(), authorization.clone()]);
    assert_eq!(status(&two), 403, "{two}");
    let none = shown.send(&switch(true, false), &[host.clone(), authorization.clone()]);
    assert_eq!(status(&none), 403, "{none}");
    for site in ["cross-site", "same-site", "none"] {
        let headers = [host.clone(), format!("Sec-Fetch-Site: {site}"), authorization.clone()];
        let answer = shown.send("GET /api/live", &headers);
        assert_eq!(status(&answer), 403, "{site}: {answer}");
    }
    // No other origin is allowed anything, whatever it asks for first.
    let headers = [host, "Origin: https://evil.example".to_owned(), "Access-Control-Request-Method: POST".to_owned()];
    let asked = shown.send("OPTIONS /api/endpoint", &headers).to_lowercase();
    assert_eq!(status(&asked), 403, "{asked}");
    assert!(!asked.contains("access-control-allow"), "{asked}");
    assert_eq!(shown.setup.generation(), 1);
}

/// So that nobody frames the page, runs scripts in it, or reads it from another.
#[test]
fn every_answer_says_what_a_browser_may_do_with_it() {
    let shown = Shown::new();
    let own = [shown.host(), shown.authorization()];
    for (request, headers) in [
        ("GET /", &own[..1]),
        ("GET /page.js", &own[..1]),
        ("GET /none", &own[..1]),
        ("GET /api/live", &own[..]),
        ("GET /api/live", &own[..1]),
        ("GET /", &[]),
    ] {
        let answer = shown.send(request, headers);
        let wanted = [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "x-frame-options: DENY",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
            "cross-origin-resource-policy: same-origin",
        ];
        // A request that is no HTTP is not answered by the page.
        for header in wanted.iter().filter(|_| !answer.starts_with("HTTP/1.1 400 ")) {
            assert!(answer.contains(header), "{request}: no {header} in {answer}");
        }
        assert!(!answer.to_lowercase().contains("access-control"), "{answer}");
    }
}

/// What the policy would keep from working, and what would leave the machine.
#[test]
fn the_files_are_whole_and_nothing_in_them_leads_elsewhere() {
    let shown = Shown::new();
    let page = shown.send("GET /", &[shown.host()]);
    assert!(page.contains("content-type: text/html; charset=utf-8"), "{page}");
    let mut wanted = vec!["/page.css".to_owned(), "/icon.svg".to_owned(), "/page.js".to_owned()];
    let mut seen = 0;
    while let Some(path) = wanted.get(seen).cloned() {
        let file = shown.send(&format!("GET {path}"), &[shown.host()]);
        assert_eq!(status(&file), 200, "{path}");
        let body = file.split_once("\r\n\r\n").unwrap().1;
        for import in body.split(" from \"./").skip(1) {
            let import = format!("/{}", import.split('"').next().unwrap());
            if !wanted.contains(&import) {
                wanted.push(import);
            }
        }
        let outside = body.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http://") && !outside.contains("https://"), "{path}");
        for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "@import", "document.write"] {
            assert!(!body.contains(forbidden), "{path} has {forbidden}");
        }
        seen += 1;
    }
    assert!(seen > 8, "{wanted:?}");
    let page = page.split_once("\r\n\r\n").unwrap().1;
    for forbidden in [" style=", "<style", " onclick=", "<script>", "http"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert_eq!(status(&shown.send("POST /page.js", &[shown.host()])), 405);
    assert_eq!(status(&shown.send("GET /../Cargo.toml", &[shown.host()])), 404);
}

#[test]
fn the_page_is_for_this_machine_alone() {
    let error = Page::listen("0.0.0.0:9799".parse().unwrap()).unwrap_err().to_string();
    let wanted = "0.0.0.0:9799 is not a loopback address, and the page is for this machine alone; from another one use \
                  `ssh -L 9799:127.0.0.1:9799 HOST`";
    assert_eq!(error, wanted);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = Page::listen(address).unwrap_err().to_string();
    assert_eq!(error, format!("cannot listen on {address} for the page; choose another one with --page ADDRESS:PORT"));
}

/// As many connections as there may be, which say nothing, hold up the next one only until their time is over.
#[test]
fn who_connects_and_says_nothing_is_shown_the_door() {
    let shown = Shown::new();
    let mut silent: Vec<TcpStream> = (0..32).map(|_| TcpStream::connect(shown.address).unwrap()).collect();
    assert_eq!(shown.ask("GET /api/live").0, 200);
    for stream in &mut silent {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}

#[test]
fn an_endpoint_is_tried_and_then_switched() {
    let shown = Shown::new();
    shown.setup.stage.flows.lock().unwrap().push(flow([20, 60, 1, 10]));
    let (status, tried) = shown.ask(&switch(true, true));
    assert_eq!(
        (status, &tried["dry_run"], &tried["flows_reset"], &tried["generation"]),
        (200, &true.into(), &1.into(), &1.into())
    );
    assert_eq!(tried["routes"][0]["subnet"], WORKLOAD);
    assert_eq!(shown.setup.generation(), 1);
    let (status, done) = shown.ask(&switch(true, false));
    assert_eq!((status, &done["dry_run"], &done["generation"]), (200, &false.into(), &2.into()));
    assert_eq!(shown.setup.next_hop_type(), "VirtualNetworkServiceEndpoint");
    let change = shown.setup.last_change();
    assert_eq!((change.who.as_str(), change.what.as_str()), ("page", "enable Microsoft.Storage on spoke/workload"));
    let (_, picture) = shown.ask("GET /api/picture");
    assert_eq!(picture["virtual_networks"][1]["subnets"][0]["endpoints"][0]["service"], STORAGE);
    assert_eq!(picture["generation"], 2);
    assert_eq!(picture["paths"]["VirtualAppliance"], "tunnel");
    assert_eq!(picture["paths"].as_object().unwrap().len(), 8);

    let (status, refused) =
        shown.ask("POST /api/endpoint?subnet=spoke/none&service=Microsoft.Storage&enabled=true&dry_run=true");
    assert_eq!(status, 404, "{refused}");
    let (status, _) = shown.ask("POST /api/endpoint?subnet=spoke/workload");
    assert_eq!(status, 400);
    let (status, _) = shown.ask("GET /api/endpoint");
    assert_eq!(status, 405);
}

/// What was seen in a dry run is what is done, or nothing is.
#[test]
fn a_switch_that_was_tried_on_another_network_is_refused() {
    let shown = Shown::new();
    let (_, tried) = shown.ask(&switch(true, true));
    assert_eq!(tried["generation"], 1);
    // Meanwhile somebody else changes something.
    let more = DOCUMENT.replace("192.168.0.0/16", "192.168.0.0/17");
    shown.setup.node.apply("test", &more, None).unwrap();
    let (status, refused) = shown.ask(&switch(true, false));
    let text =
        "the network has changed since the dry run: it was of generation 1, and generation 2 is in force; try again";
    assert_eq!((status, &refused["error"]), (409, &text.into()));
    assert_eq!((shown.setup.generation(), shown.setup.next_hop_type()), (2, "VirtualNetworkGateway".to_owned()));
    assert_eq!(shown.setup.last_change().refused.as_deref(), Some(text));
    let unseen = "POST /api/endpoint?subnet=spoke/workload&service=Microsoft.Storage&enabled=true&dry_run=false";
    let (status, refused) = shown.ask(unseen);
    assert_eq!((status, shown.setup.generation()), (400, 2), "{refused}");
    assert_eq!(shown.ask(&switch_of(true, false, 2)).0, 200);
    assert_eq!(shown.setup.next_hop_type(), "VirtualNetworkServiceEndpoint");
}

#[test]
fn questions_are_those_of_the_control_socket() {
    let shown = Shown::new();
    for question in [
        "routes?of=vm1",
        "next-hop?from=vm1&to=20.60.1.10",
        "explain?from=vm1&to=20.60.1.10",
        "nsg?of=vm1",
        "verify?from=vm1&to=20.60.1.10&direction=outbound",
    ] {
        let (status, answer) = shown.ask(&format!("GET /api/v1/{question}"));
        assert_eq!(status, 200, "{question}: {answer}");
    }
    // The rest of the socket is not here.
    for path in ["status", "flows", "document", "counters"] {
        assert_eq!(shown.ask(&format!("GET /api/v1/{path}")).0, 404);
    }
}

/// A flow has counters; its rate is the difference of two looks.
#[test]
fn rates_are_differences() {
    let setup = Setup::new();
    let watch = Watch::default();
    let set = |bytes| {
        let mut flow = flow([20, 60, 1, 10]);
        flow.state.bytes = bytes;
        *setup.stage.flows.lock().unwrap() = vec![flow];
    };
    set([1000, 500]);
    let start = Instant::now();
    let first = watch.look(&setup.node, 0);
    assert_eq!((first.flows[0].rate, first.flows[0].path), ([0, 0], Way::Tunnel));
    assert!(first.moments.is_empty());
    set([5000, 2500]);
    assert_eq!(watch.look(&setup.node, 0).flows[0].flow.bytes, [1000, 500], "who asks at once is told the same");
    // After a change it is looked sooner, at what the change has done.
    setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    let second = loop {
        let live = watch.look(&setup.node, 0);
        if live.generation == 2 {
            break live;
        }
        assert!(start.elapsed() < Duration::from_secs(10), "the look stays old");
        std::thread::sleep(Duration::from_millis(5));
    };
    let seconds = start.elapsed().as_secs_f64();
    assert!(second.flows[0].rate[0] as f64 >= 32_000.0 / seconds * 0.99, "{:?} in {seconds} s", second.flows[0].rate);
    let [there, back] = second.flows[0].rate;
    // Each is rounded.
    assert!(second.lines[0].rate.abs_diff(there + back) <= 1, "{:?}", second.lines);
    assert!(second.moments[0].rates[&Way::Tunnel].abs_diff(there + back) <= 1, "{:?}", second.moments);
    assert!(!second.moments[0].estimated && second.sample.complete);
    assert!(watch.look(&setup.node, second.time).moments.is_empty(), "what was told is not told again");
}

/// However many flows there are, few are remembered and fewer are told; and that is said.
#[test]
fn what_is_looked_at_is_bounded() {
    let setup = Setup::new();
    let flows = (0..REMEMBERED as u32 + 1000).map(|number| {
        let [.., a, b, c] = number.to_be_bytes();
        flow([20, 60 + a, b, c])
    });
    *setup.stage.flows.lock().unwrap() = flows.collect();
    let live = Watch::default().look(&setup.node, 0);
    let (known, total) = (REMEMBERED as u64, REMEMBERED as u64 + 1000);
    assert_eq!((live.sample.looked_at, live.sample.total, live.sample.complete), (known, total, false));
    assert_eq!(live.flows.len(), 200);
}

/// The worker's first flows are no sample: the fast one is found wherever it is.
#[test]
fn a_fast_flow_among_many_is_found() {
    let setup = Setup::new();
    let watch = Watch::default();
    let many = REMEMBERED as u32 + 1000;
    let address = |number: u32| {
        let [.., a, b, c] = number.to_be_bytes();
        [20, 60 + a, b, c]
    };
    let until = Instant::now() + Duration::from_secs(20);
    for round in 1_u64.. {
        let mut flows: Vec<_> = (0..many).map(|number| flow(address(number))).collect();
        let last = flows.last_mut().unwrap();
        last.state.bytes = [1_000_000 * round, 0];
        last.state.touch(u64::from(u32::MAX));
        *setup.stage.flows.lock().unwrap() = flows;
        let live = watch.look(&setup.node, 0);
        let [.., a, b, c] = address(many - 1);
        let fastest = &live.flows[0];
        if fastest.rate[0] > 0 {
            assert_eq!(fastest.flow.destination, format!("20.{a}.{b}.{c}:443"));
            break;
        }
        assert!(Instant::now() < until, "never found");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// They have the same addresses and no ports.
#[test]
fn pings_between_the_same_addresses_are_told_apart() {
    let setup = Setup::new();
    let ping = |identifier| {
        let mut ping = flow([20, 60, 1, 10]);
        ping.sides.protocol = 1;
        for side in [&mut ping.sides.source, &mut ping.sides.destination, &mut ping.sides.presented] {
            side.1 = identifier;
        }
        ping
    };
    *setup.stage.flows.lock().unwrap() = vec![ping(7), ping(8)];
    let flows = Watch::default().look(&setup.node, 0).flows;
    let mut keys: Vec<_> = flows.iter().map(|flow| (flow.key.as_str(), flow.identifier)).collect();
    keys.sort_unstable();
    assert_eq!(keys, [("icmp vm1 10.1.1.4 20.60.1.10 7", Some(7)), ("icmp vm1 10.1.1.4 20.60.1.10 8", Some(8))]);
}

/// A gathered send that fails takes back what was counted.
#[test]
fn counters_that_were_lowered_are_no_throughput() {
    let setup = Setup::new();
    let watch = Watch::default();
    *setup.stage.forwarded_bytes.lock().unwrap() = 5000;
    watch.look(&setup.node, 0);
    *setup.stage.forwarded_bytes.lock().unwrap() = 4000;
    let until = Instant::now() + Duration::from_secs(10);
    while watch.look(&setup.node, 0).moments.is_empty() {
        assert!(Instant::now() < until, "nobody looks again");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(watch.look(&setup.node, 0).moments[0].rates.is_empty());
}

/// Workers make records of first answers while somebody looks, of everything while somebody follows, and of nothing then.
#[test]
fn records_are_made_while_somebody_looks_and_no_longer() {
    let setup = Setup::new();
    let watch = Watch::default();
    let logged = || setup.stage.logged.lock().unwrap().clone();
    setup.node.look_at_flow_log();
    assert!(logged().is_empty(), "nobody looks");
    watch.look(&setup.node, 0);
    let [Some(queue)] = &logged()[..] else { panic!("{:?}", logged()) };
    let wants = || (queue.want(Event::Reply), queue.want(Event::Begin), queue.want(Event::Dropped(DropReason::ALL[0])));
    assert_eq!(wants(), (true, false, false));

    // All is begun anew: nobody was told what passed until then.
    let lines = setup.node.follow_flow_log().unwrap();
    let [Some(_), None, Some(queue)] = &logged()[..] else { panic!("{:?}", logged()) };
    let wants = || (queue.want(Event::Reply), queue.want(Event::Begin), queue.want(Event::Dropped(DropReason::ALL[0])));
    assert_eq!(wants(), (true, true, true));
    drop(lines);
    setup.node.look_at_flow_log();
    assert_eq!((wants(), logged().len()), ((true, false, false), 3), "the page still looks");

    let since = Instant::now();
    while logged().len() == 3 {
        setup.node.look_at_flow_log();
        assert!(since.elapsed() < Duration::from_secs(20), "records are still made");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(logged()[3].is_none() && !setup.node.logs_flows());
    assert!(since.elapsed() > Duration::from_secs(4), "a page that asks twice a second is not forgotten");
    // And again, for who looks again.
    watch.look(&setup.node, 0);
    assert!(logged()[4].is_some());
}
