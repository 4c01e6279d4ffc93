//! Workers, as Flink's task managers.

use std::collections::BTreeMap;

use flott_schema::ids::{JobId, WorkerId};
use flott_schema::stats::WorkerUsage;
use serde::Serialize;
use serde_json::{Value, json};

use super::Body;
use super::subtask::worker_name;
use crate::live::{ReadStats, Sample};
use crate::machine::ClusterState;
use crate::machine::slots::WorkerRecord;

/// A worker and what is held of it.
#[derive(Clone, Debug)]
pub(in crate::rest) struct Held {
    pub(in crate::rest) id: WorkerId,
    pub(in crate::rest) record: WorkerRecord,
    /// Tasks that live in its slots, by job and slot index.
    pub(in crate::rest) tasks: BTreeMap<(JobId, u32), u32>,
}

impl Held {
    /// All workers of a cluster.
    pub(in crate::rest) fn all(state: &ClusterState) -> Vec<Held> {
        let mut tasks: BTreeMap<WorkerId, BTreeMap<(JobId, u32), u32>> = BTreeMap::new();
        for job in state.jobs().filter(|job| !job.state().is_terminal()) {
            let all = job.vertices().iter().flat_map(|vertex| vertex.tasks());
            for slot in all.filter(|task| !task.state().is_terminal()).filter_map(|task| task.slot()) {
                *tasks.entry(slot.worker).or_default().entry((job.id(), slot.index)).or_default() += 1;
            }
        }
        let held = |(id, record): (&WorkerId, &WorkerRecord)| Held {
            id: *id,
            record: record.clone(),
            tasks: tasks.remove(id).unwrap_or_default(),
        };
        state.workers().iter().map(held).collect()
    }

    /// The name that addresses it.
    pub(in crate::rest) fn name(&self) -> String {
        worker_name(self.id, &self.record.profile().name)
    }
}

const MEBIBYTE: u64 = 1 << 20;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Worker {
    id: String,
    path: String,
    data_port: u16,
    jmx_port: i32,
    time_since_last_heartbeat: u64,
    slots_number: u32,
    free_slots: u32,
    assigned_tasks: u32,
    total_resource: Resource,
    free_resource: Resource,
    hardware: Value,
    memory_configuration: Value,
}

/// Flink's resource profile: memory in mebibytes.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    cpu_cores: f64,
    task_heap_memory: u64,
    task_off_heap_memory: u64,
    managed_memory: u64,
    network_memory: u64,
    extended_resources: Empty,
}

#[derive(Clone, Copy, Serialize)]
struct Empty {}

impl Resource {
    /// So many slots of so much memory each, a core a slot.
    fn of(slots: u32, slot_memory_bytes: u64) -> Self {
        Resource {
            cpu_cores: f64::from(slots),
            task_heap_memory: u64::from(slots) * slot_memory_bytes / MEBIBYTE,
            task_off_heap_memory: 0,
            managed_memory: 0,
            network_memory: 0,
            extended_resources: Empty {},
        }
    }
}

impl Worker {
    fn of(held: &Held, usage: Option<&Sample<WorkerUsage>>) -> Self {
        let (record, profile) = (&held.record, held.record.profile());
        let port = profile.data_address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let slots_bytes = u64::from(record.slots()) * profile.slot_memory_bytes;
        Worker {
            id: held.name(),
            path: format!("flott://{}/worker/{}", profile.data_address, held.id.0),
            data_port: port.unwrap_or(0),
            jmx_port: -1,
            // A time stamp, in spite of its name: so gives Flink it, and so its dashboard reads it.
            time_since_last_heartbeat: usage.map_or(record.registered_ms(), |usage| usage.at_ms),
            slots_number: record.slots(),
            free_slots: record.free_slots(),
            assigned_tasks: held.tasks.values().sum(),
            total_resource: Resource::of(record.slots(), profile.slot_memory_bytes),
            free_resource: Resource::of(record.free_slots(), profile.slot_memory_bytes),
            hardware: json!({
                "cpuCores": profile.cores,
                "physicalMemory": profile.memory_bytes,
                "freeMemory": usage.map_or(0, |usage| usage.value.host_free_bytes),
                "managedMemory": 0,
            }),
            memory_configuration: json!({
                "frameworkHeap": 0,
                "taskHeap": slots_bytes,
                "frameworkOffHeap": 0,
                "taskOffHeap": 0,
                "networkMemory": 0,
                "managedMemory": 0,
                "jvmMetaspace": 0,
                "jvmOverhead": 0,
                "totalFlinkMemory": slots_bytes,
                "totalProcessMemory": slots_bytes,
            }),
        }
    }
}

/// `/taskmanagers`.
pub(in crate::rest) fn workers(all: &[Held], stats: &dyn ReadStats) -> Body {
    let workers = all.iter().map(|held| Worker::of(held, stats.worker(held.id).as_ref()));
    Body::of(&json!({ "taskmanagers": workers.collect::<Vec<_>>() }))
}

/// `/taskmanagers/:taskmanagerid`.
pub(in crate::rest) fn worker(held: &Held, usage: Option<&Sample<WorkerUsage>>) -> Body {
    #[derive(Serialize)]
    struct Detail {
        #[serde(flatten)]
        worker: Worker,
        #[serde(rename = "allocatedSlots")]
        allocated_slots: Vec<Value>,
        metrics: Value,
    }
    let one = Resource::of(1, held.record.profile().slot_memory_bytes);
    let slots = held.tasks.iter().map(
        |((job, _), tasks)| json!({ "jobId": job.to_string(), "resource": one, "assignedTasks": tasks }),
    );
    let used = usage.map_or(0, |usage| usage.value.resident_bytes + usage.value.executors_resident_bytes);
    Body::of(&Detail {
        worker: Worker::of(held, usage),
        allocated_slots: slots.collect(),
        metrics: json!({
            "heapUsed": used,
            "heapCommitted": used,
            "heapMax": held.record.profile().memory_bytes,
            "nonHeapUsed": 0,
            "nonHeapCommitted": 0,
            "nonHeapMax": 0,
            "directCount": 0,
            "directUsed": 0,
            "directMax": 0,
            "mappedCount": 0,
            "mappedUsed": 0,
            "mappedMax": 0,
            "nettyShuffleMemorySegmentsAvailable": 0,
            "nettyShuffleMemorySegmentsUsed": 0,
            "nettyShuffleMemorySegmentsTotal": 0,
            "nettyShuffleMemoryAvailable": 0,
            "nettyShuffleMemoryUsed": 0,
            "nettyShuffleMemoryTotal": 0,
            "garbageCollectors": [],
        }),
    })
}
