//! Address prefixes as documents write them: strict, so that a typing mistake is never read as another prefix.

use std::net::IpAddr;

use ipnet::IpNet;

use super::error::MistakeKind;

/// Reads `192.0.2.0/24` or `2001:db8::/32`.
pub(super) fn parse(text: &str) -> Result<IpNet, MistakeKind> {
    let no_prefix = || MistakeKind::NoPrefix { found: format!("{text:?}") };
    let Some((address, length)) = text.split_once('/') else {
        let address: IpAddr = text.parse().map_err(|_| no_prefix())?;
        return Err(MistakeKind::NoLength { address: text.to_owned(), suggestion: address.into() });
    };
    let address: IpAddr = address.parse().map_err(|_| no_prefix())?;
    // Digits only: the standard parser would take a sign.
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_prefix());
    }
    let limit = if address.is_ipv4() { 32 } else { 128 };
    let too_long = || MistakeKind::LengthTooLong { prefix: text.to_owned(), limit };
    let length: u8 = length.parse().map_err(|_| too_long())?;
    let prefix = IpNet::new(address, length).map_err(|_| too_long())?;
    if prefix.network() != address {
        return Err(MistakeKind::HostBits { prefix: text.to_owned(), suggestion: prefix.trunc() });
    }
    Ok(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn prefixes_of_both_families_are_read() {
        for text in ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.7/32", "::/0", "2001:db8::/32", "2001:db8::7/128"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("2001:DB8:0:0::/64").unwrap().to_string(), "2001:db8::/64");
    }

    #[test]
    fn what_is_no_prefix_is_said() {
        let hint = "is no address prefix such as \"192.0.2.0/24\" or \"2001:db8::/32\"";
        for text in ["", "/", "Storage", "192.0.2/24", "192.0.2.0/", "192.0.2.0/+8", "192.0.2.0/-1", "192.0.2.0/24/8"] {
            assert_eq!(message(text), format!("{text:?} {hint}"));
        }
        for text in ["192.0.2.0/255.255.255.0", "192.0.02.0/24", "192.0.2.0 /24", "2001:db8:::/32"] {
            assert_eq!(message(text), format!("{text:?} {hint}"));
        }
    }

    #[test]
    fn a_missing_or_too_long_length_is_said() {
        assert_eq!(
            message("192.0.2.7"),
            "\"192.0.2.7\" has no prefix length; a single address is written \"192.0.2.7/32\""
        );
        assert_eq!(
            message("2001:db8::7"),
            "\"2001:db8::7\" has no prefix length; a single address is written \"2001:db8::7/128\""
        );
        assert_eq!(message("192.0.2.0/33"), "\"192.0.2.0/33\" has a prefix length above 32");
        assert_eq!(message("192.0.2.0/999999"), "\"192.0.2.0/999999\" has a prefix length above 32");
        assert_eq!(message("2001:db8::/129"), "\"2001:db8::/129\" has a prefix length above 128");
    }

    #[test]
    fn host_bits_are_refused_with_the_prefix_that_was_meant() {
        assert_eq!(message("192.0.2.1/24"), "\"192.0.2.1/24\" has host bits set; the prefix is \"192.0.2.0/24\"");
        assert_eq!(message("2001:db8::1/64"), "\"2001:db8::1/64\" has host bits set; the prefix is \"2001:db8::/64\"");
    }
}
