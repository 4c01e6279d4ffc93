//! The harness with state, by an operator that keeps its sums in the simplest way.

use std::collections::BTreeMap;
use std::rc::Rc;

use flott_schema::Result;

use super::HarnessBuilder;
use super::memory::MemoryKind;
use super::parallel::Parallel;
use crate::batch::Batch;
use crate::codec::{decode_value, encode_value};
use crate::context::OperatorContext;
use crate::element::Barrier;
use crate::operator::{Collector, Operator};
use crate::snapshot::{ListMode, StateBackend, TableId, TableSpec};
use crate::state::rows::{TypedRows, Written, group_of, push_key};

/// Sums per key, and the number of records of the task as a list of one item.
struct Sums {
    state: Rc<dyn StateBackend>,
    table: TableId,
    sums: BTreeMap<u32, i64>,
    records: u64,
    wrong_group: bool,
    forgets_table: bool,
}

impl Sums {
    fn new(ctx: &OperatorContext) -> Self {
        let state = ctx.state.clone().unwrap();
        let table = TableId(0);
        Sums { state, table, sums: BTreeMap::new(), records: 0, wrong_group: false, forgets_table: false }
    }
}

impl Operator for Sums {
    type In = (u32, i64);
    type Out = (u32, i64);

    fn open(&mut self, _ctx: &OperatorContext) -> Result<()> {
        let spec = TableSpec {
            name: "sums".into(),
            holds: "value",
            key_type: "u32".into(),
            value_type: "i64".into(),
        };
        self.table = self.state.table(spec)?;
        self.state.load(self.table, &mut |key, value| {
            self.sums.insert(decode_value(key)?, decode_value(value)?);
            Ok(())
        })?;
        for item in self.state.list("records")? {
            self.records += decode_value::<u64>(&item)?;
        }
        Ok(())
    }

    fn process(&mut self, batch: Batch<(u32, i64)>, out: &mut Collector<(u32, i64)>) -> Result<()> {
        for ((key, add), timestamp) in batch {
            let sum = self.sums.entry(key).or_default();
            *sum += add;
            self.records += 1;
            out.collect_at((key, *sum), timestamp);
        }
        Ok(())
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        let mut item = Vec::new();
        encode_value(&self.records, &mut item)?;
        self.state.set_list("records", ListMode::Split, "u64", vec![item])?;
        if self.forgets_table {
            return Ok(());
        }
        let wrong = u16::from(self.wrong_group) * 128;
        let rows: Vec<(u32, i64)> = self.sums.iter().map(|(key, sum)| (*key, *sum)).collect();
        let mut sink = self.state.freeze(self.table);
        sink.rows(TypedRows::boxed(rows, move |(id, sum), key, value| {
            let group = push_key(id, 128, key)?;
            encode_value(sum, value)?;
            Ok((group + wrong, Written::Row))
        }));
        sink.done();
        Ok(())
    }
}

fn sums(kind: MemoryKind) -> Parallel<(u32, i64), (), (u32, i64)> {
    Parallel::new(2, kind, |builder| builder.one_input(|ctx| Ok(Sums::new(ctx)))).unwrap()
}

#[test]
fn an_operator_goes_on_from_a_snapshot_at_any_parallelism() {
    for kind in [MemoryKind::AllRows, MemoryKind::Changes] {
        let (mut restarted, mut whole) = (sums(kind), sums(kind));
        for round in 0..6u32 {
            let records = (0..100u32).map(|n| ((n * 7 % 31, i64::from(n)), i64::from(round)));
            restarted.push_all(|record| record.0, records.clone()).unwrap();
            whole.push_all(|record| record.0, records).unwrap();
            restarted.restart([1, 3, 4, 2, 5, 1][round as usize]).unwrap();
        }
        assert_eq!(restarted.take_sorted(), whole.take_sorted());
        let last = restarted.snapshot().unwrap();
        assert_eq!(last[0].row_count("sums"), 31);
        let list = &last[0].operators.values().next().unwrap().lists["records"];
        assert_eq!(
            decode_value::<u64>(&list.items[0]).unwrap(),
            600,
            "split lists are handed to one task each"
        );
    }
}

#[test]
fn an_operator_that_breaks_the_rules_is_found_out() {
    let refused = |spoil: fn(&mut Sums)| {
        let mut sums: Parallel<(u32, i64), (), (u32, i64)> =
            Parallel::new(1, MemoryKind::AllRows, move |builder: HarnessBuilder<_>| {
                builder.one_input(|ctx| {
                    let mut sums = Sums::new(ctx);
                    spoil(&mut sums);
                    Ok(sums)
                })
            })
            .unwrap();
        sums.push(&1, (1, 1), 0).unwrap();
        sums.snapshot().unwrap_err().to_string()
    };
    assert!(refused(|sums| sums.wrong_group = true).contains("is not this task's"));
    assert!(refused(|sums| sums.forgets_table = true).contains("was not frozen"));
    let group = group_of(crate::key::stable_hash(&1u32), 128);
    assert!(refused(|sums| sums.wrong_group = true).contains(&(group + 128).to_string()));
}
