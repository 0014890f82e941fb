//! Records that were taken together, which all who want them share.

use std::sync::OnceLock;

use crate::path::record::Record;
use crate::telemetry::flow_record::FlowRecord;

/// Records of one moment.
pub(super) struct Batch {
    /// Empty where only the words are kept.
    records: Vec<Record>,
    /// What each says in words once somebody has wanted them.
    words: Vec<OnceLock<Box<FlowRecord>>>,
    /// When the workers' clock showed nothing, in milliseconds since 1970.
    epoch: u64,
}

impl Batch {
    pub(super) fn new(records: Vec<Record>, epoch: u64) -> Self {
        let words = records.iter().map(|_| OnceLock::new()).collect();
        Self { records, words, epoch }
    }

    /// The same without what they were decided by, which is large and otherwise stays as long as they do.
    pub(super) fn only_words(&self) -> Self {
        let words = self.words().map(|words| OnceLock::from(Box::new(words.clone()))).collect();
        Self { records: Vec::new(), words, epoch: self.epoch }
    }

    pub(super) fn len(&self) -> usize {
        self.words.len()
    }

    /// The records, as long as they are more than words.
    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records that are wanted, with their words.
    pub(super) fn wanted(&self, is_wanted: fn(&Record) -> bool) -> impl Iterator<Item = (&Record, &FlowRecord)> {
        let both = self.records.iter().zip(&self.words).filter(move |(record, _)| is_wanted(record));
        both.map(|(record, words)| (record, self.say(record, words)))
    }

    /// All of them in words.
    pub(super) fn words(&self) -> impl DoubleEndedIterator<Item = &FlowRecord> {
        self.words.iter().enumerate().filter_map(|(place, words)| match self.records.get(place) {
            Some(record) => Some(self.say(record, words)),
            None => words.get().map(|words| &**words),
        })
    }

    fn say<'w>(&self, record: &Record, words: &'w OnceLock<Box<FlowRecord>>) -> &'w FlowRecord {
        words.get_or_init(|| Box::new(FlowRecord::new(record, self.epoch)))
    }
}
