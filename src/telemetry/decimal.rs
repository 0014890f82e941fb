//! Numbers and addresses as text, for what is written of every flow: the same text that the standard library makes, at a
//! fraction of the time.

use std::io::Write;
use std::net::IpAddr;

/// Appends a number.
pub(crate) fn push_number(text: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut begin = digits.len();
    loop {
        begin -= 1;
        digits[begin] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    text.extend_from_slice(&digits[begin..]);
}

/// Appends an address.
pub(crate) fn push_address(text: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (place, octet) in v4.octets().into_iter().enumerate() {
                if place > 0 {
                    text.push(b'.');
                }
                push_number(text, octet.into());
            }
        }
        // Memory never fails to be written to.
        IpAddr::V6(v6) => drop(write!(text, "{v6}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_the_standard_library_writes() {
        let mut text = Vec::new();
        for number in [0, 1, 9, 10, 255, 1_780_988_400_005, u64::MAX] {
            text.clear();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string().as_bytes());
        }
        for address in ["0.0.0.0", "10.1.1.4", "255.255.255.255", "::", "2001:db8::9", "::ffff:10.1.1.4"] {
            text.clear();
            push_address(&mut text, address.parse().unwrap());
            assert_eq!(text, address.as_bytes());
        }
    }
}
