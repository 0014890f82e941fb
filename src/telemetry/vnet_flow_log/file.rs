//! A file of records, which is whole JSON before and after every write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// What stands before the first record of a file, between two, and behind the last.
pub(super) const BEGIN: &[u8] = b"{\"records\":[\n";
pub(super) const BETWEEN: &[u8] = b",\n";
pub(super) const END: &[u8] = b"\n]}\n";

/// Appends a record to a file, which is made where it is missing and is whole JSON before and after.
pub(super) fn append(path: &Path, record: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    append_to(&mut file, record)
}

/// What a record is appended to.
pub(super) trait Place: Read + Write + Seek {
    fn set_length(&mut self, length: u64) -> io::Result<()>;
}

impl Place for File {
    fn set_length(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

pub(super) fn append_to(file: &mut impl Place, record: &[u8]) -> io::Result<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let whole = if length == 0 { 0 } else { whole_records(file, length)? };
    let mut bytes = Vec::with_capacity(record.len() + BEGIN.len() + END.len());
    bytes.extend_from_slice(if whole == 0 { BEGIN } else { BETWEEN });
    bytes.extend_from_slice(record);
    bytes.extend_from_slice(END);
    let written = file
        .seek(SeekFrom::Start(whole))
        .and_then(|_| file.write_all(&bytes))
        .and_then(|()| file.set_length(whole + bytes.len() as u64));
    if written.is_err() {
        // Nothing of the record may stay: it comes again. What ended the file is there again; where even that fails, a file
        // that was cut is mended the next time.
        let _ = file.set_length(whole);
        if whole > 0 {
            let _ = file.seek(SeekFrom::Start(whole)).and_then(|_| file.write_all(END));
        }
    }
    written
}

/// Where the last whole record of a file ends; 0 where there is none.
fn whole_records(file: &mut impl Place, length: u64) -> io::Result<u64> {
    let end = END.len() as u64;
    if length >= end {
        let mut tail = [0; END.len()];
        file.seek(SeekFrom::Start(length - end))?;
        file.read_exact(&mut tail)?;
        if tail == END {
            return Ok(length - end);
        }
    }
    // It was cut: what is whole are lines that are records.
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    let mut whole = 0;
    let mut place = BEGIN.len();
    while let Some(line) = bytes.get(place..) {
        let length = line.iter().position(|byte| *byte == b'\n').unwrap_or(line.len());
        let Some(line) = line.get(..length) else { break };
        let record = line.strip_suffix(b",").unwrap_or(line);
        if record.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(record).is_err() {
            break;
        }
        whole = place + record.len();
        place += length + 1;
    }
    Ok(whole as u64)
}
