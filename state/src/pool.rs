//! Threads that work off a bounded queue, and work spread over them.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flott_schema::{Error, ErrorKind, Result};

use crate::ending;

/// Pieces of work that may wait.
const QUEUE_MAX: usize = 16 << 10;

/// How long work that is spread over threads may take.
const SPREAD_DEADLINE: Duration = Duration::from_secs(3_600);

type Job = Box<dyn FnOnce() + Send>;

/// Threads that end when the last one who may hand them work has gone, and the work is done.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: usize,
}

struct Shared {
    queue: Mutex<Queue>,
    added: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    is_closed: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A lock whose holder may have panicked: what it guards is whole between any two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for `condvar` until `deadline`; whether there is time left.
pub(crate) fn wait_until<'a, T>(
    condvar: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: Instant,
) -> (MutexGuard<'a, T>, bool) {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return (guard, false);
    }
    let (guard, _) = condvar.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner);
    (guard, true)
}

/// What a panic says.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".into())
}

/// Runs `work`; a panic in it, say in a serialiser of the job's author, becomes an error.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Error::user(format!("panicked: {}", panic_text(&*panic)))))
}

impl Pool {
    /// Starts `threads` threads of this name.
    pub(crate) fn start(name: &str, threads: usize) -> Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), added: Condvar::new() });
        let pool = Pool { shared, threads: threads.max(1) };
        for _ in 0..pool.threads {
            let shared = pool.shared.clone();
            std::thread::Builder::new()
                .name(name.into())
                .spawn(move || shared.work())
                .map_err(|error| Error::io(format_args!("a thread '{name}' cannot be started"), error))?;
        }
        Ok(pool)
    }

    /// Has `job` done on one of the threads.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut queue = lock(&self.shared.queue);
        if queue.jobs.len() >= QUEUE_MAX {
            return Err(Error::new(
                ErrorKind::Resources,
                format!(
                    "{QUEUE_MAX} pieces of work on state wait already; the storage of snapshots is too slow"
                ),
            ));
        }
        queue.jobs.push_back(Box::new(job));
        drop(queue);
        self.shared.added.notify_one();
        Ok(())
    }

    /// Does `work` for every item, several at once, this thread among them; gives the results in the order of
    /// the items, or the first error.
    pub(crate) fn for_each<T, R>(
        &self,
        items: Vec<T>,
        work: impl Fn(&T) -> Result<R> + Send + Sync + 'static,
    ) -> Result<Vec<R>>
    where
        T: Send + Sync + 'static,
        R: Send + 'static,
    {
        let helpers = self.threads.min(items.len().saturating_sub(1));
        let results = items.iter().map(|_| None).collect();
        let spread = Arc::new(Spread {
            items,
            work,
            next: AtomicUsize::new(0),
            results: Mutex::new(Results { done: 0, results }),
            changed: Condvar::new(),
        });
        for _ in 0..helpers {
            let spread = spread.clone();
            self.submit(move || spread.run())?;
        }
        spread.run();
        spread.finish()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        lock(&self.shared.queue).is_closed = true;
        self.shared.added.notify_all();
    }
}

impl Shared {
    fn work(&self) {
        loop {
            let mut queue = lock(&self.queue);
            let job = loop {
                match queue.jobs.pop_front() {
                    Some(job) => break job,
                    None if queue.is_closed => return,
                    // Work comes, or the end: nothing is due at any time.
                    None => queue = self.added.wait(queue).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(queue);
            let _under_way = ending::begin();
            if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                tracing::error!("work on state panicked: {}", panic_text(&*panic));
            }
        }
    }
}

/// Work that several threads do together.
struct Spread<T, R, W> {
    items: Vec<T>,
    work: W,
    next: AtomicUsize,
    results: Mutex<Results<R>>,
    changed: Condvar,
}

struct Results<R> {
    done: usize,
    results: Vec<Option<Result<R>>>,
}

impl<T, R, W: Fn(&T) -> Result<R>> Spread<T, R, W> {
    fn run(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = self.items.get(index) else { return };
            let result = guarded(|| (self.work)(item));
            if result.is_err() {
                // Nobody needs what has not been begun.
                let skipped =
                    self.items.len().saturating_sub(self.next.swap(self.items.len(), Ordering::Relaxed));
                lock(&self.results).done += skipped;
            }
            let mut results = lock(&self.results);
            results.results[index] = Some(result);
            results.done += 1;
            drop(results);
            self.changed.notify_all();
        }
    }

    fn finish(&self) -> Result<Vec<R>> {
        let deadline = Instant::now() + SPREAD_DEADLINE;
        let mut results = lock(&self.results);
        while results.done < self.items.len() {
            let (guard, is_early) = wait_until(&self.changed, results, deadline);
            results = guard;
            if !is_early {
                return Err(Error::new(ErrorKind::Io, format!("not done after {SPREAD_DEADLINE:?}")));
            }
        }
        let mut all = Vec::with_capacity(self.items.len());
        let mut is_whole = true;
        for result in results.results.drain(..) {
            match result {
                Some(Ok(result)) => all.push(result),
                Some(Err(error)) => return Err(error),
                None => is_whole = false,
            }
        }
        if is_whole { Ok(all) } else { Err(Error::internal("work on state has got lost")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let pool = Pool::start("test", 3).unwrap();
        let squares = pool.for_each((0..100u32).collect(), |n| Ok(n * n)).unwrap();
        assert_eq!(squares, (0..100u32).map(|n| n * n).collect::<Vec<_>>());
        assert!(pool.for_each(Vec::<u32>::new(), |n| Ok(*n)).unwrap().is_empty());
    }

    #[test]
    fn an_error_or_a_panic_of_one_item_is_that_of_all() {
        let pool = Pool::start("test", 3).unwrap();
        let error = pool
            .for_each((0..100u32).collect(), |n| if *n == 17 { Err(Error::user("no 17")) } else { Ok(()) })
            .unwrap_err();
        assert_eq!(error.to_string(), "no 17");
        let error = pool.for_each(vec![1], |_| -> Result<()> { panic!("bang") }).unwrap_err();
        assert_eq!(error.to_string(), "panicked: bang");
    }

    #[test]
    fn work_that_was_handed_in_is_done_even_when_the_pool_goes() {
        let pool = Pool::start("test", 1).unwrap();
        let (done, wait) = std::sync::mpsc::sync_channel(100);
        for n in 0..100 {
            let done = done.clone();
            pool.submit(move || done.send(n).unwrap()).unwrap();
        }
        drop((pool, done));
        assert_eq!(wait.iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }
}
