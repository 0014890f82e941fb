//! Checks how ports are attached: interfaces, links, captures.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;

use super::Context;
use crate::model::document;
use crate::model::names::{Unique, check_interface_name, check_netns_name};
use crate::model::network::{Device, Interface, Link};

/// The MTU of an interface unless the document gives one.
const DEFAULT_MTU: u16 = 1500;
/// From the smallest that IPv6 allows (RFC 8200 section 5) to the usual jumbo frame.
const MTU: std::ops::RangeInclusive<i64> = 1280..=9000;

/// What devices must not share.
pub(super) struct Devices {
    interfaces: HashMap<(Option<String>, String), Range<usize>>,
    captures: Unique<PathBuf>,
}

impl Devices {
    /// No device yet.
    pub(super) fn new() -> Self {
        Self { interfaces: HashMap::new(), captures: Unique::new("capture file") }
    }

    /// Checks a device.
    pub(super) fn check(
        &mut self,
        context: Context<'_>,
        written: &Option<Spanned<document::Device>>,
    ) -> Option<Device> {
        let written = written.as_ref()?;
        let (place, device) = (written.span(), written.get_ref());
        if let Some(netns) = &device.netns {
            check_netns_name(netns, context.report);
        }
        let interface = interface(context, &place, device);
        if let Some(name) = device.tun.as_ref().or(device.ethernet.as_ref()) {
            check_interface_name(name, context.report);
            self.note_interface(context, device, name);
        }
        let mtu = context.integer(&device.mtu, "mtu", MTU).and_then(|mtu| u16::try_from(mtu).ok());
        let pcap = device.pcap.as_ref().and_then(|written| {
            let path = context.path(written)?;
            self.captures.note(path.clone(), written.get_ref(), written.span(), context.report);
            Some(path)
        });
        Some(Device {
            interface: interface?,
            netns: device.netns.as_ref().map(|netns| netns.get_ref().clone()),
            mtu: mtu.unwrap_or(DEFAULT_MTU),
            link: device.link.as_ref().map(|written| link(context, written.get_ref())),
            pcap,
        })
    }

    fn note_interface(&mut self, context: Context<'_>, device: &document::Device, name: &document::Text) {
        let netns = device.netns.as_ref().map(|netns| netns.get_ref().clone());
        let shown =
            netns.as_ref().map_or("the node's own namespace".to_owned(), |netns| format!("namespace `{netns}`"));
        let key = (netns, name.get_ref().clone());
        if let Some(first) = self.interfaces.get(&key) {
            context.report.mistake_with_help(
                &name.span(),
                format!("the interface `{}` is in {shown} twice", name.get_ref()),
                format!("the first one is in line {}", context.report.line(first)),
            );
        } else {
            self.interfaces.insert(key, name.span());
        }
    }
}

fn interface(context: Context<'_>, place: &Range<usize>, device: &document::Device) -> Option<Interface> {
    let mut addresses = Unique::new("address");
    for address in device.addresses.iter() {
        let host = address.get_ref().0.addr();
        addresses.note(host, &host.to_string(), address.span(), context.report);
        if let Some(what) = super::ranges::no_host(host) {
            // A link-local address is what an interface may have more than others.
            if what != "link-local" {
                context.report.mistake(&address.span(), format!("no interface has the address `{host}` ({what})"));
            }
        }
    }
    let addresses = device.addresses.iter().map(|address| address.get_ref().0).collect();
    match (&device.tun, &device.ethernet) {
        (Some(_), Some(ethernet)) => {
            context.report.mistake_with_help(
                &ethernet.span(),
                "a device is either `tun` or `ethernet`",
                "keep `tun` for an interface that the node makes, `ethernet` for one that is there",
            );
            None
        }
        (None, None) => {
            context.report.mistake_with_help(
                place,
                "a device needs an interface",
                "add tun = \"eth0\" for an interface that the node makes, or ethernet = \"eth0\" for one that is there",
            );
            None
        }
        (Some(tun), None) => {
            if let Some(next_hop) = &device.next_hop {
                context.report.mistake_with_help(
                    &next_hop.span(),
                    "a TUN device has no next hop: all that is sent to it arrives",
                    "remove next_hop, or attach with `ethernet`",
                );
            }
            Some(Interface::Tun { name: tun.get_ref().clone(), addresses })
        }
        (None, Some(ethernet)) => {
            let next_hop = next_hops(context, device);
            Some(Interface::Ethernet { name: ethernet.get_ref().clone(), addresses, next_hop })
        }
    }
}

/// At most one next hop of each family, each on a link of the device.
fn next_hops(context: Context<'_>, device: &document::Device) -> Vec<IpAddr> {
    let Some(written) = &device.next_hop else {
        return Vec::new();
    };
    let list = &written.get_ref().0;
    one_of_each_family(context, list, "next hop");
    for hop in list.iter() {
        let (place, hop) = (hop.span(), *hop.get_ref());
        let link_local = matches!(hop, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let on_link = device.addresses.iter().any(|address| address.get_ref().0.trunc().contains(&hop));
        if !on_link && !link_local && device.addresses.complete {
            context.report.mistake_with_help(
                &place,
                format!("the next hop `{hop}` is on no link of the device"),
                "give `addresses` an address with a prefix that holds the next hop",
            );
        }
    }
    list.iter().map(|hop| *hop.get_ref()).collect()
}

/// Reports a second address of a family.
pub(super) fn one_of_each_family(context: Context<'_>, list: &[Spanned<IpAddr>], what: &str) {
    for family in [true, false] {
        if let Some(second) = list.iter().filter(|address| address.get_ref().is_ipv4() == family).nth(1) {
            let family = if family { "IPv4" } else { "IPv6" };
            context.report.mistake(&second.span(), format!("there is a second {family} {what}: one is the limit"));
        }
    }
}

fn link(context: Context<'_>, written: &document::Link) -> Link {
    let seed = context.integer(&written.seed, "seed", 0..=i64::MAX);
    Link {
        delay: written.delay.as_ref().map(|delay| delay.get_ref().0).unwrap_or_default(),
        rate: written.rate.as_ref().map(|rate| rate.get_ref().0),
        loss: written.loss.as_ref().map_or(0.0, |loss| loss.get_ref().0),
        reorder: written.reorder.as_ref().map_or(0.0, |reorder| reorder.get_ref().0),
        seed: seed.map_or(0, i64::unsigned_abs),
    }
}
