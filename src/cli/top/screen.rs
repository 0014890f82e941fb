//! What the live view shows, and what keys do to it. Knows no terminal.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rates::{FlowRate, Seen};
use crate::path::kind::PathKind;

/// Looks whose totals are remembered for the history of each path.
pub(super) const HISTORY: usize = 240;

/// Intervals that the keys go through.
const INTERVALS: [Duration; 6] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// What flows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Sort {
    /// Bits in a second, most first.
    #[default]
    Rate,
    /// Packets in a second, most first.
    Packets,
    /// Bytes since the flow began, most first.
    Total,
    /// By the source's address and port.
    Source,
    /// By the destination's address and port.
    Destination,
}

impl Sort {
    const ALL: [Self; 5] = [Self::Rate, Self::Packets, Self::Total, Self::Source, Self::Destination];

    /// Its name on the screen.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Packets => "packets",
            Self::Total => "total",
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }

    fn compare(self, a: &FlowRate, b: &FlowRate) -> Ordering {
        let total = |flow: &FlowRate| flow.flow.bytes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let by_rate = || b.rate.bits_per_second.total_cmp(&a.rate.bits_per_second);
        match self {
            Self::Rate => by_rate(),
            Self::Packets => b.rate.packets_per_second.total_cmp(&a.rate.packets_per_second),
            Self::Total => total(b).cmp(&total(a)),
            Self::Source => socket(&a.flow.source).cmp(&socket(&b.flow.source)).then_with(by_rate),
            Self::Destination => socket(&a.flow.destination).cmp(&socket(&b.flow.destination)).then_with(by_rate),
        }
    }
}

/// An address and a port as they are ordered.
fn socket(text: &str) -> (Option<std::net::SocketAddr>, Option<std::net::IpAddr>) {
    (text.parse().ok(), text.parse().ok())
}

/// What a key asks for that is not the screen's to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing.
    Nothing,
    /// To end.
    Quit,
    /// Another question to the node, now.
    Ask,
}

/// The live view.
#[derive(Debug, Default)]
pub(super) struct Screen {
    pub(super) seen: Seen,
    /// Bits in a second of each path, the newest last.
    pub(super) history: [VecDeque<f64>; 4],
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    /// Flows are shown that have this text somewhere.
    pub(super) filter: String,
    /// Whether keys go into the filter.
    pub(super) typing: bool,
    /// Flows of this kind only.
    pub(super) path: Option<PathKind>,
    pub(super) paused: bool,
    pub(super) interval: Duration,
    pub(super) help: bool,
    /// Why there is nothing new.
    pub(super) problem: Option<String>,
    /// Flows above the first one that is shown.
    pub(super) scroll: usize,
    /// Whether there are colours.
    pub(super) colours: bool,
}

impl Screen {
    /// Takes a new look in.
    pub(super) fn take(&mut self, seen: Seen) {
        self.problem = None;
        if seen.interval_seconds.is_some() {
            for (history, path) in self.history.iter_mut().zip(&seen.paths) {
                if history.len() >= HISTORY {
                    history.pop_front();
                }
                history.push_back(path.rate.bits_per_second);
            }
        }
        self.seen = seen;
    }

    /// The flows to show, in their order.
    pub(super) fn flows(&self) -> Vec<&FlowRate> {
        let filter = self.filter.to_lowercase();
        let mut flows: Vec<_> = self.seen.flows.iter().filter(|flow| self.shows(flow, &filter)).collect();
        flows.sort_by(|a, b| self.sort.compare(a, b));
        if self.reverse {
            flows.reverse();
        }
        flows
    }

    fn shows(&self, flow: &FlowRate, filter: &str) -> bool {
        if self.path.is_some_and(|path| path.name() != flow.path) {
            return false;
        }
        let flow_texts = &flow.flow;
        let texts = [
            &flow.path,
            &flow_texts.protocol,
            &flow_texts.ingress,
            &flow_texts.source,
            &flow_texts.destination,
            &flow_texts.egress,
            &flow_texts.presented,
            &flow_texts.reached,
            &flow_texts.next_hop_type,
            &flow_texts.phase,
        ];
        // Every word has to be somewhere.
        filter.split_whitespace().all(|word| texts.iter().any(|text| text.to_lowercase().contains(word)))
    }

    /// Does what a key says.
    pub(super) fn key(&mut self, key: KeyEvent) -> Wish {
        if key.kind == KeyEventKind::Release {
            return Wish::Nothing;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Wish::Quit;
        }
        if self.typing {
            return self.type_key(key.code);
        }
        if self.help {
            self.help = false;
            return if key.code == KeyCode::Char('q') { Wish::Quit } else { Wish::Nothing };
        }
        match key.code {
            KeyCode::Char('q') => return Wish::Quit,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char(' ') => {
                self.paused = !self.paused;
                return if self.paused { Wish::Nothing } else { Wish::Ask };
            }
            KeyCode::Char('s') => {
                let place = Sort::ALL.iter().position(|sort| *sort == self.sort).unwrap_or_default();
                self.sort = Sort::ALL[(place + 1) % Sort::ALL.len()];
                self.scroll = 0;
                return Wish::Ask;
            }
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('/' | 'f') => self.typing = true,
            KeyCode::Char('p') => {
                self.path = match self.path {
                    None => PathKind::ALL.first().copied(),
                    Some(path) => PathKind::ALL.into_iter().skip_while(|kind| *kind != path).nth(1),
                };
                self.scroll = 0;
                return Wish::Ask;
            }
            KeyCode::Char('+' | '=') => self.interval = another(self.interval, true),
            KeyCode::Char('-') => self.interval = another(self.interval, false),
            KeyCode::Esc => {
                self.filter.clear();
                self.path = None;
                self.scroll = 0;
                return Wish::Ask;
            }
            KeyCode::Down | KeyCode::Char('j') => self.scroll += 1,
            KeyCode::Up | KeyCode::Char('k') => self.scroll = self.scroll.saturating_sub(1),
            KeyCode::PageDown => self.scroll += 10,
            KeyCode::PageUp => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::Home => self.scroll = 0,
            _ => {}
        }
        self.scroll = self.scroll.min(self.flows().len().saturating_sub(1));
        Wish::Nothing
    }

    fn type_key(&mut self, code: KeyCode) -> Wish {
        self.scroll = 0;
        match code {
            // The node looks for the words in every flow that it knows, not in those alone that it has told.
            KeyCode::Enter => {
                self.typing = false;
                return Wish::Ask;
            }
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
                return Wish::Ask;
            }
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(letter) => self.filter.push(letter),
            _ => {}
        }
        Wish::Nothing
    }
}

/// The next longer or shorter interval.
fn another(now: Duration, longer: bool) -> Duration {
    let found = if longer {
        INTERVALS.into_iter().find(|interval| *interval > now)
    } else {
        INTERVALS.into_iter().rev().find(|interval| *interval < now)
    };
    found.unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::rates::tests::answers;

    fn screen() -> Screen {
        let [before, now] = answers();
        let mut screen = Screen { interval: Duration::from_secs(1), ..Screen::default() };
        screen.take(Seen::of(Some(&before), &now));
        screen
    }

    fn press(screen: &mut Screen, keys: &str) -> Wish {
        keys.chars().fold(Wish::Nothing, |_, letter| {
            let code = match letter {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                '\x08' => KeyCode::Backspace,
                letter => KeyCode::Char(letter),
            };
            screen.key(KeyEvent::from(code))
        })
    }

    fn shown(screen: &Screen) -> Vec<String> {
        screen.flows().iter().map(|flow| flow.flow.destination.clone()).collect()
    }

    #[test]
    fn flows_are_ordered_by_what_the_key_says() {
        let mut screen = screen();
        let by_rate = ["20.60.1.10:443", "198.51.100.80:80", "192.0.2.7:443", "10.1.1.5:5432"];
        assert_eq!(shown(&screen), by_rate);
        for sort in [Sort::Packets, Sort::Total, Sort::Source] {
            assert_eq!(press(&mut screen, "s"), Wish::Ask, "the node knows which flows have most packets");
            assert_eq!(screen.sort, sort);
            assert_eq!(shown(&screen), by_rate, "{sort:?}");
        }
        press(&mut screen, "s");
        assert_eq!(screen.sort, Sort::Destination);
        // As numbers, not as text.
        let by_address = ["10.1.1.5:5432", "20.60.1.10:443", "192.0.2.7:443", "198.51.100.80:80"];
        assert_eq!(shown(&screen), by_address);
        press(&mut screen, "r");
        assert_eq!(shown(&screen), by_address.map(str::to_owned).into_iter().rev().collect::<Vec<_>>());
        press(&mut screen, "s");
        assert_eq!(screen.sort, Sort::Rate);
    }

    #[test]
    fn the_filter_is_typed_and_every_word_has_to_be_there() {
        let mut screen = screen();
        assert_eq!(press(&mut screen, "/443q"), Wish::Nothing, "a letter of the filter, not a key");
        assert!(screen.typing && shown(&screen).is_empty());
        press(&mut screen, "\x08");
        assert_eq!(shown(&screen), ["20.60.1.10:443", "192.0.2.7:443"]);
        assert_eq!(press(&mut screen, " CONTOSO\n"), Wish::Ask, "the node knows more flows that it may be in");
        assert!(!screen.typing);
        assert_eq!(shown(&screen), ["20.60.1.10:443"]);
        press(&mut screen, "\x1b");
        assert_eq!(shown(&screen).len(), 4);
        press(&mut screen, "/gateway\x1b");
        assert!(!screen.typing && screen.filter.is_empty(), "Esc gives the filter up");
    }

    #[test]
    fn paths_are_chosen_one_after_the_other() {
        let mut screen = screen();
        for expected in ["20.60.1.10:443", "198.51.100.80:80", "192.0.2.7:443", "10.1.1.5:5432"] {
            assert_eq!(press(&mut screen, "p"), Wish::Ask);
            assert_eq!(shown(&screen), [expected]);
        }
        press(&mut screen, "p");
        assert_eq!((screen.path, shown(&screen).len()), (None, 4));
    }

    #[test]
    fn the_other_keys_do_what_help_says() {
        let mut screen = screen();
        press(&mut screen, " ");
        assert!(screen.paused);
        assert_eq!(press(&mut screen, " "), Wish::Ask);
        press(&mut screen, "+++++++");
        assert_eq!(screen.interval, Duration::from_secs(10));
        press(&mut screen, "---------");
        assert_eq!(screen.interval, Duration::from_millis(250));
        press(&mut screen, "?");
        assert!(screen.help);
        press(&mut screen, "x");
        assert!(!screen.help);
        press(&mut screen, "jjjjjjjj");
        assert_eq!(screen.scroll, 3, "the last flow stays in sight");
        press(&mut screen, "k");
        assert_eq!(screen.scroll, 2);
        assert_eq!(press(&mut screen, "q"), Wish::Quit);
        assert_eq!(screen.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Wish::Quit);
    }

    #[test]
    fn the_history_is_bounded_and_has_no_look_without_rates() {
        let mut screen = Screen::default();
        let [before, now] = answers();
        screen.take(Seen::of(None, &before));
        assert!(screen.history.iter().all(VecDeque::is_empty));
        for _ in 0..HISTORY + 5 {
            screen.take(Seen::of(Some(&before), &now));
        }
        assert!(screen.history.iter().all(|history| history.len() == HISTORY));
        assert_eq!(screen.history[0].back(), Some(&1e9));
    }
}
