//! Runs the project's programs as processes, never longer than a deadline.

// Each test binary uses its share of these.
#![allow(dead_code)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant, SystemTime};

/// No program of a test takes this long, even on a machine that does other work.
const DEADLINE: Duration = Duration::from_secs(120);

/// The `flott` command.
pub fn flott(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flott"));
    // Whoever runs the tests may have a cluster of their own.
    command.args(arguments).env_remove("FLOTT_COORDINATOR");
    command
}

/// The path of an example. Cargo builds the examples beside the tests, but not if it is asked for one test alone.
pub fn example(name: &str) -> PathBuf {
    static EXAMPLES: OnceLock<PathBuf> = OnceLock::new();
    let folder = EXAMPLES.get_or_init(|| {
        let test = std::env::current_exe().expect("the test knows where it is");
        let profile = test.parent().and_then(Path::parent).expect("tests are in target/PROFILE/deps");
        let examples = profile.join("examples");
        // The least of all: `None`, if one is missing.
        let built = example_names().map(|name| modified(&examples.join(name))).min().flatten();
        if built.is_none() || newest_source(root()) > built {
            build_examples(profile);
        }
        examples
    });
    folder.join(name)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn example_names() -> impl Iterator<Item = OsString> {
    let sources = std::fs::read_dir(root().join("examples")).into_iter().flatten().flatten();
    let programs =
        sources.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let names = programs.filter_map(|path| path.file_stem().map(OsString::from));
    names.chain(["test_job", "checker_job"].map(OsString::from))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// When a file that examples are made of was changed last.
fn newest_source(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let times = entries.filter_map(|entry| {
        let (path, name) = (entry.path(), entry.file_name());
        let is_code = path.extension().is_some_and(|extension| extension == "rs" || extension == "lock");
        if path.is_dir() {
            let left_out = ["target", "benches", "docs"].iter().any(|folder| name == **folder);
            if left_out || name.as_encoded_bytes().starts_with(b".") { None } else { newest_source(&path) }
        } else if is_code && folder != root().join("tests") {
            modified(&path)
        } else {
            None
        }
    });
    times.max()
}

fn build_examples(profile: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(root()).args(["build", "--quiet", "--package", "flott", "--examples"]);
    cargo.arg("--target-dir").arg(profile.parent().expect("a profile has its folder in the target folder"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs: it runs this test");
    assert!(status.success(), "{cargo:?}: {status}");
}

/// [`example`] as text, for an argument.
pub fn example_text(name: &str) -> String {
    example(name).to_str().expect("the target folder is UTF-8").to_string()
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ended {
    Started::new(command).wait()
}

/// What a program has left behind.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// The standard output of a program that was to succeed.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self.stdout
    }

    /// The standard error of a program that was to end with `code`.
    #[track_caller]
    pub fn failed_with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// A running program, leader of a process group of its own.
pub struct Started {
    child: Option<Child>,
    lines: mpsc::Receiver<String>,
    deadline: Instant,
}

impl Started {
    pub fn new(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = mpsc::sync_channel(1 << 20);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody listens any more: go on reading, so that the program can go on writing.
                let _ = sender.try_send(line);
            }
        });
        Started { child: Some(child), lines, deadline: Instant::now() + DEADLINE }
    }

    /// Waits for the next line on the standard output.
    pub fn next_line(&self) -> String {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left).expect("a line before the deadline")
    }

    /// Sends a signal to the program alone.
    pub fn signal(&self, signal: i32) {
        self.kill(self.id(), signal);
    }

    /// Sends a signal to the program and its children, as a terminal does.
    pub fn signal_group(&self, signal: i32) {
        self.kill(-self.id(), signal);
    }

    fn id(&self) -> i32 {
        self.child.as_ref().expect("it was not waited for").id() as i32
    }

    fn kill(&self, target: i32, signal: i32) {
        // SAFETY: touches no memory; the child has not been waited for, so its number is its own.
        let result = unsafe { libc::kill(target, signal) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// Waits for the end.
    pub fn wait(mut self) -> Ended {
        let mut child = self.child.take().expect("it is waited for once");
        let mut stderr = child.stderr.take().expect("it is piped");
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let status = loop {
            match child.try_wait().expect("a child can be waited for") {
                Some(status) => break Some(status),
                None if Instant::now() > self.deadline => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if status.is_none() {
            kill_group(&mut child);
        }
        let stdout = self.lines.iter().map(|line| line + "\n").collect();
        let stderr = errors.join().expect("it reads only");
        let status = status.unwrap_or_else(|| panic!("still running after {DEADLINE:?}:\n{stdout}{stderr}"));
        Ended { code: status.code(), stdout, stderr }
    }
}

impl Drop for Started {
    /// A test that fails leaves no program behind.
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            kill_group(child);
        }
    }
}

fn kill_group(child: &mut Child) {
    // SAFETY: touches no memory; the child has not been waited for, so its number is its own.
    unsafe {
        libc::kill(-(child.id() as i32), libc::SIGKILL);
    }
    let _ = child.wait();
}
