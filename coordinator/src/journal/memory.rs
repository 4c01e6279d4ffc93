//! The journal of a coordinator that is alone and keeps nothing.

use std::future::{pending, ready};

use super::{Journal, Notice, Role};
use crate::machine::Event;

/// Commits at once, and forgets. Its coordinator leads from the start, in term 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryJournal;

impl Journal for MemoryJournal {
    fn role(&self) -> Role {
        Role::Leader { term: 1 }
    }

    fn propose(&mut self, _proposal: u64, events: Vec<Event>) -> Option<Vec<Event>> {
        Some(events)
    }

    fn next(&mut self) -> impl Future<Output = Notice> + Send {
        pending()
    }

    fn close(&mut self) -> impl Future<Output = ()> + Send {
        ready(())
    }
}
