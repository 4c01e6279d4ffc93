//! Assigns timestamps and watermarks.

use std::task::Context;

use flott_schema::Result;

use crate::batch::{Batch, NO_TIMESTAMP, Timestamps};
use crate::context::OperatorContext;
use crate::element::{MAX_WATERMARK, Signal};
use crate::key::stable_hash;
use crate::operator::{Collector, Operator};
use crate::stage::Flow;
use crate::time::{Alignment, TimestampAssigner, WatermarkGenerator, WatermarkStrategy};

/// Runs a [`WatermarkStrategy`]. Watermarks come at the watermark interval under load, and within a millisecond when
/// the task goes idle: low latency without load, few watermarks under load. Watermarks from upstream are dropped
/// except the final one. In batch execution there are none before the end.
pub struct AssignWatermarks<T> {
    ctx: OperatorContext,
    assigner: Option<Box<dyn TimestampAssigner<T>>>,
    generator: Box<dyn WatermarkGenerator<T>>,
    /// The largest timestamp, for generators bounded by it.
    largest: i64,
    /// The largest watermark that records asked for themselves.
    punctuated: i64,
    emitted: i64,
    emitted_at_ms: i64,
    due_ms: i64,
    /// A watermark that the outputs had no room for yet.
    pending: Option<i64>,
    idleness: Option<Idleness>,
    alignment: Option<Aligned>,
}

struct Idleness {
    timeout_ms: i64,
    last_record_ms: i64,
    idle: bool,
}

struct Aligned {
    settings: Alignment,
    member: u64,
    due_ms: i64,
    paused: bool,
}

impl<T: 'static> AssignWatermarks<T> {
    /// An operator running `strategy`.
    pub fn new(strategy: &WatermarkStrategy<T>, ctx: &OperatorContext) -> Self {
        let streaming = !ctx.task.is_batch();
        let now_ms = ctx.task.now_ms();
        AssignWatermarks {
            ctx: ctx.clone(),
            assigner: strategy.assigner(),
            generator: strategy.generator(),
            largest: NO_TIMESTAMP,
            punctuated: i64::MIN,
            emitted: i64::MIN,
            emitted_at_ms: i64::MIN,
            due_ms: i64::MAX,
            pending: None,
            idleness: strategy.idleness_ms.filter(|_| streaming).map(|timeout_ms| Idleness {
                timeout_ms,
                last_record_ms: now_ms,
                idle: false,
            }),
            alignment: strategy.alignment.clone().filter(|_| streaming).map(|settings| Aligned {
                settings,
                member: stable_hash(&(&*ctx.uid, ctx.task.subtask)),
                due_ms: i64::MIN,
                paused: false,
            }),
        }
    }

    fn assign(&mut self, batch: &mut Batch<T>) {
        if let Some(assigner) = &mut self.assigner {
            let mut timestamps = Timestamps::Each(Vec::with_capacity(batch.len()));
            for (index, record) in batch.records.iter().enumerate() {
                timestamps.push(index, assigner.timestamp(record, batch.timestamps.get(index)));
            }
            batch.timestamps = timestamps;
        }
        if self.generator.bounded_by().is_some() {
            self.largest = self.largest.max(batch.timestamps.max(batch.len()).unwrap_or(NO_TIMESTAMP));
            return;
        }
        for (record, timestamp) in batch.iter() {
            if let Some(watermark) = self.generator.on_event(record, timestamp) {
                self.punctuated = self.punctuated.max(watermark);
            }
        }
    }

    fn current(&mut self) -> i64 {
        let periodic = match self.generator.bounded_by() {
            Some(_) if self.largest == NO_TIMESTAMP => None,
            Some(bound) => Some(self.largest.saturating_sub(bound).saturating_sub(1)),
            None => self.generator.on_periodic(),
        };
        periodic.unwrap_or(i64::MIN).max(self.punctuated)
    }

    /// Compares watermarks with the group and pauses the source if it is too far ahead.
    fn align(&mut self, now_ms: i64) {
        let watermark = self.current();
        let Some(aligned) = &mut self.alignment else { return };
        if now_ms < aligned.due_ms {
            return;
        }
        aligned.due_ms = now_ms.saturating_add(aligned.settings.update_interval_ms);
        let idle = self.idleness.as_ref().is_some_and(|idleness| idleness.idle);
        let known = (watermark > i64::MIN && !idle).then_some(watermark);
        let lowest = self.ctx.task.alignment.report(&aligned.settings.group, aligned.member, known);
        let ahead = match (known, lowest) {
            (Some(own), Some(lowest)) => own.saturating_sub(lowest) > aligned.settings.max_drift_ms,
            _ => false,
        };
        if ahead != aligned.paused {
            aligned.paused = ahead;
            let congestion = &self.ctx.task.congestion;
            if ahead { congestion.block_input() } else { congestion.unblock_input() }
        }
    }

    fn leave_alignment(&mut self) {
        if let Some(aligned) = self.alignment.take() {
            self.ctx.task.alignment.report(&aligned.settings.group, aligned.member, None);
            if aligned.paused {
                self.ctx.task.congestion.unblock_input();
            }
        }
    }

    fn check_idle(&mut self, now_ms: i64, out: &mut Collector<T>) -> Result<()> {
        let Some(idleness) = &mut self.idleness else { return Ok(()) };
        // A task that is held back by its outputs or by alignment is not idle: its clock stands still.
        if self.ctx.task.congestion.is_input_blocked() {
            idleness.last_record_ms = now_ms;
        }
        if !idleness.idle && now_ms >= idleness.last_record_ms.saturating_add(idleness.timeout_ms) {
            idleness.idle = true;
            // Status signals are always taken.
            let _ = out.signal(Signal::Idle(true))?;
        }
        Ok(())
    }
}

impl<T: 'static> Operator for AssignWatermarks<T> {
    type In = T;
    type Out = T;

    fn process(&mut self, mut batch: Batch<T>, out: &mut Collector<T>) -> Result<()> {
        let now_ms = self.ctx.task.now_ms();
        self.assign(&mut batch);
        if let Some(idleness) = &mut self.idleness {
            idleness.last_record_ms = now_ms;
            if std::mem::take(&mut idleness.idle) {
                let _ = out.signal(Signal::Idle(false))?;
            }
        }
        out.push_batch(batch)?;
        if !self.ctx.task.is_batch() {
            if self.punctuated > self.emitted {
                self.due_ms = now_ms;
            } else if self.due_ms == i64::MAX && self.ctx.task.settings.watermark_interval_ms > 0 {
                self.due_ms = now_ms.saturating_add(self.ctx.task.settings.watermark_interval_ms);
            }
        }
        Ok(())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<T>) -> Result<Flow> {
        match signal {
            Signal::Watermark(MAX_WATERMARK) => {
                self.leave_alignment();
                self.due_ms = i64::MAX;
                self.pending = None;
                out.signal(signal)
            }
            Signal::Watermark(_) => Ok(Flow::Done),
            _ => out.signal(signal),
        }
    }

    fn flush(&mut self, _out: &mut Collector<T>) -> Result<()> {
        if self.due_ms != i64::MAX {
            self.due_ms = self.due_ms.min(self.emitted_at_ms.saturating_add(1));
        }
        Ok(())
    }

    fn poll(&mut self, now_ms: i64, _cx: &mut Context<'_>, out: &mut Collector<T>) -> Result<Flow> {
        self.check_idle(now_ms, out)?;
        self.align(now_ms);
        if now_ms >= self.due_ms {
            self.due_ms = i64::MAX;
            let watermark = self.current();
            if watermark > self.emitted {
                self.emitted = watermark;
                self.emitted_at_ms = now_ms;
                self.pending = Some(watermark);
            }
        }
        if let Some(watermark) = self.pending {
            if out.signal(Signal::Watermark(watermark))? == Flow::Again {
                return Ok(Flow::Again);
            }
            self.pending = None;
        }
        Ok(Flow::Done)
    }

    fn next_deadline_ms(&self) -> i64 {
        let idle = match &self.idleness {
            Some(idleness) if !idleness.idle => idleness.last_record_ms.saturating_add(idleness.timeout_ms),
            _ => i64::MAX,
        };
        let aligned = self.alignment.as_ref().map_or(i64::MAX, |aligned| aligned.due_ms);
        self.due_ms.min(idle).min(aligned)
    }

    fn close(&mut self) -> Result<()> {
        self.leave_alignment();
        Ok(())
    }
}
