//! The socket: requests and answers as they are on the wire.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde_json::Value;
use tokio::sync::watch;

use super::*;
use crate::control::answers::{DocumentAnswer, EndpointAnswer, FlowsAnswer, Health, Status};
use crate::control::client::{Client, ClientError, target};
use crate::control::server;
use crate::control::socket::ControlSocket;
use crate::plan::explain::{NextHopAnswer, RoutesAnswer};

/// A node that is served.
struct Served {
    setup: Setup,
    client: Client,
    path: PathBuf,
    end: watch::Sender<bool>,
    server: Option<std::thread::JoinHandle<io::Result<()>>>,
    _socket: ControlSocket,
}

impl Served {
    fn new() -> Self {
        let setup = Setup::new();
        let path = setup.path("node.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        let listener = socket.listener().unwrap();
        let (end, ended) = watch::channel(false);
        let node = setup.node.clone();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(server::serve(node, listener, ended))
        });
        Self { setup, client: Client::new(&path), path, end, server: Some(server), _socket: socket }
    }

    /// Sends bytes as they are and returns the whole answer.
    fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(&self.path).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn refused(&self, result: Result<Value, ClientError>) -> (u16, String) {
        match result {
            Err(ClientError::Refused { status, answer }) => (status, answer.error),
            other => panic!("{other:?}"),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.end.send(true);
        let ended = self.server.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

#[test]
fn questions_are_answered() {
    let served = Served::new();
    let client = &served.client;
    assert_eq!(client.get::<Health>("/v1/health").unwrap(), served.setup.node.health());
    let status: Status = client.get("/v1/status").unwrap();
    assert_eq!(status.pid, std::process::id());
    assert_eq!(status.ports.len(), 4);
    assert_eq!(status.catalogue.unwrap().change_number, 7);
    let routes: RoutesAnswer = client.get(&target(&["v1", "routes"], &[("of", WORKLOAD)])).unwrap();
    assert_eq!(routes, served.setup.node.routes("vm1").unwrap());
    let query = [("from", "vm1"), ("to", "data.blob.example"), ("protocol", "udp")];
    let next_hop: NextHopAnswer = client.get(&target(&["v1", "next-hop"], &query)).unwrap();
    assert_eq!((next_hop.next_hop_type.as_str(), next_hop.protocol), ("VirtualNetworkGateway", 17));
    *served.setup.stage.flows.lock().unwrap() = vec![flow([20, 60, 1, 10]); 3];
    let flows: FlowsAnswer = client.get("/v1/flows?limit=2").unwrap();
    assert_eq!((flows.total, flows.flows.len()), (3, 2));
    let explained: Value = client.get("/v1/explain?from=vm1&to=20.60.1.10").unwrap();
    assert_eq!(explained["verdict"]["port"], "gateway");
    let counters: Value = client.get("/v1/counters").unwrap();
    assert_eq!(counters["flows"], 3);
}

#[test]
fn an_endpoint_is_switched_by_post_and_delete() {
    let served = Served::new();
    let path = target(&["v1", "subnets", "spoke", "workload", "endpoints", STORAGE], &[]);
    let on: EndpointAnswer = served.client.post(&path).unwrap();
    assert_eq!((on.enabled, on.generation), (true, 2));
    let who = format!("uid {} pid {}", rustix::process::geteuid().as_raw(), std::process::id());
    assert_eq!(served.setup.last_change().who, who, "the kernel says who it was");
    let off: EndpointAnswer = served.client.delete(&path).unwrap();
    assert_eq!((off.enabled, off.generation), (false, 3));
}

#[test]
fn an_endpoint_is_asked_about_by_the_same_requests() {
    let served = Served::new();
    *served.setup.stage.flows.lock().unwrap() = vec![flow([20, 60, 1, 10])];
    let path = ["v1", "subnets", "spoke", "workload", "endpoints", STORAGE];
    let dry = target(&path, &[("dry_run", "true")]);
    let asked: Value = served.client.post(&dry).unwrap();
    assert_eq!((&asked["dry_run"], &asked["generation"]), (&true.into(), &1.into()));
    assert_eq!((&asked["flows_reset"], &asked["flows_moved"], &asked["flows_kept"]), (&1.into(), &0.into(), &0.into()));
    assert_eq!(asked["flows_cut"][0]["destination"], "20.60.1.10:443");
    assert_eq!(asked["flows_cut"][0]["ingress"], "vm1");
    assert_eq!(asked["routes"][0]["subnet"], WORKLOAD);
    assert_eq!(served.setup.generation(), 1);

    let mut done: Value = served.client.post(&target(&path, &[("dry_run", "false")])).unwrap();
    assert_eq!((&done["dry_run"], &done["generation"]), (&false.into(), &2.into()));
    done["dry_run"] = true.into();
    done["generation"] = 1.into();
    assert_eq!(asked, done, "both have the same shape");

    let off: EndpointAnswer = served.client.delete(&dry).unwrap();
    assert_eq!((off.enabled, off.changed, off.dry_run, off.generation), (false, true, true, 2));
    assert_eq!(served.refused(served.client.post(&target(&path, &[("dry_run", "maybe")]))).0, 400);
    assert_eq!(served.setup.generation(), 2);
}

#[test]
fn a_document_is_applied_by_put() {
    let served = Served::new();
    let text = format!("{DOCUMENT}{SECOND_NIC}");
    let path = served.setup.path("other.toml");
    let query = [("path", path.to_str().unwrap()), ("dry_run", "true")];
    let dry: DocumentAnswer = served.client.put(&target(&["v1", "document"], &query), text.clone()).unwrap();
    assert_eq!((dry.dry_run, dry.generation), (true, 1));
    let done: DocumentAnswer = served.client.put(&target(&["v1", "document"], &query[..1]), text).unwrap();
    assert_eq!((done.dry_run, done.generation), (false, 2));
    assert_eq!(served.setup.node.status().document, path);
}

#[test]
fn errors_have_their_status_and_a_text() {
    let served = Served::new();
    let client = &served.client;
    let (status, text) = served.refused(client.get("/v1/routes?of=vm9"));
    assert_eq!((status, text.as_str()), (404, "there is no subnet or NIC `vm9`; did you mean `vm1`?"));
    let (status, text) = served.refused(client.get("/v1/routes"));
    assert_eq!(status, 400);
    assert!(text.contains("of"), "{text}");
    assert_eq!(served.refused(client.get("/v1/flows?limit=many")).0, 400);
    assert_eq!(served.refused(client.get("/v2/health")), (404, "there is no /v2/health".to_owned()));
    assert_eq!(served.refused(client.post("/v1/health")), (405, "/v1/health does not take POST".to_owned()));
    assert_eq!(served.refused(client.put("/v1/document?path=relative.toml", DOCUMENT.to_owned())).0, 400);
    assert_eq!(served.refused(client.put("/v1/document", format!("workers = 5\n{DOCUMENT}"))).0, 409);
    let path = target(&["v1", "subnets", "spoke", "none", "endpoints", STORAGE], &[]);
    assert_eq!(served.refused(client.post(&path)).0, 404);

    let broken = DOCUMENT.replace("10.1.1.4", "10.9.1.4");
    let Err(ClientError::Refused { status, answer }) = client.put::<Value>("/v1/document", broken) else {
        panic!("refused")
    };
    assert_eq!((status, answer.mistakes.len(), answer.mistakes[0].line), (422, 1, Some(31)));
    let json = serde_json::to_value(&answer).unwrap();
    let place = &json["mistakes"][0];
    assert!(place["column"].is_u64() && place["message"].is_string(), "{json}");
    assert_eq!(served.setup.generation(), 1);
}

#[test]
fn a_document_that_is_too_large_or_no_text_is_refused() {
    let served = Served::new();
    let head = "PUT /v1/document HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    let answer = served.raw(&format!("{head}Content-Length: {}\r\n\r\n", server::LARGEST_DOCUMENT + 1));
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("the document is larger than 16777216 bytes"), "{answer}");

    let mut stream = UnixStream::connect(&served.path).unwrap();
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).unwrap();
    let chunk = [b"100000\r\n".as_slice(), &vec![b'#'; 1 << 20], b"\r\n"].concat();
    // The node closes as soon as it has seen too much: then writing fails.
    while stream.write_all(&chunk).is_ok() {}
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");

    let mut stream = UnixStream::connect(&served.path).unwrap();
    stream.write_all(format!("{head}Content-Length: 2\r\n\r\n").as_bytes()).unwrap();
    stream.write_all(&[0xff, 0xfe]).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(served.setup.generation(), 1);
}

#[test]
fn slow_clients_keep_nobody_waiting() {
    let served = Served::new();
    let slow: Vec<UnixStream> = (0..100)
        .map(|_| {
            let mut stream = UnixStream::connect(&served.path).unwrap();
            stream.write_all(b"PUT /v1/document HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nlocation").unwrap();
            stream
        })
        .collect();
    let start = Instant::now();
    assert_eq!(served.client.get::<Health>("/v1/health").unwrap().generation, 1);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(served);
    assert!(start.elapsed() < Duration::from_secs(15), "nor does the end wait for them: {:?}", start.elapsed());
    drop(slow);
}

#[test]
fn questions_are_answered_while_a_change_is_made() {
    let served = Served::new();
    *served.setup.stage.slow.lock().unwrap() = Duration::from_millis(500);
    let path = target(&["v1", "subnets", "spoke", "workload", "endpoints", STORAGE], &[]);
    std::thread::scope(|scope| {
        let change = scope.spawn(|| served.client.post::<EndpointAnswer>(&path).unwrap());
        let mut asked = 0;
        while !change.is_finished() {
            served.client.get::<Status>("/v1/status").unwrap();
            asked += 1;
        }
        assert!(asked > 1, "{asked} questions during the change");
    });
}
