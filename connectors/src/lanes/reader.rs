//! Makes the records of its lanes in turns, each at its own pace.

use std::task::{Context, Poll};
use std::time::Duration;

use flott_dataflow::batch::Batch;
use flott_dataflow::source::{ReadBatch, SourceReader};
use flott_schema::Result;

use super::lane::Lane;
use super::pacer::Pacer;

/// Empty stretches that one call may go over.
const EMPTY_FILLS_PER_CALL: usize = 16;

/// Makes the records of one lane.
pub trait LaneFill: 'static {
    /// What is made.
    type Record;
    /// Goes over the next `max` numbers of `lane` and appends their records, one for each or fewer. Answers how many numbers
    /// it went over; 0 means that there are no more, whatever the lane says.
    fn fill(&mut self, lane: &Lane, max: usize, batch: &mut Batch<Self::Record>) -> Result<usize>;
}

/// Opens lanes.
pub trait LaneSource: 'static {
    /// What is made.
    type Record: 'static;
    /// Makes it.
    type Fill: LaneFill<Record = Self::Record>;
    /// For one lane, from where it is.
    fn open(&self, lane: &Lane) -> Result<Self::Fill>;
}

/// How fast records are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Numbers a second, of all lanes together.
    pub per_second: f64,
    /// How much of a delay is made up for; `None` for all.
    pub backlog: Option<Duration>,
}

/// A reader of lanes. It has one usually; after a rescale to fewer readers it may have several, none of which must wait
/// for the end of another.
pub struct LaneReader<S: LaneSource> {
    source: S,
    pace: Option<Pace>,
    lanes: Vec<OpenLane<S::Fill>>,
    turn: usize,
}

struct OpenLane<F> {
    lane: Lane,
    fill: F,
    pacer: Option<Pacer>,
}

impl<S: LaneSource> LaneReader<S> {
    /// A reader without lanes.
    pub fn new(source: S, pace: Option<Pace>) -> Self {
        LaneReader { source, pace, lanes: Vec::new(), turn: 0 }
    }

    /// Lets the next lane that is due have its turn; false if none is due.
    fn take_turn(&mut self, batch: &mut Batch<S::Record>, max: usize, cx: &mut Context<'_>) -> Result<bool> {
        for _ in 0..self.lanes.len() {
            self.turn %= self.lanes.len();
            let open = &mut self.lanes[self.turn];
            let wanted = open.lane.remaining().min(max as u64);
            let count = match &mut open.pacer {
                Some(pacer) if wanted > 0 => match pacer.poll(wanted, cx) {
                    Poll::Ready(count) => count,
                    Poll::Pending => {
                        self.turn += 1;
                        continue;
                    }
                },
                _ => wanted,
            };
            let made = if count == 0 { 0 } else { open.fill.fill(&open.lane, count as usize, batch)? };
            open.lane.done += made as u64;
            if made == 0 || open.lane.remaining() == 0 {
                self.lanes.remove(self.turn);
            } else {
                self.turn += 1;
            }
            return Ok(true);
        }
        Ok(false)
    }
}

impl<S: LaneSource> SourceReader for LaneReader<S> {
    type Record = S::Record;
    type Split = Lane;

    fn add_split(&mut self, lane: Lane) -> Result<()> {
        let fill = self.source.open(&lane)?;
        let pacer = self.pace.map(|pace| Pacer::new(pace.per_second / lane.step.max(1) as f64, pace.backlog));
        self.lanes.push(OpenLane { lane, fill, pacer });
        Ok(())
    }

    fn read(&mut self, max_records: usize, cx: &mut Context<'_>) -> Result<ReadBatch<S::Record>> {
        let mut batch = Batch::default();
        for _ in 0..EMPTY_FILLS_PER_CALL {
            if self.lanes.is_empty() {
                return Ok(Poll::Ready(None));
            }
            if !self.take_turn(&mut batch, max_records.max(1), cx)? {
                return Ok(Poll::Pending);
            }
            if !batch.is_empty() {
                return Ok(Poll::Ready(Some(batch)));
            }
        }
        cx.waker().wake_by_ref();
        Ok(Poll::Pending)
    }

    fn snapshot(&self) -> Vec<Lane> {
        self.lanes.iter().map(|open| open.lane).collect()
    }
}
