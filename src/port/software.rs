//! What a device without offload cannot do itself: cutting super-packets and finishing checksums, for the ports that
//! need it.

use super::SendError;
use crate::packet::frame::Frame;
use crate::packet::{checksum, parse, segment};

/// Does the offloads in software. Holds one frame to build segments in, made at the first super-packet.
#[derive(Default)]
pub(super) struct Software {
    scratch: Option<Box<Frame>>,
}

impl Software {
    /// Hands out the packets that a frame stands for, one by one and in order, with all checksums complete: one for a
    /// plain packet, and one for each segment of a super-packet.
    ///
    /// # Errors
    /// The first error of `emit`, after which nothing more is handed out; a frame whose offload state does not fit it.
    pub(super) fn finish(
        &mut self,
        frame: &mut Frame,
        mut emit: impl FnMut(&[u8]) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        if frame.offload.segmentation.is_none() {
            if !checksum::finish(frame) {
                return Err(super::refused(super::vnet::VnetError::ChecksumBounds));
            }
            return emit(frame.bytes());
        }
        let parsed = parse::parse(frame.bytes())
            .map_err(|error| SendError::Device(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        let scratch = self.scratch.get_or_insert_default();
        let mut result = Ok(());
        segment::segment(frame, &parsed, scratch, |piece| {
            if result.is_ok() {
                result = emit(piece.bytes());
            }
        });
        result
    }
}

impl std::fmt::Debug for Software {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Software").finish_non_exhaustive()
    }
}
