//! What a job wants of a snapshot.

use std::collections::BTreeMap;

use flott_schema::config::options::CheckpointingMode;
use flott_schema::job::CheckpointSettings;
use flott_schema::snapshot::{Alignment, SnapshotKind};

use crate::machine::{CheckpointRequest, Purpose};

/// A request for a checkpoint as the settings of the job want it. `folder`: that of all its checkpoints, or of the savepoint.
pub fn checkpoint_request(
    settings: &CheckpointSettings,
    kind: SnapshotKind,
    folder: String,
) -> CheckpointRequest {
    let alignment = match settings.mode {
        CheckpointingMode::AtLeastOnce if !kind.is_savepoint() => Alignment::None,
        CheckpointingMode::ExactlyOnce if settings.unaligned && !kind.is_savepoint() => {
            Alignment::UnalignedAfter(u32::try_from(settings.aligned_timeout_ms).unwrap_or(u32::MAX))
        }
        _ => Alignment::Aligned,
    };
    let kind = match kind {
        SnapshotKind::Checkpoint if !settings.incremental => SnapshotKind::FullCheckpoint,
        kind => kind,
    };
    CheckpointRequest {
        kind,
        purpose: Purpose::GoOn,
        alignment,
        folder,
        operation: None,
        parallelism: BTreeMap::new(),
    }
}
