//! A sink that prints records.
//!
//! Who may call it: job authors. What must never happen here: a system call per record; a panic because nobody reads the
//! output any more. If the reader of the output is slow, printing waits, and the task with it.

use std::fmt::{Debug, Display, Write as _};
use std::io::{self, Write};
use std::sync::Arc;

use flott_dataflow::batch::{Batch, Record};
use flott_dataflow::context::OperatorContext;
use flott_dataflow::sink::{NothingToCommit, Sink, SinkWriter};
use flott_schema::{Error, Result};

type Format<T> = fn(&T, &mut String) -> std::fmt::Result;

/// Prints a line for each record: `record`, or `3> record` in task 3 of several, or `name:3> record` with a prefix, as Flink
/// does. Records are printed as they come: a job that starts from a checkpoint prints those since then again (at least once).
pub struct Print<T> {
    format: Format<T>,
    prefix: Arc<str>,
    to_stderr: bool,
}

impl<T> Clone for Print<T> {
    fn clone(&self) -> Self {
        Print { format: self.format, prefix: self.prefix.clone(), to_stderr: self.to_stderr }
    }
}

impl<T: Display> Print<T> {
    /// Prints records as they display themselves, to standard output.
    pub fn display() -> Self {
        Print { format: |record, text| write!(text, "{record}"), prefix: "".into(), to_stderr: false }
    }
}

impl<T: Debug> Print<T> {
    /// Prints records as their `Debug` shows them, to standard output.
    pub fn debug() -> Self {
        Print { format: |record, text| write!(text, "{record:?}"), prefix: "".into(), to_stderr: false }
    }
}

impl<T> Print<T> {
    /// Prints to standard error instead.
    pub fn to_stderr(mut self) -> Self {
        self.to_stderr = true;
        self
    }

    /// A name in front of each line.
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = prefix.into();
        self
    }

    fn line_start(&self, ctx: &OperatorContext) -> String {
        let number = ctx.task.subtask + 1;
        match (self.prefix.is_empty(), ctx.task.parallelism > 1) {
            (true, false) => String::new(),
            (true, true) => format!("{number}> "),
            (false, false) => format!("{}> ", self.prefix),
            (false, true) => format!("{}:{number}> ", self.prefix),
        }
    }
}

impl<T: Record> Sink<T> for Print<T> {
    type Committable = ();
    type Writer = PrintWriter<T>;
    type Committer = NothingToCommit;

    fn writer(&self, ctx: &OperatorContext) -> Result<PrintWriter<T>> {
        let (name, output): (_, Box<dyn Write>) = match self.to_stderr {
            false => ("standard output", Box::new(io::stdout())),
            true => ("standard error", Box::new(io::stderr())),
        };
        Ok(PrintWriter {
            format: self.format,
            line_start: self.line_start(ctx),
            name,
            output,
            text: String::new(),
        })
    }

    fn committer(&self, _ctx: &OperatorContext) -> Result<NothingToCommit> {
        Ok(NothingToCommit)
    }
}

/// Prints the records of one task.
pub struct PrintWriter<T> {
    format: Format<T>,
    line_start: String,
    name: &'static str,
    output: Box<dyn Write>,
    /// The lines of a batch, so that they are written by one call.
    text: String,
}

impl<T: 'static> SinkWriter<T> for PrintWriter<T> {
    type Committable = ();

    fn write(&mut self, batch: Batch<T>) -> Result<()> {
        self.text.clear();
        for record in &batch.records {
            self.text.push_str(&self.line_start);
            (self.format)(record, &mut self.text)
                .map_err(|_| Error::user("a record's Display or Debug answered with an error"))?;
            self.text.push('\n');
        }
        let written = self.output.write_all(self.text.as_bytes()).and_then(|()| self.output.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => {
                Error::io(self.name, error).at("nobody reads the printed records any more")
            }
            _ => Error::io(self.name, error),
        })
    }

    fn prepare_commit(&mut self, _end_of_input: bool) -> Result<Vec<()>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::test_kit::context;

    /// Notes what each call writes.
    #[derive(Clone, Default)]
    struct Calls(Arc<Mutex<Vec<String>>>);

    impl Write for Calls {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn calls<T: Record>(print: Print<T>, parallelism: u32, records: Vec<T>) -> Vec<String> {
        let calls = Calls::default();
        let mut writer = print.writer(&context(parallelism - 1, parallelism)).unwrap();
        writer.output = Box::new(calls.clone());
        writer.write(Batch::of(records)).unwrap();
        calls.0.lock().unwrap().clone()
    }

    #[test]
    fn a_batch_is_written_by_one_call_with_a_line_for_each_record() {
        assert_eq!(calls(Print::display(), 1, vec!["a".to_string(), "b".to_string()]), ["a\nb\n"]);
        assert_eq!(calls(Print::debug(), 1, vec![("a".to_string(), 1)]), ["(\"a\", 1)\n"]);
    }

    #[test]
    fn tasks_of_several_and_prefixes_are_named_as_in_flink() {
        assert_eq!(calls(Print::display(), 4, vec![1, 2]), ["4> 1\n4> 2\n"]);
        assert_eq!(calls(Print::display().prefix("out"), 1, vec![1]), ["out> 1\n"]);
        assert_eq!(calls(Print::display().prefix("out"), 2, vec![1]), ["out:2> 1\n"]);
    }

    #[test]
    fn a_closed_pipe_is_an_error_and_no_panic() {
        let (reader, pipe) = io::pipe().unwrap();
        drop(reader);
        let mut writer = Print::display().writer(&context(0, 1)).unwrap();
        writer.output = Box::new(pipe);
        let error = writer.write(Batch::of(vec![1])).unwrap_err().to_string();
        assert!(error.starts_with("nobody reads the printed records any more: standard output:"), "{error}");
    }
}
