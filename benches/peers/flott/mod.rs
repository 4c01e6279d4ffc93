//! Flott: each case as a job of the DataStream API, run by the embedded cluster with its default settings.

mod sinks;
mod sources;

use std::time::Instant;

use flott::prelude::*;
use flott::{EmbeddedCluster, EmbeddedOptions};

use self::sinks::FoldSink;
use self::sources::{Indexed, Paced};
use crate::engine::{Engine, Outcome, Role};
use crate::error::BenchError;
use crate::tally::{LatencySink, StalledSink, Tally};
use crate::text;
use crate::workload::{
    Case, PacedEvent, Size, WINDOW_SIZE_MS, first_map, keeps, keyed, keyed_check, paced, paced_map,
    second_map, timed, window_check,
};

const NAME: &str = "flott";

pub const ENGINES: &[Engine] = &[
    Engine { name: NAME, role: Role::Subject, package: None, supports, run },
    variant("flott-timeout-0", |case, threads, size| full_load(case, threads, size, Some(0))),
    variant("flott-timeout-1ms", |case, threads, size| full_load(case, threads, size, Some(1))),
    variant("flott-timeout-10ms", |case, threads, size| full_load(case, threads, size, Some(10))),
    variant("flott-timeout-none", |case, threads, size| full_load(case, threads, size, Some(-1))),
];

/// Flott with a buffer timeout fixed by hand.
const fn variant(name: &'static str, run: fn(Case, usize, &Size) -> Result<Outcome, BenchError>) -> Engine {
    Engine {
        name,
        role: Role::Variant,
        package: None,
        supports: |case, _| matches!(case, Case::FullLoad),
        run,
    }
}

fn supports(_case: Case, _threads: usize) -> bool {
    true
}

fn run(case: Case, threads: usize, size: &Size) -> Result<Outcome, BenchError> {
    let records = size.records(case);
    match case {
        Case::MapFilterMap => map_filter_map(threads, records),
        Case::RollingSmall | Case::RollingLarge => sum(RuntimeMode::Streaming, threads, records, case.keys()),
        Case::TotalsSmall | Case::TotalsLarge => sum(RuntimeMode::Batch, threads, records, case.keys()),
        Case::WordCount => word_count(threads, size),
        Case::Latency => latency(threads, records),
        Case::FullLoad => full_load(case, threads, size, None),
        Case::StalledSink => stalled_sink(threads, records, size),
        Case::WindowTumbling => {
            let minute = TumblingEventTimeWindows::of(Duration::from_millis(WINDOW_SIZE_MS));
            windowed(threads, records, case.keys(), minute)
        }
        Case::WindowSliding => {
            let (minute, second) = (Duration::from_millis(WINDOW_SIZE_MS), Duration::from_secs(1));
            windowed(threads, records, case.keys(), SlidingEventTimeWindows::of(minute, second))
        }
    }
}

fn env(threads: usize, mode: RuntimeMode) -> StreamEnv {
    let env = StreamEnv::new();
    env.set_parallelism(threads as u32).set_runtime_mode(mode);
    env
}

fn execute(env: &StreamEnv, case: &str) -> Result<(), BenchError> {
    let program = env.compile(case).map_err(|error| BenchError::engine(NAME)(error.to_string()))?;
    let ran = EmbeddedCluster::new(EmbeddedOptions::default()).run(program);
    ran.map(drop).map_err(|error| BenchError::engine(NAME)(error.to_string()))
}

fn map_filter_map(threads: usize, records: u64) -> Result<Outcome, BenchError> {
    let tally = Tally::default();
    let env = env(threads, RuntimeMode::Streaming);
    env.add_source(Indexed::new(records, |index| index), "range")
        .map(first_map)
        .filter(keeps)
        .map(second_map)
        .sink_to(FoldSink::new(tally.clone(), |tally, word| tally.add(*word)), "fold");
    execute(&env, "map-filter-map")?;
    Ok(tally.outcome(records))
}

fn sum(mode: RuntimeMode, threads: usize, records: u64, keys: u64) -> Result<Outcome, BenchError> {
    let tally = Tally::default();
    let env = env(threads, mode);
    env.add_source(Indexed::new(records, move |index| keyed(index, keys)), "keyed")
        .key_by(|(key, _)| *key)
        .sum(|(_, value)| value)
        .sink_to(
            FoldSink::new(tally.clone(), |tally, (key, total)| tally.add(keyed_check(*key, *total))),
            "fold",
        );
    execute(&env, "sum")?;
    Ok(tally.outcome(records))
}

type Keyed = (u64, u64);

fn windowed<A>(threads: usize, records: u64, keys: u64, assigner: A) -> Result<Outcome, BenchError>
where
    A: WindowAssigner<Keyed, Window = TimeWindow>,
{
    let tally = Tally::default();
    let env = env(threads, RuntimeMode::Streaming);
    let source = Indexed::timed(records, move |index| keyed(index, keys), |index| timed(index, 1).2 as i64);
    env.from_source(source, WatermarkStrategy::monotonous(), "timed")
        .key_by(|(key, _)| *key)
        .window(assigner)
        .reduce_with(
            |so_far: &mut Keyed, next| so_far.1 += next.1,
            |_key, window: &TimeWindow, (key, total)| (window.end_ms as u64, key, total),
        )
        .sink_to(
            FoldSink::new(tally.clone(), |tally: &mut Tally, (end_ms, key, total): &(u64, u64, u64)| {
                tally.add(window_check(*end_ms, *key, *total));
            }),
            "fold",
        );
    execute(&env, "windowed")?;
    Ok(tally.outcome(records))
}

fn word_count(threads: usize, size: &Size) -> Result<Outcome, BenchError> {
    let tally = Tally::default();
    let env = env(threads, RuntimeMode::Batch);
    env.read_text(text::path(size.text_bytes))
        .flat_map(|line: String, out| {
            for word in text::words(line.as_bytes()) {
                // The text is ASCII.
                out.collect((String::from_utf8_lossy(word).into_owned(), 1_u64));
            }
        })
        .key_by_ref(|(word, _)| word)
        .sum(|(_, count)| count)
        .sink_to(
            FoldSink::new(tally.clone(), |tally: &mut Tally, (word, count): &(String, u64)| {
                tally.add_counted(text::word_check(word.as_bytes(), *count), *count);
            }),
            "fold",
        );
    execute(&env, "word-count")?;
    Ok(tally.counted_outcome())
}

/// The pipeline of the latency case behind any source.
fn paced_pipeline(stream: &DataStream<PacedEvent>) -> DataStream<PacedEvent> {
    // The map runs behind the exchange: a keyed process function does it.
    stream.key_by(|event| event.key).process(PacedMap)
}

#[derive(Clone)]
struct PacedMap;

impl KeyedProcessFunction<u64, PacedEvent, PacedEvent> for PacedMap {
    fn process(
        &mut self,
        event: PacedEvent,
        ctx: &mut KeyedContext<'_, u64, PacedEvent>,
    ) -> flott::Result<()> {
        ctx.collect(paced_map(event));
        Ok(())
    }
}

fn latency(threads: usize, records: u64) -> Result<Outcome, BenchError> {
    let start = Instant::now();
    let sink = LatencySink::new(start);
    let env = env(threads, RuntimeMode::Streaming);
    let source = env.add_source(Paced::new(records, start), "paced");
    paced_pipeline(&source)
        .sink_to(FoldSink::new(sink.clone(), |sink: &mut LatencySink, event| sink.add(event)), "latency");
    execute(&env, "latency")?;
    Ok(sink.outcome(records))
}

fn full_load(
    _case: Case,
    threads: usize,
    size: &Size,
    timeout_ms: Option<i64>,
) -> Result<Outcome, BenchError> {
    let tally = Tally::default();
    let env = env(threads, RuntimeMode::Streaming);
    if let Some(timeout_ms) = timeout_ms {
        env.set_buffer_timeout(timeout_ms);
    }
    let source = env.add_source(Indexed::new(size.full_load_records, paced), "full load");
    paced_pipeline(&source).sink_to(
        FoldSink::new(tally.clone(), |tally, event: &PacedEvent| {
            tally.add(keyed_check(event.key, event.value))
        }),
        "fold",
    );
    execute(&env, "full-load")?;
    Ok(tally.outcome(size.full_load_records))
}

fn stalled_sink(threads: usize, records: u64, size: &Size) -> Result<Outcome, BenchError> {
    let stalled = StalledSink::new(records, size.stall);
    let env = env(threads, RuntimeMode::Streaming);
    env.add_source(Indexed::new(records, |index| (keyed(index, Case::StalledSink.keys()).0, index)), "keyed")
        .key_by(|(key, _)| *key)
        .process(Pass)
        .sink_to(
            FoldSink::new(stalled.clone(), |sink: &mut StalledSink, (key, index)| sink.add(*key, *index)),
            "stall",
        );
    execute(&env, "stalled-sink")?;
    Ok(stalled.outcome(records))
}

#[derive(Clone)]
struct Pass;

impl KeyedProcessFunction<u64, (u64, u64), (u64, u64)> for Pass {
    fn process(
        &mut self,
        record: (u64, u64),
        ctx: &mut KeyedContext<'_, u64, (u64, u64)>,
    ) -> flott::Result<()> {
        ctx.collect(record);
        Ok(())
    }
}
