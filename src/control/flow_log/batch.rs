//! Records that were taken together, which all who want them share.

use std::sync::OnceLock;

use crate::path::record::Record;
use crate::telemetry::flow_record::FlowRecord;

/// A record, and what it says in words once somebody has wanted them.
pub(super) struct Entry {
    /// None where only the words are kept.
    record: Option<Record>,
    words: OnceLock<FlowRecord>,
}

/// Records of one moment.
pub(super) struct Batch {
    entries: Vec<Entry>,
    /// When the workers' clock showed nothing, in milliseconds since 1970.
    epoch: u64,
}

impl Batch {
    pub(super) fn new(records: Vec<Record>, epoch: u64) -> Self {
        let entry = |record| Entry { record: Some(record), words: OnceLock::new() };
        Self { entries: records.into_iter().map(entry).collect(), epoch }
    }

    /// The same without what they were decided by, which is large and otherwise stays as long as they do.
    pub(super) fn only_words(&self) -> Self {
        let entry = |words: &FlowRecord| Entry { record: None, words: OnceLock::from(words.clone()) };
        Self { entries: self.words().map(entry).collect(), epoch: self.epoch }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The records, as long as they are more than words.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.entries.iter().filter_map(|entry| entry.record.as_ref())
    }

    /// The records that are wanted, with their words.
    pub(super) fn wanted(&self, is_wanted: fn(&Record) -> bool) -> impl Iterator<Item = (&Record, &FlowRecord)> {
        let wanted = move |entry: &&Entry| entry.record.as_ref().is_some_and(is_wanted);
        self.entries.iter().filter(wanted).filter_map(|entry| Some((entry.record.as_ref()?, self.words_of(entry)?)))
    }

    /// All of them in words.
    pub(super) fn words(&self) -> impl DoubleEndedIterator<Item = &FlowRecord> {
        self.entries.iter().filter_map(|entry| self.words_of(entry))
    }

    fn words_of<'e>(&self, entry: &'e Entry) -> Option<&'e FlowRecord> {
        match &entry.record {
            Some(record) => Some(entry.words.get_or_init(|| FlowRecord::new(record, self.epoch))),
            None => entry.words.get(),
        }
    }
}
