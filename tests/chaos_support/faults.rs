//! Faults that processes of a cluster inject into themselves, see `faults/src/plan.rs`.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a fault may take to strike.
const DEADLINE: Duration = Duration::from_secs(60);

/// Where a process is killed, one point after the other in the life of one job, and in brackets what that leaves behind: the points of
/// a line strike one after the other, the second while what the first has struck is mended.
pub const POINTS: &[&str] = &[
    // The leader, as orders go out: [none has], [one of two workers has].
    "coordinator/leader.order@1",
    "coordinator/leader.order@2",
    // All parts handed in: [no manifest], [half of one, under another name], [all of one, under another name], [one that nobody is told of].
    "coordinator/leader.manifest@1",
    "coordinator/storage.half@1",
    "coordinator/storage.rename@1",
    "coordinator/storage.renamed@1",
    "coordinator/leader.stored@1",
    "coordinator/leader.complete@1",
    // In the log: [complete, and no task has heard], [those of one of two workers have].
    "coordinator/leader.committed@1",
    "coordinator/leader.ended@1",
    "coordinator/leader.ended@2",
    // [A checkpoint that is complete, and older ones that should be gone.]
    "coordinator/leader.delete-folder@1",
    "coordinator/storage.delete@2",
    // An executor, at the barrier: [not begun], [sinks flushed, nothing handed in], [handed in], [passed on], [part files on their way to the disk].
    "executor/task.barrier@2",
    "executor/sink.prepare@1",
    "executor/sink.prepared@1",
    "executor/task.passed@3",
    "executor/sink.sync@1",
    // Behind it: [rows in memory], [in the database], [some files stored], [a file under another name], [a file that nobody names].
    "executor/rows.write@1",
    "executor/rows.written@1",
    "executor/storage.link@2",
    "executor/storage.rename@1",
    "executor/storage.renamed@2",
    // [All files stored, nothing reported], [reported by some tasks].
    "executor/task.report@2",
    "executor/task.reported@1",
    // Complete: [nothing committed], [some files visible], [all of a task, and it has not noted it].
    "executor/task.ended@2",
    "executor/sink.commit@1",
    "executor/sink.rename@2",
    "executor/sink.renamed@1",
    "executor/sink.committed@1",
    // A restart that is killed in its turn: [nothing fetched], [some files fetched], [all], [files of the last life not yet visible again].
    "executor/task.barrier@1 executor/task.restore@1",
    "executor/task.barrier@1 executor/restore.file@2",
    "executor/task.barrier@1 executor/task.restored@1",
    "executor/sink.commit@1 executor/sink.recommit@1",
];

/// The plan of a cluster, which can be changed while it runs.
pub struct Faults {
    folder: TempDir,
    life: Cell<u64>,
}

/// Role and point of a word of [`POINTS`].
pub fn role_and_point(word: &str) -> (&str, &str) {
    let (place, _) = word.split_once('@').expect("a passage");
    place.split_once('/').expect("a role")
}

/// A fault that has struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    pub role: String,
    pub process: i32,
    pub point: String,
    /// Whether the process was killed, rather than a write that failed.
    pub killed: bool,
}

impl Faults {
    /// None yet.
    pub fn new() -> Self {
        Faults { folder: tempfile::tempdir().unwrap(), life: Cell::new(0) }
    }

    /// What the processes are to be started with.
    pub fn environment(&self, seed: u64) -> Vec<(&'static str, String)> {
        self.environment_with(seed, "")
    }

    /// The same with faults that are always there.
    pub fn environment_with(&self, seed: u64, rules: &str) -> Vec<(&'static str, String)> {
        vec![("FLOTT_FAULTS", format!("seed={seed},folder={},{rules}", self.folder.path().display()))]
    }

    /// Has these faults injected from now on, in place of others; gives the number under which their marks are found.
    pub fn arm(&self, rules: &str) -> u64 {
        let life = self.life.get() + 1;
        self.life.set(life);
        // At once: half of a plan would be another plan.
        let new = self.folder.path().join("plan.new");
        std::fs::write(&new, format!("life={life},{rules}")).unwrap();
        std::fs::rename(new, self.folder.path().join("plan")).unwrap();
        life
    }

    /// Processes that were killed under this number.
    pub fn killed(&self, life: u64) -> Vec<Strike> {
        self.struck(life).into_iter().filter(|strike| strike.killed).collect()
    }

    /// Faults that have struck under this number.
    pub fn struck(&self, life: u64) -> Vec<Strike> {
        let text = std::fs::read_to_string(self.folder.path().join("struck")).unwrap_or_default();
        let strikes = text.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [of, role, process, point, action, ..] = words[..] else {
                panic!("no mark of a fault: '{line}'")
            };
            let process = process.parse().unwrap();
            (
                of.parse::<u64>().unwrap(),
                Strike { role: role.into(), process, point: point.into(), killed: action == "Kill" },
            )
        });
        strikes.filter(|(of, _)| *of == life).map(|(_, strike)| strike).collect()
    }

    /// Has the process killed at the points of a line of [`POINTS`].
    pub fn arm_kills(&self, line: &str) -> u64 {
        self.arm(&line.replace('@', "=kill@"))
    }

    /// Waits until a fault has struck at this point.
    #[track_caller]
    pub fn wait_for(&self, life: u64, point: &str, what: impl Fn() -> String) -> Strike {
        let armed = Instant::now();
        loop {
            if let Some(strike) = self.struck(life).into_iter().find(|strike| strike.point == point) {
                return strike;
            }
            assert!(armed.elapsed() < DEADLINE, "nothing has passed {point}: {}", what());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
