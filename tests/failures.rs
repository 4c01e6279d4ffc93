//! What goes wrong in a job: it fails with the place and the reason, ends, and leaves nothing running.

mod support;

use std::time::Instant;

use flott::prelude::*;
use flott::{EmbeddedOptions, ErrorKind};
use support::shapes;

#[test]
fn a_panic_names_vertex_subtask_message_and_place() {
    for shape in shapes() {
        let error = shape
            .run(|env| {
                env.sequence(1, 100_000)
                    .rebalance()
                    .map(|n| if n == 77_777 { panic!("unlucky {n}") } else { n })
                    .name("Risky")
            })
            .unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::UserCode, "{shape:?}");
        assert!(text.contains("job 'test' failed"), "{text}");
        assert!(text.contains("task 'Risky"), "{text}");
        assert!(text.contains(&format!("of {})", shape.parallelism)), "{text}");
        assert!(text.contains("panicked at tests/failures.rs:"), "{text}");
        assert!(text.contains("unlucky 77777"), "{text}");
        assert!(
            error.backtrace().is_some_and(|backtrace| backtrace.contains("failures")),
            "{:?}",
            error.backtrace()
        );
    }
}

#[test]
fn an_error_of_a_function_fails_the_job() {
    for shape in shapes() {
        let error = shape
            .run(|env| {
                env.sequence(1, 10_000)
                    .try_map(|n| if n == 5000 { Err(flott::Error::user("no such rule")) } else { Ok(n) })
            })
            .unwrap_err();
        assert!(error.to_string().ends_with("no such rule"), "{error}");
    }
}

#[derive(Clone)]
struct FailsToOpen;

impl ProcessFunction<u64, u64> for FailsToOpen {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> flott::Result<()> {
        ctx.value_state::<u64>("count").map(drop)
    }

    fn process(&mut self, n: u64, ctx: &mut ProcessContext<'_, u64>) -> flott::Result<()> {
        ctx.collect(n);
        Ok(())
    }
}

#[test]
fn state_without_a_key_is_refused_with_advice() {
    let error = shapes()[0].run(|env| env.sequence(1, 10).process(FailsToOpen)).unwrap_err();
    assert!(error.to_string().contains("call key_by before it"), "{error}");
}

#[test]
fn mistakes_in_the_graph_are_found_before_anything_runs() {
    let mistakes: [(&str, fn(&StreamEnv), &str); 6] = [
        ("empty", |_env| {}, "nothing to execute"),
        (
            "uid twice",
            |env| {
                env.sequence(1, 2).uid("a").map(|n| n).uid("a").discard();
            },
            "uid 'a' is used twice",
        ),
        (
            "parallelism above max parallelism",
            |env| {
                env.sequence(1, 2).map(|n| n).parallelism(20).max_parallelism(10).discard();
            },
            "parallelism 20, above its max parallelism 10",
        ),
        (
            "a float in a key",
            |env| {
                env.sequence(1, 2)
                    .map(|n| (n as i64, 1u8))
                    .key_by(|r| (r.0, FloatKey(0.5)))
                    .sum(|r| &mut r.1)
                    .discard();
            },
            "f64",
        ),
        (
            "a missing file",
            |env| {
                env.read_text("no/such/file").discard();
            },
            "no/such/file",
        ),
        (
            "settings on a union",
            |env| {
                let stream = env.sequence(1, 2);
                stream.union(&[&stream]).name("both").discard();
            },
            "name() is called on a union",
        ),
    ];
    for (what, build, message) in mistakes {
        let env = StreamEnv::new();
        build(&env);
        let error = env.compile("test").map(drop).unwrap_err();
        assert!(error.to_string().contains(message), "{what}: {error}");
    }
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct FloatKey(f64);

impl PartialEq for FloatKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for FloatKey {}

#[test]
fn more_slots_than_there_are_is_an_error_with_both_numbers() {
    let env = StreamEnv::new();
    env.set_parallelism(4);
    env.sequence(1, 10).discard();
    let error = env
        .execute_with("wide", EmbeddedOptions { slots: Some(2), ..EmbeddedOptions::default() })
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Resources);
    assert!(error.to_string().contains("needs 4 slots, has 2"), "{error}");
}

#[test]
fn a_failed_job_ends_soon_also_with_an_endless_source() {
    let started = Instant::now();
    let env = StreamEnv::new();
    env.set_parallelism(2);
    let endless = flott::connectors::generator::Generator::new(|n| n);
    env.add_source(endless, "endless").map(|n| if n == 1_000_000 { panic!("enough") } else { n }).discard();
    let error = env.execute_with("endless", EmbeddedOptions::default()).unwrap_err();
    assert!(error.to_string().contains("enough"), "{error}");
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn a_stream_of_a_job_that_was_executed_cannot_be_used_in_the_next() {
    let env = StreamEnv::new();
    let doubled = env.sequence(1, 5).map(|n| n * 2);
    doubled.discard();
    env.execute_with("first", EmbeddedOptions::default()).unwrap();
    env.sequence(100, 105).map(|n| n * 7).discard();
    doubled.map(|n| n + 1).discard();
    let error = env.execute_with("second", EmbeddedOptions::default()).unwrap_err();
    assert!(error.to_string().contains("a job that was executed already"), "{error}");
    env.sequence(1, 5).discard();
    env.execute_with("third", EmbeddedOptions::default()).unwrap();
}

#[test]
fn a_source_has_no_side_outputs_and_a_tag_has_one_type() {
    let env = StreamEnv::new();
    env.sequence(1, 5).side_output(&OutputTag::<u64>::new("x")).shuffle().map(|n| n).discard();
    let error = env.compile("test").map(drop).unwrap_err();
    assert!(error.to_string().contains("sources have none"), "{error}");

    #[derive(Clone)]
    struct Texts;
    impl ProcessFunction<u64, u64> for Texts {
        fn process(&mut self, n: u64, ctx: &mut ProcessContext<'_, u64>) -> flott::Result<()> {
            ctx.side(&OutputTag::<String>::new("x"), n.to_string());
            Ok(())
        }
    }
    let error = shapes()[0]
        .run(|env| env.sequence(1, 5).process(Texts).side_output(&OutputTag::<u64>::new("x")))
        .unwrap_err();
    assert!(error.to_string().contains("use one tag for both"), "{error}");
}

#[test]
fn impossible_parallelism_is_refused_and_not_tried() {
    for parallelism in [0, 40_000, u32::MAX] {
        let env = StreamEnv::new();
        env.sequence(1, 5).parallelism(parallelism).discard();
        assert!(env.execute_with("wide", EmbeddedOptions::default()).is_err(), "{parallelism}");
    }
    let env = StreamEnv::new();
    env.sequence(1, 5).parallelism(2000).discard();
    let error = env.execute_with("wide", EmbeddedOptions::default()).unwrap_err();
    assert!(error.to_string().contains("needs 2000 slots"), "{error}");
}
