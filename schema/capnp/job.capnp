# Jobs: the graph as data, the program behind it, and how it is to run.
@0xb1675dfbe6afef9c;

using Common = import "common.capnp";
using Snapshot = import "snapshot.capnp";

enum ExecutionMode {
  streaming @0;
  batch @1;
}

enum Partitioning {
  forward @0;
  keyGroup @1;
  rebalance @2;
  rescale @3;
  broadcast @4;
  shuffle @5;
  global @6;
  custom @7;
}

enum Exchange {
  pipelined @0;
  blocking @1;
}

struct OperatorSpec {
  id @0 :Common.Id;
  uid @1 :Text;
  name @2 :Text;
}

struct Vertex {
  id @0 :Common.Id;
  name @1 :Text;
  operators @2 :List(OperatorSpec);
  parallelism @3 :UInt32;
  maxParallelism @4 :UInt32;
  slotSharingGroup @5 :Text;
  isSource @6 :Bool;
}

struct Edge {
  source @0 :Common.Id;
  target @1 :Common.Id;
  input @2 :UInt16;
  partitioning @3 :Partitioning;
  exchange @4 :Exchange;
}

struct JobGraph {
  name @0 :Text;
  mode @1 :ExecutionMode;
  vertices @2 :List(Vertex);
  edges @3 :List(Edge);
}

struct ProgramRef {
  digest @0 :Data;
  # 32 bytes, SHA-256.
  name @1 :Text;
  arguments @2 :List(Text);
  execution @3 :UInt32;
  configuration @4 :List(Common.Property);
}

struct RestartStrategy {
  union {
    none @0 :Void;
    fixedDelay :group {
      attempts @1 :UInt32;
      delayMs @2 :UInt64;
    }
    failureRate :group {
      failuresMax @3 :UInt32;
      intervalMs @4 :UInt64;
      rateDelayMs @5 :UInt64;
    }
    exponentialDelay :group {
      initialMs @6 :UInt64;
      maxMs @7 :UInt64;
      multiplierMilli @8 :UInt32;
      jitterMilli @9 :UInt32;
      resetMs @10 :UInt64;
      exponentialAttempts @11 :UInt32;
    }
  }
}

enum CheckpointingMode {
  exactlyOnce @0;
  atLeastOnce @1;
}

enum CheckpointRetention {
  noExternalizedCheckpoints @0;
  deleteOnCancellation @1;
  retainOnCancellation @2;
}

struct CheckpointSettings {
  intervalMs @0 :UInt64;
  # 0: none are taken.
  mode @1 :CheckpointingMode;
  timeoutMs @2 :UInt64;
  minPauseMs @3 :UInt64;
  maxConcurrent @4 :UInt32;
  tolerableFailures @5 :UInt32;
  numRetained @6 :UInt32;
  retention @7 :CheckpointRetention;
  directory @8 :Text;
  # Null: not set.
  savepointDirectory @9 :Text;
  # Null: not set.
  incremental @10 :Bool;
  unaligned @11 :Bool;
  alignedTimeoutMs @12 :UInt64;
  afterTasksFinish @13 :Bool;
  inlineThresholdBytes @14 :UInt64;
  compress @15 :Bool;
}

enum StateBackend {
  hashMap @0;
  rocksDb @1;
}

struct StateSettings {
  backend @0 :StateBackend;
  memoryBytes @1 :UInt64;
  localDirectories @2 :List(Text);
  localBackup @3 :Bool;
  localBackupDirectories @4 :List(Text);
  recoverFromLocal @5 :Bool;
  writeBufferMilli @6 :UInt32;
  highPriorityMilli @7 :UInt32;
  threads @8 :UInt32;
  transferThreads @9 :UInt32;
  bloomFilter @10 :Bool;
}

struct JobSettings {
  restart @0 :RestartStrategy;
  restartAll @1 :Bool;
  slotWait :union {
    asConfigured @2 :Void;
    ms @3 :UInt64;
  }
  cancellationTimeoutMs @4 :UInt64;
  checkpoints @5 :CheckpointSettings;
  # Null: as without a word in the configuration.
  state @6 :StateSettings;
  # Null: the same.
}

struct JobSpec {
  graph @0 :JobGraph;
  program @1 :ProgramRef;
  # Null: none.
  settings @2 :JobSettings;
  restore @3 :Snapshot.RestoreFrom;
  # Null: none.
  parallelism @4 :List(VertexParallelism);
  # Of vertices that have another one than the graph says.
}

struct VertexParallelism {
  vertex @0 :Common.Id;
  parallelism @1 :UInt32;
}

struct Submission {
  job @0 :Common.Id;
  spec @1 :JobSpec;
}
