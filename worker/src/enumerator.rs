//! The split enumerator of a source: one actor a job and source, on a thread apart from the slots, so that it may list
//! folders and ask servers without holding up records.

use actix::{Actor, Context, Handler, Message};
use flott_dataflow::source::{Assignment, ErasedEnumerator};
use flott_schema::Result;

use crate::panics;

/// Takes the answer to one request, on any thread.
pub type Reply = Box<dyn FnOnce(Result<Assignment<Vec<u8>>>) + Send>;

/// Asks the enumerator of a source, here or in another executor, for the reader with this parallel index.
pub type AskSplit = Box<dyn Fn(u32, Reply) + Send>;

/// Hands out the splits of one source.
pub struct Enumerator {
    enumerator: Result<Box<dyn ErasedEnumerator>>,
}

impl Enumerator {
    /// An actor around an enumerator that `make` makes on the actor's thread.
    pub fn new(make: impl FnOnce() -> Result<Box<dyn ErasedEnumerator>>) -> Self {
        Enumerator { enumerator: panics::guard(make) }
    }
}

impl Actor for Enumerator {
    type Context = Context<Self>;
}

/// A reader asks for work.
pub struct SplitRequest {
    /// The reader's parallel index.
    pub subtask: u32,
    /// Where the answer goes.
    pub reply: Reply,
}

impl Message for SplitRequest {
    type Result = ();
}

impl Handler<SplitRequest> for Enumerator {
    type Result = ();

    fn handle(&mut self, request: SplitRequest, _ctx: &mut Self::Context) {
        let answer: Result<Assignment<Vec<u8>>> = match &mut self.enumerator {
            Ok(enumerator) => panics::guard(|| enumerator.next_split(request.subtask)),
            Err(error) => Err(flott_schema::Error::new(error.kind(), error.to_string())),
        };
        (request.reply)(answer.map_err(|error| error.at("split enumerator")));
    }
}
