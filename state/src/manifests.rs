//! The manifest that the tasks of an executor start from: read once for all of them, and not waited for without end.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use flott_schema::snapshot::{MANIFEST_FILE, Manifest, RestoreFrom};
use flott_schema::{Error, ErrorKind, Result};

use crate::pool::lock;

/// Threads that may read manifests at a time: one does, and those before it hang in a storage that does not answer.
const READERS_MAX: usize = 4;

/// The manifest that was read last, or is being read.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    state: Mutex<State>,
    read: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last: Option<(RestoreFrom, Stand)>,
    /// Numbers what is read: what comes too late is of no use any more.
    number: u64,
    readers: usize,
}

/// How far a manifest is.
#[derive(Debug)]
enum Stand {
    Read(Arc<Manifest>),
    /// That is for those who have waited; who comes later reads again.
    Failed(ErrorKind, String),
    UnderWay,
}

impl Manifests {
    /// The manifest of `from`, which `read` reads on a thread of its own unless it is there or under way. Waits for it as long as this.
    pub(crate) fn get(
        self: &Arc<Self>,
        from: &RestoreFrom,
        wait: Duration,
        read: impl FnOnce() -> Result<Manifest> + Send + 'static,
    ) -> Result<Arc<Manifest>> {
        let deadline = Instant::now() + wait;
        let mut read = Some(read);
        let mut has_waited = false;
        let mut state = lock(&self.state);
        loop {
            match state.last.as_ref().filter(|(other, _)| other == from).map(|(_, stand)| stand) {
                Some(Stand::Read(manifest)) => return Ok(manifest.clone()),
                Some(Stand::Failed(kind, message)) if has_waited => {
                    return Err(Error::new(*kind, message.clone()).at(from.to_string()));
                }
                Some(Stand::UnderWay) => {}
                Some(Stand::Failed(..)) | None => match read.take_if(|_| !has_waited) {
                    Some(read) => self.begin(&mut state, from, read)?,
                    None => {
                        let what = "the manifest of another snapshot is asked for by now";
                        return Err(Error::new(ErrorKind::Io, what).at(from.to_string()));
                    }
                },
            }
            has_waited = true;
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = format!("the manifest has not come within {} ms", wait.as_millis());
                return Err(unanswered(from, &what));
            }
            (state, _) = self.read.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn begin(
        self: &Arc<Self>,
        state: &mut State,
        from: &RestoreFrom,
        read: impl FnOnce() -> Result<Manifest> + Send + 'static,
    ) -> Result<()> {
        if state.readers >= READERS_MAX {
            let what = format!("{READERS_MAX} manifests of other snapshots have yet to come");
            return Err(unanswered(from, &what));
        }
        let number = state.number + 1;
        let all = self.clone();
        let run = move || {
            let mut reading = Reading { all, number, came: None };
            reading.came = Some(read());
        };
        std::thread::Builder::new().name("state-manifest".into()).spawn(run).map_err(|error| {
            Error::new(ErrorKind::Resources, format!("no thread to read a manifest: {error}"))
        })?;
        (state.number, state.readers) = (number, state.readers + 1);
        state.last = Some((from.clone(), Stand::UnderWay));
        Ok(())
    }
}

/// A manifest being read; what came of it is told at the end, also after a panic.
struct Reading {
    all: Arc<Manifests>,
    number: u64,
    came: Option<Result<Manifest>>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut state = lock(&self.all.state);
        state.readers -= 1;
        if state.number == self.number
            && let Some((_, stand)) = &mut state.last
        {
            *stand = match self.came.take() {
                Some(Ok(manifest)) => Stand::Read(Arc::new(manifest)),
                Some(Err(error)) => Stand::Failed(error.kind(), error.to_string()),
                None => {
                    let what = "the thread that read the manifest has panicked".to_string();
                    Stand::Failed(ErrorKind::Internal, what)
                }
            };
        }
        self.all.read.notify_all();
    }
}

fn unanswered(from: &RestoreFrom, what: &str) -> Error {
    let text = format!(
        "{what}; the storage of {MANIFEST_FILE} does not answer: see that this host can read the folder; the job's restart \
         strategy says whether it is tried again"
    );
    Error::new(ErrorKind::Io, text).at(from.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use flott_schema::ids::JobId;
    use flott_schema::snapshot::SnapshotKind;

    use super::*;

    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(20);

    fn from(checkpoint: u64) -> RestoreFrom {
        RestoreFrom { folder: "/snapshots".into(), checkpoint, ignore_unclaimed: false, own: true }
    }

    fn manifest(checkpoint: u64) -> Manifest {
        Manifest {
            job: JobId(1),
            job_name: "job".into(),
            checkpoint,
            kind: SnapshotKind::Checkpoint,
            timestamp_ms: 0,
            vertices: Vec::new(),
            tasks: Vec::new(),
        }
    }

    /// A storage that answers when it is told to.
    fn hanging(checkpoint: u64) -> (SyncSender<()>, impl FnOnce() -> Result<Manifest> + Send + 'static) {
        let (answer, word): (_, Receiver<()>) = sync_channel(1);
        let read = move || {
            word.recv_timeout(LONG).unwrap();
            Ok(manifest(checkpoint))
        };
        (answer, read)
    }

    fn never() -> Result<Manifest> {
        panic!("it is read already, or being read")
    }

    #[test]
    fn a_manifest_that_does_not_come_is_an_error_and_may_come_later() {
        let manifests = Arc::new(Manifests::default());
        let (answer, read) = hanging(3);
        let error = manifests.get(&from(3), SHORT, read).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        let text = error.to_string();
        assert!(text.contains("snapshot 3 in /snapshots") && text.contains("within 5 ms"), "{text}");
        // The next attempt waits for the same answer.
        assert!(manifests.get(&from(3), SHORT, never).is_err());
        answer.send(()).unwrap();
        assert_eq!(manifests.get(&from(3), LONG, never).unwrap().checkpoint, 3);
    }

    #[test]
    fn it_is_read_once_for_all_tasks_and_the_next_one_anew() {
        let manifests = Arc::new(Manifests::default());
        let (answer, read) = hanging(3);
        let first = std::thread::spawn({
            let manifests = manifests.clone();
            move || manifests.get(&from(3), LONG, read)
        });
        while lock(&manifests.state).readers == 0 {
            std::thread::yield_now();
        }
        let others = [(); 3].map(|()| {
            let manifests = manifests.clone();
            std::thread::spawn(move || manifests.get(&from(3), LONG, never))
        });
        answer.send(()).unwrap();
        for task in others.into_iter().chain([first]) {
            assert_eq!(task.join().unwrap().unwrap().checkpoint, 3);
        }
        assert_eq!(manifests.get(&from(4), LONG, || Ok(manifest(4))).unwrap().checkpoint, 4);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_of_all_who_wait_and_read_anew_by_others() {
        let manifests = Arc::new(Manifests::default());
        let (answer, word): (_, Receiver<()>) = sync_channel(1);
        let damaged = move || {
            word.recv_timeout(LONG).unwrap();
            Err(Error::bad_input("damaged"))
        };
        assert!(manifests.get(&from(3), SHORT, damaged).is_err());
        let other = std::thread::spawn({
            let manifests = manifests.clone();
            move || manifests.get(&from(3), LONG, || Err(Error::bad_input("damaged")))
        });
        answer.send(()).unwrap();
        let error = other.join().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.to_string().contains("damaged")), (ErrorKind::BadInput, true));
        let broken = || Err(Error::bad_input("damaged"));
        let error = manifests.get(&from(3), LONG, broken).unwrap_err();
        assert_eq!((error.kind(), error.to_string().contains("damaged")), (ErrorKind::BadInput, true));
        let error = manifests.get(&from(3), LONG, never).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
        assert_eq!(manifests.get(&from(3), LONG, || Ok(manifest(3))).unwrap().checkpoint, 3);
    }

    #[test]
    fn threads_that_hang_do_not_pile_up() {
        let manifests = Arc::new(Manifests::default());
        let mut answers = Vec::new();
        for checkpoint in 0..READERS_MAX as u64 {
            let (answer, read) = hanging(checkpoint);
            assert!(manifests.get(&from(checkpoint), SHORT, read).is_err());
            answers.push(answer);
        }
        let error = manifests.get(&from(9), LONG, never).unwrap_err().to_string();
        assert!(error.contains("4 manifests of other snapshots"), "{error}");
        // One that comes late takes no other's place.
        answers.iter().for_each(|answer| answer.send(()).unwrap());
        while lock(&manifests.state).readers > 0 {
            std::thread::yield_now();
        }
        assert_eq!(manifests.get(&from(3), LONG, never).unwrap().checkpoint, 3);
        assert_eq!(manifests.get(&from(0), LONG, || Ok(manifest(0))).unwrap().checkpoint, 0);
    }
}
