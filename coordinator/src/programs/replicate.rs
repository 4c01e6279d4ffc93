//! Programs between the members of a group.

use flott_schema::job::ProgramDigest;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::error::ProgramError;
use super::files::{Programs, READ_BYTES_MAX};
use crate::journal::raft::Network;

/// Bytes of a part.
const PART_BYTES: u32 = 1 << 20;

/// The other members of the group, seen from the store.
#[derive(Clone, Debug, Default)]
pub struct ProgramPeers {
    own_id: u64,
    network: Option<Network>,
    addresses: Vec<String>,
}

impl ProgramPeers {
    /// A coordinator that is alone has none.
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn new(own_id: u64, network: Network, addresses: Vec<String>) -> Self {
        ProgramPeers { own_id, network: Some(network), addresses }
    }
}

impl Programs {
    /// Brings a stored program to the other members. Returns when a majority has it; the others get it meanwhile, or
    /// when they need it.
    pub async fn replicate(&self, digest: ProgramDigest) -> Result<(), ProgramError> {
        let peers = self.peers().clone();
        let members = peers.addresses.len() + 1;
        let Some(network) = peers.network else { return Ok(()) };
        // Two that store the same program send it once: the second hears at its first part that it is there.
        let turn = self.turn(digest);
        let _turn = turn.lock().await;
        let (own, mut stored, mut reason) = (peers.own_id, 1, String::new());
        let mut sending: FuturesUnordered<_> = peers
            .addresses
            .into_iter()
            .map(|address| {
                // A task of its own goes on when the majority has it.
                tokio::spawn(send(self.clone(), network.clone(), own, address, digest))
            })
            .collect();
        while stored * 2 <= members {
            match sending.next().await {
                Some(Ok(Ok(()))) => stored += 1,
                Some(Ok(Err(failure))) => reason = failure,
                Some(Err(failure)) => reason = failure.to_string(),
                None => return Err(ProgramError::NoMajority { digest, stored, members, reason }),
            }
        }
        Ok(())
    }

    /// Gets a program from the other members, if it is not here: one that was away when it came lacks it.
    pub async fn fetch(&self, digest: ProgramDigest) -> Result<(), ProgramError> {
        if self.contains(digest) {
            return Ok(());
        }
        let turn = self.turn(digest);
        let _turn = turn.lock().await;
        if self.contains(digest) {
            return Ok(());
        }
        let peers = self.peers().clone();
        let Some(network) = peers.network else { return Err(ProgramError::Unknown(digest)) };
        for address in peers.addresses {
            match self.fetch_from(&network, &address, digest).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => tracing::debug!(address, %digest, %error, "program not fetched"),
            }
        }
        Err(ProgramError::Unknown(digest))
    }

    /// Whether the member has it.
    async fn fetch_from(
        &self,
        network: &Network,
        address: &str,
        digest: ProgramDigest,
    ) -> Result<bool, ProgramError> {
        let mut upload = self.upload()?;
        loop {
            let read =
                network.read_program(address, digest, upload.size_bytes(), PART_BYTES.min(READ_BYTES_MAX));
            let (part, size) = match read.await {
                Ok(read) => read,
                Err(reason) => {
                    tracing::debug!(reason, "no program from there");
                    return Ok(false);
                }
            };
            if part.is_empty() && upload.size_bytes() < size {
                return Ok(false);
            }
            upload = upload.write_aside(part).await?;
            if upload.size_bytes() >= size {
                return upload.finish(self, Some(digest)).await.map(|_| true);
            }
        }
    }
}

/// A part of a program, read where the disk may be waited for.
async fn read_aside(
    programs: &Programs,
    digest: ProgramDigest,
    offset: u64,
) -> Result<(Vec<u8>, u64), String> {
    let read = programs.aside(move |programs| programs.read(digest, offset, PART_BYTES));
    read.await.map_err(|error| error.to_string())
}

/// Sends a program to a member, part after part.
async fn send(
    programs: Programs,
    network: Network,
    own: u64,
    address: String,
    digest: ProgramDigest,
) -> Result<(), String> {
    let from = programs.new_sender(own);
    let (mut offset, mut has_begun_again) = (0, false);
    loop {
        let (part, size) = read_aside(&programs, digest, offset).await?;
        let next = offset + part.len() as u64;
        let is_last = next >= size;
        // A member that has it already says so at the first part.
        let is_stored = match network.store_program(&address, from, digest, offset, part, is_last).await {
            Ok(is_stored) => is_stored,
            // The connection broke, or the member has dropped what it had got.
            Err(reason) if offset > 0 && !has_begun_again => {
                tracing::debug!(address, %digest, reason, "a program is sent again");
                (offset, has_begun_again) = (0, true);
                continue;
            }
            Err(reason) => return Err(reason),
        };
        if is_stored {
            return Ok(());
        }
        if is_last {
            return Err(format!("coordinator {address} has got all of it and does not have it"));
        }
        offset = next;
    }
}
