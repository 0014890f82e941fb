//! Makes a lab, removes it, and says what there is of one.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Serialize;

use super::certificate;
use super::command::{self, CommandError, Tool};
use super::interrupt;
use super::layout::{End, Layout, LayoutError, Namespace};
use super::process::ProcessId;
use super::state::{self, NAMESPACES, State, StateError, Step, namespace_inode, own_folder};
use crate::model::network::Network;
use crate::port::namespace::{self, NamespaceError};

/// Where `ip netns exec` looks for files to lay over those of `/etc`.
const ETC: &str = "/etc/netns";

/// How long a web server may take to listen.
const SERVER_START: Duration = Duration::from_secs(10);

/// How long a process of the lab may take to end by itself.
const GRACE: Duration = Duration::from_secs(3);

/// Settings of every namespace, made before there is a device in it, so that devices inherit them: replies may come in
/// where the route back does not lead out, addresses are usable at once, nobody listens to router advertisements, TUN
/// devices get no link-local address, and every traceroute probe is answered.
const SETTINGS: [(&str, &str); 13] = [
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/icmp_ratelimit", "0"),
    ("ipv6/conf/all/disable_ipv6", "0"),
    ("ipv6/conf/default/disable_ipv6", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/autoconf", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    ("ipv6/conf/default/addr_gen_mode", "1"),
    ("ipv6/icmp/ratelimit", "0"),
];

/// Settings of a namespace that passes packets on.
const FORWARDING: [(&str, &str); 3] =
    [("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1"), ("ipv6/conf/default/forwarding", "1")];

/// Why a lab cannot be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces are made by root.
    #[error("network namespaces are made by root: run this with sudo")]
    NotRoot,
    /// The document makes no lab.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Somebody else's, and in the way.
    #[error("{what} exists already and is not this lab's; nothing was changed")]
    InTheWay {
        /// What it is, by its kind and name.
        what: String,
    },
    /// The memory of the lab.
    #[error(transparent)]
    State(#[from] StateError),
    /// A tool failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A namespace could not be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A file or setting could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// The file or what was to be done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A web server of the lab does not come up.
    #[error("the web server in `{netns}` does not start: {reason}")]
    Server {
        /// Its namespace.
        netns: String,
        /// What happened.
        reason: String,
    },
    /// There is no such lab.
    #[error("there is no lab `{0}`; `sidestep lab status` lists those there are")]
    Unknown(String),
    /// Some of the lab could not be removed; it is still remembered.
    #[error("not everything of the lab `{name}` could be removed: {}", .reasons.join("; "))]
    Remains {
        /// The lab.
        name: String,
        /// What remains and why.
        reasons: Vec<String>,
    },
}

impl LabError {
    /// Whether a signal ended the work, and which.
    pub fn interrupted(&self) -> Option<super::Interrupted> {
        match self {
            Self::Command(CommandError::Interrupted(interrupted)) => Some(*interrupted),
            _ => None,
        }
    }
}

/// Makes the lab of a network, which stays after this process. If a step fails, or a signal comes, what was made is
/// removed again.
///
/// # Errors
/// [`LabError`]; [`LabError::InTheWay`] where a namespace, an interface or a folder that it needs exists already.
pub fn up(name: &str, document: &Path, network: &Network) -> Result<Status, LabError> {
    interrupt::listen().map_err(|source| LabError::Io { what: "signal handlers".to_owned(), source })?;
    let layout = prepare(network)?;
    remove_stale(name)?;
    let mut state = State::begin(name, document)?;
    let made = make(&mut state, &layout).and_then(|()| {
        state.owner = None;
        Ok(state.save()?)
    });
    match made {
        Ok(()) => Ok(status_of(&state)),
        Err(error) => {
            remove(&mut state)?;
            Err(error)
        }
    }
}

/// Removes a lab: exactly what it made. What is gone already is no error. Gives what it removed.
///
/// # Errors
/// [`LabError::Unknown`], or [`LabError::Remains`] after everything that can be removed is.
pub fn down(name: &str) -> Result<Status, LabError> {
    require_root()?;
    let _lock = state::lock()?;
    let mut state = State::load(name)?.ok_or_else(|| LabError::Unknown(name.to_owned()))?;
    if let Some(owner) = state.owner.filter(|owner| owner.is_alive() && owner.pid != std::process::id()) {
        return Err(StateError::Busy { name: name.to_owned(), pid: owner.pid }.into());
    }
    let status = status_of(&state);
    remove(&mut state)?;
    Ok(status)
}

/// What there is of the lab of a name, or of every lab.
///
/// # Errors
/// [`LabError::Unknown`], [`LabError::State`]
pub fn status(name: Option<&str>) -> Result<Vec<Status>, LabError> {
    if let Some(name) = name {
        let state = State::load(name)?.ok_or_else(|| LabError::Unknown(name.to_owned()))?;
        return Ok(vec![status_of(&state)]);
    }
    let mut all = Vec::new();
    for name in State::names()? {
        // One that ends while we look is not there.
        all.extend(State::load(&name)?.as_ref().map(status_of));
    }
    Ok(all)
}

/// A lab, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// The document that it was built from.
    pub document: PathBuf,
    /// `up`, `in use by process N` while it is built or its demo runs, `interrupted` when that process is gone.
    pub state: String,
    /// Its namespaces.
    pub namespaces: Vec<StatusNamespace>,
    /// Its processes.
    pub processes: Vec<StatusProcess>,
    /// Its files for others to read: the certificate authority of its web servers, `authority.pem`, and what was
    /// refused at the services of each namespace, `NETNS.log`.
    pub files: Vec<PathBuf>,
}

/// A namespace of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusNamespace {
    /// Its name.
    pub name: String,
    /// Whether it is there and the one that the lab made.
    pub present: bool,
}

/// A process of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StatusProcess {
    /// What it does.
    pub what: String,
    /// Its number.
    pub pid: u32,
    /// Whether it runs.
    pub running: bool,
}

fn status_of(state: &State) -> Status {
    let word = match state.owner {
        None => "up".to_owned(),
        Some(owner) if owner.is_alive() => format!("in use by process {}", owner.pid),
        Some(_) => "interrupted".to_owned(),
    };
    let namespaces = state.namespaces().map(|(name, inode)| StatusNamespace {
        name: name.to_owned(),
        present: inode.is_some() && namespace_inode(name) == inode,
    });
    let processes = state.steps.iter().filter_map(|step| match step {
        Step::Process { what, id } => Some(StatusProcess { what: what.clone(), pid: id.pid, running: id.is_alive() }),
        _ => None,
    });
    Status {
        name: state.name.clone(),
        document: state.document.clone(),
        state: word,
        namespaces: namespaces.collect(),
        processes: processes.collect(),
        files: files_of(&state.name),
    }
}

/// The files in the folder of a lab but for its key, sorted.
fn files_of(name: &str) -> Vec<PathBuf> {
    let entries = own_folder(name).ok().and_then(|folder| fs::read_dir(folder).ok());
    let paths = entries.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = paths.filter(|path| !path.ends_with(certificate::KEY)).collect();
    files.sort();
    files
}

/// Everything that can be found out before something is made.
pub(crate) fn prepare(network: &Network) -> Result<Layout, LabError> {
    require_root()?;
    let layout = Layout::of(network)?;
    command::require(&["ip", "setpriv"])?;
    if layout.namespaces.iter().any(|namespace| !namespace.nftables.is_empty()) {
        command::require(&["nft"])?;
    }
    Ok(layout)
}

fn require_root() -> Result<(), LabError> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(LabError::NotRoot) }
}

/// Removes what a lab or demo of the name left behind when it was killed; says whether there was anything.
pub(crate) fn remove_stale(name: &str) -> Result<bool, LabError> {
    let _lock = state::lock()?;
    match State::load(name)? {
        Some(mut state) if state.owner.is_some_and(|owner| !owner.is_alive()) => {
            remove(&mut state)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Makes everything of a layout, each step remembered before it is done.
pub(crate) fn make(state: &mut State, layout: &Layout) -> Result<(), LabError> {
    refuse_what_exists(layout)?;
    // Shared by every lab; it goes with the last one.
    let parent = PathBuf::from(ETC);
    state.announce(Step::Folder { path: parent.clone() })?;
    fs::create_dir_all(&parent).map_err(|source| io_error(&parent, source))?;
    let folder = make_own_folder(state)?;
    for namespace in &layout.namespaces {
        make_namespace(state, namespace)?;
    }
    for link in &layout.links {
        let [near, far] = &link.ends;
        Tool::new("ip")
            .words(&format!("link add {} netns {} type veth", near.interface, near.netns))
            .words(&format!("peer name {} netns {}", far.interface, far.netns))
            .run()?;
        link.ends.iter().try_for_each(make_end)?;
    }
    for namespace in &layout.namespaces {
        for route in &namespace.routes {
            ip(&namespace.name, &format!("route add {} via {} dev {}", route.prefix, route.via, route.interface))?;
        }
        if !namespace.nftables.is_empty() {
            Tool::new("nft").words("-f -").inside(&namespace.name).input(&namespace.nftables).run()?;
        }
        if !namespace.answers.is_empty() {
            start_server(state, namespace, &layout.endpoint_sources, &folder)?;
        }
    }
    Ok(())
}

/// Makes the folder of the lab's own files, with its certificate authority.
fn make_own_folder(state: &mut State) -> Result<PathBuf, LabError> {
    let folder = own_folder(&state.name)?;
    state.announce(Step::Tree { path: folder.clone() })?;
    // A demo has put its document there.
    fs::create_dir_all(&folder).map_err(|source| io_error(&folder, source))?;
    certificate::make_authority(&folder).map_err(|source| io_error(&folder, source))?;
    Ok(folder)
}

fn refuse_what_exists(layout: &Layout) -> Result<(), LabError> {
    let in_the_way = |what: String| Err(LabError::InTheWay { what });
    for namespace in &layout.namespaces {
        if Path::new(NAMESPACES).join(&namespace.name).exists() {
            return in_the_way(format!("the network namespace `{}`", namespace.name));
        }
        let folder = Path::new(ETC).join(&namespace.name);
        if folder.symlink_metadata().is_ok() {
            return in_the_way(format!("the folder {}", folder.display()));
        }
    }
    for interface in &layout.own_interfaces {
        if Path::new("/sys/class/net").join(interface).exists() {
            return in_the_way(format!("the interface `{interface}`"));
        }
    }
    Ok(())
}

fn make_namespace(state: &mut State, namespace: &Namespace) -> Result<(), LabError> {
    let name = &namespace.name;
    let step = Step::Namespace { name: name.clone(), inode: None };
    state.announce(step.clone())?;
    if let Err(error) = Tool::new("ip").words("netns add").word(name).run() {
        // Then it made nothing; if the name is taken now, it is somebody else's.
        if matches!(error, CommandError::Failed { .. }) {
            state.undone(&step)?;
        }
        return Err(error.into());
    }
    state.namespace_made(name)?;

    let folder = Path::new(ETC).join(name);
    let step = Step::Folder { path: folder.clone() };
    state.announce(step.clone())?;
    if let Err(source) = fs::create_dir(&folder) {
        state.undone(&step)?;
        return Err(io_error(&folder, source));
    }
    let hosts = folder.join("hosts");
    state.announce(Step::File { path: hosts.clone() })?;
    fs::write(&hosts, &namespace.hosts).map_err(|source| io_error(&hosts, source))?;

    apply_settings(namespace)?;
    ip(name, "link set lo up")?;
    for address in &namespace.addresses {
        ip(name, &format!("address add {} dev lo", ipnet::IpNet::from(*address)))?;
    }
    Ok(())
}

/// Writes the kernel's settings on a thread inside the namespace, whose `/proc/sys/net` is the namespace's own.
fn apply_settings(namespace: &Namespace) -> Result<(), LabError> {
    let forwarding: &[(&str, &str)] = if namespace.forwarding { &FORWARDING } else { &[] };
    namespace::run(Some(&namespace.name), || {
        SETTINGS.iter().chain(forwarding).try_for_each(|(key, value)| {
            let path = Path::new("/proc/sys/net").join(key);
            fs::write(&path, value).map_err(|source| io_error(&path, source))
        })
    })?
}

fn make_end(end: &End) -> Result<(), LabError> {
    // Neighbours of the link are found from its link-local addresses, which other devices do without.
    ip(&end.netns, &format!("link set {} addrgenmode eui64 up", end.interface))?;
    for address in &end.addresses {
        ip(&end.netns, &format!("address add {address} dev {}", end.interface))?;
    }
    Ok(())
}

fn ip(netns: &str, words: &str) -> Result<(), LabError> {
    Tool::new("ip").words("-n").word(netns).words(words).run()?;
    Ok(())
}

fn start_server(
    state: &mut State,
    namespace: &Namespace,
    endpoint_sources: &[IpNet],
    folder: &Path,
) -> Result<(), LabError> {
    let netns = &namespace.name;
    let failed = |reason: String| LabError::Server { netns: netns.clone(), reason };
    let program = std::env::current_exe().map_err(|source| io_error(Path::new("/proc/self/exe"), source))?;
    let mut tool = Tool::new("ip").words("netns exec").word(netns).word(program);
    tool = tool.words("lab-serve --netns").word(netns).words("--folder").word(folder);
    for (subject, name) in &namespace.answers {
        tool = tool.words("--answer").word(format!("{subject}={name}"));
    }
    for refusal in &namespace.refusals {
        tool = tool.words("--refuse").word(refusal.to_string());
    }
    if !namespace.refusals.is_empty() {
        for prefix in endpoint_sources {
            tool = tool.words("--endpoint-source").word(prefix.to_string());
        }
    }
    let mut child = tool.spawn(Stdio::null(), Stdio::piped(), Stdio::piped())?;
    let identity = ProcessId::of(child.id()).map_err(|error| failed(error.to_string()))?;
    state.announce(Step::Process { what: format!("web server in {netns}"), id: identity })?;
    wait_for_line(&mut child, "ready", SERVER_START).map_err(|reason| match interrupt::check() {
        Ok(()) => failed(reason),
        Err(interrupted) => CommandError::Interrupted(interrupted).into(),
    })
}

/// Waits until a child says a line that is expected on its stdout; otherwise says why it does not, with its stderr if
/// that is a pipe.
pub(crate) fn wait_for_line(child: &mut Child, expected: &str, patience: Duration) -> Result<(), String> {
    let Some(stdout) = child.stdout.take() else { return Err("its stdout cannot be read".to_owned()) };
    let (sender, lines) = mpsc::channel();
    // Goes on reading to the end, so that the child never writes into a closed pipe.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody listens after the line.
            let _ = sender.send(line);
        }
    });
    let until = Instant::now() + patience;
    loop {
        interrupt::check().map_err(|interrupted| interrupted.to_string())?;
        match lines.recv_timeout(Duration::from_millis(20)) {
            Ok(line) if line.starts_with(expected) => return Ok(()),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) if Instant::now() < until => {}
            Err(RecvTimeoutError::Timeout) => return Err(format!("not ready within {} s", patience.as_secs())),
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                let said = child.stderr.take().and_then(|pipe| io::read_to_string(pipe).ok()).unwrap_or_default();
                return Err(format!("{status} {}", said.trim()).trim_end().to_owned());
            }
        }
    }
}

/// Undoes every step of a lab, the last first, and forgets the lab if nothing remains.
pub(crate) fn remove(state: &mut State) -> Result<(), LabError> {
    let mut reasons = Vec::new();
    for step in state.steps.clone().iter().rev() {
        match undo(step) {
            Ok(()) => state.undone(step)?,
            Err(error) => reasons.push(error.to_string()),
        }
    }
    if reasons.is_empty() {
        return Ok(state.forget()?);
    }
    Err(LabError::Remains { name: state.name.clone(), reasons })
}

fn undo(step: &Step) -> Result<(), LabError> {
    let gone_is_fine = |result: io::Result<()>, path: &Path| match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, error)),
        _ => Ok(()),
    };
    match step {
        Step::Process { what, id } => id.end(GRACE).map_err(|source| LabError::Io { what: what.clone(), source }),
        Step::Namespace { name, inode } => {
            // Another one of the same name is not ours. Without an inode we were stopped between announcing and
            // making it: whatever has the name was made by that step, because nothing had it before.
            let found = namespace_inode(name);
            if found.is_none() || inode.is_some_and(|inode| found != Some(inode)) {
                return Ok(());
            }
            Tool::new("ip").words("netns delete").word(name).uninterruptible().run()?;
            Ok(())
        }
        Step::File { path } => gone_is_fine(fs::remove_file(path), path),
        Step::Tree { path } => gone_is_fine(fs::remove_dir_all(path), path),
        Step::Folder { path } => match fs::remove_dir(path) {
            // Somebody put something there, or another lab still needs it.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            result => gone_is_fine(result, path),
        },
    }
}

fn io_error(path: &Path, source: io::Error) -> LabError {
    LabError::Io { what: path.display().to_string(), source }
}
