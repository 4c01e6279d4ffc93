//! The process of an executor, or of a program run as a client: how it is started, killed, and waited for.
//!
//! It dies with its worker: the kernel kills it when the thread ends that started it. So [`spawn`] may be
//! called only on a thread that lives as long as the worker process.

use std::io::{ErrorKind, Result};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use flott_schema::job::ProgramRef;
use flott_schema::variables;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::supervisor::limits::{ExecutorLimit, limit_own_data};
use crate::supervisor::output::{Tail, copy};
use crate::supervisor::rotate::{RotatingFile, Rotation};

/// How long the last output of a process is waited for after its end: a process of its own may hold the
/// stream open.
const OUTPUT_DEADLINE: Duration = Duration::from_millis(500);
/// Tries while the program's file is still held open for writing, by a process just about to start.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// How much rather than the worker the kernel ends an executor when the host is out of memory.
const OUT_OF_MEMORY_SCORE: &str = "500";

/// A process that runs, or has ended and was not waited for.
pub struct Running {
    child: Child,
    outputs: [oneshot::Receiver<()>; 2],
    tail: Tail,
    process: Rc<Process>,
}

/// The means to kill a process, harmless once it is gone.
#[derive(Debug)]
pub struct Process {
    id: std::cell::Cell<Option<libc::pid_t>>,
}

impl Process {
    /// The process id, while it is not gone.
    pub fn id(&self) -> Option<libc::pid_t> {
        self.id.get()
    }

    /// Kills the process and those that it has started.
    pub fn kill(&self) {
        if let Some(id) = self.id.get() {
            // SAFETY: kill takes numbers only. The id is that of a child which has not been waited for (else
            // it would have been taken out), so it is not that of another process; the child leads its group.
            unsafe {
                libc::kill(-id, libc::SIGKILL);
                libc::kill(id, libc::SIGKILL);
            }
        }
    }
}

/// What a process is started with.
pub struct Start<'a> {
    /// The file of the program.
    pub path: &'a Path,
    /// Its arguments and configuration.
    pub program: &'a ProgramRef,
    /// Variables that say what it is: an executor, a client.
    pub variables: &'a [(&'a str, &'a str)],
    /// Its memory.
    pub limit: &'a ExecutorLimit,
    /// Name of its log files without `.out` and `.log`.
    pub log: &'a Path,
    /// How large its log files grow.
    pub rotation: Rotation,
}

/// Starts the process of a program.
pub async fn spawn(start: Start<'_>) -> Result<Running> {
    let mut command = Command::new(start.path);
    command.args(&start.program.arguments);
    // What configures the worker must not configure the job: it has to build the same graph on every host.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("FLOTT_") && name != flott_faults::VARIABLE) {
            command.env_remove(name);
        }
    }
    let pairs: Vec<String> =
        start.program.configuration.iter().map(|(key, value)| format!("{key}={value}")).collect();
    command.env(variables::DYNAMIC_PROPERTIES, serde_json::to_string(&pairs)?);
    command.envs(start.variables.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: Ctrl-C at the worker's terminal is not meant for it, and it is killed with what it
    // has started.
    command.process_group(0);
    let (worker, data_bytes) = (std::process::id(), start.limit.data_bytes());
    // SAFETY: the closure runs between fork and exec. It makes system calls only, allocates nothing and takes
    // no lock.
    unsafe { command.pre_exec(move || prepare(worker, data_bytes)) };

    let file = |ending: &str| {
        let mut name = start.log.as_os_str().to_owned();
        name.push(ending);
        RotatingFile::open(name, start.rotation)
    };
    let (out, log) = (file(".out")?, file(".log")?);
    let mut child = start_unless_busy(&mut command).await?;
    let id = child.id();
    let _ = std::fs::write(format!("/proc/{id}/oom_score_adj"), OUT_OF_MEMORY_SCORE);
    let process = Rc::new(Process { id: std::cell::Cell::new(libc::pid_t::try_from(id).ok()) });
    let tail = Tail::default();
    let watched = start.limit.enter(id).and_then(|()| {
        let missing = || std::io::Error::other("an executor has no output");
        let out = copy(child.stdout.take().ok_or_else(missing)?, out, Tail::default())?;
        let log = copy(child.stderr.take().ok_or_else(missing)?, log, tail.clone())?;
        Ok([out, log])
    });
    match watched {
        Ok(outputs) => Ok(Running { child, outputs, tail, process }),
        Err(error) => {
            process.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

async fn start_unless_busy(command: &mut Command) -> Result<Child> {
    for _ in 1..BUSY_TRIES {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                tokio::time::sleep(BUSY_PAUSE).await
            }
            started => return started,
        }
    }
    command.spawn()
}

/// What a child does to itself before it becomes the program.
fn prepare(worker: u32, data_bytes: Option<u64>) -> Result<()> {
    // SAFETY: prctl with these arguments takes numbers only.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // The worker may have ended before this was set.
    // SAFETY: getppid has no preconditions.
    if u32::try_from(unsafe { libc::getppid() }) != Ok(worker) {
        return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
    }
    data_bytes.map_or(Ok(()), limit_own_data)
}

impl Running {
    /// The means to kill it.
    pub fn process(&self) -> Rc<Process> {
        self.process.clone()
    }

    /// Waits for its end; gives how it ended and the last lines of its standard error.
    pub async fn ended(mut self) -> Result<(ExitStatus, String)> {
        let mut children = signal(SignalKind::child())?;
        let status = loop {
            // Asked after the listening has begun, so that no end is missed.
            if has_ended(self.child.id())? {
                // Not waited for yet, so its group still is its own: what it has started goes with it.
                self.process.kill();
                break self.child.wait()?;
            }
            children.recv().await;
        };
        self.process.id.set(None);
        let [out, log] = self.outputs;
        let _ = timeout(OUTPUT_DEADLINE, async { (out.await, log.await) }).await;
        Ok((status, self.tail.lines()))
    }
}

/// Whether a child has ended; it stays to be waited for.
fn has_ended(child: u32) -> Result<bool> {
    // SAFETY: an all-zero `siginfo_t` is a valid one.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let how = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
    // SAFETY: `info` may be written to for the time of the call.
    if unsafe { libc::waitid(libc::P_PID, child, &mut info, how) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: waitid has filled in a child's change of state, or left zeros.
    Ok(unsafe { info.si_pid() } != 0)
}

/// An exit status in words.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => match signal_name(signal) {
            Some(name) => format!("ended by signal {signal} ({name})"),
            None => format!("ended by signal {signal}"),
        },
        (None, None) => "ended".into(),
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_described_by_status_or_signal() {
        assert_eq!(describe(ExitStatus::from_raw(3 << 8)), "ended with exit status 3");
        assert_eq!(describe(ExitStatus::from_raw(libc::SIGKILL)), "ended by signal 9 (SIGKILL)");
        assert_eq!(describe(ExitStatus::from_raw(60)), "ended by signal 60");
    }
}
