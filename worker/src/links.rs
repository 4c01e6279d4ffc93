//! The ends of a job's channels in this process: which are local and which lead to other executors, by where the tasks at
//! the other end run.
//!
//! Both ends of a pipelined channel belong to one region, which is deployed in one job epoch; the epoch is part of the name
//! of a channel, so that nothing of an older deployment can reach a newer one. Spooled results outlive the epoch they were
//! written in: their readers may be deployed again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use flott_dataflow::context::Congestion;
use flott_dataflow::exchange::ChannelWriter;
use flott_dataflow::program::Program;
use flott_schema::control::{Placement, WorkerHost};
use flott_schema::graph::{Exchange, JobGraph};
use flott_schema::ids::{AttemptId, TaskId, VertexId, WorkerId};
use flott_schema::{Error, Result};

use crate::channel::{Credit, GateQueue, LocalWriter};
use crate::exchange::header::ChannelId;
use crate::exchange::inbox::RemoteInput;
use crate::exchange::spooled::RemoteSpool;
use crate::exchange::{self, InputPlan};
use crate::gate::{InputGate, Origin};
use crate::metrics::Traffic;
use crate::spool::{Spool, SpoolReader, SpoolStore, SpoolWriter};
use crate::wiring::{channel_number, channels_into, targets};

/// Writers by edge.
pub(crate) type Outputs = HashMap<usize, Vec<Box<dyn ChannelWriter>>>;

/// What the ends of channels are made with.
pub(crate) struct LinkOptions {
    /// This worker.
    pub worker: WorkerId,
    /// Batches a channel takes before it blocks its sender.
    pub capacity: usize,
    /// Encodes every batch of local channels.
    pub encode: bool,
}

/// The ends of all channels of a job in this process; made when the first of both ends is deployed.
pub(crate) struct Links {
    graph: Arc<JobGraph>,
    options: LinkOptions,
    exchange: Option<exchange::Handle>,
    /// The newest placement known of each task.
    placements: HashMap<TaskId, Placement>,
    queues: HashMap<(u32, TaskId), Arc<GateQueue>>,
    credits: HashMap<(u32, TaskId, u32), Arc<Credit>>,
    spools: Arc<SpoolStore>,
}

impl Links {
    /// Links without channels.
    pub fn new(
        graph: Arc<JobGraph>,
        options: LinkOptions,
        exchange: Option<exchange::Handle>,
        spools: Arc<SpoolStore>,
    ) -> Self {
        Links {
            graph,
            options,
            exchange,
            placements: HashMap::new(),
            queues: HashMap::new(),
            credits: HashMap::new(),
            spools,
        }
    }

    /// The job goes on with another parallelism: channels of older epochs are not needed any more.
    pub fn rewire(&mut self, graph: Arc<JobGraph>) {
        self.graph = graph;
    }

    /// Learns where tasks run, and drops what belongs to older deployments of them.
    pub fn learn(&mut self, peers: &[Placement], hosts: &[WorkerHost]) {
        for peer in peers {
            let known = self.placements.entry(peer.attempt.task).or_insert(*peer);
            let age = |attempt: AttemptId| (attempt.job_epoch, attempt.attempt);
            if age(peer.attempt) > age(known.attempt) {
                *known = *peer;
            }
        }
        let placements = &self.placements;
        let stands = |task: TaskId, epoch: u32| {
            placements.get(&task).is_none_or(|placement| placement.attempt.job_epoch <= epoch)
        };
        self.queues.retain(|(epoch, task), _| stands(*task, *epoch));
        self.credits.retain(|(epoch, task, _), _| stands(*task, *epoch));
        let graph = &self.graph;
        self.spools.retain(|channel, epoch| {
            graph
                .edges
                .get(usize::from(channel.edge))
                .is_none_or(|edge| stands(TaskId { vertex: edge.source, subtask: channel.source }, epoch))
        });
        if let Some(exchange) = &self.exchange {
            exchange.learn_hosts(hosts);
        }
    }

    /// The way to other executors.
    pub fn exchange(&self) -> Option<&exchange::Handle> {
        self.exchange.as_ref()
    }

    /// The worker of a task in another executor, and how to get there; nothing for one in this process.
    fn remote(&self, task: TaskId) -> Result<Option<(WorkerId, exchange::Handle)>> {
        // A task that is not named runs where everything runs: in an embedded cluster.
        let Some(placement) = self.placements.get(&task) else { return Ok(None) };
        let worker = placement.slot.worker;
        if worker == self.options.worker {
            return Ok(None);
        }
        match &self.exchange {
            Some(exchange) => Ok(Some((worker, exchange.clone()))),
            None => Err(Error::internal(format!(
                "subtask {} of vertex {} runs on worker {}, to which this process has no way",
                task.subtask, task.vertex, worker.0
            ))),
        }
    }

    /// The worker that holds subtask 0 of a source, where its split enumerator lives; nothing if it is this one.
    pub fn enumerator_host(&self, vertex: VertexId) -> Result<Option<(WorkerId, exchange::Handle)>> {
        self.remote(TaskId { vertex, subtask: 0 })
    }

    /// The other workers on which tasks of the job run.
    pub fn other_workers(&self) -> BTreeSet<WorkerId> {
        let workers = self.placements.values().map(|placement| placement.slot.worker);
        workers.filter(|worker| *worker != self.options.worker).collect()
    }

    fn queue(&mut self, epoch: u32, task: TaskId) -> Arc<GateQueue> {
        self.queues.entry((epoch, task)).or_default().clone()
    }

    fn credit(&mut self, epoch: u32, task: TaskId, channel: u32) -> Arc<Credit> {
        let capacity = self.options.capacity;
        let key = (epoch, task, channel);
        self.credits.entry(key).or_insert_with(|| Arc::new(Credit::new(capacity))).clone()
    }

    /// The sending ends of the channels of a task.
    pub fn outputs(
        &mut self,
        attempt: AttemptId,
        congestion: &Arc<Congestion>,
        traffic: &Arc<Traffic>,
    ) -> Result<Outputs> {
        let graph = self.graph.clone();
        let (task, epoch) = (attempt.task, attempt.job_epoch);
        let mut outputs = Outputs::new();
        for (index, edge) in graph.outputs(task.vertex) {
            let mut writers: Vec<Box<dyn ChannelWriter>> = Vec::new();
            for target in targets(&graph, edge, task.subtask) {
                let channel = channel_id(index, task.subtask, target)?;
                if edge.exchange == Exchange::Blocking {
                    let spool = self.spools.to_write(channel, epoch);
                    writers.push(Box::new(SpoolWriter::new(spool, traffic.clone())));
                    continue;
                }
                let receiver = TaskId { vertex: edge.target, subtask: target };
                if let Some((worker, exchange)) = self.remote(receiver)? {
                    let writer =
                        exchange.writer(worker, channel, attempt, congestion.clone(), traffic.clone())?;
                    writers.push(Box::new(writer));
                    continue;
                }
                let number = channel_number(&graph, receiver, index, task.subtask);
                let credit = self.credit(epoch, receiver, number);
                credit.connect(congestion.clone());
                let queue = self.queue(epoch, receiver);
                let encode = self.options.encode;
                writers.push(Box::new(LocalWriter::new(queue, number, credit, traffic.clone(), encode)));
            }
            outputs.insert(index, writers);
        }
        Ok(outputs)
    }

    /// The receiving ends of the channels of a task.
    pub fn inputs(&mut self, attempt: AttemptId, traffic: &Arc<Traffic>) -> Result<Inputs> {
        let graph = self.graph.clone();
        let (task, epoch) = (attempt.task, attempt.job_epoch);
        let queue = self.queue(epoch, task);
        let mut channels = Vec::new();
        for (number, channel) in channels_into(&graph, task).into_iter().enumerate() {
            let edge = &graph.edges[channel.edge];
            let number = number as u32;
            let id = channel_id(channel.edge, channel.source, task.subtask)?;
            let sender = TaskId { vertex: edge.source, subtask: channel.source };
            let remote = self.remote(sender)?;
            let plan = |from| InputPlan { channel: id, attempt, from, number, queue: queue.clone() };
            let end = match (edge.exchange, remote) {
                (Exchange::Pipelined, None) => ReceivingEnd::Local(self.credit(epoch, task, number)),
                (Exchange::Pipelined, Some((worker, exchange))) => {
                    ReceivingEnd::Remote(exchange.open_input(plan(worker)))
                }
                (Exchange::Blocking, remote) => {
                    // Its writer ran in this epoch or in an earlier one.
                    let wrote = self.placements.get(&sender);
                    let wrote = wrote.map_or(epoch, |placement| placement.attempt.job_epoch);
                    match remote {
                        None => ReceivingEnd::Spool(self.spools.to_read(id, wrote)?),
                        Some((worker, exchange)) => {
                            let input = exchange.open_input(plan(worker));
                            let spool = exchange.remote_spool(worker, id, epoch, wrote)?;
                            ReceivingEnd::RemoteSpool(input, spool)
                        }
                    }
                }
            };
            channels.push((edge.input, end));
        }
        Ok(Inputs { queue, traffic: traffic.clone(), channels })
    }
}

fn channel_id(edge: usize, source: u32, target: u32) -> Result<ChannelId> {
    let edge = u16::try_from(edge)
        .map_err(|_| Error::graph(format!("a job graph of more than {} edges", u16::MAX)))?;
    Ok(ChannelId { edge, source, target })
}

enum ReceivingEnd {
    Local(Arc<Credit>),
    Remote(RemoteInput),
    Spool(Arc<Spool>),
    RemoteSpool(RemoteInput, RemoteSpool),
}

/// The receiving ends of a task's channels, on their way to its slot.
pub(crate) struct Inputs {
    queue: Arc<GateQueue>,
    traffic: Arc<Traffic>,
    channels: Vec<(u16, ReceivingEnd)>,
}

impl Inputs {
    /// The gate over them.
    pub fn gate(self, program: &Program, vertex: VertexId) -> Result<InputGate> {
        let mut gate = InputGate::new(self.queue, self.traffic);
        for (input, end) in self.channels {
            let origin = match end {
                ReceivingEnd::Local(credit) => Origin::Local(credit),
                ReceivingEnd::Remote(input) => Origin::Remote(input),
                ReceivingEnd::Spool(spool) => Origin::Spool(SpoolReader::new(spool)),
                ReceivingEnd::RemoteSpool(input, spool) => Origin::RemoteSpool(input, spool),
            };
            gate.add(input, program.decoder(vertex, input)?, origin);
        }
        Ok(gate)
    }
}
