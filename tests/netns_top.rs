//! `sidestep top` on a real node, in a pseudo terminal whose screen is read as a person would.
//!
//! Needs root, /dev/net/tun and the tools; says aloud when it cannot run, and fails then if `CI` is `true`.

#[path = "support/lab.rs"]
mod support;

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::AsFd;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{LocalFlags, tcgetattr};
use rustix::process::{Pid, Signal, kill_process};
use support::{DEMO, Lab, SERVICE, privileged};

/// How long something may take that a busy machine delays.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the screen may lag behind the node: an interval of a second, and a busy machine.
const ABOUT_A_SECOND: Duration = Duration::from_millis(2000);

/// `sidestep top` in a terminal of its own; killed when it is dropped.
struct Top {
    child: Child,
    terminal: File,
    seen: Arc<Mutex<(vt100::Parser, Vec<u8>)>>,
    /// Reads until nobody has the terminal open any more.
    reader: Option<JoinHandle<()>>,
    /// Whether typed text is given line by line, as it was before.
    line_by_line: bool,
}

impl Top {
    fn start(lab: &Lab, arguments: &[&str], colours: bool) -> Self {
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).expect("pseudo terminal");
        let mut command = lab.command(&[&["top"], arguments].concat());
        command.env("TERM", "xterm-256color").env("NO_COLOR", if colours { "" } else { "1" });
        let (input, output) = (pty.slave.try_clone().expect("clone"), pty.slave);
        let terminal = File::from(pty.master);
        let line_by_line = is_line_by_line(&terminal);
        let child = command.stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::null()).spawn();
        // The command keeps descriptors of the terminal.
        drop(command);
        let child = child.expect("start");
        let seen = Arc::new(Mutex::new((vt100::Parser::new(cells(size.ws_row), cells(size.ws_col), 0), Vec::new())));
        let (seen_too, mut reading) = (Arc::clone(&seen), terminal.try_clone().expect("clone"));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reading.read(&mut bytes) {
                let mut seen = seen_too.lock().unwrap_or_else(PoisonError::into_inner);
                seen.0.process(&bytes[..count]);
                seen.1.extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, terminal, seen, reader: Some(reader), line_by_line }
    }

    fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("screen");
        seen.0.screen().contents().lines().map(str::to_owned).collect()
    }

    /// Waits until a screen is so, and says how long that took.
    fn wait_for(&self, what: &str, patience: Duration, is_so: impl Fn(&[String]) -> bool) -> Duration {
        let begin = Instant::now();
        loop {
            let lines = self.lines();
            if is_so(&lines) {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < patience, "{what}:\n{}", lines.join("\n"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn press(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).expect("press");
    }

    /// Waits for the end, and that the terminal is as it was.
    fn ended(mut self, code: i32) {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(code));
        assert!(self.line_by_line && is_line_by_line(&self.terminal), "typed text is read as before");
        self.reader.take().expect("reader").join().expect("read");
        let seen = self.seen.lock().expect("screen");
        assert!(!seen.0.screen().alternate_screen() && !seen.0.screen().hide_cursor(), "the screen is as before");
        assert!(String::from_utf8_lossy(&seen.1).contains("\x1b[?1049h"), "it was another one meanwhile");
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).expect("a size")
}

fn is_line_by_line(terminal: &File) -> bool {
    tcgetattr(terminal.as_fd()).expect("terminal").local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO)
}

/// Whether there is a flow to the service on this path that carries something.
fn has_flow(lines: &[String], path: &str) -> bool {
    let flows = lines.iter().skip_while(|line| !line.contains("DESTINATION"));
    flows
        .filter(|line| line.contains(&format!(" {} ", SERVICE[0])))
        .any(|line| line.starts_with(path) && line.contains("b/s") && !line.contains(" 0 b/s"))
}

/// Whether flows of a path carry something in all.
fn has_total(lines: &[String], path: &str) -> bool {
    let line = lines.iter().take(6).find(|line| line.starts_with(path));
    line.is_some_and(|line| !line.contains(" 0 b/s"))
}

#[test]
fn a_flow_is_seen_to_move_from_the_tunnel_to_the_endpoint_within_about_a_second() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::up("top", DEMO);
    lab.start_node(&[]);
    let _traffic = lab.spawn("vm1", &format!("ping -i 0.02 -s 1000 {}", SERVICE[0]));
    let mut top = Top::start(&lab, &[], true);
    top.wait_for("the flow is in the tunnel", PATIENCE, |lines| {
        has_flow(lines, "tunnel") && has_total(lines, "tunnel")
    });
    assert!(top.lines()[0].starts_with("sidestep  "), "{:?}", top.lines());
    assert!(!has_flow(&top.lines(), "endpoint"));

    lab.run(&["endpoint", "enable", "spoke/workload", "Microsoft.Storage"]);
    let took = top.wait_for("the flow is on the endpoint", PATIENCE, |lines| {
        has_flow(lines, "endpoint") && has_total(lines, "endpoint") && !has_flow(lines, "tunnel")
    });
    assert!(took <= ABOUT_A_SECOND, "it took {took:?}");
    top.wait_for("the tunnel is empty", PATIENCE, |lines| !has_total(lines, "tunnel"));

    // Text and JSON say the same.
    let text = lab.run(&["top", "--once", "--interval", "0.5", "--path", "endpoint"]);
    let line = text.lines().find(|line| line.starts_with("endpoint") && line.contains(SERVICE[0])).expect("flow");
    assert!(line.contains("contosodata") && line.contains("icmp"), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&lab.run(&["top", "--json", "--interval", "0.5"])).expect("JSON");
    let (path, flow) = (&json["paths"][0], &json["flows"][0]);
    assert_eq!((&path["path"], &flow["path"]), (&"endpoint".into(), &"endpoint".into()));
    // 50 echo requests a second and their answers, 1028 bytes each.
    let rate = flow["packets_per_second"].as_f64().expect("number");
    assert!((50.0..150.0).contains(&rate), "{flow}");
    assert!((flow["bits_per_second"].as_f64().expect("number") / rate - 1028.0 * 8.0).abs() < 1.0, "{flow}");
    let port =
        json["ports"].as_array().expect("ports").iter().find(|port| port["port"] == "contosodata").expect("port");
    assert!((25.0..75.0).contains(&port["sent"]["packets_per_second"].as_f64().expect("number")), "{port}");

    // Keys: a filter that nothing passes, and back.
    top.press("/nothing");
    top.wait_for("the filter hides the flow", PATIENCE, |lines| {
        !has_flow(lines, "endpoint") && lines.last().is_some_and(|line| line.starts_with("filter: nothing_"))
    });
    top.press("\x1b");
    top.wait_for("it is there again", PATIENCE, |lines| has_flow(lines, "endpoint"));

    lab.stop_node();
    top.wait_for("the node is gone", PATIENCE, |lines| {
        lines[0].contains("no node runs on") && lines[0].contains("trying again")
    });
    lab.start_node(&[]);
    top.wait_for("the node is there again", PATIENCE, |lines| has_flow(lines, "tunnel"));
    top.press("q");
    top.ended(0);
}

#[test]
fn the_terminal_is_as_it_was_after_a_signal_and_without_colours_there_is_none() {
    if !privileged() {
        return;
    }
    let mut lab = Lab::up("topend", DEMO);
    lab.start_node(&[]);
    for (number, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let top = Top::start(&lab, &["--interval", "0.2"], false);
        top.wait_for("the view", PATIENCE, |lines| lines.first().is_some_and(|line| line.contains("packets/s")));
        {
            let seen = top.seen.lock().expect("screen");
            let (screen, default) = (seen.0.screen(), vt100::Color::Default);
            let cells = (0..30).flat_map(|row| (0..100).map(move |column| (row, column)));
            let mut coloured = cells.filter_map(|(row, column)| screen.cell(row, column));
            assert!(!coloured.any(|cell| cell.fgcolor() != default || cell.bgcolor() != default));
        }
        kill_process(Pid::from_child(&top.child), number).expect("signal");
        top.ended(code);
    }
    // Ctrl-C is a key here.
    let mut top = Top::start(&lab, &[], true);
    top.wait_for("the view", PATIENCE, |lines| lines.first().is_some_and(|line| line.starts_with("sidestep  ")));
    top.press("\x03");
    top.ended(0);

    lab.stop_node();
    let output = lab.command(&["top", "--once"]).output().expect("run");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no node runs on"), "{output:?}");
}
