//! What a sliding window keeps of one key: an accumulator for each slice, aggregated so that the oldest can be
//! dropped and the total be had in constant time, amortised.
//!
//! The method is two stacks in one queue (Tangwongsan, Hirzel, Schneider: In-order sliding-window aggregation in
//! worst-case constant time, 2021, there called two-stacks lite): the front part of the queue holds totals from a
//! slice to the end of the front part, the back part holds the accumulators of its slices, and their total is kept
//! beside. When the front part is used up, the back part is turned into totals and becomes the front part.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::state::prefetch;

/// Below this many slices a window, turning is so cheap that it may happen for all keys at once.
const STAGGER_FROM: u64 = 32;

/// The slices of one key. It stands in snapshots as it is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TwoStacks<A> {
    /// End of the slice, and a total (front part) or accumulator (back part).
    slices: VecDeque<(i64, A)>,
    /// Number of slices in the front part.
    front: usize,
    /// The total of the back part.
    back: Option<A>,
    /// The length at which the queue is turned for the first time; 0 when that has happened. It differs between
    /// keys, so that their later turns fall on different firings too.
    first_turn: usize,
}

impl<A: Clone> TwoStacks<A> {
    /// `hash` is that of the key.
    pub(super) fn new(hash: u64, slices_per_window: u64) -> Self {
        let first_turn = match slices_per_window {
            STAGGER_FROM.. => 1 + ((u128::from(hash) * u128::from(slices_per_window)) >> 64) as usize,
            _ => 0,
        };
        TwoStacks { slices: VecDeque::new(), front: 0, back: None, first_turn }
    }

    /// Appends a slice that ends behind the others.
    pub(super) fn push(&mut self, end: i64, accumulator: A, merge: &mut impl FnMut(&mut A, &A)) {
        match &mut self.back {
            Some(back) => merge(back, &accumulator),
            None => self.back = Some(accumulator.clone()),
        }
        self.slices.push_back((end, accumulator));
        if self.front == 0 && self.slices.len() == self.first_turn {
            self.turn(merge);
        }
    }

    /// Drops the slices that end at or before `start`; whether any are left.
    pub(super) fn evict(&mut self, start: i64, merge: &mut impl FnMut(&mut A, &A)) -> bool {
        let mut back_changed = false;
        while self.slices.front().is_some_and(|(end, _)| *end <= start) {
            self.slices.pop_front();
            match self.front {
                0 => back_changed = true,
                _ => self.front -= 1,
            }
        }
        if back_changed {
            self.turn(merge);
        }
        !self.slices.is_empty()
    }

    /// Makes all slices the front part, which must be empty.
    fn turn(&mut self, merge: &mut impl FnMut(&mut A, &A)) {
        let slices = self.slices.make_contiguous();
        for index in (1..slices.len()).rev() {
            let (before, behind) = slices.split_at_mut(index);
            merge(&mut before[index - 1].1, &behind[0].1);
        }
        self.front = self.slices.len();
        self.back = None;
        self.first_turn = 0;
        if self.slices.capacity() > 64 && self.slices.capacity() > self.slices.len() * 4 {
            self.slices.shrink_to(self.slices.len() * 2);
        }
    }

    /// Changes the accumulator of the slice that ends at `end` with `add`, or inserts what `start` gives: a record
    /// has come behind the watermark. `merge` is as for the other methods.
    pub(super) fn add_late(&mut self, end: i64, accumulator: A, merge: &mut impl FnMut(&mut A, &A)) {
        let position = self.slices.partition_point(|(other, _)| *other < end);
        if position >= self.front {
            match &mut self.back {
                Some(back) => merge(back, &accumulator),
                None => self.back = Some(accumulator.clone()),
            }
            match self.slices.get_mut(position) {
                Some((other, slice)) if *other == end => merge(slice, &accumulator),
                _ => self.slices.insert(position, (end, accumulator)),
            }
            return;
        }
        // Every total that begins at this slice or before it covers the record.
        for (_, total) in self.slices.range_mut(..position) {
            merge(total, &accumulator);
        }
        match self.slices.get_mut(position) {
            Some((other, total)) if *other == end => merge(total, &accumulator),
            _ => {
                let mut total = accumulator;
                merge(&mut total, &self.slices[position].1);
                self.slices.insert(position, (end, total));
                self.front += 1;
            }
        }
    }

    /// Fetches what `push` will change.
    #[inline]
    pub(super) fn prefetch_back(&self) {
        self.slices.back().inspect(|slice| prefetch(*slice));
    }

    /// Fetches what `evict` and `totals` will read.
    #[inline]
    pub(super) fn prefetch_front(&self) {
        self.slices.front().inspect(|slice| prefetch(*slice));
    }

    /// The totals of the front part and of the back part; at least one is there unless the queue is empty.
    pub(super) fn totals(&self) -> (Option<&A>, Option<&A>) {
        let front = if self.front > 0 { self.slices.front().map(|(_, total)| total) } else { None };
        (front, self.back.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        /// A slice so far behind the last one.
        Push(i64),
        /// A record in a slice so far before the last one.
        Late(i64),
        /// The window moves on to begin so far before the last slice.
        Evict(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => (1i64..4).prop_map(Step::Push),
            1 => (0i64..30).prop_map(Step::Late),
            3 => (0i64..40).prop_map(Step::Evict),
        ];
        prop::collection::vec(step, 0..300)
    }

    /// Sets, so that a record counted twice or in the wrong window is found; in order, unless records come late.
    fn merge(a: &mut Vec<u32>, b: &Vec<u32>) {
        a.extend(b);
    }

    proptest! {
        #[test]
        fn the_total_is_that_of_the_slices_in_the_window(steps in steps(), hash: u64, per_window in 1u64..64) {
            let mut panes = TwoStacks::new(hash, per_window);
            let mut model: Vec<(i64, u32)> = Vec::new();
            let (mut last, mut start) = (0i64, i64::MIN);
            let mut in_order = true;
            for (step, id) in steps.into_iter().zip(0u32..) {
                match step {
                    Step::Push(distance) => {
                        last += distance;
                        panes.push(last, vec![id], &mut merge);
                        model.push((last, id));
                    }
                    Step::Late(distance) if last - distance > start => {
                        panes.add_late(last - distance, vec![id], &mut merge);
                        model.push((last - distance, id));
                        in_order = false;
                    }
                    Step::Late(_) => {}
                    Step::Evict(distance) => {
                        start = start.max(last - distance);
                        model.retain(|(end, _)| *end > start);
                        prop_assert_eq!(panes.evict(start, &mut merge), !model.is_empty());
                    }
                }
                let (front, back) = panes.totals();
                let mut total: Vec<u32> = front.into_iter().chain(back).flatten().copied().collect();
                let mut expected: Vec<u32> = model.iter().map(|(_, id)| *id).collect();
                if !in_order {
                    total.sort_unstable();
                    expected.sort_unstable();
                }
                prop_assert_eq!(total, expected);
            }
        }
    }

    #[test]
    fn each_slice_is_merged_a_constant_number_of_times() {
        let mut merges = 0u64;
        let mut merge = |a: &mut u64, b: &u64| {
            merges += 1;
            *a += b;
        };
        let mut panes = TwoStacks::new(u64::MAX / 3, 1000);
        for end in 0..100_000i64 {
            panes.push(end, 1, &mut merge);
            panes.evict(end - 1000, &mut merge);
        }
        let (front, back) = panes.totals();
        assert_eq!(front.copied().unwrap_or(0) + back.copied().unwrap_or(0), 1000);
        assert!(merges < 2 * 101_000, "{merges}");
    }

    #[test]
    fn room_that_a_busy_hour_took_is_given_back() {
        let mut panes = TwoStacks::new(0, 4096);
        let mut merge = |a: &mut u64, b: &u64| *a += b;
        for end in 0..4096 {
            panes.push(end, 1, &mut merge);
        }
        for end in 5000..15_000 {
            panes.push(end, 1, &mut merge);
            panes.evict(end - 3, &mut merge);
        }
        assert!(panes.slices.capacity() <= 64, "{}", panes.slices.capacity());
    }
}
