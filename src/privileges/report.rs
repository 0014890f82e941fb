//! What the threads of this process hold, as the kernel tells it: not what was asked for.

use std::fs;
use std::io;

use super::CapabilitySet;

/// One thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its name.
    pub name: String,
    /// Capabilities of any of its sets but the bounding one.
    pub capabilities: CapabilitySet,
    /// Whether running a program can give it no more than it has.
    pub no_new_privileges: bool,
    /// Whether a filter stands before its system calls.
    pub filtered: bool,
}

/// The threads of this process.
///
/// # Errors
/// When there is no `/proc`, or it says something else than proc(5) has it say.
pub fn threads() -> io::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let status = match fs::read_to_string(task?.path().join("status")) {
            Ok(status) => status,
            // It has ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        threads.push(Thread::parse(&status).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?);
    }
    Ok(threads)
}

impl Thread {
    fn parse(status: &str) -> Option<Self> {
        let value = |name: &str| {
            status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
        };
        let mut bits = 0;
        for set in ["CapInh", "CapPrm", "CapEff"] {
            bits |= u64::from_str_radix(&value(set)?, 16).ok()?;
        }
        // Since Linux 4.3.
        bits |= value("CapAmb").map_or(Some(0), |set| u64::from_str_radix(&set, 16).ok())?;
        Some(Self {
            name: value("Name")?,
            capabilities: CapabilitySet::from_bits_retain(bits),
            no_new_privileges: value("NoNewPrivs").as_deref() == Some("1"),
            // A kernel without it has no such line.
            filtered: value("Seccomp").as_deref() == Some("2"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text_is_read() {
        let text = "Name:\tworker-0\nPid:\t7\nCapInh:\t0000000000000000\nCapPrm:\t0000000000001000\n\
                    CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000200000\n\
                    NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let thread = Thread::parse(text).unwrap();
        assert_eq!(thread.name, "worker-0");
        assert_eq!(thread.capabilities, CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN);
        assert!(thread.no_new_privileges && thread.filtered);
        let bare = Thread::parse("Name:\tx\nCapInh:\t0\nCapPrm:\t0\nCapEff:\t0\n").unwrap();
        assert!(!bare.no_new_privileges && !bare.filtered);
        assert_eq!(Thread::parse("Name:\tx\n"), None);
    }

    #[test]
    fn this_thread_is_among_them() {
        let name = "ss-report";
        let all = std::thread::Builder::new().name(name.to_owned()).spawn(|| threads().unwrap()).unwrap();
        assert!(all.join().unwrap().iter().any(|thread| thread.name == name));
    }
}
