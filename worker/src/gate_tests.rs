use std::task::Waker;

use flott_dataflow::batch::{Batch, decoder_of};
use flott_dataflow::element::Element;
use flott_dataflow::exchange::ChannelWriter;

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
