//! The second kind of batch: Arrow columns, moved by the same channels as typed rows.

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;

use flott_schema::{Error, Result};

use crate::batch::{DataBatch, Timestamps};

/// Arrow columns with event timestamps.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnarBatch {
    /// The columns.
    pub columns: RecordBatch,
    /// Timestamps of the rows.
    pub timestamps: Timestamps,
}

const VERSION: u8 = 1;

impl DataBatch for ColumnarBatch {
    fn record_count(&self) -> usize {
        self.columns.num_rows()
    }

    fn weight_bytes(&self) -> usize {
        self.columns.get_array_memory_size()
    }

    fn duplicate(&self) -> Self {
        self.clone()
    }

    fn split_off(&mut self, at: usize) -> Self {
        let timestamps = self.timestamps.split_off(at);
        let columns = self.columns.slice(at, self.columns.num_rows() - at);
        self.columns = self.columns.slice(0, at);
        ColumnarBatch { columns, timestamps }
    }

    /// Version byte, timestamps in the row form, then an Arrow IPC stream of one batch.
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.push(VERSION);
        let each = match &self.timestamps {
            Timestamps::Same(timestamp) => (vec![*timestamp], true),
            Timestamps::Each(timestamps) => (timestamps.clone(), false),
        };
        let mut head = Vec::new();
        crate::codec::encode_value(&each, &mut head)?;
        bytes.extend_from_slice(&(head.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&head);
        let mut writer = StreamWriter::try_new(bytes, &self.columns.schema()).map_err(arrow_error)?;
        writer.write(&self.columns).map_err(arrow_error)?;
        writer.finish().map_err(arrow_error)
    }

    fn decode(bytes: &[u8]) -> Result<Self> {
        let (version, rest) = bytes.split_first().ok_or_else(|| corrupt("it is empty"))?;
        if *version != VERSION {
            return Err(corrupt(&format!("columnar format version {version}, this Flott reads {VERSION}")));
        }
        let (len, rest) = rest.split_at_checked(4).ok_or_else(|| corrupt("it ends early"))?;
        let len = u32::from_le_bytes(len.try_into().expect("four bytes")) as usize;
        let (head, body) = rest.split_at_checked(len).ok_or_else(|| corrupt("it ends early"))?;
        let (timestamps, same): (Vec<i64>, bool) = crate::codec::decode_value(head)?;
        let mut reader = StreamReader::try_new(body, None).map_err(arrow_error)?;
        let columns = reader.next().ok_or_else(|| corrupt("it holds no columns"))?.map_err(arrow_error)?;
        let timestamps = match (same, timestamps.as_slice()) {
            (true, [timestamp]) => Timestamps::Same(*timestamp),
            (false, each) if each.len() == columns.num_rows() => Timestamps::Each(timestamps),
            _ => return Err(corrupt("timestamps and rows differ in number")),
        };
        Ok(ColumnarBatch { columns, timestamps })
    }
}

fn corrupt(what: &str) -> Error {
    Error::bad_input(format!("corrupt columnar batch: {what}"))
}

fn arrow_error(error: arrow_schema::ArrowError) -> Error {
    Error::bad_input(format!("columnar batch: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray};
    use arrow_schema::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn columns_survive_the_wire() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
        ]));
        let columns = RecordBatch::try_new(
            schema,
            vec![Arc::new(Int64Array::from(vec![1, 2])), Arc::new(StringArray::from(vec![Some("a"), None]))],
        )
        .unwrap();
        for timestamps in [Timestamps::Same(4), Timestamps::Each(vec![1, 2])] {
            let batch = ColumnarBatch { columns: columns.clone(), timestamps };
            let mut bytes = Vec::new();
            batch.encode(&mut bytes).unwrap();
            assert_eq!(ColumnarBatch::decode(&bytes).unwrap(), batch);
            for cut in [0, 1, 5, 9, bytes.len() / 2] {
                assert!(ColumnarBatch::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }
}
