//! The memory that an executor may take: `worker.slot.memory` for each slot that its job holds on the worker.
//!
//! Where the worker may divide its cgroup (version 2, memory controller delegated to it, nothing else running
//! in it), each executor gets a cgroup of its own with `memory.max`: all memory counts, and what exceeds it
//! is killed by the kernel. Elsewhere the limit is `RLIMIT_DATA`: private writable memory counts, and an
//! allocation beyond it fails, which ends a Rust program.

use std::io::Result;
use std::path::{Path, PathBuf};

/// What a process needs beside its slots: code, stacks and queues. Given on top where the limit counts
/// address space.
const PROCESS_BYTES: u64 = 128 << 20;

/// How limits are set on this host.
#[derive(Debug)]
pub enum Limits {
    /// None are.
    Off,
    /// By `RLIMIT_DATA`.
    Data {
        /// Bytes a slot.
        slot_bytes: u64,
    },
    /// By cgroups below this folder.
    Cgroup {
        /// Bytes a slot.
        slot_bytes: u64,
        /// The cgroup of the worker, of which executors' ones are children.
        parent: PathBuf,
    },
}

/// The limit of one executor. The cgroup goes when it is dropped.
#[derive(Debug)]
pub struct ExecutorLimit {
    kind: Kind,
    bytes: u64,
}

#[derive(Debug)]
enum Kind {
    Off,
    Data,
    Cgroup(PathBuf),
}

impl Limits {
    /// Finds out what can be done here. `slot_bytes` 0: nothing is limited.
    pub fn detect(slot_bytes: u64) -> Self {
        if slot_bytes == 0 {
            return Limits::Off;
        }
        match divide_own_cgroup() {
            Ok(parent) => Limits::Cgroup { slot_bytes, parent },
            Err(reason) => {
                tracing::info!("executors are limited by RLIMIT_DATA, not by cgroups: {reason}");
                Limits::Data { slot_bytes }
            }
        }
    }

    /// The limit of a new executor.
    pub fn executor(&self, number: u64, slots: u32) -> Result<ExecutorLimit> {
        let mut limit = ExecutorLimit::none();
        match self {
            Limits::Off => {}
            Limits::Data { .. } => limit.kind = Kind::Data,
            Limits::Cgroup { parent, .. } => {
                let group = parent.join(group_name(number));
                std::fs::create_dir(&group)?;
                limit.kind = Kind::Cgroup(group);
            }
        }
        self.resize(&mut limit, slots, None)?;
        Ok(limit)
    }

    /// The job holds another number of slots; `process` is the executor where it runs already.
    pub fn resize(&self, limit: &mut ExecutorLimit, slots: u32, process: Option<i32>) -> Result<()> {
        match (self, &limit.kind) {
            (Limits::Data { slot_bytes }, Kind::Data) => {
                limit.bytes = slot_bytes.saturating_mul(u64::from(slots)).saturating_add(PROCESS_BYTES);
                process.map_or(Ok(()), |process| set_data_limit(process, limit.bytes))
            }
            (Limits::Cgroup { slot_bytes, .. }, Kind::Cgroup(group)) => {
                limit.bytes = slot_bytes.saturating_mul(u64::from(slots));
                // Where there is no swap accounting, there is no such file.
                let _ = std::fs::write(group.join("memory.swap.max"), "0");
                std::fs::write(group.join("memory.max"), limit.bytes.to_string())
            }
            _ => Ok(()),
        }
    }
}

impl ExecutorLimit {
    /// Of a process that is not limited.
    pub fn none() -> Self {
        ExecutorLimit { kind: Kind::Off, bytes: 0 }
    }

    /// To be called in the child between fork and exec: sets what the process inherits. Allocates nothing.
    pub fn data_bytes(&self) -> Option<u64> {
        matches!(self.kind, Kind::Data).then_some(self.bytes)
    }

    /// Puts a process that has just started under the limit.
    pub fn enter(&self, process: u32) -> Result<()> {
        match &self.kind {
            Kind::Cgroup(group) => std::fs::write(group.join("cgroup.procs"), process.to_string()),
            _ => Ok(()),
        }
    }

    /// What to say of an executor that has ended: nothing if its memory was not the cause. `tail` is the end
    /// of its standard error.
    pub fn exceeded(&self, signal: Option<i32>, tail: &str) -> Option<String> {
        let exceeded = match &self.kind {
            Kind::Off => false,
            Kind::Data => {
                tail.contains("memory allocation of")
                    || tail.contains("Cannot allocate memory")
                    || tail.contains("out of memory")
            }
            Kind::Cgroup(group) => signal == Some(libc::SIGKILL) && oom_kills(group) > 0,
        };
        let mib = self.bytes >> 20;
        exceeded.then(|| {
            format!("it wanted more memory than the {mib} MiB that its slots give it (worker.slot.memory)")
        })
    }
}

impl Drop for ExecutorLimit {
    fn drop(&mut self) {
        if let Kind::Cgroup(group) = &self.kind {
            // Takes what the executor has left running with it. An empty group can be removed, and else
            // stays, harmlessly.
            let _ = std::fs::write(group.join("cgroup.kill"), "1");
            let _ = std::fs::remove_dir(group);
        }
    }
}

/// Unlike those that a worker which was killed has left behind in the same parent.
fn group_name(executor: u64) -> String {
    format!("flott-executor-{}-{executor}", std::process::id())
}

/// `RLIMIT_DATA` of a process that runs, `0` for this one.
fn set_data_limit(process: i32, bytes: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is a valid `rlimit` for the time of the call, and no old value is asked for.
    match unsafe { libc::prlimit(process, libc::RLIMIT_DATA, &limit, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Sets `RLIMIT_DATA` of the calling process. Safe between fork and exec.
pub fn limit_own_data(bytes: u64) -> Result<()> {
    set_data_limit(0, bytes)
}

fn oom_kills(group: &Path) -> u64 {
    let events = std::fs::read_to_string(group.join("memory.events")).unwrap_or_default();
    let line = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Moves this process into a child of its cgroup, so that the cgroup can have others; gives the cgroup.
/// Undone where it fails.
fn divide_own_cgroup() -> std::result::Result<PathBuf, String> {
    let own = std::fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).ok_or("there is no cgroup version 2")?;
    let parent = Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    let controllers = std::fs::read_to_string(parent.join("cgroup.controllers"))
        .map_err(|_| "cgroup version 2 is not mounted at /sys/fs/cgroup".to_string())?;
    if !controllers.split_whitespace().any(|controller| controller == "memory") {
        return Err("the memory controller is not delegated to this cgroup".into());
    }
    let child = parent.join(format!("flott-worker-{}", std::process::id()));
    std::fs::create_dir(&child).map_err(|error| format!("{}: {error}", child.display()))?;
    let own_process = std::process::id().to_string();
    let divided = std::fs::write(child.join("cgroup.procs"), &own_process)
        .and_then(|()| std::fs::write(parent.join("cgroup.subtree_control"), "+memory"));
    divided.map_err(|error| {
        let _ = std::fs::write(parent.join("cgroup.procs"), &own_process);
        let _ = std::fs::remove_dir(&child);
        format!("{}: {error}", parent.display())
    })?;
    Ok(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_grows_with_the_slots() {
        let limits = Limits::Data { slot_bytes: 1 << 30 };
        let mut limit = limits.executor(1, 2).unwrap();
        assert_eq!(limit.data_bytes(), Some((2 << 30) + PROCESS_BYTES));
        limits.resize(&mut limit, 3, None).unwrap();
        assert_eq!(limit.data_bytes(), Some((3 << 30) + PROCESS_BYTES));
        assert!(Limits::Off.executor(1, 2).unwrap().data_bytes().is_none());
    }

    #[test]
    fn a_failed_allocation_is_explained_only_where_there_is_a_limit() {
        let tail = "memory allocation of 1073741824 bytes failed";
        let limits = Limits::Data { slot_bytes: 64 << 20 };
        let said = limits.executor(1, 1).unwrap().exceeded(Some(libc::SIGABRT), tail).unwrap();
        assert!(said.contains("192 MiB") && said.contains("worker.slot.memory"), "{said}");
        assert!(limits.executor(1, 1).unwrap().exceeded(Some(libc::SIGABRT), "panicked").is_none());
        assert!(Limits::Off.executor(1, 1).unwrap().exceeded(Some(libc::SIGABRT), tail).is_none());
    }
}
