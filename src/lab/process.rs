//! Processes by identity: a number alone may belong to somebody else tomorrow, a number with a start time never does.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process that can be recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Its number.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since boot (`starttime`, field 22 of `/proc/PID/stat`).
    pub(crate) started: u64,
}

impl ProcessId {
    /// The process that has this number now.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let started = start_time(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has an unknown form")))?;
        Ok(Self { pid, started })
    }

    /// This process.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub(crate) fn own() -> io::Result<Self> {
        Self::of(std::process::id())
    }

    /// Whether it still runs; one that ended and waits for its parent counts as ended.
    pub(crate) fn is_alive(self) -> bool {
        self.open().is_some_and(|descriptor| !has_ended(&descriptor, Duration::ZERO))
    }

    /// Ends it: SIGTERM, and SIGKILL if it is still there after `grace`. Returns when it has ended.
    ///
    /// # Errors
    /// When it may not be signalled, or does not even follow SIGKILL within 5 s.
    pub(crate) fn end(self, grace: Duration) -> io::Result<()> {
        let Some(descriptor) = self.open() else { return Ok(()) };
        for (signal, patience) in [(Signal::TERM, grace), (Signal::KILL, Duration::from_secs(5))] {
            match pidfd_send_signal(&descriptor, signal) {
                Ok(()) => {}
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if has_ended(&descriptor, patience) {
                return Ok(());
            }
        }
        Err(io::Error::other(format!("process {} does not end", self.pid)))
    }

    /// Waits until it has ended, and says whether it has.
    pub(crate) fn wait(self, patience: Duration) -> bool {
        self.open().is_none_or(|descriptor| has_ended(&descriptor, patience))
    }

    /// A descriptor of exactly this process. It is opened before the start time is compared, so that it cannot be
    /// another's.
    fn open(self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        (Self::of(self.pid).ok()? == self).then_some(descriptor)
    }
}

/// Waits until the process behind a descriptor has ended.
fn has_ended(descriptor: &OwnedFd, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut descriptors = [PollFd::from_borrowed_fd(descriptor.as_fd(), PollFlags::IN)];
        match poll(&mut descriptors, timeout.as_ref()) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

/// Field 22 of a line of `/proc/PID/stat`. The second field is the program's name in parentheses and may hold anything,
/// so counting begins behind the last parenthesis, with field 3.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(22 - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_start_time_is_found_behind_a_strange_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1000 10";
        assert_eq!(start_time(stat), Some(4242));
        assert_eq!(start_time("7 (a) S 1"), None);
        assert_eq!(start_time(""), None);
    }

    #[test]
    fn a_process_is_ended_and_only_that_one() {
        let mut child = Command::new("sleep").arg("60").spawn().expect("sleep");
        let id = ProcessId::of(child.id()).expect("stat");
        assert!(id.is_alive());
        let another = ProcessId { started: id.started + 1, ..id };
        assert!(!another.is_alive());
        another.end(Duration::ZERO).expect("nothing to do");
        assert!(id.is_alive(), "another start time is another process");
        id.end(Duration::from_secs(5)).expect("ends");
        assert!(!id.is_alive(), "a zombie counts as ended");
        child.wait().expect("wait");
        id.end(Duration::ZERO).expect("nothing to do any more");
    }

    #[test]
    fn who_ignores_sigterm_is_killed() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(child.stdout.take().expect("stdout"));
        std::io::BufRead::read_line(&mut stdout, &mut line).expect("line");
        let id = ProcessId::of(child.id()).expect("stat");
        id.end(Duration::from_millis(50)).expect("killed");
        assert!(!id.is_alive());
        child.wait().expect("wait");
    }
}
