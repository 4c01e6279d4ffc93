//! Ctrl-C and SIGTERM while jobs run in this process.
//!
//! The first one cancels the jobs that listen. One that finds no job to cancel, because all have been asked already or
//! none runs, ends the process at once: a job whose code never returns must not take the terminal hostage.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use flott_schema::{Error, Result};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// Launchers (`timeout`, `flott run`) pass on an interrupt that the terminal has delivered to the whole process group
/// as well: what comes this soon after the first is the same one.
const ECHO: Duration = Duration::from_millis(200);

/// The exit code of a process that was interrupted with no job left to cancel: failed.
const EXIT_CODE: i32 = 1;

static LISTENERS: LazyLock<Mutex<Listeners>> = LazyLock::new(Mutex::default);

fn listeners() -> MutexGuard<'static, Listeners> {
    // The list is whole at every moment, also where a holder of the lock panicked.
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A job's ear for interrupts.
pub struct Interrupts {
    request: Arc<Notify>,
}

impl Interrupts {
    /// Listens until dropped. The first call in a process takes the signals over from their default action.
    pub fn listen() -> Result<Self> {
        static STARTED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
        let started = STARTED.get_or_init(|| start().map_err(|error| error.to_string()));
        started.clone().map_err(|error| Error::internal(format!("cannot listen to signals: {error}")))?;
        let request = Arc::<Notify>::default();
        listeners().jobs.push(request.clone());
        Ok(Interrupts { request })
    }

    /// Waits until the job is asked to cancel; that is once at most.
    pub async fn requested(&self) {
        self.request.notified().await;
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        listeners().jobs.retain(|request| !Arc::ptr_eq(request, &self.request));
    }
}

/// Starts the thread that waits for signals.
fn start() -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (interrupt, terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let thread = std::thread::Builder::new().name("flott-signals".into());
    thread.spawn(move || runtime.block_on(obey(interrupt, terminate))).map(drop)
}

async fn obey(mut interrupt: Signal, mut terminate: Signal) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        let order = listeners().interrupted(Instant::now());
        match order {
            Order::Nothing => {}
            Order::Cancel(jobs) => jobs.iter().for_each(|job| job.notify_one()),
            Order::Leave => {
                eprintln!("interrupted: ending at once");
                std::process::exit(EXIT_CODE);
            }
        }
    }
}

/// The jobs that have not been asked to cancel yet, and when others were asked last.
#[derive(Default)]
struct Listeners {
    jobs: Vec<Arc<Notify>>,
    asked: Option<Instant>,
}

enum Order {
    Nothing,
    Cancel(Vec<Arc<Notify>>),
    Leave,
}

impl Listeners {
    fn interrupted(&mut self, now: Instant) -> Order {
        if !self.jobs.is_empty() {
            self.asked = Some(now);
            return Order::Cancel(std::mem::take(&mut self.jobs));
        }
        match self.asked {
            Some(asked) if now.saturating_duration_since(asked) < ECHO => Order::Nothing,
            _ => Order::Leave,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_interrupt_cancels_its_echo_does_nothing_the_second_leaves() {
        let now = Instant::now();
        let mut listeners = Listeners { jobs: vec![Arc::default(), Arc::default()], asked: None };
        assert!(matches!(listeners.interrupted(now), Order::Cancel(jobs) if jobs.len() == 2));
        assert!(matches!(listeners.interrupted(now + ECHO / 2), Order::Nothing));
        assert!(matches!(listeners.interrupted(now + ECHO), Order::Leave));
        listeners.jobs.push(Arc::default());
        assert!(matches!(listeners.interrupted(now + 2 * ECHO), Order::Cancel(jobs) if jobs.len() == 1));
    }

    #[test]
    fn without_a_job_an_interrupt_leaves() {
        assert!(matches!(Listeners::default().interrupted(Instant::now()), Order::Leave));
    }
}
