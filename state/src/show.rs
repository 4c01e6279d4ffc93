//! The rows of a snapshot, for people who look at it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use flott_schema::Result;
use flott_schema::ids::TaskId;
use flott_schema::snapshot::{KeyedSnapshot, RestoreFrom};

use crate::restored::RestoredPart;
use crate::service::StateService;
use crate::source::RowSource;

/// Gives the rows (key group, number of the table, key, value) of the keyed state that `task` has handed in with the snapshot in
/// `folder`, run by run, until `row` fails. `scratch` is a folder that is made, and is the caller's to delete.
pub fn each_row(
    service: &Arc<StateService>,
    folder: &str,
    task: TaskId,
    keyed: &KeyedSnapshot,
    scratch: &Path,
    row: &mut dyn FnMut(u16, u16, &[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    let from = RestoreFrom { folder: folder.into(), checkpoint: 0, ignore_unclaimed: true, own: false };
    let part = RestoredPart {
        task,
        snapshot: keyed.clone(),
        key_groups: keyed.key_groups,
        renumbered: BTreeMap::new(),
        backup: scratch.join("none"),
        cancelled: Arc::default(),
    };
    let source = RowSource::fetch(service, &from, &part, scratch)?;
    (0..source.runs()).try_for_each(|run| source.each_sorted(run, row))
}
