//! Deletions that wait for their thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::checkpoints::action::Deletion;

/// Files and folders that may wait, of all jobs. What is beyond it is given back, and tried again with the job's next deletion.
const NAMES_MAX: usize = 200_000;

/// A queue in which each job has one place: what a job wants deleted later joins what of it still waits. So storage that is slow
/// makes deletions larger, not more, and never refuses a job that has few.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    waiting: Mutex<Waiting>,
    came: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    by_job: VecDeque<Deletion>,
    names: usize,
    is_closed: bool,
}

/// Files and folders that it names.
fn names_of(deletion: &Deletion) -> usize {
    let Deletion { job: _, files, trees, claimed, empty_folder } = deletion;
    files.len() + trees.len() + usize::from(claimed.is_some()) + usize::from(empty_folder.is_some())
}

impl Deletions {
    /// Puts it in the queue; gives it back if too much waits, or if nobody will ever take it.
    pub(super) fn push(&self, deletion: Deletion) -> Result<(), Deletion> {
        let mut waiting = self.lock();
        let names = names_of(&deletion);
        if waiting.is_closed || (waiting.names + names > NAMES_MAX && waiting.names > 0) {
            return Err(deletion);
        }
        waiting.names += names;
        match waiting.by_job.iter_mut().find(|other| other.job == deletion.job) {
            Some(other) => {
                let before = names_of(other);
                let Deletion { job: _, files, trees, claimed, empty_folder } = deletion;
                other.files.extend(files);
                other.trees.extend(trees);
                let both = usize::from(other.claimed.is_some() && claimed.is_some());
                other.claimed = claimed.or(other.claimed.take());
                let replaced = other.empty_folder.is_some() && empty_folder.is_some();
                other.empty_folder = empty_folder.or(other.empty_folder.take());
                debug_assert_eq!(before + names, names_of(other) + usize::from(replaced) + both);
                waiting.names -= usize::from(replaced) + both;
            }
            None => waiting.by_job.push_back(deletion),
        }
        self.came.notify_one();
        Ok(())
    }

    /// Waits for the next one; nothing once the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Deletion> {
        let mut waiting = self.lock();
        loop {
            if let Some(deletion) = waiting.by_job.pop_front() {
                waiting.names -= names_of(&deletion);
                return Some(deletion);
            }
            if waiting.is_closed {
                return None;
            }
            // Closing wakes it, and whoever could do that holds the queue: no deadline would help.
            waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.came.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // The queue is whole at every moment, also where a holder of the lock panicked.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use flott_schema::ids::JobId;

    use super::*;

    fn files(job: u128, names: &[&str]) -> Deletion {
        let files = names.iter().map(|name| name.to_string()).collect();
        Deletion { job: Some(JobId(job)), files, ..Deletion::default() }
    }

    #[test]
    fn what_a_job_wants_deleted_waits_in_one_place() {
        let deletions = Deletions::default();
        deletions.push(files(1, &["a"])).unwrap();
        deletions.push(files(2, &["x"])).unwrap();
        for folder in ["/one", "/one"] {
            let more = Deletion { empty_folder: Some(folder.into()), ..files(1, &["b"]) };
            deletions.push(more).unwrap();
        }
        let first = deletions.next().unwrap();
        assert_eq!(first.files, ["a", "b", "b"]);
        assert_eq!(first.empty_folder.as_deref(), Some("/one"));
        assert_eq!(deletions.next(), Some(files(2, &["x"])));
        assert_eq!(deletions.lock().names, 0);
        deletions.close();
        assert_eq!(deletions.next(), None);
        assert!(deletions.push(files(1, &["c"])).is_err(), "nobody would take it");
    }

    #[test]
    fn there_is_a_bound_on_what_waits() {
        let deletions = Deletions::default();
        let many = vec!["a"; NAMES_MAX];
        deletions.push(files(1, &many)).unwrap();
        let refused = deletions.push(files(2, &["b"])).unwrap_err();
        assert_eq!(refused, files(2, &["b"]));
        deletions.next().unwrap();
        deletions.push(refused).unwrap();
    }
}
