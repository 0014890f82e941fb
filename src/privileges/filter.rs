//! Filters of system calls (seccomp(2)), compiled to BPF by `seccompiler`.
//!
//! A call that is refused fails with `EPERM` and the thread goes on: a forwarder must not die of a call that a new C
//! library makes on the way and can do without. A worker's filter names what is allowed, and so is short: the loop asks
//! little of the kernel. The others' name what is refused, since a runtime and the standard library ask for much, and for
//! more with every version: running programs, creating processes, looking into other ones, modules, BPF, keys, clocks,
//! mounts, and `io_uring`, whose requests no filter sees. Entering a namespace is refused but for the devices thread,
//! which may enter network namespaces only; making one is refused to all.
//!
//! Filters add up: a thread has those of the thread that started it, too, and the strictest answer counts. Calls by
//! another processor's table (32 bit) end the process.
//!
//! For calls that are allowed whatever their arguments are, the kernel keeps the answer (since Linux 5.11), and runs no
//! filter. Before Linux 5.16 a filter also switches on the processor's remedy against speculative store bypass, which
//! costs more than the filter.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// What the calls of a thread are measured by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter<'a> {
    /// A worker's.
    Worker {
        /// Requests that its devices make by `ioctl`; no others are allowed.
        requests: &'a [u32],
    },
    /// Of who opens devices.
    Devices,
    /// Of everybody else.
    Control,
}

/// Why a filter is not in force.
#[derive(Debug, thiserror::Error)]
#[error("the system calls cannot be filtered: {0}")]
pub struct FilterError(String);

impl From<seccompiler::Error> for FilterError {
    fn from(error: seccompiler::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<seccompiler::BackendError> for FilterError {
    fn from(error: seccompiler::BackendError) -> Self {
        Self(error.to_string())
    }
}

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// What the loop of a worker, its ports, the allocator, locks, the log and the end of a thread need. What depends on an
/// argument is in [`worker`].
const WORKER: &[c_long] = &[
    // Packets, captures, the waker, the log on stderr.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_getsockopt,
    libc::SYS_close,
    // Waiting.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_ctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Clocks, where the kernel's page of functions does not know the machine's.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    // Locks.
    libc::SYS_futex,
    // Memory.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_sched_getaffinity,
    libc::SYS_getrandom,
    // Signals and ends, of the thread and of the process.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What no thread of a node ever has to do. What depends on an argument is in [`refused`].
const REFUSED: &[c_long] = &[
    // Programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_personality,
    // Code in the kernel, and doors that go round filters.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Namespaces and file systems.
    libc::SYS_unshare,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    // Keys.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// The bit of calls by the x32 table, which the filter takes for the same processor (`__X32_SYSCALL_BIT`).
#[cfg(target_arch = "x86_64")]
const X32: c_long = 0x4000_0000;

/// Calls that have numbers of their own in the x32 table (`arch/x86/entry/syscalls/syscall_64.tbl`).
#[cfg(target_arch = "x86_64")]
const X32_OWN: std::ops::RangeInclusive<c_long> = 512..=547;

impl Filter<'_> {
    /// Puts the filter before the system calls of the calling thread, and of those that it starts from now on.
    pub(super) fn install(self) -> Result<(), FilterError> {
        for program in self.programs()? {
            apply_filter(&program)?;
        }
        Ok(())
    }

    fn programs(self) -> Result<Vec<BpfProgram>, FilterError> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let program = |rules, otherwise, action| -> Result<BpfProgram, FilterError> {
            Ok(SeccompFilter::new(rules, otherwise, action, arch)?.try_into()?)
        };
        let errno = |code: i32| SeccompAction::Errno(code as u32);
        match self {
            Self::Worker { requests } => {
                Ok(vec![program(worker(requests)?, errno(libc::EPERM), SeccompAction::Allow)?])
            }
            Self::Devices | Self::Control => {
                let refused = refused(self == Self::Devices)?;
                // Its flags are in memory, which no filter sees. The C library falls back to `clone`.
                let absent = Rules::from([(libc::SYS_clone3, Vec::new())]);
                Ok(vec![
                    program(refused, SeccompAction::Allow, errno(libc::EPERM))?,
                    program(absent, SeccompAction::Allow, errno(libc::ENOSYS))?,
                ])
            }
        }
    }
}

/// What is allowed to a worker.
fn worker(requests: &[u32]) -> Result<Rules, FilterError> {
    let mut rules: Rules = WORKER.iter().map(|call| (*call, Vec::new())).collect();
    // Memory that holds no code.
    let no_code = when(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)?;
    rules.insert(libc::SYS_mmap, vec![no_code.clone()]);
    rules.insert(libc::SYS_mprotect, vec![no_code]);
    // Of the standard library, which looks in debug builds whether what it closes is open, and of its `abort`.
    rules.insert(libc::SYS_fcntl, vec![when(1, SeccompCmpOp::Eq, libc::F_GETFD as u64)?]);
    rules.insert(libc::SYS_tgkill, vec![when(0, SeccompCmpOp::Eq, u64::from(std::process::id()))?]);
    let requests: Result<Vec<_>, _> =
        requests.iter().map(|request| when(1, SeccompCmpOp::Eq, u64::from(*request))).collect();
    let requests = requests?;
    // A call without rules would be allowed whatever it asks for.
    if !requests.is_empty() {
        rules.insert(libc::SYS_ioctl, requests);
    }
    Ok(rules)
}

/// What is refused to the others.
fn refused(enters_networks: bool) -> Result<Rules, FilterError> {
    let mut rules: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    // A thread, not a process.
    rules.insert(libc::SYS_clone, vec![when(0, SeccompCmpOp::MaskedEq(libc::CLONE_THREAD as u64), 0)?]);
    let other_kind = when(1, SeccompCmpOp::Ne, libc::CLONE_NEWNET as u64)?;
    rules.insert(libc::SYS_setns, if enters_networks { vec![other_kind] } else { Vec::new() });
    #[cfg(target_arch = "x86_64")]
    {
        let x32: Vec<c_long> = rules.keys().copied().chain(X32_OWN).map(|call| call | X32).collect();
        rules.extend(x32.into_iter().map(|call| (call, Vec::new())));
    }
    Ok(rules)
}

/// A rule on one argument, of the 32 bits that the kernel looks at in all of these calls.
fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, FilterError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, Write};
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use rustix::event::{EventfdFlags, epoll, eventfd};
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

    use super::*;
    use crate::privileges::{CapabilitySet, held, report, restrict};

    const EPERM: Option<i32> = Some(libc::EPERM);
    const FIONBIO: u32 = 0x5421;

    /// Does something on a thread of its own behind a filter. False where the kernel has none. The thread keeps its
    /// capabilities, so that what is refused to root is refused by the filter.
    fn behind(filter: Filter<'static>, work: impl FnOnce() + Send + 'static) -> bool {
        std::thread::spawn(move || {
            let restricted = restrict(CapabilitySet::all(), filter).unwrap();
            if let Some(reason) = &restricted.unfiltered {
                assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot test filters in CI: {reason}");
                writeln!(io::stderr(), "SKIPPED: system calls are not filtered here: {reason}").unwrap();
                return false;
            }
            work();
            true
        })
        .join()
        .unwrap()
    }

    fn code<T>(result: io::Result<T>) -> Option<i32> {
        result.err().expect("refused").raw_os_error()
    }

    #[test]
    fn a_worker_is_refused_what_a_worker_never_does() {
        let null = File::open("/dev/null").unwrap();
        let here = File::open("/proc/self/ns/net").unwrap();
        behind(Filter::Worker { requests: &[] }, move || {
            assert_eq!(code(File::open("/dev/null")), EPERM);
            assert_eq!(code(File::create("/tmp/ss-filter")), EPERM);
            assert_eq!(code(std::fs::remove_file("/tmp/ss-filter")), EPERM);
            assert_eq!(code(UdpSocket::bind("127.0.0.1:0")), EPERM);
            assert_eq!(code(std::os::unix::net::UnixStream::connect("/tmp/ss-filter")), EPERM);
            assert_eq!(code(Command::new("/bin/true").status()), EPERM);
            assert_eq!(code(std::thread::Builder::new().spawn(|| ())), EPERM);
            assert_eq!(code(rustix::io::ioctl_fionbio(&null, true).map_err(io::Error::from)), EPERM);
            let entered = move_into_link_name_space(here.as_fd(), Some(LinkNameSpaceType::Network));
            assert_eq!(entered, Err(rustix::io::Errno::PERM));
            assert_eq!(rustix::process::chroot("/"), Err(rustix::io::Errno::PERM));
            let signal = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::CONT);
            assert_eq!(signal, Err(rustix::io::Errno::PERM));
        });
    }

    #[test]
    fn a_worker_can_do_what_a_worker_does() {
        let (mut file, path) = tempfile::NamedTempFile::new().unwrap().into_parts();
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let null = File::open("/dev/null").unwrap();
        let done = behind(Filter::Worker { requests: &[1, FIONBIO] }, move || {
            file.write_all(b"capture").unwrap();
            epoll::add(&poll, &event, epoll::EventData::new_u64(1), epoll::EventFlags::IN).unwrap();
            rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
            let mut events = Vec::with_capacity(4);
            let timeout = rustix::event::Timespec { tv_sec: 5, tv_nsec: 0 };
            epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)).unwrap();
            assert_eq!(events.len(), 1);
            rustix::io::read(&event, &mut [0; 8]).unwrap();
            rustix::io::ioctl_fionbio(&null, true).unwrap();
            assert_eq!(rustix::io::ioctl_fionread(&null).unwrap_err(), rustix::io::Errno::PERM, "another request");
            // Memory that comes by `brk` and by `mmap`, grows and goes.
            let mut blocks: Vec<Vec<u8>> = (0..200).map(|size| vec![1; size * 4096]).collect();
            blocks.iter_mut().for_each(|block| block.resize(block.len() * 2, 2));
            drop(blocks);
            let begin = Instant::now();
            std::thread::sleep(Duration::from_millis(1));
            assert!(begin.elapsed() >= Duration::from_millis(1));
            eprintln!("a worker writes to its log");
            assert!(std::panic::catch_unwind(|| panic!("a worker that fails tells of it")).is_err());
            assert_eq!(code(file.try_clone()), EPERM);
            sender.send(7).unwrap();
        });
        if done {
            assert_eq!(receiver.recv(), Ok(7));
            assert_eq!(std::fs::read(&path).unwrap(), b"capture");
        }
    }

    #[test]
    fn nobody_runs_programs_or_makes_namespaces() {
        for filter in [Filter::Control, Filter::Devices] {
            let here = File::open("/proc/self/ns/net").unwrap();
            behind(filter, move || {
                assert_eq!(code(Command::new("/bin/true").status()), EPERM);
                assert_eq!(rustix::process::chroot("/"), Err(rustix::io::Errno::PERM));
                let mount = rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty());
                assert_eq!(mount, Err(rustix::io::Errno::PERM));
                let enter = |kind| move_into_link_name_space(here.as_fd(), kind);
                let entered = enter(Some(LinkNameSpaceType::Network));
                if filter == Filter::Devices && held().unwrap().contains(CapabilitySet::SYS_ADMIN) {
                    assert_eq!(entered, Ok(()));
                } else {
                    assert_eq!(entered, Err(rustix::io::Errno::PERM));
                }
                assert_eq!(enter(None), Err(rustix::io::Errno::PERM), "of whatever kind");
                // What a runtime does goes on.
                File::open("/dev/null").unwrap();
                UdpSocket::bind("127.0.0.1:0").unwrap();
                std::thread::spawn(|| {
                    let all = report::threads().unwrap();
                    assert!(all.iter().any(|thread| thread.filtered && thread.no_new_privileges));
                    assert_eq!(code(Command::new("/bin/true").status()), EPERM);
                })
                .join()
                .unwrap();
            });
        }
    }

    #[test]
    fn no_number_is_in_both_lists() {
        assert!(WORKER.iter().all(|call| !REFUSED.contains(call)));
    }
}
