//! A barrier that something in a chain keeps waiting.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use super::*;
use crate::context::{Settings, TaskContext};
use crate::snapshot::AfterBarrier;

/// Emits a record whenever it is polled, and notes snapshots.
struct Ticking(Rc<Cell<u32>>);

impl Operator for Ticking {
    type In = u32;
    type Out = u32;

    fn process(&mut self, _batch: Batch<u32>, _out: &mut Collector<u32>) -> Result<()> {
        Ok(())
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        self.0.set(self.0.get() + 1);
        Ok(())
    }

    fn poll(&mut self, now_ms: i64, _cx: &mut Context<'_>, out: &mut Collector<u32>) -> Result<Flow> {
        out.collect(now_ms as u32);
        Ok(Flow::Done)
    }

    fn flush(&mut self, out: &mut Collector<u32>) -> Result<()> {
        out.collect(100);
        Ok(())
    }

    fn next_deadline_ms(&self) -> i64 {
        0
    }
}

/// Lets barriers wait as long as it is told to.
#[derive(Default)]
struct Waiting {
    waits: bool,
    polls: u32,
    records: Vec<u32>,
    barriers: u32,
}

struct Sink(Rc<RefCell<Waiting>>);

impl Stage<Batch<u32>> for Sink {
    fn open(&mut self) -> Result<()> {
        Ok(())
    }

    fn push(&mut self, batch: Batch<u32>) -> Result<()> {
        self.0.borrow_mut().records.extend(batch.records);
        Ok(())
    }

    fn signal(&mut self, _signal: Signal) -> Result<Flow> {
        let mut waiting = self.0.borrow_mut();
        if waiting.waits {
            return Ok(Flow::Again);
        }
        waiting.barriers += 1;
        Ok(Flow::Done)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>) -> Result<Flow> {
        self.0.borrow_mut().polls += 1;
        Ok(Flow::Done)
    }

    fn next_deadline_ms(&self) -> i64 {
        i64::MAX
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_that_time_makes_due_goes_ahead_of_a_barrier_behind_which_its_state_was_handed_in() {
    let task = TaskContext::new("job", "vertex", 0, 1, 128, Settings::default());
    let ctx = OperatorContext::new(Rc::new(task), "ticking", "ticking");
    let (waiting, snapshots) = (Rc::<RefCell<Waiting>>::default(), Rc::<Cell<u32>>::default());
    let out = Collector::new(ctx, Box::new(Sink(waiting.clone())), SideOutputs::default());
    let mut stage = OperatorStage::new(Ticking(snapshots.clone()), out);
    let barrier = Signal::Barrier(Barrier { after: AfterBarrier::GoOn, ..Barrier::of_checkpoint(1) });
    let cx = &mut Context::from_waker(Waker::noop());
    let _ = stage.poll(1, cx).unwrap();
    assert_eq!(stage.next_deadline_ms(), 0);
    waiting.borrow_mut().waits = true;
    for _ in 0..3 {
        assert_eq!(stage.signal(barrier).unwrap(), Flow::Again);
        assert_eq!(stage.poll(2, cx).unwrap(), Flow::Done);
        stage.flush().unwrap();
        assert_eq!(stage.next_deadline_ms(), i64::MAX, "a task that waits is not kept busy");
    }
    assert_eq!((snapshots.get(), waiting.borrow().records.clone()), (1, vec![1]));
    assert!(waiting.borrow().polls >= 3, "who keeps it waiting is polled");
    waiting.borrow_mut().waits = false;
    assert_eq!(stage.signal(barrier).unwrap(), Flow::Done);
    let _ = stage.poll(3, cx).unwrap();
    stage.flush().unwrap();
    assert_eq!((waiting.borrow().records.clone(), waiting.borrow().barriers), (vec![1, 3, 100], 1));
}
