# Records between executors: the handshake of a connection, and the header of every frame on it.
@0xf82fd6f5e5472177;

using Common = import "common.capnp";

struct Handshake {
  protocol @0 :UInt32;
  token @1 :Text;
  job @2 :Common.Id;
  from @3 :UInt64;
  # Worker of the executor that connects.
  to @4 :UInt64;
  # Worker of the executor that is meant.
}

struct HandshakeReply {
  union {
    accepted @0 :Void;
    refused @1 :Text;
  }
}
