//! Watermark alignment: no source of a group runs further ahead of the slowest than the group allows.

use std::collections::HashMap;
use std::sync::Mutex;

/// The alignment groups of one job inside one process. Locked once per update interval and source task.
#[derive(Default)]
pub struct AlignmentRegistry {
    groups: Mutex<HashMap<String, HashMap<u64, i64>>>,
}

impl AlignmentRegistry {
    /// Reports the watermark of `member` (`None` when it is idle or has ended) and gives the lowest one of the group.
    pub fn report(&self, group: &str, member: u64, watermark_ms: Option<i64>) -> Option<i64> {
        let mut groups = self.groups.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let members = groups.entry(group.to_string()).or_default();
        match watermark_ms {
            Some(watermark_ms) => members.insert(member, watermark_ms),
            None => members.remove(&member),
        };
        members.values().copied().min()
    }
}
