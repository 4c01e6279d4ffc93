# Ids, states and failures: what every other schema of Flott is made of.
#
# Fields are never renumbered, retyped or removed; new ones are appended. tests/wire_schemas.rs holds this against a frozen copy.
@0xdf9cf976a3cc752d;

struct Id {
  # 128 bits, printed as 32 hex digits.
  high @0 :UInt64;
  low @1 :UInt64;
}

struct TaskId {
  vertex @0 :Id;
  subtask @1 :UInt32;
}

struct AttemptId {
  task @0 :TaskId;
  jobEpoch @1 :UInt32;
  attempt @2 :UInt32;
}

struct SlotId {
  worker @0 :UInt64;
  index @1 :UInt32;
}

struct Placement {
  attempt @0 :AttemptId;
  slot @1 :SlotId;
}

enum TaskState {
  created @0;
  scheduled @1;
  deploying @2;
  initializing @3;
  running @4;
  finished @5;
  canceling @6;
  canceled @7;
  failed @8;
}

enum ErrorKind {
  userCode @0;
  badInput @1;
  configuration @2;
  graph @3;
  resources @4;
  io @5;
  cancelled @6;
  internal @7;
  snapshot @8;
}

struct TaskFailure {
  kind @0 :ErrorKind;
  vertex @1 :Text;
  subtask @2 :UInt32;
  parallelism @3 :UInt32;
  message @4 :Text;
  backtrace @5 :Text;
  # Empty: none.
}

struct Property {
  key @0 :Text;
  value @1 :Text;
}
