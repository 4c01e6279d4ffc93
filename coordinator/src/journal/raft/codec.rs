//! openraft's values in the forms of `raft.capnp`, for the disk and for the wire.

use std::collections::{BTreeMap, BTreeSet};

use capnp::message::{Builder, ReaderOptions};
use capnp::traits::Owned;
use openraft::{BasicNode, CommittedLeaderId, EntryPayload};

use flott_schema::error::{Error, ErrorKind, Result};
use flott_schema::wire::broken;
use flott_schema::wire::generated::raft_capnp as form;

use super::types::{Entry, LogId, Membership, Proposal, SnapshotMeta, StoredMembership, Vote};

/// Words that a stored message may have: 128 Mi words are 1 GiB, more than a log entry or a snapshot's description can
/// need; the checksum of the record is what protects against nonsense.
const TRAVERSAL_WORDS_MAX: usize = 128 << 20;

/// A value as a message of its own.
pub(super) fn message<F: Owned>(
    write: impl FnOnce(<F as Owned>::Builder<'_>) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut message = Builder::new_default();
    write(message.init_root())?;
    Ok(capnp::serialize::write_message_to_words(&message))
}

/// The value in a message.
pub(super) fn from_message<F: Owned, T>(
    mut bytes: &[u8],
    read: impl FnOnce(<F as Owned>::Reader<'_>) -> Result<T>,
) -> Result<T> {
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(TRAVERSAL_WORDS_MAX));
    // Copied: a record may lie anywhere, and Cap'n Proto reads words where they are aligned.
    let message = capnp::serialize::read_message(&mut bytes, options).map_err(broken)?;
    read(message.get_root().map_err(broken)?)
}

fn text(text: capnp::text::Reader<'_>) -> Result<String> {
    text.to_string().map_err(|error| Error::new(ErrorKind::Io, format!("broken message: {error}")))
}

pub(super) fn write_log_id(id: &LogId, mut form: form::log_id::Builder<'_>) {
    form.set_term(id.leader_id.term);
    form.set_member(id.leader_id.node_id);
    form.set_index(id.index);
}

pub(super) fn read_log_id(form: form::log_id::Reader<'_>) -> LogId {
    LogId::new(CommittedLeaderId::new(form.get_term(), form.get_member()), form.get_index())
}

pub(super) fn write_vote(vote: &Vote, mut form: form::vote::Builder<'_>) {
    form.set_term(vote.leader_id.term);
    form.set_member(vote.leader_id.node_id);
    form.set_committed(vote.committed);
}

pub(super) fn read_vote(form: form::vote::Reader<'_>) -> Vote {
    match form.get_committed() {
        true => Vote::new_committed(form.get_term(), form.get_member()),
        false => Vote::new(form.get_term(), form.get_member()),
    }
}

pub(super) fn write_membership(membership: &Membership, mut form: form::membership::Builder<'_>) {
    let sets = membership.get_joint_config();
    let mut voters = form.reborrow().init_voters(sets.len() as u32);
    for (index, set) in sets.iter().enumerate() {
        let mut list = voters.reborrow().init(index as u32, set.len() as u32);
        for (place, id) in set.iter().enumerate() {
            list.set(place as u32, *id);
        }
    }
    let nodes: Vec<_> = membership.nodes().collect();
    let mut members = form.init_members(nodes.len() as u32);
    for (index, (id, node)) in nodes.into_iter().enumerate() {
        let mut member = members.reborrow().get(index as u32);
        member.set_id(*id);
        member.set_address(&node.addr);
    }
}

pub(super) fn read_membership(form: form::membership::Reader<'_>) -> Result<Membership> {
    let mut sets = Vec::new();
    for set in form.get_voters().map_err(broken)? {
        sets.push(set.map_err(broken)?.iter().collect::<BTreeSet<u64>>());
    }
    let mut nodes = BTreeMap::new();
    for member in form.get_members().map_err(broken)? {
        let address = text(member.get_address().map_err(broken)?)?;
        nodes.insert(member.get_id(), BasicNode::new(address));
    }
    Ok(Membership::new(sets, nodes))
}

pub(super) fn write_stored_membership(
    stored: &StoredMembership,
    mut form: form::stored_membership::Builder<'_>,
) {
    if let Some(id) = stored.log_id() {
        write_log_id(id, form.reborrow().init_log_id());
    }
    write_membership(stored.membership(), form.init_membership());
}

pub(super) fn read_stored_membership(form: form::stored_membership::Reader<'_>) -> Result<StoredMembership> {
    let id = match form.has_log_id() {
        true => Some(read_log_id(form.get_log_id().map_err(broken)?)),
        false => None,
    };
    Ok(StoredMembership::new(id, read_membership(form.get_membership().map_err(broken)?)?))
}

fn write_proposal(proposal: &Proposal, mut form: form::proposal::Builder<'_>) {
    form.set_proposer(proposal.proposer);
    form.set_number(proposal.number);
    let mut events = form.init_events(proposal.events.len() as u32);
    for (index, event) in proposal.events.iter().enumerate() {
        events.set(index as u32, event);
    }
}

fn read_proposal(form: form::proposal::Reader<'_>) -> Result<Proposal> {
    let mut events = Vec::new();
    for event in form.get_events().map_err(broken)? {
        events.push(event.map_err(broken)?.to_vec());
    }
    Ok(Proposal { proposer: form.get_proposer(), number: form.get_number(), events })
}

pub(super) fn write_entry(entry: &Entry, mut form: form::entry::Builder<'_>) {
    write_log_id(&entry.log_id, form.reborrow().init_log_id());
    match &entry.payload {
        EntryPayload::Blank => form.set_blank(()),
        EntryPayload::Normal(proposal) => write_proposal(proposal, form.init_proposal()),
        EntryPayload::Membership(membership) => write_membership(membership, form.init_membership()),
    }
}

pub(super) fn read_entry(form: form::entry::Reader<'_>) -> Result<Entry> {
    let log_id = read_log_id(form.get_log_id().map_err(broken)?);
    let unknown = |_| Error::new(ErrorKind::Io, "an entry of the log is of a kind that this version lacks");
    let payload = match form.which().map_err(unknown)? {
        form::entry::Which::Blank(()) => EntryPayload::Blank,
        form::entry::Which::Proposal(proposal) => {
            EntryPayload::Normal(read_proposal(proposal.map_err(broken)?)?)
        }
        form::entry::Which::Membership(membership) => {
            EntryPayload::Membership(read_membership(membership.map_err(broken)?)?)
        }
    };
    Ok(Entry { log_id, payload })
}

pub(super) fn write_snapshot_meta(meta: &SnapshotMeta, mut form: form::snapshot_meta::Builder<'_>) {
    if let Some(id) = &meta.last_log_id {
        write_log_id(id, form.reborrow().init_last_log_id());
    }
    write_stored_membership(&meta.last_membership, form.reborrow().init_membership());
    form.set_id(&meta.snapshot_id);
}

pub(super) fn read_snapshot_meta(form: form::snapshot_meta::Reader<'_>) -> Result<SnapshotMeta> {
    let last_log_id = match form.has_last_log_id() {
        true => Some(read_log_id(form.get_last_log_id().map_err(broken)?)),
        false => None,
    };
    Ok(SnapshotMeta {
        last_log_id,
        last_membership: read_stored_membership(form.get_membership().map_err(broken)?)?,
        snapshot_id: text(form.get_id().map_err(broken)?)?,
    })
}
