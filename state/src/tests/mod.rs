//! Tasks with state, driven as a job drives them: what they hand in becomes a manifest, from which others
//! start.

mod damage;
mod fetch;
mod incremental;
mod kit;
mod later;
mod long;
mod members;
mod overlap;
mod rescale;
mod restart;
mod scan;
mod stored;
mod turns;
