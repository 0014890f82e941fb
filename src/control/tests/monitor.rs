//! Metrics and health: what is told to who asks over HTTP.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::*;
use crate::control::monitor;

/// A node whose metrics are told, until the runtime ends.
struct Watched {
    setup: Setup,
    address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

impl Watched {
    fn new() -> Self {
        let setup = Setup::new();
        let listener = monitor::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(monitor::serve(setup.node.clone(), listener));
        Self { setup, address, _runtime: runtime }
    }

    /// Sends a request and returns the whole answer.
    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn metrics_are_those_of_the_node() {
    let watched = Watched::new();
    let answer = watched.ask("GET /metrics");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    for row in ["sidestep_snapshot_generation 1.0", "sidestep_ready 1.0", "sidestep_flows{worker=\"0\"} 0.0"] {
        assert!(answer.lines().any(|line| line == row), "no {row} in {answer}");
    }
    assert!(answer.contains("sidestep_port_offload{port=\"vm1\",worker=\"0\",feature=\"tcp4\"} 0.0\n"), "{answer}");

    let name = &watched.setup.node.ports()[0].name;
    let refused =
        format!("sidestep_port_errors_total{{port=\"{name}\",worker=\"0\",operation=\"write\",errno=\"EIO\"}} 3\n");
    assert!(answer.contains(&refused), "{answer}");
    let pool = "sidestep_snat_pool_flows{pool=\"default outbound access\",kind=\"default_outbound\",family=\"ipv4\",protocol=\"udp\"}";
    assert!(answer.contains(&format!("\n{pool} 4.0\n")), "{answer}");

    watched.setup.node.set_endpoint("test", WORKLOAD, STORAGE, true).unwrap();
    let answer = watched.ask("GET /metrics");
    assert!(answer.lines().any(|line| line == "sidestep_snapshot_generation 2.0"), "{answer}");
}

/// Health says that somebody answers, readiness that packets are forwarded.
#[test]
fn a_node_without_one_of_its_devices_is_healthy_and_not_ready() {
    let watched = Watched::new();
    assert!(watched.ask("GET /ready").ends_with("\r\n\r\nready\n"));
    watched.setup.stage.serving.lock().unwrap().remove(0);
    let answer = watched.ask("GET /ready");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let name = &watched.setup.node.ports()[0].name;
    assert!(answer.ends_with(&format!("not ready: no device at {name}\n")), "{answer}");
    assert!(watched.ask("GET /metrics").contains("\nsidestep_ready 0.0\n"));
    assert!(watched.ask("GET /health").ends_with("\r\n\r\nok\n"));
}

#[test]
fn a_node_that_drains_is_healthy_and_not_ready() {
    let watched = Watched::new();
    watched.setup.node.drain("test", true);
    let answer = watched.ask("GET /ready");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("not ready: draining, no new flows are taken\n"), "{answer}");
    assert!(watched.ask("GET /health").ends_with("\r\n\r\nok\n"));
    watched.setup.node.drain("test", false);
    assert!(watched.ask("GET /ready").ends_with("\r\n\r\nready\n"));
}

#[test]
fn nothing_else_is_there_and_nothing_can_be_changed() {
    let watched = Watched::new();
    let answer = watched.ask("GET /v1/status");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.ends_with("there is no /v1/status; there are /metrics, /health and /ready\n"), "{answer}");
    for method in ["PUT", "POST", "DELETE"] {
        let answer = watched.ask(&format!("{method} /metrics"));
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }
}

#[test]
fn an_address_in_use_is_told_with_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = monitor::listen(address).unwrap_err().to_string();
    let wanted = format!("cannot listen on {address} for metrics; choose another one with --metrics ADDRESS:PORT");
    assert_eq!(error, wanted);
}

/// As many connections as there may be, which say nothing, hold up the next one only until their time is over; the control side
/// goes on.
#[test]
fn who_connects_and_says_nothing_is_shown_the_door() {
    let watched = Watched::new();
    let mut silent: Vec<TcpStream> = (0..16).map(|_| TcpStream::connect(watched.address).unwrap()).collect();
    assert!(watched.ask("GET /ready").ends_with("\r\n\r\nready\n"), "it waited for a place");
    for stream in &mut silent {
        // Told that it was too slow, or nothing; in either case it is over.
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
}
