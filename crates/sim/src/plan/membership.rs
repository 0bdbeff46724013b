//! Nodes and members that join and leave, while other things fail.

use redkeep_core::Span;

use super::{FAULTS_FROM, SPARES, draft::Draft, ms};
use crate::fault::{FaultKind as F, Target};

impl Draft {
    /// One of the ways in which operators change a cluster, and two to six failures meanwhile.
    pub(super) fn membership(&mut self) {
        let from = FAULTS_FROM + ms(self.rng.below(1_000));
        let end = match self.rng.below(10) {
            0..=2 => self.witness_replaced(from),
            3..=5 => self.member_replaced(from),
            6..=7 => self.two_thirds_replaced(from),
            _ => self.newcomer_that_leaves(from),
        };
        self.failures_meanwhile(from, end);
    }

    fn spare(&self, n: usize) -> usize {
        self.layout.hosts() + n
    }

    /// The next order comes at once, or when the last has been carried out, or in between.
    fn soon(&mut self) -> Span {
        let most = *self.rng.pick(&[50, 500, 2_500]);
        ms(1 + self.rng.below(most))
    }

    /// Now and then the witness is lost for good before it is replaced.
    fn witness_replaced(&mut self, from: Span) -> Span {
        let members = self.layout.members();
        let old = members + self.rng.index(self.layout.hosts() - members);
        if self.rng.chance(300_000) {
            let away = ms(self.rng.range(3_000, 6_000));
            self.add(from, F::PowerOff, Target::Node(old), away);
        }
        let joins = from + self.soon();
        self.order(joins, F::AddNode, self.spare(0), 0);
        let leaves = joins + self.soon();
        self.order(leaves, F::RemoveNode, old, 0);
        leaves
    }

    /// As docs/operations.md says it.
    fn member_replaced(&mut self, from: Span) -> Span {
        let old = self.rng.index(self.layout.members());
        self.order(from, F::AddNode, self.spare(0), 0);
        let moved = self.moves(from, old, self.spare(0));
        self.order(moved, F::RemoveNode, old, 0);
        moved
    }

    /// A member and a witness go; two newcomers and one of the old ones are left, or the like.
    fn two_thirds_replaced(&mut self, from: Span) -> Span {
        let (old, witness) = (self.rng.index(self.layout.members()), self.layout.hosts() - 1);
        let (one, other) = (self.spare(0), self.spare(1));
        self.order(from, F::AddNode, one, 0);
        if self.rng.chance(500_000) {
            let joins = from + self.soon();
            self.order(joins, F::AddNode, other, 0);
            let moved = self.moves(joins, old, one);
            self.order(moved, F::RemoveNode, old, 0);
            let leaves = moved + self.soon();
            self.order(leaves, F::RemoveNode, witness, 0);
            return leaves;
        }
        let moved = self.moves(from, old, one);
        self.order(moved, F::RemoveNode, old, 0);
        let joins = moved + self.soon();
        self.order(joins, F::AddNode, other, 0);
        let leaves = joins + self.soon();
        self.order(leaves, F::RemoveNode, witness, 0);
        leaves
    }

    /// In the end it is as it was; the newcomer may never have voted.
    fn newcomer_that_leaves(&mut self, from: Span) -> Span {
        let mut at = from;
        for n in 0..SPARES {
            self.order(at, F::AddNode, self.spare(n), 0);
            at += self.soon();
            self.order(at, F::RemoveNode, self.spare(n), 0);
            at += self.soon();
        }
        at
    }

    /// `new` takes the place of `old` in each group that it is a member of.
    fn moves(&mut self, from: Span, old: usize, new: usize) -> Span {
        let mut at = from;
        for group in 0..self.layout.groups() {
            at += self.soon();
            self.order(at, F::AddMember, new, group);
            at += self.soon();
            self.order(at, F::RemoveMember, old, group);
        }
        at + self.soon()
    }

    fn failures_meanwhile(&mut self, from: Span, end: Span) {
        if self.rng.chance(200_000) {
            let grows = ms(self.rng.range(1_500, 3_500));
            self.add(from, F::LogFlood, Target::Leader, grows);
        }
        let span = (end + ms(2_500) - from).as_millis();
        for _ in 0..self.rng.range(2, 6) {
            let kind = if self.rng.chance(300_000) {
                *self.rng.pick(&[F::KillSupervisor, F::PowerOff, F::TransferLeadership, F::Isolate])
            } else {
                *self.rng.pick(F::drawn())
            };
            let newcomer = self.spare(0) + self.rng.index(SPARES);
            let at_newcomer = self.rng.chance(400_000);
            let target = if at_newcomer { Target::Node(newcomer) } else { self.target() };
            let when = from + ms(self.rng.below(span));
            let lasts = self.length(kind);
            self.add(when, kind, target, lasts);
        }
    }
}
