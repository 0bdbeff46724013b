//! The snapshot that operators see.

use redkeep_consensus::{NodeId, Span};

use super::Core;
use crate::{
    ids::{Epoch, GroupId, Now},
    leader::Leader,
    model::GroupModel,
    observe::{AttachedReplica, GroupReport, RedisView, Sight},
    spec::{ClusterSpec, GroupSpec},
    status::{GroupStatus, MemberStatus, NodeStatus, StatusView},
};

impl Core {
    /// What this node knows now.
    pub fn status(&mut self, now: Now) -> StatusView {
        let leases: Vec<(GroupId, Option<Span>)> =
            self.hosts.keys().map(|g| (g.clone(), self.own_lease(now, g))).collect();
        let mut waits = Vec::new();
        if let Some(l) = self.leader.as_mut() {
            for g in self.model.groups.keys() {
                waits.push((g.clone(), l.grantor.wait_left(now.raw, g)));
            }
        }
        let groups = self.model.groups.keys().cloned().collect::<Vec<_>>();
        let groups = groups
            .iter()
            .filter_map(|id| {
                let mut g = self.group_status(now, id)?;
                let own = leases.iter().find(|(x, _)| x == id).and_then(|(_, l)| *l);
                g.lease_left = own.or_else(|| waits.iter().find(|(x, _)| x == id).map(|(_, l)| *l));
                Some(g)
            })
            .collect();
        StatusView {
            node: self.me,
            cluster: self.model.spec.clone(),
            role: self.role,
            term: self.consensus.term(),
            leader: self.leader_id,
            applied: self.applied,
            committed: self.consensus.committed(),
            voters: self.consensus.voters().to_vec(),
            learners: self.consensus.learners().to_vec(),
            nodes: self.leader.as_ref().map_or_else(Vec::new, |l| node_status(now, l, self.me)),
            groups,
        }
    }

    fn own_lease(&self, now: Now, group: &GroupId) -> Option<Span> {
        self.holder
            .open_until(group)
            .map(|until| Span(until.0.saturating_sub(now.boot.0)))
            .filter(|l| *l > Span(0))
    }

    fn group_status(&self, now: Now, id: &GroupId) -> Option<GroupStatus> {
        let g = self.model.group(id)?;
        let spec = self.spec().group(id)?;
        let members: Vec<MemberStatus> =
            spec.members.iter().map(|m| self.member_status(now, id, m.node)).collect();
        let a = g.assignment.as_ref();
        Some(GroupStatus {
            group: id.clone(),
            epoch: g.epoch(),
            master: g.master(),
            cause: a.map(|a| a.cause),
            assigned_at: a.map_or(0, |a| a.index),
            serving: a.is_some_and(|a| a.serving),
            eligible: g.eligible.clone(),
            joining: g.joining.clone(),
            wait_replicas: if self.mutations.wait_for_attached() {
                attached(g, &members).iter().filter(|r| r.online).count()
            } else {
                wait_replicas(g, self.spec(), spec, &members)
            },
            switchover_to: g.switchover,
            paused_for: self.pause_left(now, id),
            paused_with_all: self.pause_of_all_left(now).is_some(),
            lease_left: None,
            members,
            hold: self
                .leader
                .as_ref()
                .and_then(|l| l.hold(id))
                .filter(|_| !self.mutations.say_nothing()),
            durability: spec.durability,
            min_replicas: g.master().and_then(|m| self.min_replicas(now, id, m)),
            sights: self.group_sights(now, id, g.epoch()),
        })
    }

    fn group_sights(&self, now: Now, id: &GroupId, epoch: Epoch) -> Vec<(NodeId, Sight)> {
        let present = |s: &Sight| s.group == *id && s.epoch == epoch;
        let Some(leader) = &self.leader else {
            let own = self.sights.told().into_iter().filter(present);
            return own.map(|s| (self.me, s)).collect();
        };
        let round = self.round(now, &|_| false);
        let Some(c) = leader.candidates(&round, id) else { return Vec::new() };
        let reports = self.spec().nodes.iter().filter_map(|n| Some((n.id, c.heard(n.id)?)));
        let all = reports.flat_map(|(by, r)| r.sights.iter().cloned().map(move |s| (by, s)));
        all.filter(|(_, s)| present(s)).collect()
    }

    /// As the master's node told its Redis, where that is known here.
    fn min_replicas(&self, now: Now, group: &GroupId, master: NodeId) -> Option<u32> {
        if let Some(leader) = &self.leader {
            let round = self.round(now, &|_| false);
            return leader.candidates(&round, group)?.report(master)?.min_replicas;
        }
        let own = self.hosts.get(group).filter(|_| master == self.me)?;
        own.report(now.boot, &self.holder).min_replicas
    }

    fn member_status(&self, now: Now, group: &GroupId, node: NodeId) -> MemberStatus {
        let of = |r: Option<&GroupReport>, known: bool, excluded, loss| MemberStatus {
            node,
            redis: r.map_or(RedisView::Unknown, |r| r.redis.clone()),
            fenced: r.and_then(|r| r.fenced),
            serving: r.and_then(|r| r.serving),
            takeover_failure: r.and_then(|r| r.takeover_failure),
            excluded,
            loss,
            known,
        };
        if let Some(leader) = &self.leader {
            let round = self.round(now, &|_| false);
            if let Some(c) = leader.candidates(&round, group) {
                let report = c.report(node);
                return of(report, report.is_some(), c.judge(node).err(), c.loss(node));
            }
        }
        let own = (node == self.me)
            .then(|| self.hosts.get(group))
            .flatten()
            .map(|h| h.report(now.boot, &self.holder));
        of(own.as_ref(), own.is_some(), None, None)
    }
}

fn node_status(now: Now, leader: &Leader, me: NodeId) -> Vec<NodeStatus> {
    leader
        .nodes()
        .iter()
        .map(|(node, v)| NodeStatus {
            node: *node,
            heard_ago: if *node == me {
                Some(Span(0))
            } else {
                v.heard.map(|h| Span(now.boot.0.saturating_sub(h.0)))
            },
            applied: v.report.as_ref().map_or(0, |r| r.applied),
        })
        .collect()
}

/// The n of `WAIT n`: eligible and joining members, and every other replica that may be attached (invariant 4).
/// A member outside the set counts unless its Redis is known to be down: it may attach before the next probe shows it,
/// and a node that does not lead knows nothing of the others.
fn wait_replicas(
    g: &GroupModel,
    cluster: &ClusterSpec,
    spec: &GroupSpec,
    members: &[MemberStatus],
) -> usize {
    let inside = |node: NodeId| g.eligible.iter().chain(&g.joining).any(|e| e.node == node);
    let others = members.iter().filter(|m| Some(m.node) != g.master());
    let counted = others.filter(|m| match m.redis {
        RedisView::Unknown | RedisView::Up(_) | RedisView::Doubtful(..) => true,
        RedisView::Down(_) => inside(m.node),
    });
    let member_ips: Vec<_> =
        spec.members.iter().filter_map(|m| cluster.node(m.node)).map(|n| n.peer.ip()).collect();
    let strangers = attached(g, members).iter();
    let strangers = strangers.filter(|r| r.online && !member_ips.contains(&r.addr));
    counted.count() + strangers.count()
}

/// Replicas at the master, as last seen there.
fn attached<'a>(g: &GroupModel, members: &'a [MemberStatus]) -> &'a [AttachedReplica] {
    let master = members.iter().find(|m| Some(m.node) == g.master());
    master.and_then(|m| m.redis.observation()).map_or(&[], |o| &o.replicas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{RunId, node_id},
        observe::{DownReason, EligibleMember},
        testing::cluster,
    };

    fn member(node: NodeId, redis: RedisView) -> MemberStatus {
        MemberStatus {
            node,
            redis,
            fenced: None,
            serving: None,
            takeover_failure: None,
            excluded: None,
            loss: None,
            known: false,
        }
    }

    /// Found by the simulator: n was 1 at the master's node, which knew nothing of the member outside the set.
    #[test]
    fn a_member_outside_the_set_counts_unless_its_redis_is_known_to_be_down() {
        let spec = cluster();
        let eligible = vec![EligibleMember { node: node_id("b"), run_id: RunId::new("r") }];
        let model = GroupModel { eligible, ..GroupModel::default() };
        for (outside, n) in [(RedisView::Unknown, 2), (RedisView::Down(DownReason::Dead), 1)] {
            let mut members: Vec<_> =
                ["a", "b", "c"].map(|n| member(node_id(n), RedisView::Unknown)).to_vec();
            members[2].redis = outside;
            members.remove(0); // The master.
            assert_eq!(wait_replicas(&model, &spec, &spec.groups[0], &members), n);
        }
    }
}
