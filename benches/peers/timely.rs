//! Timely dataflow, with operators written for the work, as its users write them: records change in place in their
//! container where the type stays, and the worker is stepped every 16 Ki records. With one worker its exchange hands
//! containers on untouched.

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use timely::Config;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::InputHandle;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::vec::{Filter, Map};
use timely::worker::Worker;

use crate::engine::{Engine, Outcome, Role};
use crate::error::BenchError;
use crate::tally::{LatencySink, StalledSink, Tally};
use crate::text;
use crate::workload::{
    Case, PacedEvent, Size, first_map, keeps, keyed, keyed_check, paced, paced_map, second_map, share,
};

const NAME: &str = "timely";

/// Records given to the input at once; a quarter faster than one by one.
const BATCH_RECORDS: usize = 1_024;
/// Batches sent between two steps of the worker.
const STEP_BATCHES: usize = 16;
/// A line holds a dozen words.
const STEP_LINES: u64 = 1_024;

type Input<D> = InputHandle<u64, CapacityContainerBuilder<Vec<D>>>;

pub const ENGINES: &[Engine] =
    &[Engine { name: NAME, role: Role::Peer, package: Some("timely"), supports, run }];

fn supports(case: Case, _threads: usize) -> bool {
    !matches!(case, Case::WindowTumbling | Case::WindowSliding | Case::FullLoad)
}

fn run(case: Case, threads: usize, size: &Size) -> Result<Outcome, BenchError> {
    let records = size.records(case);
    match case {
        Case::MapFilterMap => map_filter_map(threads, records),
        Case::RollingSmall | Case::RollingLarge => rolling(threads, records, case.keys()),
        Case::TotalsSmall | Case::TotalsLarge => totals(threads, records, case.keys()),
        Case::WordCount => word_count(threads, size),
        Case::Latency => latency(threads, records),
        Case::StalledSink => stalled_sink(threads, records, size),
        Case::WindowTumbling | Case::WindowSliding | Case::FullLoad => {
            Err(BenchError::Unsupported { engine: NAME, case: case.name(), threads })
        }
    }
}

/// Runs the program on every worker, and each worker until its dataflow is complete.
fn execute(
    threads: usize,
    program: impl Fn(&mut Worker) -> Result<(), BenchError> + Send + Sync + 'static,
) -> Result<(), BenchError> {
    let config = if threads == 1 { Config::thread() } else { Config::process(threads) };
    let guards = timely::execute(config, program).map_err(BenchError::engine(NAME))?;
    for result in guards.join() {
        result.map_err(BenchError::engine(NAME))??;
    }
    Ok(())
}

/// Sends the records and closes the input.
fn feed<D: Clone + 'static>(worker: &mut Worker, mut input: Input<D>, mut records: impl Iterator<Item = D>) {
    let mut batch = Vec::with_capacity(BATCH_RECORDS);
    for sent in 1.. {
        batch.clear();
        batch.extend(records.by_ref().take(BATCH_RECORDS));
        if batch.is_empty() {
            return;
        }
        // What comes back is empty, and often an allocation to use again.
        input.send_batch(&mut batch);
        if sent % STEP_BATCHES == 0 {
            worker.step();
        }
    }
}

/// The records that this worker's source makes.
fn own_share(worker: &Worker, records: u64) -> std::ops::Range<u64> {
    share(records, worker.index() as u64, worker.peers() as u64)
}

fn map_filter_map(threads: usize, records: u64) -> Result<Outcome, BenchError> {
    let tally = Tally::default();
    let shared = tally.clone();
    execute(threads, move |worker| {
        let mut sink = shared.clone();
        let mut input = Input::new();
        worker.dataflow(|scope| {
            input
                .to_stream(scope)
                .map_in_place(|word| *word = first_map(*word))
                .filter(keeps)
                .map_in_place(|word| *word = second_map(*word))
                .sink(Pipeline, "Fold", move |(input, _)| {
                    input.for_each_stamp(|_, data| data.flatten().for_each(|word| sink.add(*word)));
                });
        });
        let records = own_share(worker, records);
        feed(worker, input, records);
        Ok(())
    })?;
    Ok(tally.outcome(records))
}

fn rolling(threads: usize, records: u64, keys: u64) -> Result<Outcome, BenchError> {
    let tally = Tally::default();
    let shared = tally.clone();
    execute(threads, move |worker| {
        let mut sink = shared.clone();
        let mut input: Input<(u64, u64)> = Input::new();
        worker.dataflow(|scope| {
            input
                .to_stream(scope)
                .unary(Exchange::new(|(key, _): &(u64, u64)| *key), "RollingSum", |_, _| {
                    let mut totals: HashMap<u64, u64> = HashMap::new();
                    move |input, output| {
                        input.for_each_stamp(|capability, data| {
                            let mut session = output.session(&capability);
                            for container in data {
                                for (key, value) in container.iter_mut() {
                                    let total = totals.entry(*key).or_default();
                                    *total += *value;
                                    *value = *total;
                                }
                                session.give_container(container);
                            }
                        });
                    }
                })
                .sink(Pipeline, "Fold", move |(input, _)| {
                    input.for_each_stamp(|_, data| {
                        data.flatten().for_each(|(key, total)| sink.add(keyed_check(*key, *total)));
                    });
                });
        });
        let records = own_share(worker, records);
        feed(worker, input, records.map(|index| keyed(index, keys)));
        Ok(())
    })?;
    Ok(tally.outcome(records))
}

fn totals(threads: usize, records: u64, keys: u64) -> Result<Outcome, BenchError> {
    let tally = Tally::default();
    let shared = tally.clone();
    execute(threads, move |worker| {
        let mut sink = shared.clone();
        let mut input: Input<(u64, u64)> = Input::new();
        worker.dataflow(|scope| {
            let parts = input.to_stream(scope).unary_frontier(Pipeline, "LocalSum", |capability, _| {
                let mut totals: HashMap<u64, u64> = HashMap::new();
                let mut held = Some(capability);
                move |(input, frontier), output| {
                    input.for_each_stamp(|_, data| {
                        for (key, value) in data.flatten() {
                            *totals.entry(*key).or_default() += *value;
                        }
                    });
                    if frontier.is_empty()
                        && let Some(capability) = held.take()
                    {
                        output.session(&capability).give_iterator(totals.drain());
                    }
                }
            });
            let mut totals: HashMap<u64, u64> = HashMap::new();
            let pact = Exchange::new(|(key, _): &(u64, u64)| *key);
            parts.container::<Vec<_>>().sink(pact, "Sum", move |(input, frontier)| {
                input.for_each_stamp(|_, data| {
                    for (key, part) in data.flatten() {
                        *totals.entry(*key).or_default() += *part;
                    }
                });
                if frontier.is_empty() {
                    totals.drain().for_each(|(key, total)| sink.add(keyed_check(key, total)));
                }
            });
        });
        let records = own_share(worker, records);
        feed(worker, input, records.map(|index| keyed(index, keys)));
        Ok(())
    })?;
    Ok(tally.outcome(records))
}

fn word_count(threads: usize, size: &Size) -> Result<Outcome, BenchError> {
    let tally = Tally::default();
    let shared = tally.clone();
    let path = text::path(size.text_bytes);
    execute(threads, move |worker| {
        let mut sink = shared.clone();
        let mut input: Input<Vec<u8>> = Input::new();
        worker.dataflow(|scope| {
            let parts = input.to_stream(scope).unary_frontier(Pipeline, "LocalCount", |capability, _| {
                let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
                let mut held = Some(capability);
                move |(input, frontier), output| {
                    input.for_each_stamp(|_, data| {
                        for word in data.flatten().flat_map(|line| text::words(line)) {
                            *counts.entry_ref(word).or_default() += 1;
                        }
                    });
                    if frontier.is_empty()
                        && let Some(capability) = held.take()
                    {
                        output.session(&capability).give_iterator(counts.drain());
                    }
                }
            });
            let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
            let pact = Exchange::new(|(word, _): &(Vec<u8>, u64)| text::word_check(word, 1));
            parts.container::<Vec<_>>().sink(pact, "Count", move |(input, frontier)| {
                input.for_each_stamp(|_, data| {
                    for (word, part) in data.flat_map(|container| container.drain(..)) {
                        *counts.entry(word).or_default() += part;
                    }
                });
                if frontier.is_empty() {
                    for (word, count) in counts.drain() {
                        sink.add_counted(text::word_check(&word, count), count);
                    }
                }
            });
        });
        let mut unstepped = 0;
        let (index, peers) = (worker.index() as u64, worker.peers() as u64);
        text::for_each_line(&path, index, peers, |line| {
            input.send(line.to_owned());
            unstepped += 1;
            if unstepped == STEP_LINES {
                unstepped = 0;
                worker.step();
            }
        })
    })?;
    Ok(tally.counted_outcome())
}

/// The first worker is the generator; it flushes, by ending an epoch, whenever nothing more is due.
fn latency(threads: usize, records: u64) -> Result<Outcome, BenchError> {
    let start = Instant::now();
    let latency = LatencySink::new(start);
    let shared = latency.clone();
    execute(threads, move |worker| {
        let mut sink = shared.clone();
        let mut input = Input::new();
        worker.dataflow(|scope| {
            input
                .to_stream(scope)
                .unary(Exchange::new(|event: &PacedEvent| event.key), "Map", |_, _| {
                    move |input, output| {
                        input.for_each_stamp(|capability, data| {
                            let mut session = output.session(&capability);
                            for container in data {
                                container.iter_mut().for_each(|event| *event = paced_map(*event));
                                session.give_container(container);
                            }
                        });
                    }
                })
                .sink(Pipeline, "Fold", move |(input, _)| {
                    input.for_each_stamp(|_, data| data.flatten().for_each(|event| sink.add(event)));
                });
        });
        if worker.index() > 0 {
            return Ok(());
        }
        let mut events = (0..records).map(paced).peekable();
        let mut epoch = 0;
        while let Some(next) = events.peek() {
            let due = Duration::from_nanos(next.due_ns);
            let now = start.elapsed();
            if due > now {
                worker.step_or_park(Some(due - now));
                continue;
            }
            let now_ns = now.as_nanos() as u64;
            while let Some(event) = events.next_if(|event| event.due_ns <= now_ns) {
                input.send(event);
            }
            epoch += 1;
            input.advance_to(epoch);
            worker.step();
        }
        Ok(())
    })?;
    Ok(latency.outcome(records))
}

fn stalled_sink(threads: usize, records: u64, size: &Size) -> Result<Outcome, BenchError> {
    let stalled = StalledSink::new(records, size.stall);
    let shared = stalled.clone();
    execute(threads, move |worker| {
        let mut sink = shared.clone();
        let mut input: Input<(u64, u64)> = Input::new();
        worker.dataflow(|scope| {
            let pact = Exchange::new(|(key, _): &(u64, u64)| *key);
            input.to_stream(scope).sink(pact, "Stall", move |(input, _)| {
                input.for_each_stamp(|_, data| {
                    data.flatten().for_each(|(key, index)| sink.add(*key, *index));
                });
            });
        });
        let records = own_share(worker, records);
        feed(worker, input, records.map(|index| (keyed(index, Case::StalledSink.keys()).0, index)));
        Ok(())
    })?;
    Ok(stalled.outcome(records))
}
