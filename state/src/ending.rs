//! The end of a process, while threads still work on state.
//!
//! What lives here: a count of the pieces of work under way, and a wait for them when the process ends. Who may call it: the threads of the pool, and
//! whoever opens a database. What must never happen here: a wait without an end.
//!
//! RocksDB has objects that live as long as the process and are destroyed when it ends, whoever uses them: a thread that closes a database at that moment
//! would take the process down with it. So the end waits for the work under way, and no other work begins.

use std::sync::{Condvar, Mutex, Once};
use std::time::{Duration, Instant};

use crate::pool::{lock, wait_until};

/// How long the end of the process may wait.
const WAIT: Duration = Duration::from_secs(5);

static WORK: Mutex<Work> = Mutex::new(Work { under_way: 0, is_ending: false });
static CHANGED: Condvar = Condvar::new();
static ASKED: Once = Once::new();

struct Work {
    under_way: usize,
    is_ending: bool,
}

/// A piece of work that the end of the process waits for.
pub(crate) struct UnderWay;

/// Begins a piece of work; does not return when the process is ending.
pub(crate) fn begin() -> UnderWay {
    let mut work = lock(&WORK);
    while work.is_ending {
        drop(work);
        std::thread::park();
        work = lock(&WORK);
    }
    work.under_way += 1;
    UnderWay
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&WORK).under_way -= 1;
        CHANGED.notify_all();
    }
}

/// Has the end of the process wait for work. To be called when a database is open: what is asked for last comes first at the end, and RocksDB has asked
/// for the destruction of its objects by then.
pub(crate) fn wait_at_the_end() {
    ASKED.call_once(|| {
        // SAFETY: the function takes nothing, and unwinds nowhere: locks that are poisoned are taken all the same.
        if unsafe { libc::atexit(end) } != 0 {
            tracing::warn!("the end of the process will not wait for work on state");
        }
    });
}

extern "C" fn end() {
    let deadline = Instant::now() + WAIT;
    let mut work = lock(&WORK);
    work.is_ending = true;
    let mut in_time = true;
    while work.under_way > 0 && in_time {
        (work, in_time) = wait_until(&CHANGED, work, deadline);
    }
}
