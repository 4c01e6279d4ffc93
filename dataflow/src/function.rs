//! Carries the job's closures and function objects to where they run.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

/// A function of the job: one clone runs in each task.
pub trait Function: Clone + Send + 'static {}

impl<F: Clone + Send + 'static> Function for F {}

/// A prototype from which each task gets its clone. The lock is taken once per task, when the task is built; it lets
/// functions be `Send` without being `Sync`.
pub struct Prototype<F>(Mutex<F>);

impl<F: Clone> Prototype<F> {
    /// Keeps `function` as prototype.
    pub fn new(function: F) -> Self {
        Prototype(Mutex::new(function))
    }

    /// A clone of the prototype.
    pub fn get(&self) -> F {
        // A clone that panicked leaves the prototype as it was.
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

/// Runs `f`, giving a panic's message instead of unwinding.
pub fn catch_panic<R>(f: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| panic_message(&*payload))
}

/// The message of a panic.
pub fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|message| message.to_string())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic with a payload that is no text".to_string())
}
