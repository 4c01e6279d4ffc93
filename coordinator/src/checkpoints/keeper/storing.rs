//! Manifests that are being written, and what has to wait for that.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::checkpoints::action::Deletion;

/// The folders whose manifest is to be written, or is being written. A folder of these is not deleted before: the manifest would make
/// it anew, and nobody would know of it.
#[derive(Debug, Default)]
pub(super) struct Storing {
    folders: Mutex<BTreeMap<String, Option<Deletion>>>,
}

impl Storing {
    /// A manifest will be written into the folder.
    pub(super) fn begin(&self, folder: &str) {
        self.lock().insert(folder.to_string(), None);
    }

    /// It is written, or will not be. Gives what was to be deleted meanwhile.
    pub(super) fn end(&self, folder: &str) -> Option<Deletion> {
        self.lock().remove(folder).flatten()
    }

    /// Keeps back of a deletion what would meet a manifest, and gives the rest.
    pub(super) fn without(&self, mut deletion: Deletion) -> Deletion {
        let job = deletion.job;
        for (folder, kept_back) in self.lock().iter_mut() {
            let meets_tree = deletion.trees.iter().any(|tree| tree == folder);
            let above = deletion.empty_folder.as_deref();
            let meets_empty = above
                .is_some_and(|above| folder.strip_prefix(above).is_some_and(|rest| rest.starts_with('/')));
            if meets_tree {
                deletion.trees.retain(|tree| tree != folder);
                let kept = kept_back.get_or_insert_with(|| Deletion { job, ..Deletion::default() });
                kept.trees.push(folder.clone());
            }
            if meets_empty && let Some(kept) = kept_back {
                // It is empty when the folder in it is gone, and whoever comes last takes it away.
                kept.empty_folder.clone_from(&deletion.empty_folder);
            }
        }
        deletion
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<Deletion>>> {
        // The map is whole at every moment, also where a holder of the lock panicked.
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_not_deleted_under_the_manifest_that_is_written_into_it() {
        let storing = Storing::default();
        storing.begin("/c/job/chk-2");
        let trees = vec!["/c/job/chk-1".to_string(), "/c/job/chk-2".to_string()];
        let rest = storing.without(Deletion { trees, ..Deletion::default() });
        assert_eq!(rest.trees, ["/c/job/chk-1"]);
        let last = Deletion { empty_folder: Some("/c/job".into()), ..Deletion::default() };
        assert_eq!(storing.without(last.clone()), last);

        let kept = storing.end("/c/job/chk-2").unwrap();
        assert_eq!((kept.trees, kept.empty_folder), (vec!["/c/job/chk-2".to_string()], last.empty_folder));
        let after = Deletion { trees: vec!["/c/job/chk-2".into()], ..Deletion::default() };
        assert_eq!(storing.without(after.clone()), after);
        assert_eq!(storing.end("/c/job/chk-2"), None);
    }
}
