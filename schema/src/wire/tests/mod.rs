//! What goes into a message comes out of it; what is broken is refused, and never more than that.

mod values;

use std::fmt::Debug;

use capnp::message::Builder;
use proptest::prelude::*;

use super::generated::{control_capnp, job_capnp};
use super::*;
use crate::control::{Order, TaskReport};
use crate::ids::JobId;
use crate::job::{JobSettings, ProgramRef};
use crate::snapshot::Manifest;

fn comes_back<T: Wire + PartialEq + Debug>(value: &T) {
    let bytes = to_bytes(value).unwrap();
    assert_eq!(&from_bytes::<T>(&bytes).unwrap(), value);
}

proptest! {
    #[test]
    fn orders_come_out_as_they_went_in(order in values::order()) {
        comes_back(&order);
    }

    #[test]
    fn reports_come_out_as_they_went_in(report in values::task_report(), task in values::running_task()) {
        comes_back(&report);
        comes_back(&task);
    }

    #[test]
    fn snapshots_come_out_as_they_went_in(
        report in values::report(), waiting in values::waiting_task(), manifest in values::manifest(),
    ) {
        comes_back(&report);
        comes_back(&waiting);
        comes_back(&manifest);
    }

    #[test]
    fn a_changed_bit_of_a_manifest_gives_a_value_or_an_error(
        manifest in values::manifest(), at in any::<prop::sample::Index>(), bit in 0..8,
    ) {
        let mut bytes = to_bytes(&manifest).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let _ = from_bytes::<Manifest>(&bytes);
    }

    #[test]
    fn submissions_come_out_as_they_went_in(submission in values::submission()) {
        comes_back(&submission);
    }

    #[test]
    fn statistics_come_out_as_they_went_in(
        stats in values::worker_stats(), profile in values::worker_profile(), file in values::log_file(),
    ) {
        comes_back(&stats);
        comes_back(&profile);
        comes_back(&file);
    }

    #[test]
    fn a_changed_bit_gives_a_value_or_an_error(order in values::order(), at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = to_bytes(&order).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let _ = from_bytes::<Order>(&bytes);
    }

    #[test]
    fn any_bytes_give_a_value_or_an_error(words in prop::collection::vec(any::<u64>(), 0..40), cut in 0..8_usize) {
        // With a header in front that fits, so that the words are looked at.
        let mut bytes = vec![0; 4];
        bytes.extend((words.len() as u32).to_le_bytes());
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        let _ = from_bytes::<Order>(&bytes);
        bytes.truncate(bytes.len() - cut);
        let _ = from_bytes::<Order>(&bytes);
    }

    #[test]
    fn a_message_that_is_cut_short_is_refused(submission in values::submission(), cut in any::<prop::sample::Index>()) {
        let bytes = to_bytes(&submission).unwrap();
        let length = cut.index(bytes.len());
        prop_assert!(from_bytes::<crate::job::Submission>(&bytes[..length]).is_err());
    }
}

#[test]
fn a_message_is_read_at_any_address() {
    let bytes = to_bytes(&JobId(7 << 64 | 9)).unwrap();
    for shift in 0..8 {
        let shifted = [vec![0; shift], bytes.clone()].concat();
        assert_eq!(from_bytes::<JobId>(&shifted[shift..]).unwrap(), JobId(7 << 64 | 9));
    }
}

#[test]
fn bytes_behind_a_message_are_refused() {
    let mut bytes = to_bytes(&JobId(7)).unwrap();
    bytes.extend([0; 8]);
    let error = from_bytes::<JobId>(&bytes).unwrap_err();
    assert_eq!(error.to_string(), "broken message: 8 bytes follow its end");
}

/// The message that `fill` writes, read as a `T`: the error.
fn refusal<T: Wire + Debug>(fill: impl FnOnce(<T::Form as Owned>::Builder<'_>)) -> String {
    let mut message = Builder::new_default();
    fill(message.init_root());
    let bytes = capnp::serialize::write_message_to_words(&message);
    from_bytes::<T>(&bytes).unwrap_err().to_string()
}

#[test]
fn errors_name_the_field() {
    type Report<'a> = control_capnp::task_report::Builder<'a>;
    let missing = refusal::<TaskReport>(|mut form: Report| {
        form.reborrow().init_job();
        form.init_attempt().init_task();
    });
    assert_eq!(missing, "attempt: task: vertex: broken message: the field is missing");

    let digest = refusal::<ProgramRef>(|mut form: job_capnp::program_ref::Builder| form.set_digest(&[1; 31]));
    assert_eq!(digest, "digest: broken message: 31 bytes where 32 are wanted");

    let text = refusal::<TaskReport>(|mut form: Report| {
        form.reborrow().init_job();
        form.reborrow().init_attempt().init_task().init_vertex();
        form.init_failure().set_message(capnp::text::Reader(b"caf\xe9"));
    });
    assert!(text.starts_with("failure: message: broken message: "), "{text}");

    let element = refusal::<Order>(|form: control_capnp::order::Builder| {
        let mut form = form.init_cancel();
        form.reborrow().init_cancel_job();
        form.init_attempts(1);
    });
    assert_eq!(element, "attempts[0]: task: broken message: the field is missing");
}

#[test]
fn a_choice_of_a_newer_version_is_refused_with_the_reason() {
    let settings = JobSettings::default();
    let mut bytes = to_bytes(&settings).unwrap();
    // The only unions of this message are the strategy and the wait; both are 0 as written, so any 2-byte place that turns
    // the message into an error of this kind is one of them.
    let unknown: Vec<String> = (8..bytes.len() - 1)
        .step_by(2)
        .filter_map(|at| {
            let before = bytes[at];
            bytes[at] = 0x63;
            let error = from_bytes::<JobSettings>(&bytes).err().map(|error| error.to_string());
            bytes[at] = before;
            error.filter(|error| error.contains("newer version"))
        })
        .collect();
    let reason = "broken message: value 99 is not known; a newer version of Flott wrote it, so this process must be upgraded";
    assert_eq!(unknown, [format!("slotWait: {reason}"), format!("restart: strategy: {reason}")]);
}

#[test]
fn a_short_message_cannot_claim_a_long_list() {
    // A list of 2^28 structs without content takes two words.
    let mut message = Builder::new_default();
    message.init_root::<job_capnp::program_ref::Builder>().set_digest(&[1; 32]);
    let mut bytes = capnp::serialize::write_message_to_words(&message);
    // The pointer of `configuration`, the fourth of the root: behind the header, the root pointer and one word of data.
    let pointer = 8 + 8 + 8 + 3 * 8;
    let end = bytes.len();
    let offset = (end - pointer - 8) / 8;
    bytes.extend(((1_u64 << 28) << 2).to_le_bytes());
    bytes[4..8].copy_from_slice(&((end as u32) / 8).to_le_bytes());
    // A list pointer: kind 1, offset, element size 7 (composite), no words.
    bytes[pointer..pointer + 8].copy_from_slice(&((offset as u64) << 2 | 1 | 7 << 32).to_le_bytes());
    let error = from_bytes::<ProgramRef>(&bytes).unwrap_err().to_string();
    assert!(error.starts_with("configuration: broken message: "), "{error}");
}

#[test]
fn a_long_failure_is_told_in_part_and_a_long_text_is_refused() {
    let mut report = values::long_report(1 << 20);
    let read = from_bytes::<TaskReport>(&to_bytes(&report).unwrap()).unwrap();
    let message = read.failure.unwrap().message;
    assert!(message.len() < 1 << 19 && message.chars().all(|letter| letter == 'é'), "{}", message.len());

    report.failure.as_mut().unwrap().vertex = "x".repeat(fields::TEXT_BYTES_MAX + 1);
    let error = to_bytes(&report).unwrap_err().to_string();
    assert!(error.starts_with("failure: vertex: 16777217 bytes are too many"), "{error}");
}
