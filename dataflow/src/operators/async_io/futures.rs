//! Futures in numbered slots, polled when woken.
//!
//! Each slot has a waker of its own that is made once and used for every future put there, so that a call costs one
//! allocation: its future. A future can be taken away at any time, which is how timeouts cancel.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Futures of type `T` in slots.
pub(super) struct Futures<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    woken: Arc<Woken>,
    /// Slots being polled; kept for its memory.
    polling: Vec<u32>,
}

struct Slot<T> {
    future: Option<Pin<Box<dyn Future<Output = T>>>>,
    state: Arc<SlotWaker>,
    waker: Waker,
}

/// The slots woken since the last poll. Futures may be woken from any thread.
#[derive(Default)]
struct Woken {
    slots: Mutex<Vec<u32>>,
    task: AtomicWaker,
}

impl Woken {
    fn slots(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        // Pushing and swapping leave the vector sound whatever happens.
        self.slots.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

struct SlotWaker {
    slot: u32,
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl SlotWaker {
    /// Whether the slot was not queued before.
    fn queue(&self) -> bool {
        let new = !self.queued.swap(true, Ordering::AcqRel);
        if new {
            self.woken.slots().push(self.slot);
        }
        new
    }
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queue() {
            self.woken.task.wake();
        }
    }
}

impl<T> Default for Futures<T> {
    fn default() -> Self {
        Futures { slots: Vec::new(), free: Vec::new(), woken: Arc::default(), polling: Vec::new() }
    }
}

impl<T> Futures<T> {
    /// A slot of its own for the caller.
    pub fn reserve(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let slot = self.slots.len() as u32;
            let state =
                Arc::new(SlotWaker { slot, queued: AtomicBool::new(false), woken: self.woken.clone() });
            let waker = Waker::from(state.clone());
            self.slots.push(Slot { future: None, state, waker });
            slot
        })
    }

    /// Puts a future into a reserved slot; the next [`Self::poll`] polls it.
    pub fn start(&mut self, slot: u32, future: impl Future<Output = T> + 'static) {
        let slot = &mut self.slots[slot as usize];
        slot.future = Some(Box::pin(future));
        slot.state.queue();
    }

    /// Drops what is in a slot, and gives the slot back.
    pub fn release(&mut self, slot: u32) {
        self.slots[slot as usize].future = None;
        self.free.push(slot);
    }

    /// Polls what was started or woken, once each; appends what is done. `cx` is woken when there is more.
    pub fn poll(&mut self, cx: &mut Context<'_>, done: &mut Vec<(u32, T)>) {
        self.woken.task.register(cx.waker());
        std::mem::swap(&mut *self.woken.slots(), &mut self.polling);
        for number in self.polling.drain(..) {
            let slot = &mut self.slots[number as usize];
            // Before the poll: a future that wakes itself is to be polled again.
            slot.state.queued.store(false, Ordering::Release);
            // A slot may have been released since it was woken.
            let Some(future) = &mut slot.future else { continue };
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&slot.waker)) {
                slot.future = None;
                done.push((number, output));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Driver {
        futures: Futures<u32>,
        wakes: Arc<Wakes>,
    }

    impl Driver {
        fn new() -> Self {
            Driver { futures: Futures::default(), wakes: Arc::default() }
        }

        fn start(&mut self, future: impl Future<Output = u32> + 'static) -> u32 {
            let slot = self.futures.reserve();
            self.futures.start(slot, future);
            slot
        }

        fn poll(&mut self) -> Vec<(u32, u32)> {
            let mut done = Vec::new();
            let waker = Waker::from(self.wakes.clone());
            self.futures.poll(&mut Context::from_waker(&waker), &mut done);
            done
        }

        fn wakes(&self) -> usize {
            self.wakes.0.swap(0, Ordering::Relaxed)
        }
    }

    #[test]
    fn futures_are_polled_when_woken_and_only_then() {
        let mut driver = Driver::new();
        let polls = Rc::new(Cell::new(0));
        let (first, mut receiver) = oneshot::channel();
        let seen = polls.clone();
        driver.start(std::future::poll_fn(move |cx| {
            seen.set(seen.get() + 1);
            Pin::new(&mut receiver).poll(cx).map(|value| value.unwrap())
        }));
        let (second, receiver) = oneshot::channel();
        driver.start(async move { receiver.await.unwrap() });
        assert_eq!(driver.poll(), []);
        second.send(2).unwrap();
        assert_eq!(driver.wakes(), 1);
        assert_eq!(driver.poll(), [(1, 2)]);
        assert_eq!(polls.get(), 1);
        // From another thread.
        std::thread::spawn(move || first.send(1).unwrap()).join().unwrap();
        assert_eq!((driver.wakes(), driver.poll()), (1, vec![(0, 1)]));
        assert_eq!(polls.get(), 2);
    }

    #[test]
    fn a_future_that_wakes_itself_lets_the_others_have_their_turn() {
        let mut driver = Driver::new();
        driver.start(async {
            tokio::task::yield_now().await;
            1
        });
        driver.start(async { 2 });
        assert_eq!(driver.poll(), [(1, 2)]);
        assert_eq!(driver.wakes(), 1);
        assert_eq!(driver.poll(), [(0, 1)]);
    }

    #[test]
    fn a_released_slot_drops_its_future_and_serves_another() {
        let mut driver = Driver::new();
        let (sender, receiver) = oneshot::channel::<u32>();
        let slot = driver.start(async move { receiver.await.unwrap() });
        driver.poll();
        driver.futures.release(slot);
        assert!(sender.is_closed());
        let (sender, receiver) = oneshot::channel::<u32>();
        assert_eq!(driver.start(async move { receiver.await.unwrap() }), slot);
        driver.wakes();
        assert_eq!(driver.poll(), []);
        sender.send(7).unwrap();
        assert_eq!((driver.wakes(), driver.poll()), (1, vec![(slot, 7)]));
    }
}
