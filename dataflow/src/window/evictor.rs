//! Evictors: which records of a window its function sees.

use std::marker::PhantomData;
use std::time::Duration;

use crate::batch::NO_TIMESTAMP;
use crate::function::Function;
use crate::time::millis;

/// Removes records from a window that fires, before its function sees them or after. What is removed is gone for
/// later firings too. A window with an evictor keeps all of its records: nothing is aggregated ahead.
pub trait Evictor<T, W>: Function {
    /// Before the function: removes from `elements`, which are in the order they came in.
    fn evict_before(&mut self, elements: &mut Vec<Timestamped<T>>, window: &W);

    /// After the function.
    fn evict_after(&mut self, _elements: &mut Vec<Timestamped<T>>, _window: &W) {}

    /// Whether this is an evictor at all; only [`NoEvictor`] is not.
    const EVICTS: bool = true;
}

/// A record of a window with its timestamp, [`NO_TIMESTAMP`] if it has none.
pub type Timestamped<T> = (T, i64);

/// Keeps everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvictor;

impl<T, W> Evictor<T, W> for NoEvictor {
    fn evict_before(&mut self, _elements: &mut Vec<Timestamped<T>>, _window: &W) {}

    const EVICTS: bool = false;
}

/// When an evictor does its work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum When {
    #[default]
    Before,
    After,
}

/// Implements [`Evictor`] by a method `evict` and a field `when`.
macro_rules! evict_once {
    ([$($generics:tt)*] $evictor:ty) => {
        impl<$($generics)*> Evictor<T, W> for $evictor {
            fn evict_before(&mut self, elements: &mut Vec<Timestamped<T>>, _window: &W) {
                if self.when == When::Before {
                    self.evict(elements);
                }
            }

            fn evict_after(&mut self, elements: &mut Vec<Timestamped<T>>, _window: &W) {
                if self.when == When::After {
                    self.evict(elements);
                }
            }
        }
    };
}

/// Keeps the last records, up to a number.
#[derive(Clone, Copy, Debug)]
pub struct CountEvictor {
    max: usize,
    when: When,
}

impl CountEvictor {
    /// Keeps the last `max` records.
    pub fn of(max: usize) -> Self {
        CountEvictor { max, when: When::Before }
    }

    /// Evicts after the function instead of before.
    pub fn after(self) -> Self {
        CountEvictor { when: When::After, ..self }
    }

    fn evict<T>(&mut self, elements: &mut Vec<Timestamped<T>>) {
        elements.drain(..elements.len().saturating_sub(self.max));
    }
}

evict_once!([T, W] CountEvictor);

/// Keeps the records that are less than a span of time older than the youngest.
#[derive(Clone, Copy, Debug)]
pub struct TimeEvictor {
    span_ms: i64,
    when: When,
}

impl TimeEvictor {
    /// Keeps the records less than `span` older than the youngest.
    pub fn of(span: Duration) -> Self {
        TimeEvictor { span_ms: millis(span), when: When::Before }
    }

    /// Evicts after the function instead of before.
    pub fn after(self) -> Self {
        TimeEvictor { when: When::After, ..self }
    }

    fn evict<T>(&mut self, elements: &mut Vec<Timestamped<T>>) {
        let Some(youngest) = elements.iter().map(|(_, timestamp)| *timestamp).max() else { return };
        if youngest != NO_TIMESTAMP {
            let cutoff = youngest.saturating_sub(self.span_ms);
            elements.retain(|(_, timestamp)| *timestamp > cutoff);
        }
    }
}

evict_once!([T, W] TimeEvictor);

/// Keeps the records that differ little enough from the last one.
pub struct DeltaEvictor<T, F> {
    threshold: f64,
    delta: F,
    when: When,
    record: PhantomData<fn(T)>,
}

impl<T, F: Fn(&T, &T) -> f64> DeltaEvictor<T, F> {
    /// Keeps the records with `delta(record, last)` below `threshold`.
    pub fn of(threshold: f64, delta: F) -> Self {
        DeltaEvictor { threshold, delta, when: When::Before, record: PhantomData }
    }

    /// Evicts after the function instead of before.
    pub fn after(self) -> Self {
        DeltaEvictor { when: When::After, ..self }
    }

    fn evict(&mut self, elements: &mut Vec<Timestamped<T>>) {
        let Some((last, _)) = elements.last() else { return };
        let keep: Vec<bool> =
            elements.iter().map(|(record, _)| (self.delta)(record, last) < self.threshold).collect();
        let mut keep = keep.into_iter();
        elements.retain(|_| keep.next().expect("one verdict a record"));
    }
}

impl<T, F: Clone> Clone for DeltaEvictor<T, F> {
    fn clone(&self) -> Self {
        DeltaEvictor {
            threshold: self.threshold,
            delta: self.delta.clone(),
            when: self.when,
            record: PhantomData,
        }
    }
}

evict_once!([T: 'static, W, F: Fn(&T, &T) -> f64 + Function] DeltaEvictor<T, F>);

#[cfg(test)]
mod tests {
    use super::*;

    fn kept<E: Evictor<i64, ()>>(mut evictor: E, after: bool) -> Vec<i64> {
        let mut elements: Vec<Timestamped<i64>> = [5, 9, 1, 7, 8].iter().map(|n| (*n, n * 10)).collect();
        if after {
            evictor.evict_after(&mut elements, &());
        } else {
            evictor.evict_before(&mut elements, &());
        }
        elements.into_iter().map(|(record, _)| record).collect()
    }

    #[test]
    fn count_keeps_the_last_records() {
        assert_eq!(kept(CountEvictor::of(2), false), [7, 8]);
        assert_eq!(kept(CountEvictor::of(9), false), [5, 9, 1, 7, 8]);
        assert_eq!(kept(CountEvictor::of(2).after(), false), [5, 9, 1, 7, 8]);
        assert_eq!(kept(CountEvictor::of(2).after(), true), [7, 8]);
    }

    #[test]
    fn time_keeps_what_is_younger_than_the_span_before_the_youngest() {
        assert_eq!(kept(TimeEvictor::of(Duration::from_millis(20)), false), [9, 8]);
        assert_eq!(kept(TimeEvictor::of(Duration::from_millis(21)), false), [9, 7, 8]);
        assert_eq!(kept(TimeEvictor::of(Duration::from_millis(20)).after(), true), [9, 8]);
        let mut without = vec![('a', NO_TIMESTAMP)];
        Evictor::<char, ()>::evict_before(&mut TimeEvictor::of(Duration::ZERO), &mut without, &());
        assert_eq!(without.len(), 1);
    }

    #[test]
    fn delta_keeps_what_is_near_the_last_record() {
        let delta = |a: &i64, b: &i64| (a - b).abs() as f64;
        assert_eq!(kept(DeltaEvictor::of(3.0, delta), false), [9, 7, 8]);
        assert_eq!(kept(DeltaEvictor::of(3.5, delta).after(), true), [5, 9, 7, 8]);
    }
}
