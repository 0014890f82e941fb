//! `sidestep top`: which flows are the fastest and which path they take, live in a terminal or once as text.

mod draw;
mod rates;
mod screen;
mod terminal;
mod text;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use self::rates::Seen;
use self::screen::Screen;
pub use self::screen::Sort;
use super::node::NodeArgs;
use super::write_json;
use crate::control::client::{Client, ClientError, target};
use crate::control::top::TopAnswer;
use crate::lab::interrupt;
use crate::path::kind::PathKind;
use crate::path::words;

/// Flows that are asked for: of those that have the filter's words, the ones with the most of what is sorted by.
const ASKED: usize = 1000;

/// The shortest interval: a node looks at its flows each time.
const SHORTEST: f64 = 0.1;

/// The longest one.
const LONGEST: f64 = 60.0;

/// Show live what a running node forwards: the fastest flows and the path of each, totals for each path, ports, drops.
///
/// In a terminal, keys sort, filter, pause and explain themselves (`?`); NO_COLOR is heeded. With --once, --json, or where
/// stdout is no terminal, one look is printed. What the node is asked each time is bounded: it remembers 32,768 flows of each
/// family and worker, and where there are more, says that it tells of a sample.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Which node.
    #[command(flatten)]
    pub node: NodeArgs,

    /// Seconds between two looks.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_interval)]
    pub interval: f64,

    /// What flows are ordered by.
    #[arg(short, long, value_name = "BY", default_value = "rate")]
    pub sort: Sort,

    /// Show flows of this kind of path only: endpoint, tunnel, internet or inside.
    #[arg(short, long, value_name = "PATH", value_parser = parse_path)]
    pub path: Option<PathKind>,

    /// Show flows only that have these words somewhere: up to 8 words, which the node looks for in every flow that it knows.
    #[arg(short, long, value_name = "WORDS", default_value = "")]
    pub filter: String,

    /// Print one look as text and end. It takes one interval.
    #[arg(long)]
    pub once: bool,

    /// Show this many flows at most in the text or JSON.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,

    /// Print one look as JSON and end.
    #[arg(long)]
    pub json: bool,
}

fn parse_interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is no number".to_owned())?;
    if (SHORTEST..=LONGEST).contains(&seconds) {
        Ok(seconds)
    } else {
        Err(format!("it is not between {SHORTEST} and {LONGEST} seconds"))
    }
}

pub(super) fn parse_path(text: &str) -> Result<PathKind, String> {
    PathKind::named(text).ok_or_else(|| "it is none of endpoint, tunnel, internet, inside".to_owned())
}

/// Shows what the node forwards, until the user ends it.
///
/// # Errors
/// No node answers at first, or the terminal cannot be used. A node that goes away later is waited for.
pub fn run(args: &TopArgs, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let screen = Screen {
        sort: args.sort,
        path: args.path,
        filter: args.filter.clone(),
        interval: Duration::from_secs_f64(args.interval),
        colours: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        ..Screen::default()
    };
    let watcher = Watcher::new(args.node.client());
    if args.once || args.json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        once(args, screen, &watcher, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    interrupt::listen()?;
    // Where there is no node, this is said on the ordinary screen.
    let first = watcher.ask(&screen)?;
    terminal::run(screen, watcher, first)
}

fn once(args: &TopArgs, mut screen: Screen, watcher: &Watcher, out: &mut dyn Write) -> anyhow::Result<()> {
    let before = watcher.ask(&screen)?;
    std::thread::sleep(screen.interval);
    let now = watcher.ask(&screen)?;
    screen.take(Seen::of(Some(&before), &now));
    let flows: Vec<_> = screen.flows().into_iter().take(args.limit).cloned().collect();
    if args.json {
        return write_json(out, &Seen { flows, ..screen.seen });
    }
    out.write_all(text::text(&screen.seen, &flows.iter().collect::<Vec<_>>()).as_bytes())?;
    Ok(())
}

/// Asks one node again and again.
#[derive(Debug, Clone)]
struct Watcher {
    client: Client,
    name: String,
}

impl Watcher {
    fn new(client: Client) -> Self {
        // Another one that looks at the same node must not take our differences.
        Self { client, name: format!("top-{}-{:x}", std::process::id(), fastrand::u64(..)) }
    }

    fn ask(&self, screen: &Screen) -> Result<TopAnswer, ClientError> {
        self.get(&self.target(screen))
    }

    fn target(&self, screen: &Screen) -> String {
        let limit = ASKED.to_string();
        let by = match screen.sort {
            Sort::Packets => "packets",
            Sort::Total => "total",
            Sort::Rate | Sort::Source | Sort::Destination => "bytes",
        };
        let words = asked_words(&screen.filter);
        let mut query = vec![("watcher", self.name.as_str()), ("limit", &limit), ("by", by)];
        if !words.is_empty() {
            query.push(("filter", &words));
        }
        if let Some(path) = screen.path {
            query.push(("path", path.name()));
        }
        target(&["v1", "top"], &query)
    }

    fn get(&self, target: &str) -> Result<TopAnswer, ClientError> {
        self.client.get(target)
    }
}

/// The words of a filter that a node can be asked for. What it would refuse is left out, and the screen's own filter sees to
/// it.
fn asked_words(filter: &str) -> String {
    let words = filter.split_whitespace().filter(|word| word.len() <= words::LONGEST).take(words::WORDS);
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use axum::extract::Query;

    use super::*;
    use crate::control::top::TopQuery;

    #[test]
    fn the_node_is_asked_for_what_is_shown() {
        let watcher = Watcher { client: Client::new(std::path::Path::new("none.sock")), name: "top".to_owned() };
        let asked = |screen: &Screen| {
            let Query::<TopQuery>(query) = Query::try_from_uri(&watcher.target(screen).parse().unwrap()).unwrap();
            (query.filter, query.path, query.by)
        };
        let none = Screen::default();
        assert_eq!(asked(&none), (String::new(), None, Some("bytes".to_owned())));
        let screen = Screen {
            filter: format!(" vm1 {} 20.60.1.10:443 ", "x".repeat(100)),
            path: Some(PathKind::Tunnel),
            sort: Sort::Total,
            ..Screen::default()
        };
        let wanted = ("vm1 20.60.1.10:443".to_owned(), Some("tunnel".to_owned()), Some("total".to_owned()));
        assert_eq!(asked(&screen), wanted);
        let many = Screen { filter: "a ".repeat(20), ..Screen::default() };
        assert_eq!(asked(&many).0.split(' ').count(), words::WORDS);
    }
}
