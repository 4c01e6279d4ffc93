//! The split enumerator of a source: one actor a job and source, on a thread apart from the slots, so that it may list
//! folders and ask servers without holding up records.

use std::collections::{BTreeMap, BTreeSet};

use actix::{Actor, Context, Handler, Message};
use flott_dataflow::source::{Assignment, ErasedEnumerator};
use flott_schema::control::LAST_SNAPSHOT;
use flott_schema::{Error, ErrorKind, Result};

use crate::panics;

/// Takes the answer to one request, on any thread.
pub type Reply = Box<dyn FnOnce(Result<Assignment<Vec<u8>>>) + Send>;

/// Asks the enumerator of a source, here or in another executor, for the reader with this parallel index, which has sent the barriers
/// up to this checkpoint; [`LAST_SNAPSHOT`]: which had finished before the snapshot that the job starts from, and reads nothing.
pub type AskSplit = Box<dyn Fn(u32, u64, Reply) + Send>;

/// Takes the state of an enumerator, on any thread.
pub type StateReply = Box<dyn FnOnce(Result<Vec<u8>>) + Send>;

/// Takes the last states of an enumerator, on any thread.
pub type LastReply = Box<dyn FnOnce(LastStates) + Send>;

/// Asks an enumerator in this executor for state.
pub type AskState = Box<dyn Fn(WantedState) + Send>;

/// Which state of an enumerator is wanted, and where it goes.
pub enum WantedState {
    /// That in a snapshot.
    In(u64, StateReply),
    /// The last, which are there when all readers know that there are no more splits for them.
    Last(LastReply),
}

/// What an enumerator leaves when no reader can get a split any more.
pub struct LastStates {
    /// The newest barrier that it knows a reader has sent, or was to send.
    pub epoch: u64,
    /// Its state behind that: that in all later snapshots.
    pub state: Result<Vec<u8>>,
    /// The states in snapshots up to it: readers may have got splits behind their barriers, while the task with which the enumerator lives
    /// has yet to hear of them.
    before: BTreeMap<u64, Stored>,
}

impl LastStates {
    /// With nothing before it.
    pub(crate) fn of(state: Result<Vec<u8>>) -> Self {
        LastStates { epoch: 0, state, before: BTreeMap::new() }
    }

    /// Behind snapshots with these states.
    #[cfg(test)]
    pub(crate) fn behind<const N: usize>(state: Result<Vec<u8>>, before: [(u64, Vec<u8>); N]) -> Self {
        let before: BTreeMap<u64, Stored> = before.map(|(checkpoint, state)| (checkpoint, Ok(state))).into();
        LastStates { epoch: before.last_key_value().map_or(0, |(checkpoint, _)| *checkpoint), state, before }
    }

    /// The state in a snapshot up to [`LastStates::epoch`].
    pub fn state_in(&self, checkpoint: u64) -> Result<Vec<u8>> {
        state_in(&self.before, checkpoint)
    }
}

/// How long a reader waits whose barrier is on its way.
const BEHIND_MS: u64 = 1;
/// States kept until they are asked for.
const STATES_KEPT: usize = 16;

/// Hands out the splits of one source.
///
/// Its state in snapshot n is that of the moment before the first split for a reader behind barrier n. So each split is in the state of the
/// enumerator or in that of a reader: a reader in front of a barrier that the enumerator is behind has to wait for its barrier first.
pub struct Enumerator {
    enumerator: Result<Box<dyn ErasedEnumerator>>,
    /// The last snapshot it has taken part in.
    epoch: u64,
    states: BTreeMap<u64, Stored>,
    /// How many readers there are, and which know that there are no more splits for them.
    readers: u32,
    told: BTreeSet<u32>,
    /// Who waits for the last state.
    last: Option<LastReply>,
}

/// A state, or why there is none.
type Stored = std::result::Result<Vec<u8>, (ErrorKind, String)>;

impl Enumerator {
    /// An actor around an enumerator for so many readers, that `make` makes on the actor's thread.
    pub fn new(readers: u32, make: impl FnOnce() -> Result<Box<dyn ErasedEnumerator>>) -> Self {
        let (states, told) = (BTreeMap::new(), BTreeSet::new());
        Enumerator { enumerator: panics::guard(make), epoch: 0, states, readers, told, last: None }
    }

    /// Work for a reader that has sent the barriers up to `epoch`.
    fn split(&mut self, subtask: u32, epoch: u64) -> Result<Assignment<Vec<u8>>> {
        if epoch == LAST_SNAPSHOT {
            self.told.insert(subtask);
            return Ok(Assignment::NoMore);
        }
        self.advance(epoch);
        if epoch < self.epoch {
            return Ok(Assignment::Later(BEHIND_MS));
        }
        let answer = match &mut self.enumerator {
            Ok(enumerator) => panics::guard(|| enumerator.next_split(subtask)),
            Err(error) => Err(Error::new(error.kind(), error.to_string())),
        };
        if matches!(answer, Ok(Assignment::NoMore)) {
            self.told.insert(subtask);
        }
        answer.map_err(|error| error.at("split enumerator"))
    }

    /// Gives the last states, if somebody waits for them and no reader can get a split any more: one that was given behind them would be in
    /// them and with the reader.
    fn give_last(&mut self) {
        if (self.enumerator.is_err() || self.told.len() >= self.readers as usize)
            && let Some(reply) = self.last.take()
        {
            reply(LastStates { epoch: self.epoch, state: self.state(), before: self.states.clone() });
        }
    }

    /// Its state in a snapshot.
    fn state_in(&mut self, checkpoint: u64) -> Result<Vec<u8>> {
        self.advance(checkpoint);
        state_in(&self.states, checkpoint)
    }

    fn state(&self) -> Result<Vec<u8>> {
        match &self.enumerator {
            Ok(enumerator) => panics::guard(|| enumerator.snapshot()),
            Err(error) => Err(Error::new(error.kind(), error.to_string())),
        }
    }

    fn advance(&mut self, checkpoint: u64) {
        if checkpoint > self.epoch {
            self.epoch = checkpoint;
            self.states.insert(checkpoint, self.state().map_err(|error| (error.kind(), error.to_string())));
            while self.states.len() > STATES_KEPT {
                self.states.pop_first();
            }
        }
    }
}

/// Of a snapshot that was passed over, the state is that in the next: no split was given between them.
fn state_in(states: &BTreeMap<u64, Stored>, checkpoint: u64) -> Result<Vec<u8>> {
    match states.range(checkpoint..).next() {
        Some((_, Ok(state))) => Ok(state.clone()),
        Some((_, Err((kind, message)))) => Err(Error::new(*kind, message.clone())),
        None => Err(Error::internal(format!("the split enumerator has no state of checkpoint {checkpoint}"))),
    }
}

impl Actor for Enumerator {
    type Context = Context<Self>;
}

/// A reader asks for work.
pub struct SplitRequest {
    /// The reader's parallel index.
    pub subtask: u32,
    /// The last barrier it has sent, or [`LAST_SNAPSHOT`]: see [`AskSplit`].
    pub epoch: u64,
    /// Where the answer goes.
    pub reply: Reply,
}

impl Message for SplitRequest {
    type Result = ();
}

impl Handler<SplitRequest> for Enumerator {
    type Result = ();

    fn handle(&mut self, request: SplitRequest, _ctx: &mut Self::Context) {
        (request.reply)(self.split(request.subtask, request.epoch));
        self.give_last();
    }
}

impl Message for WantedState {
    type Result = ();
}

impl Handler<WantedState> for Enumerator {
    type Result = ();

    fn handle(&mut self, wanted: WantedState, _ctx: &mut Self::Context) {
        match wanted {
            WantedState::In(checkpoint, reply) => reply(self.state_in(checkpoint)),
            WantedState::Last(reply) => {
                self.last = Some(reply);
                self.give_last();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Deals out one byte after the other; its state is the next one.
    struct Bytes(u8);

    impl ErasedEnumerator for Bytes {
        fn next_split(&mut self, _subtask: u32) -> Result<Assignment<Vec<u8>>> {
            self.0 += 1;
            Ok(Assignment::Split(vec![self.0 - 1]))
        }

        fn snapshot(&self) -> Result<Vec<u8>> {
            Ok(vec![self.0])
        }

        fn restore(&mut self, state: &[u8]) -> Result<()> {
            self.0 = state[0];
            Ok(())
        }
    }

    fn bytes() -> Enumerator {
        Enumerator::new(2, || Ok(Box::new(Bytes(0)) as Box<dyn ErasedEnumerator>))
    }

    fn split(byte: u8) -> Assignment<Vec<u8>> {
        Assignment::Split(vec![byte])
    }

    #[test]
    fn a_split_is_in_the_state_of_the_enumerator_or_in_that_of_a_reader() {
        let mut bytes = bytes();
        assert_eq!(bytes.split(0, 0).unwrap(), split(0));
        // The order for snapshot 1 comes here first: a reader whose barrier is on its way has to send it first.
        assert_eq!(bytes.state_in(1).unwrap(), [1]);
        assert_eq!(bytes.split(1, 0).unwrap(), Assignment::Later(BEHIND_MS));
        assert_eq!(bytes.split(1, 1).unwrap(), split(1));
        // A reader behind barrier 2 asks first: the state is that before its split.
        assert_eq!(bytes.split(0, 2).unwrap(), split(2));
        assert_eq!(bytes.split(1, 1).unwrap(), Assignment::Later(BEHIND_MS));
        assert_eq!(bytes.state_in(2).unwrap(), [2]);
    }

    /// A split for each reader, and no more.
    struct OneEach(Vec<u8>);

    impl ErasedEnumerator for OneEach {
        fn next_split(&mut self, subtask: u32) -> Result<Assignment<Vec<u8>>> {
            let position = self.0.iter().position(|reader| u32::from(*reader) == subtask);
            Ok(position.map_or(Assignment::NoMore, |at| Assignment::Split(vec![self.0.remove(at)])))
        }

        fn snapshot(&self) -> Result<Vec<u8>> {
            Ok(self.0.clone())
        }

        fn restore(&mut self, state: &[u8]) -> Result<()> {
            self.0 = state.to_vec();
            Ok(())
        }
    }

    #[test]
    fn the_last_state_waits_until_no_reader_can_get_a_split_any_more() {
        let mut each = Enumerator::new(3, || Ok(Box::new(OneEach(vec![0, 1])) as Box<dyn ErasedEnumerator>));
        let (sender, answers) = std::sync::mpsc::sync_channel(1);
        assert_eq!(each.split(0, 0).unwrap(), split(0));
        assert_eq!(each.split(0, 0).unwrap(), Assignment::NoMore);
        // The reader with which the enumerator lives has ended; another one is yet to get its split.
        each.last = Some(Box::new(move |last| sender.send(last.state.unwrap()).unwrap()));
        each.give_last();
        assert_eq!(each.split(2, LAST_SNAPSHOT).unwrap(), Assignment::NoMore, "it had finished long ago");
        assert_eq!(each.split(1, 0).unwrap(), split(1));
        each.give_last();
        assert!(answers.try_recv().is_err());
        assert_eq!(each.split(1, 0).unwrap(), Assignment::NoMore);
        each.give_last();
        assert_eq!(answers.try_recv().unwrap(), [0u8; 0]);
        assert_eq!(each.split(1, 0).unwrap(), Assignment::NoMore);
    }

    #[test]
    fn the_last_states_tell_those_in_snapshots_that_the_task_of_the_enumerator_has_not_heard_of() {
        let mut each =
            Enumerator::new(2, || Ok(Box::new(OneEach(vec![0, 1, 1])) as Box<dyn ErasedEnumerator>));
        let (sender, answers) = std::sync::mpsc::sync_channel(1);
        assert_eq!(each.split(0, 6).unwrap(), split(0));
        assert_eq!(each.split(0, 6).unwrap(), Assignment::NoMore);
        each.last = Some(Box::new(move |last| assert!(sender.send(last).is_ok())));
        // The other reader is quicker than the order to the task of the enumerator: it gets splits behind barriers 7 and 9, and is done.
        assert_eq!(each.split(1, 7).unwrap(), split(1));
        assert_eq!(each.split(1, 9).unwrap(), split(1));
        assert_eq!(each.split(1, 9).unwrap(), Assignment::NoMore);
        each.give_last();
        let last = answers.try_recv().unwrap();
        assert_eq!((last.epoch, last.state.as_deref().unwrap()), (9, [].as_slice()));
        let before = [7, 8, 9].map(|checkpoint| last.state_in(checkpoint).unwrap());
        assert_eq!(before, [vec![1, 1], vec![1], vec![1]]);
    }

    #[test]
    fn the_state_of_a_snapshot_that_was_passed_over_is_that_of_the_next() {
        let mut bytes = bytes();
        assert_eq!(bytes.split(0, 0).unwrap(), split(0));
        assert_eq!(bytes.split(0, 5).unwrap(), split(1));
        assert_eq!(bytes.state_in(4).unwrap(), [1]);
        assert_eq!(bytes.state_in(5).unwrap(), [1]);
        // Nobody asks for these; they do not pile up.
        (6..100).for_each(|epoch| drop(bytes.split(0, epoch)));
        assert!(bytes.states.len() <= STATES_KEPT);
    }
}
