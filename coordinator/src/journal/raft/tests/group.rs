//! Three members: elections, lost leaders, members that come back, programs.

use std::path::Path;
use std::time::Duration;

use flott_schema::ids::JobId;
use flott_schema::job::JobSpec;
use tempfile::TempDir;
use tokio::time::timeout;

use super::super::RaftOptions;
use super::cluster::*;
use crate::journal::Role;
use crate::machine::JobOutcome;
use crate::programs::ProgramError;
use crate::rpc::ReadProgram;
use crate::service::{CoordinatorError, Options};

struct Group {
    directory: TempDir,
    members: Vec<String>,
}

impl Group {
    fn new() -> Self {
        Group { directory: tempfile::tempdir().unwrap(), members: free_addresses(3) }
    }

    fn path(&self, index: usize) -> std::path::PathBuf {
        self.directory.path().join(index.to_string())
    }

    fn start(&self, index: usize) -> Node {
        self.start_with(index, |options| options)
    }

    fn start_with(&self, index: usize, change: impl FnOnce(RaftOptions) -> RaftOptions) -> Node {
        let options = RaftOptions {
            members: self.members.clone(),
            heartbeat_interval_ms: 100,
            election_timeout_ms: 1_000,
            ..RaftOptions::new(self.path(index), self.members[index].clone())
        };
        Node::start(change(options), Options::default()).unwrap()
    }
}

/// Takes the leader out.
async fn split(mut nodes: Vec<(usize, Node)>) -> ((usize, Node), Vec<(usize, Node)>) {
    let (leader, _) = leader_of(&nodes.iter().map(|(_, node)| node).collect::<Vec<_>>()).await;
    let leader = nodes.remove(leader);
    (leader, nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submitted_job_survives_the_loss_of_the_leader() {
    let group = Group::new();
    let nodes = (0..3).map(|index| (index, group.start(index))).collect();
    let ((index, leader), others) = split(nodes).await;
    let term = leads(&leader).await;
    submit(&leader, 7).await;

    // The others have it, know who leads, and refuse what is the leader's business.
    for (_, other) in &others {
        eventually("the job at a follower", async || has_job(other, 7).await).await;
        let knows = |role: &Role| match role {
            Role::Follower { leader: Some(leader) } => {
                leader.control == group.members[index]
                    && leader.rest == format!("rest-of-{}", group.members[index])
            }
            _ => false,
        };
        role_when(&mut other.handle.watch_role(), knows).await;
        let refused = other.handle.submit(JobId(8), JobSpec::embedded(graph(1))).await.unwrap_err();
        assert!(matches!(refused, CoordinatorError::NotLeader { leader: Some(_) }), "{refused}");
    }
    let waiting: Vec<_> = others
        .iter()
        .map(|(_, other)| {
            let handle = other.handle.clone();
            tokio::spawn(async move { handle.wait(JobId(7)).await })
        })
        .collect();

    leader.kill().await;
    let ((_, leader), rest) = split(others).await;
    assert!(leads(&leader).await > term);
    assert!(has_job(&leader, 7).await);
    submit(&leader, 8).await;
    leader.handle.cancel(JobId(7)).await.unwrap();
    for waiting in waiting {
        // Who waits at a follower is told, too.
        let outcome = timeout(DEADLINE, waiting).await.expect("the job ends").unwrap().unwrap();
        assert_eq!(outcome, JobOutcome::Canceled);
    }

    // The lost one comes back and learns what it missed.
    let back = group.start(index);
    eventually("the job of the other leader", async || has_job(&back, 8).await).await;

    // Without a majority nothing is committed, and nobody is told that it was.
    rest.into_iter().next().unwrap().1.kill().await;
    back.kill().await;
    let mut roles = leader.handle.watch_role();
    role_when(&mut roles, |role| role.term().is_none()).await;
    let refused = leader.handle.submit(JobId(9), JobSpec::embedded(graph(1))).await.unwrap_err();
    assert!(matches!(refused, CoordinatorError::NotLeader { leader: None }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_for_long_gets_a_snapshot() {
    let group = Group::new();
    let small = |options| RaftOptions { snapshot_log_entries: 10, ..options };
    let mut nodes: Vec<_> = (0..3).map(|index| group.start_with(index, small)).collect();
    submit_to(&nodes.iter().collect::<Vec<_>>(), 0).await;
    let away = nodes.remove(1);
    away.kill().await;
    let others: Vec<&Node> = nodes.iter().collect();
    for job in 1..60 {
        submit_to(&others, job).await;
    }
    let back = group.start_with(1, small);
    eventually("the last job", async || has_job(&back, 59).await).await;
    for job in 0..60 {
        assert!(has_job(&back, job).await);
    }
    back.stop().await;
    assert!(snapshot_index(&group.path(1)) > 0);
}

fn snapshot_index(directory: &Path) -> u64 {
    let (store, _) = super::super::store::Store::open(directory).unwrap();
    store.snapshot_meta().unwrap().and_then(|meta| meta.last_log_id).map_or(0, |id| id.index)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_is_with_a_majority_before_jobs_may_name_it_and_later_with_all() {
    let group = Group::new();
    let nodes = (0..3).map(|index| (index, group.start(index))).collect();
    let ((_, leader), mut others) = split(nodes).await;
    let (index, away) = others.remove(0);
    let (_, other) = others.remove(0);
    away.kill().await;

    // More than a part, and not a whole number of them.
    let content: Vec<u8> = (0..2_500_000u32).map(|byte| (byte % 251) as u8).collect();
    let mut upload = leader.programs.upload().unwrap();
    upload.write(&content).unwrap();
    let stored = upload.finish(&leader.programs, None).await.unwrap();
    leader.programs.replicate(stored.digest).await.unwrap();
    assert!(other.programs.contains(stored.digest));
    leader.handle.program_stored(stored.digest, "job".into(), stored.size_bytes).await.unwrap();

    let back = group.start(index);
    eventually("the program's event", async || {
        let digest = stored.digest;
        back.handle.read("programs", move |state| state.programs().contains_key(&digest)).await.unwrap()
    })
    .await;
    assert!(!back.programs.contains(stored.digest));
    back.programs.sweep(&back.handle, Duration::from_secs(3_600)).await.unwrap();
    assert_eq!(std::fs::read(back.programs.path(stored.digest)).unwrap(), content);

    // Or, before that, when a worker asks for it.
    back.programs.remove(stored.digest).unwrap();
    let digest = stored.digest;
    let fetched = (0..4).map(|_| ReadProgram::fetch(&back.programs, digest));
    futures_util::future::join_all(fetched).await;
    assert_eq!(std::fs::read(back.programs.path(digest)).unwrap(), content);

    // Once it is not listed any more, it goes.
    leader.handle.remove_program(stored.digest).await.unwrap();
    leader.programs.sweep(&leader.handle, Duration::ZERO).await.unwrap();
    assert!(!leader.programs.contains(stored.digest));

    // Two that bring the same new program at once do each other no harm.
    let mut upload = leader.programs.upload().unwrap();
    upload.write(&content[1..]).unwrap();
    let digest = upload.finish(&leader.programs, None).await.unwrap().digest;
    let storing = (0..3).map(|_| leader.programs.replicate(digest));
    for stored in futures_util::future::join_all(storing).await {
        stored.unwrap();
    }
    eventually("the program", async || other.programs.contains(digest) && back.programs.contains(digest))
        .await;

    // With the others gone there is no majority.
    let mut upload = leader.programs.upload().unwrap();
    upload.write(b"another").unwrap();
    let stored = upload.finish(&leader.programs, None).await.unwrap();
    other.kill().await;
    back.kill().await;
    let error = leader.programs.replicate(stored.digest).await.unwrap_err();
    assert!(matches!(error, ProgramError::NoMajority { stored: 1, members: 3, .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_group_is_formed_also_when_any_of_its_members_is_not_there() {
    for missing in 0..3 {
        let group = Group::new();
        let present: Vec<_> = (0..3)
            .filter(|index| *index != missing)
            .map(|index| {
                group.start_with(index, |options| RaftOptions { election_timeout_ms: 300, ..options })
            })
            .collect();
        submit_to(&present.iter().collect::<Vec<_>>(), 7).await;
        let late = group.start(missing);
        eventually("the job at the late one", async || has_job(&late, 7).await).await;
    }
}
