//! Opens a device as a network document describes it: in its namespace, with addresses, routes and MTU, up, and in its
//! wrappers.
//!
//! What is made here lives as long as its descriptors: a TUN device with its addresses and routes is gone when its ports
//! are dropped, or when the process ends in whatever way. If a step fails, the same happens at once. An Ethernet
//! interface belongs to somebody else: it is brought up, and nothing else of it is changed.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ipnet::IpNet;

use super::ethernet::Identity;
use super::link::{self, Link};
use super::namespace::{self, NamespaceError};
use super::netlink::Netlink;
use super::pcap::Pcap;
use super::tun::TunError;
use super::{Port, ethernet, plain, tun};

/// Packets that wait for us in each queue of a TUN device. The kernel's 500 overflow in a burst of one fast connection;
/// 4096 small packets are 2 ms at two million packets in a second.
const QUEUE_LENGTH: u32 = 4096;

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
        "port `{port}`: the interface `{interface}` exists already in {namespace}: another sidestep may be running, or \
         something else made it; stop that one, remove the interface (`ip link delete {interface}`) or choose another \
         name"
    )]
    Exists {
        /// The port.
        port: String,
        /// The interface.
        interface: String,
        /// Where it is.
        namespace: String,
    },
    /// An Ethernet interface is to be attached to that another node has.
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
        return Err(settings.exists_error());
    }
    let ports = match settings.io {
        Io::Plain => open_plain(settings)?,
        Io::Offload => match tun::open(interface, settings.queues) {
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
    for address in &settings.addresses {
        netlink.add_address(index, *address).map_err(step(&format!("add the address {address}")))?;
    }
    netlink.set_up(index).map_err(step("bring the interface up"))?;
    for (prefix, via) in &settings.routes {
        let by_address = via.is_none() && settings.addresses.iter().any(|address| address.trunc() == prefix.trunc());
        if !by_address {
            netlink.add_route(index, *prefix, *via, None).map_err(step(&format!("add the route {prefix}")))?;
        }
    }
    Ok(ports)
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
        Some(libc::EBUSY | libc::EEXIST) => settings.exists_error(),
        _ => settings.step_error("make the device".to_owned(), error),
    })?;
    Ok(vec![Box::new(port)])
}

fn tun_error(settings: &Settings, error: TunError) -> OpenError {
    let (port, interface) = (settings.name.clone(), settings.interface.name().to_owned());
    match error {
        TunError::Driver(source) => OpenError::Driver { port, interface, source },
        TunError::Exists => settings.exists_error(),
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
        io::ErrorKind::AddrInUse => OpenError::Taken {
            port: settings.name.clone(),
            interface: name.clone(),
            namespace: settings.namespace_text(),
        },
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
    fn an_existing_interface_is_named_with_the_remedies() {
        let error = OpenError::Exists {
            port: "vm1".to_owned(),
            interface: "eth0".to_owned(),
            namespace: "the network namespace `vm1`".to_owned(),
        };
        assert_eq!(
            error.to_string(),
            "port `vm1`: the interface `eth0` exists already in the network namespace `vm1`: another sidestep may be \
             running, or something else made it; stop that one, remove the interface (`ip link delete eth0`) or choose \
             another name"
        );
    }
}
