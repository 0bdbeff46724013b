//! The holder's side of the lease: which generation is armed, what was asked, what was granted.
//!
//! Owned by the core of the node that wants the leases; one request carries all its groups. The kernel holds the
//! deadline; this is only the bookkeeping that keeps L1 (arm, ask, open by id), L6 (name the last grant) and L7
//! (which generation, and not while a young request is out). Deliberately absent: any fencing decision.

use std::collections::{BTreeMap, BTreeSet};

use redkeep_consensus::{Mono, Span};

use crate::{
    effect::{LockItem, LockOp},
    ids::{ArmId, Epoch, Generation, GroupId},
    message::{Grant, Renew, RenewGroup},
    mutations::Mutations,
    rng::Rng,
    spec::{GroupSpec, Timing},
};

/// By this part of their interval renewals may be early.
const ALONG: u64 = 16;

/// A group this node may arm for.
#[derive(Clone, Debug)]
pub struct Claim {
    pub spec: GroupSpec,
    pub request: RenewGroup,
}

#[derive(Clone, Debug)]
struct Arming {
    arm: ArmId,
    generation: Generation,
    /// When the batch was handed to the kernel: its timer starts no earlier, so the lease lasts at most ttl from here on
    /// plus the time the batch needed.
    handed_at: Mono,
    ttl: Span,
    /// The kernel has acknowledged; only then may the request leave.
    armed: bool,
    items: BTreeMap<GroupId, LockItem>,
    request: Vec<RenewGroup>,
    granted: BTreeSet<GroupId>,
    opening: BTreeSet<GroupId>,
    opened: BTreeSet<GroupId>,
    /// Of `opening`, those that the kernel has answered, by yes or no.
    answered: BTreeSet<GroupId>,
}

impl Arming {
    /// By this node's reckoning; the kernel's timer ends no later, but for the time the batch needed.
    fn ends(&self) -> Mono {
        Mono(self.handed_at.0 + self.ttl.0)
    }
}

#[derive(Debug)]
pub struct Holder {
    incarnation: u64,
    counter: u64,
    rng: Rng,
    a: Option<Arming>,
    b: Option<Arming>,
    /// The arming that was asked for last; no grant for it has come yet.
    outstanding: Option<(ArmId, Mono)>,
    last_granted: Option<Generation>,
    last_grant: Option<ArmId>,
    /// Only with the deliberate bug `arm_after_grant`.
    deferred: Option<LockOp>,
    mutations: Mutations,
}

impl Holder {
    /// `open` is the generation that the kernel still held open at the start.
    #[must_use]
    pub fn new(
        incarnation: u64,
        open: Option<Generation>,
        seed: u64,
        mutations: Mutations,
    ) -> Self {
        Self {
            incarnation,
            counter: 0,
            rng: Rng::new(seed),
            a: None,
            b: None,
            outstanding: None,
            last_granted: open,
            last_grant: None,
            deferred: None,
            mutations,
        }
    }

    /// When the next arming may be made: a renewal interval after the last, but not while a request younger than
    /// ttl/3 is out (L7), nor while an opening is unanswered. `urgent`: there is a group to take over, so a renewal
    /// interval need not pass.
    #[must_use]
    pub fn due(&self, timing: Timing, urgent: bool) -> Mono {
        self.due_less(Span(0), timing, urgent)
    }

    /// Whether to arm now. A renewal that is almost due goes along with whatever woke this node: a wake of its own costs more.
    #[must_use]
    pub fn is_due(&self, now: Mono, timing: Timing, urgent: bool) -> bool {
        now >= self.due_less(Span(timing.renew_interval().0 / ALONG), timing, urgent)
    }

    fn due_less(&self, early: Span, timing: Timing, urgent: bool) -> Mono {
        let newest = self.newest().map_or(Mono(0), |n| n.handed_at);
        let due = match self.outstanding {
            Some((_, at)) => Mono(at.0 + timing.lease_ttl.0 / 3),
            None if urgent => Mono(0),
            None => Mono((newest + timing.renew_interval()).0.saturating_sub(early.0)),
        };
        // A late grant makes the next arming due at once. Taking out the old generation before the new one is known to
        // be open would look like a lapse, which cuts every connection.
        self.opening_ends().map_or(due, |ends| ends.max(due))
    }

    /// Until when an unanswered opening is worth waiting for.
    fn opening_ends(&self) -> Option<Mono> {
        self.slots().filter(|x| !x.opening.is_subset(&x.answered)).map(Arming::ends).max()
    }

    fn newest(&self) -> Option<&Arming> {
        self.a.iter().chain(&self.b).max_by_key(|x| x.arm)
    }

    fn slot(&mut self, generation: Generation) -> &mut Option<Arming> {
        match generation {
            Generation::A => &mut self.a,
            Generation::B => &mut self.b,
        }
    }

    fn slots(&self) -> impl Iterator<Item = &Arming> {
        self.a.iter().chain(&self.b)
    }

    /// Arm the generation that was not granted last, for all claims.
    pub fn arm(&mut self, now: Mono, timing: Timing, claims: &[Claim]) -> LockOp {
        assert!(!claims.is_empty(), "arming for nothing");
        let generation = match self.last_granted {
            Some(g) if !self.mutations.one_generation() => g.other(),
            Some(_) | None => Generation::A,
        };
        self.counter += 1;
        let arm = ArmId { incarnation: self.incarnation, counter: self.counter };
        let mut items = BTreeMap::new();
        for c in claims {
            let item = lock_item(&c.spec, self.rng.next());
            items.insert(c.spec.id.clone(), item);
        }
        let ttl = timing.armed_ttl();
        let op = LockOp::Arm { arm, generation, ttl, items: items.values().cloned().collect() };
        *self.slot(generation) = Some(Arming {
            arm,
            generation,
            handed_at: now,
            ttl,
            armed: false,
            items,
            request: claims.iter().map(|c| c.request.clone()).collect(),
            granted: BTreeSet::new(),
            opening: BTreeSet::new(),
            opened: BTreeSet::new(),
            answered: BTreeSet::new(),
        });
        self.outstanding = Some((arm, now));
        op
    }

    /// The kernel answered the arming. The request may leave now, and not before (L1).
    pub fn armed(&mut self, arm: ArmId, ok: bool) -> Option<Renew> {
        let slot = self.slot_of(arm)?;
        if !ok {
            *self.slot(slot) = None;
            self.outstanding = self.outstanding.filter(|(a, _)| *a != arm);
            return None;
        }
        if let Some(arming) = self.slot(slot).as_mut() {
            arming.armed = true;
        }
        self.request()
    }

    /// Deliberate bug `arm_after_grant`: ask without having armed.
    pub(crate) fn defer(&mut self, op: LockOp) -> Option<Renew> {
        let LockOp::Arm { arm, .. } = &op else { return None };
        let arm = *arm;
        self.deferred = Some(op);
        self.armed(arm, true)
    }

    /// Deliberate bug `arm_after_grant`: arm now that the grant is here.
    pub(crate) fn take_deferred(&mut self, now: Mono) -> Option<LockOp> {
        let op = self.deferred.take()?;
        if let LockOp::Arm { generation, .. } = &op
            && let Some(x) = self.slot(*generation).as_mut()
        {
            x.handed_at = now;
        }
        Some(op)
    }

    fn slot_of(&self, arm: ArmId) -> Option<Generation> {
        self.slots().find(|x| x.arm == arm).map(|x| x.generation)
    }

    /// The request that is out, to be sent (again, to a new leader) under the same arming.
    #[must_use]
    pub fn request(&self) -> Option<Renew> {
        let (arm, _) = self.outstanding?;
        let arming = self.slots().find(|x| x.arm == arm && x.armed)?;
        Some(Renew {
            arm,
            last_grant: self.last_grant,
            ttl: arming.ttl,
            groups: arming.request.clone(),
        })
    }

    /// A grant arrived. True when it is for the arming that is in its timer now; any other opens nothing.
    pub fn granted(&mut self, grant: &Grant) -> bool {
        if grant.arm.incarnation == self.incarnation && self.last_grant < Some(grant.arm) {
            self.last_grant = Some(grant.arm);
        }
        let generation = match self.slot_of(grant.arm) {
            Some(g) => g,
            None if self.mutations.no_arm_id_check() => match self.newest() {
                Some(n) => n.generation,
                None => return false,
            },
            None => return false,
        };
        if self.outstanding.is_some_and(|(arm, _)| arm == grant.arm) {
            self.outstanding = None;
        }
        let Some(arming) = self.slot(generation).as_mut() else { return false };
        if !arming.armed {
            return false;
        }
        for (group, epoch) in &grant.groups {
            let asked = arming.request.iter().any(|r| r.group == *group && r.epoch == *epoch);
            if asked {
                arming.granted.insert(group.clone());
            }
        }
        if !arming.granted.is_empty() {
            self.last_granted = Some(generation);
        }
        !grant.groups.is_empty()
    }

    /// Opens for every granted group that `ready` lets through, as one batch for each generation.
    pub fn open(&mut self, now: Mono, ready: impl Fn(&GroupId, Epoch) -> bool) -> Vec<LockOp> {
        let mut ops = Vec::new();
        for generation in [Generation::A, Generation::B] {
            let Some(x) = self.slot(generation).as_mut() else { continue };
            if now >= x.ends() {
                continue;
            }
            let mut items = Vec::new();
            for r in &x.request {
                let wanted = x.granted.contains(&r.group) && !x.opening.contains(&r.group);
                if wanted && ready(&r.group, r.epoch) {
                    x.opening.insert(r.group.clone());
                    items.extend(x.items.get(&r.group).cloned());
                }
            }
            if !items.is_empty() {
                ops.push(LockOp::Open { arm: x.arm, generation, items });
            }
        }
        ops
    }

    /// The kernel answered the opening. Returns the groups that are open by it.
    pub fn opened(&mut self, arm: ArmId, groups: &[GroupId], ok: bool) -> Vec<GroupId> {
        let Some(generation) = self.slot_of(arm) else { return Vec::new() };
        let Some(x) = self.slot(generation).as_mut() else { return Vec::new() };
        x.answered.extend(groups.iter().cloned());
        if !ok {
            return Vec::new();
        }
        let mut open = Vec::new();
        for g in groups {
            if x.items.contains_key(g) {
                x.opened.insert(g.clone());
                open.push(g.clone());
            }
        }
        open
    }

    /// A grant for `group` at `epoch` is in hand and its timer has not run out.
    #[must_use]
    pub fn has_grant(&self, now: Mono, group: &GroupId, epoch: Epoch) -> bool {
        self.slots().any(|x| {
            now < x.ends()
                && x.granted.contains(group)
                && x.request.iter().any(|r| r.group == *group && r.epoch == epoch)
        })
    }

    /// Until when the gate of `group` is open, by this node's reckoning: never later than the kernel's timer plus the time
    /// the arming batch needed.
    #[must_use]
    pub fn open_until(&self, group: &GroupId) -> Option<Mono> {
        self.slots().filter(|x| x.opened.contains(group)).map(Arming::ends).max()
    }

    /// The gate of `group` is open now, by this node's reckoning.
    #[must_use]
    pub fn is_open(&self, now: Mono, group: &GroupId) -> bool {
        self.open_until(group).is_some_and(|until| now < until)
    }

    /// The group is given up: nothing armed or granted so far opens it any more.
    pub fn drop_group(&mut self, group: &GroupId) {
        for x in self.a.iter_mut().chain(&mut self.b) {
            x.items.remove(group);
            x.granted.remove(group);
            x.opening.remove(group);
            x.opened.remove(group);
            x.request.retain(|r| r.group != *group);
        }
    }

    /// The table was lost: nothing that was armed is in a timer any more.
    pub fn lock_lost(&mut self) {
        self.a = None;
        self.b = None;
        self.outstanding = None;
    }
}

/// The group's entry in the kernel lock; the nonce counts only for arming and opening.
#[must_use]
pub fn lock_item(spec: &GroupSpec, nonce: u64) -> LockItem {
    LockItem {
        group: spec.id.clone(),
        port: spec.port,
        vip: spec.vip,
        interface: spec.interface.clone(),
        nonce,
    }
}
