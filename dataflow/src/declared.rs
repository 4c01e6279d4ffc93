//! Which states the operators of a program have, found without running it.
//!
//! What lives here: a backend of state that notes what is registered with it, and holds nothing. Who may call it: whoever compares a program with
//! a snapshot before anything is started. What must never happen here: a source that reads, a sink that writes, a record.
//!
//! States are registered in `open`, by operators and by the functions in them, so each operator is opened on its own, with nothing behind it, and
//! closed again. Sources and sinks are not opened: their states are known without it (`NodeFactory::declare`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use flott_schema::graph::{OperatorSpec, Vertex};
use flott_schema::ids::OperatorId;
use flott_schema::{Error, Result};

use crate::context::{OperatorContext, TaskContext};
use crate::function::catch_panic;
use crate::program::Program;
use crate::snapshot::{
    FrozenRows, FrozenSink, ListMode, Snapshots, StateBackend, TableId, TableSpec, TaskState,
};

/// A list state, as it is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListSpec {
    /// Unique in the operator.
    pub name: String,
    /// Text of the type of its items; empty if not known.
    pub item_type: String,
}

/// The states of one operator of a program.
#[derive(Clone, Debug)]
pub struct DeclaredOperator {
    /// The operator.
    pub operator: OperatorSpec,
    /// Its tables of keyed state, in the order they were registered.
    pub tables: Vec<TableSpec>,
    /// Its list states.
    pub lists: Vec<ListSpec>,
    /// Whether a split enumerator keeps state beside it.
    pub has_enumerator: bool,
    /// Why it could not be opened here: then it may have more states than these.
    pub unknown: Option<String>,
}

/// The states of all operators, in the order of the graph. An operator whose `open` fails or panics here is no error of the program: it may need what
/// only the hosts have that it runs on.
pub fn states_of(program: &Program) -> Vec<DeclaredOperator> {
    let operators = |vertex: &Vertex| {
        let recorder = Rc::new(Recorder::default());
        let mut task = TaskContext::new(
            program.graph.name.clone(),
            vertex.name.clone(),
            0,
            vertex.parallelism,
            vertex.max_parallelism,
            program.settings.clone(),
        );
        task.snapshots = Snapshots::new(recorder.clone(), false);
        let task = Rc::new(task);
        let declare = |operator: &OperatorSpec| {
            let ctx = OperatorContext::new(task.clone(), &operator.name, &operator.uid);
            let opened = catch_panic(|| program.declare(operator.id, &ctx));
            let opened = opened.unwrap_or_else(|message| Err(Error::user(format!("it panics: {message}"))));
            let noted = recorder.of(operator.id);
            DeclaredOperator {
                operator: operator.clone(),
                tables: noted.tables.borrow().clone(),
                lists: noted.lists.borrow().clone(),
                has_enumerator: vertex.is_source && vertex.operators[0].id == operator.id,
                unknown: opened.err().map(|error| error.to_string()),
            }
        };
        vertex.operators.iter().map(declare).collect::<Vec<_>>()
    };
    program.graph.vertices.iter().flat_map(operators).collect()
}

/// Notes the states of the operators of a task.
#[derive(Default)]
struct Recorder(RefCell<BTreeMap<OperatorId, Rc<Noted>>>);

impl Recorder {
    fn of(&self, operator: OperatorId) -> Rc<Noted> {
        self.0.borrow_mut().entry(operator).or_default().clone()
    }
}

impl TaskState for Recorder {
    fn operator(&self, operator: OperatorId, _uid: &str) -> Rc<dyn StateBackend> {
        self.of(operator)
    }
}

/// What one operator has registered. It starts from nothing.
#[derive(Default)]
struct Noted {
    tables: RefCell<Vec<TableSpec>>,
    lists: RefCell<Vec<ListSpec>>,
}

impl StateBackend for Noted {
    fn table(&self, spec: TableSpec) -> Result<TableId> {
        let mut tables = self.tables.borrow_mut();
        if tables.iter().any(|table| table.name == spec.name) {
            return Err(Error::user(format!("table '{}' is registered twice", spec.name)));
        }
        tables.push(spec);
        u16::try_from(tables.len() - 1)
            .map(TableId)
            .map_err(|_| Error::user("an operator has too many tables"))
    }

    fn load(&self, _table: TableId, _row: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        Ok(())
    }

    fn wants_changes(&self) -> bool {
        false
    }

    fn freeze(&self, _table: TableId) -> Box<dyn FrozenSink> {
        Box::new(Nowhere)
    }

    fn set_list(&self, _name: &str, _mode: ListMode, _item_type: &str, _items: Vec<Vec<u8>>) -> Result<()> {
        Err(Error::internal("no snapshot is taken of an operator whose states are looked at"))
    }

    fn list(&self, name: &str) -> Result<Vec<Vec<u8>>> {
        self.list_as(name, "")
    }

    fn list_as(&self, name: &str, item_type: &str) -> Result<Vec<Vec<u8>>> {
        let mut lists = self.lists.borrow_mut();
        if !lists.iter().any(|list| list.name == name) {
            lists.push(ListSpec { name: name.into(), item_type: item_type.into() });
        }
        Ok(Vec::new())
    }

    fn is_restored(&self) -> bool {
        false
    }
}

/// Takes no rows: there are none.
struct Nowhere;

impl FrozenSink for Nowhere {
    fn rows(&mut self, _rows: Box<dyn FrozenRows>) {}

    fn done(self: Box<Self>) {}
}

#[cfg(test)]
#[path = "declared_tests.rs"]
mod tests;
