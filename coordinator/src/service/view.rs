//! Reading the state of the machine: what people ask for, answered between two events.

use super::error::CoordinatorError;
use super::handle::{Command, Handle};
use crate::machine::ClusterState;

/// A question to the state, see [`Handle::read`].
pub(super) type Question = Box<dyn FnOnce(&ClusterState) + Send>;

impl Handle {
    /// Asks the state: `question` runs in the loop, between two events, and takes out what it needs. It must be quick,
    /// and neither wait nor panic: no event is applied meanwhile. A follower answers from its own copy, which may lag
    /// behind the leader's.
    pub async fn read<T: Send + 'static>(
        &self,
        call: &'static str,
        question: impl FnOnce(&ClusterState) -> T + Send + 'static,
    ) -> Result<T, CoordinatorError> {
        self.ask(call, |reply| {
            Command::Read(Box::new(move |state| {
                // Who asked may be gone; the answer is dropped then.
                let _ = reply.send(Ok(question(state)));
            }))
        })
        .await
    }
}
