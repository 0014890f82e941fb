//! The options of a TCP header.

/// Length of a TCP header without options.
pub(super) const FIXED: usize = 20;

/// Stands for one byte and says nothing.
pub(super) const NO_OPERATION: u8 = 1;

const END: u8 = 0;

/// What follows cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Kind, place and length of each option of a whole header from a place on, but no-operations and the end; the last is
/// [`Malformed`] where one does not fit.
pub(super) fn options(header: &[u8], from: usize) -> impl Iterator<Item = Result<(u8, usize, usize), Malformed>> {
    let mut next = Some(from);
    std::iter::from_fn(move || {
        let mut at = next.take()?;
        while header.get(at) == Some(&NO_OPERATION) {
            at += 1;
        }
        let kind = header.get(at).copied().filter(|kind| *kind != END)?;
        let length = header.get(at + 1).map_or(0, |length| usize::from(*length));
        if length < 2 || header.len() < at + length {
            return Some(Err(Malformed));
        }
        next = Some(at + length);
        Some(Ok((kind, at, length)))
    })
}
