//! Savepoints that are being deleted on request, and what came of it. The memory of one coordinator: another that leads knows nothing
//! of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::machine::OperationId;

/// Requests that are remembered.
const REMEMBERED_MAX: usize = 256;

/// What came of a request; nothing while it is under way.
type Disposal = Option<Result<(), String>>;

/// The requests, the oldest first. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Disposals(Arc<Mutex<VecDeque<(OperationId, Disposal)>>>);

impl Disposals {
    /// Notes a request. False: it is known already.
    pub(super) fn begin(&self, operation: OperationId) -> bool {
        let mut known = self.lock();
        if known.iter().any(|(other, _)| *other == operation) {
            return false;
        }
        known.push_back((operation, None));
        if known.len() > REMEMBERED_MAX {
            known.pop_front();
        }
        true
    }

    pub(super) fn end(&self, operation: OperationId, result: Result<(), String>) {
        if let Some((_, found)) = self.lock().iter_mut().find(|(other, _)| *other == operation) {
            *found = Some(result);
        }
    }

    /// What came of a request; nothing if it is not known.
    pub(super) fn result(&self, operation: OperationId) -> Option<Disposal> {
        self.lock().iter().find(|(other, _)| *other == operation).map(|(_, result)| result.clone())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(OperationId, Disposal)>> {
        // It is whole at every moment, also where a holder of the lock panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_followed_once_and_the_oldest_are_forgotten() {
        let disposals = Disposals::default();
        assert!(disposals.begin(OperationId(1)) && !disposals.begin(OperationId(1)));
        assert_eq!(disposals.result(OperationId(1)), Some(None));
        disposals.end(OperationId(1), Err("no such folder".into()));
        assert_eq!(disposals.result(OperationId(1)), Some(Some(Err("no such folder".into()))));
        (2..).take(REMEMBERED_MAX).for_each(|number| assert!(disposals.begin(OperationId(number))));
        assert_eq!(disposals.result(OperationId(1)), None);
    }
}
