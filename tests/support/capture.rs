//! Captures, and a second opinion about every checksum in them: Wireshark's.

#![allow(dead_code, reason = "every test binary has a copy and uses a part of it")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::node::{Node, PATIENCE};
use crate::support::{Process, wait_for_end};

/// A running `tcpdump` of what a host receives.
pub(crate) struct Capture {
    process: Process,
    path: PathBuf,
}

impl Capture {
    /// Starts it on an interface, and waits until it captures.
    #[track_caller]
    pub(crate) fn start(node: &Node, host: &str, interface: &str) -> Self {
        let path = node.site.file(&format!("{host}.pcap"));
        let file = File::create(&path).expect("make the capture");
        // To stdout: where tcpdump may write files is not this test's matter.
        let arguments = ["tcpdump", "-n", "-U", "-Q", "in", "-B", "16384", "-i", interface, "-w", "-"];
        let mut command = node.site.lab.command(host, &arguments);
        let mut process = Process(command.stdout(file).stderr(Stdio::piped()).spawn().expect("start tcpdump"));
        let mut lines = BufReader::new(process.0.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("listening on")), "tcpdump does not start");
        // Somebody has to read on, or it ends at a closed pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, path }
    }

    /// Ends it and gives the file.
    #[track_caller]
    pub(crate) fn stop(mut self) -> PathBuf {
        kill_process(Pid::from_child(&self.process.0), Signal::INT).expect("signal");
        wait_for_end("tcpdump ends", PATIENCE, &mut self.process.0);
        self.path
    }
}

/// Whole packets of a capture that pass a filter of `tcpdump`: when each was captured, in seconds since 1970, and its line.
#[track_caller]
pub(crate) fn packets(capture: &Path, filter: &str) -> Vec<(f64, String)> {
    let output = Command::new("tcpdump").args(["-n", "-tt", "-r"]).arg(capture).arg(filter).output();
    let output = output.expect("run tcpdump");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let line = |line: &str| Some((line.split_once(' ')?.0.parse().ok()?, line.to_owned()));
    String::from_utf8_lossy(&output.stdout).lines().filter_map(line).collect()
}

/// The protocols with checksums of the internet's kind.
const PROTOCOLS: [&str; 5] = ["ip", "tcp", "udp", "icmp", "icmpv6"];

/// Checks every checksum of a capture and gives how many good ones there are of each protocol. What ICMP errors quote
/// counts where the quote is long enough; but with `offload` their TCP and UDP checksums do not, since a kernel quotes a
/// packet as it has it, before a device would have finished it.
///
/// A TCP checksum of 0xffff that RFC 1624 section 3 wants as 0 is good: Linux writes it where it finishes a checksum without
/// a device's help (one packet in 65,536), and a node passes on what it need not change. That a node itself writes the 0
/// is a test of the packet library.
#[track_caller]
pub(crate) fn checksums(capture: &Path, offload: bool) -> BTreeMap<&'static str, usize> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(capture).args(["-T", "fields", "-E", "separator=;"]);
    for checked in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{checked}.check_checksum:TRUE")]);
    }
    for protocol in PROTOCOLS {
        command.args(["-e", &format!("{protocol}.checksum.status")]);
    }
    command.args(["-e", "tcp.checksum.ffff", "-e", "frame.number", "-e", "_ws.col.Info"]);
    let output = command.output().expect("run tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut good = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let fields: Vec<&str> = line.split(';').collect();
        let ones = fields.get(PROTOCOLS.len()).is_some_and(|field| !field.is_empty());
        let quotes = fields.iter().skip(3).take(2).any(|field| !field.is_empty());
        for (protocol, field) in PROTOCOLS.into_iter().zip(fields) {
            if offload && quotes && matches!(protocol, "tcp" | "udp") {
                continue;
            }
            for status in field.split(',').filter(|status| !status.is_empty()) {
                match status {
                    "1" | "Good" => *good.entry(protocol).or_default() += 1,
                    // Part of a packet, or none: nothing to check.
                    "2" | "3" | "Unverified" | "Not present" => {}
                    "0" | "Bad" if protocol == "tcp" && ones => {}
                    _ => panic!("a bad checksum of {protocol} in {}: {line}", capture.display()),
                }
            }
        }
    }
    good
}
