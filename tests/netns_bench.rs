//! What a node is measured against passes packets on, and nothing else.

#[path = "support/namespaces.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sidestep::port::namespace;
use support::{Lab, Process, privileged, run, wait_for_end};

/// Bytes that are sent through it.
const BYTES: usize = 8 << 20;

/// Sends them from one host to the other; how many packets the loop had to pass on for it.
fn packets(io: &str) -> u64 {
    let lab = Lab::new(&["left", "right"]);
    let (left, right) = (lab.name("left"), lab.name("right"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
    command.args(["bench", "null", "--io", io]);
    command.args([format!("{left}/eth0=10.9.1.1/24"), format!("{right}/eth0=10.9.2.1/24")]);
    let mut process = Process(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start sidestep"));
    let mut out = BufReader::new(process.0.stdout.take().expect("a pipe"));
    let mut told = String::new();
    while out.read_line(&mut told).expect("read") > 0 && !told.ends_with("ready\n") {}
    assert!(told.contains(&format!("{left} at 10.9.1.1/24: tun eth0, {io}")), "{told}");

    run("ip", &["netns", "exec", &left, "ping", "-c", "3", "-i", "0.01", "-W", "2", "10.9.2.1"]);
    let listener = namespace::run(Some(&right), || TcpListener::bind("10.9.2.1:5001")).unwrap().unwrap();
    let server = thread::spawn(move || {
        let mut got = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
        got
    });
    let mut client = namespace::run(Some(&left), || TcpStream::connect("10.9.2.1:5001")).unwrap().unwrap();
    let sent: Vec<u8> = (0..BYTES).map(|number| (number % 251) as u8).collect();
    client.write_all(&sent).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(server.join().unwrap() == sent, "other bytes arrived");

    kill_process(Pid::from_child(&process.0), Signal::TERM).expect("signal");
    let status = wait_for_end("the loop ends", Duration::from_secs(10), &mut process.0);
    let mut said = String::new();
    process.0.stderr.take().expect("a pipe").read_to_string(&mut said).expect("read");
    assert!(status.success(), "{said}");
    let count = said.split("passed on ").nth(1).and_then(|rest| rest.split(' ').next()).expect("what it did");
    count.parse().expect("a number")
}

#[test]
fn the_loop_passes_packets_on_whole() {
    if !privileged() {
        return;
    }
    let plain = packets("plain");
    assert!(plain > (BYTES / 1_500) as u64, "{plain} packets");
    // Super-packets of up to 64 KiB: sixteen packets of 1,500 in one are the least that this has to come to.
    let offload = packets("offload");
    assert!(offload * 4 < plain, "{offload} packets where there were {plain}");
}
