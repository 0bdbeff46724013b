//! The tail of an old master: what only it holds is kept aside before it is repointed, which overwrites it.
//!
//! Asked of every Redis that is a master by role, has data, and is to follow another: how many bytes has it beyond the point
//! where its history and the new master's part? Some: kept, then followed. None: followed at once. Where the two cannot be
//! compared, ADR 0020 says what is kept.
//!
//! The port is closed throughout. A master that cannot be reached is asked again without end, since nobody could be copied from it
//! either; whatever else fails is tried a few times and then followed, with an event that says what was overwritten.

use core::net::SocketAddr;

use redkeep_consensus::{Mono, NodeId, Span};

use super::{Cx, HostGroup};
use crate::{
    effect::{Action, ActionId, ActionOutcome, EventKind, Kept},
    ids::{Epoch, RunId},
    lineage::Compared,
    model::{Assignment, RecordKind},
    observe::RedisObservation,
};

/// A master that did not answer is asked again after this.
const ASK_AGAIN: Span = Span(200_000_000);
/// A data set that could not be kept is tried again after this.
const KEEP_AGAIN: Span = Span(1_000_000_000);
/// And so often in all at one epoch, whatever life of Redis it was.
const ATTEMPTS: u32 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Step {
    #[default]
    Due,
    Comparing(ActionId),
    Keeping(ActionId),
    DueAt(Mono),
    /// At this epoch nothing is left to be kept: from here on it is the new master's data that comes here.
    Clear,
}

#[derive(Debug, Default)]
pub(super) struct Quarantine {
    epoch: Epoch,
    step: Step,
    /// Of what is being kept.
    gap: Option<u64>,
    attempts: u32,
    /// It was told that the master does not answer.
    told: bool,
    /// The life that was master by assignment, as far as this supervisor saw it.
    led: Option<RunId>,
    seen: Option<RunId>,
    /// `seen` began under this supervisor's eyes, behind a closed port: what it was sent since is nobody's write.
    reborn: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Another life has answered.
    Stale,
    Overwrite,
    /// So many bytes; none = unknown.
    Keep(Option<u64>),
}

/// Whether this node was master before the present one, by the history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct WasMaster {
    ever: bool,
    /// The last one.
    last: bool,
}

impl Quarantine {
    pub(super) fn sees(&mut self, life: &RunId) {
        if self.seen.as_ref() != Some(life) {
            self.reborn = self.seen.is_some();
            self.seen = Some(life.clone());
        }
    }

    /// This life is the master by assignment.
    fn leads(&mut self, life: &RunId) {
        if self.led.as_ref() != Some(life) {
            self.led = Some(life.clone());
        }
    }

    fn enter(&mut self, epoch: Epoch) {
        if self.epoch != epoch {
            (self.epoch, self.step, self.gap) = (epoch, Step::Due, None);
            (self.attempts, self.told) = (0, false);
        }
    }

    /// It follows the master of this epoch, or is about to: a later life of it holds a replica's data.
    pub(super) fn overwritten(&mut self, epoch: Epoch) {
        self.enter(epoch);
        match self.step {
            Step::Due | Step::DueAt(_) => self.step = Step::Clear,
            // It was made a replica by hand. What is under way comes to its end.
            Step::Comparing(_) | Step::Keeping(_) | Step::Clear => {}
        }
    }

    /// It does follow: what an earlier life of it wrote as a master is judged and over.
    pub(super) fn follows(&mut self, epoch: Epoch) {
        self.overwritten(epoch);
        self.led = None;
    }

    pub(super) fn redis_died(&mut self) {
        match self.step {
            // It may have died of it: by what the copy of its memory cost.
            Step::Keeping(_) => {
                self.attempts += 1;
                self.step = Step::Due;
            }
            Step::Comparing(_) | Step::DueAt(_) => self.step = Step::Due,
            Step::Due | Step::Clear => {}
        }
    }

    pub(super) fn waits_for(&self, id: ActionId) -> bool {
        self.step == Step::Comparing(id) || self.step == Step::Keeping(id)
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        match self.step {
            Step::DueAt(at) => Some(at),
            Step::Due | Step::Comparing(_) | Step::Keeping(_) | Step::Clear => None,
        }
    }

    fn judge(&self, c: &Compared, was_master: WasMaster) -> Verdict {
        if self.seen.as_ref() != Some(&c.run_id) {
            return Verdict::Stale;
        }
        let led = self.led.as_ref() == Some(&c.run_id);
        // Expired keys alone make the offset of a restarted master grow.
        let own = if self.reborn && !led { c.own.as_loaded() } else { Some(c.own.clone()) };
        match own.and_then(|own| own.beyond(&c.master)) {
            _ if c.keys == 0 => Verdict::Overwrite,
            Some(0) => Verdict::Overwrite,
            Some(gap) => Verdict::Keep(Some(gap)),
            // The life that led, or one that may be it, is no older than its last write.
            None if led || was_master.ever && !self.reborn => Verdict::Keep(None),
            // Started anew, it is older than the tail, unless it read every write again.
            None if c.append_only && (was_master.last || self.led.is_some()) => Verdict::Keep(None),
            None => Verdict::Overwrite,
        }
    }
}

impl HostGroup {
    pub(super) fn note_master(&mut self, a: &Assignment) {
        if a.master == self.me && self.detector.life() == Some(&a.run_id) {
            self.quarantine.leads(&a.run_id);
        }
    }

    /// Whether the data set of this Redis may be overwritten by that of `master`. If not, what is missing for it is under way.
    pub(super) fn may_overwrite(
        &mut self,
        cx: &mut Cx<'_>,
        a: &Assignment,
        o: &RedisObservation,
        master: SocketAddr,
    ) -> bool {
        if !o.is_master() || o.keys == 0 || cx.mutations.follow_at_once() {
            self.quarantine.overwritten(a.epoch);
            return true;
        }
        let q = &mut self.quarantine;
        q.enter(a.epoch);
        match q.step {
            Step::Clear => return true,
            Step::Comparing(_) | Step::Keeping(_) => return false,
            Step::DueAt(at) if cx.now.boot < at => return false,
            Step::Due | Step::DueAt(_) => {}
        }
        if q.attempts >= ATTEMPTS {
            self.give_up(cx, "Redis died of it".to_owned());
            return true;
        }
        q.step = Step::Comparing(cx.sink.act(&self.spec.id, Action::Compare { master }));
        false
    }

    pub(super) fn quarantine_action_done(
        &mut self,
        cx: &mut Cx<'_>,
        id: ActionId,
        outcome: &ActionOutcome,
    ) {
        if !self.quarantine.waits_for(id) {
            return;
        }
        let comparing = self.quarantine.step == Step::Comparing(id);
        // Unless something better follows from it.
        self.quarantine.step = Step::DueAt(cx.now.boot + ASK_AGAIN);
        // Meanwhile another master may have been named, or this node.
        let a = self.model(cx).and_then(|g| g.assignment.as_ref());
        let a = a.filter(|a| a.epoch == self.quarantine.epoch && a.master != self.me);
        match (outcome, a) {
            (ActionOutcome::Compared(compared), Some(a)) => self.compared(cx, a, compared),
            (ActionOutcome::Kept(kept), _) => self.kept(cx, kept),
            (ActionOutcome::Failed(f), Some(_)) if comparing && f.retry => {
                self.ask_again(cx, &f.text);
            }
            (ActionOutcome::Failed(f), Some(_)) => {
                let (retry, reason) = (f.retry, f.text.clone());
                self.not_kept(cx, retry, reason);
            }
            (_, _) => {}
        }
    }

    fn compared(&mut self, cx: &mut Cx<'_>, a: &Assignment, compared: &Compared) {
        match self.quarantine.judge(compared, self.was_master(cx, a)) {
            Verdict::Stale => {}
            Verdict::Overwrite => self.quarantine.step = Step::Clear,
            Verdict::Keep(gap) => {
                let id = cx.sink.act(&self.spec.id, Action::KeepAside { epoch: a.epoch, gap });
                self.quarantine.gap = gap;
                self.quarantine.step = Step::Keeping(id);
            }
        }
    }

    /// Naming the present master twice does not hide who was it before.
    fn was_master(&self, cx: &Cx<'_>, a: &Assignment) -> WasMaster {
        let of_group =
            cx.model.history.iter().rev().filter(|r| r.group.as_ref() == Some(self.id()));
        let others: Vec<NodeId> = of_group
            .filter_map(|r| {
                let RecordKind::Assigned { master, .. } = r.kind else { return None };
                (master != a.master).then_some(master)
            })
            .collect();
        let last = a.previous_master.or(others.first().copied()) == Some(self.me);
        WasMaster { ever: last || others.contains(&self.me), last }
    }

    fn kept(&mut self, cx: &mut Cx<'_>, kept: &Kept) {
        self.quarantine.step = Step::Clear;
        let gap = self.quarantine.gap;
        self.tell(cx, EventKind::Quarantined { gap, size: kept.size, path: kept.path.clone() });
    }

    fn ask_again(&mut self, cx: &mut Cx<'_>, text: &str) {
        if !std::mem::replace(&mut self.quarantine.told, true) {
            let text = text.to_owned();
            self.tell(cx, EventKind::ActionFailed { action: "comparing the data sets", text });
        }
    }

    fn not_kept(&mut self, cx: &mut Cx<'_>, retry: bool, reason: String) {
        self.quarantine.attempts += 1;
        if retry && self.quarantine.attempts < ATTEMPTS {
            self.quarantine.step = Step::DueAt(cx.now.boot + KEEP_AGAIN);
        } else {
            self.give_up(cx, reason);
        }
    }

    fn give_up(&mut self, cx: &mut Cx<'_>, reason: String) {
        self.quarantine.step = Step::Clear;
        let gap = self.quarantine.gap;
        self.tell(cx, EventKind::QuarantineFailed { gap, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lineage::Lineage, observe::PreviousHistory};

    const LAST: WasMaster = WasMaster { ever: true, last: true };
    const ONCE: WasMaster = WasMaster { ever: true, last: false };
    const NEVER: WasMaster = WasMaster { ever: false, last: false };

    fn previous(id: &str, until_offset: u64) -> Option<PreviousHistory> {
        Some(PreviousHistory { replication_id: id.into(), until_offset })
    }

    /// The life `run`, at `offset` of the history `id`; the new master was promoted at 500 of the history `old`.
    fn compared(run: &str, id: &str, offset: u64) -> Compared {
        Compared {
            run_id: RunId::new(run),
            own: Lineage { replication_id: id.into(), previous: None, offset },
            master: Lineage {
                replication_id: "new".into(),
                previous: previous("old", 501),
                offset: 900,
            },
            keys: 10,
            append_only: false,
        }
    }

    fn quarantine(led: Option<&str>, lives: &[&str]) -> Quarantine {
        let mut q = Quarantine::default();
        lives.iter().for_each(|life| q.sees(&RunId::new(life)));
        q.led = led.map(RunId::new);
        q
    }

    #[test]
    fn a_tail_is_kept_whoever_saw_it_written() {
        for q in [quarantine(Some("1"), &["1"]), quarantine(None, &["1"])] {
            assert_eq!(q.judge(&compared("1", "old", 530), NEVER), Verdict::Keep(Some(30)));
            assert_eq!(q.judge(&compared("1", "old", 500), LAST), Verdict::Overwrite);
            let empty = Compared { keys: 0, ..compared("1", "old", 530) };
            assert_eq!(q.judge(&empty, LAST), Verdict::Overwrite);
            assert_eq!(q.judge(&compared("2", "old", 530), LAST), Verdict::Stale);
        }
    }

    #[test]
    fn what_cannot_be_compared_is_kept_where_it_can_hold_the_tail() {
        let same_life = quarantine(Some("1"), &["1"]);
        assert_eq!(same_life.judge(&compared("1", "other", 530), LAST), Verdict::Keep(None));
        let not_seen = quarantine(None, &["1"]);
        assert_eq!(not_seen.judge(&compared("1", "other", 530), LAST), Verdict::Keep(None));
        // Found by the simulator: masters 1, 2, 3, and the supervisor of the first restarted meanwhile.
        assert_eq!(not_seen.judge(&compared("1", "other", 530), ONCE), Verdict::Keep(None));
        assert_eq!(not_seen.judge(&compared("1", "other", 530), NEVER), Verdict::Overwrite);
        let restarted = quarantine(Some("1"), &["1", "2"]);
        let c = compared("2", "other", 530);
        assert_eq!(restarted.judge(&c, LAST), Verdict::Overwrite, "an RDB is older than the tail");
        let with_aof = Compared { append_only: true, ..c };
        assert_eq!(restarted.judge(&with_aof, LAST), Verdict::Keep(None));
        assert_eq!(
            restarted.judge(&with_aof, NEVER),
            Verdict::Keep(None),
            "it led, and did not follow"
        );
        let mut followed = restarted;
        followed.follows(Epoch(2));
        assert_eq!(followed.judge(&with_aof, ONCE), Verdict::Overwrite, "a replica's data");
    }

    #[test]
    fn what_a_restarted_redis_makes_by_itself_is_no_tail() {
        let mut c = compared("2", "fresh", 530);
        c.own.previous = previous("old", 481);
        let restarted = quarantine(Some("1"), &["1", "2"]);
        assert_eq!(restarted.judge(&c, LAST), Verdict::Overwrite);
        // It saved its data set, tail included, before it ended.
        c.own.previous = previous("old", 521);
        assert_eq!(restarted.judge(&c, LAST), Verdict::Keep(Some(20)));
        // Whether clients wrote to it is not known: it was there before this supervisor.
        let unknown = quarantine(None, &["2"]);
        assert_eq!(unknown.judge(&c, LAST), Verdict::Keep(Some(30)));
        // Or it was made master since.
        let led = quarantine(Some("2"), &["1", "2"]);
        assert_eq!(led.judge(&c, LAST), Verdict::Keep(Some(30)));
    }
}
