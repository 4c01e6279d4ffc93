//! Results on their way out: in the order of the records or as they come, and never across a signal.

use std::collections::VecDeque;

use flott_schema::Result;

use crate::element::Signal;
use crate::operator::Collector;
use crate::stage::Flow;

/// Whether results keep the order of their records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Ordered,
    Unordered,
}

/// The results of one call, with the timestamp of its record.
struct Answer<O> {
    results: Vec<O>,
    timestamp: i64,
}

impl<O: 'static> Answer<O> {
    fn emit(self, out: &mut Collector<O>) {
        self.results.into_iter().for_each(|result| out.collect_at(result, self.timestamp));
    }
}

/// Watermark and idleness that wait for the results before them. Of each kind only the last is of use, so this is
/// bounded without bounding how many may come.
#[derive(Clone, Copy, Default)]
struct Waiting {
    watermark: Option<i64>,
    idle: Option<bool>,
}

impl Waiting {
    fn add(&mut self, signal: Signal) {
        match signal {
            Signal::Watermark(watermark) => self.watermark = Some(watermark),
            Signal::Idle(idle) => self.idle = Some(idle),
            Signal::Barrier(_) | Signal::EndOfInput => unreachable!("these wait in front of the operator"),
        }
    }

    fn is_empty(&self) -> bool {
        self.watermark.is_none() && self.idle.is_none()
    }

    /// A watermark counts only on a channel that is not idle: so activity goes before it, idleness behind.
    fn emit<O: 'static>(&mut self, out: &mut Collector<O>) -> Result<Flow> {
        for turn in [Some(false), None, Some(true)] {
            let signal = match (turn, self.watermark) {
                (Some(idle), _) if self.idle == turn => Signal::Idle(idle),
                (None, Some(watermark)) => Signal::Watermark(watermark),
                _ => continue,
            };
            if out.signal(signal)? == Flow::Again {
                return Ok(Flow::Again);
            }
            match signal {
                Signal::Watermark(_) => self.watermark = None,
                _ => self.idle = None,
            }
        }
        Ok(Flow::Done)
    }
}

/// The calls between two signals.
struct Segment<O> {
    /// Calls whose answers are missing.
    missing: usize,
    /// In order: one place a call. Else: the answers that are there.
    answers: VecDeque<Option<Answer<O>>>,
    /// In order: number of the first place.
    first: u64,
    /// What follows.
    then: Waiting,
}

/// A call's place among the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    segment: u64,
    index: u64,
}

/// Answers and signals in the order they may leave.
pub(super) struct Results<O> {
    order: Order,
    segments: VecDeque<Segment<O>>,
    /// Number of the first segment.
    first: u64,
    /// Calls not emitted yet.
    calls: usize,
}

impl<O: 'static> Results<O> {
    pub fn new(order: Order) -> Self {
        Results { order, segments: VecDeque::new(), first: 0, calls: 0 }
    }

    /// Calls whose answers were not emitted yet.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Whether neither answers nor signals are left.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// A place for the next call.
    pub fn add(&mut self) -> Place {
        if self.segments.back().is_none_or(|segment| !segment.then.is_empty()) {
            let (answers, then) = (VecDeque::new(), Waiting::default());
            self.segments.push_back(Segment { missing: 0, answers, first: 0, then });
        }
        let number = self.first + self.segments.len() as u64 - 1;
        let segment = self.segments.back_mut().expect("there is one, pushed above if not before");
        let index = segment.first + segment.answers.len() as u64;
        segment.missing += 1;
        self.calls += 1;
        if self.order == Order::Ordered {
            segment.answers.push_back(None);
        }
        Place { segment: number, index }
    }

    /// A signal that must not overtake the calls before it; only if there are any.
    pub fn add_signal(&mut self, signal: Signal) {
        self.segments.back_mut().expect("there are calls before it").then.add(signal);
    }

    /// The answer of a call.
    pub fn answer(&mut self, place: Place, results: Vec<O>, timestamp: i64) {
        let segment = &mut self.segments[(place.segment - self.first) as usize];
        let answer = Some(Answer { results, timestamp });
        segment.missing -= 1;
        match self.order {
            Order::Ordered => segment.answers[(place.index - segment.first) as usize] = answer,
            Order::Unordered => segment.answers.push_back(answer),
        }
    }

    /// Emits what may leave; [`Flow::Again`] if the outputs have no room for all of it.
    pub fn emit(&mut self, out: &mut Collector<O>) -> Result<Flow> {
        while let Some(segment) = self.segments.front_mut() {
            while let Some(Some(_)) = segment.answers.front() {
                if out.is_congested() {
                    return Ok(Flow::Again);
                }
                if let Some(answer) = segment.answers.pop_front().flatten() {
                    segment.first += 1;
                    self.calls -= 1;
                    answer.emit(out);
                }
            }
            if segment.missing > 0 {
                break;
            }
            if segment.then.emit(out)? == Flow::Again {
                return Ok(Flow::Again);
            }
            self.segments.pop_front();
            self.first += 1;
        }
        Ok(Flow::Done)
    }
}
