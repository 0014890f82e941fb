//! The loop.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};
use rustix::event::{Timespec, epoll};

use super::gather::Unsent;
use super::hand_over::Rings;
use super::poll::{Look, Waiting};
use super::ports::Ports;
use super::shared::{Adopted, Command, Waker};
use super::turns::{BATCH, Taken, Turns};
use super::watch::{How, Watches};
use crate::packet::frame::Frame;
use crate::path::look;
use crate::path::redecide::Foreseen;
use crate::path::{Forwarder, Verdict};
use crate::snapshot::{PortId, Publisher, Snapshot};

/// Epoll data of the waker; port numbers are smaller.
const WAKE: u64 = u64::MAX;

/// Packets taken from the hand-over ring at a time.
const TAKEN: usize = 64;

/// Flows ended, or decided again after a change, between two batches of packets.
const FLOWS_AT_A_TIME: usize = 256;

/// The longest sleep: nothing depends on it, it only bounds how wrong a missed wake-up could be.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// One worker.
pub(super) struct Worker {
    pub(super) number: u16,
    pub(super) forwarder: Forwarder,
    pub(super) ports: Ports,
    pub(super) publisher: Arc<Publisher>,
    pub(super) commands: Receiver<Command>,
    pub(super) waker: Waker,
    pub(super) adopted: Arc<Adopted>,
    pub(super) rings: Arc<Rings>,
    /// What the milliseconds of the path count from; the same for all workers.
    pub(super) clock: Clock,
    /// Whether flows are still to be decided again after a change.
    pub(super) sweeping: bool,
    pub(super) turns: Turns,
    pub(super) waiting: Waiting,
    /// Changes that the control side asks about.
    pub(super) foreseeing: Vec<Foreseeing>,
    /// Looks at the flows that the control side asks for.
    pub(super) looking: Vec<(Box<look::Look>, Sender<Box<look::Look>>)>,
    /// Packets that the control side asks to see.
    pub(super) watching: Watches,
}

/// What a change would do to the flows, while it is being found out.
pub(super) struct Foreseeing {
    snapshot: Arc<Snapshot>,
    place: Option<(u32, u32)>,
    foreseen: Foreseen,
    reply: Sender<Foreseen>,
}

/// The clock of the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
    /// What it showed then, in milliseconds.
    shown: u64,
}

impl Clock {
    /// A clock that starts now and shows this many milliseconds: as old as the oldest flow that is restored, so that
    /// there is a time for its last packet.
    pub(super) fn starting_at(shown: u64) -> Self {
        Self { start: Instant::now(), shown }
    }

    pub(super) fn milliseconds(self, now: Instant) -> u64 {
        self.shown + now.saturating_duration_since(self.start).as_millis() as u64
    }

    pub(super) fn microseconds(self, now: Instant) -> u64 {
        self.shown * 1_000 + now.saturating_duration_since(self.start).as_micros() as u64
    }
}

/// What the loop keeps between turns, made once.
struct Scratch {
    batch: Vec<Frame>,
    ready: Vec<PortId>,
    due: Vec<PortId>,
    polled: Vec<PortId>,
}

impl Worker {
    /// Forwards until told to stop; then its devices are closed, and its flows are left.
    pub(super) fn run(mut self) -> Forwarder {
        let watched =
            epoll::add(self.ports.epoll(), &*self.waker.0, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN);
        if let Err(error) = watched {
            tracing::error!(worker = self.number, %error, "the worker cannot watch its waker and does not start");
            return self.forwarder;
        }
        let mut scratch = Scratch {
            batch: (0..BATCH).map(|_| Frame::new()).collect(),
            ready: Vec::with_capacity(256),
            due: Vec::with_capacity(256),
            polled: Vec::with_capacity(256),
        };
        if !self.sweeping {
            self.adopted.set(self.forwarder.generation());
        }
        loop {
            let woken = self.wait(&mut scratch);
            self.ports.now = Instant::now();
            self.look_at_generation();
            if woken {
                self.waker.acknowledge();
                if self.obey() {
                    return self.forwarder;
                }
                self.take_over();
            }
            let now = self.milliseconds();
            if self.sweeping && self.sweep(now) {
                self.sweeping = false;
                self.adopted.set(self.forwarder.generation());
            }
            self.foresee();
            self.look_at_flows();
            self.ports.polled(&mut scratch.polled);
            let alone = scratch.ready.len() + scratch.polled.len() == 1;
            for index in 0..scratch.ready.len() {
                if let Some(port) = scratch.ready.get(index).copied() {
                    self.serve(port, alone, &mut scratch.batch);
                }
            }
            for index in 0..scratch.polled.len() {
                if let Some(port) = scratch.polled.get(index).copied() {
                    self.serve(port, alone, &mut scratch.batch);
                }
            }
            self.advance(&mut scratch);
            let now = self.milliseconds();
            if self.forwarder.next_expiry().is_some_and(|expiry| expiry <= now) {
                self.expire(now);
            }
        }
    }

    /// Takes the newest snapshot if there is a newer one: one atomic read when there is none.
    fn look_at_generation(&mut self) {
        if self.publisher.generation() != self.forwarder.generation() {
            self.forwarder.adopt(self.publisher.current());
            self.sweeping = true;
        }
    }

    /// Decides some more flows again after a change; true when all are done.
    fn sweep(&mut self, now: u64) -> bool {
        if !self.watching.is_empty() {
            return self.watched_by_itself(|forwarder, egress| forwarder.sweep(now, FLOWS_AT_A_TIME, egress));
        }
        self.forwarder.sweep(now, FLOWS_AT_A_TIME, &mut self.ports)
    }

    /// Ends what is over.
    fn expire(&mut self, now: u64) {
        if !self.watching.is_empty() {
            return self.watched_by_itself(|forwarder, egress| forwarder.expire(now, FLOWS_AT_A_TIME, egress));
        }
        self.forwarder.expire(now, FLOWS_AT_A_TIME, &mut self.ports);
    }

    /// Looks at some more flows for a change that is asked about.
    fn foresee(&mut self) {
        let Some(asked) = self.foreseeing.last_mut() else { return };
        if let Some(place) = asked.place {
            let Foreseeing { snapshot, foreseen, .. } = asked;
            asked.place = self.forwarder.foresee(snapshot, place, FLOWS_AT_A_TIME, foreseen);
        }
        if asked.place.is_none()
            && let Some(asked) = self.foreseeing.pop()
        {
            let _ = asked.reply.try_send(asked.foreseen);
        }
    }

    /// Looks at some more flows.
    fn look_at_flows(&mut self) {
        let now = self.milliseconds();
        let Some((look, _)) = self.looking.last_mut() else { return };
        if !self.forwarder.look(look, now, FLOWS_AT_A_TIME)
            && let Some((look, reply)) = self.looking.pop()
        {
            let _ = reply.try_send(look);
        }
    }

    fn milliseconds(&self) -> u64 {
        self.clock.milliseconds(self.ports.now)
    }

    /// Sleeps until there is something to do; true where the waker was used.
    fn wait(&mut self, scratch: &mut Scratch) -> bool {
        let since = Instant::now();
        let mut sleep = LONGEST_SLEEP;
        if self.sweeping || !self.foreseeing.is_empty() || !self.looking.is_empty() || !scratch.polled.is_empty() {
            sleep = Duration::ZERO;
        } else {
            if let Some(deadline) = self.ports.deadline() {
                sleep = sleep.min(deadline.saturating_duration_since(since));
            }
            if let Some(expiry) = self.forwarder.next_expiry() {
                let shown = self.clock.milliseconds(since);
                sleep = sleep.min(Duration::from_millis(expiry.saturating_sub(shown)));
            }
        }
        scratch.ready.clear();
        let waits = !sleep.is_zero();
        let mut woken = None;
        if waits && self.waiting.looks(since) {
            woken = self.look(since, sleep, &mut scratch.ready);
            sleep = sleep.saturating_sub(since.elapsed());
        }
        if woken.is_none() && !sleep.is_zero() {
            self.forwarder.count_wait();
        }
        let woken = woken.or_else(|| self.events(sleep, &mut scratch.ready));
        if waits && self.waiting.is_adaptive() && !scratch.ready.is_empty() {
            self.waiting.ended(since.elapsed());
        }
        woken == Some(true)
    }

    /// Looks for something to do again and again, for as long as that is worth it and nobody else wants the processor. As
    /// [`Worker::events`].
    fn look(&mut self, since: Instant, sleep: Duration, ready: &mut Vec<PortId>) -> Option<bool> {
        let mut now = since;
        loop {
            let before = now;
            let woken = self.events(Duration::ZERO, ready);
            if woken.is_some() {
                self.waiting.undisturbed();
                return woken;
            }
            rustix::thread::sched_yield();
            now = Instant::now();
            let over = now.saturating_duration_since(since) >= sleep;
            if self.waiting.looked(since, before, now) == Look::Sleep || over {
                return None;
            }
        }
    }

    /// Waits for something to do, at most so long: ports that have packets, and true where the waker was used. None where
    /// there is nothing.
    fn events(&self, sleep: Duration, ready: &mut Vec<PortId>) -> Option<bool> {
        let timeout = Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: i64::from(sleep.subsec_nanos()) };
        let mut events = [MaybeUninit::uninit(); 64];
        let mut woken = None;
        match epoll::wait(self.ports.epoll(), &mut events, Some(&timeout)) {
            Ok((events, _)) => {
                for event in events {
                    let waker = event.data.u64() == WAKE;
                    if !waker {
                        ready.extend(u16::try_from(event.data.u64()).ok().map(PortId));
                    }
                    woken = Some(waker || woken == Some(true));
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(worker = self.number, %error, "waiting for packets failed");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        woken
    }

    /// Does what the control side asks; true to stop.
    fn obey(&mut self) -> bool {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Add(ports) => {
                    for (id, port) in ports {
                        self.ports.add(id, port);
                    }
                }
                Command::Remove(ports) => {
                    for id in ports {
                        self.ports.discard(id);
                    }
                }
                Command::Flows(limit, reply) => {
                    let mut flows = Vec::new();
                    self.forwarder.visit_flows(limit, |flow| flows.push(flow));
                    let _ = reply.try_send(flows);
                }
                Command::Foresee(snapshot, reply) => {
                    self.foreseeing.push(Foreseeing {
                        snapshot,
                        place: Some((0, 0)),
                        foreseen: Foreseen::default(),
                        reply,
                    });
                }
                Command::Look(look, reply) => self.looking.push((look, reply)),
                Command::LastChange(reply) => {
                    let _ = reply.try_send(self.forwarder.last_change().clone());
                }
                Command::Ports(reply) => {
                    let _ = reply.try_send(self.ports.report(self.number));
                }
                Command::PortErrors(reply) => {
                    let _ = reply.try_send(self.ports.errors(self.number));
                }
                Command::Log(records, reply) => {
                    let now = self.milliseconds();
                    let _ = reply.try_send(self.forwarder.log_to(records, now));
                }
                Command::Watch(watch, reply) => {
                    self.watching.add(watch);
                    let _ = reply.try_send(());
                }
                Command::Unwatch => self.watching.clean(),
                Command::Stop => return true,
            }
        }
        false
    }

    /// Takes packets that other workers found to be of this one's flows.
    fn take_over(&mut self) {
        let (clock, time) = (self.clock, self.ports.now);
        self.forwarder.tell_micros(|| clock.microseconds(time));
        for _ in 0..TAKEN {
            let Some((ingress, mut frame)) = self.rings.take(self.number) else { return };
            let now = self.milliseconds();
            let verdict = if self.watching.is_empty() {
                self.forwarder.take_over(now, ingress, &mut frame, &mut self.ports)
            } else {
                self.watched(How::TakenOver, now, ingress, &mut frame)
            };
            // A fragment goes on to the worker that owns the flow.
            self.hand_over(verdict, ingress, &mut frame);
            self.release(&mut frame);
            self.rings.give_back(frame);
        }
        // More may be waiting than one wake-up stands for.
        self.waker.wake();
    }

    /// Gives a packet to the worker that its verdict names; false where there is no room for it.
    fn hand_over(&mut self, verdict: Verdict, ingress: PortId, frame: &mut Frame) -> bool {
        let Verdict::HandOver(owner) = verdict else { return true };
        let delivered = self.rings.give(owner, ingress, frame);
        let now = self.milliseconds();
        self.forwarder.count_hand_over(now, ingress, frame.len(), delivered);
        if !delivered && !self.watching.is_empty() {
            self.watched_hand_over(ingress, frame);
        }
        delivered
    }

    /// Lets fragments go that waited for the packet before. `frame` is free to be used. False where another worker's ring
    /// is full.
    fn release(&mut self, frame: &mut Frame) -> bool {
        let mut delivered = true;
        while let Some(ingress) = self.forwarder.released(frame) {
            let now = self.milliseconds();
            let verdict = if self.watching.is_empty() {
                self.forwarder.resume(now, ingress, frame, &mut self.ports)
            } else {
                self.watched(How::Released, now, ingress, frame)
            };
            delivered &= self.hand_over(verdict, ingress, frame);
        }
        delivered
    }

    /// Reads from a port and takes each packet to its end, until its turn is used up. The descriptor is watched
    /// level-triggered: what is left is reported again. `alone`: no other port waits.
    fn serve(&mut self, port: PortId, alone: bool, batch: &mut [Frame]) {
        let mut turn = self.turns.begin(port, alone);
        while turn.room() > 0 {
            let time = self.ports.now;
            self.ports.batches.begin();
            let Some(queue) = self.ports.get_mut(port) else { return };
            let batch = batch.get_mut(..turn.room()).unwrap_or_default();
            let count = match queue.receive(time, batch) {
                Ok(count) => count,
                Err(error) => {
                    let device = queue.describe();
                    tracing::error!(worker = self.number, port = port.0, device, %error, "the device is gone; its port is closed");
                    self.ports.lose(port, &error);
                    return;
                }
            };
            self.look_at_generation();
            let room = batch.len();
            let received = batch.get_mut(..count).unwrap_or_default();
            let bytes = received.iter().map(Frame::len).sum();
            self.ports.received(port, count, bytes);
            let (clock, time) = (self.clock, self.ports.now);
            self.forwarder.tell_micros(|| clock.microseconds(time));
            self.forwarder.approach(port, received);
            self.ports.gather(count);
            self.forwarder.count_batch(count);
            let now = self.milliseconds();
            let mut ring_full = false;
            let mut handed_over = false;
            let first = self.forwarder.first_packets();
            let watched = !self.watching.is_empty();
            for frame in received {
                let verdict = if watched {
                    self.watched(How::Received, now, port, frame)
                } else {
                    self.forwarder.receive(now, port, frame, &mut self.ports)
                };
                handed_over |= matches!(verdict, Verdict::HandOver(_));
                ring_full |= !self.hand_over(verdict, port, frame);
                ring_full |= !self.release(frame);
            }
            for Unsent { failure, packets, bytes } in self.ports.finish() {
                self.forwarder.count_unsent(now, port, failure, packets, bytes);
                self.watching.count_unsent(packets);
            }
            if count > 0
                && let Some(nanoseconds) = self.ports.batches.end()
            {
                self.forwarder.count_time(nanoseconds, count);
            }
            let first = self.forwarder.first_packets().wrapping_sub(first) as usize;
            turn.count(&Taken { packets: count, first, bytes, handed_over });
            self.take_over();
            // What a full ring does not take waits better in the device.
            if count < room || ring_full {
                break;
            }
            self.ports.now = Instant::now();
        }
        self.turns.end(turn);
    }

    /// Lets ports do what is due, and reads what comes out of it.
    fn advance(&mut self, scratch: &mut Scratch) {
        let now = Instant::now();
        self.ports.due(now, &mut scratch.due);
        if scratch.due.is_empty() {
            return;
        }
        self.ports.now = now;
        for index in 0..scratch.due.len() {
            let Some(id) = scratch.due.get(index).copied() else { return };
            if let Some(port) = self.ports.get_mut(id) {
                port.advance(now);
            }
            self.serve(id, false, &mut scratch.batch);
        }
    }
}
