//! The control port over real connections of the loopback, with a worker and a service that are driven step by step.

mod asking;
mod leading;
mod peer;
mod sessions;
mod strangers;

use std::sync::Arc;
use std::time::Duration;

use flott_schema::answer::FilePart;
use flott_schema::error::{Error, Result};
use flott_schema::ids::JobId;
use flott_schema::job::{JobSpec, ProgramDigest};
use futures_util::future::BoxFuture;
use tokio::task::LocalSet;
use tokio::time::timeout;

use super::{Options, Parts, ReadProgram, RpcHandle, RpcLink, start};
use crate::machine::tests::graph::streaming;
use crate::machine::{JobOutcome, JobState};
use crate::service::{self, Coordinator, Handle};

const JOB: JobId = JobId(7);

/// Long enough that no test comes near it unless something hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs a test on a thread of its own kind: calls over connections are bound to a thread.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { soon("the test", test).await });
}

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

/// One stored program, of zeros.
struct Zeros;

impl ReadProgram for Zeros {
    fn read(&self, digest: ProgramDigest, offset: u64, length_max: u32) -> Result<FilePart> {
        if digest != ProgramDigest([0; 32]) {
            return Err(Error::bad_input(format!("there is no program {digest}")));
        }
        let bytes = vec![0; (10_000 - offset.min(10_000)).min(length_max.into()) as usize];
        Ok(FilePart { bytes, size: 10_000 })
    }

    fn is_here(&self, digest: ProgramDigest) -> bool {
        digest == ProgramDigest([0; 32])
    }

    fn fetch(&self, _: ProgramDigest) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A coordinator that is alone, and its control port.
struct Cluster {
    handle: Handle,
    link: RpcLink,
    rpc: RpcHandle,
}

impl Cluster {
    fn start(options: Options) -> Self {
        let link = RpcLink::new();
        let (coordinator, handle) = Coordinator::new(service::Options::default(), link.clone());
        tokio::spawn(coordinator.run());
        let rpc = port(options, &handle, &link);
        Cluster { handle, link, rpc }
    }

    fn address(&self) -> String {
        self.rpc.address().to_string()
    }

    /// Submits a job with that many tasks.
    async fn submit(&self, tasks: u32) {
        let graph = streaming("job", &[("map", tasks)], &[]);
        soon("submission", self.handle.submit(JOB, JobSpec::embedded(graph))).await.unwrap();
    }

    async fn state(&self) -> JobState {
        self.handle.status(JOB).await.unwrap().state()
    }

    /// The end of the job, which must come soon.
    async fn end(&self) -> JobOutcome {
        soon("the end of the job", self.handle.wait(JOB)).await.unwrap()
    }

    /// Why the job failed, which must come soon.
    async fn failure(&self) -> String {
        match self.end().await {
            JobOutcome::Failed(failure) => format!("{failure:?}"),
            other => panic!("the job did not fail: {other:?}"),
        }
    }
}

fn port(options: Options, handle: &Handle, link: &RpcLink) -> RpcHandle {
    let (handle, link) = (handle.clone(), link.clone());
    start(options, Parts { handle, link, programs: Arc::new(Zeros), peer: None }).unwrap()
}
