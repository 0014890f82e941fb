//! `sidestep capture`: a pcapng file of what enters, leaves or is dropped, with what became of each packet as its comment.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::node::NodeArgs;
use super::trace::{FilterArgs, losses, plain};
use crate::control::client::target;
use crate::control::follow::{FollowQuery, LARGEST_SNAPLEN, MOST_SECONDS};
use crate::port::pcapng::{ENHANCED_PACKET, INTERFACE_STATISTICS};
use crate::telemetry::capture::parse_what;

/// Capture packets of a running node as a pcapng file, which Wireshark, tshark and tcpdump read.
///
/// Each port is an interface of the file, and each packet has its direction, seen from the node, and a comment: the verdict
/// with its reason where it enters, why it was sent where it leaves. Super-packets are written as they are, with a comment
/// that says so. What was lost stands in the statistics at the end. Ctrl-C ends.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Which packets.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// What of them: as they entered, as they left, and those that were dropped or answered; several with commas between
    /// them.
    #[arg(long, value_name = "entered,left,dropped", default_value = "entered,left,dropped", value_parser = checked)]
    pub what: String,

    /// Bytes that are kept of each packet; all if not given.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..=LARGEST_SNAPLEN as u64))]
    pub snaplen: Option<u64>,

    /// End after so many packets in the file, or a few more, if the last one stands in it more than once.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,

    /// End after so many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=MOST_SECONDS))]
    pub timeout: Option<u64>,

    /// The file, which is overwritten; `-` for stdout, into `tcpdump -r -` or `wireshark -k -i -`.
    #[arg(short = 'w', long, value_name = "FILE")]
    pub write: PathBuf,
}

fn checked(text: &str) -> Result<String, String> {
    parse_what(text).map(|_| text.to_owned())
}

/// Asks the node and writes what comes.
///
/// # Errors
/// No node answers, or it does not know what is meant; the file cannot be written.
pub fn run(args: &CaptureArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let to_stdout = args.write == Path::new("-");
    if to_stdout && io::stdout().is_terminal() {
        anyhow::bail!(
            "a capture is no text for a terminal: write it to a file with -w FILE, or pipe it into `tcpdump -r -`"
        );
    }
    let query = FollowQuery {
        what: Some(args.what.clone()),
        snaplen: args.snaplen.map(|snaplen| snaplen as usize),
        count: args.count,
        timeout: args.timeout,
        ..args.filter.query()
    };
    let parts = query.parts();
    let parts: Vec<(&str, &str)> = parts.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let path = args.write.as_path();
    let mut file: Option<File> = None;
    let mut blocks = Blocks::default();
    let followed = args.node.client().stream(&target(&["v1", "capture"], &parts), |bytes| {
        let begun = blocks.packets.is_none();
        let whole = blocks.add(bytes)?;
        if to_stdout {
            out.write_all(&whole)?;
            out.flush()?;
        } else {
            // Once the node has agreed, so that a mistake costs no file.
            let file = match &mut file {
                Some(file) => file,
                // What people say to each other is in it: only for who makes it, until they give it away.
                None => file.insert(File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?),
            };
            file.write_all(&whole)?;
        }
        if begun && blocks.packets.is_some() {
            eprintln!("capturing; Ctrl-C ends");
        }
        Ok(())
    });
    let followed = followed.map_err(plain);
    if to_stdout {
        followed?
    } else {
        followed.with_context(|| format!("capture to {}", path.display()))?
    }
    let packets = blocks.packets.unwrap_or_default();
    let noun = if packets == 1 { "packet" } else { "packets" };
    if !blocks.ended {
        eprintln!("{packets} {noun}; the capture ended early: what may be missing is not known");
        return Ok(ExitCode::FAILURE);
    }
    eprintln!("{packets} {noun}{}", losses(blocks.lost, 0));
    Ok(ExitCode::SUCCESS)
}

/// Cuts what comes into whole blocks, so that the file can be read whenever it ends, and counts them.
#[derive(Debug, Default)]
struct Blocks {
    rest: Vec<u8>,
    /// None before the first block.
    packets: Option<u64>,
    lost: u64,
    ended: bool,
}

impl Blocks {
    /// Adds bytes and gives the blocks that are whole now.
    fn add(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.rest.extend_from_slice(bytes);
        let mut end = 0;
        while let Some(head) = self.rest.get(end..end + 8) {
            let (kind, length) = (word(head, 0), word(head, 4) as usize);
            if length < 12 || length % 4 != 0 {
                return Err(io::Error::other(format!("the node sent a block of {length} bytes")));
            }
            let Some(block) = self.rest.get(end..end + length) else { break };
            let packets = self.packets.get_or_insert(0);
            match kind {
                ENHANCED_PACKET => *packets += 1,
                INTERFACE_STATISTICS => {
                    self.ended = true;
                    self.lost += dropped(block);
                }
                _ => {}
            }
            end += length;
        }
        Ok(self.rest.drain(..end).collect())
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// What a statistics block says was lost.
fn dropped(block: &[u8]) -> u64 {
    const DROPPED: u16 = 5;
    let mut at = 20;
    while let Some(option) = block.get(at..at + 4) {
        let code = u16::from_ne_bytes([option[0], option[1]]);
        let length = usize::from(u16::from_ne_bytes([option[2], option[3]]));
        if code == DROPPED {
            let value = block.get(at + 4..at + 12).and_then(|value| value.try_into().ok());
            return value.map_or(0, u64::from_ne_bytes);
        }
        if code == 0 {
            break;
        }
        at += 4 + length.next_multiple_of(4);
    }
    0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::port::pcapng;

    #[test]
    fn only_whole_blocks_are_written_and_losses_are_read() {
        let mut file = Vec::new();
        pcapng::write_section(&mut file, "test").unwrap();
        pcapng::write_interface(&mut file, pcapng::LINK_TYPE_RAW, "vm1", "nic", 0).unwrap();
        let packet = pcapng::Packet {
            interface: 0,
            at: Duration::from_secs(1),
            bytes: &[0x45; 21],
            length: 21,
            direction: pcapng::Direction::Inbound,
            id: Some(1),
            comment: "dropped",
        };
        pcapng::write_packet(&mut file, &packet).unwrap();
        pcapng::write_statistics(&mut file, 0, Duration::from_secs(2), (8, 7), "some are lost").unwrap();
        let mut blocks = Blocks::default();
        let mut written = Vec::new();
        for piece in file.chunks(5) {
            written.extend(blocks.add(piece).unwrap());
        }
        assert_eq!(written, file);
        assert_eq!((blocks.packets, blocks.lost, blocks.ended), (Some(1), 7, true));
        let mut blocks = Blocks::default();
        assert!(blocks.add(&file[..file.len() - 1]).unwrap().len() < file.len() - 12);
        assert!(!blocks.ended);
        assert!(Blocks::default().add(&[1; 8]).is_err());
    }
}
