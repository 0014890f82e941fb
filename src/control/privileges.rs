//! How a running node divides its privileges among its threads, and what it says of it.
//!
//! It happens before the node makes anything: what works at the start works later, too. The document and the state file
//! have been read by then.
//!
//! | capability | who keeps it | what for |
//! |---|---|---|
//! | CAP_NET_ADMIN | devices | TUN devices; addresses, routes and MTU; what a packet socket may buffer |
//! | CAP_NET_RAW | devices | packet sockets of Ethernet ports, which a later document may have |
//! | CAP_SYS_ADMIN | devices | entering the network namespaces of devices; the filter refuses what else it is good for |
//! | CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH | who uses the file | only where a file of this node belongs to somebody else |
//!
//! The last row is for who starts a node by `sudo` in a folder of his own. There is a warning for it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::answers::PrivilegesStatus;
use super::dataplane::Devices;
use super::device_thread::DeviceThread;
use crate::privileges::{self, CapabilitySet, filter::Filter, report};

/// What opening and changing devices takes.
const FOR_DEVICES: CapabilitySet =
    CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW).union(CapabilitySet::SYS_ADMIN);

/// Why the node does not go on.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// The kernel refuses, or there is no thread.
    #[error("cannot drop privileges")]
    Drop(#[source] io::Error),
    /// A file could not be used any more.
    #[error(
        "cannot drop all privileges: {} belongs to somebody else and cannot be used without {capability}; change its \
         owner, or leave --drop-all-privileges out",
        path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What it takes.
        capability: String,
    },
}

/// Files that a node uses as long as it runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Files {
    /// Those that are read.
    pub(super) read: Vec<PathBuf>,
    /// Those that are made, written, replaced or removed.
    pub(super) written: Vec<PathBuf>,
}

/// Divides the privileges of the calling thread: those for devices go to a thread for them, those that files need stay,
/// and the rest is gone. Threads that are started from now on are restricted like the caller. With `all`, nothing may
/// stay.
///
/// # Errors
/// [`PrivilegesError`]
pub(super) fn divide<D: Devices + Clone + 'static>(
    devices: D,
    control_files: &Files,
    device_files: &Files,
    all: bool,
) -> Result<DeviceThread<D>, PrivilegesError> {
    let mut keep = [CapabilitySet::empty(), FOR_DEVICES];
    for (keep, files) in keep.iter_mut().zip([control_files, device_files]) {
        let Some((capability, path)) = needed(files).map_err(PrivilegesError::Drop)? else { continue };
        let names = privileges::names(capability).join(" ");
        // The devices thread of a node that drops everything is gone when the files are open.
        if all && std::ptr::eq(files, control_files) {
            return Err(PrivilegesError::File { path, capability: names });
        }
        tracing::warn!(file = %path.display(), "{names} is kept: the file belongs to somebody else");
        *keep |= capability;
    }
    let (thread, for_devices) = DeviceThread::start(devices, keep[1]).map_err(PrivilegesError::Drop)?;
    let control = privileges::restrict(keep[0], Filter::Control).map_err(PrivilegesError::Drop)?;
    if let Some(reason) = control.unfiltered {
        tracing::warn!("{reason}: the node goes on without");
    }
    let text = |capabilities| list(&privileges::names(capabilities));
    tracing::debug!(
        devices = text(for_devices.capabilities),
        control = text(control.capabilities),
        workers = text(CapabilitySet::empty()),
        "privileges are dropped"
    );
    Ok(thread)
}

/// What the threads of this process hold, by what they do; none where the kernel does not say.
pub(super) fn status() -> Option<PrivilegesStatus> {
    let threads = report::threads().inspect_err(|error| tracing::debug!(%error, "no status of threads")).ok()?;
    let of = |group: Group| {
        let threads = threads.iter().filter(|thread| Group::of(&thread.name) == group);
        privileges::names(threads.fold(CapabilitySet::empty(), |all, thread| all | thread.capabilities))
    };
    Some(PrivilegesStatus {
        devices: of(Group::Devices),
        control: of(Group::Control),
        workers: of(Group::Workers),
        no_new_privileges: threads.iter().all(|thread| thread.no_new_privileges),
        system_calls_filtered: threads.iter().all(|thread| thread.filtered),
    })
}

/// Capabilities as people read them.
pub(crate) fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Group {
    Devices,
    Control,
    Workers,
}

impl Group {
    /// By the name that it was started with.
    fn of(name: &str) -> Self {
        match name {
            _ if name.starts_with("worker-") => Self::Workers,
            // It starts others, which enter a namespace each.
            "devices" => Self::Devices,
            _ if name.starts_with("netns ") => Self::Devices,
            _ => Self::Control,
        }
    }
}

/// The capability that the calling thread has and needs for a file, and the first file that needs it. A file that cannot
/// be used either way is told of by who uses it.
fn needed(files: &Files) -> io::Result<Option<(CapabilitySet, PathBuf)>> {
    let held = privileges::held()?;
    let refused = std::thread::scope(|scope| {
        // Asking needs a thread that has given up everything.
        let asking = scope.spawn(|| -> io::Result<_> {
            privileges::keep_only(CapabilitySet::empty())?;
            let written = files.written.iter().find(|path| !may_write(path));
            let read = files.read.iter().find(|path| is_refused(access(path.as_path(), Access::READ_OK)));
            Ok(written.map(|path| (true, path)).or(read.map(|path| (false, path))))
        });
        asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let Some((is_written, path)) = refused else { return Ok(None) };
    let enough = match is_written {
        true => vec![CapabilitySet::DAC_OVERRIDE],
        false => vec![CapabilitySet::DAC_READ_SEARCH, CapabilitySet::DAC_OVERRIDE],
    };
    Ok(enough.into_iter().find(|one| held.contains(*one)).map(|one| (one, path.clone())))
}

/// Whether the calling thread may make, write and remove a file.
fn may_write(path: &Path) -> bool {
    if is_refused(access(path, Access::WRITE_OK)) {
        return false;
    }
    // A folder that is missing is made in the first one that is there.
    for folder in path.ancestors().skip(1) {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
            Err(Errno::NOENT) => {}
            result => return !is_refused(result),
        }
    }
    true
}

/// Whether it is a matter of permissions.
fn is_refused(result: rustix::io::Result<()>) -> bool {
    matches!(result, Err(Errno::ACCESS | Errno::PERM))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;
    use crate::control::dataplane::Queues;
    use crate::control::ports::Attachment;
    use crate::control::refusal::Refusal;
    use crate::model::network::{Device, Interface};
    use crate::snapshot::{PortId, PortKind};

    /// Devices that are none, and tell who opens them.
    #[derive(Clone)]
    struct Nothing;

    impl Devices for Nothing {
        fn open(&self, attachment: &Attachment) -> Result<Queues, Refusal> {
            match attachment.name.as_str() {
                "panic" => panic!("a device that makes the thread fail"),
                _ => Err(Refusal::Failed(std::thread::current().name().unwrap_or_default().to_owned())),
            }
        }

        fn keep(&self, _queues: &mut Queues) -> io::Result<()> {
            Ok(())
        }

        fn adjust(&self, _before: &Attachment, after: &Attachment) -> Result<(), Refusal> {
            let held = privileges::held().map_err(|error| Refusal::Failed(error.to_string()))?;
            assert!(after.name != "none" || held.is_empty());
            Ok(())
        }
    }

    fn attachment(name: &str) -> Attachment {
        Attachment {
            port: PortId(0),
            name: name.to_owned(),
            kind: PortKind::Nic,
            device: Device {
                interface: Interface::Tun { name: "eth0".to_owned(), addresses: Vec::new() },
                netns: None,
                mtu: 1500,
                link: None,
                pcap: None,
            },
            addresses: Vec::new(),
            routes: Vec::new(),
        }
    }

    #[test]
    fn devices_are_opened_by_the_thread_for_them_until_it_ends() {
        let (devices, restricted) = DeviceThread::start(Nothing, CapabilitySet::empty()).unwrap();
        assert_eq!(restricted.capabilities, CapabilitySet::empty());
        let Err(refusal) = devices.open(&attachment("vm1")) else { panic!("who?") };
        assert_eq!(refusal, Refusal::Failed("devices".to_owned()));
        devices.adjust(&attachment("vm1"), &attachment("none")).unwrap();
        devices.end();
        devices.end();
        devices.keep(&mut Vec::new()).unwrap();
        let Err(refusal) = devices.open(&attachment("vm1")) else { panic!("no refusal") };
        assert_eq!(refusal.status(), 409);
        assert_eq!(
            refusal.to_string(),
            "port `vm1`: the node has dropped all privileges (--drop-all-privileges), and opens and changes no device \
             any more: restart it for that"
        );
    }

    #[test]
    fn a_thread_that_failed_is_told_of() {
        let (devices, _) = DeviceThread::start(Nothing, CapabilitySet::empty()).unwrap();
        for _ in 0..2 {
            let Err(refusal) = devices.open(&attachment("panic")) else { panic!("no refusal") };
            assert_eq!(refusal.status(), 500);
        }
    }

    #[test]
    fn threads_are_known_by_their_names() {
        let groups = ["worker-0", "devices", "netns vm1", "control", "sidestep", "stdin"].map(Group::of);
        use Group::{Control, Devices, Workers};
        assert_eq!(groups, [Workers, Devices, Devices, Control, Control, Control]);
        assert_eq!(list(&[]), "none");
        assert!(status().is_some(), "there is a /proc");
    }

    #[test]
    fn files_need_a_capability_only_where_they_are_somebody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "").unwrap();
        let files = |read: &str, written: &str| Files { read: vec![path(read)], written: vec![path(written)] };
        for (read, written) in [("file", "file"), ("file", "new"), ("missing", "missing/folder/new")] {
            assert_eq!(needed(&files(read, written)).unwrap(), None, "{read}, {written}");
        }
        let roots = Files { read: Vec::new(), written: vec!["/no-such-folder-of-root/new".into()] };
        assert_eq!(needed(&roots).unwrap(), None, "root owns it, and nobody else has what it takes");
        let held = privileges::held().unwrap();
        if !rustix::process::geteuid().is_root()
            || !held.contains(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::CHOWN)
        {
            return;
        }
        fs::create_dir(path("other")).unwrap();
        fs::write(path("other/file"), "").unwrap();
        chown(path("other"), Some(65534), None).unwrap();
        fs::set_permissions(path("other"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(needed(&files("other/file", "new")).unwrap(), None, "everybody may read it");
        let expected = (CapabilitySet::DAC_OVERRIDE, path("other/new"));
        assert_eq!(needed(&files("other/file", "other/new")).unwrap(), Some(expected));
        fs::set_permissions(path("other"), fs::Permissions::from_mode(0o700)).unwrap();
        let expected = (CapabilitySet::DAC_READ_SEARCH, path("other/file"));
        assert_eq!(needed(&files("other/file", "new")).unwrap(), Some(expected));
        // It is a question, and takes nothing from who asks.
        assert_eq!(privileges::held().unwrap(), held);
    }
}
