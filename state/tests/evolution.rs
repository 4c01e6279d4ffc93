//! Keyed state whose types have changed between a snapshot and the start from it, over both backends.

use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use flott_dataflow::batch::Record;
use flott_dataflow::context::Settings;
use flott_dataflow::harness::{Harness, HarnessBuilder};
use flott_dataflow::key::ByRef;
use flott_dataflow::operators::keyed_process::{KeyedContext, KeyedProcess, KeyedProcessFunction};
use flott_dataflow::operators::open::OpenContext;
use flott_dataflow::state::{ListState, MapState, ValueState};
use flott_schema::Result;
use flott_schema::ids::{AttemptId, JobId, OperatorId, TaskId, VertexId};
use flott_schema::snapshot::{
    Barrier, Manifest, ManifestOperator, ManifestVertex, RestoreFrom, TaskSnapshot,
};
use flott_state::{
    Backend, SnapshotTarget, StateOptions, StateService, TaskBackend, TaskExtras, TaskIdentity,
};
use flott_storage::{Storage, manifest};

const KEY_GROUPS: u32 = 16;
/// The harness calls its operator so.
const UID: &str = "test";

/// Key, and what is put into its states: nothing, if they are to be told.
type Order = (String, Option<u32>);

/// What it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Visit {
    page: u8,
    referrer: String,
    count: u32,
}

/// What it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct VisitNow {
    count: i64,
    page: Option<u16>,
    labels: Vec<String>,
}

/// What it cannot be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct VisitNever {
    count: u8,
}

trait Held: Record + Debug {
    fn of(number: u32) -> Self;
}

impl Held for Visit {
    fn of(number: u32) -> Self {
        Visit { page: number as u8, referrer: "from".repeat(number as usize % 3), count: number }
    }
}

impl Held for VisitNow {
    fn of(number: u32) -> Self {
        VisitNow { count: number.into(), page: Some(number as u8 as u16), labels: Vec::new() }
    }
}

impl Held for VisitNever {
    fn of(number: u32) -> Self {
        VisitNever { count: number as u8 }
    }
}

#[derive(Clone)]
struct States<V> {
    value: ValueState<V>,
    list: ListState<V>,
    map: MapState<u8, V>,
}

impl<V> Default for States<V> {
    fn default() -> Self {
        let (value, list, map) = Default::default();
        States { value, list, map }
    }
}

impl<V: Held> KeyedProcessFunction<String, Order, String> for States<V> {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        self.value = ctx.value_state("value")?;
        self.list = ctx.list_state("list")?;
        self.map = ctx.map_state("map")?;
        Ok(())
    }

    fn process(&mut self, (key, put): Order, ctx: &mut KeyedContext<'_, String, String>) -> Result<()> {
        if let Some(number) = put {
            self.value.set(ctx, V::of(number));
            self.list.add(ctx, V::of(number));
            self.map.put(ctx, number as u8 % 4, V::of(number));
            return Ok(());
        }
        let mut map: Vec<String> =
            self.map.iter(ctx).map(|(key, value)| format!("{key} {value:?}")).collect();
        map.sort();
        let list: Vec<String> = self.list.iter(ctx).map(|value| format!("{value:?}")).collect();
        let value = self.value.get(ctx).map(|value| format!("{value:?}"));
        ctx.collect(format!("{key}: {value:?} {list:?} {map:?}"));
        Ok(())
    }
}

type Op = Harness<Order, (), String>;

fn open<V: Held>(
    service: &Arc<StateService>,
    attempt: u32,
    from: Option<&RestoreFrom>,
) -> Result<(Rc<TaskBackend>, Op)> {
    let identity = TaskIdentity {
        job: JobId(1),
        attempt: AttemptId { task: TaskId { vertex: VertexId(2), subtask: 0 }, job_epoch: 1, attempt },
        parallelism: 1,
        max_parallelism: KEY_GROUPS,
        operators: vec![OperatorId::of_uid(UID)],
        memory_bytes: 0,
        cancelled: Arc::default(),
    };
    let backend = TaskBackend::open(service, identity, from)?;
    let builder = HarnessBuilder::with_task_state(Settings::default(), backend.clone(), (0, 1, KEY_GROUPS));
    let key: ByRef<fn(&Order) -> &String, String> = ByRef::new(|order: &Order| &order.0);
    let task = builder.one_input(|ctx| Ok(KeyedProcess::new(key, States::<V>::default(), ctx)))?;
    Ok((backend, task))
}

fn snapshot(backend: &TaskBackend, task: &mut Op, folder: &str) -> RestoreFrom {
    backend.begin(&Barrier::of_checkpoint(1)).unwrap();
    task.barrier(1).unwrap();
    let (send, part) = sync_channel(1);
    let target = SnapshotTarget { folder: folder.into(), shared_folder: None };
    backend.passed(1, false);
    backend.end(1, target, TaskExtras::default(), Box::new(move |result| send.send(result).unwrap()));
    let part: TaskSnapshot = loop {
        task.poll().unwrap();
        if let Ok(part) = part.recv_timeout(Duration::from_millis(1)) {
            break part.unwrap();
        }
    };
    let operator = ManifestOperator { operator: OperatorId::of_uid(UID), uid: UID.into(), name: UID.into() };
    let vertex = ManifestVertex {
        vertex: VertexId(2),
        name: "vertex".into(),
        parallelism: 1,
        max_parallelism: KEY_GROUPS,
        operators: vec![operator],
    };
    let whole = Manifest {
        job: JobId(1),
        job_name: "job".into(),
        checkpoint: 1,
        kind: Barrier::of_checkpoint(1).kind,
        timestamp_ms: 0,
        vertices: vec![vertex],
        tasks: vec![part],
    };
    manifest::write(&Storage::open(folder).unwrap(), &whole).unwrap();
    RestoreFrom { folder: folder.into(), checkpoint: 1, ignore_unclaimed: false, own: true }
}

#[test]
fn values_entries_and_elements_become_what_their_type_has_become() {
    for backend in [Backend::HashMap, Backend::RocksDb] {
        let directory = tempfile::tempdir().unwrap();
        let options = StateOptions { backend, ..StateOptions::new(directory.path().join("work")) };
        let service = StateService::start(options).unwrap();
        let orders = |numbers: u32| {
            (0..numbers)
                .map(|number| ((format!("key {}", number % 40), Some(number * 37)), 0))
                .collect::<Vec<_>>()
        };
        let (kept, mut task) = open::<Visit>(&service, 0, None).unwrap();
        task.push_all(orders(300)).unwrap();
        let folder = directory.path().join("chk-1").to_string_lossy().into_owned();
        let from = snapshot(&kept, &mut task, &folder);

        // The same as if it had been of the new type all the time.
        let (_, mut alone) = open::<VisitNow>(&service, 1, None).unwrap();
        alone.push_all(orders(300)).unwrap();
        let (_now, mut task) = open::<VisitNow>(&service, 2, Some(&from)).unwrap();
        let ask = |task: &mut Op| {
            task.push_all((0..41).map(|key| ((format!("key {key}"), None), 0))).unwrap();
            task.take_records()
        };
        let expected = ask(&mut alone);
        assert!(expected[0].contains("page: Some("), "{expected:?}");
        assert_eq!(ask(&mut task), expected, "{backend:?}");

        let error = open::<VisitNever>(&service, 3, Some(&from)).err().unwrap().to_string();
        for part in
            ["operator 'test'", "'0.count' was u32, and values of that type cannot become u8", "another name"]
        {
            assert!(error.contains(part), "{error}");
        }
    }
}
