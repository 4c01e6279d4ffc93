//! The runtime that all requests run on, and the clients of buckets.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use flott_schema::{Error, ErrorKind, Result};
use object_store::aws::AmazonS3;
use tokio::runtime::{Builder, Handle};

use super::failure::failed;
use super::settings::{self, Settings};

/// After so long an operation is given up, with all it tries again.
const DEADLINE: Duration = Duration::from_secs(120);
/// How much longer its caller waits, in case the runtime's thread is held up.
const GRACE: Duration = Duration::from_secs(10);

type Clients = BTreeMap<String, (Settings, Arc<AmazonS3>)>;

/// The client of a bucket, as the process is configured now. Clients keep their connections, so they are kept.
pub(super) fn client(bucket: &str) -> Result<Arc<AmazonS3>> {
    static CLIENTS: Mutex<Clients> = Mutex::new(BTreeMap::new());
    let settings = settings::current();
    let mut clients = CLIENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((of, client)) = clients.get(bucket)
        && *of == settings
    {
        return Ok(client.clone());
    }
    let client = Arc::new(settings.client(bucket)?);
    clients.insert(bucket.to_string(), (settings, client.clone()));
    Ok(client)
}

/// The runtime: one thread for the sockets of this process. It lives as long as the process.
fn runtime() -> Result<&'static Handle> {
    static RUNTIME: OnceLock<std::result::Result<Handle, String>> = OnceLock::new();
    let started = RUNTIME.get_or_init(|| {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
        let handle = runtime.handle().clone();
        let thread = std::thread::Builder::new().name("flott-s3".into());
        let run = move || runtime.block_on(std::future::pending::<()>());
        thread.spawn(run).map(|_| handle).map_err(|error| error.to_string())
    });
    let unable = |error: &String| {
        Error::new(ErrorKind::Resources, format!("the thread that speaks to S3 cannot be started: {error}"))
    };
    started.as_ref().map_err(unable)
}

/// An operation under way.
pub(super) struct Answer<T>(Receiver<object_store::Result<T>>);

/// Starts an operation. It goes on whether somebody waits for it or not.
pub(super) fn start<T: Send + 'static>(
    operation: impl Future<Output = object_store::Result<T>> + Send + 'static,
) -> Result<Answer<T>> {
    let (answer, answered) = sync_channel(1);
    runtime()?.spawn(async move {
        // Without an answer the channel closes, which says that it was late. Who asked may be gone.
        if let Ok(result) = tokio::time::timeout(DEADLINE, operation).await {
            let _ = answer.send(result);
        }
    });
    Ok(Answer(answered))
}

impl<T> Answer<T> {
    /// Waits for it. `place` is what an error names: `s3://bucket/key`.
    pub(super) fn wait(self, place: &str) -> Result<T> {
        match self.0.recv_timeout(DEADLINE + GRACE) {
            Ok(result) => result.map_err(|error| failed(place, &error)),
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => {
                let late = format!("S3 has not answered within {} s", DEADLINE.as_secs());
                Err(Error::io(place, std::io::Error::new(std::io::ErrorKind::TimedOut, late)))
            }
        }
    }
}

/// Does an operation and waits for it.
pub(super) fn run<T: Send + 'static>(
    place: &str,
    operation: impl Future<Output = object_store::Result<T>> + Send + 'static,
) -> Result<T> {
    start(operation)?.wait(place)
}
