//! From text to values, in files and on streams of lines.

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use flott_dataflow::batch::{Batch, Record};
use flott_dataflow::context::OperatorContext;
use flott_dataflow::operator::{Collector, Operator, OutputTag};
use flott_schema::Result;

use crate::bad_record::{BadRecords, OnBadRecord, Place, Undecodable};

/// Parses one value.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Undecodable> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let text = error.to_string();
        let what = text.strip_suffix(&place).unwrap_or(&text);
        Undecodable(format!("column {}: {what}", error.column()))
    })
}

/// A record that a stream's parser refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// The record.
    pub text: String,
    /// What is wrong with it.
    pub error: String,
}

/// Parses a stream of lines as JSON.
pub struct ParseJson<T> {
    bad: BadRecords,
    /// Where bad records go instead.
    rejects: Option<OutputTag<Rejected>>,
    name: String,
    record: PhantomData<fn() -> T>,
}

impl<T> ParseJson<T> {
    /// Bad records are dealt with by `policy`.
    pub fn new(policy: OnBadRecord, ctx: &OperatorContext) -> Self {
        let bad = BadRecords::new(policy, ctx.metrics.clone());
        ParseJson { bad, rejects: None, name: format!("operator '{}'", ctx.name), record: PhantomData }
    }

    /// Bad records are counted and go to a side output.
    pub fn with_rejects(rejects: OutputTag<Rejected>, ctx: &OperatorContext) -> Self {
        ParseJson { rejects: Some(rejects), ..Self::new(OnBadRecord::SkipAndCount, ctx) }
    }
}

impl<T: Record> Operator for ParseJson<T> {
    type In = String;
    type Out = T;

    fn process(&mut self, batch: Batch<String>, out: &mut Collector<T>) -> Result<()> {
        for (line, timestamp) in batch {
            match parse(line.as_bytes()) {
                Ok(record) => out.collect_at(record, timestamp),
                Err(why) => {
                    let place = Place { origin: &self.name, line: None, offset: None };
                    self.bad.reject(place, &why, line.as_bytes())?;
                    if let Some(tag) = &self.rejects {
                        out.side_at(tag, Rejected { text: line, error: why.0 }, timestamp);
                    }
                }
            }
        }
        self.bad.flush()
    }
}
