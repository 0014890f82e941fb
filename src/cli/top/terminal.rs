//! The live view in a terminal, which is as it was afterwards whatever happens: an ordinary end, an error, a panic, or a
//! signal.

use std::io::{self, Stdout};
use std::panic;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Watcher;
use super::draw::draw;
use super::rates::Seen;
use super::screen::{Screen, Wish};
use crate::control::client::ClientError;
use crate::control::top::TopAnswer;
use crate::lab::interrupt;

/// How long keys are waited for at a time; an answer or a signal is noticed as late as that.
const LOOK: Duration = Duration::from_millis(50);

/// How a program ends whose terminal is gone: as by SIGHUP.
const HUNG_UP: u8 = 128 + 1;

/// Shows the node until the user or a signal ends it.
pub(super) fn run(mut screen: Screen, watcher: Watcher, first: TopAnswer) -> anyhow::Result<ExitCode> {
    let (asking, answers) = ask_beside(watcher.clone())?;
    screen.take(Seen::of(None, &first));
    let mut held = Held::take()?;
    let mut before = Some(first);
    // Rates need a second look, and nobody wants to wait for it.
    let mut due = Instant::now() + screen.interval.min(Duration::from_millis(300));
    let mut waiting = false;
    loop {
        if let Err(interrupted) = interrupt::check() {
            return Ok(ExitCode::from(interrupted.exit_code()));
        }
        held.terminal.draw(|frame| draw(frame, &screen))?;
        if has_hung_up(LOOK)? {
            return Ok(ExitCode::from(HUNG_UP));
        }
        if event::poll(Duration::ZERO)? {
            let wish = match event::read()? {
                Event::Key(key) => screen.key(key),
                _ => Wish::Nothing,
            };
            match wish {
                Wish::Quit => return Ok(ExitCode::SUCCESS),
                Wish::Ask => due = Instant::now(),
                Wish::Nothing => {}
            }
        }
        due = due.min(Instant::now() + screen.interval);
        if !waiting && !screen.paused && Instant::now() >= due {
            // A thread that is gone has no answers, either, and is noticed there.
            waiting = asking.send(watcher.target(&screen)).is_ok();
            due = Instant::now() + screen.interval;
        }
        match answers.try_recv() {
            Ok(answer) => {
                waiting = false;
                match answer {
                    Ok(answer) => {
                        if !screen.paused {
                            screen.take(Seen::of(before.as_ref(), &answer));
                        }
                        before = Some(answer);
                    }
                    Err(error) => {
                        screen.problem = Some(short(&error));
                        before = None;
                    }
                }
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => anyhow::bail!("the thread that asks the node has ended"),
        }
    }
}

/// Waits for keys, so long at most. True where the terminal is gone: who reads from it then gets nothing, again and again, and the
/// library that reads keys would never come back.
fn has_hung_up(time: Duration) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut ready = [PollFd::new(&stdin, PollFlags::IN)];
    let time = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
    match poll(&mut ready, Some(&time)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    Ok(ready.iter().any(|stdin| stdin.revents().intersects(gone)))
}

/// An error in a line.
fn short(error: &ClientError) -> String {
    match error {
        ClientError::NoNode(path) => format!("no node runs on {}", path.display()),
        error => error.to_string().replace('\n', " "),
    }
}

type Answer = Result<TopAnswer, ClientError>;

/// Asks on a thread, so that keys are heard while a node is slow.
fn ask_beside(watcher: Watcher) -> io::Result<(Sender<String>, Receiver<Answer>)> {
    let (asking, questions) = mpsc::channel::<String>();
    let (sender, answers) = mpsc::channel();
    thread::Builder::new().name("asking".to_owned()).spawn(move || {
        for target in questions {
            if sender.send(watcher.get(&target)).is_err() {
                return;
            }
        }
    })?;
    Ok((asking, answers))
}

/// The terminal while it is ours.
struct Held {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Held {
    fn take() -> io::Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // What the panic says is to be read on the ordinary screen.
            give_back();
            before(info);
        }));
        enable_raw_mode()?;
        let entered = execute!(io::stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match entered {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        give_back();
    }
}

/// Makes the terminal as it was. Where that fails it is gone, and so is whoever would read about it.
fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}
