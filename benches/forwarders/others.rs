//! Forwarders of others, for comparison: DPDK's `dpdk-testpmd` and the userspace datapath of Open vSwitch, each where it is
//! installed.
//!
//! They run only while they are measured, by themselves at the end of a round: DPDK looks for packets without a pause and
//! takes a processor from everything else. They pass frames on between two hosts of one subnet and neither route nor
//! filter, which is less than a node does. Processes, their files and their namespaces are their own and go with them; a
//! service of the system that runs the same programs is left alone.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::sites::Site;
use crate::support::{Lab, Process, run, wait_for};

/// How long a program may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

/// The address of `right`; that of `left` lies in the same subnet.
const RIGHT: &str = "10.9.1.2";
const ENDS: [(&str, &str); 2] = [("left", "10.9.1.1/24"), ("right", "10.9.1.2/24")];

/// A forwarder that is installed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Other {
    pub(crate) name: &'static str,
    start: fn(&'static str) -> Running,
}

impl Other {
    /// Starts it and waits until packets pass.
    pub(crate) fn start(&self) -> Running {
        let running = (self.start)(self.name);
        wait_for(self.name, PATIENCE, || {
            let ping = running.site.lab.command("left", &["ping", "-c", "1", "-W", "1", RIGHT]).output();
            ping.is_ok_and(|ping| ping.status.success()).then_some(())
        });
        running
    }
}

/// A forwarder that runs, and what it needs as long.
pub(crate) struct Running {
    pub(crate) site: Site,
    _database: Option<Process>,
    _folder: TempDir,
}

/// Those that are installed; says which are not.
pub(crate) fn installed() -> Vec<Other> {
    let all: [(&str, &[&str], Other); 2] = [
        ("DPDK's dpdk-testpmd", &["dpdk-testpmd"], Other { name: "dpdk", start: dpdk }),
        (
            "Open vSwitch",
            &["ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl"],
            Other { name: "ovs", start: ovs },
        ),
    ];
    let found = all.into_iter().filter(|(title, programs, _)| {
        let here = programs.iter().all(|program| is_installed(program));
        if !here {
            println!("{title} is not installed: its row is left out");
        }
        here
    });
    found.map(|(_, _, other)| other).collect()
}

/// Whether a program is where programs are looked for.
fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()))
}

/// `dpdk-testpmd` between two TAP devices, with one core that forwards. The devices of its driver offer the hosts no
/// offload: the kernel cuts and sums up before a frame is read.
fn dpdk(name: &'static str) -> Running {
    let lab = Lab::new(&["left", "right", "switch"]);
    let folder = tempfile::tempdir().expect("a folder");
    let devices = ENDS.map(|(host, _)| format!("{host}{}", std::process::id()));
    let [left, right] = [0, 1].map(|number| format!("--vdev=net_tap{number},iface={}", devices[number]));
    let prefix = format!("--file-prefix={}", lab.name("switch"));
    let said = folder.path().join("said");
    // Line by line, or what it says would stay in its buffer.
    let program = ["stdbuf", "-oL", "dpdk-testpmd", "-l", "0,1", "--no-huge", "-m", "512", "--no-pci", "--no-shconf"];
    let own = ["--no-telemetry", &prefix, &left, &right];
    let forwarding = ["--", "--forward-mode=io", "--auto-start", "--nb-cores=1", "--total-num-mbufs=16384"];
    let mut command = lab.command("switch", &[&program[..], &own, &forwarding].concat());
    // It ends when its input does, so not even a benchmark that is killed leaves it behind.
    command.env("RUNTIME_DIRECTORY", folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(File::create(&said).expect("create"));
    let mut process = Process(command.spawn().expect("start dpdk-testpmd"));
    let out = BufReader::new(process.0.stdout.take().expect("a pipe"));
    let starts = out.lines().map_while(Result::ok).any(|line| line.contains("Press enter to exit"));
    assert!(starts, "dpdk-testpmd ends: {}", fs::read_to_string(said).unwrap_or_default());

    for ((host, address), device) in ENDS.into_iter().zip(&devices) {
        let (switch, host) = (lab.name("switch"), lab.name(host));
        run("ip", &["-n", &switch, "link", "set", device, "netns", &host, "name", "eth0"]);
        attach(&host, address);
    }
    Running { site: Site::of_others(name, lab, RIGHT, process), _database: None, _folder: folder }
}

/// A bridge of Open vSwitch with the datapath in userspace, between two veth pairs. Their offloads are as they are: so that
/// it takes super-packets and unfinished checksums, segmentation offload is switched on in Open vSwitch too. Without it TCP
/// passes only when the hosts send finished checksums, and then at about a tenth of the rate.
fn ovs(name: &'static str) -> Running {
    let lab = Lab::new(&["left", "right", "switch"]);
    let folder = tempfile::tempdir().expect("a folder");
    let switch = lab.name("switch");
    for ((host, address), inside) in ENDS.into_iter().zip(["veth1", "veth2"]) {
        let host = lab.name(host);
        run("ip", &["-n", &switch, "link", "add", inside, "type", "veth", "peer", "name", "eth0", "netns", &host]);
        run("ip", &["-n", &switch, "link", "set", inside, "up"]);
        attach(&host, address);
    }

    let path = |file: &str| folder.path().join(file).display().to_string();
    let (data, socket) = (path("conf.db"), path("db.sock"));
    let start = |command: &[&str]| {
        let quiet = ["-vconsole:err", "-vsyslog:off"];
        let mut command = lab.command("switch", &[command, &quiet].concat());
        Process(in_folder(&mut command, folder.path()).spawn().expect("start Open vSwitch"))
    };
    let server = format!("unix:{socket}");
    let configure = |command: &str| {
        let mut program = Command::new("ovs-vsctl");
        program.args(["--timeout=20", "--db", &server]).args(command.split(' '));
        let output = in_folder(&mut program, folder.path()).output().expect("start ovs-vsctl");
        assert!(output.status.success(), "ovs-vsctl {command}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run("ovsdb-tool", &["create", &data]);
    let pid_file = |file: &str| format!("--pidfile={}", path(file));
    let control = |file: &str| format!("--unixctl={}", path(file));
    let remote = format!("--remote=punix:{socket}");
    let database = start(&["ovsdb-server", &data, &remote, &pid_file("db.pid"), &control("db.ctl")]);
    wait_for("ovsdb-server listens", PATIENCE, || Path::new(&socket).exists().then_some(()));
    configure("--no-wait init -- set Open_vSwitch . other_config:userspace-tso-enable=true");
    let process = start(&["ovs-vswitchd", &server, &pid_file("switch.pid"), &control("switch.ctl")]);
    configure("add-br br0 -- set bridge br0 datapath_type=netdev -- add-port br0 veth1 -- add-port br0 veth2");
    Running { site: Site::of_others(name, lab, RIGHT, process), _database: Some(database), _folder: folder }
}

/// Lets a program of Open vSwitch have its files in a folder of the benchmark's.
fn in_folder<'a>(command: &'a mut Command, folder: &Path) -> &'a mut Command {
    ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"].iter().fold(command, |command, name| command.env(name, folder))
}

/// Gives a host's device its address.
fn attach(host: &str, address: &str) {
    run("ip", &["-n", host, "address", "add", address, "dev", "eth0"]);
    run("ip", &["-n", host, "link", "set", "eth0", "up"]);
}
