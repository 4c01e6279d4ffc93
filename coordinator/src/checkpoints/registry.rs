//! Files that the checkpoints of a job share, and which of them still need each.

use std::collections::{BTreeMap, BTreeSet};

use flott_schema::snapshot::TaskSnapshot;

/// How a manifest names the folder that checkpoints share.
const SHARED: &str = "../shared/";

/// The shared files of a job by name, each with the checkpoints, complete or under way, that need it. A file that nobody needs is
/// forgotten and can be deleted; its name is never given to another file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    needed: BTreeMap<String, BTreeSet<u64>>,
}

/// The name of a file in the shared folder; nothing for a path that leads elsewhere.
pub fn shared_name(path: &str) -> Option<&str> {
    path.strip_prefix(SHARED).filter(|name| !name.is_empty() && !name.contains('/'))
}

/// The shared files that a task's part names.
pub fn shared_names(part: &TaskSnapshot) -> impl Iterator<Item = &str> {
    part.files().filter_map(|file| shared_name(&file.path))
}

impl Registry {
    /// A checkpoint needs a file.
    pub fn need(&mut self, name: &str, checkpoint: u64) {
        match self.needed.get_mut(name) {
            Some(checkpoints) => {
                checkpoints.insert(checkpoint);
            }
            None => {
                self.needed.insert(name.to_string(), BTreeSet::from([checkpoint]));
            }
        }
    }

    /// A checkpoint is no more. Gives the files that nobody needs any longer.
    pub fn release(&mut self, checkpoint: u64) -> Vec<String> {
        let mut unneeded = Vec::new();
        self.needed.retain(|name, checkpoints| {
            let was_there = checkpoints.remove(&checkpoint);
            if was_there && checkpoints.is_empty() {
                unneeded.push(name.clone());
            }
            !checkpoints.is_empty()
        });
        unneeded
    }

    /// Whether some checkpoint needs the file.
    pub fn is_needed(&self, name: &str) -> bool {
        self.needed.contains_key(name)
    }

    /// Files that are needed.
    pub fn len(&self) -> usize {
        self.needed.len()
    }

    /// Whether no file is needed.
    pub fn is_empty(&self) -> bool {
        self.needed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_with_the_last_checkpoint_that_needs_it() {
        let mut registry = Registry::default();
        for (name, checkpoint) in [("a", 1), ("b", 1), ("b", 2), ("c", 2), ("b", 3)] {
            registry.need(name, checkpoint);
        }
        assert_eq!(registry.release(1), ["a"]);
        assert_eq!(registry.release(1), [""; 0]);
        assert_eq!(registry.release(2), ["c"]);
        assert!(registry.is_needed("b") && registry.len() == 1);
        assert_eq!(registry.release(3), ["b"]);
        assert!(registry.is_empty());
    }

    #[test]
    fn what_lies_elsewhere_is_nobodys_to_delete() {
        assert_eq!(shared_name("../shared/000007.sst"), Some("000007.sst"));
        for path in
            ["state", "../../other/shared/x", "../shared/", "../shared/../chk-1/x", "/shared/x", "s3://b/x"]
        {
            assert_eq!(shared_name(path), None, "{path}");
        }
    }
}
