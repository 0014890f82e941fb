//! The newest lines of the log at WARN and above, for a support bundle: what a user who reports something has rarely kept.
//!
//! The log is the process's, and so is what is kept of it. Both are bounded: [`LINES`] lines of [`LONGEST`] bytes.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::Context;

/// Lines that are kept: some minutes of a node that warns every second.
pub const LINES: usize = 200;

/// Bytes of a line that are kept; a refused document has a line for each of its mistakes.
pub const LONGEST: usize = 2_000;

static RECENT: Mutex<Ring> = Mutex::new(Ring::new());

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When, in milliseconds since 1970 UTC.
    pub at: u64,
    /// `WARN` or `ERROR`.
    pub level: String,
    /// The module that says it.
    pub target: String,
    /// What it says, with its fields.
    pub text: String,
}

/// The newest lines, the oldest of them first, and how many older ones are gone.
pub fn lines() -> (Vec<Line>, u64) {
    let ring = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    (ring.lines.iter().cloned().collect(), ring.gone)
}

/// A layer of the log that keeps its lines. To be used behind a filter for WARN.
#[derive(Debug, Clone, Copy)]
pub struct Layer;

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut text = Text::default();
        event.record(&mut text);
        let (level, target) = (event.metadata().level().to_string(), event.metadata().target().to_owned());
        let line = Line { at, level, target, text: text.finish() };
        RECENT.lock().unwrap_or_else(PoisonError::into_inner).add(line);
    }
}

#[derive(Debug)]
struct Ring {
    lines: VecDeque<Line>,
    gone: u64,
}

impl Ring {
    const fn new() -> Self {
        Self { lines: VecDeque::new(), gone: 0 }
    }

    fn add(&mut self, line: Line) {
        if self.lines.len() == LINES {
            self.lines.pop_front();
            self.gone += 1;
        }
        self.lines.push_back(line);
    }
}

/// An event as one line: its message, and its fields behind it, as the log on stderr has them.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(mut self) -> String {
        self.message.push_str(&self.fields);
        if self.message.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|end| self.message.is_char_boundary(*end)).unwrap_or(0);
            self.message.truncate(end);
            self.message.push('…');
        }
        self.message
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;
    use tracing_subscriber::Layer as _;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn warnings_are_kept_with_their_fields_and_nothing_below() {
        let subscriber = tracing_subscriber::registry().with(Layer.with_filter(LevelFilter::WARN));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("recent-test is told, not kept");
            tracing::warn!(port = 7, name = "vm1", file = %"x", "recent-test warns");
            tracing::error!("recent-test {}", "é".repeat(LONGEST));
        });
        // Other tests may warn beside this one; their subscriber is not this one.
        let lines: Vec<Line> = lines().0.into_iter().filter(|line| line.text.starts_with("recent-test")).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0].text, "recent-test warns port=7 name=\"vm1\" file=x");
        assert_eq!((lines[0].level.as_str(), lines[1].level.as_str()), ("WARN", "ERROR"));
        assert_eq!(lines[0].target, module_path!());
        assert!(lines[0].at > 1_700_000_000_000);
        assert!(lines[1].text.len() <= LONGEST + '…'.len_utf8() && lines[1].text.ends_with("é…"), "{:?}", lines[1]);
    }

    #[test]
    fn the_oldest_go_and_are_counted() {
        let mut ring = Ring::new();
        let line =
            |number: usize| Line { at: 0, level: "WARN".to_owned(), target: String::new(), text: number.to_string() };
        (0..LINES + 3).for_each(|number| ring.add(line(number)));
        assert_eq!((ring.lines.len(), ring.gone), (LINES, 3));
        assert_eq!(ring.lines.front(), Some(&line(3)));
        assert_eq!(ring.lines.back(), Some(&line(LINES + 2)));
    }
}
