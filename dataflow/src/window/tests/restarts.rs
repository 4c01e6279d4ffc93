//! Barriers and crashes between the steps of a test: whatever happens, results are those of an operator to which nothing happens.

use std::fmt::Debug;

use proptest::prelude::*;

use super::driver::{Driver, sorted};
use crate::batch::Record;
use crate::harness::memory::MemoryKind;

/// What happens behind a step.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Nothing,
    Barrier,
    /// All tasks start again from the last barrier, or from one that comes right now, as so many.
    Crash { tasks: u32, now: bool },
}

/// What happens behind each step, over and over.
pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        6 => Just(Act::Nothing),
        2 => Just(Act::Barrier),
        2 => (1..4u32, any::<bool>()).prop_map(|(tasks, now)| Act::Crash { tasks, now }),
    ];
    prop::collection::vec(act, 1..20)
}

/// How snapshots are taken.
pub fn kinds() -> impl Strategy<Value = MemoryKind> {
    prop_oneof![Just(MemoryKind::AllRows), Just(MemoryKind::Changes)]
}

/// Does what is planned, and checks that a repetition gives what came out before.
pub fn act<I, O>(driver: &mut Driver<I, O>, act: Act) -> Result<(), TestCaseError>
where
    I: Record + Ord + Debug,
    O: Record + Ord + Debug,
{
    match act {
        Act::Nothing => {}
        Act::Barrier => driver.barrier(),
        Act::Crash { tasks, now } => {
            if now || !driver.has_barrier() {
                driver.barrier();
            }
            let repeated = driver.crash(tasks);
            prop_assert_eq!(sorted(repeated.after.0), sorted(repeated.before.0), "results");
            prop_assert_eq!(sorted(repeated.after.1), sorted(repeated.before.1), "late records");
        }
    }
    Ok(())
}
