//! Nodes and members that join and leave: the operator who orders it one step after the other, and the hosts that come and go
//! with it.
//!
//! An order is repeated until the leader's spec shows it, as a person would who was told "not the leader". A host that joins has
//! an empty disk and says `join`; one that left is stopped some time later, or goes on for ever.

use std::collections::{BTreeMap, BTreeSet};

use redkeep_core::{
    AdminReply, AdminRequest, EventKind, GroupId, NodeId, Refusal, Span,
    admin::NodeRefusal,
    model::NodeRejection,
    spec::{ClusterSpec, Member},
    status::StatusView,
};

use crate::{
    check::majorities::Seat,
    claims,
    clock::Real,
    fault::{FaultKind, Planned, Target},
    net::Endpoint,
    redis::{Redis, Role},
    world::{
        World,
        event::{Event, Group, ProcessEvent},
        next,
    },
};

/// An operator who was not obeyed asks again after this.
const ASK_EVERY: Span = Span::from_secs(1);
/// From the healing on, or from the change before it, a change is carried out within this.
const CHANGED_WITHIN: Span = Span::from_secs(20);

/// One order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Change {
    kind: FaultKind,
    host: Endpoint,
    group: Group,
}

/// What the operator wants, and how far it is.
#[derive(Clone, Debug)]
pub(super) struct Changes {
    /// As it is to be when all is done.
    nodes: BTreeSet<Endpoint>,
    members: Vec<BTreeSet<Endpoint>>,
    orders: Vec<Change>,
    /// So many of them are committed.
    done: usize,
    done_at: Option<Real>,
    asked_at: Option<Real>,
    /// Newcomers that were seen to vote.
    voted: BTreeSet<Endpoint>,
    /// Removed, and still in Raft's membership.
    leaving: BTreeSet<Endpoint>,
    /// By host: voters and learners, as in the last line about them.
    told: BTreeMap<Endpoint, (Vec<Endpoint>, Vec<Endpoint>)>,
}

impl Changes {
    pub(super) fn new(spec: &ClusterSpec) -> Self {
        let at = |node: NodeId| spec.nodes.iter().position(|n| n.id == node);
        let members = spec.groups.iter().map(|g| &g.members);
        Self {
            nodes: (0..spec.nodes.len()).collect(),
            members: members.map(|m| m.iter().filter_map(|m| at(m.node)).collect()).collect(),
            orders: Vec::new(),
            done: 0,
            done_at: None,
            asked_at: None,
            voted: BTreeSet::new(),
            leaving: BTreeSet::new(),
            told: BTreeMap::new(),
        }
    }

    /// False for an order that makes no sense, as where a plan was cut down and the one before is missing.
    fn take(&mut self, change: Change) -> bool {
        let Change { kind, host, group } = change;
        let Some(members) = self.members.get_mut(group) else { return false };
        let was_added = self.orders.iter().any(|c| c.kind == FaultKind::AddNode && c.host == host);
        let taken = match kind {
            FaultKind::AddNode => !was_added && self.nodes.insert(host),
            FaultKind::AddMember => self.nodes.contains(&host) && members.insert(host),
            FaultKind::RemoveMember => members.len() > 1 && members.remove(&host),
            FaultKind::RemoveNode => {
                let member = self.members.iter().any(|m| m.contains(&host));
                self.nodes.len() > 3 && !member && self.nodes.remove(&host)
            }
            _ => false,
        };
        if taken {
            self.orders.push(change);
        }
        taken
    }

    fn next(&self) -> Option<Change> {
        self.orders.get(self.done).copied()
    }

    /// Since when the operator waits for something else than what was committed last.
    pub(super) fn waits_from(&self, healed: Real) -> Real {
        self.done_at.map_or(healed, |at| at.max(healed))
    }
}

// What operators do.

impl World {
    pub(super) fn is_newcomer(&self, host: Endpoint) -> bool {
        host >= self.spec.nodes.len()
    }

    /// The order counts when it is committed.
    pub(super) fn change_membership(&mut self, host: Endpoint, fault: &Planned) -> bool {
        let group = usize::try_from(fault.pick).unwrap_or(usize::MAX);
        if self.changes.take(Change { kind: fault.kind, host, group }) {
            match fault.kind {
                FaultKind::AddNode => self.set_up_node(host),
                FaultKind::AddMember => self.set_up_redis(host, group),
                _ => {}
            }
        }
        false
    }

    /// Its supervisor starts before the order or after it; now and then not until everything is healed.
    fn set_up_node(&mut self, host: Endpoint) {
        self.hosts[host].in_service = true;
        if self.dice.changes.chance(800_000) {
            let delay = Span(self.dice.changes.range(0, 2_000_000_000));
            self.after(delay, Event::Start { host });
        }
    }

    /// A new Redis, a master by its file. Where the units were not installed first, its port is open and somebody uses it.
    fn set_up_redis(&mut self, host: Endpoint, group: Group) {
        let port = self.port(group);
        let life = next(&mut self.counters.redis);
        let guarded = self.dice.changes.chance(500_000);
        let h = &mut self.hosts[host];
        let mut redis = Redis::new(life, Role::Master);
        if guarded {
            h.lock.guard(port);
            h.lock.redis_starts(port, life);
        } else {
            h.rival[group] = true;
        }
        if !h.powered {
            redis.die();
        }
        h.redis[group] = Some(redis);
        let writer = self.clients.add_local(host, group);
        self.after(Span::from_millis(1), Event::WriterTick { writer });
    }

    /// The next order is given, or given again.
    pub(super) fn operator_changes(&mut self, leader: Option<&StatusView>) {
        let Some(leader) = leader else { return };
        let Some(cluster) = &leader.cluster else { return };
        self.note_voters(leader);
        while let Some(change) = self.changes.next().filter(|c| self.is_committed(cluster, *c)) {
            self.committed(change);
        }
        let Some(change) = self.changes.next() else { return };
        let again = self.changes.asked_at.is_none_or(|at| self.now.since(at) >= ASK_EVERY);
        let Some(host) = self.host_of(leader.node).filter(|_| again) else { return };
        self.changes.asked_at = Some(self.now);
        let request = self.request_of(change);
        self.ask_for(host, request, (None, true));
    }

    fn request_of(&self, change: Change) -> AdminRequest {
        let node = self.nodes[change.host].clone();
        let (id, dry_run) = (node.id, false);
        let group = self.spec.groups[change.group].id.clone();
        match change.kind {
            FaultKind::AddNode => AdminRequest::AddNode { node, dry_run },
            FaultKind::RemoveNode => AdminRequest::RemoveNode { node: id, dry_run },
            FaultKind::AddMember => {
                let member = Member { node: id, priority: 100 };
                AdminRequest::AddMember { group, member, dry_run }
            }
            _ => AdminRequest::RemoveMember { group, node: id, dry_run },
        }
    }

    fn is_committed(&self, cluster: &ClusterSpec, change: Change) -> bool {
        let node = self.nodes[change.host].id;
        let member =
            cluster.group(&self.spec.groups[change.group].id).is_some_and(|g| g.is_member(node));
        match change.kind {
            FaultKind::AddNode => cluster.node(node).is_some(),
            FaultKind::RemoveNode => cluster.node(node).is_none(),
            FaultKind::AddMember => member,
            _ => !member,
        }
    }

    fn committed(&mut self, change: Change) {
        let Change { kind, host, group } = change;
        self.note(format_args!("{} of {host} is committed", kind.as_str()));
        self.coverage.met(kind.as_str());
        self.changes.done += 1;
        self.changes.done_at = Some(self.now);
        self.changes.asked_at = None;
        let gone = match kind {
            FaultKind::AddMember => {
                self.hosts[host].member[group] = true;
                return;
            }
            FaultKind::RemoveMember => {
                self.hosts[host].member[group] = false;
                Event::Retire { host, group: Some(group) }
            }
            FaultKind::RemoveNode => {
                self.changes.leaving.insert(host);
                Event::Retire { host, group: None }
            }
            _ => return,
        };
        if self.dice.changes.chance(700_000) {
            let delay = Span(self.dice.changes.range(0, 3_000_000_000));
            self.after(delay, gone);
        }
    }

    /// What is not needed any more is stopped for good.
    pub(super) fn retire(&mut self, host: Endpoint, group: Option<Group>) {
        if let Some(group) = group {
            self.kill_redis(host, group);
            self.hosts[host].redis[group] = None;
        } else {
            self.hosts[host].in_service = false;
            self.kill_supervisor(host, None);
        }
    }

    /// A master is not taken out: the operator switches over first.
    pub(super) fn change_answered(&mut self, reply: &AdminReply) {
        let AdminReply::Refused(Refusal::Node { why, .. }) = reply else { return };
        let NodeRefusal::Rejected(NodeRejection::Master(group)) = why else { return };
        self.coverage.met("switchover before a member leaves");
        self.switch_over(group.clone());
    }

    fn switch_over(&mut self, group: GroupId) {
        let request = AdminRequest::Switchover { group, to: None, dry_run: false };
        if let Some(leader) = self.leader() {
            self.ask(leader, request);
        }
    }
}

// What hosts know.

impl World {
    /// The configuration of a newcomer: the cluster as it is to be in the end, and whoever may lead meanwhile. Without the
    /// rule it is its membership too, and then it names nobody who leaves.
    pub(super) fn file_of(&self, host: Endpoint) -> ClusterSpec {
        let mut file = self.spec.clone();
        if !self.is_newcomer(host) {
            return file;
        }
        let mut planned = Changes::new(&self.spec);
        for fault in &self.plan.faults {
            if let (Target::Node(host), Ok(group)) = (fault.target, usize::try_from(fault.pick)) {
                planned.take(Change { kind: fault.kind, host, group });
            }
        }
        planned.nodes.insert(host);
        if !self.switches.newcomers_vote {
            planned.nodes.extend(0..self.spec.nodes.len());
        }
        file.nodes = planned.nodes.iter().map(|n| self.nodes[*n].clone()).collect();
        for (group, members) in file.groups.iter_mut().zip(&planned.members) {
            let member = |h: &Endpoint| Member { node: self.nodes[*h].id, priority: 100 };
            group.members = members.iter().map(member).collect();
        }
        file
    }

    /// Links and probes follow the spec that a supervisor has applied.
    pub(super) fn follow_spec(&mut self, host: Endpoint, spec: &ClusterSpec) {
        let node = self.hosts[host].node;
        let is_member = |id: &GroupId| spec.group(id).is_some_and(|g| g.is_member(node));
        let member: Vec<bool> = self.spec.groups.iter().map(|g| is_member(&g.id)).collect();
        let Some(p) = self.hosts[host].process.as_mut() else { return };
        p.links = spec.nodes.iter().map(|n| n.id).collect();
        p.heard_from.extend(p.links.iter().copied());
        let before = std::mem::replace(&mut p.probes, member.clone());
        for group in (0..member.len()).filter(|g| member[*g] && !before[*g]) {
            let delay = Span(self.dice.changes.range(100_000, 3_000_000));
            self.process_after(host, delay, ProcessEvent::ProbeDue { group, extra: false });
        }
    }

    /// `of` is a member of the group by the spec that the supervisor at `at` has applied. One that an operator took out may still
    /// follow by its own file: what it holds is not the group's any more.
    pub(super) fn knows_as_member(&mut self, at: Endpoint, of: Endpoint, group: Group) -> bool {
        let (node, id) = (self.hosts[of].node, self.spec.groups[group].id.clone());
        let host = &mut self.hosts[at];
        let now = host.clock.now(self.now);
        let cluster = host.process.as_mut().and_then(|p| p.core.status(now).cluster);
        cluster.is_none_or(|c| c.group(&id).is_some_and(|g| g.is_member(node)))
    }

    /// The supervisors that lead now, stopped ones included.
    fn seats(&mut self) -> Vec<Seat> {
        let mut seats = Vec::new();
        for host in &mut self.hosts {
            let now = host.clock.now(self.now);
            let Some(p) = host.process.as_mut() else { continue };
            seats.extend(seat(&p.core.status(now)));
        }
        seats
    }

    /// The instant at which `host` was elected, if it was.
    pub(super) fn met_leader(&mut self, host: Endpoint, event: &redkeep_core::Event) {
        let own = self.hosts[host].node;
        if matches!(event.kind, EventKind::LeaderChanged { leader: Some(l), .. } if l == own) {
            let seats = self.seats();
            self.check_seats(&seats);
        }
    }

    pub(super) fn check_seats(&mut self, seats: &[Seat]) {
        let hosts = &self.hosts;
        let term = |n: NodeId| hosts.iter().find(|h| h.node == n).map_or(0, |h| h.disk.term());
        if let Err(violation) = self.checks.majorities.meet(seats, term) {
            self.fail(violation);
        }
    }

    /// A line for each membership that a supervisor goes by.
    pub(super) fn tell_voters(&mut self, all: &[StatusView]) {
        for status in all.iter().filter(|_| self.plan.spares() > 0) {
            let hosts = |nodes: &[NodeId]| nodes.iter().filter_map(|n| self.host_of(*n)).collect();
            let now = (hosts(&status.voters), hosts(&status.learners));
            let Some(host) = self.host_of(status.node) else { continue };
            if self.changes.told.get(&host) != Some(&now) {
                let (voters, learners) = &now;
                let at = status.applied;
                self.trace.line(
                    self.now,
                    format_args!("{host} at {at}: voters {voters:?}, learners {learners:?}"),
                );
                self.changes.told.insert(host, now);
            }
        }
    }

    fn note_voters(&mut self, leader: &StatusView) {
        for host in self.spec.nodes.len()..self.hosts.len() {
            let votes = leader.voters.contains(&self.hosts[host].node);
            if votes && self.changes.voted.insert(host) {
                self.coverage.met(claims::NEWCOMER_VOTES);
            }
        }
        let known = |h: &Endpoint| {
            let node = self.hosts[*h].node;
            leader.voters.contains(&node) || leader.learners.contains(&node)
        };
        let gone: Vec<Endpoint> =
            self.changes.leaving.iter().copied().filter(|h| !known(h)).collect();
        for host in gone {
            self.changes.leaving.remove(&host);
            self.coverage.met(claims::TAKEN_OUT);
        }
    }
}

/// Of a supervisor that leads.
pub(super) fn seat(status: &StatusView) -> Option<Seat> {
    let leads = status.role == redkeep_consensus::Role::Leader;
    let (node, term) = (status.node, status.term);
    leads.then(|| Seat { node, term, voters: status.voters.clone() })
}

// The end.

impl World {
    /// All orders are carried out, everywhere: Raft's voters are the nodes of the spec, and nobody is left a learner.
    pub(super) fn is_changed(
        &self,
        leader: Option<&StatusView>,
        all: &[StatusView],
    ) -> Result<(), String> {
        if let Some(Change { kind, host, .. }) = self.changes.next() {
            return Err(format!("{} of host {host} is not committed", kind.as_str()));
        }
        let leader = leader.ok_or("nobody leads")?;
        let cluster = leader.cluster.as_ref().ok_or("there is no spec")?;
        let wanted: BTreeSet<NodeId> =
            self.changes.nodes.iter().map(|h| self.hosts[*h].node).collect();
        let named: BTreeSet<NodeId> = cluster.nodes.iter().map(|n| n.id).collect();
        if named != wanted {
            return Err(format!("the spec names {named:?} and not {wanted:?}"));
        }
        for node in &wanted {
            let status = all.iter().find(|s| s.node == *node);
            let status = status.ok_or_else(|| format!("{node} does not run"))?;
            let voters: BTreeSet<NodeId> = status.voters.iter().copied().collect();
            if voters != wanted || !status.learners.is_empty() {
                let learners = &status.learners;
                return Err(format!("at {node} voters are {voters:?}, learners {learners:?}"));
            }
            if status.cluster.as_ref() != Some(cluster) {
                return Err(format!("{node} has not applied the leader's spec"));
            }
        }
        Ok(())
    }

    /// False while something of it is left to do.
    pub(super) fn look_at_changes(
        &mut self,
        since: Span,
        leader: Option<&StatusView>,
        all: &[StatusView],
    ) -> bool {
        if self.plan.spares() == 0 {
            return true;
        }
        let verdict = self.is_changed(leader, all);
        let done = verdict.is_ok();
        if let Err(what) = verdict
            && since > CHANGED_WITHIN
        {
            self.fail(crate::check::Violation::NotChanged { since, what });
        }
        done
    }
}
