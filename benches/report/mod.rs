//! What a benchmark program found: one table for people, `target/bench/bench.json` for programs, and plots.
//!
//! A row has a key and the samples of all rounds, one of each round. What counts is the median; the table shows the smallest
//! and the largest beside it. `bench.json` is one object that all programs of `scripts/bench` write to, each its own keys.

pub(crate) mod plot;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

/// What a median should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wanted {
    /// Nothing is asked of it.
    Anything,
    /// At most so much.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
}

/// One thing that is measured.
#[derive(Debug)]
struct Row {
    key: String,
    title: String,
    wanted: Wanted,
    samples: Vec<f64>,
}

/// The rows in the order of the table.
#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Row>);

impl Report {
    /// Adds a row. `title` says what it is and in which unit; `key` is what it is called in `bench.json`.
    pub(crate) fn row(&mut self, key: &str, title: &str, wanted: Wanted) {
        assert!(self.find(key).is_none(), "{key} is there already");
        self.0.push(Row { key: key.to_owned(), title: title.to_owned(), wanted, samples: Vec::new() });
    }

    /// Notes a sample of a row.
    pub(crate) fn note(&mut self, key: &str, value: f64) {
        let row = self.0.iter_mut().find(|row| row.key == key);
        row.unwrap_or_else(|| panic!("{key} is no row")).samples.push(value);
    }

    /// Notes the ratio of the last samples of two rows.
    pub(crate) fn note_ratio(&mut self, key: &str, of: &str, to: &str) {
        let [of, to] = [of, to].map(|key| *self.samples(key).last().expect("a sample"));
        self.note(key, of / to);
    }

    /// The samples of a row, one of each round.
    pub(crate) fn samples(&self, key: &str) -> &[f64] {
        &self.find(key).unwrap_or_else(|| panic!("{key} is no row")).samples
    }

    fn find(&self, key: &str) -> Option<&Row> {
        self.0.iter().find(|row| row.key == key)
    }

    /// Prints the table. Rows without a sample are not measured, and said to be.
    pub(crate) fn print(&self) {
        let titles = self.0.iter().map(|row| row.title.chars().count()).max().unwrap_or(0);
        let keys = self.0.iter().map(|row| row.key.len()).max().unwrap_or(0);
        println!("{:<titles$}  {:<keys$}  {:>12}  {:<24}  wanted", "", "key", "median", "smallest to largest");
        for Row { key, title, wanted, samples } in &self.0 {
            if samples.is_empty() {
                println!("{title:<titles$}  {key:<keys$}  not measured");
                continue;
            }
            let (middle, spread) = (median(samples), spread(samples));
            let wanted = match *wanted {
                Wanted::Anything => String::new(),
                Wanted::AtMost(most) => format!("at most {}{}", shown(most), missed(middle > most)),
                Wanted::AtLeast(least) => format!("at least {}{}", shown(least), missed(middle < least)),
            };
            let line = format!("{title:<titles$}  {key:<keys$}  {:>12}  {spread:<24}  {wanted}", shown(middle));
            println!("{}", line.trim_end());
        }
    }

    /// Writes the medians into `bench.json`.
    pub(crate) fn save(&self) {
        let measured = self.0.iter().filter(|row| !row.samples.is_empty());
        save(measured.map(|row| (row.key.clone(), rounded(median(&row.samples)).into())).collect());
    }
}

fn missed(is_missed: bool) -> &'static str {
    if is_missed { ", missed" } else { "" }
}

/// Writes values into `bench.json`, beside those that are there under other keys, and on what they were measured.
pub(crate) fn save(values: Map<String, Value>) {
    let file = folder().join("bench.json");
    let before = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let mut all: Map<String, Value> = before.unwrap_or_default();
    all.extend(values);
    let Machine { kernel, processors, model } = Machine::here();
    all.extend([
        ("kernel".to_owned(), kernel.into()),
        ("processors".to_owned(), processors.into()),
        ("machine".to_owned(), model.into()),
    ]);
    let text = serde_json::to_string_pretty(&all).expect("JSON");
    fs::write(file, text + "\n").expect("write the results");
}

/// Where results are written; it is made where it is not there.
pub(crate) fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder).expect("a folder for the results");
    folder
}

/// What is measured on.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The kernel's release.
    pub(crate) kernel: String,
    /// How many processors this process may use.
    pub(crate) processors: usize,
    /// What the processors call themselves.
    pub(crate) model: String,
}

impl Machine {
    /// This one.
    pub(crate) fn here() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let model = model.map_or(String::new(), |(_, name)| name.trim().to_owned());
        Self { kernel, processors, model }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} processors {}, Linux {}", self.processors, self.model, self.kernel)
    }
}

/// The median of samples, of which there has to be one.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// `0.95 to 1.01`: the smallest and the largest.
fn spread(samples: &[f64]) -> String {
    let smallest = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if shown(smallest) == shown(largest) { String::new() } else { format!("{} to {}", shown(smallest), shown(largest)) }
}

/// Three or more digits that mean something.
fn shown(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        size if size < 10.0 => 2,
        size if size < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

/// `4,128,768`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Four decimals at most, so that `bench.json` can be read.
fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
