//! The progress line of a job that runs in front of a person.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use flott_schema::graph::JobGraph;
use flott_worker::JobMetrics;
use indicatif::{ProgressBar, ProgressStyle};

use crate::result::grouped;

/// How often the line is drawn anew.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// A line on a terminal's standard error; nothing elsewhere.
pub struct Progress {
    wanted: bool,
    bar: Option<ProgressBar>,
    started: Instant,
    last: (Instant, u64),
}

impl Progress {
    /// A line for the job `name`; hidden when the standard error is no terminal.
    pub fn start(name: &str, wanted: bool) -> Self {
        let bar = (wanted && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_string());
            bar
        });
        Progress { wanted, bar, started: Instant::now(), last: (Instant::now(), 0) }
    }

    /// Draws the line anew.
    pub fn update(&mut self, graph: &JobGraph, metrics: &JobMetrics) {
        let Some(bar) = self.bar.clone() else { return };
        let read: u64 = metrics.summary(graph).iter().map(|vertex| vertex.source_records).sum();
        let message = self.events(read);
        bar.set_message(message);
        bar.tick();
    }

    /// Draws the line of a job that runs elsewhere: its state, its tasks that run and all of them, the events it has read.
    pub fn update_remote(&mut self, state: &str, (running, tasks): (u64, u64), read: u64) {
        let Some(bar) = self.bar.clone() else { return };
        let events = self.events(read);
        bar.set_message(format!("{state}, {running} of {tasks} tasks run, {events}"));
        bar.tick();
    }

    /// Whether there is a line to draw.
    pub fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    fn events(&mut self, read: u64) -> String {
        let (since, before) = std::mem::replace(&mut self.last, (Instant::now(), read));
        // A job that was restarted counts anew.
        let rate = read.saturating_sub(before) as f64 / since.elapsed().as_secs_f64().max(1e-3);
        let seconds = self.started.elapsed().as_secs_f64();
        format!("{} events, {} events/s, {seconds:.0} s", grouped(read), grouped(rate as u64))
    }

    /// Writes a sentence above the line.
    pub fn say(&self, sentence: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{sentence}")),
            None if self.wanted => eprintln!("{sentence}"),
            None => {}
        }
    }

    /// Removes the line.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
