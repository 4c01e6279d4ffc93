//! Identifiers. All but names are printed as 32 lower-case hex digits, as Flink's REST API does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::stable_hash::stable_hash;

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:032x})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                if text.len() != 32 {
                    return Err(Error::bad_input(format!(
                        "'{text}' is no {}: 32 hex digits wanted", stringify!($name)
                    )));
                }
                u128::from_str_radix(text, 16).map($name).map_err(|_| {
                    Error::bad_input(format!("'{text}' is no {}: 32 hex digits wanted", stringify!($name)))
                })
            }
        }
    };
}

hex_id! {
    /// A submitted job.
    JobId
}
hex_id! {
    /// A vertex of a job graph: derived from the uid of the first operator of its chain.
    VertexId
}
hex_id! {
    /// An operator: derived from its uid. State is addressed by it.
    OperatorId
}

impl OperatorId {
    /// The id of the operator with this uid: two stable hashes with different prefixes.
    pub fn of_uid(uid: &str) -> Self {
        let high = stable_hash(&("uid-high", uid)) as u128;
        let low = stable_hash(&("uid-low", uid)) as u128;
        OperatorId(high << 64 | low)
    }
}

impl From<OperatorId> for VertexId {
    fn from(id: OperatorId) -> Self {
        VertexId(id.0)
    }
}

/// One parallel instance of a vertex.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct TaskId {
    /// The vertex.
    pub vertex: VertexId,
    /// Parallel index, from 0.
    pub subtask: u32,
}

/// One deployment of a task. A message of an older attempt is never applied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct AttemptId {
    /// The task.
    pub task: TaskId,
    /// Counts the deployments of the job; a restart raises it.
    pub job_epoch: u32,
    /// Counts the deployments of this task, from 0.
    pub attempt: u32,
}

/// A slot of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct SlotId {
    /// The worker.
    pub worker: WorkerId,
    /// Index on the worker, from 0.
    pub index: u32,
}

/// A registered worker; a worker that registers again gets a new id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct WorkerId(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_as_32_hex_digits_and_parse_back() {
        let id = OperatorId::of_uid("source");
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse::<OperatorId>().unwrap(), id);
        assert!("xyz".parse::<JobId>().is_err());
    }

    #[test]
    fn operator_ids_never_change_for_a_uid() {
        // Frozen: savepoints address state by this id.
        assert_eq!(
            OperatorId::of_uid("source").to_string(),
            include_str!("../samples/operator_id.txt").trim()
        );
    }
}
