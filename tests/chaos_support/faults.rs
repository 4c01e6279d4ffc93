//! Faults that processes of a cluster inject into themselves, see `faults/src/plan.rs`.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a fault may take to strike.
const DEADLINE: Duration = Duration::from_secs(60);

/// The plan of a cluster, which can be changed while it runs.
pub struct Faults {
    folder: TempDir,
    life: Cell<u64>,
}

/// A fault that has struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    pub role: String,
    pub process: i32,
    pub point: String,
}

impl Faults {
    /// None yet.
    pub fn new() -> Self {
        Faults { folder: tempfile::tempdir().unwrap(), life: Cell::new(0) }
    }

    /// What the processes are to be started with.
    pub fn environment(&self, seed: u64) -> Vec<(&'static str, String)> {
        vec![("FLOTT_FAULTS", format!("seed={seed},folder={}", self.folder.path().display()))]
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

    /// Faults that have struck under this number.
    pub fn struck(&self, life: u64) -> Vec<Strike> {
        let text = std::fs::read_to_string(self.folder.path().join("struck")).unwrap_or_default();
        let strikes = text.lines().map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let [of, role, process, point, ..] = words[..] else { panic!("no mark of a fault: '{line}'") };
            let process = process.parse().unwrap();
            (of.parse::<u64>().unwrap(), Strike { role: role.into(), process, point: point.into() })
        });
        strikes.filter(|(of, _)| *of == life).map(|(_, strike)| strike).collect()
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

    /// The folder of marks.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
