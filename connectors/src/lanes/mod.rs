//! What sources share that make records from their numbers: the numbers are dealt out in lanes (every n-th), and made at a
//! given rate.
//!
//! Who may call it: the generator and the Nexmark source. What must never happen here: a record that depends on anything
//! but its number.

mod lane;
mod pacer;
mod reader;

pub use lane::{Lane, LaneEnumerator};
pub use reader::{LaneFill, LaneReader, LaneSource, Pace};
