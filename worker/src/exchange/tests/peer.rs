//! An executor whose peer is played by the test, frame by frame.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use flott_dataflow::batch::Batch;
use flott_dataflow::element::{MAX_WATERMARK, Signal};
use flott_dataflow::program::RuntimeMode;
use flott_schema::control::{Placement, TaskState, WorkerHost};
use flott_schema::ids::WorkerId;
use flott_schema::wire::{from_bytes, to_bytes};

use super::super::body::{batch_frame, signal_frame};
use super::super::handshake::{Handshake, HandshakeReply, PROTOCOL};
use super::super::header::{ABANDONED, ChannelId, Compression, FrameHeader, HEADER_BYTES, Kind};
use super::harness::{Cluster, DEADLINE, JOB};
use super::programs::{Sunk, program};

/// The worker that a test plays.
const PLAYED: WorkerId = WorkerId(9);
const WINDOW_BYTES: u32 = 64 << 10;

fn handshake() -> Handshake {
    Handshake {
        protocol: PROTOCOL,
        token: String::new(),
        job: JOB,
        from: PLAYED,
        to: WorkerId(1),
        window_bytes: WINDOW_BYTES,
    }
}

fn connect(address: SocketAddr, handshake: &Handshake) -> (TcpStream, HandshakeReply) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let message = to_bytes(handshake).unwrap();
    stream.write_all(&(message.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(&message).unwrap();
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut reply).unwrap();
    (stream, from_bytes(&reply).unwrap())
}

fn read_frame(stream: &mut TcpStream) -> FrameHeader {
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head).unwrap();
    let header = FrameHeader::read(&head).unwrap();
    let mut body = vec![0; header.body_bytes as usize];
    stream.read_exact(&mut body).unwrap();
    header.check_body(&head, &body).unwrap();
    header
}

/// One executor with the sinks of a job; the sources run where the test is.
struct Stage {
    cluster: Cluster,
    sunk: Sunk<u64>,
    sinks: Vec<Placement>,
}

/// Channel of source subtask 0 to sink subtask 0, the only ones there are.
const CHANNEL: ChannelId = ChannelId { edge: 0, source: 0, target: 0 };

fn stage() -> Stage {
    let sunk = Sunk::new();
    let mut built = program(RuntimeMode::Streaming, &sunk, |numbers| numbers);
    for vertex in &mut built.graph.vertices {
        vertex.parallelism = 1;
    }
    let mut cluster = Cluster::start(1, built, |_| {});
    cluster.others = vec![WorkerHost { worker: PLAYED, data_address: "127.0.0.1:1".into() }];
    let mut stage = Stage { cluster, sunk, sinks: Vec::new() };
    stage.place(0);
    stage
}

impl Stage {
    fn place(&mut self, epoch: u32) {
        let (source, sink) = (self.cluster.vertex("numbers"), self.cluster.vertex("sunk"));
        self.cluster.place(&[source], epoch, |_| Some(PLAYED));
        self.sinks = self.cluster.place(&[sink], epoch, |_| None);
    }

    fn deploy(&mut self) {
        self.cluster.deploy(&self.sinks);
        let sinks = self.sinks.clone();
        self.cluster.wait_for_running(&sinks);
    }

    fn connect(&self) -> TcpStream {
        let (stream, reply) = connect(self.cluster.executors[0].address, &handshake());
        assert_eq!(reply, HandshakeReply::Accepted);
        stream
    }

    /// The state in which the sink has ended, and why.
    fn end(&mut self) -> (TaskState, Vec<String>) {
        let sinks = self.sinks.clone();
        self.cluster.wait_for_end(&sinks);
        (self.cluster.state(sinks[0].attempt).unwrap(), self.cluster.failures(&sinks))
    }
}

fn batch(records: impl Iterator<Item = u64>, epoch: u32) -> Vec<u8> {
    batch_frame(&Batch::of(records.collect()), CHANNEL, epoch, Compression::None, 0).unwrap()
}

fn end(epoch: u32) -> Vec<u8> {
    let signals = [Signal::Watermark(MAX_WATERMARK), Signal::EndOfInput];
    signals.into_iter().flat_map(|signal| signal_frame(signal, CHANNEL, epoch).unwrap()).collect()
}

#[test]
fn frames_wait_for_the_deployment_of_their_task() {
    let mut stage = stage();
    let mut stream = stage.connect();
    stream.write_all(&batch(0..10, 0)).unwrap();
    stream.write_all(&batch(10..20, 0)).unwrap();
    stream.write_all(&end(0)).unwrap();
    stage.deploy_once();
    assert_eq!(stage.end(), (TaskState::Finished, vec![]));
    assert_eq!(stage.sunk.of(0), (0..20).collect::<Vec<u64>>());
}

impl Stage {
    /// Deploys a task that may end at once.
    fn deploy_once(&mut self) {
        self.cluster.deploy(&self.sinks);
    }
}

#[test]
fn frames_of_an_older_epoch_are_dropped_and_counted() {
    let mut stage = stage();
    stage.place(2);
    let mut stream = stage.connect();
    // One comes before the deployment and two behind it; of the newest, some come early and some late.
    stream.write_all(&batch(100..110, 1)).unwrap();
    stream.write_all(&batch(0..10, 2)).unwrap();
    stage.deploy();
    stream.write_all(&batch(110..120, 0)).unwrap();
    stream.write_all(&batch(120..130, 1)).unwrap();
    stream.write_all(&batch(10..20, 2)).unwrap();
    stream.write_all(&end(2)).unwrap();
    assert_eq!(stage.end(), (TaskState::Finished, vec![]));
    assert_eq!(stage.sunk.of(0), (0..20).collect::<Vec<u64>>());
    assert_eq!(stage.cluster.executors[0].exchange.stale_frames(), 3);
}

#[test]
fn a_corrupt_frame_is_named_and_ends_the_connection_and_the_tasks_that_read_from_it() {
    let whole = batch(0..10, 0);
    // In the header, in the length, in the body.
    for (at, named) in [(0, "header"), (6, "header"), (HEADER_BYTES + 20, "checksum mismatch")] {
        let mut stage = stage();
        stage.deploy();
        let mut stream = stage.connect();
        stream.write_all(&whole).unwrap();
        let mut broken = whole.clone();
        broken[at] ^= 4;
        stream.write_all(&broken).unwrap();
        let (state, failures) = stage.end();
        assert_eq!(state, TaskState::Failed);
        let place = format!("the executor of worker 9 at {}", stream.local_addr().unwrap());
        assert!(failures[0].contains("corrupt frame") && failures[0].contains(named), "{failures:?}");
        assert!(failures[0].contains(&place), "{failures:?}");
        let mut rest = Vec::new();
        // Closed, or reset because of what was not read any more.
        let _ = stream.read_to_end(&mut rest);
    }
}

#[test]
fn a_length_alone_takes_no_memory_and_a_cut_frame_ends_the_tasks() {
    let mut stage = stage();
    stage.deploy();
    let mut stream = stage.connect();
    let mut frame = vec![0; HEADER_BYTES + (900 << 10)];
    FrameHeader::new(Kind::Batch, CHANNEL, 0, 0).seal(&mut frame).unwrap();
    stream.write_all(&frame[..HEADER_BYTES + 1000]).unwrap();
    drop(stream);
    let (state, failures) = stage.end();
    assert_eq!(state, TaskState::Failed);
    assert!(failures[0].contains("it was closed"), "{failures:?}");
}

#[test]
fn credit_comes_back_as_frames_are_consumed_and_a_task_that_is_gone_gives_its_channel_up() {
    let mut stage = stage();
    stage.deploy();
    let mut stream = stage.connect();
    let (mut sent, mut returned) = (0u32, 0u32);
    while returned < 4 * WINDOW_BYTES {
        while sent - returned < WINDOW_BYTES {
            let frame = batch(0..1000, 0);
            stream.write_all(&frame).unwrap();
            sent += frame.len() as u32;
        }
        let header = read_frame(&mut stream);
        assert_eq!((header.kind, header.channel, header.job_epoch), (Kind::Credit, CHANNEL, 0));
        assert!(header.detail >= WINDOW_BYTES / 4, "{} bytes are not worth a frame", header.detail);
        returned += header.detail;
        assert!(returned <= sent);
    }
    let sinks = stage.sinks.clone();
    stage.cluster.cancel(&sinks);
    stream.write_all(&batch(0..1000, 0)).unwrap();
    while read_frame(&mut stream).detail != ABANDONED {}
}

#[test]
fn who_means_another_job_or_worker_or_has_another_token_is_refused_with_the_reason() {
    let stage = stage();
    let address = stage.cluster.executors[0].address;
    for (wrong, named) in [
        (Handshake { token: "guess".into(), ..handshake() }, "token"),
        (Handshake { to: WorkerId(5), ..handshake() }, "worker 5"),
        (Handshake { protocol: 77, ..handshake() }, "protocol 77"),
    ] {
        let (_stream, reply) = connect(address, &wrong);
        assert!(matches!(&reply, HandshakeReply::Refused(reason) if reason.contains(named)), "{reply:?}");
    }
}
