//! Durations in Flink's forms: a whole number and a unit.

use std::time::Duration;

use super::value::ConfigValue;

/// Units from the longest to the shortest: names in lower case (the first is the one written), nanoseconds.
const UNITS: &[(&[&str], u128)] = &[
    (&["d", "day", "days"], 86_400 * 1_000_000_000),
    (&["h", "hour", "hours"], 3_600 * 1_000_000_000),
    (&["min", "m", "minute", "minutes"], 60 * 1_000_000_000),
    (&["s", "sec", "secs", "second", "seconds"], 1_000_000_000),
    (&["ms", "milli", "millis", "millisecond", "milliseconds"], 1_000_000),
    (&["us", "µs", "μs", "micro", "micros", "microsecond", "microseconds"], 1_000),
    (&["ns", "nano", "nanos", "nanosecond", "nanoseconds"], 1),
];

/// Reads `10 s`, `3min`, `100ms`, `1 d`; a bare number counts milliseconds, as in Flink.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err("does not start with a number".into());
    }
    let unit = unit.trim().to_lowercase();
    let unit = if unit.is_empty() { "ms" } else { unit.as_str() };
    let nanos_of_unit = UNITS
        .iter()
        .find(|(names, _)| names.contains(&unit))
        .map(|(_, nanos)| *nanos)
        .ok_or_else(|| format!("unknown unit `{unit}`, the units are d, h, min, s, ms, us, ns"))?;
    let too_long = || "too long".to_string();
    let nanos = digits
        .parse::<u128>()
        .ok()
        .and_then(|number| number.checked_mul(nanos_of_unit))
        .ok_or_else(too_long)?;
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| too_long())?;
    Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// Writes a duration in the longest unit that divides it: `3 min`, `90 s`, `0 ms`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0 ms".into();
    }
    let (names, unit) = UNITS
        .iter()
        .find(|(_, unit)| nanos.is_multiple_of(*unit))
        .expect("every duration is a whole number of nanoseconds");
    format!("{} {}", nanos / unit, names[0])
}

impl ConfigValue for Duration {
    fn expected() -> String {
        "a duration such as `10 s`, `3 min` or `100 ms`".into()
    }

    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }

    fn render(&self) -> String {
        format_duration(*self)
    }
}
