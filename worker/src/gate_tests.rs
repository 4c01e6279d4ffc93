use std::task::Waker;

use flott_dataflow::batch::{Batch, decoder_of};
use flott_dataflow::element::Element;
use flott_dataflow::exchange::ChannelWriter;
use flott_schema::snapshot::{SavepointFormat, SnapshotKind};

use super::*;
use crate::channel::LocalWriter;

/// A gate with one channel per entry of `inputs`, and their writers.
fn gate(inputs: &[u16]) -> (InputGate, Vec<LocalWriter>) {
    let queue = Arc::<GateQueue>::default();
    let mut gate = InputGate::new(queue.clone(), Arc::default());
    let mut writers = Vec::new();
    for (number, input) in inputs.iter().enumerate() {
        let credit = Arc::new(Credit::new(8));
        gate.add(*input, decoder_of::<Batch<u32>>(), Origin::Local(credit.clone()));
        writers.push(LocalWriter::new(queue.clone(), number as u32, credit, Arc::default(), number % 2 == 1));
    }
    (gate, writers)
}

fn data(writer: &mut LocalWriter, record: u32) {
    writer.send(Element::Batch(Box::new(Batch::of(vec![record])))).unwrap();
}

fn signal(writer: &mut LocalWriter, signal: Signal) {
    writer.send(Element::Signal(signal)).unwrap();
}

fn barrier(checkpoint: u64) -> Signal {
    Signal::Barrier(Barrier::of_checkpoint(checkpoint))
}

/// Everything there is, in words.
fn drain(gate: &mut InputGate) -> Vec<String> {
    let mut seen = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(input) = gate.poll_next(&mut cx) {
        seen.push(match input.unwrap() {
            Input::Batch(input, batch) => {
                let batch = batch.into_any().downcast::<Batch<u32>>().unwrap();
                format!("{input}:{:?}", batch.records)
            }
            Input::Signal(Signal::Watermark(watermark)) => format!("watermark {watermark}"),
            Input::Signal(Signal::Idle(idle)) => format!("idle {idle}"),
            Input::Signal(Signal::Barrier(barrier)) => format!("barrier {}", barrier.checkpoint),
            Input::Signal(Signal::EndOfInput) => "end".to_string(),
            Input::InputEnded(input) => format!("end of {input}"),
        });
    }
    seen
}

#[test]
fn the_watermark_is_the_minimum_over_active_channels() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    signal(&mut writers[0], Signal::Watermark(10));
    assert!(drain(&mut gate).is_empty());
    signal(&mut writers[1], Signal::Watermark(5));
    assert_eq!(drain(&mut gate), ["watermark 5"]);
    signal(&mut writers[1], Signal::Idle(true));
    assert_eq!(drain(&mut gate), ["watermark 10"]);
    signal(&mut writers[0], Signal::Idle(true));
    assert_eq!(drain(&mut gate), ["idle true"]);
    signal(&mut writers[1], Signal::Idle(false));
    assert_eq!(drain(&mut gate), ["idle false"]);
    signal(&mut writers[1], Signal::Watermark(20));
    assert_eq!(drain(&mut gate), ["watermark 20"]);
}

#[test]
fn a_channel_that_ended_does_not_hold_back_time() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    signal(&mut writers[0], Signal::Watermark(i64::MAX));
    signal(&mut writers[0], Signal::EndOfInput);
    signal(&mut writers[1], Signal::Watermark(7));
    assert_eq!(drain(&mut gate), ["watermark 7"]);
    signal(&mut writers[1], Signal::Watermark(i64::MAX));
    signal(&mut writers[1], Signal::EndOfInput);
    assert_eq!(drain(&mut gate), [format!("watermark {}", i64::MAX), "end".to_string()]);
}

#[test]
fn barriers_align_and_what_waited_comes_behind_in_order() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    data(&mut writers[0], 1);
    signal(&mut writers[0], barrier(1));
    data(&mut writers[0], 2);
    data(&mut writers[1], 3);
    assert_eq!(drain(&mut gate), ["0:[1]", "0:[3]"]);
    data(&mut writers[1], 4);
    signal(&mut writers[1], barrier(1));
    data(&mut writers[1], 5);
    assert_eq!(drain(&mut gate), ["0:[4]", "barrier 1", "0:[2]", "0:[5]"]);
}

#[test]
fn what_is_processed_while_a_barrier_aligns_is_counted() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    data(&mut writers[1], 1);
    signal(&mut writers[0], barrier(1));
    data(&mut writers[0], 2);
    data(&mut writers[1], 3);
    data(&mut writers[1], 4);
    signal(&mut writers[1], barrier(1));
    data(&mut writers[1], 5);
    assert_eq!(drain(&mut gate), ["0:[1]", "0:[3]", "0:[4]", "barrier 1", "0:[2]", "0:[5]"]);
    let one_bytes = flott_dataflow::batch::DataBatch::weight_bytes(&Batch::of(vec![3_u32])) as u64;
    assert_eq!(gate.take_alignment().processed_bytes, 2 * one_bytes);
    assert_eq!(gate.take_alignment().processed_bytes, 0);
}

#[test]
fn a_channel_that_ends_completes_the_alignment() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    signal(&mut writers[0], barrier(1));
    signal(&mut writers[1], Signal::EndOfInput);
    assert_eq!(drain(&mut gate), ["barrier 1"]);
}

#[test]
fn the_end_of_each_input_is_told_to_tasks_with_several() {
    let (mut gate, mut writers) = gate(&[0, 1, 1]);
    signal(&mut writers[1], Signal::EndOfInput);
    signal(&mut writers[2], Signal::EndOfInput);
    assert_eq!(drain(&mut gate), ["end of 1"]);
    signal(&mut writers[0], Signal::EndOfInput);
    assert_eq!(drain(&mut gate), ["end of 0", "end"]);
}

/// One that is triggered now.
fn barrier_with(checkpoint: u64, alignment: Alignment) -> Signal {
    let timestamp_ms = Clock::default().now_ms();
    Signal::Barrier(Barrier { timestamp_ms, alignment, ..Barrier::of_checkpoint(checkpoint) })
}

#[test]
fn a_newer_barrier_ends_the_wait_for_one_that_was_given_up() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    signal(&mut writers[0], barrier(1));
    data(&mut writers[0], 1);
    signal(&mut writers[1], barrier(2));
    data(&mut writers[1], 2);
    // The first channel goes on; the second waits for the first one's barrier 2.
    assert_eq!(drain(&mut gate), ["0:[1]"]);
    signal(&mut writers[0], barrier(2));
    assert_eq!(drain(&mut gate), ["barrier 2", "0:[2]"]);
    // What is late is nothing any more.
    signal(&mut writers[1], barrier(1));
    assert!(drain(&mut gate).is_empty());
}

#[test]
fn without_alignment_nothing_waits() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    signal(&mut writers[0], barrier_with(1, Alignment::None));
    data(&mut writers[0], 1);
    data(&mut writers[1], 2);
    assert_eq!(drain(&mut gate), ["0:[1]", "0:[2]"]);
    signal(&mut writers[1], barrier_with(1, Alignment::None));
    assert_eq!(drain(&mut gate), ["barrier 1"]);
}

/// The records in a recording, by channel.
fn recorded(recording: &Recording) -> Vec<(u32, Vec<u32>)> {
    let records = |bytes: &Vec<u8>| {
        let frames = frames(bytes).unwrap().into_iter();
        let batches = frames.map(|bytes| frame::decode(&bytes, decoder_of::<Batch<u32>>()).unwrap());
        let batches = batches.map(|batch| batch.into_any().downcast::<Batch<u32>>().unwrap().records);
        batches.flatten().collect()
    };
    recording.channels.iter().map(|(number, bytes)| (*number, records(bytes))).collect()
}

#[test]
fn a_barrier_overtakes_what_is_recorded_and_still_processed() {
    let (mut gate, mut writers) = gate(&[0, 0, 0]);
    let mut cx = Context::from_waker(Waker::noop());
    let overtaking = barrier_with(1, Alignment::UnalignedAfter(0));
    data(&mut writers[0], 10);
    signal(&mut writers[0], overtaking);
    data(&mut writers[0], 11);
    data(&mut writers[1], 20);
    signal(&mut writers[2], Signal::EndOfInput);
    gate.look_ahead(&mut cx).unwrap();
    assert_eq!(gate.next_overtaking().map(|barrier| barrier.checkpoint), Some(1));
    assert!(gate.take_alignment().unaligned);
    // The second channel's barrier is still to come.
    assert!(gate.take_recording().is_none());
    data(&mut writers[1], 21);
    gate.look_ahead(&mut cx).unwrap();
    signal(&mut writers[1], overtaking);
    data(&mut writers[1], 22);
    gate.look_ahead(&mut cx).unwrap();
    let recording = gate.take_recording().expect("all barriers have come");
    assert_eq!(recorded(&recording), [(0, vec![10]), (1, vec![20, 21])]);
    assert_eq!(drain(&mut gate), ["0:[10]", "0:[11]", "0:[20]", "0:[21]", "0:[22]"]);

    // Where it is put back, it comes first.
    let (mut again, mut writers) = self::gate(&[0, 0, 0]);
    recording.channels.iter().for_each(|(number, bytes)| again.restore(*number, bytes).unwrap());
    data(&mut writers[0], 11);
    assert_eq!(drain(&mut again), ["0:[10]", "0:[20]", "0:[21]", "0:[11]"]);
}

#[test]
fn a_barrier_that_aligns_in_time_overtakes_nothing() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    let mut cx = Context::from_waker(Waker::noop());
    let patient = barrier_with(1, Alignment::UnalignedAfter(60_000));
    signal(&mut writers[0], patient);
    data(&mut writers[0], 1);
    data(&mut writers[1], 2);
    assert!(gate.look_ahead(&mut cx).unwrap().is_some(), "it would overtake in a minute");
    assert_eq!(drain(&mut gate), ["0:[2]"]);
    signal(&mut writers[1], patient);
    gate.look_ahead(&mut cx).unwrap();
    assert_eq!(drain(&mut gate), ["barrier 1", "0:[1]"]);
    assert!(!gate.take_alignment().unaligned && gate.look_ahead(&mut cx).unwrap().is_none());
}

#[test]
fn a_barrier_that_has_waited_elsewhere_does_not_wait_again() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    let mut cx = Context::from_waker(Waker::noop());
    let timestamp_ms = Clock::default().now_ms() - 60_000;
    let alignment = Alignment::UnalignedAfter(60_000);
    let late = Signal::Barrier(Barrier { timestamp_ms, alignment, ..Barrier::of_checkpoint(1) });
    data(&mut writers[0], 1);
    signal(&mut writers[0], late);
    gate.look_ahead(&mut cx).unwrap();
    assert_eq!(drain(&mut gate), ["barrier 1", "0:[1]"]);
    assert!(gate.take_alignment().unaligned);
}

#[test]
fn an_alignment_that_takes_too_long_ends_with_the_rest_recorded() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    let mut cx = Context::from_waker(Waker::noop());
    signal(&mut writers[0], barrier_with(1, Alignment::UnalignedAfter(1)));
    data(&mut writers[0], 1);
    assert!(drain(&mut gate).is_empty());
    let due = gate.look_ahead(&mut cx).unwrap().expect("a barrier that may overtake");
    data(&mut writers[1], 2);
    while Instant::now() < due {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    gate.look_ahead(&mut cx).unwrap();
    assert_eq!(drain(&mut gate), ["barrier 1", "0:[1]", "0:[2]"]);
    signal(&mut writers[1], barrier_with(1, Alignment::UnalignedAfter(1)));
    gate.look_ahead(&mut cx).unwrap();
    assert_eq!(recorded(&gate.take_recording().unwrap()), [(1, vec![2])]);
}

#[test]
fn frames_of_a_recording_that_is_cut_short_are_refused() {
    let batch = frame::encode(&Batch::of(vec![1u32, 2])).unwrap();
    let two = [batch.clone(), batch].concat();
    assert_eq!(frames(&two).unwrap().len(), 2);
    for length in 1..two.len() {
        assert!(length == two.len() / 2 || frames(&two[..length]).is_err(), "{length}");
    }
}

#[test]
fn what_comes_behind_the_overtaking_is_recorded_also_when_the_task_reads_on() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    let mut cx = Context::from_waker(Waker::noop());
    let overtaking = barrier_with(1, Alignment::UnalignedAfter(0));
    signal(&mut writers[0], overtaking);
    gate.look_ahead(&mut cx).unwrap();
    assert_eq!(drain(&mut gate), ["barrier 1"]);
    data(&mut writers[1], 20);
    assert_eq!(drain(&mut gate), ["0:[20]"]);
    signal(&mut writers[1], overtaking);
    data(&mut writers[1], 21);
    assert_eq!(drain(&mut gate), ["0:[21]"]);
    assert_eq!(recorded(&gate.take_recording().expect("the barrier has come")), [(1, vec![20])]);
}

#[test]
fn a_snapshot_that_was_given_up_holds_nothing_back_however_late_its_barriers_are() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    signal(&mut writers[0], barrier(1));
    data(&mut writers[0], 1);
    assert!(drain(&mut gate).is_empty());
    gate.give_up(1);
    assert_eq!(drain(&mut gate), ["0:[1]"]);
    signal(&mut writers[1], barrier(1));
    data(&mut writers[1], 2);
    assert_eq!(drain(&mut gate), ["0:[2]"]);
    signal(&mut writers[0], barrier(2));
    signal(&mut writers[1], barrier(2));
    assert_eq!(drain(&mut gate), ["barrier 2"]);
}

#[test]
fn a_recording_ends_with_a_newer_barrier_in_the_place_of_its_own() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    let mut cx = Context::from_waker(Waker::noop());
    signal(&mut writers[0], barrier_with(1, Alignment::UnalignedAfter(0)));
    gate.look_ahead(&mut cx).unwrap();
    assert_eq!(drain(&mut gate), ["barrier 1"]);
    signal(&mut writers[1], barrier(2));
    data(&mut writers[1], 1);
    assert_eq!(drain(&mut gate), Vec::<String>::new());
    assert!(gate.take_recording().is_none());
    signal(&mut writers[0], barrier(2));
    assert_eq!(drain(&mut gate), ["barrier 2", "0:[1]"]);
    // Nor is anything recorded for one that was given up before its barriers came.
    gate.give_up(3);
    signal(&mut writers[0], barrier_with(3, Alignment::UnalignedAfter(0)));
    gate.look_ahead(&mut cx).unwrap();
    assert!(drain(&mut gate).is_empty() && gate.take_recording().is_none());
}

fn savepoint(checkpoint: u64) -> Signal {
    Signal::Barrier(Barrier {
        kind: SnapshotKind::Savepoint(SavepointFormat::Native),
        ..Barrier::of_checkpoint(checkpoint)
    })
}

#[test]
fn without_alignment_each_of_several_barriers_passes_when_all_channels_have_sent_it() {
    let (mut gate, mut writers) = gate(&[0, 0]);
    let free = |checkpoint| barrier_with(checkpoint, Alignment::None);
    signal(&mut writers[0], free(1));
    signal(&mut writers[0], free(2));
    data(&mut writers[0], 1);
    assert_eq!(drain(&mut gate), ["0:[1]"]);
    signal(&mut writers[1], free(1));
    data(&mut writers[1], 2);
    assert_eq!(drain(&mut gate), ["barrier 1", "0:[2]"]);
    // A savepoint is aligned even so, and a checkpoint in front of it is not lost.
    signal(&mut writers[0], savepoint(3));
    data(&mut writers[0], 3);
    assert!(drain(&mut gate).is_empty());
    signal(&mut writers[1], free(2));
    data(&mut writers[1], 4);
    signal(&mut writers[1], savepoint(3));
    assert_eq!(drain(&mut gate), ["barrier 2", "0:[4]", "barrier 3", "0:[3]"]);
    // One that was given up by a sender, and one by the leader.
    signal(&mut writers[0], free(4));
    signal(&mut writers[0], free(5));
    signal(&mut writers[1], free(5));
    assert_eq!(drain(&mut gate), ["barrier 4", "barrier 5"]);
    signal(&mut writers[0], free(6));
    assert!(drain(&mut gate).is_empty());
    gate.give_up(6);
    signal(&mut writers[1], free(6));
    signal(&mut writers[1], Signal::EndOfInput);
    signal(&mut writers[0], free(7));
    assert_eq!(drain(&mut gate), ["barrier 7"]);
}

#[test]
fn a_savepoint_is_not_overtaken_and_stands_in_the_way_of_no_barrier_in_front_of_it() {
    let overtaking = |checkpoint| barrier_with(checkpoint, Alignment::UnalignedAfter(0));
    let mut cx = Context::from_waker(Waker::noop());
    // Behind it.
    let (mut gate, mut writers) = self::gate(&[0, 0]);
    signal(&mut writers[0], overtaking(1));
    signal(&mut writers[0], savepoint(2));
    data(&mut writers[1], 1);
    gate.look_ahead(&mut cx).unwrap();
    assert_eq!(drain(&mut gate), ["barrier 1", "0:[1]"]);
    signal(&mut writers[1], overtaking(1));
    signal(&mut writers[1], savepoint(2));
    gate.look_ahead(&mut cx).unwrap();
    assert_eq!(recorded(&gate.take_recording().unwrap()), [(1, vec![1])]);
    assert_eq!(drain(&mut gate), ["barrier 2"]);
    // In front of it: first in the queue, then while it is aligned.
    signal(&mut writers[0], savepoint(3));
    signal(&mut writers[0], overtaking(4));
    gate.look_ahead(&mut cx).unwrap();
    assert!(drain(&mut gate).is_empty());
    gate.look_ahead(&mut cx).unwrap();
    data(&mut writers[1], 2);
    signal(&mut writers[1], savepoint(3));
    data(&mut writers[1], 3);
    // Now it does.
    assert_eq!(drain(&mut gate), ["0:[2]", "barrier 3", "0:[3]", "barrier 4"]);
    data(&mut writers[1], 4);
    signal(&mut writers[1], overtaking(4));
    gate.look_ahead(&mut cx).unwrap();
    assert_eq!(drain(&mut gate), ["0:[4]"]);
    assert_eq!(recorded(&gate.take_recording().unwrap()), [(1, vec![4])]);
}

#[test]
fn a_gate_that_aligns_strictly_lets_nothing_past_a_barrier() {
    for alignment in [Alignment::None, Alignment::UnalignedAfter(0)] {
        let (mut gate, mut writers) = gate(&[0, 0]);
        gate.align_strictly();
        signal(&mut writers[0], barrier_with(1, alignment));
        data(&mut writers[0], 1);
        data(&mut writers[1], 2);
        assert_eq!(drain(&mut gate), ["0:[2]"]);
        signal(&mut writers[1], barrier_with(1, alignment));
        assert_eq!(drain(&mut gate), ["barrier 1", "0:[1]"]);
    }
}
