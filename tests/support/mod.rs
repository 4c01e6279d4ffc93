//! What the system tests share: programs run on embedded clusters of many shapes.

// Each test binary uses its share of these.
#![allow(dead_code)]

use flott::EmbeddedOptions;
use flott::connectors::collect::Collected;
use flott::prelude::*;

/// One way to run a program.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub mode: RuntimeMode,
    pub parallelism: u32,
    /// Every batch between tasks is encoded and decoded, as between processes.
    pub encoded: bool,
    /// Records a full batch holds: small ones make many batches of little data.
    pub batch_size: usize,
}

/// The shapes every program must give the same final answer in.
pub fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for mode in [RuntimeMode::Streaming, RuntimeMode::Batch] {
        for (parallelism, encoded, batch_size) in [(1, false, 1024), (3, false, 7), (2, true, 64)] {
            shapes.push(Shape { mode, parallelism, encoded, batch_size });
        }
    }
    shapes
}

impl Shape {
    /// An environment of this shape.
    pub fn env(self) -> StreamEnv {
        let env = StreamEnv::new();
        env.set_runtime_mode(self.mode).set_parallelism(self.parallelism);
        env.configure(|options| options.settings.batch_size = self.batch_size);
        env
    }

    /// A cluster of this shape.
    pub fn options(self) -> EmbeddedOptions {
        EmbeddedOptions { encode_local: self.encoded, ..EmbeddedOptions::default() }
    }

    /// Runs a program that `build` names, and gives what it collected.
    pub fn run<T: flott::dataflow::batch::Record>(
        self,
        build: impl FnOnce(&StreamEnv) -> DataStream<T>,
    ) -> flott::Result<Vec<T>> {
        let env = self.env();
        let collected = Collected::new();
        build(&env).collect_into(&collected);
        env.execute_with("test", self.options())?;
        Ok(collected.take())
    }
}

/// The last value of each key, sorted: the final answer of a program that updates its results.
pub fn last_by_key<K: Ord + Clone, V: Clone>(records: Vec<(K, V)>) -> Vec<(K, V)> {
    records.into_iter().collect::<std::collections::BTreeMap<_, _>>().into_iter().collect()
}

/// The records in order.
pub fn sorted<T: Ord>(mut records: Vec<T>) -> Vec<T> {
    records.sort();
    records
}
