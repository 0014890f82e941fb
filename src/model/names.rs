//! Names: what is a good one, which known one is near to an unknown one.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;

use super::TagNames;
use super::mistake::Report;

/// The known name that is nearest to a mistyped one, if any is near enough to be meant.
///
/// Case does not count; a third of the letters may differ, by insertion, deletion, substitution or swap.
pub(super) fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let wanted = name.to_ascii_lowercase();
    let allowed = (wanted.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The suggestion for an unknown name.
pub(super) fn did_you_mean(nearest: Option<&str>) -> Option<String> {
    nearest.map(|name| format!("did you mean `{name}`?"))
}

/// Whether a name is one that Azure takes for network resources: 1 to 80 letters, digits, `_`, `.` and `-`, first a
/// letter or digit, last a letter, digit or `_` (Azure, "Naming rules and restrictions", Microsoft.Network).
pub(super) fn check_resource_name(name: &Spanned<String>, report: &Report<'_>) {
    let text = name.get_ref();
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let good = text.len() <= 80
        && text.chars().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if !good {
        report.mistake_with_help(
            &name.span(),
            format!("`{text}` cannot be a name"),
            "a name has 1 to 80 letters, digits, `_`, `.` and `-`, starts with a letter or digit, and ends with one or `_`",
        );
    }
}

/// Whether an interface can have this name: Linux takes 1 to 15 bytes without `/`, `:` and white space, not `.` or
/// `..`; `%` would be a pattern for a TUN device.
pub(super) fn check_interface_name(name: &Spanned<String>, report: &Report<'_>) {
    let text = name.get_ref();
    let bad = |c: char| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > 15 || text == "." || text == ".." || text.contains(bad) {
        report.mistake_with_help(
            &name.span(),
            format!("`{text}` cannot be the name of an interface"),
            "an interface's name has 1 to 15 bytes, without `/`, `:`, `%` and white space",
        );
    }
}

/// Whether a network namespace can have this name: it is a file's name below `/run/netns`.
pub(super) fn check_netns_name(name: &Spanned<String>, report: &Report<'_>) {
    let text = name.get_ref();
    let bad = |c: char| c == '/' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.len() > 255 || text == "." || text == ".." || text.starts_with('-') || text.contains(bad)
    {
        report.mistake_with_help(
            &name.span(),
            format!("`{text}` cannot be the name of a network namespace"),
            "a network namespace's name has 1 to 255 bytes, without `/` and white space, and does not start with `-`",
        );
    }
}

/// Whether a name can stand in a hosts file (RFC 1123 section 2.1: labels of 1 to 63 letters, digits and `-`, 253
/// bytes at most).
pub(super) fn check_host_name(name: &Spanned<String>, report: &Report<'_>) {
    let text = name.get_ref();
    let good_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.len() > 253 || !text.split('.').all(good_label) {
        report.mistake_with_help(
            &name.span(),
            format!("`{text}` cannot be a host name"),
            "a host name has labels of 1 to 63 letters, digits and `-`, separated by dots",
        );
    }
}

/// Things of which there may be one each. Tells where the first one is.
#[derive(Debug)]
pub(super) struct Unique<K> {
    what: &'static str,
    seen: HashMap<K, Range<usize>>,
}

impl<K: std::hash::Hash + Eq> Unique<K> {
    /// Nothing seen yet; `what` names the things in messages.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, seen: HashMap::new() }
    }

    /// Notes one that is known to be good.
    pub(super) fn reserve(&mut self, key: K, place: Range<usize>) {
        self.seen.entry(key).or_insert(place);
    }

    /// Notes one and reports it if it was seen before.
    pub(super) fn note(&mut self, key: K, shown: &str, place: Range<usize>, report: &Report<'_>) {
        if let Some(first) = self.seen.get(&key) {
            let what = self.what;
            report.mistake_with_help(
                &place,
                format!("the {what} `{shown}` is there twice"),
                format!("the first one is in line {}", report.line(first)),
            );
        } else {
            self.seen.insert(key, place);
        }
    }
}

impl Unique<String> {
    /// Notes a name, whose case does not count, as for Azure's resources.
    pub(super) fn note_name(&mut self, name: &Spanned<String>, report: &Report<'_>) {
        self.note(name.get_ref().to_ascii_lowercase(), name.get_ref(), name.span(), report);
    }
}

/// A location as Azure compares it: lower case, no spaces (`West Europe` is `westeurope`).
pub(super) fn region(written: &Spanned<String>) -> String {
    written.get_ref().chars().filter(|c| *c != ' ').collect::<String>().to_ascii_lowercase()
}

/// A location as Azure compares it; reports what cannot be one, and what the catalogue takes for a misspelt one.
pub(super) fn location(written: &Spanned<String>, tags: Option<&dyn TagNames>, report: &Report<'_>) -> String {
    let name = region(written);
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        report.mistake_with_help(
            &written.span(),
            format!("`{}` is not a region", written.get_ref()),
            "write a region such as \"westeurope\" or \"West Europe\"",
        );
    } else if let Some(meant) = tags.and_then(|tags| tags.mistyped_region(&name)) {
        let help = format!("did you mean `{meant}`?");
        report.mistake_with_help(&written.span(), format!("unknown region `{}`", written.get_ref()), help);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn nearest_name_is_one_that_may_be_meant() {
        let known = ["spoke", "hub", "to-on-premises"];
        assert_eq!(nearest("spokes", known), Some("spoke"));
        assert_eq!(nearest("HUB", known), Some("hub"));
        assert_eq!(nearest("to-on-premise", known), Some("to-on-premises"));
        assert_eq!(nearest("to-onprem", known), None);
        assert_eq!(nearest("", known), None);
    }
}
