//! A sink that drops everything.
//!
//! Who may call it: job authors, benchmarks. What must never happen here: work per record.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flott_dataflow::batch::{Batch, Record};
use flott_dataflow::context::{OperatorContext, count};
use flott_dataflow::sink::{NothingToCommit, Sink, SinkWriter};
use flott_schema::Result;

/// Counts records and drops them. The count is that of the tasks in this process; records that come again after a failure
/// count again (at least once).
#[derive(Clone, Debug, Default)]
pub struct Blackhole {
    dropped: Arc<AtomicU64>,
}

impl Blackhole {
    /// A sink that has dropped nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records it has dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl<T: Record> Sink<T> for Blackhole {
    type Committable = ();
    type Writer = Blackhole;
    type Committer = NothingToCommit;

    fn writer(&self, _ctx: &OperatorContext) -> Result<Blackhole> {
        Ok(self.clone())
    }

    fn committer(&self, _ctx: &OperatorContext) -> Result<NothingToCommit> {
        Ok(NothingToCommit)
    }
}

impl<T> SinkWriter<T> for Blackhole {
    type Committable = ();

    fn write(&mut self, batch: Batch<T>) -> Result<()> {
        count(&self.dropped, batch.len());
        Ok(())
    }

    fn prepare_commit(&mut self, _end_of_input: bool) -> Result<Vec<()>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_kit::context;

    #[test]
    fn the_records_of_all_tasks_are_counted() {
        let hole = Blackhole::new();
        for subtask in 0..2 {
            let mut writer = Sink::<u8>::writer(&hole, &context(subtask, 2)).unwrap();
            writer.write(Batch::of(vec![1u8, 2, 3])).unwrap();
        }
        assert_eq!(hole.dropped(), 6);
    }
}
