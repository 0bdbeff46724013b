//! What exists only while this node leads: views of the others, grants, plans, and operators' requests under way.
//!
//! Dropped as a whole when leadership ends, so nothing of it can be used by a deposed leader. What it proposes is judged
//! again at apply. Planning comes before granting (L6).

mod grants;
mod links;
mod mass;
mod view;
mod waiters;

use std::collections::BTreeMap;

use redkeep_consensus::{Mono, NodeId, Span};

use crate::{
    admin::{AdminReply, Refusal},
    command::{Body, Cause},
    core::reach::Reaches,
    ids::{GroupId, Now, RequestId},
    lease::{Grantor, grantor::InFlight},
    message::PeerMessage,
    model::{Applied, GroupModel, Model},
    mutations::Mutations,
    observe::Report,
    plan::{
        Candidates, Forced, HoldReason, Plan, PlanInput,
        eligible::{EligibleChange, JoinMark, JoinMarks},
        plan, unreached,
    },
    recent::Recent,
    spec::{ClusterSpec, Timing},
};

use links::Links;

pub(crate) use links::DeadLink;
pub(crate) use view::NodeView;
pub(crate) use waiters::{Order, Waiter};

/// A fence request is repeated after this, as long as it is not answered.
const ASK_AGAIN: Span = Span(20_000_000);

/// A proposal of this leader that has not met its fate.
#[derive(Clone, Copy, Debug)]
struct Pending {
    index: u64,
}

#[derive(Debug, Default)]
struct GroupLead {
    pending: Option<Pending>,
    forced: Option<Forced>,
    asked_fence: Option<Mono>,
    assigned_at: Mono,
    switchover_since: Option<Mono>,
    /// Since when the master's node says that it serves and finds its Redis well.
    well_since: Option<Mono>,
    /// Since when the master says that it has no keys.
    empty_since: Option<Mono>,
    /// One of the groups that fail at once, at the last look.
    counts: bool,
    /// An operator has acknowledged the failure that there is.
    acknowledged: bool,
    marks: JoinMarks,
    /// Log index of the last applied `Eligible`.
    eligible_index: u64,
    hold: Option<HoldReason>,
}

/// What the leader wants done by the core that owns it.
#[derive(Debug)]
pub(crate) enum LeaderWish {
    /// Propose; tell the outcome with `proposed`.
    Propose {
        group: GroupId,
        body: Body,
        is_assign: bool,
    },
    Send {
        to: NodeId,
        message: PeerMessage,
    },
    Reply {
        id: RequestId,
        reply: AdminReply,
    },
}

/// What leadership began with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elected {
    pub(crate) term: u64,
    /// Last index of the own log at that moment.
    pub(crate) last_index: u64,
}

#[derive(Debug)]
pub(crate) struct Leader {
    me: NodeId,
    term: u64,
    since: Mono,
    /// When groups were last planned.
    planned: Mono,
    /// Since when this leader has not stood still. What it waited for before, it did not listen to.
    awake_since: Mono,
    /// The last log index at the election: no earlier set can still be unknown to a node that applied it.
    elected_index: u64,
    pub(crate) grantor: Grantor,
    nodes: BTreeMap<NodeId, NodeView>,
    groups: BTreeMap<GroupId, GroupLead>,
    waiters: Vec<Waiter>,
    orders: Vec<Order>,
    pub(crate) reaches: Reaches,
    links: Links,
    /// How many groups fail at once, but for those that were acknowledged; 0 without a limit.
    failing: usize,
    mutations: Mutations,
}

/// What is common to all groups of one planning round.
pub(crate) struct Round<'a> {
    pub(crate) now: Now,
    pub(crate) model: &'a Model,
    pub(crate) cluster: &'a ClusterSpec,
    /// Groups that are paused now.
    pub(crate) paused: &'a dyn Fn(&GroupId) -> bool,
    pub(crate) recent: &'a Recent,
    pub(crate) applied: u64,
}

impl Leader {
    pub(crate) fn new(
        me: NodeId,
        elected: Elected,
        now: Now,
        timing: Timing,
        mutations: Mutations,
    ) -> Self {
        Self {
            me,
            term: elected.term,
            since: now.boot,
            planned: now.boot,
            awake_since: now.boot,
            elected_index: elected.last_index,
            grantor: Grantor::new(now.raw, timing, mutations),
            nodes: BTreeMap::new(),
            groups: BTreeMap::new(),
            waiters: Vec::new(),
            orders: Vec::new(),
            reaches: Reaches::default(),
            links: Links::default(),
            failing: 0,
            mutations,
        }
    }

    pub(crate) fn is_term(&self, term: u64) -> bool {
        self.term == term
    }

    pub(crate) fn since(&self) -> Mono {
        self.since
    }

    /// When a node was last heard; who was never heard counts from when this node began to lead.
    pub(crate) fn heard_at(&self, node: NodeId) -> Mono {
        let heard = self.nodes().get(&node).and_then(|n| n.heard);
        heard.unwrap_or_default().max(self.since)
    }

    /// What was assigned before this node led, or while it stood still, counts from when it began to listen.
    fn assigned_at(&self, lead: &GroupLead) -> Mono {
        lead.assigned_at.max(self.awake_since)
    }

    pub(crate) fn heard(&mut self, now: Mono, from: NodeId, silent_after: Span) {
        self.nodes.entry(from).or_default().hear(now, silent_after);
    }

    pub(crate) fn reported(&mut self, now: Mono, from: NodeId, report: Report, model: &Model) {
        let applied = report.applied;
        let masters: Vec<(GroupId, u64)> = report
            .groups
            .iter()
            .filter(|g| model.group(&g.group).and_then(GroupModel::master) == Some(from))
            .filter_map(|g| g.redis.observation().map(|o| (g.group.clone(), o.offset)))
            .collect();
        if !self.nodes.entry(from).or_default().take(now, report) {
            return;
        }
        for (group, offset) in masters {
            self.note_join_marks(&group, applied, JoinMark { offset, at: now }, model);
        }
    }

    /// The master's offset, read after its node applied the set in which a newcomer is joining, is what the newcomer must pass.
    fn note_join_marks(&mut self, group: &GroupId, applied: u64, mark: JoinMark, model: &Model) {
        let Some(g) = model.group(group) else { return };
        let lead = self.groups.entry(group.clone()).or_default();
        lead.marks.retain(|m, _| g.joining.contains(m));
        if applied < lead.eligible_index.max(self.elected_index) {
            return;
        }
        for m in &g.joining {
            lead.marks.entry(m.clone()).or_insert(mark);
        }
    }

    pub(crate) fn nodes(&self) -> &BTreeMap<NodeId, NodeView> {
        &self.nodes
    }

    pub(crate) fn hold(&self, group: &GroupId) -> Option<HoldReason> {
        self.groups.get(group).and_then(|g| g.hold.clone())
    }

    /// How candidates of `group` are judged now.
    pub(crate) fn candidates<'a>(
        &'a self,
        round: &Round<'a>,
        group: &GroupId,
    ) -> Option<Candidates<'a>> {
        Some(Candidates {
            group: round.model.group(group)?,
            spec: round.cluster.group(group)?,
            nodes: &self.nodes,
            now_boot: round.now.boot,
            silent_after: round.cluster.timing.silent_after(),
            old_master: false,
            allow_data_loss: false,
            ignore_eligible: self.mutations.ignore_eligible(),
        })
    }

    /// Plan every group once. Wishes are carried out by the caller, in order.
    pub(crate) fn plan_all(&mut self, round: &Round<'_>) -> Vec<LeaderWish> {
        let groups: Vec<GroupId> = round.model.groups.keys().cloned().collect();
        let mut wishes = Vec::new();
        let now = round.now.boot;
        if now.since(self.planned) > round.cluster.timing.silent_after() {
            self.awake_since = now;
        }
        self.planned = now;
        self.note_well(round);
        self.count_failing(round);
        for id in &groups {
            self.plan_group(round, id, &mut wishes);
        }
        wishes
    }

    /// Before any group is judged. A master that is silent, lapsed or doubtful begins anew, and so does an empty one that is not heard.
    fn note_well(&mut self, round: &Round<'_>) {
        for id in round.model.groups.keys() {
            let leased = self.grantor.wait_left(round.now.raw, id) > Span(0);
            let c = self.candidates(round, id);
            let is_well = |c: &Candidates<'_>| {
                c.group.assignment.as_ref().is_some_and(|a| unreached::is_well(c, a))
            };
            let well = leased && c.as_ref().is_some_and(is_well);
            let empty = c.is_some_and(|c| c.has_empty_master());
            let lead = self.groups.entry(id.clone()).or_default();
            lead.well_since = well.then(|| lead.well_since.unwrap_or(round.now.boot));
            lead.empty_since = empty.then(|| lead.empty_since.unwrap_or(round.now.boot));
        }
    }

    fn plan_group(&mut self, round: &Round<'_>, id: &GroupId, wishes: &mut Vec<LeaderWish>) {
        let in_flight = self.grantor.in_flight(round.now.raw, id);
        let lease_left = self.grantor.wait_left(round.now.raw, id);
        let lead = self.groups.entry(id.clone()).or_default();
        let undecided = matches!(in_flight, Some(InFlight::Proposed { .. }))
            && !self.mutations.ignore_in_flight();
        if lead.pending.is_some() || undecided {
            lead.hold = Some(HoldReason::InFlight);
            return;
        }
        let decision = self.decide(round, id, lease_left, in_flight.is_some());
        let lead = self.groups.entry(id.clone()).or_default();
        lead.hold = None;
        match decision {
            Plan::Nothing => {}
            Plan::Hold(reason) => lead.hold = Some(reason),
            Plan::Assign(assign) => {
                self.grantor.begin(round.now.raw, id, InFlight::Deciding);
                wishes.push(LeaderWish::Propose {
                    group: id.clone(),
                    body: Body::Assign(assign),
                    is_assign: true,
                });
            }
            Plan::AskFence(reason) => {
                let unreached = matches!(reason, HoldReason::FencingUnreached { .. });
                lead.hold = Some(reason);
                self.ask_fence(round, id, unreached, wishes);
            }
            Plan::Serving(epoch) => {
                let body = Body::Serving { group: id.clone(), epoch };
                wishes.push(LeaderWish::Propose { group: id.clone(), body, is_assign: false });
            }
            Plan::Eligible(epoch, change) => {
                let EligibleChange { members, joining, has_data } = change;
                let body = Body::Eligible { group: id.clone(), epoch, members, joining, has_data };
                wishes.push(LeaderWish::Propose { group: id.clone(), body, is_assign: false });
            }
            Plan::SwitchoverAbort(epoch, reason) => {
                let body = Body::SwitchoverAbort { group: id.clone(), epoch, reason };
                wishes.push(LeaderWish::Propose { group: id.clone(), body, is_assign: false });
            }
        }
    }

    fn decide(&self, round: &Round<'_>, id: &GroupId, lease_left: Span, deciding: bool) -> Plan {
        let (Some(candidates), Some(lead)) = (self.candidates(round, id), self.groups.get(id))
        else {
            return Plan::Nothing;
        };
        let cooldown = round.cluster.timing.failover_cooldown;
        plan(&PlanInput {
            cluster: round.cluster,
            candidates,
            now_boot: round.now.boot,
            lease_left,
            deciding,
            paused: (round.paused)(id),
            cooldown_left: round.recent.cooldown_left(round.now.boot, id, cooldown),
            mass_failure: self.mass_failure(round, id),
            forced: lead.forced.as_ref(),
            marks: &lead.marks,
            well_for: match lead.well_since {
                Some(_) if self.mutations.unreached_at_once() => Span(u64::MAX),
                since => since.map_or(Span(0), |at| round.now.boot.since(at)),
            },
            empty_for: lead.empty_since.map_or(Span(0), |at| round.now.boot.since(at)),
            assigned_at: self.assigned_at(lead),
            switchover_since: lead.switchover_since.unwrap_or(self.since),
        })
    }

    /// From here on no grant leaves for this group, whether the request is answered or not (L3).
    fn ask_fence(
        &mut self,
        round: &Round<'_>,
        id: &GroupId,
        unreached: bool,
        wishes: &mut Vec<LeaderWish>,
    ) {
        if self.grantor.in_flight(round.now.raw, id).is_none() {
            self.grantor.begin(round.now.raw, id, InFlight::Deciding);
        }
        let Some(lead) = self.groups.get_mut(id) else { return };
        let Some(a) = round.model.group(id).and_then(|g| g.assignment.as_ref()) else { return };
        let recent = lead.asked_fence.is_some_and(|at| round.now.boot.0 < at.0 + ASK_AGAIN.0);
        if !recent {
            lead.asked_fence = Some(round.now.boot);
            let (group, epoch) = (id.clone(), a.epoch);
            let message = PeerMessage::FenceRequest { group, epoch, unreached };
            wishes.push(LeaderWish::Send { to: a.master, message });
        }
    }

    /// What became of a wish to propose. A refused assignment stays a decision: no grants (L3).
    pub(crate) fn proposed(
        &mut self,
        now: Now,
        group: &GroupId,
        is_assign: bool,
        index: Option<u64>,
    ) {
        let Some(index) = index else {
            self.groups.entry(group.clone()).or_default().hold =
                Some(HoldReason::LeadershipTransfer);
            return;
        };
        if is_assign {
            self.grantor.begin(now.raw, group, InFlight::Proposed { index });
        }
        self.groups.entry(group.clone()).or_default().pending = Some(Pending { index });
    }

    /// An entry was applied, of whatever term.
    pub(crate) fn applied(
        &mut self,
        round: &Round<'_>,
        index: u64,
        applied: &Applied,
    ) -> Vec<LeaderWish> {
        self.grantor.applied(index);
        for lead in self.groups.values_mut() {
            if lead.pending.is_some_and(|p| p.index <= index) {
                lead.pending = None;
            }
        }
        match applied {
            Applied::Assigned(group) => self.assigned(round, group),
            Applied::Serving(group) => self.served(round, group),
            Applied::Eligible(group) => {
                let lead = self.groups.entry(group.clone()).or_default();
                lead.eligible_index = index;
                Vec::new()
            }
            Applied::Switchover(group) => {
                let lead = self.groups.entry(group.clone()).or_default();
                lead.switchover_since = Some(round.now.boot);
                Vec::new()
            }
            Applied::SwitchoverAborted(group) => {
                self.groups.entry(group.clone()).or_default().switchover_since = None;
                let text = "the switchover took too long; the old master goes on".to_owned();
                self.answer(group, |_| true, &AdminReply::Refused(Refusal::Aborted(text)))
            }
            Applied::Acknowledged(group) => {
                self.acknowledged(round, group.as_ref());
                Vec::new()
            }
            Applied::Nothing | Applied::Spec | Applied::Pause(_) | Applied::Rejected(_) => {
                Vec::new()
            }
        }
    }

    fn assigned(&mut self, round: &Round<'_>, group: &GroupId) -> Vec<LeaderWish> {
        let assignment = round.model.group(group).and_then(|g| g.assignment.as_ref());
        if let Some(a) = assignment {
            self.grantor.assigned(round.now.raw, group, a.master);
        }
        let cause = assignment.map(|a| a.cause);
        let lead = self.groups.entry(group.clone()).or_default();
        lead.assigned_at = round.now.boot;
        lead.well_since = None;
        lead.switchover_since = None;
        lead.asked_fence = None;
        lead.marks.clear();
        lead.forced = None;
        if cause == Some(Cause::SwitchoverBack) {
            let text =
                "the target did not confirm the final offset; the old master goes on".to_owned();
            return self.answer(group, |_| true, &AdminReply::Refused(Refusal::Aborted(text)));
        }
        Vec::new()
    }

    /// Earliest instant (CLOCK_BOOTTIME) at which planning may come out differently by time alone.
    pub(crate) fn deadline(&mut self, now: Now) -> Option<Mono> {
        let groups: Vec<GroupId> = self.groups.keys().cloned().collect();
        let leases = groups
            .iter()
            .map(|g| self.grantor.wait_left(now.raw, g))
            .filter(|l| *l > Span(0))
            .min();
        let lease = leases.map(|l| Mono(now.boot.0 + l.0));
        let asks = self
            .groups
            .values()
            .filter_map(|g| g.asked_fence)
            .map(|at| Mono(at.0 + ASK_AGAIN.0))
            .filter(|at| *at > now.boot)
            .min();
        let waiters = self.waiters.iter().map(|w| w.deadline).min();
        [lease, asks, waiters].into_iter().flatten().min()
    }
}
