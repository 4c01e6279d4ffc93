//! Asynchronous calls against a service whose answers the test decides on.

use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::oneshot;

use flott_schema::{Error, Result};

use super::*;
use crate::batch::Batch;
use crate::context::{OperatorContext, Settings, TaskContext};
use crate::element::{Barrier, Signal};
use crate::harness::{Harness, HarnessBuilder};
use crate::operator::{Collector, Operator, SideOutputs};
use crate::operators::open::OpenContext;
use crate::stage::{Flow, join_stages};

mod model;

type Answer = Result<Vec<String>>;

/// Calls that wait for the test.
#[derive(Clone, Default)]
struct Service(Arc<Mutex<Calls>>);

#[derive(Default)]
struct Calls {
    open: Vec<(u32, oneshot::Sender<Answer>)>,
    made: Vec<u32>,
    most_at_once: usize,
    closed: bool,
}

impl Service {
    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.0.lock().unwrap()
    }

    /// Answers the oldest open call for `record`.
    fn answer(&self, record: u32, answer: Answer) {
        let mut calls = self.calls();
        let at = calls.open.iter().position(|(other, _)| *other == record).expect("such a call is open");
        let (_, sender) = calls.open.remove(at);
        let _ = sender.send(answer);
    }

    fn ok(&self, record: u32) {
        self.answer(record, Ok(vec![format!("r{record}")]));
    }

    fn fail(&self, record: u32) {
        self.answer(record, Err(Error::user("service is down")));
    }

    /// The records of the calls not answered yet, cancelled ones left out.
    fn open(&self) -> Vec<u32> {
        self.calls()
            .open
            .iter()
            .filter(|(_, sender)| !sender.is_closed())
            .map(|(record, _)| *record)
            .collect()
    }

    fn made(&self) -> usize {
        self.calls().made.len()
    }
}

impl AsyncFunction<u32, String> for Service {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        assert_eq!(ctx.operator_name(), "operator under test");
        Ok(())
    }

    async fn invoke(self: Rc<Self>, record: u32) -> Answer {
        let (sender, receiver) = oneshot::channel();
        {
            let mut calls = self.calls();
            calls.open.retain(|(_, sender)| !sender.is_closed());
            calls.open.push((record, sender));
            calls.made.push(record);
            calls.most_at_once = calls.most_at_once.max(calls.open.len());
        }
        receiver.await?
    }

    fn close(&self) -> Result<()> {
        let mut calls = self.calls();
        assert!(calls.open.iter().all(|(_, sender)| sender.is_closed()), "calls are dropped before close");
        calls.closed = true;
        Ok(())
    }
}

const SECOND: Duration = Duration::from_secs(1);

type Calling = Harness<u32, (), String>;

fn calling(options: AsyncOptions<String>) -> (Calling, Service) {
    let service = Service::default();
    let function = service.clone();
    let harness = HarnessBuilder::new(Settings::default())
        .one_input(|ctx| Ok(AsyncWait::new(function, options, ctx)))
        .unwrap();
    (harness, service)
}

fn push(harness: &mut Calling, records: impl IntoIterator<Item = u32>) {
    harness.push_all(records.into_iter().map(|record| (record, i64::from(record)))).unwrap();
    harness.poll().unwrap();
}

fn answers(records: &[u32]) -> Vec<(String, i64)> {
    records.iter().map(|record| (format!("r{record}"), i64::from(*record))).collect()
}

fn blocked(harness: &Calling) -> bool {
    harness.context().task.congestion.is_input_blocked()
}

#[test]
fn ordered_results_keep_the_order_of_their_records_and_their_timestamps() {
    let (mut harness, service) = calling(AsyncOptions::ordered(SECOND, 10));
    push(&mut harness, [1, 2, 3]);
    service.ok(3);
    service.answer(2, Ok(vec![]));
    harness.poll().unwrap();
    assert_eq!(harness.take(), []);
    service.answer(1, Ok(vec!["a".into(), "b".into()]));
    harness.poll().unwrap();
    assert_eq!(harness.take(), [("a".into(), 1), ("b".into(), 1), ("r3".into(), 3)]);
}

#[test]
fn unordered_results_come_as_they_are_there_but_never_across_a_watermark() {
    let (mut harness, service) = calling(AsyncOptions::unordered(SECOND, 10));
    push(&mut harness, [1, 2]);
    harness.watermark(2).unwrap();
    push(&mut harness, [3, 4]);
    harness.watermark(4).unwrap();
    // Calls behind a watermark are made meanwhile.
    assert_eq!(service.open(), [1, 2, 3, 4]);
    service.ok(4);
    service.ok(2);
    harness.poll().unwrap();
    assert_eq!((harness.take(), harness.take_signals()), (answers(&[2]), vec![]));
    service.ok(1);
    harness.poll().unwrap();
    assert_eq!((harness.take(), harness.take_signals()), (answers(&[1, 4]), vec![Signal::Watermark(2)]));
    service.ok(3);
    harness.poll().unwrap();
    assert_eq!((harness.take(), harness.take_signals()), (answers(&[3]), vec![Signal::Watermark(4)]));
    harness.watermark(9).unwrap();
    assert_eq!(harness.take_signals(), [Signal::Watermark(9)]);
}

#[test]
fn of_waiting_watermarks_the_last_counts_and_idleness_stays_in_place() {
    let (mut harness, service) = calling(AsyncOptions::ordered(SECOND, 10));
    push(&mut harness, [1]);
    for signal in [
        Signal::Watermark(1),
        Signal::Idle(true),
        Signal::Idle(false),
        Signal::Watermark(2),
        Signal::Watermark(3),
    ] {
        harness.signal(signal).unwrap();
    }
    service.ok(1);
    harness.poll().unwrap();
    assert_eq!(harness.take_signals(), [Signal::Idle(false), Signal::Watermark(3)]);
    push(&mut harness, [2]);
    harness.watermark(4).unwrap();
    harness.signal(Signal::Idle(true)).unwrap();
    service.ok(2);
    harness.poll().unwrap();
    assert_eq!(harness.take_signals(), [Signal::Watermark(4), Signal::Idle(true)]);
}

#[test]
fn barriers_and_the_end_wait_for_all_results_before_them() {
    let (mut harness, service) = calling(AsyncOptions::unordered(SECOND, 2));
    push(&mut harness, [1, 2, 3]);
    let barrier = Signal::Barrier(Barrier::of_checkpoint(1));
    for record in [1, 2, 3] {
        assert_eq!(harness.task().signal(barrier).unwrap(), Flow::Again);
        service.ok(record);
        harness.poll().unwrap();
    }
    assert_eq!(harness.task().signal(barrier).unwrap(), Flow::Done);
    assert_eq!((harness.take(), harness.take_signals()), (answers(&[1, 2, 3]), vec![barrier]));
    push(&mut harness, [4]);
    harness.watermark(i64::MAX).unwrap();
    assert_eq!(harness.task().signal(Signal::EndOfInput).unwrap(), Flow::Again);
    service.ok(4);
    harness.signal(Signal::EndOfInput).unwrap();
    assert_eq!(harness.take(), answers(&[4]));
    assert_eq!(harness.take_signals(), [Signal::Watermark(i64::MAX), Signal::EndOfInput]);
}

#[test]
fn a_batch_beyond_the_capacity_is_kept_and_the_input_blocked_until_there_is_room() {
    let (mut harness, service) = calling(AsyncOptions::ordered(SECOND, 3));
    push(&mut harness, [1, 2]);
    assert!(!blocked(&harness));
    push(&mut harness, [3, 4, 5, 6]);
    assert_eq!(service.open(), [1, 2, 3]);
    for done in 1..=3 {
        assert!(blocked(&harness) && !harness.context().task.congestion.is_congested());
        service.ok(done);
        harness.poll().unwrap();
        assert_eq!(service.open().len(), 3);
    }
    assert_eq!(harness.take(), answers(&[1, 2, 3]));
    assert!(blocked(&harness), "three calls are in flight");
    service.ok(5);
    harness.poll().unwrap();
    assert!(blocked(&harness), "a result that waits for the one before counts");
    service.ok(4);
    harness.poll().unwrap();
    assert!(!blocked(&harness));
    assert_eq!((harness.take(), service.calls().most_at_once), (answers(&[4, 5]), 3));
}

#[test]
fn closing_releases_the_input_and_cancels_the_calls() {
    let (mut harness, service) = calling(AsyncOptions::ordered(SECOND, 1));
    push(&mut harness, [1, 2]);
    assert!(blocked(&harness));
    harness.task().close().unwrap();
    assert!(!blocked(&harness));
    assert!(service.calls().closed);
}

#[test]
fn results_wait_while_the_outputs_are_congested() {
    let (mut harness, service) = calling(AsyncOptions::unordered(SECOND, 3));
    push(&mut harness, [1, 2]);
    let congestion = harness.context().task.congestion.clone();
    congestion.block();
    service.ok(1);
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(harness.task().poll(0, &mut cx).unwrap(), Flow::Again);
    assert_eq!(harness.take(), []);
    // Answered in time, emitted late: no timeout.
    service.ok(2);
    harness.context().task.set_now_ms(5_000);
    assert_eq!(harness.task().poll(5_000, &mut cx).unwrap(), Flow::Again);
    congestion.unblock();
    harness.poll().unwrap();
    assert_eq!(harness.take(), answers(&[1, 2]));
}

#[test]
fn a_failed_call_fails_the_task_and_says_where() {
    let (mut harness, service) = calling(AsyncOptions::ordered(SECOND, 3));
    push(&mut harness, [1]);
    service.fail(1);
    assert_eq!(
        harness.poll().unwrap_err().to_string(),
        "operator 'operator under test': an asynchronous call failed: service is down"
    );
    harness.task().close().unwrap();
}

#[test]
fn a_call_that_takes_too_long_fails_the_task_and_is_cancelled() {
    let (mut harness, service) = calling(AsyncOptions::ordered(SECOND, 3));
    harness.set_time(500).unwrap();
    push(&mut harness, [1]);
    harness.set_time(700).unwrap();
    push(&mut harness, [2]);
    assert_eq!(harness.task().next_deadline_ms(), 1_500);
    service.ok(1);
    harness.set_time(1_600).unwrap();
    assert_eq!(harness.task().next_deadline_ms(), 1_700);
    assert_eq!(harness.take(), answers(&[1]));
    let error = harness.set_time(1_700).unwrap_err();
    assert_eq!(
        error.to_string(),
        "operator 'operator under test': an asynchronous call gave no result within 1000 ms, in attempt 1; raise the \
         timeout, or give a result in on_timeout()"
    );
    assert!(service.open().is_empty());
}

#[test]
fn a_function_may_answer_for_a_call_that_takes_too_long() {
    #[derive(Clone)]
    struct Patient(Service);

    impl AsyncFunction<u32, String> for Patient {
        async fn invoke(self: Rc<Self>, record: u32) -> Answer {
            Rc::new(self.0.clone()).invoke(record).await
        }

        fn on_timeout(&self, record: u32, timeout: CallTimedOut) -> Answer {
            if record == 9 { Err(timeout.into()) } else { Ok(vec![format!("late {record}")]) }
        }
    }

    let service = Service::default();
    let function = Patient(service.clone());
    let mut harness: Calling = HarnessBuilder::new(Settings::default())
        .one_input(|ctx| Ok(AsyncWait::new(function, AsyncOptions::ordered(SECOND, 2), ctx)))
        .unwrap();
    push(&mut harness, [1, 2, 3]);
    service.ok(2);
    harness.poll().unwrap();
    assert!(blocked(&harness));
    harness.set_time(1_000).unwrap();
    assert_eq!(harness.take(), [("late 1".into(), 1), ("r2".into(), 2)]);
    // The next record has its own time, from when its call was made.
    assert_eq!((service.open(), harness.task().next_deadline_ms()), (vec![3], 2_000));
    service.ok(3);
    push(&mut harness, [9]);
    assert!(harness.set_time(2_000).unwrap_err().to_string().contains("within 1000 ms"));
}

#[test]
fn failed_calls_are_made_again_after_the_delay() {
    let strategy = RetryStrategy::exponential_backoff(2, SECOND / 10, SECOND, 2.0);
    let (mut harness, service) = calling(AsyncOptions::ordered(SECOND * 10, 5).with_retry(strategy));
    push(&mut harness, [1, 2]);
    service.ok(2);
    service.fail(1);
    harness.poll().unwrap();
    assert_eq!((service.open(), harness.task().next_deadline_ms()), (vec![], 100));
    harness.set_time(99).unwrap();
    assert!(service.open().is_empty());
    harness.set_time(100).unwrap();
    assert_eq!(service.open(), [1]);
    service.fail(1);
    harness.poll().unwrap();
    assert_eq!(harness.task().next_deadline_ms(), 300);
    harness.set_time(300).unwrap();
    service.ok(1);
    harness.poll().unwrap();
    assert_eq!((harness.take(), service.made()), (answers(&[1, 2]), 4));

    push(&mut harness, [3]);
    for now_ms in [400, 600, 600] {
        service.fail(3);
        let polled = harness.poll();
        if service.made() == 7 {
            let error = polled.unwrap_err().to_string();
            assert!(error.contains("failed in attempt 3: service is down"), "{error}");
            return;
        }
        harness.set_time(now_ms).unwrap();
    }
    unreachable!("the third attempt is the last");
}

#[test]
fn results_can_be_a_reason_to_retry_and_the_last_ones_count() {
    let strategy =
        RetryStrategy::fixed_delay(1, Duration::ZERO).if_result(|results: &[String]| results.is_empty());
    let (mut harness, service) = calling(AsyncOptions::unordered(SECOND, 5).with_retry(strategy));
    push(&mut harness, [1, 2]);
    for record in [1, 2] {
        service.answer(record, Ok(vec![]));
    }
    harness.poll().unwrap();
    assert_eq!((service.made(), harness.task().next_deadline_ms()), (2, 0));
    harness.poll().unwrap();
    assert_eq!(service.open(), [1, 2]);
    service.answer(1, Ok(vec![]));
    service.ok(2);
    harness.poll().unwrap();
    assert_eq!((harness.take(), service.open()), (answers(&[2]), vec![]));
    harness.end().unwrap();
}

#[test]
fn calls_that_fail_and_are_made_again_at_once_do_not_keep_the_thread() {
    let strategy = RetryStrategy::fixed_delay(u32::MAX, Duration::ZERO);
    let function = AsyncMap::new(|_: u32| async { Err::<String, _>(Error::user("down")) });
    let mut harness: Calling = HarnessBuilder::new(Settings::default())
        .one_input(|ctx| {
            Ok(AsyncWait::new(function, AsyncOptions::ordered(SECOND, 5).with_retry(strategy), ctx))
        })
        .unwrap();
    harness.push(1, 0).unwrap();
    assert_eq!(harness.task().next_deadline_ms(), i64::MIN, "the call waits for its first poll");
    for _ in 0..10 {
        harness.poll().unwrap();
    }
    assert!(harness.set_time(1_000).unwrap_err().to_string().contains("in attempt 1"));
}

#[test]
fn errors_that_are_no_reason_to_retry_fail_at_once() {
    let strategy =
        RetryStrategy::fixed_delay(5, SECOND).if_error(|error| error.message() != "service is down");
    let (mut harness, service) = calling(AsyncOptions::unordered(SECOND, 5).with_retry(strategy));
    push(&mut harness, [1]);
    service.fail(1);
    assert!(harness.poll().is_err());
}

#[test]
fn the_timeout_spans_the_retries_and_tells_why_the_last_attempt_failed() {
    let strategy = RetryStrategy::fixed_delay(100, SECOND);
    let (mut harness, service) = calling(AsyncOptions::ordered(SECOND * 2, 5).with_retry(strategy));
    push(&mut harness, [1]);
    service.fail(1);
    harness.poll().unwrap();
    harness.set_time(1_000).unwrap();
    service.fail(1);
    harness.poll().unwrap();
    let error = harness.set_time(2_000).unwrap_err().to_string();
    assert!(
        error.contains("within 2000 ms, in attempt 3 (the one before failed: service is down)"),
        "{error}"
    );
}

#[test]
fn a_zero_timeout_is_none() {
    let (mut harness, service) = calling(AsyncOptions::ordered(Duration::ZERO, 5));
    push(&mut harness, [1]);
    assert_eq!(harness.task().next_deadline_ms(), i64::MAX);
    harness.set_time(i64::MAX - 1).unwrap();
    service.ok(1);
    harness.poll().unwrap();
    assert_eq!(harness.take(), answers(&[1]));
}

#[test]
fn answered_calls_behind_one_that_hangs_leave_nothing_behind() {
    let service = Service::default();
    let task = TaskContext::new("job", "vertex", 0, 1, 128, Settings::default());
    let ctx = OperatorContext::new(Rc::new(task), "operator under test", "op");
    let options = AsyncOptions::<String>::unordered(SECOND, 10);
    let mut operator = AsyncWait::new(service.clone(), options, &ctx);
    let mut out = Collector::new(ctx.clone(), join_stages(Vec::new()).unwrap(), SideOutputs::default());
    let mut cx = Context::from_waker(Waker::noop());
    operator.open(&ctx).unwrap();
    operator.process(Batch::of(vec![0]), &mut out).unwrap();
    for record in 1..10_000 {
        operator.process(Batch::of(vec![record]), &mut out).unwrap();
        let _ = operator.poll(0, &mut cx, &mut out).unwrap();
        service.ok(record);
        let _ = operator.poll(0, &mut cx, &mut out).unwrap();
    }
    assert_eq!(service.open(), [0]);
    assert!(operator.deadlines_kept() < 200, "{}", operator.deadlines_kept());
}

/// Polls the task as a worker does, until it has passed on `signal`.
async fn drive(harness: &mut Calling, signal: Signal) -> Result<()> {
    std::future::poll_fn(|cx| {
        let now_ms = harness.context().task.now_ms();
        while harness.task().poll(now_ms, cx)? == Flow::Again {}
        match harness.task().signal(signal)? {
            Flow::Done => Poll::Ready(Ok(())),
            Flow::Again => Poll::Pending,
        }
    })
    .await
}

#[test]
fn futures_that_wait_for_the_runtime_wake_the_task() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let function = AsyncMap::new(|record: u32| async move {
        tokio::time::sleep(Duration::from_millis(u64::from(20 - record))).await;
        Ok(format!("r{record}"))
    });
    for (options, expected) in [
        (AsyncOptions::ordered(SECOND, 4), answers(&[1, 5, 9, 13, 17])),
        (AsyncOptions::unordered(SECOND, 8), answers(&[17, 13, 9, 5, 1])),
    ] {
        let function = function.clone();
        let mut harness: Calling = HarnessBuilder::new(Settings::default())
            .one_input(|ctx| Ok(AsyncWait::new(function, options, ctx)))
            .unwrap();
        harness.push_all((1..20).step_by(4).map(|record| (record, i64::from(record)))).unwrap();
        let driven =
            async { tokio::time::timeout(SECOND * 20, drive(&mut harness, Signal::EndOfInput)).await };
        runtime.block_on(driven).expect("the task was woken").unwrap();
        assert_eq!(harness.take(), expected);
    }
}
