//! Windows as a program names them: behaviour kind by kind, and against naive models.

mod congestion;
mod driver;
mod fixed_model;
mod functions;
mod joined;
mod lateness;
mod memory;
mod merging;
mod processing_time;
mod restarts;
mod session_model;
mod sliding;
mod spilled;
mod triggers;
