//! The REST API: Flink's REST API v1 over what the coordinator knows.
//!
//! [`Server::start`] opens the port on threads of its own; [`Options`], [`Services`], [`ServerHandle`] and [`StartError`] are
//! what its users see. Who may call it: the `flott` binary. What must never happen here: a decision about a job, a change of
//! the state other than through the service's [`crate::Handle`], an answer that is not JSON where Flink gives JSON, user code.
//!
//! * `route`: which path means what (pure); `path`: its parts
//! * `server`: threads, port, end; `gate`: what every request passes: token, origin, deadline, the way to the leader
//! * `origin`: what web pages may ask for where there is no token (pure)
//! * `answer`: a route and its body become an answer; `error`: the answers that are errors
//! * `body`: the JSON of the answers, made from records (pure)
//! * `metrics`: the numbers behind the metric endpoints, by Flink's names
//! * `disposals`: savepoints that are being deleted on request
//! * `forward`: a follower hands a request on to the leader

mod answer;
mod body;
mod disposals;
mod error;
mod forward;
mod gate;
mod metrics;
mod options;
mod origin;
mod path;
mod route;
mod server;
mod services;

pub(crate) use body::checkpoint_metrics;
pub use options::{Options, StartError};
pub use server::{Server, ServerHandle};
pub use services::Services;

#[cfg(test)]
mod tests;
