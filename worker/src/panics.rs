//! Panics in tasks: caught, with their place and backtrace, and kept off the standard error.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use flott_schema::{Error, Result};

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    static LAST: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Installs, once in the process, a panic hook that notes the panics of tasks and leaves all others to the hook that was
/// there before.
pub fn install_hook() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                return before(info);
            }
            let place = info
                .location()
                .map_or(String::new(), |place| format!(" at {}:{}", place.file(), place.line()));
            LAST.set(Some((place, Backtrace::force_capture().to_string())));
        }));
    });
}

/// Runs `f`; a panic becomes an error with message, place and backtrace.
pub fn guard<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
    let nested = CATCHING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(f));
    CATCHING.set(nested);
    result.unwrap_or_else(|payload| Err(panic_error(&*payload)))
}

fn panic_error(payload: &(dyn Any + Send)) -> Error {
    let message = flott_dataflow::function::panic_message(payload);
    match LAST.take() {
        Some((place, backtrace)) => {
            Error::user(format!("panicked{place}: {message}")).with_backtrace(trim(&backtrace))
        }
        None => Error::user(format!("panicked: {message}")),
    }
}

/// Leaves out the frames of the panic machinery above the one that panicked and those of the thread below the task.
fn trim(backtrace: &str) -> String {
    let lines: Vec<&str> = backtrace.lines().collect();
    let is_frame =
        |line: &&str| line.trim_start().split_once(':').is_some_and(|(n, _)| n.parse::<u32>().is_ok());
    let after = |needle: &str| lines.iter().rposition(|line| line.contains(needle)).map(|at| at + 1);
    let mut start = after("rust_begin_unwind").or_else(|| after("begin_panic_handler")).unwrap_or(0);
    while start < lines.len() && !is_frame(&lines[start]) {
        start += 1;
    }
    let end = lines.iter().position(|line| line.contains("flott_worker::pump::")).unwrap_or(lines.len());
    lines[start.min(end)..end].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_message_place_and_backtrace() {
        install_hook();
        let error = guard::<()>(|| panic!("no rule for {}", 7)).unwrap_err();
        assert!(error.message().starts_with("panicked at worker/src/panics.rs:"), "{error}");
        assert!(error.message().ends_with("no rule for 7"), "{error}");
        assert!(error.backtrace().is_some());
    }
}
