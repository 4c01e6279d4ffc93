# The group of coordinators: its log, votes, snapshots, and the calls between members.
@0xe249df4c891a8efd;

struct LogId {
  # Place in the log, and the leader that put the entry there.
  term @0 :UInt64;
  member @1 :UInt64;
  index @2 :UInt64;
}

struct Vote {
  term @0 :UInt64;
  member @1 :UInt64;
  committed @2 :Bool;
  # Whether a majority has given it.
}

struct Member {
  id @0 :UInt64;
  address @1 :Text;
  # host:port of its control port.
}

struct Membership {
  voters @0 :List(List(UInt64));
  # Two sets while one replaces the other.
  members @1 :List(Member);
}

struct StoredMembership {
  logId @0 :LogId;
  # Null: not from the log.
  membership @1 :Membership;
}

struct Proposal {
  # Events that are committed together.
  proposer @0 :UInt64;
  # Chosen anew by each process.
  number @1 :UInt64;
  # Of the proposer; 0: the mark by which a new leader knows that it has applied everything before it.
  events @2 :List(Data);
  # Each as in machine.capnp.
}

struct Entry {
  logId @0 :LogId;
  union {
    blank @1 :Void;
    proposal @2 :Proposal;
    membership @3 :Membership;
  }
}

struct SnapshotMeta {
  lastLogId @0 :LogId;
  # Null: nothing is in it.
  membership @1 :StoredMembership;
  id @2 :Text;
}

struct AppendRequest {
  vote @0 :Vote;
  previous @1 :LogId;
  entries @2 :List(Entry);
  committed @3 :LogId;
  restAddress @4 :Text;
  # host:port of the leader's REST API.
}

struct AppendReply {
  union {
    success @0 :Void;
    partial @1 :LogId;
    # Null: nothing matches.
    conflict @2 :Void;
    higherVote @3 :Vote;
    failed @4 :Text;
  }
}

struct VoteReply {
  union {
    answer :group {
      vote @0 :Vote;
      granted @1 :Bool;
      lastLogId @2 :LogId;
    }
    failed @3 :Text;
  }
}

struct SnapshotPart {
  vote @0 :Vote;
  meta @1 :SnapshotMeta;
  offset @2 :UInt64;
  data @3 :Data;
  done @4 :Bool;
}

struct SnapshotReply {
  union {
    vote @0 :Vote;
    startAgain @1 :Void;
    # The part does not follow what came before it.
    failed @2 :Text;
  }
}

struct ProgramReply {
  union {
    stored @0 :Bool;
    # Whether the program is complete there.
    part :group {
      data @1 :Data;
      size @2 :UInt64;
    }
    failed @3 :Text;
  }
}

interface RaftPeer {
  # A member as the others see it.
  append @0 (request :AppendRequest) -> (reply :AppendReply);
  vote @1 (vote :Vote, lastLogId :LogId) -> (reply :VoteReply);
  installSnapshot @2 (part :SnapshotPart) -> (reply :SnapshotReply);
  storeProgram @3 (from :UInt64, digest :Data, offset :UInt64, data :Data, done :Bool) -> (reply :ProgramReply);
  readProgram @4 (digest :Data, offset :UInt64, length :UInt32) -> (reply :ProgramReply);
}
