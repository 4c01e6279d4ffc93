//! The environment of a program: where its streams begin.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flott_schema::config::ConfigValue;
use flott_schema::config::options::CHECKPOINTING_INTERVAL;
use flott_schema::{Error, Result};

use super::stream::DataStream;
use crate::operators::factory::SourceFactory;
use crate::program::{Chaining, GraphBuilder, JobOptions, Node, NodeFactory, Program, RuntimeMode, Upstream};
use crate::source::Source;
use crate::time::WatermarkStrategy;

/// Gathers the operators of one job. Cheap to clone: clones share the graph.
#[derive(Clone)]
pub struct StreamEnv {
    shared: Rc<RefCell<Shared>>,
}

struct Shared {
    builder: GraphBuilder,
    options: JobOptions,
    /// Nodes of jobs that were compiled before. Numbers of nodes are never used twice, so a stream of a job that is gone
    /// cannot be taken for one of the next.
    gone: usize,
}

impl Default for StreamEnv {
    fn default() -> Self {
        Self::new()
    }
}

impl StreamEnv {
    /// An empty environment with default options.
    pub fn new() -> Self {
        Self::with_options(JobOptions::default())
    }

    /// An empty environment.
    pub fn with_options(options: JobOptions) -> Self {
        StreamEnv {
            shared: Rc::new(RefCell::new(Shared { builder: GraphBuilder::default(), options, gone: 0 })),
        }
    }

    /// The options of the job, for reading.
    pub fn options(&self) -> JobOptions {
        self.shared.borrow().options.clone()
    }

    /// Changes the options of the job.
    pub fn configure(&self, change: impl FnOnce(&mut JobOptions)) -> &Self {
        change(&mut self.shared.borrow_mut().options);
        self
    }

    /// Parallelism of operators that do not say.
    pub fn set_parallelism(&self, parallelism: u32) -> &Self {
        self.configure(|options| options.parallelism = parallelism)
    }

    /// Number of key groups of operators that do not say.
    pub fn set_max_parallelism(&self, max_parallelism: u32) -> &Self {
        self.configure(|options| options.max_parallelism = Some(max_parallelism))
    }

    /// Streaming, batch or automatic.
    pub fn set_runtime_mode(&self, mode: RuntimeMode) -> &Self {
        self.configure(|options| options.mode = mode)
    }

    /// How long a partial batch may wait, milliseconds: 0 sends at once, -1 waits until it is full. Whatever this
    /// says, a task sends what it holds when it goes idle.
    pub fn set_buffer_timeout(&self, timeout_ms: i64) -> &Self {
        self.configure(|options| options.settings.buffer_timeout_ms = timeout_ms)
    }

    /// Interval of periodic watermarks under load, milliseconds; 0 gives none before the end.
    pub fn set_auto_watermark_interval(&self, interval_ms: i64) -> &Self {
        self.configure(|options| options.settings.watermark_interval_ms = interval_ms)
    }

    /// Takes a checkpoint of the job at this interval, so that after a failure it goes on from there.
    pub fn enable_checkpointing(&self, interval: Duration) -> &Self {
        self.set(CHECKPOINTING_INTERVAL.key(), &Some(interval).render())
    }

    /// Sets a configuration key of how the job runs: restarts, checkpoints, state. It goes over what the process is configured with;
    /// a mistake is reported when the job is executed. What describes the graph has calls of its own, and is not read from here.
    pub fn set(&self, key: &str, value: &str) -> &Self {
        let set = self.shared.borrow_mut().options.configuration.set(key, value);
        if let Err(error) = set {
            self.add_error(error.into());
        }
        self
    }

    /// Runs every operator as a task of its own.
    pub fn disable_operator_chaining(&self) -> &Self {
        self.configure(|options| options.chaining = false)
    }

    /// A stream of what `source` reads, with timestamps and watermarks by `strategy`. Name, uid and the other settings of this stream are
    /// those of the source.
    pub fn from_source<S: Source>(
        &self,
        source: S,
        strategy: WatermarkStrategy<S::Record>,
        name: &str,
    ) -> DataStream<S::Record> {
        let stream = self.add_source(source, name).assign_timestamps_and_watermarks(strategy);
        stream.set("from_source", |node| node.of_source = true)
    }

    /// A stream of what `source` reads, as the source gives it: without watermarks before the end.
    pub fn add_source<S: Source>(&self, source: S, name: &str) -> DataStream<S::Record> {
        let name = format!("Source: {name}");
        let node = self.add_node(&name, Vec::new(), Arc::new(SourceFactory::new(source)));
        DataStream::of(self.clone(), node)
    }

    pub(crate) fn add_node(&self, name: &str, inputs: Vec<Upstream>, factory: Arc<dyn NodeFactory>) -> usize {
        let shared = &mut *self.shared.borrow_mut();
        if inputs.iter().any(|upstream| upstream.node < shared.gone) {
            shared.builder.errors.push(stream_is_gone(&format!("operator '{name}'")));
        }
        shared.builder.nodes.push(Node {
            name: name.to_string(),
            uid: None,
            parallelism: None,
            max_parallelism: None,
            force_single: false,
            of_source: false,
            slot_sharing_group: None,
            chaining: Chaining::Always,
            buffer_timeout_ms: None,
            inputs,
            factory,
        });
        shared.gone + shared.builder.nodes.len() - 1
    }

    /// Changes a node, and the source that it belongs to.
    pub(crate) fn with_node(&self, node: usize, mut change: impl FnMut(&mut Node)) {
        let shared = &mut *self.shared.borrow_mut();
        let nodes = &mut shared.builder.nodes;
        let Some((before, node)) = node
            .checked_sub(shared.gone)
            .filter(|index| *index < nodes.len())
            .and_then(|index| nodes[..=index].split_last_mut().map(|(node, before)| (before, node)))
        else {
            shared.builder.errors.push(stream_is_gone("a setting"));
            return;
        };
        let own_name = node.of_source.then(|| node.name.clone());
        change(node);
        if let (Some(own_name), [input]) = (own_name, node.inputs.as_slice()) {
            let source = &mut before[input.node - shared.gone];
            change(source);
            node.name = own_name;
            node.uid = source.uid.as_ref().map(|uid| format!("{uid} watermarks"));
        }
    }

    /// Notes a mistake of the program; it is reported when the job is executed.
    pub(crate) fn add_error(&self, error: Error) {
        self.shared.borrow_mut().builder.errors.push(error);
    }

    pub(crate) fn is_same(&self, other: &StreamEnv) -> bool {
        Rc::ptr_eq(&self.shared, &other.shared)
    }

    /// Takes what was gathered and compiles it; the environment is empty afterwards, and can gather the next job.
    pub fn compile(&self, job_name: &str) -> Result<Program> {
        let (mut builder, options, gone) = {
            let shared = &mut *self.shared.borrow_mut();
            let builder = std::mem::take(&mut shared.builder);
            let gone = shared.gone;
            shared.gone += builder.nodes.len();
            (builder, shared.options.clone(), gone)
        };
        for upstream in builder.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            // A stream that is gone has been noted as a mistake; compiling will report it.
            upstream.node = upstream.node.saturating_sub(gone);
        }
        Program::compile(builder, job_name, options)
    }
}

fn stream_is_gone(what: &str) -> Error {
    Error::graph(format!(
        "{what} is put behind a stream of a job that was executed already; name its operators again for the next job"
    ))
}
