//! What goes wrong with a job while somebody waits for its end, and how it goes on: a line each.
//!
//! Who may call it: whoever shows a job while it runs, here or in a cluster. What must never happen here: a line twice; a word about the failure that
//! ends the job, which is its result.

/// A failure of a job.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When it was noted (milliseconds since 1970).
    pub at_ms: u64,
    /// Where and why; of several lines the first counts.
    pub message: String,
}

/// What tasks were started from.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The id of the snapshot.
    pub checkpoint: u64,
    /// Its folder.
    pub folder: String,
    /// When (milliseconds since 1970).
    pub at_ms: u64,
}

/// What was said of a job so far.
#[derive(Debug, Default)]
pub struct Restarts {
    /// The time of the last failure that was told.
    told_ms: u64,
    /// Whether it has yet to be told how the job goes on.
    waits: bool,
}

impl Restarts {
    /// The job is restarted: what is to be said of these failures, in whatever order they come.
    pub fn failed(&mut self, failures: impl IntoIterator<Item = Failure>) -> Vec<String> {
        let mut new: Vec<Failure> =
            failures.into_iter().filter(|failure| failure.at_ms > self.told_ms).collect();
        new.sort_by_key(|failure| failure.at_ms);
        if let Some(last) = new.last() {
            (self.told_ms, self.waits) = (last.at_ms, true);
        }
        let line = |failure: Failure| {
            let reason = failure.message.lines().next().unwrap_or_default().trim();
            format!("failure: {reason}; the job is restarted")
        };
        new.into_iter().map(line).collect()
    }

    /// Whether it has yet to be told how the job goes on.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// The tasks are deployed again: how the job goes on, if that is to be said.
    pub fn goes_on(&mut self, restored: Option<Restored>) -> Option<String> {
        if !std::mem::take(&mut self.waits) {
            return None;
        }
        Some(match restored.filter(|restored| restored.at_ms >= self.told_ms) {
            Some(Restored { checkpoint, folder, .. }) => {
                format!("the job goes on from snapshot {checkpoint} in {folder}")
            }
            None => "the job begins again with empty state: it has no complete checkpoint".into(),
        })
    }
}

/// What to do after the end of a job that has left a snapshot.
pub fn advice(folder: &str) -> String {
    format!("to go on from its newest snapshot: flott run -s {folder} PROGRAM [ARGUMENTS]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(at_ms: u64, message: &str) -> Failure {
        Failure { at_ms, message: message.into() }
    }

    #[test]
    fn every_failure_and_what_follows_it_is_told_once() {
        let mut restarts = Restarts::default();
        assert_eq!(restarts.goes_on(None), None);
        let told = restarts.failed([failure(20, "no rule\n  at rules.txt"), failure(10, "no file")]);
        assert_eq!(
            told,
            ["failure: no file; the job is restarted", "failure: no rule; the job is restarted"]
        );
        assert!(restarts.failed([failure(20, "no rule")]).is_empty() && restarts.waits());
        let restored = |at_ms| Some(Restored { checkpoint: 4, folder: "file:///chk-4".into(), at_ms });
        assert_eq!(
            restarts.goes_on(restored(25)).unwrap(),
            "the job goes on from snapshot 4 in file:///chk-4"
        );
        assert_eq!(restarts.goes_on(restored(25)), None);
        // What it was started from before says nothing of now.
        restarts.failed([failure(30, "no slots")]);
        assert!(restarts.goes_on(restored(25)).unwrap().contains("empty state"));
    }
}
