//! The files of snapshots.
//!
//! * [`Storage`]: a folder at a path or URI. What is put into it is there as a whole, and on the disk, or not at all
//! * [`Entry`]: what stands in a folder
//! * [`manifest`]: the file that makes a folder a snapshot
//! * [`lists`]: files of list states
//! * [`configure`]: how this process reaches S3; [`keys_of`] and [`is_key`]: keys that say so
//! * [`check_places`]: whether what a job names can be reached by this build
//! * inside: `location` reads URIs, `local` is the file system, `s3` are buckets, `sum` reads and copies with a checksum
//!
//! Who may call it: the state backends and the runtime of tasks, which write and read files of snapshots; the coordinator, which
//! writes manifests and deletes what nobody needs; the command line. All calls block: they belong on threads of their own. What must
//! never happen here: a file that can be seen before it is whole, a file that is read back unchecked
//! (but a link, which its caller has to check), knowledge of what stands in it.

pub mod lists;
mod local;
mod location;
pub mod manifest;
mod places;
mod s3;
mod storage;
mod sum;

pub use places::check_places;
pub use s3::settings::{configure, is_key, keys_of};
pub use storage::{Entry, Storage};
