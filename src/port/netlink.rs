//! Configuration of interfaces by rtnetlink: synchronous, one request at a time, in the network namespace of the thread
//! that opened the socket (rtnetlink(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, Nla,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::sys;

/// Room for an answer: the kernel's largest single message is below 32 KiB.
const ANSWER: usize = 64 * 1024;

/// What is known of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its number in its namespace.
    pub index: u32,
    /// Its link-layer address; empty for a TUN device.
    pub mac: Vec<u8>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
}

/// What is known of a TUN device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunDevice {
    /// Whether it was made for several queues.
    pub multi_queue: bool,
    /// Queues that processes hold, where it was made for several; unknown for one.
    pub queues: u32,
    /// Its alias: what its maker wrote on it.
    pub alias: Option<String>,
}

/// A connection to the kernel's configuration of one network namespace.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Connects to the namespace that the calling thread is in.
    ///
    /// # Errors
    /// When no socket can be made.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Looks an interface up by its name; `None` if there is none.
    ///
    /// # Errors
    /// When the kernel refuses to answer.
    pub fn interface(&mut self, name: &str) -> io::Result<Option<Interface>> {
        let Some(link) = self.link(name)? else { return Ok(None) };
        let mut interface = Interface {
            index: link.header.index,
            mac: Vec::new(),
            mtu: 0,
            up: link.header.flags.contains(LinkFlags::Up),
        };
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::Address(address) => interface.mac = address,
                LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
                _ => {}
            }
        }
        Ok(Some(interface))
    }

    /// Looks a TUN device up by its name; `None` if there is no interface of the name, or it is of another kind.
    ///
    /// # Errors
    /// When the kernel refuses to answer.
    pub fn tun(&mut self, name: &str) -> io::Result<Option<TunDevice>> {
        // `enum` of IFLA_TUN_* in include/uapi/linux/if_link.h.
        const TYPE: u16 = 3;
        const MULTI_QUEUE: u16 = 7;
        const NUM_QUEUES: u16 = 8;
        const NUM_DISABLED_QUEUES: u16 = 9;
        let Some(link) = self.link(name)? else { return Ok(None) };
        let mut device = TunDevice::default();
        let mut is_tun = false;
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfAlias(alias) => device.alias = Some(alias),
                LinkAttribute::LinkInfo(infos) => {
                    let tun = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Data(InfoData::Tun(values)) => Some(values),
                        _ => None,
                    });
                    for value in tun.into_iter().flatten() {
                        let mut bytes = vec![0; value.value_len()];
                        value.emit_value(&mut bytes);
                        let number = || <[u8; 4]>::try_from(bytes.as_slice()).map_or(0, u32::from_ne_bytes);
                        match value.kind() {
                            TYPE => is_tun = bytes == [sys::IFF_TUN as u8],
                            MULTI_QUEUE => device.multi_queue = bytes == [1],
                            NUM_QUEUES | NUM_DISABLED_QUEUES => device.queues += number(),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(is_tun.then_some(device))
    }

    fn link(&mut self, name: &str) -> io::Result<Option<LinkMessage>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        match self.request(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST) {
            Ok(Some(RouteNetlinkMessage::NewLink(link))) => Ok(Some(link)),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidData, "the kernel did not answer with an interface")),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an alias on an interface, for people and for [`Netlink::tun`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        self.set_attribute(index, LinkAttribute::IfAlias(alias.to_owned()))
    }

    /// The addresses of an interface with their prefix lengths, link-local ones of IPv6 left out.
    ///
    /// # Errors
    /// When the kernel refuses to answer.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<IpNet>> {
        let mut request = AddressMessage::default();
        request.header.index = index;
        let mut addresses = Vec::new();
        self.dump(RouteNetlinkMessage::GetAddress(request), |message| {
            let RouteNetlinkMessage::NewAddress(message) = message else { return };
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            let link_local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
            if message.header.index == index
                && let Some(address) = address.filter(|address| !link_local(address))
                && let Ok(address) = IpNet::new(address, message.header.prefix_len)
            {
                addresses.push(address);
            }
        })?;
        Ok(addresses)
    }

    /// The routes of the main table that [`Netlink::add_route`] made, with their next hops.
    ///
    /// # Errors
    /// When the kernel refuses to answer.
    pub fn routes(&mut self, index: u32) -> io::Result<Vec<(IpNet, Option<IpAddr>)>> {
        let mut routes = Vec::new();
        for (family, any) in [
            (AddressFamily::Inet, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            (AddressFamily::Inet6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        ] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            request.header.table = RouteHeader::RT_TABLE_MAIN;
            request.header.protocol = RouteProtocol::Static;
            request.attributes.push(RouteAttribute::Oif(index));
            self.dump(RouteNetlinkMessage::GetRoute(request), |message| {
                let RouteNetlinkMessage::NewRoute(message) = message else { return };
                let (mut destination, mut via, mut out) = (any, None, None);
                for attribute in &message.attributes {
                    match attribute {
                        RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = (*address).into(),
                        RouteAttribute::Destination(RouteAddress::Inet6(address)) => destination = (*address).into(),
                        RouteAttribute::Gateway(RouteAddress::Inet(address)) => via = Some((*address).into()),
                        RouteAttribute::Gateway(RouteAddress::Inet6(address)) => via = Some((*address).into()),
                        RouteAttribute::Oif(index) => out = Some(*index),
                        _ => {}
                    }
                }
                let ours = out == Some(index)
                    && message.header.table == RouteHeader::RT_TABLE_MAIN
                    && message.header.protocol == RouteProtocol::Static;
                if ours && let Ok(prefix) = IpNet::new(destination, message.header.destination_prefix_length) {
                    routes.push((prefix, via));
                }
            })?;
        }
        Ok(routes)
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets an interface's MTU in bytes.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        self.set_attribute(index, LinkAttribute::Mtu(mtu))
    }

    /// Sets how many packets wait for a reader in each queue of an interface.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_queue_length(&mut self, index: u32, packets: u32) -> io::Result<()> {
        self.set_attribute(index, LinkAttribute::TxQueueLen(packets))
    }

    /// Keeps the kernel from giving the interface a link-local address when it comes up, and so from sending router
    /// solicitations and multicast reports on it. Has to happen before the interface is up.
    ///
    /// # Errors
    /// When the kernel refuses, or has no IPv6.
    pub fn disable_link_local(&mut self, index: u32) -> io::Result<()> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        self.set_attribute(index, LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]))
    }

    /// Puts an address with its prefix length on an interface. IPv6 addresses are usable at once, without duplicate
    /// address detection.
    ///
    /// # Errors
    /// When the kernel refuses; an address that is there already is an error.
    pub fn add_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        let mut message = address_message(index, address);
        if let IpNet::V6(_) = address {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Takes an address from an interface.
    ///
    /// # Errors
    /// When the kernel refuses; an address that is not there is `EADDRNOTAVAIL`.
    pub fn remove_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelAddress(address_message(index, address)), 0)
    }

    /// Adds a route through an interface, straight or by a next hop, with an optional preferred source address.
    ///
    /// # Errors
    /// When the kernel refuses; a route of the same prefix is an error and stays.
    pub fn add_route(
        &mut self,
        index: u32,
        prefix: IpNet,
        via: Option<IpAddr>,
        source: Option<IpAddr>,
    ) -> io::Result<()> {
        let mut message = route_message(index, prefix, via);
        if let Some(source) = source {
            message.attributes.push(RouteAttribute::PrefSource(RouteAddress::from(source)));
        }
        self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Removes a route that leads straight into an interface.
    ///
    /// # Errors
    /// When the kernel refuses; a route that is not there is `ESRCH`.
    pub fn remove_route(&mut self, index: u32, prefix: IpNet) -> io::Result<()> {
        self.change(RouteNetlinkMessage::DelRoute(route_message(index, prefix, None)), 0)
    }

    /// Removes an interface.
    ///
    /// # Errors
    /// When the kernel refuses; also when there is none.
    pub fn delete_interface(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.change(RouteNetlinkMessage::DelLink(message), 0)
    }

    fn set_attribute(&mut self, index: u32, attribute: LinkAttribute) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        self.change(RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sends a change and waits for the kernel's word.
    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.request(message, NLM_F_REQUEST | NLM_F_ACK | flags).map(|_| ())
    }

    /// Sends one message and waits for its one answer: `None` where it is an acknowledgement.
    fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<RouteNetlinkMessage>> {
        self.send(message, flags)?;
        let mut answer = None;
        self.receive(|payload| match payload {
            NetlinkPayload::InnerMessage(message) => {
                answer = Some(message);
                true
            }
            _ => true,
        })?;
        Ok(answer)
    }

    /// Asks for a list, narrowed down by the kernel where it knows how to (since 4.20): what comes may be more.
    fn dump(&mut self, message: RouteNetlinkMessage, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        let _older_kernel = self.socket.set_netlink_get_strict_chk(true);
        let result = self.send(message, NLM_F_REQUEST | NLM_F_DUMP).and_then(|()| {
            self.receive(|payload| match payload {
                NetlinkPayload::InnerMessage(message) => {
                    each(message);
                    false
                }
                _ => true,
            })
        });
        let _older_kernel = self.socket.set_netlink_get_strict_chk(false);
        result
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Receives what answers the last request, until `last` says that nothing follows.
    fn receive(&mut self, mut last: impl FnMut(NetlinkPayload<RouteNetlinkMessage>) -> bool) -> io::Result<()> {
        loop {
            let mut answer = Vec::with_capacity(ANSWER);
            self.socket.recv(&mut answer, 0)?;
            let mut rest = answer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                // Messages are padded to four bytes.
                let length = (message.header.length as usize).next_multiple_of(4).max(4);
                rest = rest.get(length..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    payload => {
                        if last(payload) {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address.addr()));
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message
}

fn route_message(index: u32, prefix: IpNet, via: Option<IpAddr>) -> RouteMessage {
    let prefix = prefix.trunc();
    let mut message = RouteMessage::default();
    message.header.address_family = family(prefix.addr());
    message.header.destination_prefix_length = prefix.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = match (prefix, via) {
        (IpNet::V4(_), None) => RouteScope::Link,
        _ => RouteScope::Universe,
    };
    if prefix.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(prefix.addr())));
    }
    if let Some(via) = via {
        message.attributes.push(RouteAttribute::Gateway(RouteAddress::from(via)));
    }
    message.attributes.push(RouteAttribute::Oif(index));
    message
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found() {
        let mut netlink = Netlink::open().expect("open");
        let interface = netlink.interface("lo").expect("ask").expect("lo");
        assert_eq!((interface.index, interface.mac.as_slice(), interface.mtu), (1, [0; 6].as_slice(), 65_536));
    }

    #[test]
    fn an_interface_that_is_not_there_is_none() {
        let mut netlink = Netlink::open().expect("open");
        assert_eq!(netlink.interface("ss-port-none").expect("ask"), None);
        assert_eq!(netlink.tun("ss-port-none").expect("ask"), None);
        assert_eq!(netlink.tun("lo").expect("ask"), None, "it is of another kind");
    }

    #[test]
    fn addresses_are_those_of_the_interface() {
        let mut netlink = Netlink::open().expect("open");
        let loopback: IpNet = "127.0.0.1/8".parse().expect("a net");
        assert!(netlink.addresses(1).expect("ask").contains(&loopback));
        assert_eq!(netlink.addresses(0x7fff_fff0).unwrap_or_default(), []);
        assert_eq!(netlink.routes(0x7fff_fff0).unwrap_or_default(), []);
    }

    #[test]
    fn a_refusal_is_the_kernels_error() {
        let error = Netlink::open().expect("open").set_mtu(0x7fff_fff0, 1500).expect_err("refused");
        assert!(matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)), "{error}");
    }
}
