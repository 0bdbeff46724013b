//! Between raft-rs' protobuf types and the plain ones.

use crate::NodeId;
use crate::durable::{Entry, EntryKind, HardState, Snapshot};
use raft::eraftpb;

pub(crate) fn ids(raw: &[u64]) -> Vec<NodeId> {
    let mut ids: Vec<NodeId> = raw.iter().copied().map(NodeId).collect();
    // raft-rs lists members in the order of a hash map.
    ids.sort_unstable();
    ids
}

fn raw(ids: &[NodeId]) -> Vec<u64> {
    ids.iter().map(|id| id.0).collect()
}

pub(crate) fn conf_state(voters: &[NodeId], learners: &[NodeId]) -> eraftpb::ConfState {
    let mut state = eraftpb::ConfState::default();
    state.set_voters(raw(voters));
    state.set_learners(raw(learners));
    state
}

pub(crate) fn hard_state(state: &eraftpb::HardState) -> HardState {
    HardState { term: state.term, vote: state.vote, commit: state.commit }
}

pub(crate) fn raft_hard_state(state: HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
        ..eraftpb::HardState::default()
    }
}

pub(crate) fn entry(entry: &eraftpb::Entry) -> Entry {
    let kind = match entry.get_entry_type() {
        eraftpb::EntryType::EntryNormal => EntryKind::Normal,
        eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => {
            EntryKind::Membership
        }
    };
    Entry {
        term: entry.term,
        index: entry.index,
        kind,
        context: entry.context.to_vec(),
        data: entry.data.to_vec(),
    }
}

pub(crate) fn raft_entry(entry: &Entry) -> eraftpb::Entry {
    eraftpb::Entry {
        term: entry.term,
        index: entry.index,
        entry_type: match entry.kind {
            EntryKind::Normal => eraftpb::EntryType::EntryNormal,
            EntryKind::Membership => eraftpb::EntryType::EntryConfChange,
        },
        context: entry.context.clone().into(),
        data: entry.data.clone().into(),
        ..eraftpb::Entry::default()
    }
}

pub(crate) fn snapshot(snapshot: &eraftpb::Snapshot) -> Snapshot {
    let meta = snapshot.get_metadata();
    Snapshot {
        index: meta.index,
        term: meta.term,
        voters: ids(meta.get_conf_state().get_voters()),
        learners: ids(meta.get_conf_state().get_learners()),
        data: snapshot.data.to_vec(),
    }
}

pub(crate) fn raft_snapshot(snapshot: &Snapshot) -> eraftpb::Snapshot {
    let mut out =
        eraftpb::Snapshot { data: snapshot.data.clone().into(), ..eraftpb::Snapshot::default() };
    let meta = out.mut_metadata();
    meta.index = snapshot.index;
    meta.term = snapshot.term;
    meta.set_conf_state(conf_state(&snapshot.voters, &snapshot.learners));
    out
}
