//! The buffer a packet lives in from read to write, with the offload state that travels beside its bytes.

/// Room kept before a packet, for the headers that a device or a translation puts in front (vnet header 10, Ethernet
/// 14, IPv4 to IPv6 growth 20), rounded up to a cache line.
pub const HEADROOM: usize = 64;

/// The largest packet: an IPv4 total length, and what the kernel's segmentation offload makes at most. An IPv6 packet
/// is 40 bytes longer at most.
pub const MAX_PACKET: usize = 65_535 + 40;

/// Bytes allocated for each frame.
const CAPACITY: usize = HEADROOM + MAX_PACKET;

/// Whether the transport checksum is in the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// It is complete.
    #[default]
    Complete,
    /// It is complete and somebody verified it (`VIRTIO_NET_HDR_F_DATA_VALID`).
    Verified,
    /// The field holds the folded pseudo-header sum, not complemented; whoever sends the packet on a wire sums from
    /// `start` to the end and puts the complement at `start + offset` (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    Partial {
        /// Where summing starts: the transport header, in bytes from the start of the packet.
        start: u16,
        /// Where the checksum field is, in bytes from `start`: 16 for TCP, 6 for UDP.
        offset: u16,
    },
}

/// What the segments of a super-packet are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams over either family (USO).
    Udp,
}

/// A super-packet: one header and a payload that a device cuts into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segmentation {
    /// Protocol of the segments.
    pub kind: SegmentKind,
    /// Payload bytes of each segment but the last.
    pub size: u16,
    /// The kernel marked the packet for ECN (`VIRTIO_NET_HDR_GSO_ECN`).
    pub ecn: bool,
}

/// What the sender left for the device to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offload {
    /// State of the transport checksum.
    pub checksum: Checksum,
    /// Set where the packet is a super-packet.
    pub segmentation: Option<Segmentation>,
}

/// What is known of a fragment that its own bytes do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FragmentFacts {
    /// Source port of its packet, or the identifier of an ICMP echo.
    pub source_port: u16,
    /// Destination port of its packet, or the identifier of an ICMP echo.
    pub destination_port: u16,
    /// The identification that its packet gets where its addresses are translated.
    pub identification: u16,
}

/// One packet in its buffer: from the IP header on, with [`HEADROOM`] bytes of room in front.
pub struct Frame {
    buffer: Box<[u8]>,
    start: usize,
    length: usize,
    /// What is left to do for the packet.
    pub offload: Offload,
    /// Set once the first fragment of the packet has been seen, where this is one of its fragments.
    pub fragment: Option<FragmentFacts>,
}

impl Frame {
    /// Allocates an empty frame. Frames are made at start and reused; making one on the packet path is a mistake.
    pub fn new() -> Self {
        Self {
            buffer: vec![0; CAPACITY].into_boxed_slice(),
            start: HEADROOM,
            length: 0,
            offload: Offload::default(),
            fragment: None,
        }
    }

    /// A frame with a copy of a packet. What exceeds [`MAX_PACKET`] is cut.
    pub fn from_packet(packet: &[u8]) -> Self {
        let mut frame = Self::new();
        frame.set_packet(packet);
        frame
    }

    /// Replaces the packet by a copy and forgets the offload state. What exceeds [`MAX_PACKET`] is cut.
    pub fn set_packet(&mut self, packet: &[u8]) {
        self.clear();
        let length = packet.len().min(MAX_PACKET);
        if let (Some(room), Some(bytes)) = (self.room_mut().get_mut(..length), packet.get(..length)) {
            room.copy_from_slice(bytes);
        }
        self.length = length;
    }

    /// Empties the frame and restores its headroom.
    pub fn clear(&mut self) {
        self.start = HEADROOM;
        self.length = 0;
        self.offload = Offload::default();
        self.fragment = None;
    }

    /// The packet.
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.start + self.length).unwrap_or_default()
    }

    /// The packet, to change in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start..self.start + self.length).unwrap_or_default()
    }

    /// Bytes of the packet.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no packet in the frame.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// All the room behind the current start, for a device to read into; [`Frame::set_len`] follows.
    pub fn room_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.start..).unwrap_or_default()
    }

    /// The same room with `count` bytes of the headroom before it, for a device that puts a header in front of what it
    /// reads; less where there is less headroom.
    pub fn room_with_front_mut(&mut self, count: usize) -> &mut [u8] {
        self.buffer.get_mut(self.start.saturating_sub(count)..).unwrap_or_default()
    }

    /// The bytes right before the packet, which are not part of it; `None` where there are not as many.
    pub fn front<const COUNT: usize>(&self) -> Option<[u8; COUNT]> {
        self.buffer.get(..self.start)?.last_chunk().copied()
    }

    /// Puts a device's header right before the packet, whose own bytes and bounds stay, and gives both together; `None`
    /// where there is no room for it.
    pub fn with_front<const COUNT: usize>(&mut self, header: [u8; COUNT]) -> Option<&[u8]> {
        *self.buffer.get_mut(..self.start)?.last_chunk_mut()? = header;
        self.buffer.get(self.start - COUNT..self.start + self.length)
    }

    /// Sets the packet's length after a write into [`Frame::room_mut`], cut to the room there is.
    pub fn set_len(&mut self, length: usize) {
        self.length = length.min(self.buffer.len().saturating_sub(self.start));
    }

    /// Grows the packet at its front and gives the new bytes, whose content is whatever was there. `None` where the
    /// headroom is used up; then nothing changes.
    pub fn push_front(&mut self, count: usize) -> Option<&mut [u8]> {
        self.start = self.start.checked_sub(count)?;
        self.length += count;
        self.buffer.get_mut(self.start..self.start + count)
    }

    /// Whether the packet begins after so many bytes of headroom.
    pub fn starts_at(&self, headroom: usize) -> bool {
        self.start == headroom
    }

    /// Puts bytes behind the packet; `None`, and nothing has changed, where there is no room for them.
    pub fn extend(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.start + self.length;
        self.buffer.get_mut(end..end + bytes.len())?.copy_from_slice(bytes);
        self.length += bytes.len();
        Some(())
    }

    /// Drops bytes at the packet's front, at most all of them.
    pub fn pull_front(&mut self, count: usize) {
        let count = count.min(self.length);
        self.start += count;
        self.length -= count;
    }

    /// Makes this frame a copy of another, with all that is known of it.
    pub fn copy_from(&mut self, other: &Frame) {
        self.set_packet(other.bytes());
        self.offload = other.offload;
        self.fragment = other.fragment;
    }
}

impl Default for Frame {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame").field("length", &self.length).field("offload", &self.offload).finish()
    }
}
