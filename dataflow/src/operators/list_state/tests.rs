//! Functions that keep lists of their own.

use super::*;
use crate::harness::memory::{MemoryKind, MemoryState};
use crate::harness::parallel::Parallel;
use crate::harness::{Harness, HarnessBuilder};
use crate::operators::co_process::{CoProcess, CoProcessFunction};
use crate::operators::process::{Process, ProcessContext, ProcessFunction};

/// Holds records back until there are four, and remembers the largest number that any task has seen.
#[derive(Clone, Default)]
struct Fours {
    held: Vec<i64>,
    largest: i64,
    held_list: ListStateHandle<i64>,
    largest_list: ListStateHandle<i64>,
    restored: bool,
}

impl Fours {
    fn take_up(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        self.held_list = ctx.operator_list_state("held")?;
        self.largest_list = ctx.union_list_state("largest")?;
        self.held = self.held_list.restored(ctx)?;
        self.largest = self.largest_list.restored(ctx)?.into_iter().max().unwrap_or(0);
        self.restored = ctx.is_restored();
        Ok(())
    }

    fn add(&mut self, record: i64, ctx: &mut ProcessContext<'_, String>) {
        self.largest = self.largest.max(record);
        self.held.push(record);
        if self.held.len() == 4 {
            ctx.collect(format!("{:?} {} {}", self.held, self.largest, self.restored));
            self.held.clear();
        }
    }

    fn hand_in(&self, ctx: &mut SnapshotContext<'_>) -> Result<()> {
        assert!(ctx.checkpoint() > 0);
        self.held_list.set(ctx, &self.held)?;
        self.largest_list.set(ctx, [&self.largest])
    }
}

impl ProcessFunction<i64, String> for Fours {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        self.take_up(ctx)
    }

    fn process(&mut self, record: i64, ctx: &mut ProcessContext<'_, String>) -> Result<()> {
        self.add(record, ctx);
        Ok(())
    }

    fn snapshot(&mut self, ctx: &mut SnapshotContext<'_>) -> Result<()> {
        self.hand_in(ctx)
    }
}

impl CoProcessFunction<i64, String, String> for Fours {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        self.take_up(ctx)
    }

    fn process_left(&mut self, record: i64, ctx: &mut ProcessContext<'_, String>) -> Result<()> {
        self.add(record, ctx);
        Ok(())
    }

    fn process_right(&mut self, record: String, ctx: &mut ProcessContext<'_, String>) -> Result<()> {
        self.add(record.len() as i64, ctx);
        Ok(())
    }

    fn snapshot(&mut self, ctx: &mut SnapshotContext<'_>) -> Result<()> {
        self.hand_in(ctx)
    }
}

#[test]
fn items_are_split_among_tasks_or_given_to_all() {
    let mut fours: Parallel<i64, (), String> = Parallel::new(2, MemoryKind::Changes, |builder| {
        builder.one_input(|ctx| Ok(Process::new(Fours::default(), ctx)))
    })
    .unwrap();
    fours.tasks()[0].push_all([(1, 0), (2, 0), (3, 0)]).unwrap();
    fours.tasks()[1].push_all([(40, 0), (5, 0), (6, 0)]).unwrap();
    fours.restart(1).unwrap();
    fours.tasks()[0].push_all([(7, 0), (8, 0)]).unwrap();
    assert_eq!(fours.take(), [], "it held six, and never had four");
    fours.restart(2).unwrap();
    assert_eq!(fours.states().len(), 2);
    fours.tasks()[1].push(9, 0).unwrap();
    fours.tasks()[0].push_all([(9, 0)]).unwrap();
    assert_eq!(fours.take(), []);
    let parts = fours.snapshot().unwrap();
    let held = |part: usize| {
        let lists = &parts[part].operators.values().next().unwrap().lists;
        assert_eq!(lists["operator.largest"].items.len(), 1);
        assert_eq!(lists["operator.held"].item_type, "i64");
        lists["operator.held"].items.iter().map(|item| decode_value::<i64>(item).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!((held(0), held(1)), (vec![1, 3, 5, 7, 9], vec![2, 40, 6, 8, 9]));
    fours.restore(&parts, 5).unwrap();
    fours.tasks()[4].push_all([(0, 0), (0, 0)]).unwrap();
    assert_eq!(fours.take_records(), ["[9, 9, 0, 0] 40 true"]);
}

#[test]
fn both_inputs_of_a_function_share_its_lists() {
    let open = |builder: HarnessBuilder<String>| -> Result<Harness<i64, String, String>> {
        builder.two_inputs(|ctx| Ok(CoProcess::new(Fours::default(), ctx)))
    };
    let mut fours = Parallel::new(1, MemoryKind::AllRows, open).unwrap();
    fours.tasks()[0].push_all([(1, 0), (2, 0)]).unwrap();
    fours.tasks()[0].push_right("three".into(), 0).unwrap();
    fours.restart(1).unwrap();
    fours.tasks()[0].push_right("four".into(), 0).unwrap();
    assert_eq!(fours.take_records(), ["[1, 2, 5, 4] 5 true"]);
}

#[test]
fn without_snapshots_nothing_is_restored_or_kept_and_misuse_is_told() {
    let settings = crate::context::Settings::default();
    let mut fours: Harness<i64, (), String> = HarnessBuilder::new(settings.clone())
        .one_input(|ctx| Ok(Process::new(Fours::default(), ctx)))
        .unwrap();
    fours.push_all([(1, 0), (2, 0), (3, 0), (4, 0)]).unwrap();
    fours.barrier(1).unwrap();
    assert_eq!(fours.take_records(), ["[1, 2, 3, 4] 4 false"]);

    let state = MemoryState::new(MemoryKind::AllRows, 0, 1, 128);
    let harness: Harness<i64, (), String> = HarnessBuilder::with_state(settings, &state)
        .one_input(|ctx| Ok(Process::new(Fours::default(), ctx)))
        .unwrap();
    let ctx = harness.context().clone();
    let mut open = OpenContext::plain(&ctx);
    open.operator_list_state::<i64>("a").unwrap();
    let twice = open.union_list_state::<i64>("a").err().unwrap().to_string();
    assert!(twice.contains("'a' is registered twice in operator 'operator under test'"), "{twice}");
    let barrier = Barrier::of_checkpoint(1);
    let unregistered = ListStateHandle::<i64>::default().set(&mut SnapshotContext::new(&ctx, &barrier), [&1]);
    assert!(unregistered.unwrap_err().to_string().contains("was not registered in open()"));
}
