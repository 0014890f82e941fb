//! CRC32c, the checksum of SCTP (RFC 9260 appendix A), kept right when ports change.

/// The Castagnoli polynomial, bits reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ POLYNOMIAL } else { value >> 1 };
            bit += 1;
        }
        #[allow(clippy::indexing_slicing)] // Evaluated by the compiler, which would refuse an index out of range.
        {
            table[index] = value;
        }
        index += 1;
    }
    table
};

#[inline]
fn step(register: u32, byte: u8) -> u32 {
    let [low, ..] = register.to_le_bytes();
    (register >> 8) ^ TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default()
}

/// What to xor onto the CRC of a message in which `change` was xored onto its first bytes and `rest` bytes follow.
///
/// The CRC is linear, so this holds whatever the message is, and a CRC that was wrong stays wrong.
pub(super) fn difference(change: [u8; 4], rest: usize) -> u32 {
    let register = change.iter().fold(0, |register, byte| step(register, *byte));
    (0..rest).fold(register, |register, _| step(register, 0))
}

/// The CRC of a whole message.
#[cfg(test)]
pub(super) fn whole(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |register, byte| step(register, *byte))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::{difference, whole};

    #[test]
    fn check_value_of_the_standard() {
        assert_eq!(whole(b"123456789"), 0xe306_9283);
        // RFC 3720 appendix B.4: 32 bytes of zeros.
        assert_eq!(whole(&[0; 32]).to_le_bytes(), [0xaa, 0x36, 0x91, 0x8a]);
    }

    proptest! {
        #[test]
        fn difference_equals_recomputing(mut bytes in proptest::collection::vec(any::<u8>(), 4..200), change: [u8; 4]) {
            let before = whole(&bytes);
            for (byte, change) in bytes.iter_mut().zip(change) {
                *byte ^= change;
            }
            prop_assert_eq!(before ^ difference(change, bytes.len() - 4), whole(&bytes));
        }
    }
}
