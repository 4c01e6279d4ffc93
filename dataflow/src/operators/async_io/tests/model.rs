//! Random sequences of records, watermarks, answers and failures: what comes out, and in what order.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use proptest::prelude::*;

use flott_schema::Result;

use super::Service;
use crate::batch::Batch;
use crate::context::{OperatorContext, Settings, TaskContext};
use crate::element::Signal;
use crate::operator::{Collector, OperatorStage, SideOutputs};
use crate::operators::async_io::{AsyncOptions, AsyncWait, RetryStrategy};
use crate::stage::{Flow, Stage};

#[derive(Clone, Debug)]
enum Step {
    Push(usize),
    Watermark,
    /// Answers one of the open calls: well, badly, or not at all until its time is over.
    Answer(usize, bool),
    Wait(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1usize..6).prop_map(Step::Push),
        2 => Just(Step::Watermark),
        6 => (0usize..64, prop::bool::weighted(0.8)).prop_map(|(call, well)| Step::Answer(call, well)),
        1 => (1i64..40).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..150)
}

/// What came out, records and watermarks in their order.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<Vec<Event>>>);

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Record(u32),
    Watermark(i64),
    End,
}

impl Stage<Batch<String>> for Log {
    fn open(&mut self) -> Result<()> {
        Ok(())
    }

    fn push(&mut self, batch: Batch<String>) -> Result<()> {
        self.0
            .borrow_mut()
            .extend(batch.records.iter().map(|text| Event::Record(text[1..].parse().unwrap())));
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<Flow> {
        self.0.borrow_mut().push(match signal {
            Signal::Watermark(watermark) => Event::Watermark(watermark),
            _ => Event::End,
        });
        Ok(Flow::Done)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>) -> Result<Flow> {
        Ok(Flow::Done)
    }

    fn next_deadline_ms(&self) -> i64 {
        i64::MAX
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The operator in front of a log.
struct Logged {
    stage: OperatorStage<AsyncWait<u32, String, Service>>,
    ctx: OperatorContext,
    service: Service,
    log: Log,
    pushed: u32,
}

impl Logged {
    fn new(options: AsyncOptions<String>) -> Self {
        let task = TaskContext::new("job", "vertex", 0, 1, 128, Settings::default());
        let ctx = OperatorContext::new(Rc::new(task), "operator under test", "op");
        let (service, log) = (Service::default(), Log::default());
        let out = Collector::new(ctx.clone(), Box::new(log.clone()), SideOutputs::default());
        let mut stage = OperatorStage::new(AsyncWait::new(service.clone(), options, &ctx), out);
        stage.open().unwrap();
        Logged { stage, ctx, service, log, pushed: 0 }
    }

    fn poll(&mut self, later_ms: i64) {
        let now_ms = self.ctx.task.now_ms() + later_ms;
        self.ctx.task.set_now_ms(now_ms);
        assert_eq!(self.stage.poll(now_ms, &mut Context::from_waker(Waker::noop())).unwrap(), Flow::Done);
    }

    fn is_blocked(&self) -> bool {
        self.ctx.task.congestion.is_input_blocked()
    }

    /// The watermark says how many records came before it.
    fn watermark(&mut self) {
        assert_eq!(self.stage.signal(Signal::Watermark(i64::from(self.pushed))).unwrap(), Flow::Done);
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Push(count) if !self.is_blocked() => {
                let end = self.pushed + count as u32;
                self.stage.push(Batch::of((self.pushed..end).collect())).unwrap();
                self.pushed = end;
                self.poll(0);
            }
            Step::Push(_) => {}
            Step::Watermark => self.watermark(),
            Step::Wait(ms) => self.poll(ms),
            Step::Answer(call, well) => {
                let open = self.service.open();
                if let Some(record) = open.get(call % open.len().max(1)) {
                    if well {
                        self.service.ok(*record)
                    } else {
                        self.service.fail(*record)
                    }
                    self.poll(0);
                }
            }
        }
    }

    fn end(&mut self) {
        self.watermark();
        while self.stage.signal(Signal::EndOfInput).unwrap() == Flow::Again {
            assert!(!self.service.open().is_empty() || self.stage.next_deadline_ms() < i64::MAX);
            self.service.open().into_iter().for_each(|record| self.service.ok(record));
            self.poll(10);
        }
    }
}

proptest! {
    #[test]
    fn every_record_is_answered_once_and_none_crosses_a_watermark(
        ordered: bool,
        capacity in 1usize..7,
        steps in steps(),
    ) {
        let make = if ordered { AsyncOptions::ordered } else { AsyncOptions::unordered };
        let strategy = RetryStrategy::fixed_delay(u32::MAX, Duration::from_millis(10));
        let mut logged = Logged::new(make(Duration::ZERO, capacity).with_retry(strategy));
        for step in steps {
            logged.run(step);
            prop_assert!(logged.service.open().len() <= capacity);
        }
        logged.end();
        let mut seen = Vec::new();
        for event in logged.log.0.take() {
            match event {
                Event::Record(record) => seen.push(record),
                Event::Watermark(watermark) => {
                    prop_assert_eq!(seen.len() as i64, watermark);
                    prop_assert!(seen.iter().all(|record| i64::from(*record) < watermark));
                }
                Event::End => prop_assert_eq!(seen.len(), logged.pushed as usize),
            }
        }
        prop_assert!(!ordered || seen.is_sorted());
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..logged.pushed).collect::<Vec<_>>());
        prop_assert!(logged.service.calls().most_at_once <= capacity);
        prop_assert!(!logged.is_blocked());
    }
}
