# What coordinators replicate: the events of the job state machine, and the whole of its state in a snapshot.
#
# A list of what can be computed again is not stored: who holds a slot follows from the regions, counts from the tasks, regions
# from the graph.
@0xb05379c391624bf8;

using Common = import "common.capnp";
using Control = import "control.capnp";
using Job = import "job.capnp";
using Snapshots = import "snapshot.capnp";

struct Event {
  atMs @0 :UInt64;
  union {
    workerRegistered :group {
      worker @1 :UInt64;
      profile @2 :Control.WorkerProfile;
    }
    workerLost :group {
      worker @3 :UInt64;
    }
    workerReturned :group {
      worker @4 :UInt64;
      tasks @5 :List(Control.RunningTask);
    }
    jobSubmitted :group {
      job @6 :Common.Id;
      spec @7 :Job.JobSpec;
    }
    taskStateChanged @8 :Control.TaskReport;
    cancelRequested @9 :Common.Id;
    slotWaitExpired :group {
      job @10 :Common.Id;
      wait @11 :UInt32;
    }
    restartDelayExpired :group {
      job @12 :Common.Id;
      number @13 :UInt32;
    }
    programStored @14 :Program;
    programRemoved @15 :Data;
    # The digest.
    checkpointRequested :group {
      job @16 :Common.Id;
      request @17 :CheckpointRequest;
    }
    checkpointCompleted :group {
      job @18 :Common.Id;
      checkpoint @19 :UInt64;
      stats @20 :CheckpointStats;
    }
    checkpointFailed :group {
      job @21 :Common.Id;
      checkpoint @22 :UInt64;
      reason @23 :Text;
      counts @24 :Bool;
      stats @25 :CheckpointStats;
    }
    lastSnapshot :group {
      job @26 :Common.Id;
      attempt @27 :Common.AttemptId;
      snapshot @28 :Snapshots.TaskSnapshot;
    }
    savepointDisposed @29 :Text;
    # Its folder.
    claimEnded @30 :Common.Id;
    # The job whose claimed snapshot is deleted.
  }
}

enum Purpose {
  goOn @0;
  stop @1;
  drain @2;
  rescale @3;
  cancel @4;
}

struct CheckpointRequest {
  kind @0 :Snapshots.SnapshotKind;
  purpose @1 :Purpose;
  alignment @2 :Alignment;
  folder @3 :Text;
  operation @4 :Common.Id;
  # Null: the job's own.
  parallelism @5 :List(Job.VertexParallelism);
}

struct Alignment {
  union {
    aligned @0 :Void;
    unalignedAfterMs @1 :UInt32;
    none @2 :Void;
  }
}

struct CheckpointStats {
  acknowledged @0 :UInt32;
  lastAckMs @1 :UInt64;
  writtenBytes @2 :UInt64;
  stateBytes @3 :UInt64;
  processedBytes @4 :UInt64;
  persistedBytes @5 :UInt64;
  manifestBytes @6 :UInt64;
  unaligned @7 :Bool;
}

struct Checkpoint {
  id @0 :UInt64;
  kind @1 :Snapshots.SnapshotKind;
  purpose @2 :Purpose;
  alignment @3 :Alignment;
  folder @4 :Text;
  operation @5 :Common.Id;
  # Null: the job's own.
  triggeredMs @6 :UInt64;
  tasks @7 :UInt32;
  stats @8 :CheckpointStats;
  outcome :union {
    pending @9 :Void;
    completedMs @10 :UInt64;
    failed :group {
      failedMs @11 :UInt64;
      reason @12 :Text;
    }
  }
}

struct Closing {
  checkpoint @0 :UInt64;
  completed @1 :Bool;
  purpose @2 :Purpose;
  folder @3 :Text;
  operation @4 :Common.Id;
  # Null: nobody asked.
  parallelism @5 :List(Job.VertexParallelism);
}

struct Operation {
  id @0 :Common.Id;
  purpose @1 :Purpose;
  atMs @2 :UInt64;
  checkpoint @3 :UInt64;
  result :union {
    open @4 :Void;
    folder @5 :Text;
    failure @6 :Text;
  }
}

struct Checkpoints {
  lastId @0 :UInt64;
  pending @1 :List(Checkpoint);
  retained @2 :List(Checkpoint);
  savepoints @3 :List(Checkpoint);
  history @4 :List(Checkpoint);
  latestCompleted @5 :Checkpoint;
  latestSavepoint @6 :Checkpoint;
  latestFailed @7 :Checkpoint;
  # Null: none.
  completed @8 :UInt64;
  failed @9 :UInt64;
  restores @10 :UInt64;
  failuresInARow @11 :UInt32;
  closing @12 :Closing;
  # Null: none.
  operations @13 :List(Operation);
  restoredFrom @14 :Snapshots.RestoreFrom;
  # Null: nothing.
  restoredMs @15 :UInt64;
  claimEnded @16 :Bool;
}

struct Program {
  digest @0 :Data;
  # 32 bytes, SHA-256.
  name @1 :Text;
  size @2 :UInt64;
  storedMs @3 :UInt64;
  # In a snapshot; an event has its own time.
}

enum JobState {
  created @0;
  running @1;
  failing @2;
  failed @3;
  cancelling @4;
  canceled @5;
  finished @6;
  restarting @7;
}

struct Snapshot {
  format @0 :UInt32;
  # 1. Raised when an older version would read a snapshot wrongly; a higher one than known is refused.
  nowMs @1 :UInt64;
  endedJobsMax @2 :UInt64;
  exceptionsMax @3 :UInt64;
  lastWorkerId @4 :UInt64;
  workers @5 :List(Worker);
  jobs @6 :List(JobRecord);
  open @7 :List(Common.Id);
  # Jobs that are not over, in the order in which they get slots.
  ended @8 :List(Common.Id);
  # The others, the oldest first.
  programs @9 :List(Program);
  ignored @10 :Ignored;
}

struct Ignored {
  unknownJob @0 :UInt64;
  unknownTask @1 :UInt64;
  staleAttempt @2 :UInt64;
  impossibleTransition @3 :UInt64;
  overtaken @4 :UInt64;
  repeated @5 :UInt64;
  staleSlotWait @6 :UInt64;
  staleRestartDelay @7 :UInt64;
  unknownWorker @8 :UInt64;
  refusedWorker @9 :UInt64;
  refusedJob @10 :UInt64;
  unknownProgram @11 :UInt64;
  refusedCheckpoint @12 :UInt64;
  staleCheckpoint @13 :UInt64;
}

struct Worker {
  id @0 :UInt64;
  registeredMs @1 :UInt64;
  profile @2 :Control.WorkerProfile;
}

struct JobRecord {
  id @0 :Common.Id;
  spec @1 :Job.JobSpec;
  state @2 :JobState;
  entered @3 :List(UInt64);
  # By the number of the state: one more than the milliseconds since 1970 when it was entered last; 0: never.
  vertices @4 :List(Vertex);
  # In the order of the graph.
  regions @5 :List(Region);
  # In the order of their first vertices.
  workers @6 :List(UInt64);
  wait @7 :SlotWait;
  # Null: none.
  waits @8 :UInt32;
  failure @9 :JobFailure;
  # Null: none.
  epoch @10 :UInt32;
  restart @11 :Restart;
  # Null: none.
  delays @12 :UInt32;
  restarts @13 :UInt32;
  counted @14 :UInt32;
  failuresMs @15 :List(UInt64);
  backoffMs @16 :UInt64;
  nextRestartMs @17 :UInt64;
  exceptions @18 :List(Exception);
  exceptionsTotal @19 :UInt64;
  checkpoints @20 :Checkpoints;
  # Null: none was ever taken.
}

struct Vertex {
  tasks @0 :List(Task);
  lastSnapshots @1 :List(Snapshots.TaskSnapshot);
  # Of tasks that have nothing more to do.
}

struct Task {
  # Entered: as in JobRecord.
  createdAt @0 :UInt64;
  scheduledAt @1 :UInt64;
  deployingAt @2 :UInt64;
  initializingAt @3 :UInt64;
  runningAt @4 :UInt64;
  finishedAt @5 :UInt64;
  cancelingAt @6 :UInt64;
  canceledAt @7 :UInt64;
  failedAt @8 :UInt64;
  jobEpoch @9 :UInt32;
  attempt @10 :UInt32;
  worker @11 :UInt64;
  previousWorker @12 :UInt64;
  slot @13 :UInt32;
  previousSlot @14 :UInt32;
  state @15 :Common.TaskState;
  isPlaced @16 :Bool;
  # Worker and slot count.
  wasPlaced @17 :Bool;
  # PreviousWorker and previousSlot count.
  resultLost @18 :Bool;
}

struct Region {
  placed @0 :Bool;
  slots @1 :List(Common.SlotId);
}

struct SlotWait {
  number @0 :UInt32;
  sinceMs @1 :UInt64;
  needed @2 :UInt32;
}

struct Restart {
  number @0 :UInt32;
  sinceMs @1 :UInt64;
  delayMs @2 :UInt64;
  expired @3 :Bool;
  regions @4 :List(UInt32);
}

struct JobFailure {
  union {
    task @0 :Common.TaskFailure;
    job :group {
      kind @1 :Common.ErrorKind;
      message @2 :Text;
    }
  }
}

struct Exception {
  atMs @0 :UInt64;
  cause @1 :JobFailure;
  attempt @2 :Common.AttemptId;
  # Null: no task is to blame.
  hasWorker @3 :Bool;
  worker @4 :UInt64;
  restarted @5 :Bool;
  concurrent @6 :List(FailedTask);
}

struct FailedTask {
  atMs @0 :UInt64;
  attempt @1 :Common.AttemptId;
  hasWorker @2 :Bool;
  worker @3 :UInt64;
  failure @4 :Common.TaskFailure;
}
