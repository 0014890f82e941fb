//! Real devices: what the document says about a port, as the settings of `port::open`, and changes of the addresses and
//! routes of a device that is open.

use std::io;

use super::dataplane::{Devices, Queues};
use super::ports::Attachment;
use super::refusal::Refusal;
use crate::model::network::{self, IoMode, Network};
use crate::port::netlink::Netlink;
use crate::port::open::{self, Interface, Io, OpenError, Settings};
use crate::port::{link, namespace};

/// Opens devices of this machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KernelDevices {
    io: Io,
    queues: u16,
    persistent: bool,
}

impl KernelDevices {
    /// Devices with as many queues as the network has workers; persistent ones stay when the process ends, and are taken
    /// over where they are there.
    pub(crate) fn new(network: &Network, persistent: bool) -> Self {
        let io = match network.io {
            IoMode::Offload => Io::Offload,
            IoMode::Plain => Io::Plain,
        };
        Self { io, queues: network.workers, persistent }
    }

    fn settings(self, attachment: &Attachment) -> Settings {
        let device = &attachment.device;
        let interface = match &device.interface {
            network::Interface::Tun { name, .. } => Interface::Tun { name: name.clone() },
            network::Interface::Ethernet { name, addresses, next_hop } => {
                Interface::Ethernet { name: name.clone(), addresses: addresses.clone(), next_hop: next_hop.clone() }
            }
        };
        Settings {
            name: attachment.name.clone(),
            interface,
            netns: device.netns.clone(),
            mtu: device.mtu,
            addresses: attachment.addresses.clone(),
            routes: attachment.routes.iter().map(|route| (*route, None)).collect(),
            link: device.link.map(|line| link::Settings {
                delay: line.delay,
                rate: line.rate,
                loss: line.loss,
                reorder: line.reorder,
                seed: line.seed,
                ..link::Settings::default()
            }),
            pcap: device.pcap.clone(),
            io: self.io,
            queues: self.queues,
            persistent: self.persistent,
        }
    }
}

impl Devices for KernelDevices {
    fn open(&self, attachment: &Attachment) -> Result<Queues, Refusal> {
        open::open(&self.settings(attachment)).map_err(|error| match error {
            OpenError::Exists { .. }
            | OpenError::Taken { .. }
            | OpenError::Foreign { .. }
            | OpenError::Shape { .. } => Refusal::Conflict(error.to_string()),
            other => Refusal::Failed(other.to_string()),
        })
    }

    fn keep(&self, queues: &mut Queues) -> io::Result<()> {
        match queues.first_mut() {
            Some(queue) if self.persistent => queue.set_persistent(true),
            _ => Ok(()),
        }
    }

    fn adjust(&self, before: &Attachment, after: &Attachment) -> Result<(), Refusal> {
        let failed = |reason: String| {
            let interface = after.interface();
            Refusal::Failed(format!("port `{}`: cannot change the interface `{interface}`: {reason}", after.name))
        };
        let done = namespace::run(after.device.netns.as_deref(), || -> Result<(), String> {
            let mut netlink = Netlink::open().map_err(|error| error.to_string())?;
            let found = netlink.interface(after.interface()).map_err(|error| error.to_string())?;
            let index = found.ok_or_else(|| "it is not there".to_owned())?.index;
            change(&mut netlink, index, before, after).inspect_err(|_| {
                if let Err(reason) = change(&mut netlink, index, after, before) {
                    tracing::error!(port = after.name, reason, "cannot take a change of the interface back");
                }
            })
        });
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(failed(reason)),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

/// Brings an interface from one set of addresses and routes to another. What should be gone and is, or should be there
/// and is, is no error: the kernel drops routes and further addresses of a prefix with its first address.
fn change(netlink: &mut Netlink, index: u32, from: &Attachment, to: &Attachment) -> Result<(), String> {
    let step = |what: &str, result: io::Result<()>, fine: &[i32]| match result {
        Err(error) if !error.raw_os_error().is_some_and(|code| fine.contains(&code)) => Err(format!("{what}: {error}")),
        _ => Ok(()),
    };
    for route in from.routes.iter().filter(|route| !to.routes.contains(route) && !from.covers(route)) {
        step(&format!("remove the route {route}"), netlink.remove_route(index, *route), &[libc::ESRCH])?;
    }
    for address in from.addresses.iter().filter(|address| !to.addresses.contains(address)) {
        let gone = [libc::EADDRNOTAVAIL];
        step(&format!("remove the address {address}"), netlink.remove_address(index, *address), &gone)?;
    }
    for address in &to.addresses {
        step(&format!("add the address {address}"), netlink.add_address(index, *address), &[libc::EEXIST])?;
    }
    for route in to.routes.iter().filter(|route| !to.covers(route)) {
        // A new route that is there already is another interface's.
        let fine: &[i32] = if from.routes.contains(route) { &[libc::EEXIST] } else { &[] };
        step(&format!("add the route {route}"), netlink.add_route(index, *route, None, None), fine)?;
    }
    Ok(())
}
