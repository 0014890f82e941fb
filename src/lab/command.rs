//! Runs the system's tools: always with a deadline, with what they said in the error, and in a process group of their
//! own, so that a Ctrl-C meant for us does not tear down a tool in the middle of a clean-up.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::interrupt::{self, Interrupted};

/// Folders searched after those of `PATH`: a user's `PATH` often lacks the system's own tools.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// How often a running tool is looked at. Tools of the lab run for milliseconds to seconds.
const POLL: Duration = Duration::from_millis(4);

/// Tools and the Debian packages that bring them.
const PACKAGES: [(&str, &str); 7] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("traceroute", "traceroute"),
    ("iperf3", "iperf3"),
    ("curl", "curl"),
    ("setpriv", "util-linux"),
];

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not installed.
    #[error("`{program}` is not installed; Debian's package {package} has it: apt-get install {package}")]
    Missing {
        /// The tool.
        program: String,
        /// Debian's package.
        package: &'static str,
    },
    /// It could not be started or spoken to.
    #[error("cannot run `{line}`: {source}")]
    Start {
        /// The command line.
        line: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended with an error.
    #[error("`{line}` failed ({status}): {said}")]
    Failed {
        /// The command line.
        line: String,
        /// Exit code or signal.
        status: ExitStatus,
        /// Its stderr, or its stdout where that is empty.
        said: String,
    },
    /// It did not end in time and was killed.
    #[error("`{line}` did not end within {} s", .deadline.as_secs_f32())]
    Late {
        /// The command line.
        line: String,
        /// The time it had.
        deadline: Duration,
    },
    /// A signal asked us to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// A tool about to run.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    program: String,
    arguments: Vec<String>,
    netns: Option<String>,
    input: Option<String>,
    deadline: Duration,
    interruptible: bool,
}

/// What a tool that ended said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Tool {
    /// A tool by its name, with 10 s to do its work.
    pub(crate) fn new(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            arguments: Vec::new(),
            netns: None,
            input: None,
            deadline: Duration::from_secs(10),
            interruptible: true,
        }
    }

    /// This program itself.
    ///
    /// # Errors
    /// [`CommandError::Start`] if the system does not say where it is.
    pub(crate) fn own_program() -> Result<Self, CommandError> {
        match std::env::current_exe() {
            Ok(path) => Ok(Self::new(&path.to_string_lossy())),
            Err(source) => Err(CommandError::Start { line: "/proc/self/exe".to_owned(), source }),
        }
    }

    /// Arguments, separated by white space; none of the lab's contains any.
    pub(crate) fn words(mut self, words: &str) -> Self {
        self.arguments.extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// One argument as it stands.
    pub(crate) fn word(mut self, word: impl AsRef<OsStr>) -> Self {
        self.arguments.push(word.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Runs inside a network namespace, and ends with the thread that starts it.
    pub(crate) fn inside(mut self, netns: &str) -> Self {
        self.netns = Some(netns.to_owned());
        self
    }

    /// Text for its stdin, which is empty otherwise.
    pub(crate) fn input(mut self, text: &str) -> Self {
        self.input = Some(text.to_owned());
        self
    }

    /// Another deadline.
    pub(crate) fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// For cleaning up: goes on though a signal asked us to stop.
    pub(crate) fn uninterruptible(mut self) -> Self {
        self.interruptible = false;
        self
    }

    /// Runs the tool and gives its stdout.
    ///
    /// # Errors
    /// [`CommandError`]
    pub(crate) fn run(self) -> Result<String, CommandError> {
        let line = self.line();
        let answer = self.ask()?;
        if answer.status.success() {
            return Ok(answer.stdout);
        }
        let said = if answer.stderr.trim().is_empty() { answer.stdout } else { answer.stderr };
        Err(CommandError::Failed { line, status: answer.status, said: said.trim().to_owned() })
    }

    /// Runs the tool to its end, whatever its exit status is.
    ///
    /// # Errors
    /// [`CommandError`], never [`CommandError::Failed`].
    pub(crate) fn ask(self) -> Result<Answer, CommandError> {
        if self.interruptible {
            interrupt::check()?;
        }
        let line = self.line();
        let start = |source| CommandError::Start { line: line.clone(), source };
        let mut child = self
            .command()?
            .stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(start)?;
        if let (Some(text), Some(mut stdin)) = (self.input.clone(), child.stdin.take()) {
            // On a thread, because a tool may answer before it has read everything. One that fails before it reads
            // says why itself.
            thread::spawn(move || {
                let _ = stdin.write_all(text.as_bytes());
            });
        }
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        let status = self.wait(&mut child, &line)?;
        Ok(Answer { status, stdout: joined(stdout), stderr: joined(stderr) })
    }

    /// Starts the tool and leaves it running. Its stdin is empty; stdout and stderr are the caller's choice.
    ///
    /// # Errors
    /// [`CommandError::Missing`], [`CommandError::Start`]
    pub(crate) fn spawn(&self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Result<Child, CommandError> {
        self.command()?
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(|source| CommandError::Start { line: self.line(), source })
    }

    fn wait(&self, child: &mut Child, line: &str) -> Result<ExitStatus, CommandError> {
        let until = Instant::now() + self.deadline;
        loop {
            let ended = child.try_wait().map_err(|source| CommandError::Start { line: line.to_owned(), source })?;
            if let Some(status) = ended {
                return Ok(status);
            }
            let stopped = if self.interruptible { interrupt::check() } else { Ok(()) };
            if stopped.is_err() || Instant::now() >= until {
                // It may have ended meanwhile; both calls then have nothing to do.
                let _ = child.kill();
                let _ = child.wait();
                stopped?;
                return Err(CommandError::Late { line: line.to_owned(), deadline: self.deadline });
            }
            thread::sleep(POLL);
        }
    }

    fn command(&self) -> Result<Command, CommandError> {
        let program = find(&self.program)?;
        let mut command = match &self.netns {
            None => Command::new(program),
            Some(netns) => {
                let mut command = Command::new(find("ip")?);
                command.args(["netns", "exec", netns]);
                command.arg(find("setpriv")?).args(["--pdeathsig", "KILL"]).arg(program);
                command
            }
        };
        // Its texts are read: no translations, please.
        command.args(&self.arguments).env("LC_ALL", "C").process_group(0);
        Ok(command)
    }

    fn line(&self) -> String {
        let inside = self.netns.as_ref().map(|netns| format!("ip netns exec {netns} ")).unwrap_or_default();
        format!("{inside}{} {}", self.program, self.arguments.join(" "))
    }
}

/// Fails with the name of the package if one of the tools is not installed.
///
/// # Errors
/// [`CommandError::Missing`]
pub(crate) fn require(programs: &[&str]) -> Result<(), CommandError> {
    programs.iter().try_for_each(|program| find(program).map(drop))
}

/// Finds a program by its name in `PATH` and the system's folders; a path stays as it is.
fn find(program: &str) -> Result<PathBuf, CommandError> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.iter().map(PathBuf::from))
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(|path| is_executable(path))
        .ok_or_else(|| CommandError::Missing {
            program: program.to_owned(),
            package: PACKAGES
                .iter()
                .find(|(name, _)| *name == program)
                .map_or("of the same name", |(_, package)| package),
        })
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// Reads to the end on a thread, so that a tool never waits for us.
fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn joined(reader: Option<thread::JoinHandle<String>>) -> String {
    reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_names_its_package() {
        let error = find("no-such-tool-at-all").expect_err("missing");
        assert!(error.to_string().starts_with("`no-such-tool-at-all` is not installed"), "{error}");
        for (program, package) in PACKAGES {
            let error = CommandError::Missing { program: program.to_owned(), package };
            assert!(error.to_string().ends_with(&format!("apt-get install {package}")));
        }
    }

    #[test]
    fn a_failure_carries_what_the_tool_said() {
        let error = Tool::new("sh").word("-c").word("echo one; echo two >&2; exit 3").run().expect_err("fails");
        assert_eq!(error.to_string(), "`sh -c echo one; echo two >&2; exit 3` failed (exit status: 3): two");
        let error = Tool::new("sh").word("-c").word("echo one; exit 1").run().expect_err("fails");
        assert!(error.to_string().ends_with("(exit status: 1): one"), "{error}");
    }

    #[test]
    fn input_goes_in_and_more_than_a_pipe_of_output_comes_back() {
        let text = "x".repeat(1 << 20);
        assert_eq!(Tool::new("cat").input(&text).run().expect("cat").len(), text.len());
    }

    #[test]
    fn a_tool_that_hangs_is_killed_at_its_deadline() {
        let begin = Instant::now();
        let error = Tool::new("sleep").words("60").deadline(Duration::from_millis(50)).run().expect_err("late");
        assert!(matches!(error, CommandError::Late { .. }), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}
