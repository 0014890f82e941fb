//! How far a TCP connection is, as plain facts about its two ends: what RFC 9293, RFC 5961 and RFC 7857 say of a
//! translator that follows them.

use sidestep::packet::parse::{Parsed, TransportKind};
use sidestep::packet::tcp::sequence_span;
use sidestep::path::flow::Phase;

/// What one end has been seen to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// The number behind all that it sent.
    pub(crate) sent_up_to: Option<u32>,
    /// The newest number that it acknowledged.
    pub(crate) acknowledged: Option<u32>,
    finished: bool,
    reset: bool,
}

/// A connection: the end that began it, then the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Conversation {
    pub(crate) ends: [End; 2],
}

impl Conversation {
    /// Follows a segment of the end `from`; `inside` is the end that a translation serves. Gives the phase after it, and
    /// whether it keeps the flow alive.
    pub(crate) fn follow(&mut self, phase: Phase, from: usize, inside: usize, segment: &Parsed) -> (Phase, bool) {
        let TransportKind::Tcp { flags, sequence, acknowledgment, .. } = segment.kind else { return (phase, true) };
        let has = |flag| flags & flag != 0;
        let end_number = sequence.wrapping_add(sequence_span(segment));
        if has(Parsed::RST) {
            let good = phase != Phase::Aborted
                && self.is_good_reset(from, sequence, has(Parsed::ACK).then_some(acknowledgment));
            if !good {
                return (phase, false);
            }
            self.ends[from].reset = true;
            return (Phase::Aborted, true);
        }
        let mut phase = phase;
        if self.begins_another(phase, from, segment) {
            *self = Self::default();
            phase = Phase::Opening;
        }
        if phase == Phase::Aborted {
            if !self.ends[from].reset {
                return (phase, false);
            }
            // It lives, so the reset in its name was somebody else's.
            self.ends.iter_mut().for_each(|end| end.reset = false);
            phase = if self.is_confirmed() { Phase::Established } else { Phase::Opening };
        }
        // After both ends have finished, only the inside keeps its port (RFC 7857 section 2).
        let refreshes = phase != Phase::Closed || from == inside;
        let expected = self.ends[1 - from].acknowledged;
        let end = &mut self.ends[from];
        end.sent_up_to = Some(sent_up_to(end.sent_up_to, end_number, expected));
        if has(Parsed::ACK) {
            end.acknowledged = Some(newest(end.acknowledged, acknowledgment));
        }
        end.finished |= has(Parsed::FIN);
        let finished = self.ends.iter().filter(|end| end.finished).count();
        let confirmed = self.is_confirmed();
        let next = match (phase, finished) {
            (Phase::Closed, _) | (_, 2) => Phase::Closed,
            (_, 1) => Phase::Closing,
            (Phase::Opening, _) if confirmed => Phase::Established,
            (other, _) => other,
        };
        (next, refreshes)
    }

    /// Whether a segment of the end `from` begins another connection of the same ports.
    pub(crate) fn begins_another(&self, phase: Phase, from: usize, segment: &Parsed) -> bool {
        let TransportKind::Tcp { flags, sequence, .. } = segment.kind else { return false };
        let end_number = sequence.wrapping_add(sequence_span(segment));
        let another = self.ends[from].sent_up_to.is_some_and(|known| known != end_number);
        // An open connection answers a SYN by itself (RFC 5961 section 4).
        let open = matches!(phase, Phase::Established | Phase::Closing);
        flags & (Parsed::SYN | Parsed::ACK | Parsed::RST) == Parsed::SYN && another && !open
    }

    /// Whether both ends have acknowledged something.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.ends.iter().all(|end| end.acknowledged.is_some())
    }

    /// Whether the other end takes a reset for good.
    fn is_good_reset(&self, from: usize, sequence: u32, acknowledgment: Option<u32>) -> bool {
        let (sender, receiver) = (&self.ends[from], &self.ends[1 - from]);
        if receiver.acknowledged.is_none() && sender.sent_up_to.is_none() {
            return acknowledgment.is_some() && acknowledgment == receiver.sent_up_to;
        }
        receiver.acknowledged == Some(sequence) || sender.sent_up_to == Some(sequence)
    }

    /// Sequence numbers and acknowledgments of the resets that close the end `to`.
    pub(crate) fn resets(&self, to: usize) -> Vec<(u32, Option<u32>)> {
        let (end, peer) = (&self.ends[to], &self.ends[1 - to]);
        match (end.acknowledged, end.sent_up_to) {
            (Some(acknowledged), _) => {
                let behind = peer.sent_up_to.filter(|sent| *sent != acknowledged);
                [Some(acknowledged), behind].into_iter().flatten().map(|sequence| (sequence, None)).collect()
            }
            (None, Some(own)) => vec![(peer.sent_up_to.unwrap_or(0), Some(own))],
            (None, None) => vec![],
        }
    }
}

/// The number behind all that an end sent, after a segment up to `number`, where the other end has acknowledged what is
/// before `expected`.
fn sent_up_to(known: Option<u32>, number: u32, expected: Option<u32>) -> u32 {
    let (Some(known), Some(expected)) = (known, expected) else { return newest(known, number) };
    let ahead = |number: u32| number.wrapping_sub(expected) as i32;
    // No window is so large.
    let beyond = |number: u32| ahead(number) >= 1 << 24;
    match (beyond(known), beyond(number)) {
        (false, true) => known,
        (true, false) => number,
        _ if ahead(number) > ahead(known) => number,
        _ => known,
    }
}

/// The later of two sequence numbers (RFC 9293 section 3.4).
fn newest(known: Option<u32>, number: u32) -> u32 {
    match known {
        Some(known) if number == known || number.wrapping_sub(known) >= 1 << 31 => known,
        _ => number,
    }
}
