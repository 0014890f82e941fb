//! The system calls that no safe library covers: the TUN driver's ioctls, the options of packet sockets, what a TCP connection
//! has not been acknowledged, and advice about memory.
//!
//! This is the only module of the crate with `unsafe`. Every function about descriptors takes a borrowed one and plain values,
//! and hands the kernel nothing but local variables whose size the kernel knows.
//!
//! Sources: `include/uapi/linux/if_tun.h`, `include/uapi/linux/if_packet.h`, packet(7), tcp(7), madvise(2).
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{self, Getter, IntegerSetter, Opcode, Setter, Updater, opcode};

/// A TUN device: packets without an Ethernet header.
pub(crate) const IFF_TUN: u16 = 0x0001;
/// Packets without the four bytes of packet information.
pub(crate) const IFF_NO_PI: u16 = 0x1000;
/// Each packet carries a virtio net header.
pub(crate) const IFF_VNET_HDR: u16 = 0x4000;
/// The device has several queues.
pub(crate) const IFF_MULTI_QUEUE: u16 = 0x0100;
/// Refuse to attach to a device that exists.
pub(crate) const IFF_TUN_EXCL: u16 = 0x8000;

/// The kernel may leave checksums to us.
pub(crate) const TUN_F_CSUM: u32 = 0x01;
/// The kernel may leave segmentation of TCP over IPv4 to us.
pub(crate) const TUN_F_TSO4: u32 = 0x02;
/// The same over IPv6.
pub(crate) const TUN_F_TSO6: u32 = 0x04;
/// The same for TCP with ECN bits.
pub(crate) const TUN_F_TSO_ECN: u32 = 0x08;
/// The same for UDP over IPv4 (kernel 6.2); only together with [`TUN_F_USO6`].
pub(crate) const TUN_F_USO4: u32 = 0x20;
/// The same for UDP over IPv6.
pub(crate) const TUN_F_USO6: u32 = 0x40;

/// Longest interface name, without the zero that ends it.
pub(crate) const NAME_MAX: usize = 15;

/// `struct ifreq` as the TUN driver uses it: 40 bytes, a name and the flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_MAX + 1],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

// The driver's numbers are declared with `int` whatever they really take.
const TUNSETIFF: Opcode = opcode::write::<libc::c_int>(b'T', 202);
pub(crate) const TUNSETPERSIST: Opcode = opcode::write::<libc::c_int>(b'T', 203);
const TUNGETFEATURES: Opcode = opcode::read::<libc::c_uint>(b'T', 207);
pub(crate) const TUNSETOFFLOAD: Opcode = opcode::write::<libc::c_uint>(b'T', 208);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<libc::c_int>(b'T', 216);

/// Attaches a descriptor of `/dev/net/tun` to the device of a name, which is made if it does not exist
/// (`TUNSETIFF`).
pub(crate) fn tun_attach(fd: BorrowedFd<'_>, name: &str, flags: u16) -> io::Result<()> {
    if name.is_empty() || name.len() > NAME_MAX || name.bytes().any(|byte| byte == 0) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut request = InterfaceRequest { name: [0; NAME_MAX + 1], flags, rest: [0; 22] };
    for (to, from) in request.name.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, as large as InterfaceRequest (asserted above); every bit
    // pattern the kernel writes is a valid value of its integer fields, and the name ends with a zero since at most
    // NAME_MAX bytes were set.
    unsafe { ioctl::ioctl(fd, Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request)) }?;
    Ok(())
}

/// The flags that the driver knows (`TUNGETFEATURES`).
pub(crate) fn tun_features(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: TUNGETFEATURES writes one unsigned int.
    Ok(unsafe { ioctl::ioctl(fd, Getter::<TUNGETFEATURES, libc::c_uint>::new()) }?)
}

/// Tells the device what the kernel may leave to us (`TUNSETOFFLOAD`). The mask is the device's, not the queue's.
pub(crate) fn tun_set_offload(fd: BorrowedFd<'_>, mask: u32) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes the mask itself as its argument and touches no memory of ours.
    unsafe { ioctl::ioctl(fd, IntegerSetter::<TUNSETOFFLOAD>::new_usize(mask as usize)) }?;
    Ok(())
}

/// Lets the device outlive its descriptors, or end with the last of them (`TUNSETPERSIST`).
pub(crate) fn tun_set_persistent(fd: BorrowedFd<'_>, persistent: bool) -> io::Result<()> {
    // SAFETY: TUNSETPERSIST takes the value itself as its argument and touches no memory of ours.
    unsafe { ioctl::ioctl(fd, IntegerSetter::<TUNSETPERSIST>::new_usize(usize::from(persistent))) }?;
    Ok(())
}

/// Sets the size of the virtio net header in front of each packet (`TUNSETVNETHDRSZ`).
pub(crate) fn tun_set_header_size(fd: BorrowedFd<'_>, bytes: i32) -> io::Result<()> {
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe { ioctl::ioctl(fd, Setter::<TUNSETVNETHDRSZ, libc::c_int>::new(bytes)) }?;
    Ok(())
}

/// Bytes written to a TCP connection that the other end has not acknowledged (`SIOCOUTQ`).
pub(crate) fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: SIOCOUTQ, which has the number of TIOCOUTQ, writes one int.
    let bytes = unsafe { ioctl::ioctl(fd, Getter::<{ libc::TIOCOUTQ as Opcode }, libc::c_int>::new()) }?;
    u32::try_from(bytes).map_err(io::Error::other)
}

/// The descriptor of a `tun-tap` interface, which shows it only as a number.
pub(crate) fn borrow_interface(interface: &tun_tap::Iface) -> BorrowedFd<'_> {
    // SAFETY: the interface owns the open file behind the number for as long as it lives, never replaces it, and the
    // result borrows the interface.
    unsafe { BorrowedFd::borrow_raw(interface.as_raw_fd()) }
}

/// Every packet of the socket begins with a virtio net header (`PACKET_VNET_HDR`). Set before the socket is bound.
pub(crate) fn packet_set_vnet_header(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_packet_option(fd, libc::PACKET_VNET_HDR, &1)
}

/// The socket does not see what leaves through the interface (`PACKET_IGNORE_OUTGOING`, kernel 4.20).
pub(crate) fn packet_ignore_outgoing(fd: BorrowedFd<'_>) -> io::Result<()> {
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    set_packet_option(fd, PACKET_IGNORE_OUTGOING, &1)
}

/// The interface accepts every multicast frame as long as the socket lives (`PACKET_MR_ALLMULTI`).
pub(crate) fn packet_all_multicast(fd: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let index = i32::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let membership = libc::packet_mreq {
        mr_ifindex: index,
        mr_type: libc::PACKET_MR_ALLMULTI as libc::c_ushort,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set_packet_option(fd, libc::PACKET_ADD_MEMBERSHIP, &membership)
}

/// Lets several bound sockets share an interface's frames by the symmetric hash of their flow (`PACKET_FANOUT_HASH`).
/// `None` opens a group with a number that nobody else in the namespace has; the number is returned, for the others to
/// join.
pub(crate) fn packet_fanout(fd: BorrowedFd<'_>, group: Option<u16>) -> io::Result<u16> {
    const PACKET_FANOUT_FLAG_UNIQUEID: u32 = 0x2000;
    // The group takes this from the flags, not from its sockets' PACKET_IGNORE_OUTGOING.
    const PACKET_FANOUT_FLAG_IGNORE_OUTGOING: u32 = 0x4000;
    let unique = if group.is_none() { PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
    let mode = libc::PACKET_FANOUT_HASH | PACKET_FANOUT_FLAG_IGNORE_OUTGOING | unique;
    set_packet_option(fd, libc::PACKET_FANOUT, &(u32::from(group.unwrap_or(0)) | mode << 16))?;
    if let Some(group) = group {
        return Ok(group);
    }
    let mut value: u32 = 0;
    let mut length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `value`, which has as many, and the length back to `length`;
    // both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok((value & 0xffff) as u16) } else { Err(io::Error::last_os_error()) }
}

/// Sets one option of a packet socket. `T` is an integer or a C structure as packet(7) names it for the option.
fn set_packet_option<T: Copy>(fd: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the kernel reads at most size_of::<T>() bytes from `value`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for huge pages where there is memory between two addresses of this process (`MADV_HUGEPAGE`, madvise(2)): flows of
/// a large table are read in no order, and each read of a small page has to look up first where that page is. A wish: where
/// the kernel does not grant it, nothing changes.
pub fn prefer_huge_pages(memory: Range<usize>) {
    let start = memory.start.checked_next_multiple_of(rustix::param::page_size());
    let Some((start, length)) =
        start.map(|start| (start, memory.end.saturating_sub(start))).filter(|(_, length)| *length > 0)
    else {
        return;
    };
    // SAFETY: this advice changes neither what memory holds nor how it may be accessed, whosever memory it is; where there is
    // none the kernel says so.
    let advised = unsafe {
        rustix::mm::madvise(std::ptr::without_provenance_mut(start), length, rustix::mm::Advice::LinuxHugepage)
    };
    if let Err(error) = advised {
        tracing::debug!(%error, bytes = length, "no huge pages for the tables of flows");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// The opcodes are those of the kernel's header on the machines that we support (x86-64, aarch64).
    #[test]
    fn opcodes_are_those_of_if_tun_h() {
        assert_eq!(TUNSETIFF, 0x4004_54ca);
        assert_eq!(TUNSETPERSIST, 0x4004_54cb);
        assert_eq!(TUNGETFEATURES, 0x8004_54cf);
        assert_eq!(TUNSETOFFLOAD, 0x4004_54d0);
        assert_eq!(TUNSETVNETHDRSZ, 0x4004_54d8);
    }

    /// A descriptor that is no TUN refuses each call and nothing else happens.
    #[test]
    fn calls_on_another_descriptor_fail() {
        let file = std::fs::File::open("/dev/null").expect("open /dev/null");
        let fd = file.as_fd();
        assert_eq!(tun_attach(fd, "x", IFF_TUN).expect_err("attach").raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(tun_features(fd).expect_err("features").raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(tun_set_offload(fd, 0).expect_err("offload").raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(tun_set_persistent(fd, true).expect_err("persist").raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(tun_set_header_size(fd, 10).expect_err("size").raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(unacknowledged(fd).expect_err("bytes").raw_os_error(), Some(libc::ENOTTY));
        for result in [packet_set_vnet_header(fd), packet_ignore_outgoing(fd), packet_all_multicast(fd, 1)] {
            assert_eq!(result.expect_err("option").raw_os_error(), Some(libc::ENOTSOCK));
        }
        assert_eq!(packet_fanout(fd, None).expect_err("fanout").raw_os_error(), Some(libc::ENOTSOCK));
    }

    /// Whatever the addresses are, what is there stays as it is.
    #[test]
    fn asking_for_huge_pages_changes_nothing() {
        let mut memory = vec![7_u8; 8 << 20];
        let start = memory.as_ptr().addr();
        for range in
            [start..start + memory.len(), start + 1..start + 2, start..start, 0..1 << 12, usize::MAX - 1..usize::MAX]
        {
            prefer_huge_pages(range);
        }
        memory.push(8);
        assert!(memory.iter().rev().skip(1).all(|byte| *byte == 7));
    }

    /// A name that the kernel would cut is refused before the call.
    #[test]
    fn names_that_do_not_fit_are_refused() {
        let file = std::fs::File::open("/dev/null").expect("open /dev/null");
        for name in ["", "sixteen-letters-", "zero\0inside"] {
            let error = tun_attach(file.as_fd(), name, IFF_TUN).expect_err(name);
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
