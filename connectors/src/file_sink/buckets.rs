//! Which folder a record goes to.

use std::path::{Component, Path};
use std::sync::Arc;

use flott_dataflow::batch::{NO_TIMESTAMP, Timestamps};
use flott_schema::{Error, Result};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Shares records out over folders below the sink's.
pub enum Buckets<T> {
    /// All in the sink's folder.
    None,
    /// A folder for each day, `2026-11-22`, or hour, `2026-11-22--13`, of the event time (UTC).
    EventTime {
        /// Whether by the hour.
        hourly: bool,
    },
    /// The same for the time of writing.
    ProcessingTime {
        /// Whether by the hour.
        hourly: bool,
    },
    /// A folder named by a function of the record; `a/b` is a folder in a folder.
    Custom(Arc<dyn Fn(&T) -> String + Send + Sync>),
}

impl<T> Clone for Buckets<T> {
    fn clone(&self) -> Self {
        match self {
            Buckets::None => Buckets::None,
            Buckets::EventTime { hourly } => Buckets::EventTime { hourly: *hourly },
            Buckets::ProcessingTime { hourly } => Buckets::ProcessingTime { hourly: *hourly },
            Buckets::Custom(name) => Buckets::Custom(name.clone()),
        }
    }
}

impl<T> Buckets<T> {
    /// Folders named by a function of the record.
    pub fn by(name: impl Fn(&T) -> String + Send + Sync + 'static) -> Self {
        Buckets::Custom(Arc::new(name))
    }
}

/// Cuts batches into runs of records of one bucket.
pub struct BucketRuns<T> {
    buckets: Buckets<T>,
    /// The bucket of the run found last.
    name: String,
    /// The day or hour that `name` stands for.
    period: Option<i64>,
}

impl<T> BucketRuns<T> {
    /// Runs by `buckets`.
    pub fn new(buckets: Buckets<T>) -> Self {
        BucketRuns { buckets, name: String::new(), period: None }
    }

    /// The bucket of the run found last: a relative path, empty for the sink's own folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The end of the run that begins at `start`.
    pub fn run_end(
        &mut self,
        records: &[T],
        timestamps: &Timestamps,
        start: usize,
        now_ms: i64,
    ) -> Result<usize> {
        match &self.buckets {
            Buckets::None => Ok(records.len()),
            Buckets::ProcessingTime { hourly } => {
                let hourly = *hourly;
                self.set_period(now_ms, hourly);
                Ok(records.len())
            }
            Buckets::EventTime { hourly } => {
                let hourly = *hourly;
                let first = timestamps.get(start);
                if first == NO_TIMESTAMP {
                    return Err(Error::user(
                        "a record without timestamp cannot be put in a folder by event time; assign timestamps before \
                         the sink",
                    ));
                }
                self.set_period(first, hourly);
                let period = period_of(first, hourly);
                let rest = start + 1..records.len();
                Ok(rest
                    .into_iter()
                    .find(|index| period_of(timestamps.get(*index), hourly) != period)
                    .unwrap_or(records.len()))
            }
            Buckets::Custom(name) => {
                let first = name(&records[start]);
                if first != self.name {
                    check_name(&first)?;
                    self.name = first;
                }
                let rest = start + 1..records.len();
                Ok(rest
                    .into_iter()
                    .find(|index| name(&records[*index]) != self.name)
                    .unwrap_or(records.len()))
            }
        }
    }

    fn set_period(&mut self, time_ms: i64, hourly: bool) {
        let period = period_of(time_ms, hourly);
        if self.period != Some(period) {
            self.period = Some(period);
            self.name = period_name(time_ms, hourly);
        }
    }
}

fn period_of(time_ms: i64, hourly: bool) -> i64 {
    time_ms.div_euclid(if hourly { HOUR_MS } else { DAY_MS })
}

fn period_name(time_ms: i64, hourly: bool) -> String {
    let (year, month, day) = civil_date(time_ms.div_euclid(DAY_MS));
    match hourly {
        false => format!("{year:04}-{month:02}-{day:02}"),
        true => {
            format!("{year:04}-{month:02}-{day:02}--{:02}", time_ms.rem_euclid(DAY_MS) / HOUR_MS)
        }
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the proleptic Gregorian calendar: the algorithm
/// `civil_from_days` of Howard Hinnant (<https://howardhinnant.github.io/date_algorithms.html>).
fn civil_date(days: i64) -> (i64, i64, i64) {
    // Years begin in March, so that the leap day is the last; eras have 400 years.
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn check_name(name: &str) -> Result<()> {
    let inside = Path::new(name).components().all(|component| matches!(component, Component::Normal(_)));
    match inside && !name.contains('\0') {
        true => Ok(()),
        false => Err(Error::user(format!(
            "bucket {name:?} is not a folder below the sink's; a name must be a relative path without '..'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_hours_are_named_in_utc() {
        for (time_ms, day, hour) in [
            (0, "1970-01-01", "1970-01-01--00"),
            (-1, "1969-12-31", "1969-12-31--23"),
            (951_782_400_000, "2000-02-29", "2000-02-29--00"),
            (951_868_800_000, "2000-03-01", "2000-03-01--00"),
            (4_107_542_399_999, "2100-02-28", "2100-02-28--23"),
            (4_107_542_400_000, "2100-03-01", "2100-03-01--00"),
            (1_795_352_399_000, "2026-11-22", "2026-11-22--12"),
        ] {
            assert_eq!(period_name(time_ms, false), day);
            assert_eq!(period_name(time_ms, true), hour);
        }
    }

    fn runs(buckets: Buckets<i64>, records: &[i64], timestamps: Timestamps) -> Vec<(String, usize)> {
        let mut runs = BucketRuns::new(buckets);
        let (mut found, mut start) = (Vec::new(), 0);
        while start < records.len() {
            start = runs.run_end(records, &timestamps, start, 5 * DAY_MS).unwrap();
            found.push((runs.name().to_string(), start));
        }
        found
    }

    #[test]
    fn a_batch_is_cut_where_the_bucket_changes() {
        let records = [1, 1, 2, 1];
        let times = Timestamps::Each(vec![0, 1, DAY_MS, DAY_MS + 1]);
        let named = |pairs: &[(&str, usize)]| -> Vec<(String, usize)> {
            pairs.iter().map(|(name, end)| (name.to_string(), *end)).collect()
        };
        assert_eq!(runs(Buckets::None, &records, times.clone()), named(&[("", 4)]));
        assert_eq!(
            runs(Buckets::EventTime { hourly: false }, &records, times.clone()),
            named(&[("1970-01-01", 2), ("1970-01-02", 4)])
        );
        assert_eq!(
            runs(Buckets::ProcessingTime { hourly: true }, &records, times.clone()),
            named(&[("1970-01-06--00", 4)])
        );
        assert_eq!(
            runs(Buckets::by(|n: &i64| format!("n={n}")), &records, times),
            named(&[("n=1", 2), ("n=2", 3), ("n=1", 4)])
        );
    }

    #[test]
    fn a_bucket_must_lie_below_the_sink() {
        for name in ["../up", "/root", "a/../../b", "a\0"] {
            let mut runs = BucketRuns::new(Buckets::by(move |_: &u8| name.to_string()));
            assert!(runs.run_end(&[1], &Timestamps::default(), 0, 0).is_err(), "{name}");
        }
        let mut runs = BucketRuns::new(Buckets::EventTime { hourly: false });
        let error = runs.run_end(&[1], &Timestamps::default(), 0, 0).unwrap_err().to_string();
        assert!(error.contains("assign timestamps"), "{error}");
    }
}
