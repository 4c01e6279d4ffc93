//! Operators that share a thread store their rows by turns.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flott_schema::Result;

use super::kit::Frozen;
use crate::layer::Layer;
use crate::memory::TaskMemory;
use crate::pipeline::{Pipeline, Store};
use crate::pool::{Pool, lock};
use crate::rows::Run;

const WAIT: Duration = Duration::from_secs(60);

/// Says which layers it gets, and takes its time over the first one.
struct Named {
    name: &'static str,
    log: Arc<Mutex<Vec<&'static str>>>,
    first: Mutex<Option<(SyncSender<()>, Receiver<()>)>>,
}

impl Store for Named {
    fn part(&self, _: &Layer, _: &[Arc<Run>]) -> Result<()> {
        Ok(())
    }

    fn apply(&self, _: &Layer) -> Result<()> {
        lock(&self.log).push(self.name);
        if let Some((begun, go_on)) = lock(&self.first).take() {
            begun.send(()).expect("the test waits for it");
            go_on.recv_timeout(WAIT).expect("the test lets it go on");
        }
        Ok(())
    }

    fn needs_all_layers(&self) -> bool {
        true
    }
}

fn hand_in(pipeline: &Arc<Pipeline>) {
    let mut sink = pipeline.late_sink(0);
    sink.rows(Box::new(Frozen(vec![(1, Some("one".into()))])));
    sink.done();
}

#[test]
fn an_operator_that_always_has_more_to_store_does_not_keep_the_thread() {
    let log = Arc::<Mutex<Vec<&'static str>>>::default();
    let pool = Arc::new(Pool::start("test", 1).unwrap());
    let pipeline = |name, first| {
        let store = Named { name, log: log.clone(), first: Mutex::new(first) };
        let memory = Arc::new(TaskMemory::new(0));
        Pipeline::new(name.into(), Arc::new(store), pool.clone(), memory, 1 << 20)
    };
    let ((begin, begun), (go, go_on)) = (sync_channel(1), sync_channel(1));
    let (busy, other) = (pipeline("busy", Some((begin, go_on))), pipeline("other", None));
    hand_in(&busy);
    begun.recv_timeout(WAIT).unwrap();
    hand_in(&busy);
    hand_in(&busy);
    hand_in(&other);
    go.send(()).unwrap();
    busy.drain();
    other.drain();
    assert_eq!(*lock(&log), ["busy", "other", "busy", "busy"]);
}
