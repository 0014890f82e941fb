//! Fields of a header in network byte order, read and written with a check of the bounds.

/// Bytes at an offset; `None` where the packet is shorter.
#[inline]
pub(super) fn bytes_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk::<N>().copied()
}

/// A 16-bit field.
#[inline]
pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes_at(bytes, offset).map(u16::from_be_bytes)
}

/// A 32-bit field.
#[inline]
pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes_at(bytes, offset).map(u32::from_be_bytes)
}

/// Writes bytes at an offset; `None`, and nothing written, where the packet is shorter.
#[inline]
pub(super) fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(offset..)?.first_chunk_mut::<N>()? = value;
    Some(())
}

/// Writes a 16-bit field.
#[inline]
pub(super) fn put_u16(bytes: &mut [u8], offset: usize, value: u16) -> Option<()> {
    put(bytes, offset, value.to_be_bytes())
}
