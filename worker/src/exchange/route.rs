//! Who gets a frame that has come.

use std::sync::{Arc, OnceLock};

use flott_dataflow::codec::decode_value;
use flott_dataflow::element::Signal;
use flott_dataflow::time::alignment::AlignmentRegistry;
use flott_schema::Result;

use super::body::{AlignmentReport, Failure, read_signal};
use super::header::{Compression, FrameHeader, Kind, RECEIVED, corrupt};
use super::inbox::{Inbox, RemoteFrame};
use super::peer::Peer;
use super::splits::Splits;
use super::spooled::Spooled;
use crate::channel::Item;

/// The parts of an executor that frames are for.
pub(super) struct Router {
    pub inbox: Arc<Inbox>,
    pub splits: Splits,
    pub spooled: Spooled,
    pub alignment: OnceLock<Arc<AlignmentRegistry>>,
}

impl Router {
    pub fn new(compression: Compression) -> Self {
        Router {
            inbox: Arc::default(),
            splits: Splits::default(),
            spooled: Spooled::new(compression),
            alignment: OnceLock::new(),
        }
    }

    /// Hands over a frame whose checksum is right. Never waits. An error breaks the connection.
    pub fn dispatch(&self, header: &FrameHeader, body: Vec<u8>, peer: &Arc<Peer>) -> Result<()> {
        let (channel, epoch) = (header.channel, header.job_epoch);
        match header.kind {
            Kind::Batch => {
                let frame = RemoteFrame::new(header, body, peer.clone());
                self.inbox.deliver(channel, epoch, Item::Remote(frame));
            }
            Kind::Signal => {
                let signal = read_signal(&body)?;
                self.inbox.deliver(channel, epoch, Item::Signal(signal));
                if signal == Signal::EndOfInput {
                    peer.give_back(epoch, channel, RECEIVED)?;
                }
            }
            Kind::Credit => peer.credit(epoch, channel, header.detail),
            Kind::SplitRequest => self.splits.request(header, peer),
            Kind::SplitAnswer => {
                let answer = decode_value(&body).map_err(|error| corrupt(&error.to_string()))?;
                self.splits.answer(header, answer, peer);
            }
            Kind::SpoolRequest => self.spooled.serve(header, peer),
            Kind::Alignment => {
                let report: AlignmentReport =
                    decode_value(&body).map_err(|error| corrupt(&error.to_string()))?;
                if let Some(alignment) = self.alignment.get() {
                    alignment.report_elsewhere(&report.group, peer.worker.0, epoch, report.watermark_ms);
                }
            }
            Kind::Failure => {
                let failure: Failure = decode_value(&body).map_err(|error| corrupt(&error.to_string()))?;
                let error = flott_schema::Error::from(failure).at(peer.place());
                self.inbox.deliver(channel, epoch, Item::Failed(error));
            }
        }
        Ok(())
    }
}
