//! The operator that keeps asynchronous calls in flight.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::marker::PhantomData;
use std::rc::Rc;
use std::task::Context;
use std::time::Duration;

use flott_schema::{Error, Result};

use super::function::{AsyncFunction, CallTimedOut};
use super::futures::Futures;
use super::results::{Order, Place, Results};
use super::retry::RetryStrategy;
use crate::batch::{Batch, Record};
use crate::context::OperatorContext;
use crate::element::Signal;
use crate::operator::{Collector, Operator};
use crate::operators::open::OpenContext;
use crate::stage::Flow;

/// Order, limits and retries of asynchronous calls.
pub struct AsyncOptions<O> {
    order: Order,
    /// `i64::MAX` for none.
    timeout_ms: i64,
    capacity: usize,
    retry: Option<RetryStrategy<O>>,
}

impl<O> Clone for AsyncOptions<O> {
    fn clone(&self) -> Self {
        AsyncOptions { retry: self.retry.clone(), ..*self }
    }
}

impl<O> AsyncOptions<O> {
    fn new(order: Order, timeout: Duration, capacity: usize) -> Self {
        let timeout_ms = match timeout.as_millis() {
            0 if timeout.is_zero() => i64::MAX,
            ms => i64::try_from(ms).unwrap_or(i64::MAX).max(1),
        };
        AsyncOptions { order, timeout_ms, capacity, retry: None }
    }

    /// Results in the order of their records. A call with its retries may take `timeout` (zero for any time), and there
    /// are at most `capacity` calls in flight or with results that wait for those before them.
    pub fn ordered(timeout: Duration, capacity: usize) -> Self {
        Self::new(Order::Ordered, timeout, capacity)
    }

    /// Results as they come, but never across a watermark. A call with its retries may take `timeout` (zero for any
    /// time), and there are at most `capacity` calls in flight or with results that wait for a watermark.
    pub fn unordered(timeout: Duration, capacity: usize) -> Self {
        Self::new(Order::Unordered, timeout, capacity)
    }

    /// Makes failed calls again.
    pub fn with_retry(self, strategy: RetryStrategy<O>) -> Self {
        AsyncOptions { retry: Some(strategy), ..self }
    }

    /// Refuses what cannot work.
    pub fn check(&self) -> Result<()> {
        if self.capacity == 0 {
            return Err(Error::graph("asynchronous calls have a capacity of 0; at least 1 is needed"));
        }
        self.retry.as_ref().map_or(Ok(()), RetryStrategy::check)
    }
}

/// A call that has no result yet.
struct Call<I> {
    /// Tells it from other calls that had or will have its slot.
    number: u64,
    /// For retries, and for the function when the time is over.
    record: Option<I>,
    timestamp: i64,
    place: Place,
    attempt: u32,
    last_failure: Option<String>,
}

/// Runs an [`AsyncFunction`].
pub struct AsyncWait<I, O, F> {
    function: Rc<F>,
    options: AsyncOptions<O>,
    ctx: OperatorContext,
    /// The attempts being made, by slot.
    futures: Futures<Result<Vec<O>>>,
    /// By slot.
    calls: Vec<Option<Call<I>>>,
    in_flight: usize,
    /// Number of the next call.
    next: u64,
    /// Deadline, slot and number, in order.
    deadlines: VecDeque<(i64, u32, u64)>,
    /// When to retry, number and slot.
    retries: BinaryHeap<Reverse<(i64, u64, u32)>>,
    /// Records that came while there was no room: the rest of a batch.
    surplus: VecDeque<(I, i64, Place)>,
    results: Results<O>,
    /// Whether this operator blocks the task's input.
    blocked: bool,
    /// Whether there are calls that wait for their first poll.
    unpolled: bool,
    /// Attempts that have ended; kept for its memory.
    done: Vec<(u32, Result<Vec<O>>)>,
    records: PhantomData<fn(I) -> O>,
}

impl<I: Record, O: 'static, F: AsyncFunction<I, O>> AsyncWait<I, O, F> {
    /// An operator around `function`.
    pub fn new(function: F, options: AsyncOptions<O>, ctx: &OperatorContext) -> Self {
        AsyncWait {
            function: Rc::new(function),
            results: Results::new(options.order),
            options,
            ctx: ctx.clone(),
            futures: Futures::default(),
            calls: Vec::new(),
            in_flight: 0,
            next: 0,
            deadlines: VecDeque::new(),
            retries: BinaryHeap::new(),
            surplus: VecDeque::new(),
            blocked: false,
            unpolled: false,
            done: Vec::new(),
            records: PhantomData,
        }
    }

    #[cfg(test)]
    pub(super) fn deadlines_kept(&self) -> usize {
        self.deadlines.len()
    }

    fn has_room(&self) -> bool {
        self.results.calls() - self.surplus.len() < self.options.capacity
    }

    /// Makes the calls there is room for; tells whether there were any.
    fn start_surplus(&mut self, now_ms: i64) -> bool {
        let mut started = false;
        while self.has_room()
            && let Some((record, timestamp, place)) = self.surplus.pop_front()
        {
            self.start(record, timestamp, place, now_ms);
            started = true;
        }
        started
    }

    fn start(&mut self, record: I, timestamp: i64, place: Place, now_ms: i64) {
        let slot = self.futures.reserve();
        let number = self.next;
        self.next += 1;
        let keep = F::KEEPS_RECORD || self.options.retry.is_some();
        let kept = keep.then(|| record.clone());
        self.futures.start(slot, self.function.clone().invoke(record));
        if self.calls.len() <= slot as usize {
            self.calls.resize_with(slot as usize + 1, || None);
        }
        self.calls[slot as usize] =
            Some(Call { number, record: kept, timestamp, place, attempt: 1, last_failure: None });
        self.in_flight += 1;
        if self.options.timeout_ms != i64::MAX {
            // In order also when the clock is set back.
            let last_ms = self.deadlines.back().map_or(i64::MIN, |(deadline_ms, ..)| *deadline_ms);
            let deadline_ms = now_ms.saturating_add(self.options.timeout_ms).max(last_ms);
            self.deadlines.push_back((deadline_ms, slot, number));
        }
    }

    /// The call with `number`, if it still has `slot`.
    fn call(&mut self, slot: u32, number: u64) -> Option<&mut Call<I>> {
        self.calls[slot as usize].as_mut().filter(|call| call.number == number)
    }

    fn take(&mut self, slot: u32) -> Call<I> {
        self.futures.release(slot);
        self.in_flight -= 1;
        self.calls[slot as usize].take().expect("a call in flight has its slot")
    }

    /// An attempt has ended: with the call's answer, or to be made again.
    fn attempt_ended(&mut self, slot: u32, outcome: Result<Vec<O>>, now_ms: i64) -> Result<()> {
        let call = self.calls[slot as usize].as_mut().expect("an attempt belongs to a call");
        let retry = self.options.retry.as_ref();
        if let Some(delay_ms) = retry.and_then(|retry| retry.delay_ms(call.attempt, &outcome)) {
            call.attempt += 1;
            call.last_failure = outcome.err().map(|error| error.to_string());
            let due_ms = now_ms.saturating_add(delay_ms);
            self.retries.push(Reverse((due_ms, call.number, slot)));
            return Ok(());
        }
        let call = self.take(slot);
        let results = outcome.map_err(|error| {
            let attempt =
                if call.attempt > 1 { format!(" in attempt {}", call.attempt) } else { String::new() };
            error.at(format!("operator '{}': an asynchronous call failed{attempt}", self.ctx.name))
        })?;
        self.results.answer(call.place, results, call.timestamp);
        Ok(())
    }

    /// Makes the calls again whose delay is over.
    fn retry_due(&mut self, now_ms: i64) {
        while let Some(Reverse((due_ms, number, slot))) = self.retries.peek().copied() {
            let record = self.call(slot, number).map(|call| call.record.clone());
            if record.is_some() && due_ms > now_ms {
                break;
            }
            self.retries.pop();
            // Otherwise it has timed out in the meantime.
            if let Some(record) = record.flatten() {
                self.futures.start(slot, self.function.clone().invoke(record));
            }
        }
    }

    /// Ends the calls whose time is over.
    fn expire(&mut self, now_ms: i64) -> Result<()> {
        while let Some((deadline_ms, slot, number)) = self.deadlines.front().copied() {
            if self.call(slot, number).is_some() {
                if deadline_ms > now_ms {
                    break;
                }
                let call = self.take(slot);
                let timeout = CallTimedOut {
                    operator: self.ctx.name.clone(),
                    timeout_ms: self.options.timeout_ms,
                    attempt: call.attempt,
                    last_failure: call.last_failure,
                };
                let results = match call.record {
                    Some(record) => self.function.on_timeout(record, timeout)?,
                    None => return Err(timeout.into()),
                };
                self.results.answer(call.place, results, call.timestamp);
            }
            self.deadlines.pop_front();
        }
        self.forget_ended();
        Ok(())
    }

    /// Answered calls leave their deadlines behind one that is not: not without bound.
    fn forget_ended(&mut self) {
        let bound = 64 + self.in_flight * 4;
        let calls = &self.calls;
        let lives =
            |slot: u32, number: u64| calls[slot as usize].as_ref().is_some_and(|call| call.number == number);
        if self.deadlines.len() > bound {
            self.deadlines.retain(|(_, slot, number)| lives(*slot, *number));
        }
        if self.retries.len() > bound {
            self.retries.retain(|Reverse((_, number, slot))| lives(*slot, *number));
        }
    }

    /// Takes no input while there is no room for the next record.
    fn update_blocked(&mut self) {
        let blocked = !self.has_room() || !self.surplus.is_empty();
        match (self.blocked, blocked) {
            (false, true) => self.ctx.task.congestion.block_input(),
            (true, false) => self.ctx.task.congestion.unblock_input(),
            _ => {}
        }
        self.blocked = blocked;
    }
}

impl<I: Record, O: 'static, F: AsyncFunction<I, O>> Operator for AsyncWait<I, O, F> {
    type In = I;
    type Out = O;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        let function = Rc::get_mut(&mut self.function).expect("calls are made after open");
        function.open(&mut OpenContext::plain(ctx))
    }

    fn process(&mut self, batch: Batch<I>, _out: &mut Collector<O>) -> Result<()> {
        for (record, timestamp) in batch {
            let place = self.results.add();
            self.surplus.push_back((record, timestamp, place));
        }
        self.unpolled |= self.start_surplus(self.ctx.task.now_ms());
        self.update_blocked();
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<O>) -> Result<Flow> {
        if self.results.is_empty() {
            return out.signal(signal);
        }
        match signal {
            // Later records need not wait for the watermark, so their calls are made meanwhile.
            Signal::Watermark(_) | Signal::Idle(_) => {
                self.results.add_signal(signal);
                Ok(Flow::Done)
            }
            Signal::Barrier(_) | Signal::EndOfInput => Ok(Flow::Again),
        }
    }

    fn poll(&mut self, now_ms: i64, cx: &mut Context<'_>, out: &mut Collector<O>) -> Result<Flow> {
        self.unpolled = false;
        // Not in the loop: calls that fail at once and are made again at once must not keep the thread.
        self.retry_due(now_ms);
        loop {
            let mut done = std::mem::take(&mut self.done);
            self.futures.poll(cx, &mut done);
            for (slot, outcome) in done.drain(..) {
                self.attempt_ended(slot, outcome, now_ms)?;
            }
            self.done = done;
            // Behind the answers: one that is there is not too late, however long the task was held up.
            self.expire(now_ms)?;
            let flow = self.results.emit(out)?;
            if !self.start_surplus(now_ms) {
                self.update_blocked();
                return Ok(flow);
            }
        }
    }

    fn next_deadline_ms(&self) -> i64 {
        if self.unpolled {
            return i64::MIN;
        }
        let timeout_ms = self.deadlines.front().map_or(i64::MAX, |(deadline_ms, ..)| *deadline_ms);
        let retry_ms = self.retries.peek().map_or(i64::MAX, |Reverse((due_ms, ..))| *due_ms);
        timeout_ms.min(retry_ms)
    }

    fn is_blocked(&self) -> bool {
        self.blocked
    }

    fn close(&mut self) -> Result<()> {
        if std::mem::take(&mut self.blocked) {
            self.ctx.task.congestion.unblock_input();
        }
        // Drops the calls in flight before the function that they use is closed.
        self.futures = Futures::default();
        self.function.close()
    }
}
