use std::fs;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use flott_dataflow::api::StreamEnv;
use flott_dataflow::context::TaskContext;
use flott_dataflow::element::{MAX_WATERMARK, Signal};
use flott_dataflow::operator::OutputTag;
use flott_dataflow::source::Assignment;
use flott_dataflow::stage::Flow;
use flott_dataflow::task::Read;
use flott_schema::Result;

use crate::api::{Connectors, LineParsers, SinkConnectors};
use crate::bad_record::OnBadRecord;
use crate::collect::Collected;
use crate::json::Rejected;

/// Runs a program whose vertices have one task each and no edges between them.
fn run(env: &StreamEnv) -> Result<()> {
    let program = env.compile("test")?;
    assert!(program.graph.edges.is_empty(), "the program is one chain for each source");
    let mut cx = Context::from_waker(Waker::noop());
    for vertex in &program.graph.vertices {
        let settings = program.settings.clone();
        let ctx = Rc::new(TaskContext::new("test", &vertex.name, 0, vertex.parallelism, 128, settings));
        let mut enumerator = program.enumerator(vertex.id, vertex.parallelism)?;
        let mut task = program.build_task(vertex.id, &ctx, &mut |_| Vec::new())?.task;
        task.open()?;
        loop {
            match task.read(&mut cx)? {
                Poll::Ready(Read::Ended) => break,
                Poll::Ready(Read::NeedsSplit) => match enumerator.next_split(0)? {
                    Assignment::Split(split) => task.add_split(Some(&split))?,
                    Assignment::NoMore => task.add_split(None)?,
                    Assignment::Later(_) => panic!("a bounded source asks to wait"),
                },
                Poll::Ready(Read::Batch) | Poll::Pending => {}
            }
        }
        for signal in [Signal::Watermark(MAX_WATERMARK), Signal::EndOfInput] {
            while task.signal(signal)? == Flow::Again {}
        }
        task.close()?;
    }
    Ok(())
}

#[test]
fn a_program_reads_transforms_and_writes() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.txt");
    fs::write(&input, "to be\nor not\n").unwrap();
    let env = StreamEnv::new();
    let upper = env.read_text(&input).map(|line: String| line.to_uppercase());
    let collected = Collected::new();
    upper.collect_into(&collected);
    upper.write_text_file(folder.path().join("out.txt"));
    upper.write_json(folder.path().join("json"));
    upper.discard();
    run(&env).unwrap();
    assert_eq!(collected.take(), ["TO BE", "OR NOT"]);
    assert_eq!(fs::read_to_string(folder.path().join("out.txt")).unwrap(), "TO BE\nOR NOT\n");
    let json = fs::read_to_string(folder.path().join("json/part-0-0.jsonl")).unwrap();
    assert_eq!(json, "\"TO BE\"\n\"OR NOT\"\n");
}

#[test]
fn what_one_program_writes_another_reads() {
    let folder = tempfile::tempdir().unwrap();
    let (csv, json) = (folder.path().join("csv"), folder.path().join("json"));
    let env = StreamEnv::new();
    let rows = env.from_timestamped(vec![(("a".to_string(), 1), 10), (("b,c".to_string(), 2), 20)]);
    rows.write_csv(&csv);
    rows.write_json(&json);
    run(&env).unwrap();

    let from_json = Collected::<(String, u32)>::new();
    env.read_json(&json).collect_into(&from_json);
    let numbers = Collected::new();
    env.sequence(1, 3).collect_into(&numbers);
    run(&env).unwrap();
    assert_eq!(from_json.take(), [("a".to_string(), 1), ("b,c".to_string(), 2)]);
    assert_eq!(numbers.take(), [1, 2, 3]);
    let written = fs::read_to_string(csv.join("part-0-0.csv")).unwrap();
    assert_eq!(written, "a,1\n\"b,c\",2\n", "tuples have no names for a header");
}

#[test]
fn lines_of_json_are_parsed_in_the_stream() {
    let env = StreamEnv::new();
    let lines = env.from_collection(["1", "x", "3"].map(String::from).to_vec());
    let (numbers, rejected) = (Collected::<u8>::new(), Collected::new());
    let rejects = OutputTag::<Rejected>::new("rejects");
    let parsed = lines.parse_json_or::<u8>(&rejects);
    parsed.collect_into(&numbers);
    parsed.side_output(&rejects).map(|rejected: Rejected| rejected.text).collect_into(&rejected);
    run(&env).unwrap();
    assert_eq!((numbers.take(), rejected.take()), (vec![1, 3], vec!["x".to_string()]));

    let lines = env.from_collection(["1", "x"].map(String::from).to_vec());
    lines.parse_json::<u8>(OnBadRecord::Fail).discard();
    assert!(run(&env).unwrap_err().to_string().contains("operator 'Parse JSON': column 1"));
}

#[test]
fn what_cannot_work_is_refused_when_the_program_is_compiled() {
    let refused = |build: &dyn Fn(&StreamEnv)| {
        let env = StreamEnv::new();
        build(&env);
        env.compile("test").err().expect("an error").to_string()
    };
    let error = refused(&|env| drop(env.read_text("/no/such/file").print()));
    assert!(error.starts_with("operator 'Source: Text Files': cannot read '/no/such/file'"), "{error}");
    let error = refused(&|env| drop(env.read_csv::<(u8, u8)>("/no/such/file").print_debug()));
    assert!(error.starts_with("operator 'Source: CSV Files'"), "{error}");
    let error = refused(&|env| drop(env.sequence(2, 1).write_text("/dev/null/out")));
    assert!(error.contains("runs backwards"), "{error}");
    let error = refused(&|env| drop(env.sequence(1, 2).write_text("/dev/null/out")));
    assert!(error.starts_with("operator 'Sink: Text Files': cannot write to folder"), "{error}");
    let error = refused(&|env| drop(env.socket_text("", 80).discard()));
    assert!(error.starts_with("operator 'Source: Socket'"), "{error}");
}
