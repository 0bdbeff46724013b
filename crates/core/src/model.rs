//! The replicated state. `apply` is deterministic and total: same log, same model, on every node.
//!
//! It validates again at commit; a command that lost a race is rejected, never half applied. It reads no clock.

use std::collections::{BTreeMap, VecDeque};

use redkeep_consensus::{NodeId, Span};

use crate::{
    command::{Assign, Body, Cause, Command},
    ids::{Epoch, GroupId, RunId},
    observe::EligibleMember,
    spec::{ClusterSpec, NodeSpec},
};

mod nodes;

pub use nodes::NodeRejection;

/// Lines of history that are kept.
pub const HISTORY_MAX: usize = 256;

/// Replicated state of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Model {
    pub spec: Option<ClusterSpec>,
    pub groups: BTreeMap<GroupId, GroupModel>,
    /// A pause of all groups.
    pub pause: Option<Pause>,
    pub history: VecDeque<Record>,
    /// Nodes that left; their ids do not come back.
    pub left: Vec<NodeSpec>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupModel {
    pub assignment: Option<Assignment>,
    pub eligible: Vec<EligibleMember>,
    pub joining: Vec<EligibleMember>,
    pub switchover: Option<NodeId>,
    pub pause: Option<Pause>,
    /// Its master had keys, as last decided with the eligible set. Only a serving master tells: who comes back empty does not end it.
    pub has_data: bool,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    pub epoch: Epoch,
    pub master: NodeId,
    pub run_id: RunId,
    pub cause: Cause,
    /// Log index of the decision: the id of the failover in logs, history and events.
    pub index: u64,
    pub serving: bool,
    /// Epoch, master and life before this one, for the return of the old master.
    pub previous_master: Option<NodeId>,
    /// The first epoch of the time in which this life has been master without a break.
    pub since: Epoch,
}

impl Assignment {
    /// This life was made master, and served. A replica is what somebody made of it since.
    #[must_use]
    pub fn was_master(&self) -> bool {
        self.serving || self.since < self.epoch
    }
}

/// Each node counts the duration from its own apply: no clock is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pause {
    pub index: u64,
    pub duration: Span,
}

/// One line of history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub index: u64,
    pub term: u64,
    pub at_unix_ms: u64,
    pub group: Option<GroupId>,
    pub epoch: Epoch,
    pub kind: RecordKind,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordKind {
    Bootstrapped,
    Assigned {
        master: NodeId,
        from: Option<NodeId>,
        cause: Cause,
        evidence: String,
        estimated_loss_bytes: Option<u64>,
    },
    Serving {
        master: NodeId,
    },
    SwitchoverStarted {
        to: NodeId,
    },
    SwitchoverAborted {
        reason: String,
    },
    Paused {
        duration: Span,
    },
    Resumed,
    NodeAdded {
        name: String,
    },
    NodeRemoved {
        name: String,
    },
    MemberAdded {
        node: NodeId,
    },
    MemberRemoved {
        node: NodeId,
    },
    Acknowledged,
}

/// What an applied entry changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Applied {
    Nothing,
    Spec,
    Assigned(GroupId),
    Serving(GroupId),
    Eligible(GroupId),
    Switchover(GroupId),
    SwitchoverAborted(GroupId),
    Pause(Option<GroupId>),
    Acknowledged(Option<GroupId>),
    Rejected(Rejection),
}

/// Why a committed command changed nothing: something was committed between its view and it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    #[error("a spec is there already")]
    SpecExists,
    #[error("no such group")]
    NoSuchGroup,
    #[error("the epoch is over")]
    StaleEpoch,
    #[error("the node is not a member")]
    NotAMember,
    #[error("no switchover is under way")]
    NoSwitchover,
    #[error(transparent)]
    Node(#[from] NodeRejection),
}

impl Model {
    #[must_use]
    pub fn group(&self, id: &GroupId) -> Option<&GroupModel> {
        self.groups.get(id)
    }

    /// Apply the committed entry `index` of `term`.
    pub fn apply(&mut self, index: u64, term: u64, command: Command) -> Applied {
        let at = At { index, term, unix_ms: command.at_unix_ms };
        match command.body {
            Body::Bootstrap(spec) => self.apply_bootstrap(&at, spec),
            Body::Assign(assign) => self.apply_assign(&at, assign),
            Body::Serving { group, epoch } => self.apply_serving(&at, group, epoch),
            Body::Eligible { group, epoch, members, joining, has_data } => {
                self.with_current(&group.clone(), epoch, |g| {
                    g.eligible = members;
                    g.joining = joining;
                    g.has_data = has_data;
                    Applied::Eligible(group)
                })
            }
            Body::Switchover { group, epoch, to } => self.apply_switchover(&at, group, epoch, to),
            Body::SwitchoverAbort { group, epoch, reason } => {
                self.apply_abort(&at, group, epoch, reason)
            }
            Body::Pause { group, duration } => self.apply_pause(&at, group, Some(duration)),
            Body::Resume { group } => self.apply_pause(&at, group, None),
            Body::AddNode(node) => self.apply_add_node(&at, node),
            Body::RemoveNode { node } => self.apply_remove_node(&at, node),
            Body::AddMember { group, member } => self.apply_add_member(&at, group, member),
            Body::RemoveMember { group, node } => self.apply_remove_member(&at, group, node),
            Body::Acknowledge { group } => self.apply_acknowledge(&at, group),
        }
    }

    fn apply_bootstrap(&mut self, at: &At, spec: ClusterSpec) -> Applied {
        if self.spec.is_some() {
            return Applied::Rejected(Rejection::SpecExists);
        }
        for g in &spec.groups {
            self.groups.insert(g.id.clone(), GroupModel::default());
        }
        self.spec = Some(spec);
        self.record(at, None, Epoch::NONE, RecordKind::Bootstrapped);
        Applied::Spec
    }

    fn apply_assign(&mut self, at: &At, assign: Assign) -> Applied {
        let Some(spec) = self.spec.as_ref().and_then(|s| s.group(&assign.group)) else {
            return Applied::Rejected(Rejection::NoSuchGroup);
        };
        if !spec.is_member(assign.master) {
            return Applied::Rejected(Rejection::NotAMember);
        }
        let Some(group) = self.groups.get_mut(&assign.group) else {
            return Applied::Rejected(Rejection::NoSuchGroup);
        };
        let current = group.assignment.as_ref().map_or(Epoch::NONE, |a| a.epoch);
        // The largest number has no successor.
        if assign.epoch != current.next() || assign.epoch <= current {
            return Applied::Rejected(Rejection::StaleEpoch);
        }
        let old = group.assignment.as_ref();
        let from = old.map(|a| a.master);
        let goes_on = |a: &&Assignment| {
            let same = a.master == assign.master && a.run_id == assign.run_id;
            same && assign.goes_on && a.was_master()
        };
        let since = old.filter(goes_on).map_or(assign.epoch, |a| a.since);
        let old = old.map(|a| EligibleMember { node: a.master, run_id: a.run_id.clone() });
        group.assignment = Some(Assignment {
            epoch: assign.epoch,
            master: assign.master,
            run_id: assign.run_id,
            cause: assign.cause,
            index: at.index,
            serving: false,
            previous_master: from.filter(|f| *f != assign.master),
            since,
        });
        group.eligible.retain(|m| m.node != assign.master);
        // Before the new master's first write, so nothing that `WAIT` confirmed can be missing there.
        if let Some(old) = old.filter(|o| assign.old_master_eligible && o.node != assign.master) {
            group.eligible.push(old);
            group.eligible.sort();
        }
        group.joining.clear();
        group.switchover = None;
        let kind = RecordKind::Assigned {
            master: assign.master,
            from,
            cause: assign.cause,
            evidence: assign.evidence,
            estimated_loss_bytes: assign.estimated_loss_bytes,
        };
        self.record(at, Some(assign.group.clone()), assign.epoch, kind);
        Applied::Assigned(assign.group)
    }

    fn apply_serving(&mut self, at: &At, group: GroupId, epoch: Epoch) -> Applied {
        let mut master = None;
        let applied = self.with_current(&group, epoch, |g| {
            if let Some(a) = g.assignment.as_mut().filter(|a| !a.serving) {
                a.serving = true;
                master = Some(a.master);
            }
            Applied::Serving(group.clone())
        });
        if let Some(master) = master {
            self.record(at, Some(group), epoch, RecordKind::Serving { master });
        }
        applied
    }

    fn apply_switchover(&mut self, at: &At, group: GroupId, epoch: Epoch, to: NodeId) -> Applied {
        let member =
            self.spec.as_ref().and_then(|s| s.group(&group)).is_some_and(|g| g.is_member(to));
        if !member {
            return Applied::Rejected(Rejection::NotAMember);
        }
        let applied = self.with_current(&group, epoch, |g| {
            g.switchover = Some(to);
            Applied::Switchover(group.clone())
        });
        if matches!(applied, Applied::Switchover(_)) {
            self.record(at, Some(group), epoch, RecordKind::SwitchoverStarted { to });
        }
        applied
    }

    fn apply_abort(&mut self, at: &At, group: GroupId, epoch: Epoch, reason: String) -> Applied {
        let applied = self.with_current(&group, epoch, |g| match g.switchover.take() {
            Some(_) => Applied::SwitchoverAborted(group.clone()),
            None => Applied::Rejected(Rejection::NoSwitchover),
        });
        if matches!(applied, Applied::SwitchoverAborted(_)) {
            self.record(at, Some(group), epoch, RecordKind::SwitchoverAborted { reason });
        }
        applied
    }

    fn apply_pause(&mut self, at: &At, group: Option<GroupId>, duration: Option<Span>) -> Applied {
        let pause = duration.map(|duration| Pause { index: at.index, duration });
        match &group {
            None => self.pause = pause,
            Some(id) => match self.groups.get_mut(id) {
                Some(g) => g.pause = pause,
                None => return Applied::Rejected(Rejection::NoSuchGroup),
            },
        }
        let kind = duration.map_or(RecordKind::Resumed, |duration| RecordKind::Paused { duration });
        self.record(at, group.clone(), Epoch::NONE, kind);
        Applied::Pause(group)
    }

    /// History alone remembers it here: for how long it counts, each node measures from its own apply.
    fn apply_acknowledge(&mut self, at: &At, group: Option<GroupId>) -> Applied {
        if group.as_ref().is_some_and(|g| !self.groups.contains_key(g)) {
            return Applied::Rejected(Rejection::NoSuchGroup);
        }
        self.record(at, group.clone(), Epoch::NONE, RecordKind::Acknowledged);
        Applied::Acknowledged(group)
    }

    /// Run `change` on a group whose present epoch is `epoch`.
    fn with_current(
        &mut self,
        group: &GroupId,
        epoch: Epoch,
        change: impl FnOnce(&mut GroupModel) -> Applied,
    ) -> Applied {
        let Some(g) = self.groups.get_mut(group) else {
            return Applied::Rejected(Rejection::NoSuchGroup);
        };
        if g.epoch() != epoch {
            return Applied::Rejected(Rejection::StaleEpoch);
        }
        change(g)
    }

    fn record(&mut self, at: &At, group: Option<GroupId>, epoch: Epoch, kind: RecordKind) {
        if self.history.len() == HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(Record {
            index: at.index,
            term: at.term,
            at_unix_ms: at.unix_ms,
            group,
            epoch,
            kind,
        });
    }
}

struct At {
    index: u64,
    term: u64,
    unix_ms: u64,
}

impl Assignment {
    /// The pair runs as it was found: its port is not known to be guarded before the first grant.
    #[must_use]
    pub fn is_adopting(&self) -> bool {
        self.cause == Cause::Adopted && !self.serving
    }
}

impl GroupModel {
    /// Epoch of the present assignment; `Epoch::NONE` before the first.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.assignment.as_ref().map_or(Epoch::NONE, |a| a.epoch)
    }
    #[must_use]
    pub fn master(&self) -> Option<NodeId> {
        self.assignment.as_ref().map(|a| a.master)
    }
    #[must_use]
    pub fn is_eligible(&self, node: NodeId, run_id: &RunId) -> bool {
        self.eligible.iter().any(|m| m.node == node && m.run_id == *run_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::node_id;

    const A: &str = "a";

    fn life(node: &str) -> EligibleMember {
        EligibleMember { node: node_id(node), run_id: RunId::new(&format!("run-{node}")) }
    }

    /// a is master at epoch 1, b and c are eligible, a switchover is under way.
    fn handing_over() -> (Model, Assign) {
        let spec = crate::testing::cluster();
        let group = spec.groups[0].id.clone();
        let first = Assign {
            group: group.clone(),
            epoch: Epoch(1),
            master: node_id(A),
            run_id: life(A).run_id,
            cause: Cause::Adopted,
            evidence: String::new(),
            estimated_loss_bytes: Some(0),
            old_master_eligible: false,
            goes_on: false,
        };
        let mut model = Model::default();
        let eligible = Body::Eligible {
            group: group.clone(),
            epoch: Epoch(1),
            members: vec![life("b"), life("c")],
            joining: Vec::new(),
            has_data: true,
        };
        let switchover = Body::Switchover { group, epoch: Epoch(1), to: node_id("b") };
        let bodies = [Body::Bootstrap(spec), Body::Assign(first.clone()), eligible, switchover];
        for (index, body) in (1..).zip(bodies) {
            let applied = model.apply(index, 1, Command { at_unix_ms: 0, body });
            assert!(!matches!(applied, Applied::Rejected(_)), "{applied:?}");
        }
        let next = Assign {
            epoch: Epoch(2),
            master: node_id("b"),
            run_id: life("b").run_id,
            cause: Cause::Switchover,
            ..first
        };
        (model, next)
    }

    fn eligible_after(assign: Assign) -> Vec<EligibleMember> {
        let (mut model, _) = handing_over();
        let group = assign.group.clone();
        model.apply(9, 1, Command { at_unix_ms: 0, body: Body::Assign(assign) });
        model.groups[&group].eligible.clone()
    }

    #[test]
    fn the_life_that_handed_over_enters_the_set_with_the_new_epoch() {
        let (_, assign) = handing_over();
        assert_eq!(eligible_after(assign.clone()), [life("c")]);
        let mut both = [life(A), life("c")];
        both.sort();
        assert_eq!(eligible_after(Assign { old_master_eligible: true, ..assign }), both);
    }

    #[test]
    fn a_life_goes_on_as_master_from_where_it_served_first() {
        let (mut model, next) = handing_over();
        let group = next.group.clone();
        let first = model.groups[&group].assignment.clone().unwrap();
        let mut name = |epoch, goes_on| {
            let assign = Assign {
                epoch: Epoch(epoch),
                master: first.master,
                run_id: first.run_id.clone(),
                goes_on,
                ..next.clone()
            };
            model.apply(epoch, 1, Command { at_unix_ms: 0, body: Body::Assign(assign) });
            let a = model.groups[&group].assignment.clone().unwrap();
            let serving = Body::Serving { group: group.clone(), epoch: Epoch(epoch) };
            model.apply(epoch, 1, Command { at_unix_ms: 0, body: serving });
            (a.since, a.was_master())
        };
        // It has not served yet.
        assert_eq!(name(2, true), (Epoch(2), false));
        assert_eq!(name(3, true), (Epoch(2), true));
        assert_eq!(name(4, true), (Epoch(2), true));
        // It was seen as a replica: it is promoted anew.
        assert_eq!(name(5, false), (Epoch(5), false));
    }

    #[test]
    fn a_master_named_again_is_no_member_of_its_own_set() {
        let (_, assign) = handing_over();
        let back = Assign { master: node_id(A), old_master_eligible: true, ..assign };
        assert!(!eligible_after(back).iter().any(|m| m.node == node_id(A)));
    }
}
