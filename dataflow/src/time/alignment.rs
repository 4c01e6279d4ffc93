//! Watermark alignment: no source of a group runs further ahead of the slowest than the group allows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Told the lowest watermark of a group in this process, where it has changed.
pub type Outlet = Box<dyn Fn(&str, Option<i64>) + Send + Sync>;

/// The alignment groups of one job inside one process, with what other processes report of theirs. Locked once per update
/// interval and source task.
#[derive(Default)]
pub struct AlignmentRegistry {
    groups: Mutex<HashMap<String, Group>>,
    outlet: OnceLock<Outlet>,
}

#[derive(Default)]
struct Group {
    members: HashMap<u64, i64>,
    /// By process, with the job epoch of the report.
    elsewhere: HashMap<u64, (u32, i64)>,
    told: Option<i64>,
}

impl AlignmentRegistry {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the lowest watermarks of this process told to others; once.
    pub fn connect(&self, outlet: Outlet) {
        let _ = self.outlet.set(outlet);
    }

    /// Reports the watermark of `member` (`None` when it is idle or has ended) and gives the lowest one of the group.
    pub fn report(&self, group: &str, member: u64, watermark_ms: Option<i64>) -> Option<i64> {
        let mut groups = self.lock();
        let entry = groups.entry(group.to_string()).or_default();
        match watermark_ms {
            Some(watermark_ms) => entry.members.insert(member, watermark_ms),
            None => entry.members.remove(&member),
        };
        let here = entry.members.values().copied().min();
        let elsewhere = entry.elsewhere.values().map(|(_, watermark_ms)| *watermark_ms).min();
        let lowest = here.into_iter().chain(elsewhere).min();
        let changed = std::mem::replace(&mut entry.told, here) != here;
        drop(groups);
        if let (true, Some(outlet)) = (changed, self.outlet.get()) {
            outlet(group, here);
        }
        lowest
    }

    /// Another process reports the lowest watermark of its members, `None` where none counts.
    pub fn report_elsewhere(&self, group: &str, process: u64, job_epoch: u32, watermark_ms: Option<i64>) {
        let mut groups = self.lock();
        let entry = groups.entry(group.to_string()).or_default();
        if entry.elsewhere.get(&process).is_some_and(|(known, _)| *known > job_epoch) {
            return;
        }
        match watermark_ms {
            Some(watermark_ms) => entry.elsewhere.insert(process, (job_epoch, watermark_ms)),
            None => entry.elsewhere.remove(&process),
        };
    }

    /// Forgets what other processes reported before `job_epoch`: their tasks are gone.
    pub fn forget_before(&self, job_epoch: u32) {
        for entry in self.lock().values_mut() {
            entry.elsewhere.retain(|_, (epoch, _)| *epoch >= job_epoch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_lowest_watermark_counts_wherever_it_is() {
        let registry = AlignmentRegistry::default();
        assert_eq!(registry.report("g", 1, Some(10)), Some(10));
        assert_eq!(registry.report("g", 2, Some(5)), Some(5));
        registry.report_elsewhere("g", 7, 0, Some(3));
        assert_eq!(registry.report("g", 2, Some(6)), Some(3));
        registry.report_elsewhere("g", 7, 0, None);
        assert_eq!(registry.report("g", 2, None), Some(10));
    }

    #[test]
    fn others_are_told_what_is_lowest_here_when_it_changes() {
        let (registry, told) = (AlignmentRegistry::default(), Arc::<Mutex<Vec<_>>>::default());
        let sink = told.clone();
        registry
            .connect(Box::new(move |group, lowest| sink.lock().unwrap().push((group.to_string(), lowest))));
        registry.report_elsewhere("g", 7, 0, Some(1));
        for watermark_ms in [Some(5), Some(5), Some(6), None] {
            registry.report("g", 1, watermark_ms);
        }
        let told: Vec<_> = told.lock().unwrap().iter().map(|(_, lowest)| *lowest).collect();
        assert_eq!(told, [Some(5), Some(6), None]);
    }

    #[test]
    fn reports_of_tasks_that_are_gone_hold_nobody_back() {
        let registry = AlignmentRegistry::default();
        registry.report_elsewhere("g", 7, 1, Some(1));
        registry.report_elsewhere("g", 8, 2, Some(4));
        registry.report_elsewhere("g", 8, 1, Some(2));
        registry.forget_before(2);
        assert_eq!(registry.report("g", 1, Some(9)), Some(4));
    }
}
