//! When a call is made again.

use std::sync::Arc;
use std::time::Duration;

use flott_schema::{Error, Result};

/// How often a call is made again, how long after, and why.
pub struct RetryStrategy<O> {
    retries: u32,
    initial_ms: f64,
    max_ms: f64,
    multiplier: f64,
    if_result: Option<Arc<dyn Fn(&[O]) -> bool + Send + Sync>>,
    if_error: Option<Arc<dyn Fn(&Error) -> bool + Send + Sync>>,
}

impl<O> Clone for RetryStrategy<O> {
    fn clone(&self) -> Self {
        RetryStrategy { if_result: self.if_result.clone(), if_error: self.if_error.clone(), ..*self }
    }
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl<O> RetryStrategy<O> {
    /// Up to `retries` calls beyond the first one, each `delay` after the one before has failed.
    pub fn fixed_delay(retries: u32, delay: Duration) -> Self {
        Self::exponential_backoff(retries, delay, delay, 1.0)
    }

    /// Up to `retries` calls beyond the first one: after `initial_delay`, then `multiplier` times as long each time, up
    /// to `max_delay`.
    pub fn exponential_backoff(
        retries: u32,
        initial_delay: Duration,
        max_delay: Duration,
        multiplier: f64,
    ) -> Self {
        RetryStrategy {
            retries,
            initial_ms: ms(initial_delay),
            max_ms: ms(max_delay),
            multiplier,
            if_result: None,
            if_error: None,
        }
    }

    /// Retries also what has succeeded with results that `predicate` holds for. The results of the last attempt are
    /// taken as they are.
    pub fn if_result(mut self, predicate: impl Fn(&[O]) -> bool + Send + Sync + 'static) -> Self {
        self.if_result = Some(Arc::new(predicate));
        self
    }

    /// Retries only the errors that `predicate` holds for, instead of all.
    pub fn if_error(mut self, predicate: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.if_error = Some(Arc::new(predicate));
        self
    }

    /// Refuses delays that make no sense.
    pub fn check(&self) -> Result<()> {
        if !(self.multiplier >= 1.0 && self.multiplier.is_finite()) {
            return Err(Error::graph(format!(
                "the multiplier of an exponential backoff is {}; it must be 1 or larger",
                self.multiplier
            )));
        }
        if self.max_ms < self.initial_ms {
            return Err(Error::graph(format!(
                "the delays of an exponential backoff begin at {} ms, above their maximum of {} ms",
                self.initial_ms, self.max_ms
            )));
        }
        Ok(())
    }

    /// Milliseconds until the next attempt after attempt `attempt` (from 1) ended with `outcome`; `None` when that is
    /// the result.
    pub(super) fn delay_ms(&self, attempt: u32, outcome: &Result<Vec<O>>) -> Option<i64> {
        let wanted = match outcome {
            Ok(results) => self.if_result.as_ref().is_some_and(|predicate| predicate(results)),
            Err(error) => self.if_error.as_ref().is_none_or(|predicate| predicate(error)),
        };
        if !wanted || attempt > self.retries {
            return None;
        }
        let exponent = i32::try_from(attempt - 1).unwrap_or(i32::MAX);
        let delay_ms = (self.initial_ms * self.multiplier.powi(exponent)).min(self.max_ms);
        Some(delay_ms.ceil() as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(strategy: &RetryStrategy<u8>) -> Vec<i64> {
        let failed = Err(Error::user("down"));
        (1..).map_while(|attempt| strategy.delay_ms(attempt, &failed)).collect()
    }

    #[test]
    fn delays_are_fixed_or_grow_to_a_maximum() {
        let second = Duration::from_secs(1);
        assert_eq!(delays(&RetryStrategy::fixed_delay(3, second)), [1000, 1000, 1000]);
        assert!(delays(&RetryStrategy::fixed_delay(0, second)).is_empty());
        let backoff = RetryStrategy::exponential_backoff(5, second, second * 5, 2.0);
        assert_eq!(delays(&backoff), [1000, 2000, 4000, 5000, 5000]);
        let far = RetryStrategy::<u8>::exponential_backoff(u32::MAX, second, second * 60, 1e300);
        assert_eq!(far.delay_ms(u32::MAX - 1, &Err(Error::user("down"))), Some(60_000));
    }

    #[test]
    fn predicates_decide_what_is_retried() {
        let all = RetryStrategy::<u8>::fixed_delay(1, Duration::ZERO);
        assert_eq!(all.delay_ms(1, &Ok(vec![])), None);
        assert_eq!(all.delay_ms(1, &Err(Error::user("down"))), Some(0));
        let some =
            all.if_result(|results| results.is_empty()).if_error(|error| error.message() != "forbidden");
        assert_eq!(some.delay_ms(1, &Ok(vec![])), Some(0));
        assert_eq!(some.delay_ms(1, &Ok(vec![1])), None);
        assert_eq!(some.delay_ms(1, &Err(Error::user("down"))), Some(0));
        assert_eq!(some.delay_ms(1, &Err(Error::user("forbidden"))), None);
    }

    #[test]
    fn backoffs_that_make_no_sense_are_refused() {
        let second = Duration::from_secs(1);
        for multiplier in [0.5, f64::NAN, f64::INFINITY] {
            assert!(RetryStrategy::<u8>::exponential_backoff(1, second, second, multiplier).check().is_err());
        }
        assert!(RetryStrategy::<u8>::exponential_backoff(1, second, second / 2, 2.0).check().is_err());
        assert!(RetryStrategy::<u8>::exponential_backoff(1, second, second, 2.0).check().is_ok());
    }
}
