//! Blocks of the pcapng format (draft-ietf-opsawg-pcapng), in the byte order of the machine, with packets that begin with
//! their IP header and times in nanoseconds.

use std::io::{self, Write};
use std::time::Duration;

/// Type of a section header block.
pub const SECTION_HEADER: u32 = 0x0a0d_0d0a;
/// Type of an interface description block.
pub const INTERFACE_DESCRIPTION: u32 = 1;
/// Type of an interface statistics block.
pub const INTERFACE_STATISTICS: u32 = 5;
/// Type of an enhanced packet block.
pub const ENHANCED_PACKET: u32 = 6;
/// What tells the byte order of a section.
pub const BYTE_ORDER: u32 = 0x1a2b_3c4d;

/// Option of every block: a comment.
const COMMENT: u16 = 1;
const SECTION_APPLICATION: u16 = 4;
pub(super) const INTERFACE_NAME: u16 = 2;
const INTERFACE_KIND: u16 = 3;
pub(super) const INTERFACE_TIME_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;
const PACKET_ID: u16 = 5;
const STATISTICS_RECEIVED: u16 = 4;
const STATISTICS_DROPPED: u16 = 5;
/// Packets that begin with their IP header, as the registry of link types has it.
pub const LINK_TYPE_RAW: u16 = 101;
/// The same for files with several interfaces: libpcap's own number of it. It compares those of further interfaces with its
/// own number of the first, and refuses 101 there (as of 1.10); to Wireshark both are the same.
pub const LINK_TYPE_RAW_OF_SEVERAL: u16 = 12;
const NANOSECONDS: u8 = 9;

/// Which way a packet goes, as the packet block's flags say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It enters the node.
    Inbound = 1,
    /// It leaves the node.
    Outbound = 2,
}

/// A packet as its block has it.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Number of the interface description, in the order of the section.
    pub interface: u32,
    /// Time since 1970.
    pub at: Duration,
    /// Its first bytes.
    pub bytes: &'a [u8],
    /// Its length.
    pub length: usize,
    /// Which way it goes.
    pub direction: Direction,
    /// The same for the same packet at another place.
    pub id: Option<u64>,
    /// Shown with it; empty for none.
    pub comment: &'a str,
}

/// Writes a section header. `application` names who writes, if given.
///
/// # Errors
/// Those of the writer.
pub fn write_section(out: &mut impl Write, application: &str) -> io::Result<()> {
    let mut section = Vec::new();
    section.extend(BYTE_ORDER.to_ne_bytes());
    section.extend(1_u16.to_ne_bytes());
    section.extend(0_u16.to_ne_bytes());
    section.extend((-1_i64).to_ne_bytes());
    if !application.is_empty() {
        write_option(&mut section, SECTION_APPLICATION, application.as_bytes());
        write_option(&mut section, 0, &[]);
    }
    write_block(out, SECTION_HEADER, &[&section])
}

/// Writes the description of an interface. `snaplen` is how much there is of a packet at most, 0 for no limit.
///
/// # Errors
/// Those of the writer.
pub fn write_interface(out: &mut impl Write, link_type: u16, name: &str, kind: &str, snaplen: u32) -> io::Result<()> {
    let mut interface = Vec::new();
    interface.extend(link_type.to_ne_bytes());
    interface.extend([0; 2]);
    interface.extend(snaplen.to_ne_bytes());
    write_option(&mut interface, INTERFACE_NAME, name.as_bytes());
    if !kind.is_empty() {
        write_option(&mut interface, INTERFACE_KIND, kind.as_bytes());
    }
    write_option(&mut interface, INTERFACE_TIME_RESOLUTION, &[NANOSECONDS]);
    write_option(&mut interface, 0, &[]);
    write_block(out, INTERFACE_DESCRIPTION, &[&interface])
}

/// Writes an enhanced packet block.
///
/// # Errors
/// Those of the writer.
pub fn write_packet(out: &mut impl Write, packet: &Packet<'_>) -> io::Result<()> {
    let [high, low] = time(packet.at);
    let captured = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX);
    let length = u32::try_from(packet.length).unwrap_or(u32::MAX);
    let mut head = [0; 20];
    let fields = [packet.interface, high, low, captured, length];
    for (to, field) in head.chunks_exact_mut(4).zip(fields) {
        to.copy_from_slice(&field.to_ne_bytes());
    }
    let padding = &[0; 3][..packet.bytes.len().next_multiple_of(4) - packet.bytes.len()];
    if packet.comment.is_empty() && packet.id.is_none() {
        // The way of the captures of devices: nothing is allocated.
        let mut tail = [0; 12];
        tail[..2].copy_from_slice(&PACKET_FLAGS.to_ne_bytes());
        tail[2..4].copy_from_slice(&4_u16.to_ne_bytes());
        tail[4..8].copy_from_slice(&(packet.direction as u32).to_ne_bytes());
        return write_block(out, ENHANCED_PACKET, &[&head, packet.bytes, padding, &tail]);
    }
    let mut options = Vec::with_capacity(64 + packet.comment.len());
    if !packet.comment.is_empty() {
        write_option(&mut options, COMMENT, packet.comment.as_bytes());
    }
    write_option(&mut options, PACKET_FLAGS, &(packet.direction as u32).to_ne_bytes());
    if let Some(id) = packet.id {
        write_option(&mut options, PACKET_ID, &id.to_ne_bytes());
    }
    write_option(&mut options, 0, &[]);
    write_block(out, ENHANCED_PACKET, &[&head, packet.bytes, padding, &options])
}

/// Writes what was counted at an interface: packets that matched, and those of them that are not in the file.
///
/// # Errors
/// Those of the writer.
pub fn write_statistics(
    out: &mut impl Write,
    interface: u32,
    at: Duration,
    (received, lost): (u64, u64),
    comment: &str,
) -> io::Result<()> {
    let mut block = Vec::new();
    block.extend(interface.to_ne_bytes());
    time(at).into_iter().for_each(|half| block.extend(half.to_ne_bytes()));
    if !comment.is_empty() {
        write_option(&mut block, COMMENT, comment.as_bytes());
    }
    write_option(&mut block, STATISTICS_RECEIVED, &received.to_ne_bytes());
    write_option(&mut block, STATISTICS_DROPPED, &lost.to_ne_bytes());
    write_option(&mut block, 0, &[]);
    write_block(out, INTERFACE_STATISTICS, &[&block])
}

/// Nanoseconds since 1970, the high half first.
fn time(at: Duration) -> [u32; 2] {
    let nanoseconds = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    [(nanoseconds >> 32) as u32, (nanoseconds & 0xffff_ffff) as u32]
}

/// Writes a block: type, length, body, length again. The parts' lengths add up to a multiple of four.
fn write_block(out: &mut impl Write, kind: u32, parts: &[&[u8]]) -> io::Result<()> {
    let length: usize = 12 + parts.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?.to_ne_bytes();
    out.write_all(&kind.to_ne_bytes())?;
    out.write_all(&length)?;
    for part in parts {
        out.write_all(part)?;
    }
    out.write_all(&length)
}

/// Appends an option with its padding.
pub(super) fn write_option(block: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    block.extend(code.to_ne_bytes());
    block.extend(length.to_ne_bytes());
    block.extend(value.iter().take(usize::from(length)));
    block.resize(block.len().next_multiple_of(4), 0);
}
