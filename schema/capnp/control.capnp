# Control between processes: capnp-rpc over TCP between workers and coordinators and among coordinators, over a Unix socket
# between a worker and its executors. Records never pass here.
@0xc1c49b9e24374ab2;

using Common = import "common.capnp";
using Job = import "job.capnp";
using Raft = import "raft.capnp";
using Snapshot = import "snapshot.capnp";

struct Hello {
  protocol @0 :UInt32;
  # 1; another is refused with the reason.
  version @1 :Text;
  # Of the caller's Flott, for people.
  token @2 :Text;
  # The shared secret, empty where none is configured.
}

interface Coordinator {
  # The bootstrap capability of a coordinator's control port.
  connect @0 (hello :Hello) -> (cluster :Cluster);
}

interface Cluster {
  # What a caller that belongs to the cluster may ask of a coordinator.
  register @0 (profile :WorkerProfile, previous :UInt64, tasks :List(RunningTask), worker :Worker) -> (registration :Registration);
  # Offers the slots of a worker. A worker that had a session before names its id (0: none) and the tasks it still runs, and keeps
  # both if the cluster has not given it up.
  raft @1 () -> (peer :Raft.RaftPeer);
  readProgram @2 (digest :Data, offset :UInt64, length :UInt32) -> (part :Data, size :UInt64);
}

struct WorkerProfile {
  name @0 :Text;
  host @1 :Text;
  dataAddress @2 :Text;
  slots @3 :UInt32;
  cores @4 :UInt32;
  memoryBytes @5 :UInt64;
  slotMemoryBytes @6 :UInt64;
  metricsPort @7 :UInt16;
  version @8 :Text;
}

struct RunningTask {
  job @0 :Common.Id;
  attempt @1 :Common.AttemptId;
  state @2 :Common.TaskState;
}

struct Registration {
  union {
    accepted :group {
      worker @0 :UInt64;
      term @1 :UInt64;
      heartbeatIntervalMs @2 :UInt64;
      heartbeatTimeoutMs @3 :UInt64;
      session @4 :WorkerSession;
    }
    notLeader :group {
      leader @5 :Text;
      # host:port of the leader's control port; empty while there is none.
    }
    refused @6 :Text;
  }
}

interface WorkerSession {
  # A coordinator's side of a registered worker. It ends with the connection.
  heartbeat @0 (stats :WorkerStats) -> ();
  report @1 (reports :List(TaskReport), mixed :List(Report)) -> ();
  # Answers when the reports are committed. `mixed` stands in place of `reports` where last snapshots are among them.
  snapshots @2 (reports :List(SnapshotReport)) -> ();
  # Parts of snapshots that are pending; never a last one. Answers when they are taken in.
  snapshotsWanted @3 (tasks :List(WaitingTask)) -> ();
  # Tasks that have ended but for what their sinks have to commit.
}

struct TaskReport {
  job @0 :Common.Id;
  attempt @1 :Common.AttemptId;
  state @2 :Common.TaskState;
  failure @3 :Common.TaskFailure;
  # With failed; else null.
}

struct SnapshotReport {
  job @0 :Common.Id;
  attempt @1 :Common.AttemptId;
  checkpoint @2 :UInt64;
  # Its id; all bits set: the task has finished, and this is its part of all that follow.
  union {
    taken @3 :Snapshot.TaskSnapshot;
    failed @4 :Text;
  }
  handedIn @5 :UInt64;
  # Of the last one: of snapshots up to this one the task hands in parts of their own.
}

struct Report {
  union {
    task @0 :TaskReport;
    lastSnapshot @1 :SnapshotReport;
  }
}

struct WaitingTask {
  job @0 :Common.Id;
  attempt @1 :Common.AttemptId;
}

struct CheckpointOrder {
  job @0 :Common.Id;
  barrier @1 :Snapshot.Barrier;
  folder @2 :Text;
  sharedFolder @3 :Text;
  # Null: none.
  attempts @4 :List(Common.AttemptId);
}

struct PrepareOrder {
  job @0 :Common.Id;
  spec @1 :Job.JobSpec;
  tasks @2 :List(Common.Placement);
  hosts @3 :List(WorkerHost);
  restore @4 :Snapshot.RestoreFrom;
  # Null: none.
}

interface Worker {
  # A worker's side of its session.
  order @0 (order :Order) -> ();
  listLogs @1 () -> (files :List(LogFile));
  readLog @2 (name :Text, offset :UInt64, length :UInt32) -> (part :Data, size :UInt64);
  runProgram @3 (program :Job.ProgramRef, restAddress :Text, planOnly :Bool) -> (result :ProgramResult);
  # Runs a program's main on the worker's host, as a client would, so that no user code runs in a coordinator.
}

struct ProgramResult {
  union {
    submitted @0 :List(Common.Id);
    plan @1 :Text;
    # JSON.
    failed @2 :Text;
  }
}

struct WorkerHost {
  worker @0 :UInt64;
  dataAddress @1 :Text;
}

struct Order {
  term @0 :UInt64;
  # Of the leader that gives it; a worker refuses older ones.
  union {
    deploy :group {
      job @1 :Common.Id;
      spec @2 :Job.JobSpec;
      tasks @3 :List(Common.Placement);
      peers @4 :List(Common.Placement);
      hosts @5 :List(WorkerHost);
      restore @9 :Snapshot.RestoreFrom;
      # Null: none.
    }
    cancel :group {
      cancelJob @6 :Common.Id;
      attempts @7 :List(Common.AttemptId);
    }
    release :group {
      releaseJob @8 :Common.Id;
    }
    checkpoint @10 :CheckpointOrder;
    checkpointEnded :group {
      endedJob @11 :Common.Id;
      endedCheckpoint @12 :UInt64;
      completed @13 :Bool;
      endedAttempts @14 :List(Common.AttemptId);
    }
    prepare @15 :PrepareOrder;
  }
}

struct OperatorStats {
  operator @0 :Common.Id;
  # Null: not known.
  recordsIn @1 :UInt64;
  recordsOut @2 :UInt64;
  lateRecordsDropped @3 :UInt64;
  undecodableRecords @4 :UInt64;
}

struct TaskStats {
  job @0 :Common.Id;
  attempt @1 :Common.AttemptId;
  recordsIn @2 :UInt64;
  recordsOut @3 :UInt64;
  bytesIn @4 :UInt64;
  bytesOut @5 :UInt64;
  batchesIn @6 :UInt64;
  batchesOut @7 :UInt64;
  busyMs @8 :UInt64;
  idleMs @9 :UInt64;
  backpressuredMs @10 :UInt64;
  hasInputWatermark @11 :Bool;
  inputWatermarkMs @12 :Int64;
  operators @13 :List(OperatorStats);
}

struct WorkerUsage {
  residentBytes @0 :UInt64;
  executorsResidentBytes @1 :UInt64;
  hostFreeBytes @2 :UInt64;
  cpuMs @3 :UInt64;
  executors @4 :UInt32;
}

struct WorkerStats {
  usage @0 :WorkerUsage;
  tasks @1 :List(TaskStats);
}

struct LogFile {
  name @0 :Text;
  size @1 :UInt64;
  modifiedMs @2 :UInt64;
}

struct ExecutorHello {
  protocol @0 :UInt32;
  version @1 :Text;
  job @2 :Common.Id;
  pid @3 :UInt32;
  metricsPort @4 :UInt16;
}

interface Supervisor {
  # The bootstrap capability of a worker's Unix socket for its executors.
  register @0 (hello :ExecutorHello, executor :Executor) -> (session :ExecutorSession, worker :UInt64, token :Text);
}

interface Executor {
  order @0 (order :Order) -> ();
}

interface ExecutorSession {
  report @0 (reports :List(TaskReport), mixed :List(Report)) -> ();
  # As that of a worker's session.
  stats @1 (tasks :List(TaskStats)) -> ();
  refuse @2 (reason :Text) -> ();
  # The program cannot run the job: it builds another graph, or never came to the execution meant.
  snapshots @3 (reports :List(SnapshotReport)) -> ();
  snapshotsWanted @4 (tasks :List(WaitingTask)) -> ();
}
