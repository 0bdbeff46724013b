//! Folds probes of the local Redis into a view: up, doubtful, down. Pure; one per group and host.

use redkeep_consensus::Mono;

use crate::{
    ids::RunId,
    observe::{DownReason, ProbeFailure, RedisObservation, RedisView},
    spec::ProbeTiming,
};

#[derive(Clone, Debug)]
pub(crate) struct Detector {
    timing: ProbeTiming,
    view: RedisView,
    /// The last life seen that is not known to be over.
    life: Option<RunId>,
    /// Offset of the last good probe; bytes. Outlives the process, for the fence's report.
    last_offset: u64,
    failures: u32,
    loading_since: Option<Mono>,
    /// The last observation, while Redis answers: also one that holds writes back.
    answering: Option<RedisObservation>,
    /// When Redis was last asked, of the looks that are known.
    asked: Mono,
}

impl Detector {
    pub(crate) fn new(timing: ProbeTiming) -> Self {
        Self {
            timing,
            view: RedisView::Unknown,
            life: None,
            last_offset: 0,
            failures: 0,
            loading_since: None,
            answering: None,
            asked: Mono::default(),
        }
    }

    /// What Redis is, while its role can be changed.
    pub(crate) fn answering(&self) -> Option<&RedisObservation> {
        self.answering.as_ref()
    }

    pub(crate) fn view(&self) -> &RedisView {
        &self.view
    }

    /// The view as others may rely on it. A look that is older than detection takes is none: the supervisor stood still since, and
    /// its Redis may be another by now, with other data.
    pub(crate) fn told(&self, now: Mono) -> RedisView {
        let old = now.since(self.asked) > self.timing.hung_after();
        match &self.view {
            RedisView::Up(_) | RedisView::Doubtful(..) if old => RedisView::Unknown,
            view => view.clone(),
        }
    }

    pub(crate) fn life(&self) -> Option<&RunId> {
        self.life.as_ref()
    }

    pub(crate) fn last_offset(&self) -> u64 {
        self.last_offset
    }

    pub(crate) fn observed(&mut self, asked: Mono, o: RedisObservation) {
        self.asked = asked;
        self.failures = 0;
        self.loading_since = None;
        self.life = Some(o.run_id.clone());
        self.last_offset = o.offset;
        self.answering = Some(o.clone());
        self.view = RedisView::Up(o);
    }

    pub(crate) fn failed(&mut self, asked: Mono, failure: ProbeFailure) {
        self.asked = asked;
        self.failures = self.failures.saturating_add(1);
        let often = self.failures >= self.timing.fall;
        let down = match failure {
            ProbeFailure::Refused => {
                self.life = None;
                Some(DownReason::Dead)
            }
            ProbeFailure::Loading => {
                let since = *self.loading_since.get_or_insert(asked);
                let long = asked.0.saturating_sub(since.0) > self.timing.loading_timeout.0;
                long.then_some(DownReason::LoadingTooLong)
            }
            ProbeFailure::Timeout | ProbeFailure::Closed | ProbeFailure::Busy => {
                often.then_some(DownReason::Hung)
            }
            ProbeFailure::Misconfigured => often.then_some(DownReason::DiskError),
            ProbeFailure::WritesHeld => often.then_some(DownReason::WritesHeld),
            // It answers, so it is not down; but a supervisor that never saw it cannot vouch for it.
            ProbeFailure::Denied => self.life.is_none().then_some(DownReason::Denied),
            ProbeFailure::Protocol => self.life.is_none().then_some(DownReason::Protocol),
        };
        // Not one that cannot write its disk: as a replica Redis 7 ends itself at the first write that comes to it
        // (`replica-ignore-disk-write-errors`).
        if failure != ProbeFailure::WritesHeld {
            self.answering = None;
        }
        if let Some(reason) = down {
            self.view = RedisView::Down(reason);
        } else if let RedisView::Up(o) | RedisView::Doubtful(o, _) = &self.view {
            self.view = RedisView::Doubtful(o.clone(), failure);
        }
    }

    /// The process is gone. A notice about an earlier life changes nothing.
    pub(crate) fn died(&mut self, life: Option<&RunId>) -> bool {
        if life.is_some() && self.life.is_some() && self.life.as_ref() != life {
            return false;
        }
        self.life = None;
        self.answering = None;
        self.view = RedisView::Down(DownReason::Dead);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, master};

    fn timing() -> ProbeTiming {
        cluster().groups[0].probe
    }

    /// (failures fed after one good probe) -> view.
    #[test]
    fn each_failure_is_judged_by_its_own_rule() {
        use ProbeFailure as F;
        let cases: [(&[F], Option<DownReason>); 11] = [
            (&[F::Timeout, F::Timeout], None),
            (&[F::Timeout, F::Timeout, F::Timeout], Some(DownReason::Hung)),
            (&[F::Timeout, F::Closed, F::Busy], Some(DownReason::Hung)),
            (&[F::Refused], Some(DownReason::Dead)),
            (&[F::Loading, F::Loading, F::Loading, F::Loading], None),
            (&[F::Misconfigured, F::Misconfigured], None),
            (&[F::Misconfigured, F::Misconfigured, F::Misconfigured], Some(DownReason::DiskError)),
            (&[F::WritesHeld, F::WritesHeld], None),
            (&[F::WritesHeld, F::WritesHeld, F::WritesHeld], Some(DownReason::WritesHeld)),
            (&[F::Denied, F::Denied, F::Denied], None),
            (&[F::Protocol, F::Protocol, F::Protocol], None),
        ];
        for (failures, want) in cases {
            let mut d = Detector::new(timing());
            d.observed(Mono(0), master("1"));
            for f in failures {
                d.failed(Mono(0), *f);
            }
            match want {
                Some(reason) => assert_eq!(d.view(), &RedisView::Down(reason), "{failures:?}"),
                None => assert!(matches!(d.view(), RedisView::Doubtful(..)), "{failures:?}"),
            }
        }
    }

    #[test]
    fn a_redis_that_was_never_let_in_is_not_vouched_for() {
        let mut d = Detector::new(timing());
        d.failed(Mono(0), ProbeFailure::Denied);
        assert_eq!(d.view(), &RedisView::Down(DownReason::Denied));
    }

    #[test]
    fn an_old_look_is_told_to_nobody() {
        let mut d = Detector::new(timing());
        d.observed(Mono(5), master("1"));
        let last = Mono(5 + timing().hung_after().0);
        assert!(matches!(d.told(last), RedisView::Up(_)));
        assert_eq!(d.told(Mono(last.0 + 1)), RedisView::Unknown);
        d.failed(last, ProbeFailure::Timeout);
        assert!(matches!(d.told(Mono(last.0 + 1)), RedisView::Doubtful(..)));
        d.died(None);
        assert_eq!(
            d.told(Mono(u64::MAX)),
            RedisView::Down(DownReason::Dead),
            "it does not come back"
        );
    }

    #[test]
    fn loading_is_waited_for_until_its_timeout() {
        let mut d = Detector::new(timing());
        d.observed(Mono(0), master("1"));
        d.failed(Mono(0), ProbeFailure::Loading);
        d.failed(Mono(1_000_000_000), ProbeFailure::Loading);
        assert!(matches!(d.view(), RedisView::Doubtful(..)));
        d.failed(Mono(1_000_000_001), ProbeFailure::Loading);
        assert_eq!(d.view(), &RedisView::Down(DownReason::LoadingTooLong));
    }

    #[test]
    fn a_redis_that_holds_writes_back_can_be_given_another_role() {
        for (failure, answers) in [
            (ProbeFailure::WritesHeld, true),
            (ProbeFailure::Misconfigured, false),
            (ProbeFailure::Timeout, false),
            (ProbeFailure::Loading, false),
        ] {
            let mut d = Detector::new(timing());
            d.observed(Mono(0), master("1"));
            for _ in 0..9 {
                d.failed(Mono(0), failure);
            }
            assert_eq!(d.answering().is_some(), answers, "{failure:?}");
        }
        let mut d = Detector::new(timing());
        d.observed(Mono(0), master("1"));
        d.failed(Mono(0), ProbeFailure::WritesHeld);
        d.died(None);
        assert_eq!(d.answering(), None);
    }

    #[test]
    fn the_death_of_an_earlier_life_changes_nothing() {
        let mut d = Detector::new(timing());
        d.observed(Mono(0), master("2"));
        assert!(!d.died(Some(&RunId::new("1"))));
        assert!(matches!(d.view(), RedisView::Up(_)));
        assert!(d.died(Some(&RunId::new("2"))));
        assert_eq!(
            (d.view(), d.life(), d.last_offset()),
            (&RedisView::Down(DownReason::Dead), None, 7)
        );
    }
}
