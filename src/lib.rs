//! Flott: distributed, stateful stream processing with Flink's model, in one binary and without a JVM.
//!
//! A job is a program. It names its operators on an environment, and executes them:
//!
//! ```no_run
//! use flott::prelude::*;
//!
//! fn main() -> flott::Result<()> {
//!     let env = flott::env()?;
//!     env.read_text("docs")
//!         .flat_map(|line, out| line.split_whitespace().for_each(|word| out.collect((word.to_string(), 1u64))))
//!         .key_by_ref(|(word, _)| word)
//!         .sum(|(_, count)| count)
//!         .print_debug();
//!     env.execute("word count")?;
//!     Ok(())
//! }
//! ```
//!
//! Run as it is (`cargo run`) the program starts a cluster inside its own process; so does `flott run PROGRAM`. `flott run -m
//! HOST:PORT PROGRAM` submits it to a cluster instead, whose workers start the same program and run its tasks.

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod client;
mod embedded;
mod environment;
mod execute;
mod interrupt;
mod place;
mod progress;
mod restarts;
mod restore;
mod result;
mod submit;

pub use embedded::{EmbeddedCluster, EmbeddedOptions};
pub use environment::{env, env_with, process_configuration};
pub use execute::{Execute, ExecuteAndCollect};
pub use flott_connectors as connectors;
pub use flott_coordinator as coordinator;
pub use flott_dataflow as dataflow;
pub use flott_schema as schema;
pub use flott_schema::{Context, Error, ErrorKind, Result};
pub use flott_state as state;
pub use flott_storage as storage;
pub use flott_worker as worker;
pub use restore::PlannedRestore;
pub use result::JobResult;

/// What a job imports.
pub mod prelude {
    pub use std::time::Duration;

    pub use flott_connectors::collect::Collected;
    pub use flott_connectors::{Connectors, LineParsers, OnBadRecord, SinkConnectors};
    pub use flott_dataflow::api::{DataStream, KeyedStream, Order, Records, Results, StreamEnv};
    pub use flott_dataflow::operator::{Collector, OutputTag};
    pub use flott_dataflow::operators::async_io::{AsyncFunction, AsyncMap, AsyncOptions, RetryStrategy};
    pub use flott_dataflow::operators::broadcast::{
        BroadcastContext, BroadcastProcessFunction, BroadcastState, KeyedBroadcastContext,
        KeyedBroadcastProcessFunction, KeyedReadOnlyContext, ReadOnlyContext,
    };
    pub use flott_dataflow::operators::co_process::{CoProcessFunction, KeyedCoProcessFunction};
    pub use flott_dataflow::operators::interval_join::{JoinContext, ProcessJoinFunction};
    pub use flott_dataflow::operators::keyed_process::{KeyedContext, KeyedProcessFunction};
    pub use flott_dataflow::operators::list_state::{ListStateHandle, SnapshotContext};
    pub use flott_dataflow::operators::open::OpenContext;
    pub use flott_dataflow::operators::process::{ProcessContext, ProcessFunction};
    pub use flott_dataflow::program::RuntimeMode;
    pub use flott_dataflow::state::{
        AggregatingState, ListState, MapState, ReducingState, StateTtl, TimeDomain, Timer, ValueState,
    };
    pub use flott_dataflow::time::{AggregateFunction, WatermarkGenerator, WatermarkStrategy};
    pub use flott_dataflow::window::{
        ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, CountEvictor, CountTrigger,
        DeltaEvictor, DeltaTrigger, DynamicEventTimeSessionWindows, DynamicProcessingTimeSessionWindows,
        Elements, EventTimeSessionWindows, EventTimeTrigger, GlobalWindow, GlobalWindows, NeverTrigger,
        ProcessWindowFunction, ProcessingTimeSessionWindows, ProcessingTimeTrigger, ProcessingTimeoutTrigger,
        PurgingTrigger, SlidingEventTimeWindows, SlidingProcessingTimeWindows, TimeEvictor, TimeWindow,
        Trigger, TriggerContext, TriggerResult, TumblingEventTimeWindows, TumblingProcessingTimeWindows,
        Window, WindowAssigner, WindowContext,
    };

    pub use crate::execute::{Execute, ExecuteAndCollect};
    pub use crate::result::JobResult;
}

/// The code in the README and in the book compiles, and does what it asserts.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/book/getting-started.md")]
    struct GettingStarted;
    #[doc = include_str!("../docs/book/datastream.md")]
    struct DataStream;
    #[doc = include_str!("../docs/book/checkpoints.md")]
    struct Checkpoints;
    #[doc = include_str!("../docs/book/configuration.md")]
    struct Configuration;
}
