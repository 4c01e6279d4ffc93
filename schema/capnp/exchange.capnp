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
  windowBytes @5 :UInt32;
  # Credit with which each channel of the connection begins.
}

struct HandshakeReply {
  union {
    accepted @0 :Void;
    refused @1 :Text;
    notYet @2 :Text;
    # The executor that is meant has not come up; to be tried again.
  }
}

enum FrameKind {
  none @0;
  batch @1;
  # Records: the wire form of a batch. Detail: length of the body before it was compressed.
  signal @2;
  # Watermark, idleness, barrier or end of input.
  credit @3;
  # Detail: bytes given back; all ones: the receiver is gone and whatever comes is dropped; one less: the end of input has come.
  splitRequest @4;
  # Edge: position of the source's vertex in the graph. Source: the subtask that asks.
  splitAnswer @5;
  # Addressed as the request.
  spoolRequest @6;
  # Detail: job epoch of the task that wrote the result. The answer is batches and signals with the address of the request.
  alignment @7;
  # The lowest watermark of an alignment group in the executor that sends it.
  failure @8;
  # A spooled result cannot be read; addressed as the request.
}

struct FrameHeader {
  # On the wire the 32 bytes of the data section alone, without pointer and segment table, followed by the body.
  kind @0 :FrameKind;
  version @1 :UInt8;
  compression @2 :UInt8;
  # 0: none, 1: LZ4, 2: Zstandard.
  bodyBytes @3 :UInt32;
  edge @4 :UInt16;
  # Index in the job graph.
  headerCheck @5 :UInt16;
  # Lower half of the CRC-32C of the header with this field and the checksum zero.
  source @6 :UInt32;
  # Sending subtask.
  target @7 :UInt32;
  # Receiving subtask.
  jobEpoch @8 :UInt32;
  detail @9 :UInt32;
  checksum @10 :UInt32;
  # CRC-32C of the header with this field zero, and the body.
}
