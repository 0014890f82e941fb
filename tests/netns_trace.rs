//! `sidestep trace` and `sidestep capture` on a node between real kernels: the path of a ping before and after the switch,
//! reasons of drops, what Wireshark and tcpdump read of a capture, and every way to end.
//!
//! Needs root, /dev/net/tun and the tools; says aloud when it cannot run, and fails then if `CI` is `true`.

#[path = "support/lab.rs"]
mod support;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{DEMO, Lab, PRIVATE, SERVICE, privileged_with};

const PATIENCE: Duration = Duration::from_secs(20);

fn privileged() -> bool {
    privileged_with(&["tshark", "tcpdump", "capinfos"])
}

/// A node on the demo's network.
fn node(test: &str) -> Lab {
    let mut lab = Lab::up(test, DEMO);
    lab.start_node(&[]);
    lab
}

fn switch(lab: &Lab, what: &str) {
    lab.run(&["endpoint", what, "spoke/workload", "Microsoft.Storage"]);
}

/// A command that goes on, and the lines of its stdout and stderr.
struct Running {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Running {
    fn start(lab: &Lab, arguments: &[&str]) -> Self {
        let mut command = lab.command(arguments);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
        let (out, err) = (lines(child.stdout.take().expect("out")), lines(child.stderr.take().expect("err")));
        Self { child, out, err }
    }

    /// A trace that has begun, as JSON.
    #[track_caller]
    fn trace(lab: &Lab, arguments: &[&str]) -> Self {
        let running = Self::start(lab, &[&["trace", "--json"], arguments].concat());
        let begun = running.json();
        assert!(begun["begun"]["generation"].is_u64(), "{begun}");
        running
    }

    /// A capture that has begun.
    #[track_caller]
    fn capture(lab: &Lab, arguments: &[&str]) -> Self {
        let running = Self::start(lab, &[&["capture"], arguments].concat());
        assert_eq!(running.said(), "capturing; Ctrl-C ends");
        running
    }

    #[track_caller]
    fn json(&self) -> Value {
        let line = self
            .out
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|_| panic!("a line: {:?}", self.err.try_iter().collect::<Vec<_>>()));
        serde_json::from_str(&line).expect("JSON")
    }

    #[track_caller]
    fn packet(&self) -> Value {
        let line = self.json();
        assert!(line["packet"].is_object(), "{line}");
        line["packet"].clone()
    }

    #[track_caller]
    fn said(&self) -> String {
        self.err.recv_timeout(PATIENCE).expect("a line on stderr")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("signal");
    }

    /// Waits for its end and gives the exit code.
    #[track_caller]
    fn code(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code();
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn output(lab: &Lab, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = lab.command(arguments).output().expect("run");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr).into_owned())
}

/// All that one stage said.
fn stage(packet: &Value, name: &str) -> String {
    let stages = packet["stages"].as_array().expect("stages").iter();
    stages.filter(|stage| stage["stage"] == name).map(Value::to_string).collect()
}

/// Fields of every packet, as tshark shows them.
#[track_caller]
fn fields(file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-r"]).arg(file).args(["-T", "fields", "-E", "separator=|"]);
    fields.iter().for_each(|field| _ = command.args(["-e", field]));
    let output = command.output().expect("tshark");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

/// The switch shows in the trace of the very next packet, in both families.
#[test]
fn a_trace_shows_the_path_before_and_after_the_switch() {
    if !privileged() {
        return;
    }
    let lab = node("trace-switch");
    for (service, private) in SERVICE.into_iter().zip(PRIVATE) {
        let mut trace =
            Running::trace(&lab, &["--from", "vm1", "--to", service, "--protocol", "icmp", "--both", "-n", "4"]);
        lab.exec("vm1", &format!("ping -c 1 -W 5 {service}"));
        let [request, reply] = [trace.packet(), trace.packet()];
        assert_eq!(request["verdict"]["port"], "gateway", "{request}");
        assert!(stage(&request, "next hop").contains("VirtualNetworkGateway through gateway"), "{request}");
        assert_eq!((&reply["ingress"], &reply["verdict"]["port"]), (&"gateway".into(), &"vm1".into()), "{reply}");
        assert!(stage(&reply, "flow").contains("hit: reply, query"), "{reply}");
        switch(&lab, "enable");
        lab.exec("vm1", &format!("ping -c 1 -W 5 {service}"));
        let [request, reply] = [trace.packet(), trace.packet()];
        assert_eq!(request["verdict"]["port"], "contosodata", "{request}");
        assert_eq!(request["packet"]["source"], private);
        assert!(stage(&request, "route").contains("Microsoft.Storage"), "{request}");
        assert!(stage(&request, "install").contains("flow made, query"), "{request}");
        assert_eq!(reply["ingress"], "contosodata", "{reply}");
        assert!(stage(&reply, "flow").contains("VirtualNetworkServiceEndpoint"), "{reply}");
        let end = trace.json();
        assert_eq!((&end["end"]["why"], &end["end"]["packets"]), (&"count".into(), &4.into()), "{end}");
        assert_eq!(trace.code(), Some(0));
        switch(&lab, "disable");
    }
}

/// An open connection is closed at the switch, and what still comes of it says why.
#[test]
fn a_trace_in_words_names_reasons() {
    if !privileged() {
        return;
    }
    let lab = node("trace-words");
    let mut trace = Running::start(&lab, &["trace", "--from", "vm1", "-n", "2"]);
    assert!(trace.said().starts_with("tracing under generation 1"));
    let _unreachable = lab.output("vm1", "ping -c 1 -W 1 10.1.1.200");
    let _expired = lab.output("vm1", &format!("ping -c 1 -W 2 -t 1 {}", SERVICE[0]));
    assert_eq!(trace.code(), Some(0));
    let text: Vec<String> = trace.out.iter().collect();
    let text = text.join("\n");
    assert!(text.contains("icmp 10.1.1.4 -> 10.1.1.200 echo request"), "{text}");
    assert!(text.contains("  verdict: dropped, address_unassigned: Inside the virtual network"), "{text}");
    assert!(text.contains("  verdict: answered, time_exceeded: The hop limit ended here"), "{text}");
    assert!(text.contains("  left by vm1: icmp 10.1.1.1 -> 10.1.1.4 error"), "{text}");
    assert_eq!(trace.said(), "2 packets; as many as asked for");
}

#[test]
fn a_trace_ends_in_every_way_with_its_exit_code() {
    if !privileged() {
        return;
    }
    let mut lab = node("trace-ends");
    let none = output(&lab, &["trace", "--from", "10.1.1.77", "--timeout", "1"]);
    assert_eq!((none.0, none.1.as_str()), (Some(0), ""));
    assert!(none.2.contains("0 packets; the time was over; nothing matched"), "{}", none.2);
    for signal in [Signal::INT, Signal::TERM] {
        let mut trace = Running::trace(&lab, &["--from", "10.1.1.77"]);
        trace.signal(signal);
        assert_eq!(trace.json()["end"]["why"], "asked");
        assert_eq!(trace.code(), Some(0), "{signal:?}");
    }
    // As many as may be; those of clients that go away make room.
    let mut many: Vec<Running> =
        (0..8).map(|_| Running::trace(&lab, &["--from", "10.1.1.77", "--timeout", "600"])).collect();
    let (code, _, said) = output(&lab, &["trace", "--timeout", "1"]);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("error: 8 traces and captures run, as many as may be"), "{said}");
    many.pop().expect("one").signal(Signal::KILL);
    let until = Instant::now() + PATIENCE;
    while output(&lab, &["trace", "--from", "10.1.1.77", "--timeout", "1"]).0 != Some(0) {
        assert!(Instant::now() < until, "the node keeps the trace of a client that is gone");
    }
    // The node does not wait for them.
    let since = Instant::now();
    lab.stop_node();
    assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
    for trace in &mut many {
        assert_eq!(trace.json()["end"]["why"], "node");
        assert_eq!(trace.code(), Some(0));
    }
}

#[test]
fn what_is_wrong_with_a_filter_is_said() {
    if !privileged() {
        return;
    }
    let lab = node("trace-filters");
    for (arguments, words) in [
        (
            &["--from", "vm2"][..],
            "error: --from: there is no NIC, port or subnet `vm2`; did you mean `vm1`? (there are vm1",
        ),
        (
            &["--to", "10.1.1.0/33"],
            "--to: `10.1.1.0/33` is no prefix: behind the slash belongs a number from 0 to 32, not `33`",
        ),
        (&["--to", "10.1.1"], "--to: `10.1.1` is no address: write one as 10.1.1.4, or a prefix as 10.1.1.0/24"),
        (&["--from", "10.1.1.4", "--to", "fd00::1"], "no packet goes from 10.1.1.4 to fd00::1: they are of different"),
        (&["--protocol", "tpc"], "--protocol: `tpc` is no protocol: write tcp, udp, icmp"),
        (&["--protocol", "icmp", "--port", "7"], "icmp has no ports: leave --port out"),
    ] {
        let (code, _, said) = output(&lab, &[&["trace"], arguments].concat());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(words), "{words}: {said}");
        let file = lab.folder().join("none.pcapng");
        let (code, ..) = output(&lab, &[&["capture", "-w", "none.pcapng"], arguments].concat());
        assert_eq!((code, file.exists()), (Some(1), false));
    }
    for arguments in [&["trace", "-n", "1001"][..], &["capture", "-w", "x", "--what", "all"], &["capture"]] {
        assert_eq!(output(&lab, arguments).0, Some(2), "{arguments:?}");
    }
    let (code, _, said) = output(&lab, &["trace", "--from", "spoke/workload", "--timeout", "1"]);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn wireshark_and_tcpdump_read_a_capture() {
    if !privileged() {
        return;
    }
    let lab = node("capture-read");
    let file = lab.folder().join("all.pcapng");
    let mut capture = Running::capture(&lab, &["--from", "vm1", "--both", "-w", "all.pcapng"]);
    lab.exec("vm1", &format!("ping -c 1 -W 5 {}", SERVICE[0]));
    let _unreachable = lab.output("vm1", "ping -c 1 -W 1 10.1.1.200");
    lab.exec("vm1", &format!("curl -sS -m 10 -o /dev/null http://{}/", SERVICE[0]));
    capture.signal(Signal::INT);
    assert_eq!(capture.code(), Some(0));
    let said = capture.said();
    assert!(said.ends_with(" packets"), "{said}");
    let rows = fields(
        &file,
        &[
            "frame.interface_name",
            "frame.packet_flags_direction",
            "frame.packet_id",
            "frame.comment",
            "icmp.type",
            "ip.dst",
        ],
    );
    assert_eq!(said, format!("{} packets", rows.len()));
    // A ping is seen where it enters and where it leaves, under one number, and so is its reply.
    let ping: Vec<&Vec<String>> =
        rows.iter().filter(|row| ["0", "8"].contains(&row[4].as_str()) && row[5] != "10.1.1.200").collect();
    let shown: Vec<String> = ping.iter().map(|row| format!("{} {}", row[0], row[3])).collect();
    assert_eq!(
        shown,
        ["vm1 sent to gateway", "gateway entered through vm1", "gateway sent to vm1", "vm1 entered through gateway"]
    );
    assert_eq!([&ping[0][2], &ping[2][2]], [&ping[1][2], &ping[3][2]]);
    assert_ne!(ping[0][2], ping[2][2]);
    let inbound = |row: &Vec<String>| row[1] == "1" || row[1].ends_with("01");
    assert!(inbound(ping[0]) && !inbound(ping[1]), "{ping:?}");
    let dropped: Vec<_> = rows.iter().filter(|row| row[5] == "10.1.1.200").collect();
    assert_eq!(dropped.len(), 1);
    assert!(dropped[0][3].starts_with("dropped, address_unassigned: "), "{dropped:?}");
    // What Wireshark thinks of it as a file.
    let capinfos = Command::new("capinfos").arg(&file).output().expect("capinfos");
    let about = String::from_utf8_lossy(&capinfos.stdout).into_owned();
    assert!(capinfos.status.success(), "{about}{}", String::from_utf8_lossy(&capinfos.stderr));
    for words in [
        "pcapng",
        "nanoseconds",
        "sidestep ",
        "Name = vm1",
        "Name = contosodata",
        "Raw IP",
        "Number of stat entries = 1",
    ] {
        assert!(about.contains(words), "{words}: {about}");
    }
    let tcpdump = Command::new("tcpdump").args(["-n", "-r"]).arg(&file).output().expect("tcpdump");
    let read = String::from_utf8_lossy(&tcpdump.stdout).into_owned();
    assert!(tcpdump.status.success(), "{}", String::from_utf8_lossy(&tcpdump.stderr));
    assert_eq!(read.lines().count(), rows.len());
    assert!(read.contains("10.1.1.4 > 10.1.1.200: ICMP echo request"), "{read}");
}

/// Bulk traffic: super-packets say what they are, and what is too much is lost, counted, and said in the file.
#[test]
fn a_capture_of_bulk_traffic_is_whole_and_forwarding_goes_on() {
    if !privileged() {
        return;
    }
    let lab = node("capture-bulk");
    switch(&lab, "enable");
    let mut server = lab.spawn("storage", "iperf3 -s -1 --forceflush");
    server.wait_for("Server listening");
    let mut capture = Running::capture(&lab, &["--port", "5201", "--both", "--snaplen", "96", "-w", "bulk.pcapng"]);
    let sent = lab.exec("vm1", &format!("iperf3 -c {} -t 2 -J", SERVICE[0]));
    let sent: Value = serde_json::from_str(&sent).expect("JSON");
    assert!(sent["end"]["sum_received"]["bits_per_second"].as_f64().expect("a rate") > 1e8, "{sent}");
    capture.signal(Signal::INT);
    assert_eq!(capture.code(), Some(0));
    let said = capture.said();
    let file = lab.folder().join("bulk.pcapng");
    let rows = fields(&file, &["frame.cap_len", "frame.len", "frame.comment"]);
    assert!(said.starts_with(&format!("{} packets", rows.len())), "{said}");
    assert!(rows.iter().all(|row| row[0].parse::<u32>().expect("a length") <= 96));
    let large = rows.iter().find(|row| row[1].parse::<u32>().expect("a length") > 1_500).expect("a super-packet");
    assert!(large[2].contains("super-packet of ") && large[2].contains("larger than the MTU"), "{large:?}");
    assert!(large[2].contains("checksum partial"), "{large:?}");
    let text = std::fs::read(&file).expect("read");
    let told = String::from_utf8_lossy(&text).contains("matching packets are not in this file");
    assert_eq!(said.contains("were lost"), told, "{said}");
    lab.accounted();
}

#[test]
fn a_capture_goes_into_a_pipe_and_ends_with_its_reader() {
    if !privileged() {
        return;
    }
    let lab = node("capture-pipe");
    let mut capture = lab.command(&["capture", "--from", "vm1", "--what", "entered", "-w", "-"]);
    let mut capture = capture.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    // Nobody else has the reading end, so that it is closed with tcpdump.
    let mut reader = {
        let mut reader = Command::new("tcpdump");
        reader.args(["-n", "-l", "-c", "2", "-r", "-"]).stdin(capture.stdout.take().expect("a pipe"));
        reader.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("tcpdump")
    };
    let said = lines(capture.stderr.take().expect("err"));
    assert_eq!(said.recv_timeout(PATIENCE).as_deref(), Ok("capturing; Ctrl-C ends"));
    let shown = lines(reader.stdout.take().expect("out"));
    // Live: each packet is read before the next one is sent.
    for _ in 0..2 {
        lab.exec("vm1", &format!("ping -c 1 -W 5 {}", SERVICE[0]));
        assert!(shown.recv_timeout(PATIENCE).expect("a line").contains("ICMP echo request"));
    }
    assert!(reader.wait().expect("wait").success());
    // It notices with the next packet that nobody reads any more; that is no failure.
    let until = Instant::now() + PATIENCE;
    let status = loop {
        let _sent = lab.output("vm1", &format!("ping -c 1 -W 1 {}", SERVICE[0]));
        if let Some(status) = capture.try_wait().expect("wait") {
            break status;
        }
        assert!(Instant::now() < until, "the capture does not end");
    };
    assert_eq!(status.code(), Some(0));
    // A limit ends it, too, and a file that cannot be written is a mistake with its name.
    let mut counted = Running::capture(&lab, &["--from", "vm1", "--what", "entered", "-n", "1", "-w", "one.pcapng"]);
    lab.exec("vm1", &format!("ping -c 1 -W 5 {}", SERVICE[0]));
    assert_eq!(counted.code(), Some(0));
    assert_eq!(counted.said(), "1 packet");
    let (code, _, said) = output(&lab, &["capture", "--timeout", "1", "-w", "no/such/folder"]);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("error: capture to no/such/folder\n  caused by: No such file"), "{said}");
}
