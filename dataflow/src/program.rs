//! From the operators that a program named to a job graph and the factories of its tasks.
//!
//! [`GraphBuilder`] gathers nodes, [`Program::compile`] chains them into vertices. The coordinator gets the graph
//! (data), the worker keeps the program (code) and builds tasks from it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use flott_schema::config::Configuration;
pub use flott_schema::config::options::RuntimeMode;
use flott_schema::error::Context as _;
use flott_schema::graph::{
    Edge, Exchange, ExecutionMode, JobGraph, OperatorSpec, Partitioning, Vertex, check_parallelism,
};
use flott_schema::ids::{OperatorId, VertexId};
use flott_schema::key_group::default_max_parallelism;
use flott_schema::{Error, Result};

use crate::batch::{Batch, BatchDecoder, DataBatch};
use crate::context::{OperatorContext, OperatorMetrics, Settings, TaskContext};
use crate::exchange::{ChannelWriter, OutputFactory};
use crate::operator::{Collector, SideOutputs};
use crate::source::{Boundedness, ErasedEnumerator};
use crate::stage::{Stage, StageBox, join_stages};
use crate::task::Task;

/// Builds one operator inside each task of its vertex.
pub trait NodeFactory: Send + Sync {
    /// The operator with its consumers behind it.
    fn build(&self, ctx: &OperatorContext, outputs: NodeOutputs) -> Result<Built>;
    /// Makes a stage of this operator the head of a task.
    fn head(&self, stage: StageBox) -> Result<Box<dyn Task>>;
    /// Reads the wire form of what arrives at a logical input.
    fn decoder(&self, input: u16) -> BatchDecoder;
    /// For sources: whether they end.
    fn boundedness(&self) -> Option<Boundedness> {
        None
    }
    /// For sources: the split enumerator.
    fn enumerator(&self, _parallelism: u32) -> Result<Box<dyn ErasedEnumerator>> {
        Err(Error::internal("an operator that is no source has no split enumerator"))
    }
    /// Refuses what cannot work, before the job runs.
    fn check(&self) -> Result<()> {
        Ok(())
    }
    /// Registers the states of the operator with `ctx`, as when it is opened; nothing else comes of it. Sources and sinks, which reach outside when
    /// they are opened, only name theirs.
    fn declare(&self, ctx: &OperatorContext) -> Result<()> {
        let mut task = match self.build(ctx, NodeOutputs::default())? {
            Built::Stage(stage) => self.head(stage)?,
            Built::Task(task) => task,
        };
        let opened = task.open();
        opened.and(task.close())
    }
}

/// What a factory built.
pub enum Built {
    /// A stage that can stand behind another operator or head a task.
    Stage(StageBox),
    /// A task that must head a chain: a source, or an operator with two inputs.
    Task(Box<dyn Task>),
}

type AddSide = fn(&mut SideOutputs, &OperatorContext, Arc<str>, Vec<StageBox>) -> Result<()>;

/// The consumers of an operator's outputs.
#[derive(Default)]
pub struct NodeOutputs {
    main: Vec<StageBox>,
    sides: Vec<(Arc<str>, AddSide, Vec<StageBox>)>,
}

impl NodeOutputs {
    /// What lies behind the main output.
    pub fn next<B: DataBatch>(self) -> Result<Box<dyn Stage<B>>> {
        join_stages(self.main)
    }

    /// A collector over all outputs.
    pub fn collector<T: crate::batch::Record>(self, ctx: &OperatorContext) -> Result<Collector<T>> {
        let mut sides = SideOutputs::default();
        for (tag, add, stages) in self.sides {
            add(&mut sides, ctx, tag, stages)?;
        }
        Ok(Collector::new(ctx.clone(), join_stages::<Batch<T>>(self.main)?, sides))
    }
}

/// Which output of an operator a consumer reads.
#[derive(Clone)]
pub enum Port {
    /// The main output.
    Main,
    /// A side output.
    Side(Arc<str>, AddSide),
}

impl Port {
    /// The side output `tag` with records of type `S`.
    pub fn side<S: crate::batch::Record>(tag: &str) -> Self {
        Port::Side(tag.into(), |sides, ctx, tag, stages| {
            sides.add::<S>(ctx, tag, join_stages::<Batch<S>>(stages)?);
            Ok(())
        })
    }
}

/// Where an input of an operator comes from.
#[derive(Clone)]
pub struct Upstream {
    /// The node.
    pub node: usize,
    /// Its output.
    pub port: Port,
    /// How records are spread; `None` means forward where parallelisms agree, else rebalance.
    pub partitioning: Option<Partitioning>,
    /// The typed side of the partitioning.
    pub output: Arc<dyn OutputFactory>,
    /// For the plain forward or rebalance of an upstream without partitioning.
    pub logical_input: u16,
}

/// Whether an operator may share a task with its neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chaining {
    /// With both.
    #[default]
    Always,
    /// With what follows only.
    Head,
    /// With none.
    Never,
}

/// One operator as the program named it.
pub struct Node {
    /// Shown to people.
    pub name: String,
    /// Given by the author.
    pub uid: Option<String>,
    /// Given by the author, else the job's.
    pub parallelism: Option<u32>,
    /// Given by the author, else derived.
    pub max_parallelism: Option<u32>,
    /// Whether it can run in one task only.
    pub force_single: bool,
    /// Whether it was made together with the source that it reads, and is a part of it to the author.
    pub of_source: bool,
    /// Slot-sharing group; `None` inherits from the inputs.
    pub slot_sharing_group: Option<String>,
    /// Chaining.
    pub chaining: Chaining,
    /// Buffer timeout of its outputs.
    pub buffer_timeout_ms: Option<i64>,
    /// Inputs.
    pub inputs: Vec<Upstream>,
    /// Builds it.
    pub factory: Arc<dyn NodeFactory>,
}

/// Gathers the nodes of a program.
#[derive(Default)]
pub struct GraphBuilder {
    /// In the order they were named, so inputs come first.
    pub nodes: Vec<Node>,
    /// What was found wrong while building; reported when the job is executed.
    pub errors: Vec<Error>,
}

/// Job-wide choices.
#[derive(Clone, Debug)]
pub struct JobOptions {
    /// Parallelism of operators that do not say.
    pub parallelism: u32,
    /// Max parallelism of operators that do not say; `None` derives it from the parallelism.
    pub max_parallelism: Option<u32>,
    /// Streaming, batch or automatic.
    pub mode: RuntimeMode,
    /// Whether operators may be chained at all.
    pub chaining: bool,
    /// Settings the tasks read.
    pub settings: Settings,
    /// What the program itself has set of how the job runs: restarts, checkpoints, state. It goes over all other configuration.
    pub configuration: Configuration,
}

impl Default for JobOptions {
    fn default() -> Self {
        JobOptions {
            parallelism: 1,
            max_parallelism: None,
            mode: RuntimeMode::Streaming,
            chaining: true,
            settings: Settings::default(),
            configuration: Configuration::new(),
        }
    }
}

/// A compiled program.
pub struct Program {
    /// The plan, for the coordinator.
    pub graph: JobGraph,
    /// Settings of its tasks.
    pub settings: Settings,
    nodes: Vec<Node>,
    /// Head node of each vertex.
    heads: HashMap<VertexId, usize>,
    /// Per node: what reads it, in order of naming.
    consumers: Vec<Vec<Consumer>>,
    /// Operator of each node.
    operators: Vec<OperatorSpec>,
}

struct Consumer {
    node: usize,
    input: usize,
    /// `None` if chained, else the edge's index in the graph.
    edge: Option<usize>,
}

/// A task ready to run, with the counters of its operators.
pub struct BuiltTask {
    /// The task.
    pub task: Box<dyn Task>,
    /// Counters in chain order.
    pub metrics: Vec<(OperatorSpec, Arc<OperatorMetrics>)>,
}

impl Program {
    /// Chains the nodes into vertices and checks the result.
    pub fn compile(builder: GraphBuilder, name: &str, options: JobOptions) -> Result<Self> {
        if let Some(error) = builder.errors.into_iter().next() {
            return Err(error);
        }
        let nodes = builder.nodes;
        for node in &nodes {
            node.factory.check().at(|| format!("operator '{}'", node.name))?;
        }
        let mode = resolve_mode(&nodes, options.mode)?;
        let plan = NodePlan::of(&nodes, &options)?;
        let operators = operator_specs(&nodes);
        let vertex_of = vertex_heads(&nodes, &plan);
        let vertices = vertices(&nodes, &plan, &vertex_of, &operators);
        let (edges, consumers) = connect(&nodes, &plan, &vertex_of, &operators, mode);
        let graph = JobGraph { name: name.to_string(), mode, vertices, edges };
        graph.validate()?;
        let heads = (0..nodes.len())
            .filter(|node| vertex_of[*node] == *node)
            .map(|node| (VertexId::from(operators[node].id), node))
            .collect();
        let settings = Settings { mode, ..options.settings };
        Ok(Program { graph, settings, nodes, heads, consumers, operators })
    }

    fn head(&self, vertex: VertexId) -> Result<usize> {
        self.heads.get(&vertex).copied().ok_or_else(|| {
            Error::graph(format!(
                "the program has no vertex {vertex}: it is not the program this job was submitted with"
            ))
        })
    }

    /// The split enumerator of a source vertex.
    pub fn enumerator(&self, vertex: VertexId, parallelism: u32) -> Result<Box<dyn ErasedEnumerator>> {
        self.nodes[self.head(vertex)?].factory.enumerator(parallelism)
    }

    /// Registers the states of an operator with `ctx`, see [`NodeFactory::declare`].
    pub(crate) fn declare(&self, operator: OperatorId, ctx: &OperatorContext) -> Result<()> {
        let node = self.operators.iter().position(|one| one.id == operator);
        let node = node.ok_or_else(|| Error::graph(format!("the program has no operator {operator}")))?;
        self.nodes[node].factory.declare(ctx)
    }

    /// Reads the wire form of what arrives at a vertex.
    pub fn decoder(&self, vertex: VertexId, input: u16) -> Result<BatchDecoder> {
        Ok(self.nodes[self.head(vertex)?].factory.decoder(input))
    }

    /// Builds the task of `vertex` in `task`. `writers` gives the channels of an edge, by its index in the graph.
    pub fn build_task(
        &self,
        vertex: VertexId,
        task: &Rc<TaskContext>,
        writers: &mut dyn FnMut(usize) -> Vec<Box<dyn ChannelWriter>>,
    ) -> Result<BuiltTask> {
        let head = self.head(vertex)?;
        let mut metrics = Vec::new();
        let task = match self.build_node(head, task, writers, &mut metrics)? {
            Built::Task(task) => task,
            Built::Stage(stage) => self.nodes[head].factory.head(stage)?,
        };
        // Operators are built from the end of the chain to its head.
        metrics.reverse();
        Ok(BuiltTask { task, metrics })
    }

    fn build_node(
        &self,
        index: usize,
        task: &Rc<TaskContext>,
        writers: &mut dyn FnMut(usize) -> Vec<Box<dyn ChannelWriter>>,
        metrics: &mut Vec<(OperatorSpec, Arc<OperatorMetrics>)>,
    ) -> Result<Built> {
        let node = &self.nodes[index];
        let operator = &self.operators[index];
        let mut outputs = NodeOutputs::default();
        for consumer in &self.consumers[index] {
            let upstream = &self.nodes[consumer.node].inputs[consumer.input];
            let stage = match consumer.edge {
                None => match self.build_node(consumer.node, task, writers, metrics)? {
                    Built::Stage(stage) => stage,
                    Built::Task(_) => {
                        return Err(Error::internal(format!("'{}' was chained but cannot be", node.name)));
                    }
                },
                Some(edge) => {
                    let target = self.graph.vertex(self.graph.edges[edge].target);
                    let max = target.map_or(1, |target| target.max_parallelism);
                    upstream.output.build(task.clone(), writers(edge), max, node.buffer_timeout_ms)?
                }
            };
            match &upstream.port {
                Port::Main => outputs.main.push(stage),
                Port::Side(tag, add) => match outputs.sides.iter_mut().find(|(other, ..)| other == tag) {
                    Some((_, _, stages)) => stages.push(stage),
                    None => outputs.sides.push((tag.clone(), *add, vec![stage])),
                },
            }
        }
        let ctx = OperatorContext::new(task.clone(), &operator.name, &operator.uid);
        metrics.push((operator.clone(), ctx.metrics.clone()));
        node.factory.build(&ctx, outputs).at(|| format!("operator '{}'", node.name))
    }
}

fn resolve_mode(nodes: &[Node], mode: RuntimeMode) -> Result<ExecutionMode> {
    let unbounded = nodes.iter().find(|node| node.factory.boundedness() == Some(Boundedness::Unbounded));
    match (mode, unbounded) {
        (RuntimeMode::Batch, Some(node)) => Err(Error::graph(format!(
            "runtime mode BATCH needs bounded sources, but source '{}' is unbounded; use STREAMING or AUTOMATIC",
            node.name
        ))),
        (RuntimeMode::Streaming, _) | (RuntimeMode::Automatic, Some(_)) => Ok(ExecutionMode::Streaming),
        (RuntimeMode::Batch | RuntimeMode::Automatic, None) => Ok(ExecutionMode::Batch),
    }
}

/// Per node, what was left open by the author and is now decided.
struct NodePlan {
    parallelism: Vec<u32>,
    max_parallelism: Vec<u32>,
    group: Vec<String>,
    /// Whether the node is chained to its only input.
    chained: Vec<bool>,
}

impl NodePlan {
    fn of(nodes: &[Node], options: &JobOptions) -> Result<Self> {
        let mut plan =
            NodePlan { parallelism: vec![], max_parallelism: vec![], group: vec![], chained: vec![] };
        for (index, node) in nodes.iter().enumerate() {
            let parallelism =
                if node.force_single { 1 } else { node.parallelism.unwrap_or(options.parallelism) };
            let max = node.max_parallelism.or(options.max_parallelism);
            // What runs in one task never gets another, by a rescale either.
            let max = if node.force_single { Some(1) } else { max };
            let max = max.unwrap_or_else(|| default_max_parallelism(parallelism));
            check_parallelism(&node.name, parallelism, max)?;
            if let (true, Some(wanted @ 2..)) = (node.force_single, node.parallelism) {
                return Err(Error::graph(format!(
                    "operator '{}' works on the whole stream and runs in one task; its parallelism cannot be {wanted}",
                    node.name
                )));
            }
            for upstream in &node.inputs {
                let source = &nodes[upstream.node];
                if let (Port::Side(tag, _), true) = (&upstream.port, source.inputs.is_empty()) {
                    return Err(Error::graph(format!(
                        "'{}' has no side outputs, but '{}' reads its side output '{tag}'; sources have none",
                        source.name, node.name
                    )));
                }
                if upstream.partitioning == Some(Partitioning::Forward)
                    && plan.parallelism[upstream.node] != parallelism
                {
                    return Err(Error::graph(format!(
                        "forward() leads from '{}' with parallelism {} to '{}' with parallelism {parallelism}; subtask i sends \
                         to subtask i, so both must be equal (or use rescale() or rebalance())",
                        nodes[upstream.node].name, plan.parallelism[upstream.node], node.name
                    )));
                }
            }
            plan.parallelism.push(parallelism);
            plan.max_parallelism.push(max);
            plan.group.push(plan.group_of(node));
            let chained = options.chaining && plan.can_chain(nodes, index);
            plan.chained.push(chained);
        }
        Ok(plan)
    }

    /// Given, or that of the inputs if they agree, as in Flink.
    fn group_of(&self, node: &Node) -> String {
        if let Some(group) = &node.slot_sharing_group {
            return group.clone();
        }
        let mut groups = node.inputs.iter().map(|input| &self.group[input.node]);
        match groups.next() {
            Some(first) if groups.all(|group| group == first) => first.clone(),
            _ => "default".to_string(),
        }
    }

    fn partitioning(&self, nodes: &[Node], node: usize, input: usize) -> Partitioning {
        let upstream = &nodes[node].inputs[input];
        upstream.partitioning.unwrap_or_else(|| {
            if self.parallelism[upstream.node] == self.parallelism[node] {
                Partitioning::Forward
            } else {
                Partitioning::Rebalance
            }
        })
    }

    fn can_chain(&self, nodes: &[Node], node: usize) -> bool {
        let [upstream] = nodes[node].inputs.as_slice() else { return false };
        self.partitioning(nodes, node, 0) == Partitioning::Forward
            && upstream.logical_input == 0
            && self.parallelism[upstream.node] == self.parallelism[node]
            && self.group[upstream.node] == self.group[node]
            // A chain has one parallelism: what must stay single is not put behind what need not.
            && (nodes[upstream.node].force_single || !nodes[node].force_single)
            && (nodes[node].of_source
                || nodes[node].chaining == Chaining::Always
                    && nodes[upstream.node].chaining != Chaining::Never)
    }
}

fn operator_specs(nodes: &[Node]) -> Vec<OperatorSpec> {
    let specs = nodes.iter().enumerate().map(|(index, node)| {
        // Generated from the position: stable as long as the program names the same operators in the same order.
        let uid = node.uid.clone().unwrap_or_else(|| format!("{}-{}", node.name, index));
        OperatorSpec { id: OperatorId::of_uid(&uid), uid, name: node.name.clone() }
    });
    specs.collect()
}

fn vertex_heads(nodes: &[Node], plan: &NodePlan) -> Vec<usize> {
    let mut heads: Vec<usize> = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        heads.push(if plan.chained[index] { heads[node.inputs[0].node] } else { index });
    }
    heads
}

fn vertices(nodes: &[Node], plan: &NodePlan, heads: &[usize], operators: &[OperatorSpec]) -> Vec<Vertex> {
    let mut vertices = Vec::new();
    for head in (0..nodes.len()).filter(|node| heads[*node] == *node) {
        let members: Vec<usize> = (head..nodes.len()).filter(|node| heads[*node] == head).collect();
        vertices.push(Vertex {
            id: operators[head].id.into(),
            name: members.iter().map(|node| nodes[*node].name.as_str()).collect::<Vec<_>>().join(" -> "),
            operators: members.iter().map(|node| operators[*node].clone()).collect(),
            parallelism: plan.parallelism[head],
            // A keyed operator heads its chain, so the head's key groups are those of the vertex.
            max_parallelism: plan.max_parallelism[head],
            slot_sharing_group: plan.group[head].clone(),
            is_source: nodes[head].inputs.is_empty(),
        });
    }
    vertices
}

fn connect(
    nodes: &[Node],
    plan: &NodePlan,
    heads: &[usize],
    operators: &[OperatorSpec],
    mode: ExecutionMode,
) -> (Vec<Edge>, Vec<Vec<Consumer>>) {
    let mut edges = Vec::new();
    let mut consumers: Vec<Vec<Consumer>> = nodes.iter().map(|_| Vec::new()).collect();
    for (index, node) in nodes.iter().enumerate() {
        for (input, upstream) in node.inputs.iter().enumerate() {
            let edge = (!plan.chained[index]).then(|| {
                let partitioning = plan.partitioning(nodes, index, input);
                let pipelined = mode == ExecutionMode::Streaming || partitioning == Partitioning::Forward;
                edges.push(Edge {
                    source: operators[heads[upstream.node]].id.into(),
                    target: operators[index].id.into(),
                    input: upstream.logical_input,
                    partitioning,
                    exchange: if pipelined { Exchange::Pipelined } else { Exchange::Blocking },
                });
                edges.len() - 1
            });
            consumers[upstream.node].push(Consumer { node: index, input, edge });
        }
    }
    (edges, consumers)
}
