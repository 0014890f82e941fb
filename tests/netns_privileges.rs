//! What a running node may still ask of the kernel, as the kernel tells it, and that everything goes on all the same.
//!
//! Needs root, `ip`, `ping` and `setpriv`; says aloud when it cannot run, and fails then if `CI` is `true`.

#[path = "support/namespaces.rs"]
#[allow(dead_code, reason = "shared with tests that use more of it")]
mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{Lab, Process, privileged, run, skipped, wait_for, wait_for_end};
use tempfile::TempDir;

/// How long anything may take on a busy machine that takes milliseconds on an idle one.
const PATIENCE: Duration = Duration::from_secs(20);

const SERVICE: &str = "20.60.1.10";
const WEB: &str = "198.51.100.80";

/// Numbers of capabilities (`include/uapi/linux/capability.h`).
const DAC_READ_SEARCH: u64 = 1 << 2;
const NET_ADMIN: u64 = 1 << 12;
const NET_RAW: u64 = 1 << 13;
const SYS_ADMIN: u64 = 1 << 21;
const FOR_DEVICES: u64 = NET_ADMIN | NET_RAW | SYS_ADMIN;

/// Somebody who is not root.
const NOBODY: u32 = 65534;

/// What the kernel says of one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thread {
    name: String,
    effective: u64,
    permitted: u64,
    inheritable: u64,
    ambient: u64,
    bounding: u64,
    no_new_privileges: bool,
    seccomp: String,
}

impl Thread {
    fn parse(status: &str) -> Self {
        let values: BTreeMap<&str, &str> =
            status.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect();
        let set = |name: &str| u64::from_str_radix(values[name], 16).expect("a mask");
        Self {
            name: values["Name"].to_owned(),
            effective: set("CapEff"),
            permitted: set("CapPrm"),
            inheritable: set("CapInh"),
            ambient: set("CapAmb"),
            bounding: set("CapBnd"),
            no_new_privileges: values["NoNewPrivs"] == "1",
            seccomp: values.get("Seccomp").map_or("0", |mode| mode).to_owned(),
        }
    }

    /// Whether it holds these capabilities and no others, and can gain none. The bounding set is that of the thread that
    /// started it.
    #[track_caller]
    fn holds_only(&self, capabilities: u64, bounding: u64) {
        assert_eq!((self.effective, self.permitted), (capabilities, capabilities), "{self:?}");
        assert_eq!((self.inheritable, self.ambient), (0, 0), "{self:?}");
        assert_eq!(self.bounding, bounding, "{self:?}");
        self.is_closed();
    }

    #[track_caller]
    fn is_closed(&self) {
        assert!(self.no_new_privileges, "{self:?}");
        if fs::read("/proc/sys/kernel/seccomp/actions_avail").is_ok() {
            assert_eq!(self.seccomp, "2", "{self:?}");
        } else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "this kernel has no seccomp");
            skipped("filters of system calls, which this kernel does not have");
        }
    }
}

struct Site {
    node: Option<Process>,
    folder: TempDir,
    lab: Lab,
}

impl Site {
    fn new() -> Self {
        let lab = Lab::new(&["vm1", "vm2", "internet", "data", "wires"]);
        let folder = tempfile::tempdir().expect("a folder");
        run("ip", &["-n", &lab.name("internet"), "address", "add", &format!("{WEB}/32"), "dev", "lo"]);
        let site = Self { node: None, folder, lab };
        site.write("tags.json", &catalogue("20.60.0.0/16"));
        site.write("n.toml", &site.document());
        site
    }

    fn document(&self) -> String {
        let [vm1, internet, data] = ["vm1", "internet", "data"].map(|host| self.lab.name(host));
        format!(
            r#"
location = "westeurope"
tags = "tags.json"
workers = 2

[[virtual_network]]
name = "n"
address_space = ["10.1.0.0/16"]

  [[virtual_network.subnet]]
  name = "s"
  address_prefixes = ["10.1.1.0/24"]

[[nic]]
name = "vm1"
subnet = "n/s"
private_addresses = ["10.1.1.4"]
device = {{ tun = "eth0", netns = "{vm1}", pcap = "vm1.pcapng" }}

[internet]
public_addresses = ["203.0.113.200"]
device = {{ tun = "edge0", netns = "{internet}" }}

[[service]]
name = "data"
service = "Microsoft.Storage"
location = "westeurope"
addresses = ["{SERVICE}"]
device = {{ tun = "eth0", netns = "{data}" }}
"#
        )
    }

    /// One more NIC, with a capture of its own.
    fn second_nic(&self) -> String {
        let vm2 = self.lab.name("vm2");
        format!(
            "\n[[nic]]\nname = \"vm2\"\nsubnet = \"n/s\"\nprivate_addresses = [\"10.1.1.5\"]\n\
             device = {{ tun = \"eth0\", netns = \"{vm2}\", pcap = \"vm2.pcapng\" }}\n"
        )
    }

    /// A gateway on an interface that exists.
    fn gateway(&self) -> String {
        let wires = self.lab.name("wires");
        format!(
            "\n[gateway]\nvirtual_network = \"n\"\nlearned_routes = [\"192.168.0.0/16\"]\n\
             device = {{ ethernet = \"gw0\", netns = \"{wires}\", addresses = [\"192.168.0.1/24\"] }}\n"
        )
    }

    fn write(&self, name: &str, text: &str) {
        // Whole at once: the node looks at it at any time.
        let new = self.file("new");
        fs::write(&new, text).expect("write");
        fs::rename(new, self.file(name)).expect("rename");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env("SIDESTEP_LOG", "info").args(arguments);
        command.env("SIDESTEP_CONTROL", self.file("node.sock"));
        command
    }

    fn try_sidestep(&self, arguments: &[&str]) -> Result<String, String> {
        let Output { status, stdout, stderr } =
            self.command(env!("CARGO_BIN_EXE_sidestep"), arguments).output().expect("run");
        match status.success() {
            true => Ok(String::from_utf8_lossy(&stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&stderr).into_owned()),
        }
    }

    #[track_caller]
    fn sidestep(&self, arguments: &[&str]) -> String {
        self.try_sidestep(arguments).unwrap_or_else(|errors| panic!("{arguments:?}: {errors}{}", self.log()))
    }

    #[track_caller]
    fn start(&mut self, arguments: &[&str]) {
        let command = self.command(env!("CARGO_BIN_EXE_sidestep"), &[&["run", "-c", "n.toml"], arguments].concat());
        self.start_command(command);
    }

    /// Starts a node and waits until it is ready.
    #[track_caller]
    fn start_command(&mut self, mut command: Command) {
        let log = File::options().create(true).append(true).open(self.file("log")).expect("open the log");
        let process = command.stdout(Stdio::piped()).stderr(log).spawn();
        let mut process = Process(process.expect("start sidestep"));
        let mut out = BufReader::new(process.0.stdout.take().expect("a pipe"));
        let mut text = String::new();
        while !text.ends_with("ready\n") {
            assert_ne!(out.read_line(&mut text).expect("read"), 0, "not ready: {text}{}", self.log());
        }
        self.node = Some(process);
    }

    /// Ends the node, which leaves nothing of its socket.
    #[track_caller]
    fn end(&mut self) {
        let mut node = self.node.take().expect("a node");
        kill_process(Pid::from_child(&node.0), Signal::TERM).expect("signal");
        let status = wait_for_end("the node ends", PATIENCE, &mut node.0);
        assert_eq!(status.code(), Some(0), "{}", self.log());
        assert!(!self.file("node.sock").exists() && !self.file("node.sock.lock").exists());
        assert!(!self.log().contains("ERROR"), "{}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.sidestep(&["status", "--json"])).expect("JSON")
    }

    /// Waits until the status is as it should be.
    #[track_caller]
    fn await_status(&self, what: &str, is_so: impl Fn(&Value) -> bool) {
        wait_for(what, PATIENCE, || Some(self.status()).filter(|status| is_so(status)));
    }

    /// The threads of the node.
    fn threads(&self) -> Vec<Thread> {
        let tasks = format!("/proc/{}/task", self.node.as_ref().expect("a node").0.id());
        let tasks = fs::read_dir(tasks).expect("the node's threads");
        // One that has ended meanwhile has no status.
        tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
            .map(|text| Thread::parse(&text))
            .collect()
    }

    /// Checks what every thread holds: workers nothing, who opens devices what that takes, and all others what is said.
    #[track_caller]
    fn check_threads(&self, control: u64) {
        // One that was in a namespace for a device may still be ending.
        let threads = wait_for("nothing is being opened", PATIENCE, || {
            let threads = self.threads();
            threads.iter().all(|thread| !thread.name.starts_with("netns ")).then_some(threads)
        });
        for thread in &threads {
            match thread.name.as_str() {
                "devices" => thread.holds_only(FOR_DEVICES, FOR_DEVICES),
                name if name.starts_with("worker-") => thread.holds_only(0, control),
                _ => thread.holds_only(control, control),
            }
        }
        let count = |name: &str| threads.iter().filter(|thread| thread.name.starts_with(name)).count();
        assert_eq!((count("worker-"), count("devices")), (2, 1), "{threads:#?}");
        assert!(threads.len() > 5, "main and the runtime, too: {threads:#?}");
    }

    fn packets_captured(&self, name: &str) -> bool {
        // The headers take less.
        fs::metadata(self.file(name)).is_ok_and(|file| file.len() > 500)
    }
}

fn catalogue(prefix: &str) -> String {
    format!(
        r#"{{ "changeNumber": 1, "cloud": "Public", "values": [ {{ "name": "Storage", "id": "Storage",
           "properties": {{ "changeNumber": 1, "region": "", "regionId": 0, "platform": "Azure",
           "systemService": "AzureStorage", "addressPrefixes": ["{prefix}"],
           "networkFeatures": ["UDR", "VSE"] }} }} ] }}"#
    )
}

#[test]
fn threads_hold_what_they_need_and_everything_goes_on() {
    if !privileged() {
        return;
    }
    let mut site = Site::new();
    for state in ["first", "second"] {
        site.start(&["--state", "state"]);
        site.check_threads(0);
        let privileges = &site.status()["privileges"];
        let devices = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"];
        let expected = json!({ "devices": devices, "control": [], "workers": [], "no_new_privileges": true,
            "system_calls_filtered": true });
        assert_eq!(*privileges, expected, "{state}");
        assert!(!site.log().contains("is kept") && !site.log().contains("filtered"), "{}", site.log());
        if state == "second" {
            assert!(site.status()["state"]["restored"]["flows"].as_u64() > Some(0), "{}", site.log());
        }

        // Packets, captured, and an endpoint.
        site.lab.ping("vm1", WEB);
        site.sidestep(&["endpoint", "enable", "n/s", "Microsoft.Storage"]);
        site.lab.ping("vm1", SERVICE);
        assert!(site.sidestep(&["flows"]).contains("VirtualNetworkServiceEndpoint"));
        wait_for("the capture is written", PATIENCE, || site.packets_captured("vm1.pcapng").then_some(()));

        // Devices in namespaces, of either kind, and changes of one that is open.
        let wires = site.lab.name("wires");
        if state == "first" {
            let peer = ["link", "add", "gw0", "type", "veth", "peer", "name", "wan0"];
            run("ip", &[&["-n", &wires], &peer[..]].concat());
            run("ip", &["-n", &wires, "link", "set", "wan0", "up"]);
        }
        let first = site.document();
        let moved = first.replace("\"10.1.1.4\"", "\"10.1.1.9\"");
        site.write("n.toml", &(moved + &site.second_nic() + &site.gateway()));
        site.sidestep(&["apply", "-c", "n.toml"]);
        site.lab.ping("vm2", "10.1.1.9");
        site.lab.ping("vm2", WEB);
        wait_for("the later capture is written", PATIENCE, || site.packets_captured("vm2.pcapng").then_some(()));
        site.write("n.toml", &first);
        site.sidestep(&["apply", "-c", "n.toml"]);
        let left = run("ip", &["-n", &site.lab.name("vm2"), "-o", "link"]);
        assert!(!left.contains("eth0"), "a worker takes the device away: {left}");

        // The catalogue's file.
        site.write("tags.json", "broken");
        site.await_status("a broken catalogue is refused", |status| status["catalogue"]["refused"].is_string());
        site.write("tags.json", &catalogue("20.60.0.0/15"));
        site.await_status("a good one is taken", |status| status["catalogue"]["refused"].is_null());
        site.lab.ping("vm1", WEB);

        // Threads that have come since are no different.
        site.check_threads(0);
        site.end();
        let mode = fs::metadata(site.file("state")).expect("the state file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let text = "devices: CAP_NET_ADMIN CAP_NET_RAW CAP_SYS_ADMIN; control: none; workers: none";
    site.start(&["--state", "state"]);
    assert!(site.sidestep(&["status"]).contains(text));
    site.end();
}

#[test]
fn a_node_that_drops_everything_opens_no_more_devices() {
    if !privileged() {
        return;
    }
    let mut site = Site::new();
    site.start(&["--drop-all-privileges", "--state", "state"]);
    wait_for("the thread that opened devices is gone", PATIENCE, || {
        let of_devices = |thread: &Thread| thread.name == "devices" || thread.name.starts_with("netns ");
        (!site.threads().iter().any(of_devices)).then_some(())
    });
    for thread in site.threads() {
        thread.holds_only(0, 0);
    }
    assert_eq!(site.status()["privileges"]["devices"], json!([]));
    let first = site.document();
    for more in [site.second_nic(), String::new()] {
        let document = if more.is_empty() { first.replace("10.1.1.4", "10.1.1.9") } else { first.clone() + &more };
        site.write("n.toml", &document);
        let errors = site.try_sidestep(&["apply", "-c", "n.toml"]).expect_err("a device");
        assert!(errors.contains("the node has dropped all privileges (--drop-all-privileges)"), "{errors}");
        assert_eq!(site.status()["generation"], 1);
    }
    // What needs no device still can be changed.
    site.write("n.toml", &first.replace("[internet]", "[[route_table]]\nname = \"r\"\nroutes = []\n\n[internet]"));
    site.sidestep(&["apply", "-c", "n.toml"]);
    site.sidestep(&["endpoint", "enable", "n/s", "Microsoft.Storage"]);
    site.lab.ping("vm1", SERVICE);
    site.end();
    assert!(site.file("state").exists());
}

/// Root without the right to pass over permissions is an ordinary user to files of others.
#[test]
fn files_of_others_can_still_be_used() {
    if !privileged() {
        return;
    }
    let mut site = Site::new();
    let folder = site.file("theirs");
    fs::create_dir(&folder).expect("a folder");
    chown(&folder, Some(NOBODY), Some(NOBODY)).expect("chown");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("chmod");
    site.write("theirs/tags.json", &catalogue("20.60.0.0/16"));
    site.start(&["--tags", "theirs/tags.json"]);
    site.check_threads(DAC_READ_SEARCH);
    let log = site.log();
    let warning = log.lines().find(|line| line.contains("WARN")).unwrap_or_default();
    assert!(warning.contains("CAP_DAC_READ_SEARCH is kept: the file belongs to somebody else"), "{log}");
    assert!(warning.contains("theirs/tags.json"), "{log}");
    site.write("theirs/tags.json", &catalogue("20.60.0.0/15"));
    site.await_status("the catalogue is taken", |status| status["generation"] == 2);
    site.end();

    for arguments in [["--tags", "theirs/tags.json"], ["--state", "theirs/state"]] {
        let errors = site
            .try_sidestep(&[&["run", "-c", "n.toml", "--drop-all-privileges"], &arguments[..]].concat())
            .expect_err("a file that could not be used");
        assert!(errors.contains("cannot drop all privileges: "), "{errors}");
        assert!(errors.contains(arguments[1]), "{errors}");
    }
    site.start(&["--state", "theirs/state"]);
    site.lab.ping("vm1", WEB);
    site.end();
    assert!(site.file("theirs/state").exists(), "{}", site.log());
}

/// A node that is not root, in a namespace of its own, with the one capability that it needs there.
#[test]
fn one_capability_is_enough_for_an_ordinary_user() {
    if !privileged() {
        return;
    }
    let mut site = Site::new();
    // Of two default routes in one namespace the second would be refused.
    let document = site.document().split("[[service]]").next().map(str::to_owned).expect("what comes before");
    let own = ["vm1", "internet"].map(|host| format!(", netns = \"{}\"", site.lab.name(host)));
    site.write("n.toml", &own.iter().fold(document, |document, netns| document.replace(netns, "")));
    chown(site.folder.path(), Some(NOBODY), Some(NOBODY)).expect("chown");
    let wires = site.lab.name("wires");
    // The driver of the machine may be for root only. What is mounted here nobody else sees.
    run("mknod", &["-m", "666", &site.file("tun").to_string_lossy(), "c", "10", "200"]);
    let caps = "--inh-caps=-all,+net_admin --ambient-caps=-all,+net_admin";
    // The program's folder may be closed to the user; the program is open.
    let script = format!(
        "mount --bind tun /dev/net/tun && exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {caps} \
         /proc/self/fd/0 run -c n.toml --state state"
    );
    let mut command = site.command("ip", &["netns", "exec", &wires, "sh", "-c", &script]);
    command.stdin(File::open(env!("CARGO_BIN_EXE_sidestep")).expect("the program"));
    site.start_command(command);
    for thread in site.threads() {
        let expected = if thread.name == "devices" { NET_ADMIN } else { 0 };
        assert_eq!((thread.effective, thread.permitted), (expected, expected), "{thread:?}");
        assert_eq!((thread.inheritable, thread.ambient), (0, 0), "{thread:?}");
        thread.is_closed();
    }
    // A change of a device, which takes the capability.
    let moved = fs::read_to_string(site.file("n.toml")).expect("the document").replace("10.1.1.4", "10.1.1.9");
    site.write("n.toml", &moved);
    site.sidestep(&["apply", "-c", "n.toml"]);
    assert!(run("ip", &["-n", &wires, "-4", "-o", "address", "show", "eth0"]).contains("10.1.1.9/24"));
    site.end();
    assert!(site.file("state").exists());
}
