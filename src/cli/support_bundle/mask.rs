//! Placeholders for what a bundle must not tell: addresses, host names, names of users, folders.
//!
//! The same thing gets the same placeholder, so that a reader can still tell what belongs together: an address the one of its
//! value, however it is written; a prefix that of its address, with its length. When in doubt, a text is hidden.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::IpAddr;
use std::str::FromStr;

/// What the last part of a dotted name says that it is no host's: ends of files' names, and of settings that the node's own
/// texts speak of.
const NO_HOSTS: &[&str] =
    &["toml", "json", "sock", "pcap", "pcapng", "log", "html", "limit", "service", "socket", "lock", "tmp"];

/// Folders of the system, which tell nothing of who uses it. `/var/lib/sidestep` is the service's.
const KEPT_FOLDERS: &[&str] = &[
    "/dev",
    "/proc",
    "/sys",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/etc",
    "/run/netns",
    "/run/sidestep",
    "/var/lib/sidestep",
];

/// What has a placeholder already.
#[derive(Debug, Default)]
pub(super) struct Mask {
    placeholders: HashMap<(Kind, String), String>,
    counts: HashMap<Kind, usize>,
    /// In lower case.
    hosts: BTreeSet<String>,
    users: BTreeSet<String>,
}

/// What a placeholder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Ipv4,
    Ipv6,
    Mac,
    Host,
    User,
    Folder,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Mac => "mac",
            Self::Host => "host",
            Self::User => "user",
            Self::Folder => "folder",
        }
    }
}

impl Mask {
    /// Hides these names, too, wherever they stand as a word.
    pub(super) fn new(hosts: Vec<String>, users: BTreeSet<String>) -> Self {
        let mut hosts: BTreeSet<String> = hosts.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        if let Ok(own) = fs::read_to_string("/proc/sys/kernel/hostname") {
            let own = own.trim().to_ascii_lowercase();
            hosts.extend(own.split('.').next().map(str::to_owned));
            hosts.insert(own);
        }
        hosts.retain(|name| !name.is_empty() && name != "localhost" && name != "sidestep");
        Self { hosts, users, ..Self::default() }
    }

    /// A text with placeholders.
    pub(super) fn text(&mut self, text: &str) -> String {
        let mut masked = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
            if rest.starts_with("//") {
                // Of an address of the web: a host follows.
                masked.push_str("//");
                rest = &rest[2..];
            } else if first == '/' && !masked.ends_with(|c: char| c.is_alphanumeric() || c == '-' || c == '/') {
                let end = rest.find(|c: char| !is_of_path(c)).unwrap_or(rest.len());
                masked.push_str(&self.path(&rest[..end]));
                rest = &rest[end..];
            } else if word > 0 {
                let is_uid = masked.ends_with("uid ");
                masked.push_str(&self.word(&rest[..word], is_uid));
                rest = &rest[word..];
            } else {
                masked.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        masked
    }

    fn placeholder(&mut self, kind: Kind, of: &str) -> String {
        let Self { placeholders, counts, .. } = self;
        let made = placeholders.entry((kind, of.to_owned())).or_insert_with(|| {
            let count = counts.entry(kind).or_default();
            *count += 1;
            format!("{}-{count}", kind.name())
        });
        made.clone()
    }

    /// A path: the name of the file, with a placeholder for its folder where that may tell something.
    fn path(&mut self, path: &str) -> String {
        let kept = KEPT_FOLDERS.iter().any(|kept| path.strip_prefix(kept).is_some_and(|rest| rest.starts_with('/')));
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let name = self.parts(name);
        match folder {
            // Of a prefix (`/16`), or of a file in the root.
            "" => format!("/{name}"),
            _ if kept => format!("{}/{name}", self.parts(folder)),
            _ => format!("{}/{name}", self.placeholder(Kind::Folder, folder)),
        }
    }

    /// What stands between slashes, each part for itself.
    fn parts(&mut self, path: &str) -> String {
        let parts: Vec<String> = path.split('/').map(|part| self.pieces(part)).collect();
        parts.join("/")
    }

    /// A part of a path, which may have characters that words do not.
    fn pieces(&mut self, part: &str) -> String {
        let mut masked = String::new();
        let mut rest = part;
        while let Some(first) = rest.chars().next() {
            let word = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
            if word == 0 {
                masked.push(first);
                rest = &rest[first.len_utf8()..];
            } else {
                masked.push_str(&self.word(&rest[..word], false));
                rest = &rest[word..];
            }
        }
        masked
    }

    /// A run of letters, digits and what addresses and host names consist of.
    fn word(&mut self, word: &str, is_uid: bool) -> String {
        // The root of one machine is that of any other.
        if is_uid && word != "0" {
            return self.placeholder(Kind::User, word);
        }
        let core = word.trim_end_matches(['.', ':', '-']);
        let tail = &word[core.len()..];
        if let Some(kind) = self.name(core) {
            return self.placeholder(kind, &core.to_ascii_lowercase()) + tail;
        }
        self.addresses(word)
    }

    /// Whether a word is a name to hide: one of those that are known, or what looks like a host's.
    fn name(&self, word: &str) -> Option<Kind> {
        if self.users.contains(word) {
            return Some(Kind::User);
        }
        // A host with a port.
        let lower = word.to_ascii_lowercase();
        (self.hosts.contains(&lower) || looks_like_host(word)).then_some(Kind::Host)
    }

    /// A word with a placeholder for each address in it, and for each name in what is left between colons.
    fn addresses(&mut self, word: &str) -> String {
        let mut masked = String::new();
        let mut at = 0;
        while at < word.len() {
            let before = word[..at].chars().next_back();
            let starts = before.is_none_or(|c| !c.is_ascii_alphanumeric() && c != '_');
            let found = if starts { address_at(&word[at..]) } else { None };
            if let Some((kind, value, length)) = found {
                masked.push_str(&self.placeholder(kind, &value));
                at += length;
                continue;
            }
            // On to the next place where one may begin.
            let next = word[at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.' && c != '-');
            let end = match next {
                Some(0) => at + 1,
                Some(length) => at + length,
                None => word.len(),
            };
            masked.push_str(&self.segment(&word[at..end]));
            at = end;
        }
        masked
    }

    /// A piece of a word without colons.
    fn segment(&mut self, segment: &str) -> String {
        let core = segment.trim_end_matches(['.', '-']);
        if let Some(kind) = self.name(core) {
            return self.placeholder(kind, &core.to_ascii_lowercase()) + &segment[core.len()..];
        }
        // Addresses behind a dash, and names of users and hosts as parts: `alice-vm`.
        let mut masked = String::new();
        for (number, part) in segment.split('-').enumerate() {
            if number > 0 {
                masked.push('-');
            }
            if let Some((kind, value, length)) = address_at(part) {
                masked.push_str(&self.placeholder(kind, &value));
                masked.push_str(&part[length..]);
                continue;
            }
            for (number, label) in part.split('.').enumerate() {
                if number > 0 {
                    masked.push('.');
                }
                match self.known(label) {
                    Some(kind) => masked.push_str(&self.placeholder(kind, &label.to_ascii_lowercase())),
                    None => masked.push_str(label),
                }
            }
        }
        masked
    }

    fn known(&self, word: &str) -> Option<Kind> {
        if self.users.contains(word) {
            return Some(Kind::User);
        }
        self.hosts.contains(&word.to_ascii_lowercase()).then_some(Kind::Host)
    }
}

const fn is_of_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | ':' | '-')
}

fn is_of_path(character: char) -> bool {
    !character.is_whitespace() && !matches!(character, ':' | ',' | ';' | '"' | '\'' | '`' | '(' | ')' | '<' | '>')
}

/// The address that a text begins with: its kind, its value and its length. What follows it is no part of a word.
fn address_at(text: &str) -> Option<(Kind, String, usize)> {
    let run = text.find(|c: char| !c.is_ascii_hexdigit() && c != '.' && c != ':').unwrap_or(text.len());
    let run = &text[..run];
    let ends_whole = |length: usize| text[length..].chars().next().is_none_or(|c| !c.is_ascii_alphanumeric());
    (2..=run.len()).rev().filter(|length| ends_whole(*length)).find_map(|length| {
        let candidate = &run[..length];
        let value = IpAddr::from_str(candidate).ok();
        match value {
            Some(IpAddr::V4(address)) => Some((Kind::Ipv4, address.to_string(), length)),
            Some(IpAddr::V6(address)) => Some((Kind::Ipv6, address.to_string(), length)),
            None if is_mac(candidate) => Some((Kind::Mac, candidate.to_ascii_lowercase(), length)),
            None => None,
        }
    })
}

/// `02:00:5e:10:00:01`
fn is_mac(text: &str) -> bool {
    text.len() == 17 && text.split(':').count() == 6 && text.split(':').all(|byte| byte.len() == 2)
}

/// Whether a word looks like the name of a host: labels with dots, the last one of letters and no end of a file's name.
/// Services (`Microsoft.Storage`) and tags (`Storage.WestEurope`) have two parts, and begin the second with a capital letter.
fn looks_like_host(word: &str) -> bool {
    let Some((_, last)) = word.rsplit_once('.') else { return false };
    last.len() >= 2
        && last.chars().all(|c| c.is_ascii_alphabetic())
        && (word.split('.').count() > 2 || last.chars().all(|c| c.is_ascii_lowercase()))
        && !NO_HOSTS.contains(&last)
        && word
            .split('.')
            .all(|label| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        && !word.split('.').next().is_some_and(|first| ["semantics", "flows"].contains(&first))
}

/// Names of people who use this machine.
pub(super) fn users_here() -> BTreeSet<String> {
    let variables = ["USER", "LOGNAME", "SUDO_USER"].into_iter().filter_map(|name| std::env::var(name).ok());
    let text = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let people = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        // What login.defs(5) gives to people; 65534 is nobody.
        (1_000..60_000).contains(&number).then(|| name.to_owned())
    });
    let mut users: BTreeSet<String> = variables.chain(people).collect();
    users.retain(|name| !name.is_empty() && name != "root" && name != "sidestep");
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        let users = BTreeSet::from(["alice".to_owned()]);
        let mut mask = Mask { users, hosts: BTreeSet::from(["gw7".to_owned()]), ..Mask::default() };
        mask.text(text)
    }

    #[test]
    fn addresses_are_replaced_by_their_value() {
        for (text, expected) in [
            ("10.1.1.4 to 20.60.1.10:443, from 10.1.1.4:40000", "ipv4-1 to ipv4-2:443, from ipv4-1:40000"),
            ("10.1.0.0/16 has 10.1.0.0", "ipv4-1/16 has ipv4-1"),
            ("fd00:1:0:1::4 and [FD00:1:0:1:0:0:0:4]:80", "ipv6-1 and [ipv6-1]:80"),
            ("fd00::1: unreachable", "ipv6-1: unreachable"),
            ("10.1.1.4: unreachable.", "ipv4-1: unreachable."),
            ("source=10.1.1.4, destination=\"::1\"", "source=ipv4-1, destination=\"ipv6-1\""),
            ("::ffff:10.1.1.4 fe80::1%eth0", "ipv6-1 ipv6-2%eth0"),
            ("via 192.168.0.1.", "via ipv4-1."),
            ("02:00:5e:10:00:01 at 10.9.0.1", "mac-1 at ipv4-1"),
            ("::/0 and 0.0.0.0/0", "ipv6-1/0 and ipv4-1/0"),
            ("edge-10.1.1.4-b", "edge-ipv4-1-b"),
            ("2001:db8::/32,2001:db8::", "ipv6-1/32,ipv6-1"),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    #[test]
    fn hosts_users_and_folders_are_replaced() {
        for (text, expected) in [
            ("data.blob.core.windows.net:443", "host-1:443"),
            ("https://Data.blob.example/x on GW7", "https://host-1/x on host-2"),
            ("DATA.BLOB.EXAMPLE at intranet.md", "host-1 at host-2"),
            ("apply /home/alice/lab/network.toml", "apply folder-1/network.toml"),
            ("/home/alice/lab/network.toml:3:1: error", "folder-1/network.toml:3:1: error"),
            ("/etc/sidestep/alice.toml", "/etc/sidestep/user-1.toml"),
            ("by alice, alice-vm", "by user-1, user-1-vm"),
            ("uid 1000 pid 4711, uid 0 pid 1", "uid user-1 pid 4711, uid 0 pid 1"),
        ] {
            assert_eq!(masked(text), expected, "{text}");
        }
    }

    #[test]
    fn names_and_numbers_stay() {
        for text in [
            "spoke/workload Microsoft.Storage on",
            "tag Storage.WestEurope of service-tags.json, change number 7",
            "tun eth0, offload checksum tcp4 tcp6",
            "sidestep::control::node at 2025-11-17T08:30:00Z",
            "`flows.limit` 12 is above 7; semantics.endpoint_precedence",
            "sidestep_dropped_packets_total{worker=\"0\",reason=\"no_route\",direction=\"outbound\"} 3.0",
            "6.1.0-18-cloud-amd64, Debian GNU/Linux 12 (bookworm)",
            "version 0.1.0, 1.5 ms, 12:30",
            "/run/sidestep/sidestep.sock, /dev/net/tun, /usr/bin/sidestep",
            "a::b is no address, nor is face",
        ] {
            let expected = if text.starts_with("a::b") { "ipv6-1 is no address, nor is face" } else { text };
            assert_eq!(masked(text), expected);
        }
    }
}
