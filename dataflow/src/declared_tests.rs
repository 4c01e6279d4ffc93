use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::api::StreamEnv;
use crate::operators::keyed_process::{KeyedContext, KeyedProcessFunction};
use crate::operators::list_state::ListStateHandle;
use crate::operators::open::OpenContext;
use crate::operators::process::{ProcessContext, ProcessFunction};
use crate::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use crate::state::{MapState, ValueState};

/// A source and a sink that must not be opened.
#[derive(Clone)]
struct Outside;

impl Source for Outside {
    type Record = u64;
    type Split = (u64, String);
    type Enumerator = Outside;
    type Reader = Outside;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, _parallelism: u32) -> Result<Outside> {
        panic!("its enumerator was made")
    }

    fn reader(&self, _ctx: &OperatorContext) -> Result<Outside> {
        panic!("its reader was made")
    }
}

impl SplitEnumerator for Outside {
    type Split = (u64, String);

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<(u64, String)>> {
        Ok(Assignment::NoMore)
    }
}

impl SourceReader for Outside {
    type Record = u64;
    type Split = (u64, String);

    fn add_split(&mut self, _split: (u64, String)) -> Result<()> {
        Ok(())
    }

    fn read(&mut self, _max_records: usize, _cx: &mut std::task::Context<'_>) -> Result<ReadBatch<u64>> {
        Ok(std::task::Poll::Ready(None))
    }

    fn snapshot(&self) -> Vec<(u64, String)> {
        Vec::new()
    }
}

/// Registers a value, a map and a list, which it does not read.
#[derive(Clone, Default)]
struct Keeper {
    last: ValueState<u32>,
    seen: MapState<String, bool>,
    all: ListStateHandle<u16>,
    closed: Arc<AtomicU64>,
}

impl KeyedProcessFunction<u64, u64, u64> for Keeper {
    fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<()> {
        self.last = ctx.value_state("last")?;
        self.seen = ctx.map_state("seen")?;
        self.all = ctx.union_list_state("all")?;
        Ok(())
    }

    fn process(&mut self, _record: u64, _ctx: &mut KeyedContext<'_, u64, u64>) -> Result<()> {
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.closed.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Needs what is not here.
#[derive(Clone)]
struct Elsewhere {
    panics: bool,
}

impl ProcessFunction<u64, u64> for Elsewhere {
    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<()> {
        match self.panics {
            true => panic!("no such server"),
            false => Err(Error::user("no such file")),
        }
    }

    fn process(&mut self, _record: u64, _ctx: &mut ProcessContext<'_, u64>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn the_states_of_a_program_are_known_without_a_source_that_reads() {
    let env = StreamEnv::new();
    let keeper = Keeper::default();
    let numbers = env.add_source(Outside, "numbers").uid("numbers");
    let kept = numbers.key_by(|n| n % 10).process(keeper.clone()).uid("kept");
    let counted = kept.map(|n| (n, 1_u8)).key_by(|(n, _)| *n);
    counted.reduce(|sum, next| sum.1 += next.1).uid("counted");
    numbers.process(Elsewhere { panics: false }).uid("file");
    numbers.process(Elsewhere { panics: true }).uid("server");
    let states = states_of(&env.compile("job").unwrap());
    let of = |uid: &str| states.iter().find(|one| one.operator.uid == uid).unwrap();

    let splits = ListSpec { name: "splits".into(), item_type: "(u64, str)".into() };
    assert_eq!(of("numbers").lists, [splits]);
    assert!(of("numbers").has_enumerator && of("numbers").unknown.is_none());

    let kept = of("kept");
    let table = |name: &str| kept.tables.iter().find(|table| table.name.ends_with(name)).unwrap();
    assert_eq!((table("last").key_type.as_str(), table("last").value_type.as_str()), ("u64", "(u32, i64)"));
    assert!(table("seen").value_type.contains("bool"), "{:?}", table("seen"));
    assert!(kept.lists.iter().any(|list| list.name == "operator.all" && list.item_type == "u16"), "{kept:?}");
    assert_eq!(keeper.closed.load(Ordering::Relaxed), 1, "what is opened is closed");

    let counted = of("counted");
    assert!(
        counted.tables.iter().any(|table| table.name == "reduced" && table.value_type == "(u64, u8)"),
        "{counted:?}"
    );

    assert!(of("file").unknown.as_ref().unwrap().contains("no such file"));
    assert!(of("server").unknown.as_ref().unwrap().contains("no such server"));
}
