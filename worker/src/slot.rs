//! Slots: one thread each, an actix arbiter with its own single-threaded tokio runtime.

use actix::{Actor, Addr, Arbiter, Context};

/// A thread that runs subtask actors.
pub struct Slot {
    arbiter: Arbiter,
}

impl Slot {
    /// Starts the thread. An actix system must be running on the calling thread.
    pub fn start() -> Self {
        Slot { arbiter: Arbiter::new() }
    }

    /// Starts an actor on the slot's thread; it is made there.
    pub fn start_actor<A: Actor<Context = Context<A>>>(
        &self,
        make: impl FnOnce() -> A + Send + 'static,
    ) -> Addr<A> {
        A::start_in_arbiter(&self.arbiter.handle(), move |_| make())
    }

    /// Ends the thread once its current work is done.
    pub fn stop(&self) {
        self.arbiter.stop();
    }
}
