//! Which bytes are a host name.

/// The most bytes of a name (RFC 1035 section 2.3.4: 255 with the lengths of the first label and the root).
const NAME: usize = 253;

/// The most bytes of a label.
const LABEL: usize = 63;

/// A host name in lower case, from labels of ASCII letters, digits, hyphens inside, and underscores, which DNS allows and
/// people use. `None` for what is none: also with a dot at the end, and where the last label is a number, since some read
/// an IPv4 address of any notation there (`10.1.0.4`, `10.260`, `0xa010004`), and no such top-level domain exists
/// (RFC 3696 section 2).
pub(super) fn host_name(text: &[u8]) -> Option<String> {
    if text.len() > NAME || !text.split(|&byte| byte == b'.').all(is_label) {
        return None;
    }
    let name = str::from_utf8(text).ok()?.to_ascii_lowercase();
    let last = name.rsplit('.').next()?;
    let number = match last.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => last.bytes().all(|byte| byte.is_ascii_digit()),
    };
    (!number).then_some(name)
}

fn is_label(label: &[u8]) -> bool {
    (1..=LABEL).contains(&label.len())
        && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        && label.first() != Some(&b'-')
        && label.last() != Some(&b'-')
}
