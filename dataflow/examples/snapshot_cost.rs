//! What snapshots cost a rolling reduce and a function with keyed state: CPU nanoseconds a record without them, with them at hand but none
//! taken, and with one taken again and again; how long a barrier holds an operator up; and the slowest batch, where what else runs on the
//! machine counts too. Linux only.
//!
//! ```text
//! cargo run --release -p flott-dataflow --example snapshot_cost
//! ```

use std::rc::Rc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use flott_dataflow::batch::Batch;
use flott_dataflow::context::{OperatorContext, Settings, TaskContext};
use flott_dataflow::element::Signal;
use flott_dataflow::key::ByValue;
use flott_dataflow::operator::{Collector, Operator, OperatorStage, SideOutputs};
use flott_dataflow::operators::keyed_process::{KeyedContext, KeyedProcess, KeyedProcessFunction};
use flott_dataflow::operators::open::OpenContext;
use flott_dataflow::operators::reduce::RollingReduce;
use flott_dataflow::snapshot::{
    Barrier, FrozenRows, FrozenSink, ListMode, Snapshots, StateBackend, TableId, TableSpec, TaskState,
};
use flott_dataflow::stage::{Flow, Stage};
use flott_dataflow::state::ValueState;
use flott_schema::Result;
use flott_schema::ids::OperatorId;

/// Key, count, and a text or none.
type Counted<T> = (u64, u64, T);

/// Hands rows to a thread that drops them: what they cost the task itself is what is measured.
struct Elsewhere {
    changes: bool,
    rows: SyncSender<Box<dyn FrozenRows>>,
}

struct Sink(SyncSender<Box<dyn FrozenRows>>);

impl FrozenSink for Sink {
    fn rows(&mut self, rows: Box<dyn FrozenRows>) {
        // The thread ends with the last sender.
        let _ = self.0.send(rows);
    }

    fn done(self: Box<Self>) {}
}

impl StateBackend for Elsewhere {
    fn table(&self, _spec: TableSpec) -> Result<TableId> {
        Ok(TableId(0))
    }

    fn load(&self, _table: TableId, _row: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        Ok(())
    }

    fn wants_changes(&self) -> bool {
        self.changes
    }

    fn freeze(&self, _table: TableId) -> Box<dyn FrozenSink> {
        Box::new(Sink(self.rows.clone()))
    }

    fn set_list(&self, _: &str, _: ListMode, _: &str, _: Vec<Vec<u8>>) -> Result<()> {
        Ok(())
    }

    fn list(&self, _name: &str) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    fn is_restored(&self) -> bool {
        false
    }
}

struct Only(Rc<Elsewhere>);

impl TaskState for Only {
    fn operator(&self, _operator: OperatorId, _uid: &str) -> Rc<dyn StateBackend> {
        self.0.clone()
    }
}

/// The end of the chain.
struct Nowhere;

impl<T> Stage<Batch<T>> for Nowhere {
    fn open(&mut self) -> Result<()> {
        Ok(())
    }
    fn push(&mut self, batch: Batch<T>) -> Result<()> {
        std::hint::black_box(batch.len());
        Ok(())
    }
    fn signal(&mut self, _signal: Signal) -> Result<Flow> {
        Ok(Flow::Done)
    }
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
    fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>) -> Result<Flow> {
        Ok(Flow::Done)
    }
    fn next_deadline_ms(&self) -> i64 {
        i64::MAX
    }
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Counts in keyed state.
#[derive(Clone, Default)]
struct Count(ValueState<u64>);

impl KeyedProcessFunction<u64, Counted<()>, u64> for Count {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        self.0 = ctx.value_state("count")?;
        Ok(())
    }

    fn process(&mut self, _: Counted<()>, ctx: &mut KeyedContext<'_, u64, u64>) -> Result<()> {
        let count = self.0.update(ctx, |count| {
            *count += 1;
            *count
        });
        ctx.collect(count);
        Ok(())
    }
}

const BATCH: u64 = 1024;

/// What this thread has computed for, by the kernel's account.
fn cpu_ns() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel keeps account");
    let ns = stat.split(' ').next().and_then(|ns| ns.parse().ok());
    ns.expect("the first number is the time on the processor")
}

struct Measured {
    ns_per_record: f64,
    barrier: Duration,
    slowest: Duration,
    snapshots: u64,
}

fn measure<I: Clone + 'static, Op: Operator<In = I> + 'static>(
    state: Option<bool>,
    every: Option<u64>,
    keys: u64,
    record: impl Fn(u64) -> I,
    make: impl FnOnce(&OperatorContext) -> Op,
) -> Result<Measured> {
    let mut task = TaskContext::new("job", "vertex", 0, 1, 128, Settings::default());
    let (sender, rows) = sync_channel::<Box<dyn FrozenRows>>(64);
    let dropping = std::thread::spawn(move || rows.into_iter().for_each(drop));
    match state {
        Some(changes) => {
            task.snapshots =
                Snapshots::new(Rc::new(Only(Rc::new(Elsewhere { changes, rows: sender }))), false);
        }
        None => drop(sender),
    }
    let ctx = OperatorContext::new(Rc::new(task), "operator", "uid");
    let operator = make(&ctx);
    let mut stage =
        OperatorStage::new(operator, Collector::new(ctx, Box::new(Nowhere), SideOutputs::default()));
    stage.open()?;
    let batch_of = |first: u64| {
        // Scattered, and each key as often as any other.
        let numbers = (first..first + BATCH).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20);
        Batch::of(numbers.map(|n| record(n % keys)).collect())
    };
    let filling = (keys * 4 / BATCH + 1) * BATCH;
    for first in (0..filling).step_by(BATCH as usize) {
        stage.push(batch_of(first))?;
    }
    let (mut barrier, mut slowest) = (Duration::ZERO, Duration::ZERO);
    let batches = (30_000_000 / BATCH).min(keys * 40 / BATCH + 10_000);
    let started = cpu_ns();
    (0..batches).for_each(|index| drop(std::hint::black_box(batch_of(filling + index * BATCH))));
    let making = cpu_ns() - started;
    let started_all = cpu_ns();
    let (mut since, mut snapshots) = (0, 0);
    for index in 0..batches {
        let batch = batch_of(filling + index * BATCH);
        let started = Instant::now();
        stage.push(batch)?;
        slowest = slowest.max(started.elapsed());
        if stage.next_deadline_ms() == i64::MIN {
            let polled = Instant::now();
            let _ = stage.poll(0, &mut Context::from_waker(Waker::noop()))?;
            slowest = slowest.max(polled.elapsed());
        }
        since += 1;
        if every.is_some_and(|every| since >= every) && stage.next_deadline_ms() == i64::MAX {
            since = 0;
            snapshots += 1;
            let started = Instant::now();
            let _ = stage.signal(Signal::Barrier(Barrier::of_checkpoint(snapshots)))?;
            barrier = barrier.max(started.elapsed());
        }
    }
    let ns_per_record = (cpu_ns() - started_all - making) / (batches * BATCH) as f64;
    drop(stage);
    dropping.join().expect("the thread only drops");
    Ok(Measured { ns_per_record, barrier, slowest, snapshots })
}

fn report(what: &str, keys: u64, how: &str, measured: Measured) {
    let Measured { ns_per_record, barrier, slowest, snapshots } = measured;
    println!(
        "{what:<24}{keys:>9} keys  {how:<34}{ns_per_record:>7.1} ns/record  {snapshots:>4} snapshots, barrier {barrier:>9.1?}, slowest batch {slowest:>9.1?}"
    );
}

fn main() -> Result<()> {
    let ways: [(&str, Option<bool>, Option<u64>); 5] = [
        ("no snapshots", None, None),
        ("all rows, none taken", Some(false), None),
        ("changes, none taken", Some(true), None),
        // At a few million records a second, this is one or several a second.
        ("all rows, every 2,000 batches", Some(false), Some(2_000)),
        ("changes, every 2,000 batches", Some(true), Some(2_000)),
    ];
    for keys in [10_000, 1_000_000] {
        for (how, state, every) in ways {
            let add = |sum: &mut Counted<()>, next: &mut Counted<()>| sum.1 += next.1;
            let key = ByValue::new(|record: &Counted<()>| record.0);
            let measured = measure(state, every, keys, |n| (n, 1, ()), |_| RollingReduce::new(key, add))?;
            report("rolling reduce", keys, how, measured);
        }
        for (how, state, every) in ways {
            let key = ByValue::new(|record: &Counted<()>| record.0);
            let measured = measure(
                state,
                every,
                keys,
                |n| (n, 1, ()),
                |ctx| KeyedProcess::new(key, Count::default(), ctx),
            )?;
            report("function, value state", keys, how, measured);
        }
    }
    let keys = 1_000_000;
    for (how, state, every) in ways {
        let add = |sum: &mut Counted<String>, next: &mut Counted<String>| sum.1 += next.1;
        let key = ByValue::new(|record: &Counted<String>| record.0);
        let record = |n: u64| (n, 1, format!("a text of some length, {n}"));
        let measured = measure(state, every, keys, record, |_| RollingReduce::new(key, add))?;
        report("rolling reduce of texts", keys, how, measured);
    }
    Ok(())
}
