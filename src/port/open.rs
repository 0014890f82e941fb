//! Opens a device as a network document describes it: in its namespace, with addresses, routes and MTU, up, and in its
//! wrappers.
//!
//! What is made here lives as long as its descriptors: a TUN device with its addresses and routes is gone when its ports
//! are dropped, or when the process ends in whatever way. If a step fails, the same happens at once. A device that was
//! made persistent ([`Port::set_persistent`]) stays, and the next node can take it over: it has to be a TUN device with
//! sidestep's alias that no process holds, and is given the addresses and routes that are asked for now. An Ethernet
//! interface belongs to somebody else: it is brought up, and nothing else of it is changed.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ipnet::IpNet;

use super::ethernet::Identity;
use super::link::{self, Link};
use super::namespace::{self, NamespaceError};
use super::netlink::{Netlink, TunDevice};
use super::pcap::Pcap;
use super::tun::TunError;
use super::{Port, ethernet, plain, tun};

/// Packets that wait for us in each queue of a TUN device. The kernel's 500 overflow in a burst of one fast connection;
/// 4096 small packets are 2 ms at two million packets in a second.
const QUEUE_LENGTH: u32 = 4096;

/// The alias of devices that may be taken over begins with this; the port's name follows.
const ALIAS: &str = "sidestep port ";

/// A device to open.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// What the port is called in the node, for captures and errors.
    pub name: String,
    /// Kind and name of the interface.
    pub interface: Interface,
    /// The network namespace, as `ip netns` shows it; none for the caller's own.
    pub netns: Option<String>,
    /// MTU in bytes.
    pub mtu: u16,
    /// TUN: addresses with prefix lengths for the kernel's side.
    pub addresses: Vec<IpNet>,
    /// TUN: routes through the interface, straight or by a next hop. One that is the prefix of an address is there by
    /// the address.
    pub routes: Vec<(IpNet, Option<IpAddr>)>,
    /// The line in front of the device.
    pub link: Option<link::Settings>,
    /// Where packets are captured; with several queues, each but the first puts its number before the extension.
    pub pcap: Option<PathBuf>,
    /// How a TUN device is opened.
    pub io: Io,
    /// How many ports share the device's packets; at least 1.
    pub queues: u16,
    /// TUN: a device of the name that an earlier node left is taken over, and a new one is marked for that.
    pub persistent: bool,
}

/// Kind and name of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interface {
    /// A TUN device that is made.
    Tun {
        /// Its name.
        name: String,
    },
    /// An interface that exists.
    Ethernet {
        /// Its name.
        name: String,
        /// Our own addresses on its link, with the prefixes that are on the link.
        addresses: Vec<IpNet>,
        /// Routers behind which everything off-link is; one for each family.
        next_hop: Vec<IpAddr>,
    },
}

impl Interface {
    fn name(&self) -> &str {
        match self {
            Self::Tun { name } | Self::Ethernet { name, .. } => name,
        }
    }
}

/// How TUN devices are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Io {
    /// With the virtio net header and segmentation offload; falls back aloud.
    #[default]
    Offload,
    /// One packet, one frame.
    Plain,
}

/// Why a device could not be opened. Every text names the port, the interface and its namespace.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The namespace is missing or closed to us.
    #[error("port `{port}`: {source}")]
    Namespace {
        /// The port.
        port: String,
        /// Why.
        source: NamespaceError,
    },
    /// A TUN device is to be made whose name is taken.
    #[error(
        "port `{port}`: the interface `{interface}` exists already in {namespace}: another sidestep may be running, one \
         with `--state` may have left it, or something else made it; stop that one, remove the interface (`{remove}`) or \
         choose another name"
    )]
    Exists {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// Where it is.
        namespace: String,
        /// The command that removes it.
        remove: String,
    },
    /// A TUN device is to be made or taken over whose name something else has.
    #[error(
        "port `{port}`: the interface `{interface}` in {namespace} is not one that sidestep left: {what}; remove it \
         (`{remove}`) or choose another name"
    )]
    Foreign {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// Where it is.
        namespace: String,
        /// What it is instead.
        what: &'static str,
        /// The command that removes it.
        remove: String,
    },
    /// A TUN device is to be taken over that was made for another number of workers.
    #[error(
        "port `{port}`: the interface `{interface}` in {namespace} was left by a node with {} and cannot be taken over \
         by one with {}; start with as many workers as before or remove it (`{remove}`)",
         if *.several { "several workers" } else { "one worker" },
         if *.several { "one" } else { "several" }
    )]
    Shape {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// Where it is.
        namespace: String,
        /// Whether it was made for several.
        several: bool,
        /// The command that removes it.
        remove: String,
    },
    /// An interface is to be attached to that another node has.
    #[error(
        "port `{port}`: another sidestep is attached to the interface `{interface}` in {namespace}; stop that one first"
    )]
    Taken {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// Where it is.
        namespace: String,
    },
    /// An Ethernet interface is to be attached to that does not exist.
    #[error("port `{port}`: there is no interface `{interface}` in {namespace}")]
    Missing {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// Where it is not.
        namespace: String,
    },
    /// An Ethernet interface takes only smaller packets.
    #[error(
        "port `{port}`: the interface `{interface}` in {namespace} has an MTU of {has}, less than the {wanted} of the \
         port; `ip link set {interface} mtu {wanted}` changes it"
    )]
    Mtu {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// Where it is.
        namespace: String,
        /// Its MTU in bytes.
        has: u32,
        /// The port's in bytes.
        wanted: u16,
    },
    /// Several queues are asked of a TUN device that has one.
    #[error(
        "port `{port}`: a plain TUN device has one queue and {queues} are asked for `{interface}`; use one worker or \
         offload"
    )]
    Queues {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// How many were asked for.
        queues: u16,
    },
    /// The driver of TUN devices cannot be used.
    #[error(
        "port `{port}`: cannot use /dev/net/tun for the interface `{interface}`: {source}; it needs root or CAP_NET_ADMIN, \
         and the kernel's tun module"
    )]
    Driver {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// The capture cannot be written.
    #[error("port `{port}`: cannot write the capture `{}`: {source}", path.display())]
    Capture {
        /// The port.
        port: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A step failed.
    #[error("port `{port}`: cannot {step} (`{interface}` in {namespace}): {source}")]
    Step {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// Where it is.
        namespace: String,
        /// What was tried.
        step: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Opens a device and gives one port for each queue.
///
/// # Errors
/// [`OpenError`]; nothing that was made is left.
pub fn open(settings: &Settings) -> Result<Vec<Box<dyn Port>>, OpenError> {
    let opened = namespace::run(settings.netns.as_deref(), || match &settings.interface {
        Interface::Tun { .. } => open_tun(settings),
        Interface::Ethernet { .. } => open_ethernet(settings),
    });
    let ports = opened.map_err(|source| OpenError::Namespace { port: settings.name.clone(), source })??;
    ports.into_iter().enumerate().map(|(queue, port)| wrap(settings, queue, port)).collect()
}

fn open_tun(settings: &Settings) -> Result<Vec<Box<dyn Port>>, OpenError> {
    let interface = settings.interface.name();
    let step = |step: &str| {
        let step = step.to_owned();
        move |source| settings.step_error(step, source)
    };
    let mut netlink = Netlink::open().map_err(step("reach the kernel's configuration"))?;
    let found = netlink.interface(interface).map_err(step("look for the interface"))?;
    if found.is_some() {
        if !settings.persistent {
            return Err(settings.exists_error());
        }
        may_take_over(settings, netlink.tun(interface).map_err(step("look for the interface"))?)?;
    }
    let take_over = found.is_some();
    let ports = match settings.io {
        Io::Plain => open_plain(settings)?,
        Io::Offload => match tun::open(interface, settings.queues, take_over) {
            Ok(queues) => queues.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect(),
            Err(TunError::NoOffload) => {
                tracing::warn!(port = settings.name, interface, "the kernel has no offload for TUN: plain it is");
                open_plain(settings)?
            }
            Err(error) => return Err(tun_error(settings, error)),
        },
    };
    let created = netlink.interface(interface).map_err(step("look for the interface"))?;
    let index = created
        .ok_or_else(|| settings.step_error("find the interface".to_owned(), io::ErrorKind::NotFound.into()))?
        .index;
    netlink.set_queue_length(index, QUEUE_LENGTH).map_err(step("set the queue length"))?;
    netlink.set_mtu(index, u32::from(settings.mtu)).map_err(step("set the MTU"))?;
    if let Err(error) = netlink.disable_link_local(index) {
        // A kernel without IPv6, or an MTU below 1280: then nothing is sent that this would keep quiet.
        tracing::debug!(interface, %error, "link-local addresses stay as the kernel makes them");
    }
    if settings.persistent {
        netlink.set_alias(index, &format!("{ALIAS}{}", settings.name)).map_err(step("mark the interface"))?;
    }
    let present = if take_over { netlink.addresses(index).map_err(step("ask for the addresses"))? } else { Vec::new() };
    for address in present.iter().filter(|address| !settings.addresses.contains(address)) {
        netlink.remove_address(index, *address).map_err(step(&format!("remove the address {address}")))?;
    }
    for address in &settings.addresses {
        match netlink.add_address(index, *address) {
            // A further address of a prefix may have gone with its first.
            Err(error) if take_over && error.raw_os_error() == Some(libc::EEXIST) => {}
            result => result.map_err(step(&format!("add the address {address}")))?,
        }
    }
    netlink.set_up(index).map_err(step("bring the interface up"))?;
    let wanted: Vec<(IpNet, Option<IpAddr>)> = settings
        .routes
        .iter()
        .map(|(prefix, via)| (prefix.trunc(), *via))
        .filter(|(prefix, via)| {
            let by_address = settings.addresses.iter().any(|address| address.trunc() == *prefix);
            via.is_some() || !by_address
        })
        .collect();
    let present = if take_over { netlink.routes(index).map_err(step("ask for the routes"))? } else { Vec::new() };
    for (prefix, _) in present.iter().filter(|route| !wanted.contains(route)) {
        netlink.remove_route(index, *prefix).map_err(step(&format!("remove the route {prefix}")))?;
    }
    for (prefix, via) in wanted.into_iter().filter(|route| !present.contains(route)) {
        netlink.add_route(index, prefix, via, None).map_err(step(&format!("add the route {prefix}")))?;
    }
    Ok(ports)
}

/// Whether an interface that exists is one that an earlier node left, as this one needs it.
fn may_take_over(settings: &Settings, device: Option<TunDevice>) -> Result<(), OpenError> {
    let foreign = |what| OpenError::Foreign {
        port: settings.name.clone(),
        interface: settings.interface.name().to_owned(),
        namespace: settings.namespace_text(),
        what,
        remove: settings.remove_text(),
    };
    let device = device.ok_or_else(|| foreign("it is no TUN device"))?;
    if device.queues > 0 {
        return Err(settings.taken_error());
    }
    if !device.alias.is_some_and(|alias| alias.starts_with(ALIAS)) {
        return Err(foreign("something else made it"));
    }
    if device.multi_queue != (settings.queues > 1) {
        return Err(OpenError::Shape {
            port: settings.name.clone(),
            interface: settings.interface.name().to_owned(),
            namespace: settings.namespace_text(),
            several: device.multi_queue,
            remove: settings.remove_text(),
        });
    }
    Ok(())
}

fn open_plain(settings: &Settings) -> Result<Vec<Box<dyn Port>>, OpenError> {
    let interface = settings.interface.name();
    if settings.queues > 1 {
        return Err(OpenError::Queues {
            port: settings.name.clone(),
            interface: interface.to_owned(),
            queues: settings.queues,
        });
    }
    // For its error, which tun-tap's does not tell from others.
    tun::open_driver().map_err(|error| tun_error(settings, TunError::Driver(error)))?;
    let port = plain::open(interface).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => settings.in_use_error(),
        _ => settings.step_error("make the device".to_owned(), error),
    })?;
    Ok(vec![Box::new(port)])
}

fn tun_error(settings: &Settings, error: TunError) -> OpenError {
    let (port, interface) = (settings.name.clone(), settings.interface.name().to_owned());
    match error {
        TunError::Driver(source) => OpenError::Driver { port, interface, source },
        TunError::Exists => settings.in_use_error(),
        TunError::NoOffload => settings.step_error("use offload".to_owned(), io::ErrorKind::Unsupported.into()),
        TunError::NoQueues => settings.step_error("use several queues".to_owned(), io::ErrorKind::Unsupported.into()),
        TunError::Step(_, source) if source.raw_os_error() == Some(libc::EPERM) => {
            OpenError::Driver { port, interface, source }
        }
        TunError::Step(step, source) => settings.step_error(step.to_owned(), source),
    }
}

fn open_ethernet(settings: &Settings) -> Result<Vec<Box<dyn Port>>, OpenError> {
    let Interface::Ethernet { name, addresses, next_hop } = &settings.interface else { return Ok(Vec::new()) };
    let step = |step: &str| {
        let step = step.to_owned();
        move |source| settings.step_error(step, source)
    };
    let mut netlink = Netlink::open().map_err(step("reach the kernel's configuration"))?;
    let found = netlink.interface(name).map_err(step("look for the interface"))?.ok_or_else(|| OpenError::Missing {
        port: settings.name.clone(),
        interface: name.clone(),
        namespace: settings.namespace_text(),
    })?;
    if found.mtu < u32::from(settings.mtu) {
        return Err(OpenError::Mtu {
            port: settings.name.clone(),
            interface: name.clone(),
            namespace: settings.namespace_text(),
            has: found.mtu,
            wanted: settings.mtu,
        });
    }
    if !found.up {
        netlink.set_up(found.index).map_err(step("bring the interface up"))?;
    }
    let identity =
        Identity { name: name.clone(), interface: found, addresses: addresses.clone(), next_hop: next_hop.clone() };
    let ports = ethernet::open(identity, settings.queues).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => settings.taken_error(),
        _ => settings.step_error("attach to the interface".to_owned(), error),
    })?;
    Ok(ports.into_iter().map(|port| Box::new(port) as Box<dyn Port>).collect())
}

/// Puts the line around a port and the capture around both: it shows packets as the node meets them.
fn wrap(settings: &Settings, queue: usize, port: Box<dyn Port>) -> Result<Box<dyn Port>, OpenError> {
    let port = match settings.link {
        Some(link) => {
            // Each queue's line draws differently, and the same in every run.
            let seed = link.seed.wrapping_add(queue as u64);
            Box::new(Link::new(port, link::Settings { seed, ..link })) as Box<dyn Port>
        }
        None => port,
    };
    let Some(path) = &settings.pcap else { return Ok(port) };
    let path = capture_path(path, queue);
    match Pcap::new(port, settings.interface.name(), &path, Instant::now()) {
        Ok(pcap) => Ok(Box::new(pcap)),
        Err(source) => Err(OpenError::Capture { port: settings.name.clone(), path, source }),
    }
}

/// `edge.pcapng`, `edge.1.pcapng`, `edge.2.pcapng`.
fn capture_path(path: &Path, queue: usize) -> PathBuf {
    if queue == 0 {
        return path.to_owned();
    }
    match path.extension() {
        Some(extension) => path.with_extension(format!("{queue}.{}", extension.to_string_lossy())),
        None => path.with_extension(queue.to_string()),
    }
}

impl Settings {
    fn namespace_text(&self) -> String {
        match &self.netns {
            Some(name) => format!("the network namespace `{name}`"),
            None => "the network namespace of this process".to_owned(),
        }
    }

    fn exists_error(&self) -> OpenError {
        OpenError::Exists {
            port: self.name.clone(),
            interface: self.interface.name().to_owned(),
            namespace: self.namespace_text(),
            remove: self.remove_text(),
        }
    }

    fn taken_error(&self) -> OpenError {
        OpenError::Taken {
            port: self.name.clone(),
            interface: self.interface.name().to_owned(),
            namespace: self.namespace_text(),
        }
    }

    /// The driver says that the name is in use.
    fn in_use_error(&self) -> OpenError {
        if self.persistent { self.taken_error() } else { self.exists_error() }
    }

    fn remove_text(&self) -> String {
        let name = self.interface.name();
        match &self.netns {
            Some(netns) => format!("ip -n {netns} link delete {name}"),
            None => format!("ip link delete {name}"),
        }
    }

    fn step_error(&self, step: String, source: io::Error) -> OpenError {
        OpenError::Step {
            port: self.name.clone(),
            interface: self.interface.name().to_owned(),
            namespace: self.namespace_text(),
            step,
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_capture_to_files_of_their_own() {
        let path = Path::new("/captures/edge.pcapng");
        assert_eq!(capture_path(path, 0), path);
        assert_eq!(capture_path(path, 2), Path::new("/captures/edge.2.pcapng"));
        assert_eq!(capture_path(Path::new("edge"), 1), Path::new("edge.1"));
    }

    #[test]
    fn a_device_that_cannot_be_taken_over_is_told_from_one_that_can() {
        let settings = |queues| Settings {
            name: "vm1".to_owned(),
            interface: Interface::Tun { name: "eth0".to_owned() },
            netns: None,
            mtu: 1500,
            addresses: vec![],
            routes: vec![],
            link: None,
            pcap: None,
            io: Io::Offload,
            queues,
            persistent: true,
        };
        let left = TunDevice { multi_queue: false, queues: 0, alias: Some("sidestep port vm1".to_owned()) };
        let several = TunDevice { multi_queue: true, ..left.clone() };
        assert!(may_take_over(&settings(1), Some(left.clone())).is_ok());
        assert!(may_take_over(&settings(2), Some(several.clone())).is_ok());
        let text = |queues, device| may_take_over(&settings(queues), device).expect_err("refused").to_string();
        assert!(
            text(1, None).contains("is not one that sidestep left: it is no TUN device; remove it (`ip link delete")
        );
        assert!(text(1, Some(TunDevice { alias: None, ..left.clone() })).contains("something else made it"));
        assert!(text(2, Some(TunDevice { queues: 2, ..several.clone() })).contains("another sidestep is attached"));
        assert!(
            text(2, Some(left)).contains("left by a node with one worker and cannot be taken over by one with several")
        );
        assert!(text(1, Some(several)).contains("left by a node with several workers"));
    }

    #[test]
    fn an_existing_interface_is_named_with_the_remedies() {
        let error = OpenError::Exists {
            port: "vm1".to_owned(),
            interface: "eth0".to_owned(),
            namespace: "the network namespace `vm1`".to_owned(),
            remove: "ip -n vm1 link delete eth0".to_owned(),
        };
        assert_eq!(
            error.to_string(),
            "port `vm1`: the interface `eth0` exists already in the network namespace `vm1`: another sidestep may be \
             running, one with `--state` may have left it, or something else made it; stop that one, remove the \
             interface (`ip -n vm1 link delete eth0`) or choose another name"
        );
    }
}
