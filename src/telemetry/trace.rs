//! A packet that was traced, in words: how it looked as it entered, what each stage decided, what left because of it, and
//! the verdict. One JSON object a line.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::control::explain::{has_ports, socket};
use crate::packet::frame::Checksum;
use crate::packet::parse::{Fragment, Parsed, TransportKind};
use crate::path::{StageRecord, Verdict};
use crate::plan::explain::protocol_name;
use crate::snapshot::Snapshot;
use crate::worker::{How, Image, Seen};

/// A line of a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceLine {
    /// Every worker looks for matching packets from now on.
    Begun(Begun),
    /// A packet.
    Packet(Box<TracedPacket>),
    /// Nothing more comes.
    End(End),
}

/// How a trace begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Generation of the snapshot in force.
    pub generation: u64,
}

/// How a trace or a capture ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// `count`, `timeout`, `asked` or `node`: what ended it.
    pub why: Why,
    /// Packets that were told.
    pub packets: u64,
    /// Packets that matched and were lost: they came faster than they were read.
    pub lost: u64,
    /// Packets of any flow that were taken for sent, and could not leave in the end.
    pub unsent: u64,
}

/// What ended a trace or a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// As many packets as were asked for.
    Count,
    /// The time was over.
    Timeout,
    /// The client asked for the end.
    Asked,
    /// The node ends.
    Node,
}

/// A packet that was traced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TracedPacket {
    /// Number in this trace, from 1.
    pub number: u64,
    /// When, in nanoseconds since 1970.
    pub time: u64,
    /// The worker that took it to its end.
    pub worker: u16,
    /// `received`, `taken_over` from the worker that received it, or `released` (a fragment that had waited).
    pub how: String,
    /// The port that it entered through.
    pub ingress: String,
    /// As it entered.
    pub packet: PacketFacts,
    /// The generation that it was forwarded under.
    pub generation: u64,
    /// What each step decided, in order.
    pub stages: Vec<StageRecord>,
    /// What left because of it, answers included.
    pub left: Vec<LeftPacket>,
    /// What became of it.
    pub verdict: TracedVerdict,
}

/// What a packet is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketFacts {
    /// `tcp`, `udp`, `icmp`, …; none where the packet is malformed, and of the rest only the length is known then.
    pub protocol: Option<String>,
    /// Source: address, and port where the protocol has ports.
    pub source: Option<String>,
    /// Destination.
    pub destination: Option<String>,
    /// TCP flags by their letters, `SA` for SYN and ACK; of ICMP what it is.
    pub flags: Option<String>,
    /// TTL or hop limit.
    pub hop_limit: Option<u8>,
    /// Bytes, from the IP header on.
    pub length: usize,
    /// Packets that it would be on a wire: more than 1 for a super-packet.
    pub segments: usize,
    /// Bytes of payload of each.
    pub segment_size: Option<u16>,
    /// Whether a device has still to finish the checksum.
    pub partial_checksum: bool,
    /// `first` or `later` for fragments.
    pub fragment: Option<String>,
}

/// A packet that left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftPacket {
    /// The port.
    pub port: String,
    /// As it left.
    pub packet: PacketFacts,
    /// Why the port did not take it.
    pub refused: Option<String>,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum TracedVerdict {
    /// It left.
    Forwarded {
        /// The port.
        port: String,
    },
    /// It ended here, and something was sent back.
    Answered {
        /// The reason's name, as counters have it.
        reason: String,
        /// The reason in a sentence.
        text: String,
    },
    /// It ended here.
    Dropped {
        /// The reason's name, as counters have it.
        reason: String,
        /// The reason in a sentence.
        text: String,
    },
    /// It waits for the first fragment of its packet.
    Held,
}

impl TracedVerdict {
    /// The verdict of the path.
    pub fn of(verdict: Verdict, snapshot: &Snapshot) -> Self {
        match verdict {
            Verdict::Forwarded(port) => Self::Forwarded { port: snapshot.port_name(port) },
            Verdict::Answered(answer) => {
                Self::Answered { reason: answer.name().to_owned(), text: answer.text().to_owned() }
            }
            Verdict::Dropped(reason) => {
                Self::Dropped { reason: reason.name().to_owned(), text: reason.text().to_owned() }
            }
            // What is handed over is seen where it ends.
            Verdict::Held | Verdict::HandOver(_) => Self::Held,
        }
    }
}

impl std::fmt::Display for TracedVerdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forwarded { port } => write!(f, "sent to {port}"),
            Self::Answered { reason, text } => write!(f, "answered, {reason}: {text}"),
            Self::Dropped { reason, text } => write!(f, "dropped, {reason}: {text}"),
            Self::Held => f.write_str("held until the first fragment of its packet comes"),
        }
    }
}

impl TracedPacket {
    /// A packet that was seen; none for what the node made by itself.
    pub fn of(number: u64, seen: &Seen) -> Option<Self> {
        let snapshot = &*seen.snapshot;
        let ((how, entered), verdict) = seen.entered.as_ref().zip(seen.verdict)?;
        let left = |(image, result): &(Image, Result<(), crate::path::SendFailure>)| LeftPacket {
            port: snapshot.port_name(image.port),
            packet: PacketFacts::of(image),
            refused: result.err().map(|failure| crate::path::DropReason::from(failure).name().to_owned()),
        };
        Some(Self {
            number,
            time: nanoseconds(seen.at),
            worker: seen.worker,
            how: match how {
                How::Received => "received",
                How::TakenOver => "taken_over",
                How::Released => "released",
            }
            .to_owned(),
            ingress: snapshot.port_name(entered.port),
            packet: PacketFacts::of(entered),
            generation: seen.snapshot.generation,
            stages: seen.stages.clone(),
            left: seen.left.iter().map(left).collect(),
            verdict: TracedVerdict::of(verdict, snapshot),
        })
    }

    /// For people: a line for the packet, one for each step, and the verdict.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let how = match self.how.as_str() {
            "taken_over" => ", taken over from another worker",
            "released" => ", a fragment that had waited",
            _ => "",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "#{} {} worker {}, from {}{how}, generation {}",
            self.number,
            time_of_day(self.time),
            self.worker,
            self.ingress,
            self.generation
        );
        let _ = writeln!(text, "  {}", self.packet.text());
        let width = self.stages.iter().map(|stage| stage.stage.len()).max().unwrap_or(0);
        for stage in &self.stages {
            let _ = writeln!(text, "  {:<width$}  {}", stage.stage, stage.decision);
            for detail in &stage.details {
                let _ = writeln!(text, "  {:<width$}    {detail}", "");
            }
        }
        for left in &self.left {
            let refused = left.refused.as_ref().map(|reason| format!(", refused: {reason}")).unwrap_or_default();
            let _ = writeln!(text, "  left by {}{refused}: {}", left.port, left.packet.text());
        }
        let _ = writeln!(text, "  verdict: {}", self.verdict);
        text
    }
}

impl PacketFacts {
    /// What is known of a packet.
    pub fn of(image: &Image) -> Self {
        let parsed = image.parsed.as_ref();
        let shown = |address, port| {
            parsed.map(|parsed| if has_ports(parsed.protocol) { socket(address, port) } else { address.to_string() })
        };
        Self {
            protocol: parsed.map(|parsed| protocol_name(parsed.protocol)),
            source: parsed.and_then(|parsed| shown(parsed.source(), parsed.source_port)),
            destination: parsed.and_then(|parsed| shown(parsed.destination(), parsed.destination_port)),
            flags: parsed.and_then(flags),
            hop_limit: parsed.map(|parsed| parsed.hop_limit),
            length: image.length,
            segments: image.segments,
            segment_size: image.offload.segmentation.map(|segmentation| segmentation.size),
            partial_checksum: matches!(image.offload.checksum, Checksum::Partial { .. }),
            fragment: parsed.and_then(|parsed| match parsed.fragment {
                Fragment::None => None,
                Fragment::First => Some("first".to_owned()),
                Fragment::Later => Some("later".to_owned()),
            }),
        }
    }

    /// `tcp 10.1.1.4:40000 -> 20.60.1.10:443 S, 60 bytes`.
    pub fn text(&self) -> String {
        let (Some(protocol), Some(source), Some(destination)) = (&self.protocol, &self.source, &self.destination)
        else {
            return format!("malformed, {} bytes", self.length);
        };
        let mut text = format!("{protocol} {source} -> {destination}");
        if let Some(flags) = &self.flags {
            let _ = write!(text, " {flags}");
        }
        if let Some(fragment) = &self.fragment {
            let _ = write!(text, ", {fragment} fragment");
        }
        let _ = write!(text, ", {} bytes", self.length);
        if let Some(size) = self.segment_size {
            let _ = write!(text, ", super-packet: {} segments of {size}", self.segments);
        }
        text
    }
}

/// TCP flags by their letters, as tcpdump has them but for `A`; what an ICMP message is.
fn flags(parsed: &Parsed) -> Option<String> {
    const LETTERS: [(u8, char); 8] = [
        (Parsed::SYN, 'S'),
        (Parsed::FIN, 'F'),
        (Parsed::RST, 'R'),
        (Parsed::PSH, 'P'),
        (Parsed::ACK, 'A'),
        (Parsed::URG, 'U'),
        (Parsed::ECE, 'E'),
        (Parsed::CWR, 'W'),
    ];
    match parsed.kind {
        TransportKind::Tcp { flags, .. } => {
            Some(LETTERS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, letter)| letter).collect())
        }
        TransportKind::IcmpEcho { reply } => {
            let what = if reply { "reply" } else { "request" };
            Some(format!("echo {what} {}", parsed.source_port))
        }
        TransportKind::IcmpError => Some("error".to_owned()),
        _ => None,
    }
}

fn nanoseconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

/// `07:15:44.123456` (UTC).
fn time_of_day(nanoseconds: u64) -> String {
    let (seconds, microseconds) = (nanoseconds / 1_000_000_000 % 86_400, nanoseconds / 1_000 % 1_000_000);
    format!("{:02}:{:02}:{:02}.{microseconds:06}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}
