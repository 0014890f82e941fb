//! Reads values out of a TOML document and keeps their places. A value of a wrong type is a mistake and is left out;
//! reading goes on, so that one pass finds them all.

use std::net::IpAddr;
use std::ops::{Deref, Range};

use ipnet::IpNet;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Report;
use super::names::{did_you_mean, nearest};

/// A value that a document may hold.
pub(super) trait Read: Sized {
    /// What is expected, with its article, for messages: `a string`.
    const EXPECTED: &'static str;

    /// Reads a value, or reports why it cannot be one.
    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self>;
}

/// A list of a document.
#[derive(Debug)]
pub(super) struct List<T> {
    items: Vec<Spanned<T>>,
    /// False if an element had to be left out: what depends on the whole list cannot be judged.
    pub(super) complete: bool,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new(), complete: true }
    }
}

impl<T> Deref for List<T> {
    type Target = [Spanned<T>];

    fn deref(&self) -> &[Spanned<T>] {
        &self.items
    }
}

/// The type of a value, with its article.
fn type_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Reports a value of a wrong type.
pub(super) fn wrong_type(expected: &str, value: &Spanned<DeValue<'_>>, report: &Report<'_>) {
    report.mistake(&value.span(), format!("expected {expected}, found {}", type_of(value.get_ref())));
}

/// The text of a string value, or a mistake.
fn text<'v>(expected: &str, value: &'v Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<&'v str> {
    let text = value.get_ref().as_str();
    if text.is_none() {
        wrong_type(expected, value, report);
    }
    text
}

impl Read for String {
    const EXPECTED: &'static str = "a string";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        text(Self::EXPECTED, value, report).map(str::to_owned)
    }
}

impl Read for bool {
    const EXPECTED: &'static str = "true or false";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        let read = value.get_ref().as_bool();
        if read.is_none() {
            wrong_type(Self::EXPECTED, value, report);
        }
        read
    }
}

impl Read for i64 {
    const EXPECTED: &'static str = "an integer";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        let Some(integer) = value.get_ref().as_integer() else {
            wrong_type(Self::EXPECTED, value, report);
            return None;
        };
        let read = Self::from_str_radix(integer.as_str(), integer.radix()).ok();
        if read.is_none() {
            report.mistake(&value.span(), format!("the integer {integer} is too large"));
        }
        read
    }
}

impl Read for IpAddr {
    const EXPECTED: &'static str = "an address";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        let text = text(Self::EXPECTED, value, report)?;
        let read = text.parse().ok();
        if read.is_none() {
            let help = match text.split_once('/').map(|(address, _)| address.parse::<Self>()) {
                Some(Ok(address)) => format!("an address has no prefix length: write \"{address}\""),
                _ => "write an IPv4 or IPv6 address such as \"10.1.1.4\" or \"fd00:1::4\"".to_owned(),
            };
            report.mistake_with_help(&value.span(), format!("`{text}` is not an address"), help);
        }
        read
    }
}

/// A prefix. Host bits that are set are a mistake; the value has them clear.
impl Read for IpNet {
    const EXPECTED: &'static str = "a prefix";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        let text = text(Self::EXPECTED, value, report)?;
        parse_prefix(text, &value.span(), report)
    }
}

/// Parses a prefix; reports and clears host bits.
pub(super) fn parse_prefix(text: &str, place: &Range<usize>, report: &Report<'_>) -> Option<IpNet> {
    let Ok(written) = text.parse::<IpNet>() else {
        report.mistake_with_help(place, format!("`{text}` is not a prefix"), prefix_help(text));
        return None;
    };
    let prefix = written.trunc();
    if prefix != written {
        report.mistake_with_help(
            place,
            format!("the prefix `{text}` has host bits set"),
            format!("write \"{prefix}\""),
        );
    }
    Some(prefix)
}

fn prefix_help(text: &str) -> String {
    match text.parse::<IpAddr>() {
        Ok(address) => format!("a prefix has a length: write \"{}\" for the one address", IpNet::from(address)),
        Err(_) => "write an IPv4 or IPv6 prefix such as \"10.1.0.0/16\" or \"fd00:1::/48\"".to_owned(),
    }
}

/// An address of an interface with the prefix length of its link: `192.168.0.1/24`.
#[derive(Debug, Clone, Copy)]
pub(super) struct InterfaceAddress(pub(super) IpNet);

impl Read for InterfaceAddress {
    const EXPECTED: &'static str = "an address with a prefix length";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        let text = text(Self::EXPECTED, value, report)?;
        let read = text.parse().ok().map(Self);
        if read.is_none() {
            let help = match text.parse::<IpAddr>() {
                Ok(address) => format!("write \"{}\"", IpNet::from(address)),
                Err(_) => "write an address such as \"192.168.0.1/24\" or \"fd00::1/64\"".to_owned(),
            };
            report.mistake_with_help(&value.span(), format!("`{text}` is not an address with a prefix length"), help);
        }
        read
    }
}

/// One value or a list of them.
#[derive(Debug)]
pub(super) struct OneOrMany<T>(pub(super) List<T>);

impl<T: Read> Read for OneOrMany<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Array(_) => List::read(value, report).map(Self),
            _ => T::read(value, report)
                .map(|one| Self(List { items: vec![Spanned::new(value.span(), one)], complete: true })),
        }
    }
}

impl<T: Read> Read for List<T> {
    const EXPECTED: &'static str = "a list";

    fn read(value: &Spanned<DeValue<'_>>, report: &Report<'_>) -> Option<Self> {
        let Some(array) = value.get_ref().as_array() else {
            let found = type_of(value.get_ref());
            let message = format!("expected a list, found {found}");
            let place = value.span();
            match value.get_ref() {
                DeValue::String(text) => {
                    report.mistake_with_help(&place, message, format!("write [\"{text}\"]"));
                }
                DeValue::Table(_) => report.mistake_with_help(&place, message, "write [{ … }] or [[ … ]]"),
                _ => report.mistake(&place, message),
            }
            return None;
        };
        let items: Vec<_> =
            array.iter().filter_map(|item| Some(Spanned::new(item.span(), T::read(item, report)?))).collect();
        let complete = items.len() == array.len();
        Some(Self { items, complete })
    }
}

/// The keys of one table. Every key that is asked for counts as known; [`Fields::done`] reports the others.
pub(super) struct Fields<'d> {
    table: &'d DeTable<'d>,
    place: Range<usize>,
    what: &'static str,
    known: Vec<&'static str>,
    report: &'d Report<'d>,
}

impl<'d> Fields<'d> {
    /// The whole document's keys.
    pub(super) fn of_document(table: &'d DeTable<'d>, report: &'d Report<'d>) -> Self {
        Self { table, place: 0..0, what: "the document", known: Vec::new(), report }
    }

    /// The keys of a table; `what` names it in messages. Anything but a table is a mistake.
    pub(super) fn open(value: &'d Spanned<DeValue<'d>>, what: &'static str, report: &'d Report<'d>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            wrong_type("a table", value, report);
            return None;
        };
        Some(Self { table, place: value.span(), what, known: Vec::new(), report })
    }

    fn find(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// An optional value.
    pub(super) fn optional<T: Read>(&mut self, key: &'static str) -> Option<Spanned<T>> {
        let value = self.find(key)?;
        Some(Spanned::new(value.span(), T::read(value, self.report)?))
    }

    /// A value that has to be there.
    pub(super) fn required<T: Read>(&mut self, key: &'static str) -> Option<Spanned<T>> {
        if !self.table.contains_key(key) {
            self.missing(key, T::EXPECTED);
        }
        self.optional(key)
    }

    /// A list; none if the key is missing.
    pub(super) fn list<T: Read>(&mut self, key: &'static str) -> List<T> {
        match self.find(key) {
            None => List::default(),
            Some(value) => List::read(value, self.report).unwrap_or(List { items: Vec::new(), complete: false }),
        }
    }

    /// A list of at least one element.
    pub(super) fn filled_list<T: Read>(&mut self, key: &'static str) -> List<T> {
        if !self.table.contains_key(key) {
            self.missing(key, "a list");
        } else if self.table[key].get_ref().as_array().is_some_and(|array| array.is_empty()) {
            self.report.mistake(&self.table[key].span(), format!("`{key}` of {} must not be empty", self.what));
        }
        self.list(key)
    }

    /// Whether the table has a key, whatever its value.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.table.contains_key(key)
    }

    /// A switch that is off unless the document turns it on.
    pub(super) fn flag(&mut self, key: &'static str) -> bool {
        self.optional::<bool>(key).is_some_and(Spanned::into_inner)
    }

    fn missing(&self, key: &'static str, expected: &str) {
        let what = self.what;
        self.report.mistake_with_help(&self.place, format!("{what} has no `{key}`"), format!("add {key} = {expected}"));
    }

    /// Reports every key that nobody asked for.
    pub(super) fn done(self) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                let help = did_you_mean(nearest(name, self.known.iter().copied()));
                self.report.add(&key.span(), format!("unknown key `{name}` in {}", self.what), help);
            }
        }
    }
}
