//! What the sinks have noted, and what follows from it.

use std::collections::BTreeMap;
use std::path::Path;

use crate::Result;
use crate::job::LANES;

/// Something came out.
#[derive(Clone, Copy, Debug)]
pub struct Note {
    pub at_ms: i64,
    pub lane: u32,
    pub records: u64,
    /// How late the latest record was; negative while keys are read in.
    pub late_ms: i64,
}

/// All notes, by time.
pub fn read(folder: &Path) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(notes) };
    for entry in entries {
        let text = std::fs::read_to_string(entry?.path())?;
        // A sink that was killed may have left half a line.
        notes.extend(text.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(note));
    }
    notes.sort_by_key(|note| note.at_ms);
    Ok(notes)
}

fn note(line: &str) -> Option<Note> {
    let mut numbers = line.split_whitespace().map(|number| number.parse::<i64>().ok());
    let mut next = || numbers.next().flatten();
    let (at_ms, lane) = (next()?, u32::try_from(next()?).ok()?);
    Some(Note { at_ms, lane, records: u64::try_from(next()?).ok()?, late_ms: next()? })
}

/// How many lanes update their keys by the clock.
pub fn steady_lanes(notes: &[Note]) -> usize {
    let lanes = notes.iter().filter(|note| note.late_ms >= 0).map(|note| note.lane);
    lanes.collect::<std::collections::BTreeSet<u32>>().len()
}

/// Whether every lane has given something later than this that was hardly late.
pub fn is_up_to_date(notes: &[Note], since_ms: i64, late_ms: i64) -> bool {
    let fresh = |lane| {
        let mut of_lane = notes.iter().rev().filter(|note| note.lane == lane && note.at_ms > since_ms);
        of_lane.next().is_some_and(|last| (0..late_ms).contains(&last.late_ms))
    };
    (0..LANES).all(fresh)
}

/// What an incident did to the output.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effect {
    /// The longest time without any output.
    pub gap_ms: i64,
    /// The longest time without output of some lane.
    pub lane_gap_ms: i64,
    /// How late records were, each as the latest of its batch.
    pub p50_ms: i64,
    pub p99_ms: i64,
    pub worst_ms: i64,
}

/// From `from_ms` to `to_ms`.
pub fn effect(notes: &[Note], from_ms: i64, to_ms: i64) -> Effect {
    let mut last: BTreeMap<u32, i64> = BTreeMap::new();
    let mut last_of_all = None;
    let mut effect = Effect::default();
    let mut late: Vec<(i64, u64)> = Vec::new();
    for note in notes.iter().filter(|note| (from_ms..=to_ms).contains(&note.at_ms)) {
        let before = last.insert(note.lane, note.at_ms).unwrap_or(note.at_ms);
        effect.lane_gap_ms = effect.lane_gap_ms.max(note.at_ms - before);
        let before = last_of_all.replace(note.at_ms).unwrap_or(note.at_ms);
        effect.gap_ms = effect.gap_ms.max(note.at_ms - before);
        late.push((note.late_ms, note.records));
    }
    late.sort_unstable();
    let all: u64 = late.iter().map(|(_, records)| records).sum();
    let share = |milli: u64| {
        let mut left = all * milli / 1_000;
        let reached = late.iter().find(|(_, records)| {
            let is_here = left <= *records;
            left = left.saturating_sub(*records);
            is_here
        });
        reached.map_or(0, |(late_ms, _)| *late_ms)
    };
    (effect.p50_ms, effect.p99_ms) = (share(500), share(990));
    effect.worst_ms = late.last().map_or(0, |(late_ms, _)| *late_ms);
    effect
}
