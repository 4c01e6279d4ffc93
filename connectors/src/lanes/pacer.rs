//! Lets through so many a second.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Says how many records are due by the clock. The first is due at once.
pub struct Pacer {
    per_second: f64,
    /// What is due is counted from here.
    start: Option<Instant>,
    given: u64,
    /// A longer delay than this is not made up for.
    backlog: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Pacer {
    /// `per_second` must be above 0.
    pub fn new(per_second: f64, backlog: Option<Duration>) -> Self {
        Pacer { per_second, start: None, given: 0, backlog, sleep: None }
    }

    /// How many of `max` may be made now, at least one; or the waker is registered. Must be called within a tokio runtime.
    pub fn poll(&mut self, max: u64, cx: &mut Context<'_>) -> Poll<u64> {
        loop {
            let now = Instant::now();
            let due = self.due(now);
            if due > 0 {
                self.sleep = None;
                let given = due.min(max);
                self.given += given;
                return Poll::Ready(given);
            }
            // Record number `given` is due when that many intervals have passed.
            let next =
                self.start.unwrap_or(now) + Duration::from_secs_f64(self.given as f64 / self.per_second);
            let sleep = match &mut self.sleep {
                Some(sleep) => {
                    if sleep.deadline() != next {
                        sleep.as_mut().reset(next);
                    }
                    sleep
                }
                None => self.sleep.insert(Box::pin(sleep_until(next))),
            };
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if next <= now {
                // Rounding: the time has come though the count says not yet.
                self.given += 1;
                return Poll::Ready(1);
            }
        }
    }

    fn due(&mut self, now: Instant) -> u64 {
        let start = *self.start.get_or_insert(now);
        let passed = now.duration_since(start);
        let due = (passed.as_secs_f64() * self.per_second) as u64 + 1;
        let behind = due.saturating_sub(self.given);
        if let Some(backlog) = self.backlog {
            let bound = (backlog.as_secs_f64() * self.per_second) as u64 + 1;
            if behind > bound {
                // Starts counting anew.
                self.given = 0;
                self.start = Some(now - backlog.min(passed));
                return bound;
            }
        }
        behind
    }
}
