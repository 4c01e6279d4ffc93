//! Windows at fixed places in time, put together from slices.
//!
//! A record is added to the table of one slice, however many windows share it. When a window fires, the slices it
//! ends with move into `live`, which holds for each key the slices of the window; the result of a key is then at hand
//! in constant time, amortised (see `panes`). Windows that do not overlap fire straight from the table of their only
//! slice. What is late but allowed changes what has been moved already, and makes the windows concerned fire again.
//!
//! Where the backend can give rows back, tables and `live` are caches: they forget what exceeds the budget (`room`), the misses of a run of
//! records are fetched together, and a firing goes through what is not in memory a page at a time.

mod adding;
mod drop;
mod fire;
mod late;
mod places;
mod room;
mod saved;
mod tables;

use std::collections::BTreeMap;
use std::task::Context;

use flott_schema::Result;

use self::adding::Pile;
use self::fire::Emission;
use self::places::{Place, Places};
use self::room::Room;
use self::saved::Ahead;
use self::tables::{SliceRows, Tables};
use super::assigner::Slices;
use super::beyond::{Groups, Scan};
use super::logic::SlicedLogic;
use super::marked::MarkedTable;
use super::pause::Pause;
use super::saving::Outgoing;
use super::slices::{SliceLayout, check_timestamp};
use super::trigger::Clocks;
use super::{LateRule, Window};
use crate::batch::{Batch, Record, Timestamps};
use crate::context::OperatorContext;
use crate::element::{Barrier, MAX_WATERMARK, Signal};
use crate::key::{KeySelector, hash_keys};
use crate::operator::{Collector, Operator};
use crate::stage::Flow;
use crate::state::TimeDomain;

/// The operator. `clock_ms` below is the watermark, or in processing time the last millisecond that is over.
pub(crate) struct SlicingWindows<S: KeySelector<T>, T, W, L: SlicedLogic<S::Key, T, W>> {
    selector: S,
    logic: L,
    layout: SliceLayout,
    window: fn(i64, i64) -> W,
    domain: TimeDomain,
    late: LateRule<T>,
    ctx: OperatorContext,
    hashes: Vec<u64>,
    /// Scratch: entries of a piece of a batch, or of a slice.
    found: Vec<u32>,
    tables: Tables<S::Key, L::State>,
    /// The rows of the tables in snapshots.
    rows: SliceRows<S::Key, L::State>,
    /// Slices that no window has fired with, by end.
    open: BTreeMap<i64, u32>,
    /// Slices that windows have fired with, kept for late records, by end.
    past: BTreeMap<i64, u32>,
    /// What the window that fires next has of slices that are not open any more; unused if windows do not overlap.
    live: MarkedTable<S::Key, L::Panes>,
    live_rows: Outgoing<(), S::Key, L::Panes>,
    /// Key groups of which the backend has live rows that are not in memory.
    live_stored: Groups,
    room: Room,
    /// A slice that is over, while its rows are removed from the backend.
    dropping: Option<Scan>,
    ahead: Ahead<S::Key>,
    /// Whether states of the function are still to be handed in for a snapshot.
    function_drains: bool,
    places: Places,
    clock_ms: i64,
    watermark_ms: i64,
    /// End of the last window that has fired, or would have if it held anything.
    fired_end: i64,
    emission: Option<Emission<S::Key, L::State, L::Panes>>,
    pause: Pause,
    /// Whether the last batch was out of order.
    scattered: bool,
    piles: Vec<Pile<T>>,
}

impl<S, T, W, L> SlicingWindows<S, T, W, L>
where
    S: KeySelector<T>,
    T: Record,
    W: Window,
    L: SlicedLogic<S::Key, T, W>,
{
    pub(crate) fn new(
        selector: S,
        logic: L,
        slices: Slices<W>,
        domain: TimeDomain,
        late: LateRule<T>,
        ctx: &OperatorContext,
    ) -> Self {
        // Nothing is late in processing time.
        let lateness_ms = if domain == TimeDomain::Event { late.lateness_ms } else { 0 };
        SlicingWindows {
            selector,
            logic,
            layout: slices.layout,
            window: slices.window,
            domain,
            late: LateRule { lateness_ms, ..late },
            ctx: ctx.clone(),
            hashes: Vec::new(),
            found: Vec::new(),
            tables: Tables::default(),
            rows: SliceRows::default(),
            open: BTreeMap::new(),
            past: BTreeMap::new(),
            live: MarkedTable::default(),
            live_rows: Outgoing::default(),
            live_stored: Groups::default(),
            room: Room::default(),
            dropping: None,
            ahead: Ahead::default(),
            function_drains: false,
            places: Places::default(),
            clock_ms: i64::MIN,
            watermark_ms: i64::MIN,
            fired_end: i64::MIN,
            emission: None,
            pause: Pause::default(),
            scattered: false,
            piles: Vec::new(),
        }
    }

    fn clocks(&self) -> Clocks {
        Clocks { watermark_ms: self.watermark_ms, now_ms: self.ctx.task.now_ms() }
    }

    /// When `poll` next has something to do.
    fn due_ms(&self) -> i64 {
        match self.domain {
            TimeDomain::Event => i64::MAX,
            TimeDomain::Processing if self.dropping.is_some() => i64::MIN,
            TimeDomain::Processing => self.next_window_end().unwrap_or(i64::MAX),
        }
    }

    /// What becomes of records with this time.
    #[inline]
    fn find_place(&mut self, time_ms: i64) -> Result<Place> {
        check_timestamp(time_ms)?;
        let slice = self.layout.slice_of(time_ms);
        if let Some(place) = self.places.get(&slice) {
            return Ok(place);
        }
        let place = match slice.last_window_end {
            None => Place::gap(&slice),
            Some(last) if self.late.is_over(last - 1, self.clock_ms) => Place::too_late(&slice),
            Some(last) if slice.end <= self.fired_end => Place::behind(&slice, last),
            Some(_) => {
                let tables = &mut self.tables;
                let table = *self.open.entry(slice.end).or_insert_with(|| tables.add(slice.end));
                Place::open(&slice, table)
            }
        };
        self.places.put(&slice, place);
        Ok(place)
    }
}

impl<S, T, W, L> Operator for SlicingWindows<S, T, W, L>
where
    S: KeySelector<T>,
    T: Record,
    W: Window,
    L: SlicedLogic<S::Key, T, W>,
{
    type In = T;
    type Out = L::Out;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        self.logic.open(ctx, false)?;
        self.open_state(ctx)
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        self.freeze()
    }

    fn process(&mut self, batch: Batch<T>, out: &mut Collector<L::Out>) -> Result<()> {
        hash_keys(&self.selector, &batch.records, &mut self.hashes);
        let Batch { records, timestamps } = batch;
        let count = records.len();
        match self.domain {
            TimeDomain::Event => self.add_batch(records, &timestamps, out)?,
            TimeDomain::Processing => {
                // A clock that was set back does not bring windows back.
                let now_ms = self.ctx.task.now_ms().max(self.clock_ms.saturating_add(1));
                self.add_batch(records, &Timestamps::Same(now_ms), out)?;
            }
        }
        self.keep_within_budget(count)
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<L::Out>) -> Result<Flow> {
        if signal == Signal::EndOfInput {
            self.drain(usize::MAX);
        }
        let clock_ms = match (signal, self.domain) {
            (Signal::Watermark(watermark_ms), domain) => {
                self.watermark_ms = self.watermark_ms.max(watermark_ms);
                (domain == TimeDomain::Event).then_some(watermark_ms)
            }
            // The last windows give what they have, though their time is not over.
            (Signal::EndOfInput, TimeDomain::Processing) => Some(MAX_WATERMARK),
            _ => None,
        };
        if let Some(clock_ms) = clock_ms
            && self.advance(clock_ms, out)? == Flow::Again
        {
            return Ok(Flow::Again);
        }
        out.signal(signal)
    }

    fn poll(&mut self, now_ms: i64, _cx: &mut Context<'_>, out: &mut Collector<L::Out>) -> Result<Flow> {
        self.drain_some();
        if now_ms < self.due_ms() {
            return Ok(Flow::Done);
        }
        self.advance(now_ms.saturating_sub(1), out)
    }

    fn next_deadline_ms(&self) -> i64 {
        if self.is_draining() { i64::MIN } else { self.pause.deadline_ms(self.due_ms()) }
    }

    fn close(&mut self) -> Result<()> {
        self.logic.close()
    }
}
