//! The numbers that go with a heartbeat: what the processes use, and what executors say of their tasks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use flott_schema::graph::JobGraph;
use flott_schema::ids::{AttemptId, JobId, TaskId};
use flott_schema::samples::TaskSamples;
use flott_schema::stats::{TaskStats, WorkerStats, WorkerUsage};

use crate::supervisor::machine::ExecutorNumber;

/// Ended tasks whose last numbers wait for a heartbeat.
const ENDED_MAX: usize = 10_000;

/// The numbers; cheap to clone.
#[derive(Clone)]
pub struct Statistics(Arc<Mutex<Numbers>>);

/// What an executor uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecutorUsage {
    /// Its process.
    pub process: u32,
    /// Its job.
    pub job: JobId,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Processor time, milliseconds.
    pub cpu_ms: u64,
}

/// Everything that is known at a moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What the processes use.
    pub usage: WorkerUsage,
    /// Each executor.
    pub executors: Vec<ExecutorUsage>,
    /// Slots that executors have.
    pub slots_used: u32,
    /// Jobs, each with its tasks here.
    pub jobs: Vec<(Arc<JobGraph>, Vec<TaskSamples>)>,
}

impl Default for Statistics {
    fn default() -> Self {
        Statistics(Arc::new(Mutex::new(Numbers {
            started: Instant::now(),
            usage: WorkerUsage::default(),
            executors: Vec::new(),
            slots_used: 0,
            jobs: BTreeMap::new(),
            tasks: BTreeMap::new(),
            ended: Vec::new(),
        })))
    }
}

struct Numbers {
    started: Instant,
    usage: WorkerUsage,
    executors: Vec<ExecutorUsage>,
    slots_used: u32,
    /// What the tasks belong to, for people.
    jobs: BTreeMap<JobId, Arc<JobGraph>>,
    tasks: BTreeMap<ExecutorNumber, BTreeMap<TaskId, TaskSamples>>,
    /// Of executors that are gone, until they have been read once.
    ended: Vec<TaskStats>,
}

impl Statistics {
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An executor says how some of its tasks do, or all.
    pub fn note_tasks(&self, executor: ExecutorNumber, tasks: Vec<TaskStats>) {
        let mut numbers = self.lock();
        let at_ms = u64::try_from(numbers.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let known = numbers.tasks.entry(executor).or_default();
        for stats in tasks {
            match known.get_mut(&stats.attempt.task) {
                Some(samples) => samples.note(stats, at_ms),
                None => drop(known.insert(stats.attempt.task, TaskSamples::new(stats, at_ms))),
            }
        }
    }

    /// Tasks of a job are to run here.
    pub fn note_job(&self, job: JobId, graph: Arc<JobGraph>) {
        self.lock().jobs.insert(job, graph);
    }

    /// A job is over.
    pub fn forget_job(&self, job: JobId) {
        self.lock().jobs.remove(&job);
    }

    /// What the processes use now, and how many slots executors have.
    pub fn set_usage(&self, usage: WorkerUsage, executors: Vec<ExecutorUsage>, slots_used: u32) {
        let mut numbers = self.lock();
        numbers.usage = usage;
        numbers.executors = executors;
        numbers.slots_used = slots_used;
    }

    /// Everything, for metrics.
    pub fn snapshot(&self) -> Snapshot {
        let numbers = self.lock();
        let mut by_job: BTreeMap<JobId, Vec<TaskSamples>> = BTreeMap::new();
        for samples in numbers.tasks.values().flat_map(BTreeMap::values) {
            by_job.entry(samples.latest.value.job).or_default().push(samples.clone());
        }
        let named = |(job, tasks)| Some((numbers.jobs.get(&job)?.clone(), tasks));
        Snapshot {
            usage: numbers.usage.clone(),
            executors: numbers.executors.clone(),
            slots_used: numbers.slots_used,
            jobs: by_job.into_iter().filter_map(named).collect(),
        }
    }

    /// An executor is gone.
    pub fn forget(&self, executor: ExecutorNumber) {
        let mut numbers = self.lock();
        if let Some(tasks) = numbers.tasks.remove(&executor) {
            numbers.ended.extend(tasks.into_values().map(|samples| samples.latest.value));
            numbers.ended.truncate(ENDED_MAX);
        }
    }

    /// For a heartbeat.
    pub fn take(&self) -> WorkerStats {
        let mut numbers = self.lock();
        let mut tasks = std::mem::take(&mut numbers.ended);
        let known = numbers.tasks.values().flat_map(BTreeMap::values);
        tasks.extend(known.map(|samples| samples.latest.value.clone()));
        WorkerStats { usage: numbers.usage.clone(), tasks }
    }

    /// Of some tasks, as far as they are known.
    pub fn of(&self, tasks: &[(JobId, AttemptId)]) -> WorkerStats {
        let numbers = self.lock();
        let of_task = |(job, attempt): &(JobId, AttemptId)| {
            let of_executors = numbers.tasks.values().filter_map(|tasks| tasks.get(&attempt.task));
            let mut known = of_executors.map(|samples| &samples.latest.value).chain(&numbers.ended);
            known.find(|stats| stats.job == *job && stats.attempt == *attempt).cloned()
        };
        WorkerStats { usage: numbers.usage.clone(), tasks: tasks.iter().filter_map(of_task).collect() }
    }
}

/// What the worker (this process) and its executors use, as the kernel counts it; what cannot be read counts
/// as nothing.
pub fn usage(executors: &[(u32, JobId)]) -> (WorkerUsage, Vec<ExecutorUsage>) {
    let own = std::process::id();
    let (resident_bytes, own_cpu_ms) = process_usage(own).unwrap_or_default();
    let mut usage = WorkerUsage {
        resident_bytes,
        cpu_ms: own_cpu_ms,
        host_free_bytes: memory_line("MemAvailable:").unwrap_or(0),
        executors: executors.len() as u32,
        ..WorkerUsage::default()
    };
    let mut each = Vec::with_capacity(executors.len());
    for (process, job) in executors {
        let Some((resident_bytes, cpu_ms)) = process_usage(*process) else { continue };
        usage.executors_resident_bytes += resident_bytes;
        usage.cpu_ms += cpu_ms;
        each.push(ExecutorUsage { process: *process, job: *job, resident_bytes, cpu_ms });
    }
    (usage, each)
}

/// Memory of the host, bytes; 0 where it is not known.
pub fn host_memory_bytes() -> u64 {
    memory_line("MemTotal:").unwrap_or(0)
}

fn memory_line(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// Resident bytes and processor milliseconds.
fn process_usage(process: u32) -> Option<(u64, u64)> {
    let memory = std::fs::read_to_string(format!("/proc/{process}/statm")).ok()?;
    let pages: u64 = memory.split_whitespace().nth(1)?.parse().ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the program's name in brackets, which may hold anything; user and system time are
    // fields 14 and 15.
    let mut behind_name = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks: u64 = behind_name.next()?.parse::<u64>().ok()? + behind_name.next()?.parse::<u64>().ok()?;
    // SAFETY: sysconf has no preconditions.
    let (page_bytes, ticks_per_second) =
        unsafe { (libc::sysconf(libc::_SC_PAGESIZE), libc::sysconf(libc::_SC_CLK_TCK)) };
    let (page_bytes, ticks_per_second) =
        (u64::try_from(page_bytes).ok()?, u64::try_from(ticks_per_second).ok()?.max(1));
    Some((pages * page_bytes, ticks * 1000 / ticks_per_second))
}

#[cfg(test)]
mod tests {
    use flott_schema::ids::VertexId;

    use super::*;

    #[test]
    fn the_kernel_counts_this_process() {
        let (usage, executors) = usage(&[(std::process::id(), JobId(1)), (u32::MAX, JobId(2))]);
        assert_eq!(executors.iter().map(|executor| executor.job).collect::<Vec<_>>(), [JobId(1)]);
        assert!(usage.resident_bytes > 1 << 20);
        assert!(usage.executors_resident_bytes > 1 << 20);
        assert!(usage.host_free_bytes > 0 && host_memory_bytes() > usage.host_free_bytes);
        assert_eq!(usage.executors, 2);
    }

    #[test]
    fn the_last_numbers_of_an_executor_that_is_gone_are_read_once() {
        let statistics = Statistics::default();
        let (first, second) = (stats(0, 5), stats(1, 9));
        statistics.note_tasks(ExecutorNumber(1), vec![first.clone()]);
        statistics.note_tasks(ExecutorNumber(1), vec![stats(1, 8)]);
        statistics.note_tasks(ExecutorNumber(1), vec![second.clone()]);
        assert_eq!(statistics.take().tasks, [first.clone(), second.clone()]);
        statistics.forget(ExecutorNumber(1));
        assert_eq!(statistics.take().tasks, [first, second]);
        assert_eq!(statistics.take().tasks, []);
    }

    #[test]
    fn tasks_that_have_ended_are_found_by_job_and_attempt() {
        let statistics = Statistics::default();
        let (first, second) = (stats(0, 5), stats(1, 9));
        statistics.note_tasks(ExecutorNumber(1), vec![first.clone()]);
        statistics.note_tasks(ExecutorNumber(2), vec![second.clone()]);
        let of = |job, attempt| statistics.of(&[(JobId(job), attempt)]).tasks;
        assert_eq!(of(1, second.attempt), std::slice::from_ref(&second));
        assert_eq!(of(2, second.attempt), []);
        assert_eq!(of(1, AttemptId { attempt: 7, ..second.attempt }), []);
        statistics.forget(ExecutorNumber(1));
        assert_eq!(of(1, first.attempt), std::slice::from_ref(&first));
        assert_eq!(statistics.take().tasks, [first, second], "what was looked up is sent again");
    }

    fn stats(subtask: u32, records_in: u64) -> TaskStats {
        let task = TaskId { vertex: VertexId(1), subtask };
        let attempt = AttemptId { task, job_epoch: 0, attempt: 0 };
        TaskStats { records_in, ..TaskStats::new(JobId(1), attempt) }
    }
}
