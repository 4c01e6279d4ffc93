//! Threads on which work waits for storage: each job in its own place, so that a storage that hangs holds up the jobs that use it.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use flott_schema::ids::JobId;

/// How long a call takes before people are told of it.
const SLOW: Duration = Duration::from_secs(60);

/// Whose work it is. One piece of an owner's is worked on at a time, in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// A job.
    Job(JobId),
    /// A request of its own, by number.
    Request(u64),
}

/// Work of a pool.
pub(super) trait Work: Sized + Send + 'static {
    /// Whose it is.
    fn owner(&self) -> Owner;
    /// How much room it takes while it waits; at least 1.
    fn size(&self) -> usize;
    /// What it is about, for people.
    fn subject(&self) -> String;
    /// Takes up later work of the same owner; gives it back if that has to wait by itself.
    fn join(&mut self, later: Self) -> Option<Self>;
}

/// What a pool may take up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Threads. They are started when there is work for them.
    pub(super) threads: usize,
    /// Sizes of what waits, of all owners.
    pub(super) waiting: usize,
    /// The same of one owner, but for the first piece of work.
    pub(super) waiting_of_owner: usize,
}

/// The way to the threads. When all clones are gone, they end behind what waits.
pub(super) struct Pool<W: Work> {
    open: Arc<Open<W>>,
}

impl<W: Work> Clone for Pool<W> {
    fn clone(&self) -> Self {
        Pool { open: self.open.clone() }
    }
}

impl<W: Work> std::fmt::Debug for Pool<W> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pool").field("name", &self.open.0.name).finish_non_exhaustive()
    }
}

/// Closes the queue when nobody is left who could give more.
struct Open<W: Work>(Arc<Shared<W>>);

impl<W: Work> Drop for Open<W> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.came.notify_all();
    }
}

struct Shared<W> {
    name: &'static str,
    bounds: Bounds,
    queue: Mutex<Queue<W>>,
    came: Condvar,
    run: Box<dyn Fn(W) + Send + Sync>,
}

struct Queue<W> {
    waiting: VecDeque<W>,
    /// Their sizes.
    size: usize,
    working: BTreeMap<Owner, Working>,
    threads: usize,
    is_closed: bool,
}

/// Work under way.
struct Working {
    since: Instant,
    subject: String,
    is_slow: bool,
}

/// Tells people of calls that do not return, see [`Pool::watched`].
pub(super) trait Watched: Send {
    /// Warns of calls that have become slow by `now`; gives how many those are.
    fn warn(&self, now: Instant) -> usize;
}

impl<W: Work> Pool<W> {
    /// A pool whose threads do this. `name` is for people, and for the names of threads.
    pub(super) fn new(name: &'static str, bounds: Bounds, run: impl Fn(W) + Send + Sync + 'static) -> Self {
        let queue = Queue {
            waiting: VecDeque::new(),
            size: 0,
            working: BTreeMap::new(),
            threads: 0,
            is_closed: false,
        };
        let (queue, came, run) = (Mutex::new(queue), Condvar::new(), Box::new(run));
        Pool { open: Arc::new(Open(Arc::new(Shared { name, bounds, queue, came, run }))) }
    }

    /// Puts it in the queue; gives it back if too much waits, or if nobody will ever take it.
    pub(super) fn push(&self, work: W) -> Result<(), W> {
        let shared = &self.open.0;
        let mut queue = shared.lock();
        let (owner, size) = (work.owner(), work.size());
        let of_owner: usize = queue.waiting.iter().filter(|one| one.owner() == owner).map(W::size).sum();
        let Bounds { threads, waiting, waiting_of_owner } = shared.bounds;
        let is_over = |before: usize, bound: usize| before > 0 && before + size > bound;
        if queue.is_closed || is_over(queue.size, waiting) || is_over(of_owner, waiting_of_owner) {
            return Err(work);
        }
        let is_startable = of_owner == 0 && !queue.working.contains_key(&owner);
        let free = queue.threads - queue.working.len();
        let needed = queue.startable() + usize::from(is_startable);
        if needed > free && queue.threads < threads && !shared.start(&mut queue) {
            return Err(work);
        }
        let left = match queue.waiting.iter_mut().rfind(|one| one.owner() == owner) {
            Some(last) => {
                let before = last.size();
                let left = last.join(work);
                let grown = last.size();
                queue.size = queue.size + grown - before;
                left
            }
            None => Some(work),
        };
        if let Some(work) = left {
            queue.size += work.size();
            queue.waiting.push_back(work);
        }
        shared.came.notify_one();
        Ok(())
    }

    /// For whoever looks at it from time to time. Does not keep the pool open.
    pub(super) fn watched(&self) -> Box<dyn Watched> {
        Box::new(self.open.0.clone())
    }
}

impl<W: Work> Queue<W> {
    /// Owners whose work could be begun now.
    fn startable(&self) -> usize {
        let mut owners: Vec<Owner> = self.waiting.iter().map(W::owner).collect();
        owners.sort_unstable();
        owners.dedup();
        owners.iter().filter(|owner| !self.working.contains_key(owner)).count()
    }
}

impl<W: Work> Shared<W> {
    /// Starts a thread; false: it cannot be, and there is no other.
    fn start(self: &Arc<Self>, queue: &mut Queue<W>) -> bool {
        let shared = self.clone();
        let thread = std::thread::Builder::new().name(format!("flott-{}", self.name));
        match thread.spawn(move || shared.work_off()) {
            Ok(_) => queue.threads += 1,
            Err(error) => tracing::error!(%error, name = self.name, "a thread for storage cannot be started"),
        }
        queue.threads > 0
    }

    fn work_off(&self) {
        while let Some(work) = self.next() {
            let (owner, subject) = (work.owner(), work.subject());
            if catch_unwind(AssertUnwindSafe(|| (self.run)(work))).is_err() {
                tracing::error!(name = self.name, subject, "work on a storage has panicked, and is not done");
            }
            self.end(owner);
        }
    }

    /// Waits for work of an owner that no thread works for; nothing once the queue is closed and empty.
    fn next(&self) -> Option<W> {
        let mut queue = self.lock();
        loop {
            let place = queue.waiting.iter().position(|one| !queue.working.contains_key(&one.owner()));
            if let Some(work) = place.and_then(|place| queue.waiting.remove(place)) {
                queue.size -= work.size();
                let working = Working { since: Instant::now(), subject: work.subject(), is_slow: false };
                queue.working.insert(work.owner(), working);
                return Some(work);
            }
            if queue.is_closed && queue.waiting.is_empty() {
                return None;
            }
            // Closing wakes it, and whoever could do that holds the pool: no deadline would help.
            queue = self.came.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self, owner: Owner) {
        let mut queue = self.lock();
        if let Some(Working { since, subject, is_slow: true }) = queue.working.remove(&owner) {
            let after_s = since.elapsed().as_secs();
            tracing::info!(name = self.name, subject, after_s, "a storage that did not answer has done so");
        }
        // What waits for this owner is for this thread; with the queue closed the others have to see that nothing is left.
        if queue.is_closed {
            self.came.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<W>> {
        // The queue is whole at every moment, also where a holder of the lock panicked.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Work> Watched for Arc<Shared<W>> {
    fn warn(&self, now: Instant) -> usize {
        let mut queue = self.lock();
        let (threads_max, waiting) = (self.bounds.threads, queue.waiting.len());
        let is_slow = |one: &Working| now.saturating_duration_since(one.since) >= SLOW;
        let threads_busy = queue.working.values().filter(|one| is_slow(one)).count();
        let mut found = 0;
        for one in queue.working.values_mut().filter(|one| is_slow(one) && !one.is_slow) {
            (one.is_slow, found) = (true, found + 1);
            let (subject, since_s) = (&one.subject, now.saturating_duration_since(one.since).as_secs());
            tracing::warn!(
                name = self.name,
                subject,
                since_s,
                threads_busy,
                threads_max,
                waiting,
                "a storage does not answer: what its job has stored or deleted there waits; other jobs go on while threads are left"
            );
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(20);

    /// Something with a number; even ones of an owner join each other.
    #[derive(Debug, PartialEq)]
    struct Piece {
        job: u128,
        numbers: Vec<u32>,
    }

    impl Work for Piece {
        fn owner(&self) -> Owner {
            Owner::Job(JobId(self.job))
        }

        fn size(&self) -> usize {
            self.numbers.len()
        }

        fn subject(&self) -> String {
            format!("{}", self.job)
        }

        fn join(&mut self, later: Self) -> Option<Self> {
            if self.numbers.iter().chain(&later.numbers).any(|number| number % 2 == 1) {
                return Some(later);
            }
            self.numbers.extend(later.numbers);
            None
        }
    }

    fn piece(job: u128, number: u32) -> Piece {
        Piece { job, numbers: vec![number] }
    }

    /// A pool whose pieces of the jobs below 10 wait for a word each; what is begun is told, and what has ended.
    fn pool(bounds: Bounds) -> (Pool<Piece>, SyncSender<()>, Receiver<Piece>) {
        let (go_on, word) = sync_channel(100);
        let (done, ended) = sync_channel(1_000);
        let word = Mutex::new(word);
        let pool = Pool::new("test", bounds, move |piece: Piece| {
            if piece.job < 10 {
                word.lock().unwrap().recv_timeout(DEADLINE).unwrap();
            }
            done.send(piece).unwrap();
        });
        (pool, go_on, ended)
    }

    const BOUNDS: Bounds = Bounds { threads: 3, waiting: 1_000, waiting_of_owner: 100 };

    #[test]
    fn work_that_hangs_holds_up_its_own_job_alone() {
        let (pool, go_on, ended) = pool(BOUNDS);
        for number in [1, 3, 5] {
            pool.push(piece(1, number)).unwrap();
        }
        for job in 10..60 {
            pool.push(piece(job, 1)).unwrap();
            pool.push(piece(job, 3)).unwrap();
        }
        let mut seen: BTreeMap<u128, Vec<u32>> = BTreeMap::new();
        for _ in 0..100 {
            let Piece { job, numbers } = ended.recv_timeout(DEADLINE).unwrap();
            seen.entry(job).or_default().extend(numbers);
        }
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), (10..60).collect::<Vec<_>>());
        assert!(seen.values().all(|numbers| *numbers == [1, 3]), "{seen:?}");
        for number in [1, 3, 5] {
            go_on.send(()).unwrap();
            assert_eq!(ended.recv_timeout(DEADLINE).unwrap(), piece(1, number));
        }
    }

    #[test]
    fn people_are_told_once_of_work_that_hangs_and_there_is_an_end_of_threads() {
        let (pool, go_on, ended) = pool(Bounds { threads: 2, ..BOUNDS });
        let watched = pool.watched();
        for job in [1, 2, 10] {
            pool.push(piece(job, 1)).unwrap();
        }
        // Both threads are at work when one of the three waits.
        while pool.open.0.lock().waiting.len() != 1 || pool.open.0.lock().working.len() != 2 {
            assert!(pool.open.0.lock().threads <= 2);
            std::thread::yield_now();
        }
        let now = Instant::now();
        assert_eq!([now, now + SLOW, now + SLOW * 2].map(|now| watched.warn(now)), [0, 2, 0]);
        assert!(ended.try_recv().is_err());
        go_on.send(()).unwrap();
        let first = [(); 2].map(|()| ended.recv_timeout(DEADLINE).unwrap().job);
        assert_eq!(first[1], 10, "{first:?}");
        go_on.send(()).unwrap();
        assert!(ended.recv_timeout(DEADLINE).unwrap().job < 10);
    }

    #[test]
    fn there_are_bounds_on_what_waits_of_a_job_and_of_all() {
        let (pool, go_on, ended) = pool(Bounds { threads: 1, waiting: 4, waiting_of_owner: 2 });
        pool.push(piece(1, 1)).unwrap();
        while !pool.open.0.lock().waiting.is_empty() {
            std::thread::yield_now();
        }
        let even = |job| Piece { job, numbers: vec![2, 4] };
        pool.push(even(1)).unwrap();
        assert_eq!(pool.push(piece(1, 6)), Err(piece(1, 6)));
        pool.push(piece(11, 2)).unwrap();
        pool.push(piece(11, 4)).unwrap();
        assert_eq!(pool.push(piece(12, 2)), Err(piece(12, 2)));
        (0..2).for_each(|_| go_on.send(()).unwrap());
        drop(pool);
        // What waits is done behind the end, and what could be joined was.
        let numbers: Vec<Vec<u32>> = [(); 3].map(|()| ended.recv_timeout(DEADLINE).unwrap().numbers).into();
        assert_eq!(numbers, [vec![1], vec![2, 4], vec![2, 4]]);
        let after = ended.recv_timeout(DEADLINE).unwrap_err();
        assert_eq!(after, RecvTimeoutError::Disconnected, "the threads have ended");
    }

    #[test]
    fn a_panic_ends_neither_the_thread_nor_the_turn_of_its_job() {
        let (done, ended) = sync_channel(1);
        let pool = Pool::new("test", Bounds { threads: 1, ..BOUNDS }, move |piece: Piece| {
            assert!(piece.numbers != [1], "as it has to be");
            done.send(piece.numbers[0]).unwrap();
        });
        pool.push(piece(1, 1)).unwrap();
        pool.push(piece(1, 3)).unwrap();
        assert_eq!(ended.recv_timeout(DEADLINE), Ok(3));
    }
}
