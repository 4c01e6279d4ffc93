//! The object that coordinators call: orders, and questions to the worker.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use flott_schema::answer::ProgramRun;
use flott_schema::control::Order;
use flott_schema::error::{Error, ErrorKind, Result};
use flott_schema::job::ProgramRef;
use flott_schema::wire::fields::{list_length, required, text, write_list};
use flott_schema::wire::generated::control_capnp::worker;
use flott_schema::wire::write_id;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::spawn_blocking;

use super::book::Book;
use super::side::WorkerSide;

/// Most bytes of a log file in one answer.
const LOG_PART_BYTES_MAX: u32 = 4 << 20;

/// Questions that are answered at the same time; further ones wait.
const QUESTIONS_MAX: usize = 4;

/// Programs that run as clients at the same time; they may take minutes, and log files are to be read meanwhile.
const RUNS_MAX: usize = 4;

/// What a session keeps from one connection to the next.
pub(super) struct Shared {
    pub book: RefCell<Book>,
    /// The highest term seen.
    pub term: Cell<u64>,
    pub orders: mpsc::Sender<Order>,
    pub side: Arc<dyn WorkerSide>,
}

/// The worker as a coordinator sees it through one connection.
pub(super) struct Answers {
    shared: Rc<Shared>,
    /// Orders wait until the registration is through, so that none overtakes what follows from it.
    open: watch::Receiver<bool>,
    questions: Semaphore,
    runs: Semaphore,
}

impl Answers {
    pub(super) fn new(shared: Rc<Shared>, open: watch::Receiver<bool>) -> Self {
        Answers { shared, open, questions: Semaphore::new(QUESTIONS_MAX), runs: Semaphore::new(RUNS_MAX) }
    }

    async fn take(&self, order: Order) -> Result<()> {
        let mut open = self.open.clone();
        let gone = |_| Error::new(ErrorKind::Cancelled, "the session is over");
        open.wait_for(|open| *open).await.map_err(gone)?;
        self.fence(&order)?;
        let room = self.shared.orders.reserve().await;
        let room = room.map_err(|_| Error::new(ErrorKind::Cancelled, "the worker is ending"))?;
        // The wait may have been long.
        self.fence(&order)?;
        self.shared.term.set(order.term);
        self.shared.book.borrow_mut().note_order(&order);
        room.send(order);
        Ok(())
    }

    fn fence(&self, order: &Order) -> Result<()> {
        let seen = self.shared.term.get();
        if order.term >= seen {
            return Ok(());
        }
        let text = format!(
            "the order is of term {}, but term {seen} has begun: another coordinator leads",
            order.term
        );
        Err(Error::new(ErrorKind::Cancelled, text))
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn WorkerSide) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _room = self.questions.acquire().await;
        let side = self.shared.side.clone();
        spawn_blocking(move || question(&*side)).await.map_err(|error| Error::internal(error.to_string()))?
    }
}

impl worker::Server for Answers {
    async fn order(
        self: Rc<Self>,
        params: worker::OrderParams,
        _: worker::OrderResults,
    ) -> capnp::Result<()> {
        let order = {
            let form = params.get()?;
            required("order", form.has_order(), form.get_order()).map_err(failed)?
        };
        self.take(order).await.map_err(failed)
    }

    async fn list_logs(
        self: Rc<Self>,
        _: worker::ListLogsParams,
        mut results: worker::ListLogsResults,
    ) -> capnp::Result<()> {
        let files = self.ask(|side| side.list_logs()).await.map_err(failed)?;
        let form = results.get();
        write_list("files", &files, |length| form.init_files(length)).map_err(failed)
    }

    async fn read_log(
        self: Rc<Self>,
        params: worker::ReadLogParams,
        mut results: worker::ReadLogResults,
    ) -> capnp::Result<()> {
        let form = params.get()?;
        let name = text("name", form.get_name()).map_err(failed)?;
        let (offset, length_max) = (form.get_offset(), form.get_length().min(LOG_PART_BYTES_MAX));
        let part = self.ask(move |side| side.read_log(&name, offset, length_max)).await.map_err(failed)?;
        let mut form = results.get();
        form.set_part(&part.bytes);
        form.set_size(part.size);
        Ok(())
    }

    async fn run_program(
        self: Rc<Self>,
        params: worker::RunProgramParams,
        mut results: worker::RunProgramResults,
    ) -> capnp::Result<()> {
        let form = params.get()?;
        let program: ProgramRef =
            required("program", form.has_program(), form.get_program()).map_err(failed)?;
        let address = text("restAddress", form.get_rest_address()).map_err(failed)?;
        let plan_only = form.get_plan_only();
        let _room = self.runs.acquire().await;
        let outcome = self.shared.side.run_program(program, address, plan_only).await;
        let mut form = results.get().init_result();
        match outcome {
            Ok(ProgramRun::Submitted(jobs)) => {
                let mut forms = form.init_submitted(list_length("submitted", jobs.len()).map_err(failed)?);
                for (index, job) in (0..).zip(jobs) {
                    write_id(job.0, forms.reborrow().get(index));
                }
            }
            Ok(ProgramRun::Plan(plan)) => form.set_plan(&plan),
            Err(error) => form.set_failed(error.to_string()),
        }
        Ok(())
    }
}

/// An error as it goes back to the caller.
fn failed(error: Error) -> capnp::Error {
    capnp::Error::failed(error.to_string())
}
