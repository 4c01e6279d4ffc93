//! Page views by page and minute, from events that come out of order and late.
//!
//! A view may be up to five seconds out of order. One that comes after its minute has been counted has the minute counted
//! again, if it is no more than four minutes behind; one that is later still goes to a side output.
//!
//! ```text
//! cargo run --release --example page_views [-- --input FILE]
//! ```

use flott::prelude::*;
use serde::{Deserialize, Serialize};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/page_views.csv");

#[derive(Clone, Debug, Serialize, Deserialize)]
struct View {
    at_ms: i64,
    user: String,
    page: String,
}

/// Says how far event time has come with every record, not only now and then: so the late views of this small file are
/// late on every machine.
#[derive(Clone, Default)]
struct WithEveryRecord;

impl WatermarkGenerator<View> for WithEveryRecord {
    fn on_event(&mut self, _view: &View, timestamp_ms: i64) -> Option<i64> {
        Some(timestamp_ms - 5_001)
    }

    fn on_periodic(&mut self) -> Option<i64> {
        None
    }
}

fn main() -> flott::Result<()> {
    let input = match std::env::args().collect::<Vec<_>>().as_slice() {
        [_, flag, path] if flag == "--input" => path.clone(),
        [_] => DATA.to_string(),
        _ => return Err(flott::Error::bad_input("usage: page_views [--input FILE]")),
    };
    let env = flott::env()?;
    // Watermarks stand between batches.
    env.configure(|options| options.settings.batch_size = 1);

    let late = OutputTag::<View>::new("late");
    let views = env
        .read_csv::<View>(&input)
        .parallelism(1)
        .assign_timestamps_and_watermarks(
            WatermarkStrategy::with_generator(WithEveryRecord).with_timestamp(|view: &View| view.at_ms),
        )
        .parallelism(1);
    let counts = views
        .key_by_ref(|view| &view.page)
        .window(TumblingEventTimeWindows::of(Duration::from_secs(60)))
        .allowed_lateness(Duration::from_secs(240))
        .side_output_late(&late)
        .apply(|page: &String, window: &TimeWindow, views, out: &mut Collector<String>| {
            out.collect(format!("{} {page} {}", window.start_ms / 60_000 % 60, views.len()));
        });
    counts.print();
    counts
        .side_output(&late)
        .map(|view| format!("too late: {} {} {}", view.at_ms, view.user, view.page))
        .print();
    env.execute("page views")?;
    Ok(())
}
