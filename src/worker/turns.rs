//! How much of a worker's time a port may have before the others get their turn, and how much is read from it at once.

use crate::snapshot::PortId;

/// Frames read from a port before they are processed, at most.
pub(super) const BATCH: usize = 64;

/// Frames read from a port first: 8 super-packets of 64 KiB stay in a 1 MiB second-level cache. Where these were small packets
/// of flows, as many as the turn has left are read next: they leave as fewer super-packets, and their flows are read from
/// memory together.
const BATCH_FIRST: usize = 8;

/// Bytes of a batch up to which its packets count as small: 8 of 9,000 bytes.
const SMALL: usize = BATCH_FIRST * 9_000;

/// What a port may use up before the others get their turn: as much as this many packets of flows.
const TURN: usize = 64;

/// What a packet without a flow uses up beside what every packet does. In memory one costs some ten times as much as a packet
/// of a flow (520 ns and 54 ns, `benches/memory`), and where a flow has to end to make room for it, twice that. Without this
/// a NIC that sends nothing but first packets would have most of the time.
const FIRST_PACKET: usize = 16;

/// What ports have used up beyond their turns, by port.
#[derive(Debug, Default)]
pub(super) struct Turns {
    debts: Vec<usize>,
}

/// A batch that has been processed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    /// Its packets.
    pub(super) packets: usize,
    /// How many of them met no flow.
    pub(super) first: usize,
    /// The bytes of all.
    pub(super) bytes: usize,
    /// Some were other workers'.
    pub(super) handed_over: bool,
}

/// A port's turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    port: PortId,
    used: usize,
    room: usize,
}

impl Turns {
    /// Begins a port's turn, in which it pays what it owes of the one before; nothing where no other port waits.
    pub(super) fn begin(&mut self, port: PortId, alone: bool) -> Turn {
        let index = usize::from(port.0);
        if self.debts.len() <= index {
            self.debts.resize(index + 1, 0);
        }
        let used = if alone { 0 } else { self.debts.get(index).copied().unwrap_or(0) };
        self.set(port, used);
        Turn { port, used, room: BATCH_FIRST }
    }

    /// Ends it.
    pub(super) fn end(&mut self, turn: Turn) {
        self.set(turn.port, turn.used);
    }

    fn set(&mut self, port: PortId, used: usize) {
        if let Some(debt) = self.debts.get_mut(usize::from(port.0)) {
            *debt = used.saturating_sub(TURN);
        }
    }
}

impl Turn {
    /// How many frames may be read now; 0 where the turn is over.
    pub(super) fn room(&self) -> usize {
        if self.used < TURN { self.room } else { 0 }
    }

    /// Counts a batch.
    pub(super) fn count(&mut self, taken: &Taken) {
        let Taken { packets, first, bytes, handed_over } = *taken;
        self.used += packets + FIRST_PACKET * first;
        // What another worker's ring does not take is lost, and that shows only after the batch.
        let small = first == 0 && bytes <= SMALL && !handed_over;
        self.room = if small { TURN.saturating_sub(self.used).clamp(1, BATCH) } else { BATCH_FIRST };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: PortId = PortId(3);

    fn taken(packets: usize, first: usize, bytes: usize) -> Taken {
        Taken { packets, first, bytes, handed_over: false }
    }

    #[test]
    fn small_packets_of_flows_are_read_in_two_batches() {
        let mut turn = Turns::default().begin(PORT, false);
        assert_eq!(turn.room(), 8);
        turn.count(&taken(8, 0, 8 * 1_500));
        assert_eq!(turn.room(), 56);
        turn.count(&taken(56, 0, 56 * 1_500));
        assert_eq!(turn.room(), 0);
    }

    #[test]
    fn packets_of_other_workers_are_read_eight_at_a_time() {
        let mut turn = Turns::default().begin(PORT, false);
        turn.count(&Taken { handed_over: true, ..taken(8, 0, 800) });
        assert_eq!(turn.room(), 8);
        turn.count(&taken(8, 0, 800));
        assert_eq!(turn.room(), 48);
    }

    #[test]
    fn super_packets_are_read_eight_at_a_time() {
        let mut turn = Turns::default().begin(PORT, false);
        for _ in 0..8 {
            assert_eq!(turn.room(), 8);
            turn.count(&taken(8, 0, 8 * 65_000));
        }
        assert_eq!(turn.room(), 0);
    }

    #[test]
    fn first_packets_are_paid_for_in_the_turns_that_follow() {
        let mut turns = Turns::default();
        let mut served = 0;
        for _ in 0..100 {
            let mut turn = turns.begin(PORT, false);
            while turn.room() > 0 {
                turn.count(&taken(8, 8, 8 * 100));
                served += 8;
            }
            turns.end(turn);
        }
        // 100 turns of 64, and 17 for each packet.
        assert!((370..=384).contains(&served), "{served}");
    }

    #[test]
    fn a_port_that_is_alone_owes_nothing() {
        let mut turns = Turns::default();
        for _ in 0..10 {
            let mut turn = turns.begin(PORT, true);
            assert_eq!(turn.room(), 8);
            turn.count(&taken(8, 8, 8 * 100));
            assert_eq!(turn.room(), 0);
            turns.end(turn);
        }
    }

    #[test]
    fn a_debt_is_the_ports_own() {
        let mut turns = Turns::default();
        let mut turn = turns.begin(PORT, false);
        turn.count(&taken(8, 8, 800));
        turns.end(turn);
        assert_eq!(turns.begin(PortId(1), false).room(), 8);
        assert_eq!(turns.begin(PORT, false).room(), 0);
    }
}
