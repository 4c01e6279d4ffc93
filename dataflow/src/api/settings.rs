//! What can be said of the operator that a stream comes from.

/// Adds the methods that set name, uid, parallelism and so on to a stream type.
macro_rules! operator_settings {
    () => {
        /// Name shown to people.
        pub fn name(self, name: &str) -> Self {
            self.set("name", |node| node.name = name.to_string())
        }

        /// Unique name that state is addressed by; keep it through upgrades.
        pub fn uid(self, uid: &str) -> Self {
            self.set("uid", |node| node.uid = Some(uid.to_string()))
        }

        /// Number of parallel tasks.
        pub fn parallelism(self, parallelism: u32) -> Self {
            self.set("parallelism", |node| node.parallelism = Some(parallelism))
        }

        /// Number of key groups: the upper bound of the parallelism.
        pub fn max_parallelism(self, max_parallelism: u32) -> Self {
            self.set("max_parallelism", |node| node.max_parallelism = Some(max_parallelism))
        }

        /// Tasks of different slot-sharing groups never share a slot.
        pub fn slot_sharing_group(self, group: &str) -> Self {
            self.set("slot_sharing_group", |node| node.slot_sharing_group = Some(group.to_string()))
        }

        /// Runs the operator as a task of its own.
        pub fn disable_chaining(self) -> Self {
            self.set("disable_chaining", |node| node.chaining = $crate::program::Chaining::Never)
        }

        /// Does not chain the operator to what it reads.
        pub fn start_new_chain(self) -> Self {
            self.set("start_new_chain", |node| node.chaining = $crate::program::Chaining::Head)
        }

        /// How long a partial batch of this operator may wait, milliseconds.
        pub fn buffer_timeout(self, timeout_ms: i64) -> Self {
            self.set("buffer_timeout", |node| node.buffer_timeout_ms = Some(timeout_ms))
        }
    };
}

pub(super) use operator_settings;
