//! The documentation of address translation tells the truth: its table has every requirement, every test that it names
//! exists, and its lifetimes are those of the code.

use std::fs;
use std::path::{Path, PathBuf};

use sidestep::snapshot::Lifetimes;

/// The RFCs about address translation, and what of them the table is about.
const REQUIREMENTS: [(&str, &[&str]); 5] = [
    ("4787", &["1", "2", "3", "5", "6", "8", "9", "11", "12", "13", "14"]),
    ("5382", &["2", "4", "5", "7", "8", "9", "10"]),
    ("5508", &["1", "2", "3", "4", "5", "6", "7", "8"]),
    ("7857", &["2", "2.1", "2.2", "3", "7.1", "10"]),
    ("6888", &["4", "5", "8", "12", "13", "14", "15"]),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of the tables with so many columns, without their headings.
fn rows(columns: usize) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("src/path/nat.md")).unwrap();
    let cells = |line: &str| -> Vec<String> {
        let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
        inner.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let tables = text.lines().filter(|line| line.starts_with('|')).map(cells);
    let mut rows: Vec<Vec<String>> = tables.filter(|row| row.len() == columns).collect();
    assert!(rows.len() > 2, "a table with {columns} columns");
    rows.drain(..2);
    rows
}

/// The file of a test that is written as `target::module::name`, and its name.
fn place(test: &str) -> (PathBuf, &str) {
    let (modules, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("`{test}` has no target"));
    let file = Path::new("tests").join(modules.replace("::", "/")).with_extension("rs");
    (root().join(file), name)
}

/// Whether a file has a test function of this name.
fn has_test(file: &Path, name: &str) -> bool {
    let Ok(text) = fs::read_to_string(file) else { return false };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.windows(2).any(|pair| pair[0] == "#[test]" && pair[1].starts_with(&format!("fn {name}(")))
}

#[test]
fn the_table_has_every_requirement_in_order() {
    let listed: Vec<_> = rows(6).into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let wanted: Vec<_> = REQUIREMENTS
        .iter()
        .flat_map(|(rfc, numbers)| numbers.iter().map(|number| ((*rfc).to_owned(), (*number).to_owned())))
        .collect();
    assert_eq!(listed, wanted);
}

#[test]
fn what_is_kept_names_tests_and_what_is_not_gives_a_reason() {
    for row in rows(6) {
        let [rfc, number, asks, state, reason, tests] = row.try_into().unwrap();
        let what = format!("RFC {rfc} requirement {number}");
        assert!(!asks.is_empty(), "{what}");
        match state.as_str() {
            "kept" => assert!(!tests.is_empty(), "{what} names no test"),
            "deviation" | "not applicable" => assert!(!reason.is_empty(), "{what} gives no reason"),
            other => panic!("{what} is {other}"),
        }
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let mut named = 0;
    for row in rows(6) {
        for test in row[5].split(',').map(|test| test.trim().trim_matches('`')).filter(|test| !test.is_empty()) {
            let (file, name) = place(test);
            assert!(has_test(&file, name), "RFC {} requirement {} names {test}, which is no test", row[0], row[1]);
            named += 1;
        }
    }
    assert!(named >= rows(6).len(), "{named} tests are named");
}

#[test]
fn the_lifetimes_are_those_of_the_code() {
    let of = |lifetimes: Lifetimes| {
        let Lifetimes { query, datagram, opening, established, closing, closed, aborted, rest, rest_half_open } =
            lifetimes;
        [query, datagram, opening, established, closing, closed, aborted, rest, rest_half_open]
    };
    let milliseconds = |cell: &str| {
        let number = cell.trim_matches('*').trim_end_matches(" s").replace(',', "");
        number.parse::<u64>().unwrap_or_else(|_| panic!("`{cell}` is no time")) * 1_000
    };
    let rows = rows(4);
    let written = |column: usize| -> Vec<u64> { rows.iter().map(|row| milliseconds(&row[column])).collect() };
    assert_eq!(written(1), of(Lifetimes::RFC), "elsewhere");
    assert_eq!(written(2), of(Lifetimes::NAT_GATEWAY), "NAT gateway");
}
