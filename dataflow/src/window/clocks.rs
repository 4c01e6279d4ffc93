//! How far the clocks of a window operator had come, in snapshots.
//!
//! The tasks of an operator need not have come equally far, and rows may be restored in another task than the one that wrote them. So each
//! task says how far it was, for which key groups; whether a window has fired is then known for each restored row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use flott_schema::Result;

use crate::codec::{decode_value, encode_value};
use crate::context::OperatorContext;
use crate::element::MAX_WATERMARK;
use crate::snapshot::ListMode;

/// Name of the list state; frozen.
const CLOCKS: &str = "clocks";

/// How far a task was; frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedClock {
    /// Its key groups: the first, and the one behind the last.
    key_groups: (u32, u32),
    progress: Progress,
}

/// How far a task has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The watermark.
    pub watermark_ms: i64,
    /// What the clock of the windows has come to, with all that was due done.
    pub clock_ms: i64,
    /// End of the last window that has fired for all keys; where windows lie at fixed places.
    pub fired_end: i64,
}

impl Progress {
    /// The beginning of time.
    pub(crate) const NONE: Self =
        Progress { watermark_ms: i64::MIN, clock_ms: i64::MIN, fired_end: i64::MIN };

    /// A job that was drained, and starts again nevertheless, begins with a new event time.
    fn as_saved(self) -> Self {
        match self {
            Progress { clock_ms: MAX_WATERMARK, .. } => Progress::NONE,
            Progress { watermark_ms: MAX_WATERMARK, .. } => Progress { watermark_ms: i64::MIN, ..self },
            _ => self,
        }
    }
}

/// How far the tasks were that wrote the snapshot.
#[derive(Clone, Default)]
pub(crate) struct SavedClocks(Vec<SavedClock>);

impl SavedClocks {
    /// From the snapshot that the operator starts from.
    pub(crate) fn load(ctx: &OperatorContext) -> Result<Self> {
        let Some(state) = &ctx.state else { return Ok(SavedClocks(Vec::new())) };
        let items = state.list(CLOCKS)?;
        items.iter().map(|item| decode_value(item)).collect::<Result<_>>().map(SavedClocks)
    }

    /// How far all tasks were.
    pub(crate) fn least(&self) -> Progress {
        let least = |time: fn(&Progress) -> i64| {
            self.0.iter().map(|saved| time(&saved.progress)).min().unwrap_or(i64::MIN)
        };
        Progress {
            watermark_ms: least(|progress| progress.watermark_ms),
            clock_ms: least(|progress| progress.clock_ms),
            fired_end: least(|progress| progress.fired_end),
        }
    }

    /// How far the task was that had a key group.
    pub(super) fn of_group(&self, group: u32) -> Progress {
        let saved = self.0.iter().find(|saved| (saved.key_groups.0..saved.key_groups.1).contains(&group));
        saved.map_or(Progress::NONE, |saved| saved.progress)
    }
}

/// Hands in how far this task is.
pub(crate) fn save(ctx: &OperatorContext, progress: Progress) -> Result<()> {
    save_further(ctx, progress, &BTreeMap::new())
}

/// Hands in how far this task is; for some key groups, windows up to these ends have fired though they have not for the others.
pub(crate) fn save_further(
    ctx: &OperatorContext,
    progress: Progress,
    further: &BTreeMap<u16, i64>,
) -> Result<()> {
    let Some(state) = &ctx.state else { return Ok(()) };
    let groups = ctx.task.key_groups();
    let mut clocks: Vec<SavedClock> = Vec::new();
    for group in groups.start..groups.end {
        let further_end = further.get(&(group as u16)).copied().unwrap_or(i64::MIN);
        let progress = Progress { fired_end: progress.fired_end.max(further_end), ..progress }.as_saved();
        match clocks.last_mut() {
            Some(last) if last.progress == progress => last.key_groups.1 = group + 1,
            _ => clocks.push(SavedClock { key_groups: (group, group + 1), progress }),
        }
    }
    let items: Result<Vec<Vec<u8>>> = clocks
        .iter()
        .map(|clock| {
            let mut item = Vec::new();
            encode_value(clock, &mut item)?;
            Ok(item)
        })
        .collect();
    state.set_list(CLOCKS, ListMode::Union, "", items?)
}
