//! What a format of lines has to say.

use flott_dataflow::batch::Record;
use flott_schema::Result;

use super::line_buffer::Line;
use crate::bad_record::Undecodable;

/// How lines become records.
pub trait LineFormat: Clone + Send + 'static {
    /// What is read.
    type Record: Record;
    /// Decodes in one task.
    type Decoder: LineDecoder<Record = Self::Record>;

    /// Refuses settings that make no sense.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Whether reading may begin at any line.
    fn is_splittable(&self) -> bool {
        true
    }

    /// A decoder.
    fn decoder(&self) -> Self::Decoder;
}

/// What a line gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded<T> {
    /// A record.
    Record(T),
    /// Nothing, as it should: a blank line.
    Nothing,
    /// The record goes on in the next line.
    Incomplete,
}

/// What a decoder makes of the first lines of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// It needs the next line as well.
    More,
    /// They are a header, and no record.
    Header,
    /// It has only looked; they are records.
    Records,
}

/// Decodes lines.
pub trait LineDecoder: 'static {
    /// What comes out.
    type Record;

    /// Forgets what it knows of the file before. Answers whether it wants to see the first lines of this one, wherever
    /// in the file reading begins.
    fn begin_file(&mut self) -> bool {
        false
    }

    /// Looks at the first line of a file, or the next one after it answered [`Preamble::More`].
    fn preamble(&mut self, _line: Line<'_>) -> Result<Preamble, Undecodable> {
        Ok(Preamble::Records)
    }

    /// Decodes a line. After an error the next line begins a new record.
    fn decode(&mut self, line: Line<'_>) -> Result<Decoded<Self::Record>, Undecodable>;

    /// The file has ended inside a record: says what is missing.
    fn unfinished(&mut self) -> Undecodable {
        Undecodable("the file ends inside a record".into())
    }
}
