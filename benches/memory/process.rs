//! What a node's process keeps in memory: `sidestep run` with the whole catalogue and fifty subnets of nine endpoints, each
//! with a NIC on a TUN device, one worker and no flows.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::Measure;
use crate::endpoints::{SUBNETS, document};
use crate::report::{Report, Wanted};
use crate::support::{Lab, Process as Child, privileged};
use crate::tags::{document_of_nine, weekly_file};

/// A network over namespaces, run in every round.
pub(crate) struct Process {
    folder: tempfile::TempDir,
    _lab: Lab,
}

impl Process {
    /// Writes the network; none where there may be no devices, which is said.
    pub(crate) fn new(report: &mut Report) -> Option<Self> {
        report.row("resident_mib", "resident memory of that node, ready, MiB", Wanted::AtMost(64.0));
        report.row("resident_peak_mib", "the most that it ever was, MiB", Wanted::Anything);
        if !privileged() {
            return None;
        }
        let hosts: Vec<String> = (0..SUBNETS).map(|number| format!("n{number}")).collect();
        let lab = Lab::new(&hosts.iter().map(String::as_str).collect::<Vec<_>>());
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = weekly_file();
        if !file.exists() {
            file = folder.path().join("service-tags.json");
            fs::write(&file, document_of_nine().to_string()).expect("write");
        }
        let file = file.canonicalize().expect("the tags are there");
        let document = document(&file, true, Some(&|nic| lab.name(nic)));
        fs::write(folder.path().join("n.toml"), document).expect("write");
        Some(Self { folder, _lab: lab })
    }
}

/// A figure of a process that the kernel keeps, in MiB: `VmRSS` now, `VmHWM` at its most.
fn memory(process: &Child, name: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.0.id())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse::<f64>().ok());
    kib.expect("a number of kB") / 1024.0
}

impl Measure for Process {
    fn round(&mut self, report: &mut Report) {
        let path = |file: &str| self.folder.path().join(file);
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
        command.args(["run", "-c"]).arg(path("n.toml")).arg("--control").arg(path("node.sock"));
        let mut process =
            Child(command.env("SIDESTEP_LOG", "warn").stdout(Stdio::piped()).spawn().expect("start sidestep"));
        let out = BufReader::new(process.0.stdout.take().expect("a pipe"));
        assert!(out.lines().map_while(Result::ok).any(|line| line == "ready"), "sidestep ends");
        report.note("resident_mib", memory(&process, "VmRSS"));
        report.note("resident_peak_mib", memory(&process, "VmHWM"));
    }
}
