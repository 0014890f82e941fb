//! The state file: what one process of a node leaves to the next.
//!
//! ```text
//! magic "SIDESTEP", version u32, length u32, header: JSON of that length, CRC32
//! blocks: worker u16, flows u16, length u32, flows, CRC32
//! end: a block without flows, of 8 bytes: how many there were, u64
//! ```
//! Numbers are little-endian, a CRC is that of zlib over everything since the one before. A file that is not exactly
//! this is refused whole: a node that starts without flows is better than one with some that are wrong. Flows are taken in
//! while more are read, by paths that no packet has come to yet; where a later block is damaged, those paths are thrown away.
//!
//! The header names ports by number, so that the next process, whose numbers may be others, finds its own, and what was
//! changed by hand, endpoints and catalogue: without it flows would be cut that the old process would have kept.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::ports::kind_name;
use crate::path::save::{LONGEST, SavedFlow};
use crate::snapshot::{PortId, ResourceId, Snapshot};
use crate::worker::{Meaning, OtherFlows, Paths, SavedBlock, Share, Stopped};

const MAGIC: [u8; 8] = *b"SIDESTEP";

/// Raised with every change of the format: what a newer version wrote is not read.
const VERSION: u32 = 4;
/// The oldest that is read: flows of it do not say when they began.
const OLDEST: u32 = 3;

/// Flows of one block: with up to [`LONGEST`] bytes each, some 200 KiB are written at a time.
const BLOCK: u16 = 1_024;

/// Blocks that are read ahead of who takes them.
const READ_AHEAD: usize = 8;

/// Why there is no state to begin with.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file cannot be read or written.
    #[error("cannot {action} the state file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file is something else, or only part of what was written.
    #[error("{} is no state file, or is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The file is of another version of the program.
    #[error("the state file {} has format {found}; this sidestep reads formats {OLDEST} to {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format's number.
        found: u32,
    },
}

/// Beside the flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    /// When the workers had stopped, in microseconds since 1970 UTC.
    stopped: u64,
    /// CRC32 and length of the document that was in force.
    document: (u32, usize),
    /// Endpoints that were switched since it was loaded: network/subnet, service, on.
    switched: Vec<(String, String, bool)>,
    /// The catalogue that was put in force since then.
    #[serde(default)]
    catalogue: Option<PathBuf>,
    ports: Vec<Port>,
    /// Names of resources by their number; empty for a number that has none.
    resources: Vec<String>,
    /// Flows at most, by worker, of IPv4 and of IPv6.
    room: Vec<Share>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Port {
    number: u16,
    kind: String,
    name: String,
}

/// What was changed since the document was loaded, and no file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByHand {
    /// Endpoints that were switched: network/subnet, service, on.
    pub switched: Vec<(String, String, bool)>,
    /// The catalogue that was put in force.
    pub catalogue: Option<PathBuf>,
}

/// What the next process needs to know beside the flows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InForce<'a> {
    /// The document's text.
    pub(crate) document: &'a str,
    /// Endpoints that were switched since it was loaded.
    pub(crate) switched: &'a BTreeMap<(String, &'static str), bool>,
    /// The catalogue that was put in force since then.
    pub(crate) catalogue: Option<&'a Path>,
    /// The snapshot.
    pub(crate) snapshot: &'a Snapshot,
}

/// Writes a state file in place of the one before, readable by its owner only. It is there whole or not at all; what a
/// power failure leaves of it is found out by its checksums, and there are no flows to go on with after one.
///
/// # Errors
/// [`StateError::File`]; then the file is as it was.
pub(crate) fn write(path: &Path, in_force: InForce<'_>, stopped: &Stopped) -> Result<usize, StateError> {
    let failed = |action| move |source| StateError::File { path: path.to_owned(), action, source };
    let ports = (0..).zip(&in_force.snapshot.ports);
    let header = Header {
        stopped: micros(stopped.at),
        document: fingerprint(in_force.document),
        switched: in_force
            .switched
            .iter()
            .map(|((subnet, service), enabled)| (subnet.clone(), (*service).to_owned(), *enabled))
            .collect(),
        catalogue: in_force.catalogue.map(Path::to_owned),
        ports: ports
            .map(|(number, port)| Port { number, kind: kind_name(port.kind).to_owned(), name: port.name.clone() })
            .collect(),
        resources: in_force.snapshot.resources.list.iter().map(|resource| resource.name.clone()).collect(),
        room: stopped.shares(),
    };
    let mut name = path.file_name().unwrap_or(path.as_os_str()).to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    // Left by a process with the same number that was killed here.
    let _absent = fs::remove_file(&beside);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed("make"))?;
    let written = write_behind(&mut file, |sink| write_to(sink, &header, |visit| stopped.save(visit)));
    let written = written.map_err(failed("write"));
    let renamed = written.and_then(|flows| fs::rename(&beside, path).map(|()| flows).map_err(failed("replace")));
    if renamed.is_err() {
        let _absent = fs::remove_file(&beside);
    }
    renamed
}

/// Takes pieces of a file in their order.
type Sink<'a> = &'a mut dyn FnMut(Vec<u8>) -> io::Result<()>;

/// Pieces that may be ready and not written yet: a few MiB.
const PIECES: usize = 16;

/// Writes what a function makes, while it makes more.
fn write_behind<T>(out: &mut (impl Write + Send), make: impl FnOnce(Sink<'_>) -> io::Result<T>) -> io::Result<T> {
    thread::scope(|scope| {
        let (ready, pieces) = mpsc::sync_channel::<Vec<u8>>(PIECES);
        let writer = scope.spawn(move || pieces.iter().try_for_each(|piece| out.write_all(&piece)));
        let made = make(&mut |piece| ready.send(piece).map_err(|_| io::Error::other("the writer has ended")));
        drop(ready);
        let written = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
        // Where the writer has failed, the other error only says so.
        written.and(made)
    })
}

/// Gives how many flows there were.
fn write_to(sink: Sink<'_>, header: &Header, flows: impl FnOnce(&mut dyn FnMut(u16, SavedFlow))) -> io::Result<usize> {
    let text = serde_json::to_vec(header)?;
    let mut bytes = Vec::new();
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    sink(bytes)?;

    let mut block = Block::new();
    let mut result = Ok(());
    let mut total = 0_usize;
    flows(&mut |worker, flow| {
        if block.count > 0 && (block.worker != worker || block.count == BLOCK) && result.is_ok() {
            result = sink(block.take());
        }
        if result.is_err() {
            return;
        }
        block.worker = worker;
        block.count += 1;
        total += 1;
        flow.to_bytes(&mut block.bytes);
    });
    result?;
    if block.count > 0 {
        sink(block.take())?;
    }
    block.bytes.extend((total as u64).to_le_bytes());
    sink(block.take())?;
    Ok(total)
}

/// Flows of one worker that are written together.
struct Block {
    worker: u16,
    count: u16,
    /// Room for the head, and the flows.
    bytes: Vec<u8>,
}

/// Worker, flows and length of a block.
const HEAD: usize = 8;

/// What follows it.
const CRC: usize = 4;

/// What the last block has instead of flows: their number.
const TOTAL: usize = 8;

/// What most blocks take: flows of IPv4.
const BLOCK_BYTES: usize = BLOCK as usize * 96;

impl Block {
    fn new() -> Self {
        let mut bytes = Vec::with_capacity(BLOCK_BYTES);
        bytes.resize(HEAD, 0);
        Self { worker: 0, count: 0, bytes }
    }

    /// The block with its checksum, as it is written; empties it.
    fn take(&mut self) -> Vec<u8> {
        let Self { worker, count, mut bytes } = std::mem::replace(self, Self::new());
        let length = (bytes.len() - HEAD) as u32;
        bytes[..2].copy_from_slice(&worker.to_le_bytes());
        bytes[2..4].copy_from_slice(&count.to_le_bytes());
        bytes[4..HEAD].copy_from_slice(&length.to_le_bytes());
        let crc = crc32fast::hash(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    }
}

/// What a process left, of which the flows are still being read.
#[derive(Debug)]
pub struct Reading {
    path: PathBuf,
    header: Header,
    blocks: mpsc::Receiver<Result<SavedBlock, Unread>>,
    reader: JoinHandle<()>,
}

/// Why the flows are not there.
#[derive(Debug)]
enum Unread {
    File(io::Error),
    Flaw(Flaw),
}

impl From<OtherFlows> for Unread {
    fn from(OtherFlows: OtherFlows) -> Self {
        Self::Flaw(Flaw::Damaged("a block has other flows than it says"))
    }
}

impl From<Flaw> for Unread {
    fn from(flaw: Flaw) -> Self {
        Self::Flaw(flaw)
    }
}

impl Reading {
    /// Begins to read a state file; none where there is no file. Its header is checked, and its flows are read by a thread
    /// of its own, so that other things can be done meanwhile.
    ///
    /// # Errors
    /// [`StateError`]: nothing of it is to be used.
    pub fn begin(path: &Path) -> Result<Option<Self>, StateError> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unread(path, Unread::File(error))),
        };
        let header = read_header(&mut file).map_err(|error| unread(path, error))?;
        let room = header.room.clone();
        let (ready, blocks) = mpsc::sync_channel(READ_AHEAD);
        let reader = thread::Builder::new().name("state".to_owned()).spawn(move || {
            let read = read_blocks(&mut file, &room, |block| ready.send(Ok(block)).is_ok());
            if let Err(error) = read {
                let _nobody_waits = ready.send(Err(error));
            }
        });
        let reader = reader.map_err(|error| unread(path, Unread::File(error)))?;
        Ok(Some(Self { path: path.to_owned(), header, blocks, reader }))
    }

    /// What was changed by hand, if the document is still the one that it belongs to.
    pub fn by_hand(&self, document: &str) -> ByHand {
        if self.header.document != fingerprint(document) {
            return ByHand::default();
        }
        ByHand { switched: self.header.switched.clone(), catalogue: self.header.catalogue.clone() }
    }

    /// When the workers had stopped.
    pub fn stopped(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_micros(self.header.stopped)
    }

    /// Gives the flows to the paths of workers that are to start, as old as they are now and with the snapshot's numbers of
    /// ports and resources. Those whose port or resource is gone are left out.
    ///
    /// # Errors
    /// [`StateError`]: nothing of the file is to be used, its header neither.
    pub fn restore(self, paths: Paths, snapshot: &Snapshot) -> Result<Paths, StateError> {
        let Self { path, header, blocks, reader } = self;
        let meaning = header.meaning(snapshot);
        let restored = paths.restore(&header.room, &meaning, blocks.into_iter());
        if reader.join().is_err() {
            return Err(unread(&path, Unread::File(io::Error::other("its reader panicked"))));
        }
        restored.map_err(|error| unread(&path, error))
    }
}

fn unread(path: &Path, error: Unread) -> StateError {
    let path = path.to_owned();
    match error {
        Unread::File(source) => StateError::File { path, action: "read", source },
        Unread::Flaw(Flaw::Damaged(what)) => StateError::Damaged { path, what },
        Unread::Flaw(Flaw::Version(found)) => StateError::Version { path, found },
    }
}

/// Magic, version and the header's length.
const START: usize = 16;

const CUT: Flaw = Flaw::Damaged("it ends too early");
const MISCOUNTED: Flaw = Flaw::Damaged("it has another number of flows than it says");

/// Reads a file up to the end of its header.
fn read_header(file: &mut (impl Read + ?Sized)) -> Result<Header, Unread> {
    let mut bytes = Vec::new();
    file.take(START as u64).read_to_end(&mut bytes).map_err(Unread::File)?;
    let mut from = bytes.as_slice();
    if take(&mut from) != Some(MAGIC) {
        return Err(Unread::Flaw(Flaw::Damaged("it does not begin as one")));
    }
    let version = take(&mut from).map(u32::from_le_bytes).ok_or(Unread::Flaw(CUT))?;
    if !(OLDEST..=VERSION).contains(&version) {
        return Err(Unread::Flaw(Flaw::Version(version)));
    }
    let length = take(&mut from).map(u32::from_le_bytes).ok_or(Unread::Flaw(CUT))? as usize;
    file.take(length as u64 + 4).read_to_end(&mut bytes).map_err(Unread::File)?;
    let (part, mut crc) = bytes.split_at_checked(START + length).ok_or(Unread::Flaw(CUT))?;
    check(part, &mut crc).map_err(Unread::Flaw)?;
    let text = part.get(START..).unwrap_or_default();
    let flaw = Flaw::Damaged("its header is not that of a state file");
    serde_json::from_slice(text).map_err(|_| Unread::Flaw(flaw))
}

/// Reads the flows that follow the header: as many as are said to be there, and nothing else. Ends early where nobody takes them.
fn read_blocks(
    file: &mut (impl Read + ?Sized),
    room: &[Share],
    mut taken: impl FnMut(SavedBlock) -> bool,
) -> Result<(), Unread> {
    let mut room: Vec<usize> = room.iter().map(|[v4, v6]| v4.saturating_add(*v6)).collect();
    let mut total = 0_u64;
    let said = loop {
        let mut head = [0; HEAD];
        let from = &mut *file;
        from.read_exact(&mut head).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => CUT.into(),
            _ => Unread::File(error),
        })?;
        let [worker, count] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_le_bytes);
        let count = usize::from(count);
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        if count > 0 && length > count * LONGEST || count == 0 && length != TOTAL {
            return Err(Flaw::Damaged("a block is longer than its flows can be").into());
        }
        let mut bytes = Vec::with_capacity(HEAD + length + CRC);
        bytes.extend(head);
        from.take((length + CRC) as u64).read_to_end(&mut bytes).map_err(Unread::File)?;
        let (part, mut crc) = bytes.split_at_checked(HEAD + length).ok_or(CUT)?;
        check(part, &mut crc)?;
        if count == 0 {
            break take(&mut &part[HEAD..]).map(u64::from_le_bytes);
        }
        total += count as u64;
        let share = room.get_mut(usize::from(worker)).ok_or(MISCOUNTED)?;
        *share = share.checked_sub(count).ok_or(MISCOUNTED)?;
        bytes.truncate(HEAD + length);
        if !taken(SavedBlock { worker, count, bytes, start: HEAD }) {
            return Ok(());
        }
    };
    let more = file.read(&mut [0]).map_err(Unread::File)?;
    if more > 0 || said != Some(total) {
        return Err(MISCOUNTED.into());
    }
    Ok(())
}

impl Header {
    /// What its flows are under a snapshot.
    fn meaning(&self, snapshot: &Snapshot) -> Meaning {
        // A clock that was set back meanwhile tells nothing: then no time has passed.
        let stopped = UNIX_EPOCH + Duration::from_micros(self.stopped);
        let older = SystemTime::now().duration_since(stopped).unwrap_or_default().as_millis() as u64;
        let now: HashMap<(&str, &str), PortId> =
            (0..).zip(&snapshot.ports).map(|(id, port)| ((kind_name(port.kind), &*port.name), PortId(id))).collect();
        let numbers: HashMap<u16, PortId> =
            self.ports.iter().filter_map(|port| Some((port.number, *now.get(&(&*port.kind, &*port.name))?))).collect();
        let largest = numbers.keys().max().map_or(0, |largest| usize::from(*largest) + 1);
        let ports = (0..).take(largest).map(|number: u16| numbers.get(&number).copied()).collect();
        let list = &snapshot.resources.list;
        let now: HashMap<&str, ResourceId> =
            (0..).zip(list).map(|(number, resource)| (resource.name.as_str(), ResourceId(number))).collect();
        let named = |name: &String| now.get(name.as_str()).copied().filter(|_| !name.is_empty());
        let resources = self.resources.iter().map(named).collect();
        Meaning { older, ports: Some(ports), resources: Some(resources) }
    }
}

/// Removes the state file when its flows have been taken over: they are not to be restored a second time.
///
/// # Errors
/// [`StateError::File`]
pub(crate) fn remove(path: &Path) -> Result<(), StateError> {
    fs::remove_file(path).map_err(|source| StateError::File { path: path.to_owned(), action: "remove", source })
}

/// Finds out early whether a state file can be written at the end.
///
/// # Errors
/// [`StateError::File`]
pub(crate) fn check_folder(path: &Path) -> Result<(), StateError> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let usable = File::open(folder).and_then(|file| match file.metadata()?.is_dir() && !path.is_dir() {
        true => Ok(()),
        false => Err(io::ErrorKind::IsADirectory.into()),
    });
    usable.map_err(|source| StateError::File { path: path.to_owned(), action: "use", source })
}

/// What is wrong with a file's bytes.
#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    Damaged(&'static str),
    Version(u32),
}

/// Takes the checksum of a part from the front of what follows it.
fn check(part: &[u8], from: &mut &[u8]) -> Result<(), Flaw> {
    match take(from).map(u32::from_le_bytes) {
        Some(crc) if crc == crc32fast::hash(part) => Ok(()),
        _ => Err(Flaw::Damaged("a checksum is wrong")),
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*first)
}

fn fingerprint(document: &str) -> (u32, usize) {
    (crc32fast::hash(document.as_bytes()), document.len())
}

fn micros(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(workers: &[u32]) -> Header {
        Header {
            stopped: 1_700_000_000_000_000,
            document: fingerprint("location = \"westeurope\""),
            switched: vec![("spoke/workload".to_owned(), "Microsoft.Storage".to_owned(), true)],
            catalogue: Some("/tags.json".into()),
            ports: vec![Port { number: 3, kind: "nic".to_owned(), name: "vm1".to_owned() }],
            resources: vec!["data".to_owned(), String::new()],
            room: workers.iter().map(|v4| [*v4 as usize, 0]).collect(),
        }
    }

    /// A flow of IPv4 whose forward source is this number.
    fn flow(number: u32) -> SavedFlow {
        let mut bytes = vec![4];
        bytes.extend(number.to_le_bytes());
        bytes.resize(1 + 2 * 15 + 4 + 4 * 8 + 4 * 4 + 4 + 4, 0);
        SavedFlow::from_bytes(&mut bytes.as_slice()).unwrap()
    }

    fn file(workers: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let header = header(workers);
        let flows = |visit: &mut dyn FnMut(u16, SavedFlow)| {
            for (worker, count) in (0..).zip(workers) {
                (0..*count).for_each(|number| visit(worker, flow(number)));
            }
        };
        write_behind(&mut bytes, |sink| write_to(sink, &header, flows)).unwrap();
        bytes
    }

    /// The header, and the flows by worker.
    fn read(mut from: &[u8]) -> Result<(Header, Vec<Vec<SavedFlow>>), Flaw> {
        let flaw = |unread| match unread {
            Unread::Flaw(flaw) => flaw,
            Unread::File(error) => panic!("{error}"),
        };
        let header = read_header(&mut from).map_err(flaw)?;
        let mut flows = vec![Vec::new(); header.room.len()];
        let taken = |block: SavedBlock| {
            let mut bytes = &block.bytes[block.start..];
            flows[usize::from(block.worker)]
                .extend((0..block.count).map(|_| SavedFlow::from_bytes(&mut bytes).unwrap()));
            assert!(bytes.is_empty());
            true
        };
        read_blocks(&mut from, &header.room, taken).map_err(flaw)?;
        Ok((header, flows))
    }

    fn bytes(flow: &SavedFlow) -> Vec<u8> {
        let mut bytes = Vec::new();
        flow.to_bytes(&mut bytes);
        bytes
    }

    #[test]
    fn what_was_written_is_read_by_worker() {
        for workers in [&[0][..], &[1], &[0, 2], &[u32::from(BLOCK) + 1, 0, u32::from(BLOCK)]] {
            let (found, flows) = read(&file(workers)).unwrap();
            assert_eq!(found, header(workers));
            for (share, count) in flows.iter().zip(workers) {
                assert_eq!(share.len(), *count as usize);
                assert!((0..).zip(share).all(|(number, one)| bytes(one) == bytes(&flow(number))));
            }
        }
    }

    #[test]
    fn what_the_version_before_wrote_is_read() {
        let mut older = file(&[2]);
        older[8] = 3;
        let length = u32::from_le_bytes(older[12..16].try_into().unwrap()) as usize;
        let crc = crc32fast::hash(&older[..START + length]);
        older[START + length..][..CRC].copy_from_slice(&crc.to_le_bytes());
        let (_, flows) = read(&older).unwrap();
        assert!((0..).zip(&flows[0]).all(|(number, one)| bytes(one) == bytes(&flow(number))));
        older[8] = 2;
        assert_eq!(read(&older).err(), Some(Flaw::Version(2)));
    }

    #[test]
    fn another_version_and_another_file_are_told_apart() {
        let mut newer = file(&[1]);
        newer[8] = 9;
        assert_eq!(read(&newer).err(), Some(Flaw::Version(9)));
        let foreign = read(b"GIF89a, and more of it").err();
        assert_eq!(foreign, Some(Flaw::Damaged("it does not begin as one")));
        let twice = [file(&[1]), file(&[1])].concat();
        assert!(read(&twice).is_err());
    }

    proptest! {
        #[test]
        fn a_cut_file_is_refused(cut in any::<prop::sample::Index>()) {
            let whole = file(&[3, 2]);
            prop_assert!(read(&whole[..cut.index(whole.len())]).is_err());
        }

        #[test]
        fn a_flipped_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut bytes = file(&[3, 2]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn any_bytes_behind_the_magic_are_read_without_a_panic(rest in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &rest].concat();
            prop_assert!(read(&bytes).is_err());
        }
    }

    #[test]
    fn a_file_with_other_flows_than_its_header_says_is_refused() {
        let flows = |workers: &[u32]| {
            let start = START + serde_json::to_vec(&header(workers)).unwrap().len() + 4;
            file(workers).split_off(start)
        };
        let mixed = |said: &[u32], there: Vec<u8>| {
            let head = START + serde_json::to_vec(&header(said)).unwrap().len() + 4;
            read(&[&file(said)[..head], &there].concat()).err()
        };
        // More than there is room for is refused, less is not: not every flow outlives its process.
        for (said, there) in [(&[1][..], &[2][..]), (&[1, 2], &[2, 1]), (&[1], &[1, 1])] {
            assert_eq!(mixed(said, flows(there)), Some(MISCOUNTED), "{said:?} {there:?}");
        }
        assert_eq!(mixed(&[2], flows(&[1])), None);
        // A block is missing in front of the end, or there is one more.
        let (one, end) = (flows(&[1]), flows(&[0]));
        let first = &one[..one.len() - end.len()];
        assert_eq!(mixed(&[2], one[first.len()..].to_vec()), Some(MISCOUNTED));
        assert_eq!(mixed(&[2], [first, &one].concat()), Some(MISCOUNTED));
    }

    #[test]
    fn what_was_changed_by_hand_belongs_to_its_document() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::write(&path, file(&[])).unwrap();
        let state = Reading::begin(&path).unwrap().unwrap();
        let by_hand = state.by_hand("location = \"westeurope\"");
        assert_eq!((by_hand.switched.len(), by_hand.catalogue), (1, Some("/tags.json".into())));
        assert_eq!(state.by_hand("location = \"northeurope\""), ByHand::default());
    }

    #[test]
    fn a_writer_that_fails_is_what_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let many = |visit: &mut dyn FnMut(u16, SavedFlow)| (0..100_000).for_each(|number| visit(0, flow(number)));
        let error = write_behind(&mut Full, |sink| write_to(sink, &header(&[100_000]), many)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert!(Reading::begin(&path).unwrap().is_none());
        fs::write(&path, "old").unwrap();
        let error = Reading::begin(&path).unwrap_err().to_string();
        assert!(error.ends_with("is no state file, or is damaged: it does not begin as one"), "{error}");

        let text =
            "location = \"westeurope\"\n\n[[virtual_network]]\nname = \"n\"\naddress_space = [\"10.1.0.0/16\"]\n";
        let network = crate::model::parse(text, Path::new("n.toml"), None).unwrap();
        let plan = crate::plan::Plan::new(network.into(), Default::default());
        let snapshot = plan.compile(1, None).unwrap();
        let switched = [(("n/s".to_owned(), "Microsoft.Sql"), false)].into();
        let in_force = InForce { document: text, switched: &switched, catalogue: None, snapshot: &snapshot };
        assert_eq!(write(&path, in_force, &Stopped::empty()).unwrap(), 0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        let state = Reading::begin(&path).unwrap().unwrap();
        assert_eq!(state.by_hand(text).switched, [("n/s".to_owned(), "Microsoft.Sql".to_owned(), false)]);
        assert!(state.stopped() <= SystemTime::now());
        remove(&path).unwrap();
        assert!(Reading::begin(&path).unwrap().is_none());

        let missing = folder.path().join("no/state");
        assert!(write(&missing, in_force, &Stopped::empty()).is_err());
        assert!(check_folder(&missing).is_err());
        assert!(check_folder(folder.path()).is_err());
        assert!(check_folder(&path).is_ok());
    }
}
