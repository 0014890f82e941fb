//! Where files are, in Azure's folders, and the end of those that are too old.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::FlowLogError;

/// Folders that all files are below.
pub(super) const BELOW: &str = "insights-logs-flowlogflowevent";
pub(super) const RESOURCE: &str = "flowLogResourceID=/00000000-0000-0000-0000-000000000000_NETWORKWATCHERRG";

/// What every file is called.
pub(super) const FILE: &str = "PT1H.json";

/// The path of a file below the folder.
pub(super) fn path_of(region: &str, log: &str, hour: i64, mac: &str) -> PathBuf {
    let time = OffsetDateTime::from_unix_timestamp(hour.saturating_mul(3_600)).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (year, month, day, hour) = (time.year(), u8::from(time.month()), time.day(), time.hour());
    PathBuf::from(BELOW)
        .join(RESOURCE)
        .join(format!("NETWORKWATCHER_{region}_{log}"))
        .join(format!("y={year:04}"))
        .join(format!("m={month:02}"))
        .join(format!("d={day:02}"))
        .join(format!("h={hour:02}"))
        .join("m=00")
        .join(format!("macAddress={mac}"))
        .join(FILE)
}

/// Files that are deleted.
pub(super) struct Deleting {
    /// The hour that the oldest file that is kept is of, since 1970.
    pub(super) oldest: i64,
    pub(super) deleted: u64,
    pub(super) result: Result<(), FlowLogError>,
}

impl Deleting {
    /// Looks at a folder; `names` are those of the folders from the log's on.
    pub(super) fn folder(&mut self, path: &Path, names: &mut Vec<String>) {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.failed(path, error),
        };
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            // A link is neither.
            let Ok(kind) = entry.file_type() else { continue };
            let path = entry.path();
            names.push(name);
            if kind.is_dir() && is_level(names) {
                self.folder(&path, names);
                if names.len() > 1 {
                    // Where something is in it, it stays.
                    let _ = fs::remove_dir(&path);
                }
            } else if kind.is_file() && hour_of(names).is_some_and(|hour| hour < self.oldest) {
                match fs::remove_file(&path) {
                    Ok(()) => self.deleted += 1,
                    Err(error) => self.failed(&path, error),
                }
            }
            names.pop();
        }
    }

    fn failed(&mut self, path: &Path, source: io::Error) {
        if self.result.is_ok() {
            self.result = Err(FlowLogError { path: path.to_owned(), source });
        }
    }
}

/// What the folders below a log are called, and how many digits they have.
const LEVELS: [(&str, usize); 5] = [("y=", 4), ("m=", 2), ("d=", 2), ("h=", 2), ("m=", 2)];

/// Whether the last of these folders, of which the first is a log's, is one of those that are made here.
fn is_level(names: &[String]) -> bool {
    let Some((last, before)) = names.split_last() else { return false };
    match before.len() {
        0 => last.starts_with("NETWORKWATCHER_") && last.ends_with("-FLOWLOG"),
        6 => last.strip_prefix("macAddress=").is_some_and(|mac| {
            mac.len() == 12 && mac.bytes().all(|byte| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte))
        }),
        depth => LEVELS.get(depth - 1).is_some_and(|(prefix, digits)| digits_of(last, prefix, *digits).is_some()),
    }
}

fn digits_of(name: &str, prefix: &str, digits: usize) -> Option<u16> {
    let number = name.strip_prefix(prefix).filter(|number| number.len() == digits)?;
    if number.bytes().all(|byte| byte.is_ascii_digit()) { number.parse().ok() } else { None }
}

/// The hour since 1970 that a file is of, whose folders and name these are; none where it is none of ours.
fn hour_of(names: &[String]) -> Option<i64> {
    let [_, dates @ .., _, file] = names else { return None };
    if file != FILE || dates.len() != LEVELS.len() {
        return None;
    }
    let mut numbers = [0; LEVELS.len()];
    for ((number, name), (prefix, digits)) in numbers.iter_mut().zip(dates).zip(LEVELS) {
        *number = digits_of(name, prefix, digits)?;
    }
    let [year, month, day, hour, _] = numbers;
    let month = u8::try_from(month).ok().and_then(|month| time::Month::try_from(month).ok())?;
    let date = time::Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()?;
    let time = date.with_hms(u8::try_from(hour).ok()?, 0, 0).ok()?;
    Some(time.assume_utc().unix_timestamp() / 3_600)
}
