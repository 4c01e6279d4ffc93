//! Tables for people, and the words in them.

use std::fmt;

/// Longest cell, in characters; of a longer one the end is cut off.
const CELL_MAX: usize = 80;

/// Columns as wide as their widest cell.
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns whose cells are numbers, put to the right.
    right: &'static [usize],
}

impl Table {
    /// A table with these heads.
    pub fn new(heads: &[&str], right: &'static [usize]) -> Self {
        Table { rows: vec![heads.iter().map(|head| head.to_string()).collect()], right }
    }

    /// Adds a row. What a person named may be long or hold line breaks: such cells are cut, and kept on their line.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(fitting).collect());
    }
}

/// A cell that fits into a line of the table.
fn fitting(mut cell: String) -> String {
    if let Some((end, _)) = cell.char_indices().nth(CELL_MAX) {
        cell.truncate(end);
        cell.pop();
        cell.push('…');
    }
    if cell.contains(char::is_control) {
        cell = cell.replace(char::is_control, " ");
    }
    cell
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if column > 0 {
                    line.push_str("  ");
                }
                match self.right.contains(&column) {
                    true => line.push_str(&format!("{cell:>width$}")),
                    false => line.push_str(&format!("{cell:width$}")),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// A point in time (milliseconds since 1970) as `2026-11-22 16:05:12`, in UTC.
pub fn time(milliseconds: i64) -> String {
    if milliseconds < 0 {
        return "-".into();
    }
    let seconds = milliseconds / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// Year, month and day of a number of days since 1970, after Howard Hinnant's `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// A length of time in its two largest units: `340 ms`, `12.5 s`, `3 min 20 s`, `5 h 12 min`, `3 d 4 h`.
pub fn duration(milliseconds: i64) -> String {
    let milliseconds = milliseconds.max(0);
    let seconds = milliseconds / 1000;
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{:.1} s", milliseconds as f64 / 1000.0),
        60_000..3_600_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600_000..86_400_000 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A number of bytes in the unit that suits it.
pub fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = number as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{number} B") } else { format!("{size:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["name", "tasks"], &[1]);
        table.row(["käse".to_string(), "10".to_string()]);
        assert_eq!(table.to_string(), "name  tasks\nkäse     10\n");
    }

    #[test]
    fn long_cells_are_cut_and_line_breaks_do_not_break_lines() {
        let mut table = Table::new(&["name", "state"], &[]);
        table.row(["é".repeat(CELL_MAX), "RUNNING".to_string()]);
        table.row(["é".repeat(70_000), "RUNNING".to_string()]);
        table.row(["two\nlines\u{1b}[2J".to_string(), "FAILED".to_string()]);
        let text = table.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert_eq!(lines[1], format!("{}  RUNNING", "é".repeat(CELL_MAX)));
        assert_eq!(lines[2], format!("{}…  RUNNING", "é".repeat(CELL_MAX - 1)));
        assert!(lines[3].starts_with("two lines [2J  ") && lines[3].ends_with("FAILED"), "{}", lines[3]);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(0), "1970-01-01 00:00:00");
        assert_eq!(time(951_782_399_000), "2000-02-28 23:59:59");
        assert_eq!(time(951_868_800_000), "2000-03-01 00:00:00");
        assert_eq!(time(1_795_363_200_000), "2026-11-22 16:00:00");
        assert_eq!(time(-1), "-");
    }

    #[test]
    fn durations_and_sizes_have_a_unit_that_suits_them() {
        assert_eq!(duration(999), "999 ms");
        assert_eq!(duration(12_500), "12.5 s");
        assert_eq!(duration(200_000), "3 min 20 s");
        assert_eq!(duration(18_720_000), "5 h 12 min");
        assert_eq!(duration(90_000_000), "1 d 1 h");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
    }
}
