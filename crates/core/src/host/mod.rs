//! What one group should look like on this host, derived from the log, and the steps that bring it there.
//!
//! Level-triggered: [`HostGroup::reconcile`] runs after every input, compares, and emits what is missing. Owned by the core.
//! Invariants: nothing is opened without a grant at the assigned epoch; the replica element is out before a promotion; a fence
//! is reported only after the kernel acknowledged and, unless its Redis is dead, the epoch is burned; replicas follow only a master that serves.

mod broken;
mod departure;
mod durable;
mod fence;
mod lag;
mod planned;
mod quarantine;
mod replica;
mod start;
mod takeover;

#[cfg(test)]
mod tests;

use redkeep_consensus::{Mono, NodeId, Span};

use crate::{
    detect::Detector,
    effect::{ActionId, ActionOutcome, Effect, EventKind, LockEvent, LockOp},
    ids::{Epoch, GroupId, Now, RunId},
    input::HostEvent,
    lease::{Holder, holder::lock_item},
    message::RenewGroup,
    model::{Assignment, GroupModel, Model},
    mutations::Mutations,
    observe::{
        Bypass, FenceCause, GroupReport, Led, ProbeFailure, RedisObservation, RedisView,
        TakeoverFailure,
    },
    plan::history::continues,
    sink::Sink,
    spec::{ClusterSpec, GroupSpec},
};

use broken::Broken;
use departure::Departure;
use durable::Told;
use fence::Fence;
use lag::Lag;
use planned::Planned;
use quarantine::Quarantine;
use replica::ReplicaSide;
use takeover::Takeover;

/// A failed step is tried again after this.
const RETRY: Span = Span(20_000_000);

/// A master that is seen as a replica so often in a row is none: one look may be older than the promotion.
const WRONG_ROLE_LOOKS: u32 = 2;

/// What the parts of a group's machine work with.
pub(crate) struct Cx<'a> {
    pub(crate) now: Now,
    pub(crate) cluster: &'a ClusterSpec,
    pub(crate) model: &'a Model,
    pub(crate) holder: &'a mut Holder,
    pub(crate) sink: &'a mut Sink,
    pub(crate) mutations: Mutations,
}

/// State of one idempotent step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Work {
    #[default]
    Idle,
    Running(ActionId),
    /// Handed to the lock, which answers by group.
    Locking,
    Done,
    RetryAt(Mono),
}

impl Work {
    fn due(self, now: Mono) -> bool {
        match self {
            Self::Idle => true,
            Self::RetryAt(at) => now >= at,
            Self::Running(_) | Self::Locking | Self::Done => false,
        }
    }

    fn settle(&mut self, now: Mono, outcome: &ActionOutcome) -> bool {
        let done = !matches!(outcome, ActionOutcome::Failed(_) | ActionOutcome::NotMaster);
        *self = if done { Self::Done } else { Self::RetryAt(Mono(now.0 + RETRY.0)) };
        done
    }

    fn deadline(self) -> Option<Mono> {
        match self {
            Self::RetryAt(at) => Some(at),
            Self::Idle | Self::Running(_) | Self::Locking | Self::Done => None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct HostGroup {
    me: NodeId,
    spec: GroupSpec,
    detector: Detector,
    burned: Epoch,
    fence: Option<Fence>,
    takeover: Option<Takeover>,
    replica: ReplicaSide,
    quarantine: Quarantine,
    planned: Option<Planned>,
    departure: Option<Departure>,
    /// The removal of an address that was up, until it is done.
    removing: Option<ActionId>,
    guarded: bool,
    /// Gates and VIP of an earlier tenure (or life of the supervisor) have been taken back.
    released: bool,
    wrong_role: u32,
    /// Where the data stood when Redis was last seen to serve.
    led: Option<Led>,
    /// The life whose start was admitted, or is being.
    admitted: Option<RunId>,
    lag: Lag,
    /// How many replicas Redis was told to want.
    told: Told,
    /// The table was lost, and nothing has been answered by the lock since.
    lock_is_lost: bool,
    broken: Broken,
    /// Ways around the lock that were told.
    open_around: Vec<Bypass>,
}

impl HostGroup {
    pub(crate) fn new(me: NodeId, spec: GroupSpec, burned: Epoch, at_start: AtStart) -> Self {
        Self {
            me,
            detector: Detector::new(spec.probe),
            spec,
            burned,
            fence: None,
            takeover: None,
            replica: ReplicaSide::new(at_start.replica),
            quarantine: Quarantine::default(),
            planned: None,
            departure: None,
            removing: None,
            guarded: at_start.guarded,
            released: false,
            wrong_role: 0,
            led: None,
            admitted: None,
            lag: Lag::new(at_start.open),
            told: Told::default(),
            lock_is_lost: false,
            broken: Broken::default(),
            open_around: Vec::new(),
        }
    }

    fn id(&self) -> &GroupId {
        &self.spec.id
    }

    fn model<'a>(&self, cx: &Cx<'a>) -> Option<&'a GroupModel> {
        cx.model.group(&self.spec.id)
    }

    /// Bring the host nearer to what the log says. Until the model `may_act`, only closing is safe.
    pub(crate) fn reconcile(&mut self, cx: &mut Cx<'_>, may_act: bool) {
        let Some(group) = self.model(cx) else { return };
        let Some(a) = &group.assignment else { return };
        self.guard(cx, a);
        self.note_master(a);
        if !may_act {
            return;
        }
        if a.master == self.me {
            self.released = false;
            self.as_master(cx, group, a);
        } else {
            self.release(cx, a);
            self.as_replica(cx, a);
        }
        self.depart(cx, a);
    }

    /// Once a master was ever assigned the port is closed unless granted; a pair that is being adopted stays as it is until
    /// its first grant, or its first replica element, guards it in the same batch.
    fn guard(&mut self, cx: &mut Cx<'_>, a: &Assignment) {
        let adopting = a.is_adopting();
        let replica_known = matches!(self.detector.view(), RedisView::Up(o) if !o.is_master());
        let by_permit = adopting && a.master != self.me && replica_known;
        let by_open = adopting && a.master == self.me;
        if self.guarded || by_permit || by_open {
            return;
        }
        self.guarded = true;
        cx.sink.lock(LockOp::Guard { item: lock_item(&self.spec, 0) });
    }

    fn as_master(&mut self, cx: &mut Cx<'_>, group: &GroupModel, a: &Assignment) {
        if self.fence.as_ref().is_some_and(|f| f.epoch() != a.epoch) {
            self.fence = None;
        }
        if self.fence.is_none()
            && let Some(cause) = self.must_fence(cx, a)
        {
            self.start_fence(cx, a.epoch, cause, None);
        }
        if self.fence.is_some() {
            self.drive_fence(cx);
            return;
        }
        if !self.is_life(cx, a) || self.broken.is {
            return;
        }
        self.drive_planned(cx, group, a);
        self.drive_takeover(cx, group, a);
    }

    /// Why this node can never serve at this epoch (again).
    fn must_fence(&self, cx: &Cx<'_>, a: &Assignment) -> Option<FenceCause> {
        if self.burned >= a.epoch {
            return Some(FenceCause::Stopping);
        }
        match self.detector.life() {
            Some(life) if *life != a.run_id && !cx.mutations.ignore_run_id() => {
                Some(FenceCause::RunIdChanged)
            }
            None if matches!(
                self.detector.view(),
                RedisView::Down(crate::observe::DownReason::Dead)
            ) =>
            {
                Some(FenceCause::RedisDead)
            }
            Some(_) | None => {
                (self.wrong_role >= WRONG_ROLE_LOOKS).then_some(FenceCause::WrongRole)
            }
        }
    }

    fn is_life(&self, cx: &Cx<'_>, a: &Assignment) -> bool {
        self.detector.life().is_some_and(|life| *life == a.run_id || cx.mutations.ignore_run_id())
    }

    /// What to ask a lease for, if for anything.
    pub(crate) fn claim(&mut self, cx: &Cx<'_>) -> Option<(GroupSpec, RenewGroup)> {
        let group = self.model(cx)?;
        let a = group.assignment.as_ref()?;
        let may = a.master == self.me
            && a.epoch > self.burned
            && self.fence.is_none()
            && !self.broken.is
            && self.is_life(cx, a);
        if !may {
            return None;
        }
        let lagging = self.lagging(cx, group);
        Some((
            self.spec.clone(),
            RenewGroup { group: self.spec.id.clone(), epoch: a.epoch, lagging },
        ))
    }

    /// True while a takeover waits for its first grant: the renewal is then not put off.
    pub(crate) fn is_urgent(&self, cx: &Cx<'_>) -> bool {
        let epoch = self.model(cx).map(GroupModel::epoch);
        let open = self
            .takeover
            .as_ref()
            .filter(|t| Some(t.epoch) == epoch)
            .is_some_and(Takeover::is_open);
        !open && !epoch.is_some_and(|e| cx.holder.has_grant(cx.now.boot, self.id(), e))
    }

    /// May the gate be opened for this epoch now?
    pub(crate) fn may_open(&self, epoch: Epoch) -> bool {
        self.fence.is_none()
            && self.takeover.as_ref().is_some_and(|t| {
                t.epoch == epoch && t.is_promoted() && (t.is_open() || self.told.is_enough())
            })
    }

    pub(crate) fn observed(
        &mut self,
        cx: &mut Cx<'_>,
        asked: Mono,
        result: Result<RedisObservation, ProbeFailure>,
    ) {
        let before = view_name(self.detector.view());
        match result {
            Ok(o) => {
                self.admit(cx, &o.run_id);
                self.note_role(cx, &o);
                self.note_led(cx, &o);
                self.replica.observed(&o);
                self.shut_writable(cx, &o);
                self.quarantine.sees(&o.run_id);
                self.tell_bypass(cx, &o.bypass);
                self.detector.observed(asked, o);
            }
            Err(failure) => self.detector.failed(asked, failure),
        }
        self.tell_change(cx, before);
    }

    /// A master that is seen as a replica. Where only the log says that this life served, since the supervisor started anew, one look
    /// is enough: nothing but an order by hand made it that, and it must not be made a master again with what it copied.
    fn note_role(&mut self, cx: &Cx<'_>, o: &RedisObservation) {
        let serving = self.takeover.as_ref().is_some_and(|t| t.serving);
        let assigned = self.model(cx).and_then(|g| g.assignment.as_ref());
        let served =
            assigned.is_some_and(|a| a.was_master() && a.master == self.me && a.run_id == o.run_id);
        self.wrong_role = match (o.is_master(), serving) {
            (false, true) => self.wrong_role + 1,
            (false, false) if served && !cx.mutations.promote_blindly() => WRONG_ROLE_LOOKS,
            (true | false, _) => 0,
        };
    }

    /// What serves goes on from what it was. If it does not, somebody put other data there: no second look is waited for, since
    /// its replicas would copy them.
    fn note_led(&mut self, cx: &Cx<'_>, o: &RedisObservation) {
        let Some(a) = self.model(cx).and_then(|g| g.assignment.as_ref()) else { return };
        let serving = self.takeover.as_ref().is_some_and(|t| t.serving && t.epoch == a.epoch);
        if !serving || a.master != self.me || a.run_id != o.run_id {
            return;
        }
        match &self.led {
            Some(led) if led.epoch >= a.since && !continues(o, &led.data) => {
                self.wrong_role = WRONG_ROLE_LOOKS;
            }
            Some(_) | None if o.is_master() => {
                self.led = Some(Led { epoch: a.epoch, data: o.lineage() });
            }
            Some(_) | None => {}
        }
    }

    fn tell_change(&self, cx: &mut Cx<'_>, before: &'static str) {
        if view_name(self.detector.view()) == before {
            return;
        }
        let kind = match self.detector.view() {
            RedisView::Up(o) => EventKind::RedisUp {
                run_id: o.run_id.to_string(),
                role: if o.is_master() { "master" } else { "replica" },
            },
            RedisView::Down(reason) => EventKind::RedisDown { reason: format!("{reason:?}") },
            RedisView::Unknown | RedisView::Doubtful(..) => return,
        };
        self.tell(cx, kind);
    }

    /// Once for each change.
    fn tell_bypass(&mut self, cx: &mut Cx<'_>, open: &[Bypass]) {
        if self.open_around == open {
            return;
        }
        self.open_around = open.to_vec();
        let kind = if open.is_empty() {
            EventKind::BypassClosed
        } else {
            EventKind::Bypass { text: Bypass::tell(open) }
        };
        self.tell(cx, kind);
    }

    pub(crate) fn died(&mut self, cx: &mut Cx<'_>, life: Option<&RunId>) {
        let before = view_name(self.detector.view());
        if self.detector.died(life) {
            self.replica.redis_died();
            self.broken.redis_died();
            self.told = Told::default();
            self.quarantine.redis_died();
            if self.guarded {
                // What starts next may be a master by its file, or empty.
                self.forbid_replica(cx);
            }
            self.tell_change(cx, before);
        }
    }

    /// The leader asks for a fence: obeyed only for the epoch that is served here.
    pub(crate) fn fence_requested(&mut self, cx: &mut Cx<'_>, epoch: Epoch, unreached: bool) {
        let Some(a) = self.model(cx).and_then(|g| g.assignment.as_ref()) else { return };
        if a.master == self.me && a.epoch == epoch && self.fence.is_none() && epoch > self.burned {
            let served = self.takeover.as_ref().is_some_and(|t| t.serving);
            let cause = match served {
                true if unreached => FenceCause::Unreached,
                true => FenceCause::LeaderAsked,
                false => FenceCause::TakeoverFailed,
            };
            self.start_fence(cx, epoch, cause, None);
        }
    }

    pub(crate) fn lock_event(&mut self, cx: &mut Cx<'_>, event: &LockEvent) {
        if self.lock_is_lost && event.is_ok() {
            self.lock_is_lost = false;
            self.tell(cx, EventKind::LockRestored);
        }
        match event {
            LockEvent::Opened { ok: true, .. } => self.gate_opened(cx),
            LockEvent::Closed { ok, .. } => self.gate_closed(cx, *ok),
            LockEvent::ReplicaForbidden { ok, .. } => self.replica_forbidden(cx, *ok),
            LockEvent::Guarded { ok: false, .. } => self.guarded = false,
            LockEvent::ReplicaPermitted { ok, .. } => self.guarded |= *ok,
            LockEvent::Admitted { run_id, ok, .. } => self.admit_answered(run_id, *ok),
            LockEvent::Opened { ok: false, .. }
            | LockEvent::Guarded { ok: true, .. }
            | LockEvent::Restored { .. }
            | LockEvent::Armed { .. } => {}
        }
    }

    pub(crate) fn action_done(&mut self, cx: &mut Cx<'_>, id: ActionId, outcome: &ActionOutcome) {
        if let ActionOutcome::Failed(f) = outcome
            && !self.quarantine.waits_for(id)
        {
            self.tell(cx, EventKind::ActionFailed { action: "action", text: f.text.clone() });
        }
        if let ActionOutcome::Rival(who) = outcome {
            self.tell(cx, EventKind::VipRival { who: who.clone() });
        }
        self.planned_action_done(cx, id, outcome);
        self.broken.action_done(id);
        self.address_removed(cx, id, outcome);
        self.told.answered(cx.now.boot, id, outcome);
        self.fence_action_done(cx, id, outcome);
        self.takeover_action_done(cx, id, outcome);
        self.replica_action_done(cx, id, outcome);
        self.quarantine_action_done(cx, id, outcome);
    }

    pub(crate) fn burned(&mut self, epoch: Epoch) {
        self.burned = self.burned.max(epoch);
        if let Some(f) = self.fence.as_mut() {
            f.burned(epoch);
        }
    }

    pub(crate) fn host_event(&mut self, cx: &mut Cx<'_>, event: &HostEvent) {
        match event {
            HostEvent::VipRemoved { .. } => self.vip_removed(cx),
            HostEvent::LinkUp { interface } if *interface == self.spec.interface => {
                self.announce_again(cx);
            }
            HostEvent::LockLost => self.lock_lost(cx),
            HostEvent::VipPresent { .. } => self.vip_present(cx),
            HostEvent::LinkUp { .. } | HostEvent::LockBroken => {}
        }
    }

    /// The table is back: what was guarded is closed, and what was open has to be granted again. What was never guarded
    /// is not in it.
    fn lock_lost(&mut self, cx: &mut Cx<'_>) {
        self.lock_is_lost = true;
        self.broken = Broken::default();
        self.replica.lock_lost();
        if let Some(t) = self.takeover.as_mut() {
            t.lock_lost();
        }
        self.tell(cx, EventKind::LockLost);
    }

    pub(crate) fn report(&self, now: Mono, holder: &Holder) -> GroupReport {
        let open = holder.is_open(now, self.id());
        let serving = self.takeover.as_ref().filter(|t| t.serving && open).map(|t| t.epoch);
        GroupReport {
            group: self.spec.id.clone(),
            redis: self.detector.told(now),
            fenced: self.fence.as_ref().and_then(Fence::fenced),
            serving,
            takeover_failure: match self.broken.is {
                true => Some(TakeoverFailure::Lock),
                false => self.takeover.as_ref().and_then(|t| t.failure),
            },
            min_replicas: self.takeover.as_ref().and_then(|_| self.told.in_force()),
            led: self.led.clone(),
        }
    }

    pub(crate) fn deadline(&self, holder: &Holder) -> Option<Mono> {
        let lapse = self
            .takeover
            .as_ref()
            .filter(|t| t.is_open())
            .and_then(|_| holder.open_until(self.id()));
        let steps = self.takeover.as_ref().and_then(Takeover::deadline);
        let fence = self.fence.as_ref().and_then(Fence::deadline);
        let departure = self.departure.map(|d| d.deadline());
        let told = self.takeover.as_ref().and_then(|_| self.told.deadline());
        let others = [told, self.replica.deadline(), self.quarantine.deadline()];
        [lapse, steps, fence, departure].into_iter().chain(others).flatten().min()
    }

    fn tell(&self, cx: &mut Cx<'_>, kind: EventKind) {
        let a = self.model(cx).and_then(|g| g.assignment.as_ref());
        let (epoch, index) = a.map_or((Epoch::NONE, 0), |a| (a.epoch, a.index));
        cx.sink.event(&self.spec.id, epoch, index, kind);
    }

    fn probe_now(&self, cx: &mut Cx<'_>) {
        cx.sink.push(Effect::ProbeNow { group: self.spec.id.clone() });
    }
}

/// What the kernel held for this group when the supervisor started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtStart {
    pub(crate) guarded: bool,
    pub(crate) replica: bool,
    /// A lease was open.
    pub(crate) open: bool,
}

fn view_name(view: &RedisView) -> &'static str {
    match view {
        RedisView::Unknown => "unknown",
        RedisView::Up(o) if o.is_master() => "master",
        RedisView::Up(_) => "replica",
        RedisView::Doubtful(..) => "doubtful",
        RedisView::Down(_) => "down",
    }
}
