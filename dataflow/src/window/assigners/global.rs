//! One window for everything.

use flott_schema::Result;

use crate::state::TimeDomain;
use crate::window::{GlobalTrigger, GlobalWindow, WindowAssigner};

/// All records of a key in one window, which gives results when its trigger says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalWindows {
    trigger: GlobalTrigger,
}

impl GlobalWindows {
    /// Never fires without a trigger of the job.
    pub fn create() -> Self {
        GlobalWindows { trigger: GlobalTrigger::Never }
    }

    /// Fires once, when the input has ended.
    pub fn create_with_end_of_stream_trigger() -> Self {
        GlobalWindows { trigger: GlobalTrigger::EndOfStream }
    }
}

impl<T> WindowAssigner<T> for GlobalWindows {
    type Window = GlobalWindow;
    type Trigger = GlobalTrigger;

    fn domain(&self) -> TimeDomain {
        // No record is ever late for it.
        TimeDomain::Processing
    }

    fn default_trigger(&self) -> GlobalTrigger {
        self.trigger
    }

    #[inline]
    fn assign(&mut self, _: &T, _timestamp_ms: i64, windows: &mut Vec<GlobalWindow>) -> Result<()> {
        windows.push(GlobalWindow);
        Ok(())
    }

    fn describe(&self) -> String {
        "GlobalWindows".to_string()
    }
}
