//! Values of a type that has changed since they were stored.
//!
//! What lives here: `plan`, whether values of one shape can become
//! values of another, and how; `bytes`, how long a value in postcard's format is; `rewrite`, one value after
//! the other. Who may call it: the state of an operator, when a table is registered. What must never happen
//! here: a guess. What has no rule is refused, with the place in the type.
//!
//! What may change: fields that are added get the least value of their type (0, false, an empty text, none),
//! as far as it has one; fields that are gone are left out; fields and variants may change places, and
//! variants be added; integers and floats may get wider, and anything may become optional. Names of types say
//! nothing: names of fields and variants do.

mod bytes;
mod changes;
mod plan;
mod rewrite;
#[cfg(test)]
mod tests;

use flott_dataflow::types::Shape;
use flott_schema::{Error, Result};

pub(crate) use plan::Plan;

/// What differs between the types with these texts, of which the one can become the other; in words.
pub(crate) fn changes(stored: &str, now: &str) -> Vec<String> {
    match (Shape::parse(stored), Shape::parse(now)) {
        (Ok(stored), Ok(now)) => changes::between(&stored, &now),
        _ => Vec::new(),
    }
}

/// How values stored as `stored` become values of type `now`, both given by their texts. None: they are
/// values of that type already.
pub(crate) fn plan(stored: &str, now: &str) -> Result<Option<Plan>> {
    if stored == now {
        return Ok(None);
    }
    let from = Shape::parse(stored)?;
    let to = Shape::parse(now)?;
    let plan = Plan::of(&from, &to, &mut Vec::new()).map_err(Error::configuration)?;
    Ok((!plan.is_same()).then_some(plan))
}
