//! Time to live of state, in processing time.

use std::time::Duration;

/// What renews the life of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TtlUpdate {
    /// Creating and writing it.
    #[default]
    OnCreateAndWrite,
    /// Reading it as well.
    OnReadAndWrite,
}

/// Whether an expired entry that was not cleaned up yet can be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TtlVisibility {
    /// Never.
    #[default]
    NeverReturnExpired,
    /// Until it is cleaned up.
    ReturnExpiredIfNotCleanedUp,
}

/// How long an entry lives; list and map states expire entry by entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateTtl {
    /// Milliseconds.
    pub duration_ms: i64,
    /// What renews it.
    pub update: TtlUpdate,
    /// Whether expired entries can be seen.
    pub visibility: TtlVisibility,
}

impl StateTtl {
    /// Entries live this long after they were last written.
    pub fn after_write(duration: Duration) -> Self {
        StateTtl {
            duration_ms: i64::try_from(duration.as_millis()).unwrap_or(i64::MAX),
            update: TtlUpdate::default(),
            visibility: TtlVisibility::default(),
        }
    }

    /// Entries live this long after they were last read or written.
    pub fn after_access(duration: Duration) -> Self {
        StateTtl { update: TtlUpdate::OnReadAndWrite, ..Self::after_write(duration) }
    }

    /// Expired entries may be seen until they are cleaned up.
    pub fn return_expired_if_not_cleaned_up(self) -> Self {
        StateTtl { visibility: TtlVisibility::ReturnExpiredIfNotCleanedUp, ..self }
    }

    /// Whether an entry last renewed at `stamp_ms` has expired at `now_ms`.
    #[inline]
    pub fn is_expired(&self, stamp_ms: i64, now_ms: i64) -> bool {
        stamp_ms.saturating_add(self.duration_ms) <= now_ms
    }

    /// Whether a read must not see an entry.
    #[inline]
    pub(super) fn hides(&self, stamp_ms: i64, now_ms: i64) -> bool {
        self.visibility == TtlVisibility::NeverReturnExpired && self.is_expired(stamp_ms, now_ms)
    }

    /// Renews the life of an entry of a list or map that is iterated over, if reading does that. An expired one that is
    /// still seen stays expired, as in Flink.
    #[inline]
    pub(super) fn renew_iterated(&self, stamp_ms: &mut i64, now_ms: i64) {
        if self.renews_on_read() && !self.is_expired(*stamp_ms, now_ms) {
            *stamp_ms = now_ms;
        }
    }

    #[inline]
    pub(super) fn renews_on_read(&self) -> bool {
        self.update == TtlUpdate::OnReadAndWrite
    }
}
