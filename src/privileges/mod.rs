//! What a thread may still ask of the kernel: its capabilities, and its system calls.
//!
//! On Linux both belong to a thread and are inherited by the threads that it starts, so a node is divided by threads
//! (capabilities(7), seccomp(2)):
//!
//! | threads | capabilities | system calls |
//! |---|---|---|
//! | workers, which touch packets | none | those of the loop, no others |
//! | control: main, the runtime, who answers on the socket | none; see `control::privileges` | all but [dangerous](filter) ones |
//! | devices: who opens and changes devices | what that takes | as control, and entering a network namespace |
//!
//! What is given up does not come back: `no_new_privs` is set, and no thread may run a program. Threads share their
//! memory, though. This keeps a mistake in one from reaching what only another may do; who runs code of his own in the
//! process can still make the devices thread act for him, within its own limits, as long as there is one.
//!
//! Nothing here says when and by whom it is used: that is `worker` and `control`.

pub mod filter;
pub mod report;

use std::io;

use rustix::io::Errno;
pub use rustix::thread::CapabilitySet;
use rustix::thread::{self, CapabilitySets};

use filter::Filter;

/// What became of a thread's privileges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restricted {
    /// Capabilities that the thread still has: of those that were to be kept, those that it had.
    pub capabilities: CapabilitySet,
    /// Why system calls are not filtered; none where they are.
    pub unfiltered: Option<String>,
}

/// Takes everything but some capabilities from the calling thread, for good, and filters its system calls. A kernel that
/// has no seccomp, or another processor than the filters are made for, leaves the calls unfiltered; the caller has to
/// say so.
///
/// # Errors
/// When the kernel does not let capabilities go; then they may be there in part.
pub fn restrict(keep: CapabilitySet, filter: Filter<'_>) -> io::Result<Restricted> {
    let capabilities = keep_only(keep)?;
    thread::set_no_new_privs(true)?;
    let unfiltered = filter.install().err().map(|error| error.to_string());
    Ok(Restricted { capabilities, unfiltered })
}

/// Capabilities that the calling thread has, whether in effect or not.
///
/// # Errors
/// When the kernel does not say.
pub fn held() -> io::Result<CapabilitySet> {
    Ok(thread::capabilities(None)?.permitted)
}

/// Takes all but some capabilities from the calling thread, from every set. The bounding set stays where a thread may
/// not change it (without CAP_SETPCAP); with `no_new_privs` nothing can be gained from it.
///
/// # Errors
/// When the kernel refuses.
pub fn keep_only(keep: CapabilitySet) -> io::Result<CapabilitySet> {
    let held = thread::capabilities(None)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in (0..u64::BITS).map(|bit| CapabilitySet::from_bits_retain(1 << bit)) {
            // The kernel knows no number beyond its last.
            let Ok(bounding) = thread::capability_is_in_bounding_set(capability) else { break };
            if bounding && !keep.contains(capability) {
                thread::remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    match thread::clear_ambient_capability_set() {
        // Before Linux 4.3 there was no such set.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let kept = held.permitted & keep;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    thread::set_capabilities(None, sets)?;
    Ok(kept)
}

/// Names as people write them: `CAP_NET_ADMIN`. One that is newer than this program is a number.
pub fn names(capabilities: CapabilitySet) -> Vec<String> {
    let known = capabilities.iter_names().map(|(name, _)| format!("CAP_{name}"));
    let all = CapabilitySet::all().iter_names().fold(CapabilitySet::empty(), |all, (_, one)| all | one);
    let unknown = capabilities.bits() & !all.bits();
    known.chain((0..u64::BITS).filter(|bit| unknown >> bit & 1 == 1).map(|bit| bit.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_manual() {
        let some = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN | CapabilitySet::from_bits_retain(1 << 60);
        assert_eq!(names(some), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "60"]);
        assert!(names(CapabilitySet::empty()).is_empty());
    }

    /// Meant for root, of whom something is taken, and true for everybody.
    #[test]
    fn a_thread_keeps_what_it_is_to_keep_and_its_parent_everything() {
        let before = held().unwrap();
        std::thread::spawn(move || {
            let keep = CapabilitySet::NET_ADMIN;
            assert_eq!(keep_only(keep).unwrap(), before & keep);
            let sets = thread::capabilities(None).unwrap();
            assert_eq!((sets.permitted, sets.effective), (before & keep, before & keep));
            assert_eq!(sets.inheritable, CapabilitySet::empty());
            let bounding = |capability| thread::capability_is_in_bounding_set(capability).unwrap();
            if before.contains(CapabilitySet::SETPCAP) {
                assert!(bounding(CapabilitySet::NET_ADMIN) && !bounding(CapabilitySet::SYS_ADMIN));
            }
            // A second time, with less to lose and no right to change the bounding set.
            assert_eq!(keep_only(CapabilitySet::empty()).unwrap(), CapabilitySet::empty());
            std::thread::spawn(|| assert_eq!(held().unwrap(), CapabilitySet::empty())).join().unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(held().unwrap(), before);
    }
}
