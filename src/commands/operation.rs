//! Waiting for what a coordinator does on request, in front of a person.

use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

use flott::client::snapshots::{Operation, Outcome};
use flott::client::{Client, ClientError};
use flott::{Error, ErrorKind, Result};
use indicatif::{ProgressBar, ProgressStyle};

/// Between two questions whether it is done, at first and later.
const INTERVALS: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(250)];
/// For how long the first one counts.
const SOON: Duration = Duration::from_secs(1);

/// A line on a terminal's standard error that says what is waited for; nothing elsewhere.
pub struct Wait {
    what: String,
    bar: Option<ProgressBar>,
    started: Instant,
    timeout: Duration,
}

impl Wait {
    /// Begins to wait for `what`.
    pub fn begin(what: impl Into<String>, timeout: Duration) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Wait { what: what.into(), bar, started: Instant::now(), timeout }
    }

    /// Whether there is a line to draw.
    pub fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// Draws the line, and waits a moment. An error when the time is over.
    pub fn step(&self, how_far: &str) -> Result<()> {
        let waited = self.started.elapsed();
        if waited >= self.timeout {
            return Err(Error::new(
                ErrorKind::Resources,
                format!(
                    "{} is not done after {:?} (--timeout); it goes on without this command",
                    self.what, self.timeout
                ),
            ));
        }
        if let Some(bar) = &self.bar {
            let comma = if how_far.is_empty() { "" } else { ", " };
            bar.set_message(format!("{}{comma}{how_far}, {:.0} s", self.what, waited.as_secs_f64()));
            bar.tick();
        }
        let interval = if waited < SOON { INTERVALS[0] } else { INTERVALS[1] };
        std::thread::sleep(interval.min(self.timeout.saturating_sub(waited)));
        Ok(())
    }

    /// Whether a call that failed so is to be made again.
    pub fn goes_on_after(&self, error: &ClientError) -> bool {
        error.is_transient() && self.started.elapsed() < self.timeout
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Waits for the end of an operation on a job, and gives its result. `what` names it: `the savepoint of job 3f9a`.
pub fn result_of(
    client: &Client,
    job: Option<&str>,
    operation: &Operation,
    what: &str,
    timeout: Duration,
) -> Result<String> {
    let wait = Wait::begin(what, timeout);
    loop {
        match client.outcome(operation) {
            Ok(Some(Outcome::Done(result))) => return Ok(result),
            Ok(Some(Outcome::Failed(reason))) => {
                return Err(Error::new(ErrorKind::Io, format!("{what} failed: {reason}")));
            }
            Ok(None) => {}
            Err(error) if error.is_not_found() => {
                return Err(Error::new(
                    ErrorKind::Io,
                    format!(
                        "{what} is not known any more ({error}): another coordinator leads now, and it may have been given up; try \
                         again"
                    ),
                ));
            }
            // What was begun may go on while coordinators change places.
            Err(error) if wait.goes_on_after(&error) => {}
            Err(error) => return Err(error.into_error().at(what)),
        }
        wait.step(&how_far(client, job, &wait))?;
    }
}

/// How many tasks have handed in their part of the snapshot that is under way.
fn how_far(client: &Client, job: Option<&str>, wait: &Wait) -> String {
    let Some(job) = job.filter(|_| wait.is_shown()) else { return String::new() };
    let history = client.checkpoints(job).map(|checkpoints| checkpoints.history).unwrap_or_default();
    match history.iter().find(|checkpoint| checkpoint.status == "IN_PROGRESS") {
        Some(pending) => {
            format!("{} of {} tasks", pending.num_acknowledged_subtasks, pending.num_subtasks)
        }
        None => String::new(),
    }
}

/// A folder as hosts of the cluster are told of it: a relative path counts from here, not from where they are.
pub fn absolute(folder: &str) -> Result<String> {
    if folder.contains("://") || folder.starts_with('/') {
        return Ok(folder.to_string());
    }
    let path = std::path::absolute(Path::new(folder)).map_err(|error| Error::io(folder, error))?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_folders_count_from_here_and_others_stay_as_they_are() {
        assert_eq!(absolute("/sp").unwrap(), "/sp");
        assert_eq!(absolute("file:///sp").unwrap(), "file:///sp");
        let here = std::env::current_dir().unwrap();
        assert_eq!(absolute("sp").unwrap(), here.join("sp").display().to_string());
    }

    #[test]
    fn a_wait_ends_with_its_time_and_says_what_goes_on() {
        let wait = Wait::begin("the savepoint", Duration::ZERO);
        let error = wait.step("").unwrap_err().to_string();
        assert!(error.starts_with("the savepoint is not done after 0ns (--timeout)"), "{error}");
    }
}
