# Snapshots of a job: what a barrier says, what tasks hand in, manifests, where a deployment starts from.
@0x9f5c048d4a7f2046;

using Common = import "common.capnp";

enum SnapshotKind {
  checkpoint @0;
  fullCheckpoint @1;
  canonicalSavepoint @2;
  nativeSavepoint @3;
}

enum AfterBarrier {
  goOn @0;
  suspend @1;
  drain @2;
}

struct Barrier {
  checkpoint @0 :UInt64;
  timestampMs @1 :Int64;
  kind @2 :SnapshotKind;
  after @3 :AfterBarrier;
  alignment :union {
    aligned @4 :Void;
    unalignedAfterMs @5 :UInt32;
    none @6 :Void;
  }
}

struct SnapshotFile {
  name @0 :Text;
  path @1 :Text;
  # Relative to the folder of the manifest.
  size @2 :UInt64;
  crc32c @3 :UInt32;
}

enum ListMode {
  split @0;
  union @1;
  broadcast @2;
}

struct ListSnapshot {
  name @0 :Text;
  mode @1 :ListMode;
  itemType @2 :Text;
  items @3 :List(Data);
  file @4 :SnapshotFile;
  # Null: the items are all there is. Else they are in the file, and there are none here.
}

struct TableSnapshot {
  name @0 :Text;
  number @1 :UInt16;
  holds @2 :Text;
  keyType @3 :Text;
  valueType @4 :Text;
}

struct KeyedSnapshot {
  firstKeyGroup @0 :UInt32;
  endKeyGroup @1 :UInt32;
  # One past the last one.
  format @2 :Text;
  tables @3 :List(TableSnapshot);
  files @4 :List(SnapshotFile);
}

struct OperatorSnapshot {
  operator @0 :Common.Id;
  # Null: not known.
  lists @1 :List(ListSnapshot);
  keyed @2 :List(KeyedSnapshot);
  enumerator @3 :Data;
  # Null: none.
}

struct ChannelSnapshot {
  edge @0 :UInt32;
  source @1 :UInt32;
  file @2 :SnapshotFile;
}

struct SnapshotTimes {
  startDelayMs @0 :UInt64;
  alignmentMs @1 :UInt64;
  syncUs @2 :UInt64;
  asyncMs @3 :UInt64;
  writtenBytes @4 :UInt64;
  stateBytes @5 :UInt64;
  processedBytes @6 :UInt64;
  persistedBytes @7 :UInt64;
  unaligned @8 :Bool;
}

struct TaskSnapshot {
  task @0 :Common.TaskId;
  finished @1 :Bool;
  operators @2 :List(OperatorSnapshot);
  channels @3 :List(ChannelSnapshot);
  times @4 :SnapshotTimes;
  # Null: nothing is known.
}

struct ManifestOperator {
  operator @0 :Common.Id;
  uid @1 :Text;
  name @2 :Text;
}

struct ManifestVertex {
  vertex @0 :Common.Id;
  name @1 :Text;
  parallelism @2 :UInt32;
  maxParallelism @3 :UInt32;
  operators @4 :List(ManifestOperator);
}

struct Manifest {
  # The body of the file _metadata.
  job @0 :Common.Id;
  jobName @1 :Text;
  checkpoint @2 :UInt64;
  kind @3 :SnapshotKind;
  timestampMs @4 :Int64;
  vertices @5 :List(ManifestVertex);
  tasks @6 :List(TaskSnapshot);
}

struct RestoreFrom {
  folder @0 :Text;
  checkpoint @1 :UInt64;
  ignoreUnclaimed @2 :Bool;
  own @3 :Bool;
}
