//! From the bytes of a document to tags, with the place of everything that is wrong.
//!
//! The JSON is read in levels: document, entry, properties, list of prefixes. What is below a level stays a slice of the
//! text, so that its address in memory tells its place, and a mistake in one part does not hide those of the others. Lines
//! are counted only once there is a mistake.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::error::{CatalogueError, Mistake, MistakeKind};
use super::{Tag, prefix};

/// A document without mistakes.
pub(super) struct Parsed {
    pub(super) change_number: u64,
    pub(super) cloud: String,
    pub(super) next_link: Option<String>,
    pub(super) tags: Vec<Tag>,
    /// Index in `tags` by the name in lower case.
    pub(super) by_name: HashMap<String, usize>,
}

/// Reads a document that errors call `name`.
pub(super) fn parse(document: &[u8], name: &str) -> Result<Parsed, CatalogueError> {
    let broken = |mistakes| CatalogueError::Broken { name: name.to_owned(), mistakes };
    let text = match str::from_utf8(document) {
        // Some tools write a byte order mark, which JSON does not know.
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => {
            let valid = String::from_utf8_lossy(&document[..error.valid_up_to()]);
            let (line, column) = Lines::of(&valid).place(&valid, valid.len());
            let kind = MistakeKind::NotUtf8;
            return Err(broken(vec![Mistake { line, column, entry: None, tag: None, prefix: None, kind }]));
        }
    };
    if text.trim().is_empty() {
        return Err(CatalogueError::Empty { name: name.to_owned() });
    }
    let mut reader = Reader::new(text);
    let parsed = reader.document();
    match parsed {
        Some(parsed) if reader.mistakes.is_empty() => Ok(parsed),
        _ => {
            reader.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
            Err(broken(reader.mistakes))
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentParts<'t> {
    #[serde(borrow)]
    change_number: Option<&'t RawValue>,
    cloud: Option<&'t RawValue>,
    next_link: Option<&'t RawValue>,
    values: Option<&'t RawValue>,
}

#[derive(Deserialize)]
struct EntryParts<'t> {
    #[serde(borrow)]
    name: Option<&'t RawValue>,
    id: Option<&'t RawValue>,
    properties: Option<&'t RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PropertyParts<'t> {
    #[serde(borrow)]
    change_number: Option<&'t RawValue>,
    region: Option<&'t RawValue>,
    region_id: Option<&'t RawValue>,
    platform: Option<&'t RawValue>,
    system_service: Option<&'t RawValue>,
    state: Option<&'t RawValue>,
    network_features: Option<&'t RawValue>,
    address_prefixes: Option<&'t RawValue>,
}

/// A number, or a string that holds one, as the management API writes them.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number<'t> {
    Number(u64),
    Text(#[serde(borrow)] Cow<'t, str>),
}

/// The reading of one document.
struct Reader<'t> {
    text: &'t str,
    lines: OnceCell<Lines>,
    mistakes: Vec<Mistake>,
    /// What the mistakes to come are about.
    entry: Option<usize>,
    tag: Option<String>,
    prefix: Option<usize>,
}

impl<'t> Reader<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, lines: OnceCell::new(), mistakes: Vec::new(), entry: None, tag: None, prefix: None }
    }

    /// None where the document is so broken that there is nothing to go on with; the mistakes say why.
    fn document(&mut self) -> Option<Parsed> {
        let start = self.text.len() - self.text.trim_start().len();
        if !self.is_object("the document", &self.text[start..]) {
            return None;
        }
        let parts: DocumentParts<'t> = match serde_json::from_str(self.text) {
            Ok(parts) => parts,
            Err(error) => {
                self.broken_document(&error);
                return None;
            }
        };
        let change_number = self.number("changeNumber", parts.change_number);
        let cloud = self.string("cloud", parts.cloud).unwrap_or_default();
        let next_link = self.string("nextLink", parts.next_link).filter(|link| !link.is_empty());
        let Some(values) = parts.values else {
            self.mistake(start, MistakeKind::Missing("values"));
            return None;
        };
        let place = self.offset(values.get());
        let values = self.list("values", values)?;
        if values.is_empty() {
            self.mistake(place, MistakeKind::NoTags);
            return None;
        }
        let mut tags = Vec::with_capacity(values.len());
        let mut first: HashMap<String, (usize, usize)> = HashMap::with_capacity(values.len());
        for (index, value) in values.into_iter().enumerate() {
            self.entry = Some(index);
            if let Some((tag, name_offset)) = self.entry(value) {
                match first.entry(tag.name.to_ascii_lowercase()) {
                    MapEntry::Vacant(vacant) => {
                        vacant.insert((index, name_offset));
                    }
                    MapEntry::Occupied(occupied) => {
                        let (entry, offset) = *occupied.get();
                        let (line, _) = self.place(offset);
                        let name = self.name_at(offset);
                        self.mistake(name_offset, MistakeKind::TagTwice { entry, name, line });
                    }
                }
                tags.push(tag);
            }
            self.tag = None;
        }
        self.entry = None;
        // Without a mistake every entry is a tag, and its index that of the entry.
        let by_name = first.into_iter().map(|(name, (index, _))| (name, index)).collect();
        Some(Parsed { change_number, cloud, next_link, tags, by_name })
    }

    /// The tag of an entry and the place of its name.
    fn entry(&mut self, value: &'t RawValue) -> Option<(Tag, usize)> {
        let parts: EntryParts<'t> = self.object("an entry of `values`", value)?;
        let start = self.offset(value.get());
        let name = match parts.name {
            Some(raw) => self.string("name", Some(raw)).map(|name| (name, self.offset(raw.get()))),
            None => {
                self.mistake(start, MistakeKind::Missing("name"));
                None
            }
        };
        let name = name.filter(|(name, offset)| {
            let empty = name.trim().is_empty();
            if empty {
                self.mistake(*offset, MistakeKind::Missing("name"));
            }
            !empty
        });
        self.tag = name.as_ref().map(|(name, _)| name.clone());
        let id = self.string("id", parts.id);
        let Some(properties) = parts.properties else {
            self.mistake(start, MistakeKind::Missing("properties"));
            return None;
        };
        let fields: PropertyParts<'t> = self.object("`properties`", properties)?;
        let (prefixes_v4, prefixes_v6) = match fields.address_prefixes {
            Some(list) => self.prefixes(list),
            None => {
                self.mistake(self.offset(properties.get()), MistakeKind::Missing("addressPrefixes"));
                Default::default()
            }
        };
        let change_number = self.number("changeNumber", fields.change_number);
        let region = self.string("region", fields.region).unwrap_or_default();
        let region_id = self.number("regionId", fields.region_id);
        let platform = self.string("platform", fields.platform).unwrap_or_default();
        let system_service = self.string("systemService", fields.system_service).unwrap_or_default();
        let state = self.string("state", fields.state);
        let network_features = self.decode("networkFeatures", "a list of strings or null", fields.network_features);
        let (name, offset) = name?;
        let tag = Tag {
            id: id.unwrap_or_else(|| name.clone()),
            name,
            region,
            region_id,
            platform,
            system_service,
            change_number,
            state,
            network_features,
            prefixes_v4,
            prefixes_v6,
        };
        Some((tag, offset))
    }

    fn prefixes(&mut self, list: &'t RawValue) -> (Vec<ipnet::Ipv4Net>, Vec<ipnet::Ipv6Net>) {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for (index, raw) in self.list("addressPrefixes", list).unwrap_or_default().into_iter().enumerate() {
            let parsed = match string_of(raw) {
                Some(text) => prefix::parse(&text),
                None => Err(MistakeKind::NoPrefix { found: shortened(raw.get()) }),
            };
            match parsed {
                Ok(IpNet::V4(prefix)) => v4.push(prefix),
                Ok(IpNet::V6(prefix)) => v6.push(prefix),
                Err(kind) => {
                    self.prefix = Some(index);
                    self.mistake(self.offset(raw.get()), kind);
                    self.prefix = None;
                }
            }
        }
        (v4, v6)
    }

    fn object<T: Deserialize<'t>>(&mut self, what: &str, value: &'t RawValue) -> Option<T> {
        if !self.is_object(what, value.get()) {
            return None;
        }
        match serde_json::from_str(value.get()) {
            Ok(parts) => Some(parts),
            Err(error) => {
                let offset = self.offset(value.get()) + offset_of(value.get(), &error);
                self.mistake(offset, MistakeKind::Structure(message_of(&error)));
                None
            }
        }
    }

    /// The derived readers take a list for an object as well, so that is asked first.
    fn is_object(&mut self, what: &str, value: &'t str) -> bool {
        let is_object = value.starts_with('{');
        if !is_object {
            let message = format!("{what} has to be an object, not {}", shortened(value));
            self.mistake(self.offset(value), MistakeKind::Structure(message));
        }
        is_object
    }

    fn list(&mut self, field: &'static str, value: &'t RawValue) -> Option<Vec<&'t RawValue>> {
        self.decode(field, "a list", Some(value))
    }

    fn string(&mut self, field: &'static str, value: Option<&'t RawValue>) -> Option<String> {
        self.decode(field, "a string", value)
    }

    /// 0 where there is none.
    fn number<T: TryFrom<u64> + Default>(&mut self, field: &'static str, value: Option<&'t RawValue>) -> T {
        let Some(raw) = value else { return T::default() };
        let number = match serde_json::from_str(raw.get()) {
            Ok(Number::Number(number)) => Some(number),
            Ok(Number::Text(text)) => text.trim().parse().ok(),
            Err(_) => None,
        };
        number.and_then(|number| T::try_from(number).ok()).unwrap_or_else(|| {
            self.wrong_field(field, "a whole number", raw);
            T::default()
        })
    }

    /// None where the field is missing, `null` or wrong.
    fn decode<T: Deserialize<'t>>(
        &mut self,
        field: &'static str,
        expected: &'static str,
        value: Option<&'t RawValue>,
    ) -> Option<T> {
        let raw = value?;
        let decoded = serde_json::from_str(raw.get()).ok();
        if decoded.is_none() {
            self.wrong_field(field, expected, raw);
        }
        decoded
    }

    fn wrong_field(&mut self, field: &'static str, expected: &'static str, raw: &'t RawValue) {
        let found = shortened(raw.get());
        self.mistake(self.offset(raw.get()), MistakeKind::Field { field, expected, found });
    }

    /// A document that is no JSON or no object: says where, and in which entry.
    fn broken_document(&mut self, error: &serde_json::Error) {
        let message = message_of(error);
        let kind = match error.classify() {
            serde_json::error::Category::Eof => MistakeKind::CutOff(message),
            serde_json::error::Category::Data => MistakeKind::Structure(message),
            _ => MistakeKind::Syntax(message),
        };
        let offset = offset_of(self.text, error);
        if !error.is_data() {
            self.find_broken_entry();
        }
        self.mistake(offset, kind);
    }

    /// Finds the entry, its name and its prefix at which the text stops being JSON, as far as they can be made out.
    fn find_broken_entry(&mut self) {
        let Some((entry, rest)) = list_after(self.text, "\"values\"").and_then(first_unreadable) else { return };
        if rest.starts_with(']') {
            return;
        }
        self.entry = Some(entry);
        let name = value_after(rest, "\"name\"");
        self.tag = name.and_then(|value| serde_json::Deserializer::from_str(value).into_iter().next()?.ok());
        let prefixes = list_after(rest, "\"addressPrefixes\"").and_then(first_unreadable);
        self.prefix = prefixes.filter(|(_, rest)| !rest.starts_with(']')).map(|(index, _)| index);
    }

    fn name_at(&self, offset: usize) -> String {
        let mut values = serde_json::Deserializer::from_str(&self.text[offset..]).into_iter::<String>();
        values.next().and_then(Result::ok).unwrap_or_default()
    }

    /// Where a slice of the text begins in it.
    fn offset(&self, part: &'t str) -> usize {
        part.as_ptr() as usize - self.text.as_ptr() as usize
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        self.lines.get_or_init(|| Lines::of(self.text)).place(self.text, offset)
    }

    fn mistake(&mut self, offset: usize, kind: MistakeKind) {
        let (line, column) = self.place(offset);
        self.mistakes.push(Mistake {
            line,
            column,
            entry: self.entry,
            tag: self.tag.clone(),
            prefix: self.prefix,
            kind,
        });
    }
}

/// The text of a JSON string; the usual one without escapes costs no copy.
fn string_of(raw: &RawValue) -> Option<Cow<'_, str>> {
    match raw.get().strip_prefix('"')?.strip_suffix('"') {
        Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
        _ => serde_json::from_str(raw.get()).ok().map(Cow::Owned),
    }
}

/// A value for an error: one line, and not a long one.
fn shortened(value: &str) -> String {
    const LIMIT: usize = 40;
    let mut short: String = value.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = short.char_indices().nth(LIMIT) {
        short.truncate(end);
        short.push('…');
    }
    short
}

/// The parser's message without the place, which is ours to say.
fn message_of(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&place).unwrap_or(&message).to_owned()
}

/// Where in a text its error is. The parser counts columns in bytes and from 1, and stands on the last byte it took.
fn offset_of(text: &str, error: &serde_json::Error) -> usize {
    let before: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let mut offset = (before + error.column().saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// What follows a key and its colon.
fn value_after<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let (_, after) = text.split_once(key)?;
    Some(after.trim_start().strip_prefix(':')?.trim_start())
}

/// What follows a key, its colon and the bracket of the list that is its value.
fn list_after<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    value_after(text, key)?.strip_prefix('[')
}

/// The number and the text of the first entry of a list that cannot be read.
fn first_unreadable(list: &str) -> Option<(usize, &str)> {
    let mut rest = list.trim_start();
    for index in 0.. {
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {
                let after = rest[values.byte_offset()..].trim_start();
                rest = match after.strip_prefix(',') {
                    Some(next) => next.trim_start(),
                    None => return Some((index + 1, after)),
                };
            }
            _ => return Some((index, rest)),
        }
    }
    None
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(std::iter::once(0).chain(text.match_indices('\n').map(|(end, _)| end + 1)).collect())
    }

    /// Line and column of an offset, both from 1, the column in characters.
    fn place(&self, text: &str, offset: usize) -> (usize, usize) {
        let line = self.0.partition_point(|start| *start <= offset);
        let start = self.0[line - 1];
        (line, text[start..offset].chars().count() + 1)
    }
}
