//! Fault injection: points in the way of a snapshot at which a test kills the process, or lets a write fail.
//!
//! * [`point`], [`write`], [`halves`]: what stands in the code
//! * `plan`: what `FLOTT_FAULTS` says, and what follows from it at a point; pure
//! * `strike`: who this process is, what it does at a point, and the marks that it leaves
//!
//! Who may call it: every room. What must never happen here: a build for users that can be told to fail. So all of it is behind the
//! feature `inject`, which only dev-dependencies ask for, and behind `debug_assertions`, since examples that are built for a release have dev-dependencies
//! too; without both, a point is nothing at all. It depends on nothing, so that every room may call it.

#[cfg(any(test, all(feature = "inject", debug_assertions)))]
mod plan;
#[cfg(all(feature = "inject", debug_assertions))]
mod strike;

/// The variable with the plan, see `plan`. Without it nothing happens anywhere.
pub const VARIABLE: &str = "FLOTT_FAULTS";

/// A step at which the process may be killed or held up.
#[inline]
pub fn point(name: &'static str) {
    // A step that cannot fail leaves errors alone.
    let _ = write(name);
}

/// A step that writes: the same, and it may fail as a write fails, with the error that the plan says.
#[inline]
pub fn write(name: &'static str) -> std::io::Result<()> {
    #[cfg(all(feature = "inject", debug_assertions))]
    return strike::at(name);
    #[cfg(not(all(feature = "inject", debug_assertions)))]
    {
        let _ = name;
        Ok(())
    }
}

/// Bytes to be written in two steps, with a point between them; all of them first, where no faults are injected.
#[inline]
pub fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    let first = if cfg!(all(feature = "inject", debug_assertions)) { bytes.len() / 2 } else { bytes.len() };
    bytes.split_at(first)
}
