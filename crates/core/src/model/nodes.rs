//! Nodes that join and leave the cluster and its groups. Raft's membership follows the spec (`core/membership.rs`).

use redkeep_consensus::NodeId;

use super::{Applied, At, Model, RecordKind, Rejection};
use crate::{
    ids::{Epoch, GroupId},
    spec::{GroupSpec, Member, NodeSpec},
};

/// Why a node cannot join or leave.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NodeRejection {
    #[error("the cluster has no spec yet")]
    NoSpec,
    #[error("its name, or one of its addresses, is in use by node {0}")]
    InUse(String),
    #[error(
        "a node of that name left, and what it voted is not known any more: choose another name"
    )]
    Left,
    #[error("no node has that name")]
    Unknown,
    #[error("it is a member of group {0}")]
    Member(GroupId),
    #[error("it is not a member of group {0}")]
    NotAMember(GroupId),
    #[error("it is the master of group {0}: switch over first")]
    Master(GroupId),
    #[error("a switchover of group {0} to it is under way")]
    Target(GroupId),
}

impl Model {
    /// # Errors
    /// Why `node` cannot join.
    pub fn check_joining(&self, node: &NodeSpec) -> Result<(), NodeRejection> {
        let spec = self.spec.as_ref().ok_or(NodeRejection::NoSpec)?;
        if self.left.iter().any(|n| n.id == node.id) {
            return Err(NodeRejection::Left);
        }
        let new = [node.peer, node.admin];
        let same =
            |n: &&NodeSpec| n.id == node.id || new.contains(&n.peer) || new.contains(&n.admin);
        let other = spec.nodes.iter().find(same);
        other.map_or(Ok(()), |n| Err(NodeRejection::InUse(n.name.clone())))
    }

    /// # Errors
    /// Why `node` cannot leave.
    pub fn check_leaving(&self, node: NodeId) -> Result<(), NodeRejection> {
        let spec = self.spec.as_ref().ok_or(NodeRejection::NoSpec)?;
        spec.node(node).ok_or(NodeRejection::Unknown)?;
        let group = spec.groups.iter().find(|g| g.is_member(node));
        group.map_or(Ok(()), |g| Err(NodeRejection::Member(g.id.clone())))
    }

    /// # Errors
    /// Why `node` cannot become a member of `group`.
    pub fn check_new_member(&self, group: &GroupId, node: NodeId) -> Result<(), NodeRejection> {
        let spec = self.spec.as_ref().ok_or(NodeRejection::NoSpec)?;
        spec.node(node).ok_or(NodeRejection::Unknown)?;
        let is_member = spec.group(group).is_some_and(|g| g.is_member(node));
        if is_member { Err(NodeRejection::Member(group.clone())) } else { Ok(()) }
    }

    /// # Errors
    /// Why `node` cannot stop being a member of `group`.
    pub fn check_old_member(&self, group: &GroupId, node: NodeId) -> Result<(), NodeRejection> {
        let spec = self.spec.as_ref().ok_or(NodeRejection::NoSpec)?;
        if !spec.group(group).is_some_and(|g| g.is_member(node)) {
            return Err(NodeRejection::NotAMember(group.clone()));
        }
        let model = self.group(group);
        // Before there is a master nobody knows whose data set counts.
        if model.and_then(|g| g.master()).is_none_or(|m| m == node) {
            return Err(NodeRejection::Master(group.clone()));
        }
        let target = model.is_some_and(|g| g.switchover == Some(node));
        if target { Err(NodeRejection::Target(group.clone())) } else { Ok(()) }
    }

    pub(super) fn apply_add_member(&mut self, at: &At, group: GroupId, member: Member) -> Applied {
        if let Err(why) = self.check_new_member(&group, member.node) {
            return Applied::Rejected(Rejection::Node(why));
        }
        let Some(spec) = self.group_spec(&group) else {
            return Applied::Rejected(Rejection::NoSuchGroup);
        };
        spec.members.push(member);
        let kind = RecordKind::MemberAdded { node: member.node };
        self.record(at, Some(group), Epoch::NONE, kind);
        Applied::Spec
    }

    pub(super) fn apply_remove_member(&mut self, at: &At, group: GroupId, node: NodeId) -> Applied {
        if let Err(why) = self.check_old_member(&group, node) {
            return Applied::Rejected(Rejection::Node(why));
        }
        if let Some(spec) = self.group_spec(&group) {
            spec.members.retain(|m| m.node != node);
        }
        if let Some(model) = self.groups.get_mut(&group) {
            model.eligible.retain(|m| m.node != node);
            model.joining.retain(|m| m.node != node);
        }
        self.record(at, Some(group), Epoch::NONE, RecordKind::MemberRemoved { node });
        Applied::Spec
    }

    fn group_spec(&mut self, group: &GroupId) -> Option<&mut GroupSpec> {
        self.spec.as_mut()?.groups.iter_mut().find(|g| g.id == *group)
    }

    pub(super) fn apply_add_node(&mut self, at: &At, node: NodeSpec) -> Applied {
        if let Err(why) = self.check_joining(&node) {
            return Applied::Rejected(Rejection::Node(why));
        }
        self.record(at, None, Epoch::NONE, RecordKind::NodeAdded { name: node.name.clone() });
        if let Some(spec) = self.spec.as_mut() {
            spec.nodes.push(NodeSpec { added: true, ..node });
        }
        Applied::Spec
    }

    pub(super) fn apply_remove_node(&mut self, at: &At, node: NodeId) -> Applied {
        if let Err(why) = self.check_leaving(node) {
            return Applied::Rejected(Rejection::Node(why));
        }
        let Some(spec) = self.spec.as_mut() else { return Applied::Nothing };
        let Some(place) = spec.nodes.iter().position(|n| n.id == node) else {
            return Applied::Nothing;
        };
        let gone = spec.nodes.remove(place);
        self.record(at, None, Epoch::NONE, RecordKind::NodeRemoved { name: gone.name.clone() });
        self.left.push(gone);
        Applied::Spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::{Assign, Body, Cause, Command},
        ids::RunId,
        observe::EligibleMember,
    };

    fn node(name: &str, n: u8) -> NodeSpec {
        NodeSpec {
            id: crate::ids::node_id(name),
            name: name.to_owned(),
            peer: ([10, 0, 9, n], 7600).into(),
            admin: ([10, 0, 9, n], 7601).into(),
            added: false,
        }
    }

    fn started() -> Model {
        let mut model = Model::default();
        let body = Body::Bootstrap(crate::testing::cluster());
        model.apply(1, 1, Command { at_unix_ms: 0, body });
        model
    }

    fn apply(model: &mut Model, body: Body) -> Applied {
        model.apply(2, 1, Command { at_unix_ms: 0, body })
    }

    fn names(model: &Model) -> Vec<&str> {
        model.spec.iter().flat_map(|s| &s.nodes).map(|n| n.name.as_str()).collect()
    }

    #[test]
    fn a_node_joins_once_and_its_id_does_not_come_back() {
        let mut model = started();
        let first = names(&model).len();
        assert_eq!(apply(&mut model, Body::AddNode(node("x", 1))), Applied::Spec);
        assert_eq!(names(&model).last(), Some(&"x"));
        assert!(model.spec.as_ref().is_some_and(|s| s.nodes[first].added));
        let again = apply(&mut model, Body::AddNode(node("x", 2)));
        assert_eq!(again, Applied::Rejected(NodeRejection::InUse("x".into()).into()));
        let same_address = apply(&mut model, Body::AddNode(node("y", 1)));
        assert_eq!(same_address, Applied::Rejected(NodeRejection::InUse("x".into()).into()));
        let remove = Body::RemoveNode { node: crate::ids::node_id("x") };
        assert_eq!(apply(&mut model, remove.clone()), Applied::Spec);
        assert_eq!(names(&model).len(), first);
        assert_eq!(apply(&mut model, remove), Applied::Rejected(NodeRejection::Unknown.into()));
        let back = apply(&mut model, Body::AddNode(node("x", 3)));
        assert_eq!(back, Applied::Rejected(NodeRejection::Left.into()));
        let kinds: Vec<_> = model.history.iter().map(|r| r.kind.clone()).collect();
        let name = || "x".to_owned();
        let told =
            [RecordKind::NodeAdded { name: name() }, RecordKind::NodeRemoved { name: name() }];
        assert_eq!(kinds[1..], told);
    }

    #[test]
    fn a_member_of_a_group_does_not_leave() {
        let mut model = started();
        let member = model.spec.as_ref().unwrap().groups[0].members[0].node;
        let group = model.spec.as_ref().unwrap().groups[0].id.clone();
        let applied = apply(&mut model, Body::RemoveNode { node: member });
        assert_eq!(applied, Applied::Rejected(NodeRejection::Member(group).into()));
    }

    #[test]
    fn a_member_leaves_with_its_place_in_the_set_unless_it_is_the_master() {
        let mut model = started();
        let spec = model.spec.clone().unwrap().groups.remove(0);
        let group = spec.id.clone();
        let life = |node| EligibleMember { node, run_id: RunId::new("r") };
        let (master, replica) = (spec.members[0].node, spec.members[1].node);
        let remove = |node| Body::RemoveMember { group: group.clone(), node };
        let rejected = |why: NodeRejection| Applied::Rejected(why.into());
        let none_yet = NodeRejection::Master(group.clone());
        assert_eq!(apply(&mut model, remove(replica)), rejected(none_yet), "no master yet");
        let assign = Assign {
            group: group.clone(),
            epoch: Epoch(1),
            master,
            run_id: RunId::new("r"),
            cause: Cause::Adopted,
            evidence: String::new(),
            estimated_loss_bytes: Some(0),
            old_master_eligible: false,
            goes_on: false,
        };
        apply(&mut model, Body::Assign(assign));
        let (epoch, members) = (Epoch(1), vec![life(replica)]);
        let (joining, has_data) = (Vec::new(), true);
        let eligible = Body::Eligible { group: group.clone(), epoch, members, joining, has_data };
        apply(&mut model, eligible);
        let why = NodeRejection::Master(group.clone());
        assert_eq!(apply(&mut model, remove(master)), rejected(why));
        let switchover = Body::Switchover { group: group.clone(), epoch, to: replica };
        apply(&mut model, switchover);
        let why = NodeRejection::Target(group.clone());
        assert_eq!(apply(&mut model, remove(replica)), rejected(why));
        let abort = Body::SwitchoverAbort { group: group.clone(), epoch, reason: String::new() };
        apply(&mut model, abort);
        assert_eq!(apply(&mut model, remove(replica)), Applied::Spec);
        assert!(model.groups[&group].eligible.is_empty());
        let why = NodeRejection::NotAMember(group.clone());
        assert_eq!(apply(&mut model, remove(replica)), rejected(why));
        let member = Member { node: replica, priority: 7 };
        let add = Body::AddMember { group: group.clone(), member };
        assert_eq!(apply(&mut model, add.clone()), Applied::Spec);
        assert_eq!(model.spec.as_ref().unwrap().groups[0].members.last(), Some(&member));
        let why = NodeRejection::Member(group.clone());
        assert_eq!(apply(&mut model, add), rejected(why));
        let member = Member { node: crate::ids::node_id("nobody"), priority: 7 };
        let unknown = apply(&mut model, Body::AddMember { group, member });
        assert_eq!(unknown, rejected(NodeRejection::Unknown));
    }
}
