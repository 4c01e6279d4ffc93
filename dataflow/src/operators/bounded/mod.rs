//! The DataSet vocabulary: operators on streams that end, which give their results once.
//!
//! What lives here: one file a family of operators, and what they share: the end of a bounded input ([`ending`]),
//! input held in memory and in files ([`buffer`], [`sorter`], [`spill`]), the records of a key ([`groups`]).
//! They behave alike in streaming and in batch execution: what comes in is held, partly on disk, and the results are
//! emitted at the end of the input, in pieces that respect the credits of the outputs. Who may call it: the API, which
//! wraps the operators in factories. What must never happen here: memory that grows with the input, a file that
//! outlives its operator, a result emitted behind the final watermark.

pub mod aggregate;
pub mod all;
pub mod buffer;
pub mod co_group;
pub mod cross;
pub mod ending;
pub mod first;
pub mod groups;
pub mod join;
pub mod map_partition;
pub mod order;
pub mod product;
pub mod records;
pub mod reduce_group;
pub mod results;
pub mod size;
pub mod sort_partition;
pub mod sorter;
pub mod spill;

pub use order::Order;
pub use records::Records;
pub use results::Results;

#[cfg(test)]
mod tests;
