//! How this node sees the masters on other hosts, over the network as a client there would.
//!
//! A master's own node may find its Redis well while nobody else gets to its port: a filter, `maxclients`, a `bind`. So every
//! node looks at the masters of other hosts once a second (a new connection and a PING), and more often once a look failed;
//! then it looks at the other members too, who might replace it. What it finds is told in its reports; the leader judges
//! (`plan/unreached.rs`). Owned by the core. Invariant: no look at a master that is not known to serve, nor during a switchover,
//! which may hold answers back. Deliberately absent: the local Redis, which is probed (`detect.rs`), and the VIP.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use redkeep_consensus::{Mono, NodeId, Span};

use crate::{
    effect::{Effect, EventKind},
    ids::{Epoch, GroupId},
    model::{Assignment, Model},
    observe::{Seen, Sight},
    sink::Sink,
    spec::{ClusterSpec, GroupSpec, ProbeTiming},
};

/// Looks at a Redis that is reached are so far apart.
const EVERY: Span = Span::from_secs(1);

type Key = (GroupId, NodeId);

#[derive(Debug, Default)]
pub(crate) struct Sights {
    looks: BTreeMap<Key, Look>,
    /// What was reached at least once in this life of the supervisor: only that can be lost.
    known: BTreeSet<Key>,
    number: u64,
}

#[derive(Debug)]
struct Look {
    epoch: Epoch,
    index: u64,
    timing: ProbeTiming,
    due: Mono,
    /// The look that is not answered yet, and when it began.
    out: Option<(u64, Mono)>,
    failures: u32,
    /// When the first of the failed looks in a row began.
    failing_since: Option<Mono>,
    seen: Option<Seen>,
}

impl Look {
    fn new(a: &Assignment, spec: &GroupSpec, now: Mono) -> Self {
        Self {
            epoch: a.epoch,
            index: a.index,
            timing: spec.probe,
            due: now,
            out: None,
            failures: 0,
            failing_since: None,
            seen: None,
        }
    }

    /// Failed looks in a row, over as long as `fall` of them would take that are not answered at all.
    fn has_failed(&self, now: Mono) -> bool {
        let long = Span(self.timing.timeout.0 * u64::from(self.timing.fall));
        let since = self.failing_since.map(|since| now.since(since));
        self.failures >= self.timing.fall && since.is_some_and(|since| since >= long)
    }
}

impl Sights {
    /// Begin what is due, and forget what is no longer looked at.
    pub(crate) fn look(
        &mut self,
        now: Mono,
        me: NodeId,
        (model, cluster): (&Model, &ClusterSpec),
        sink: &mut Sink,
    ) {
        let mut wanted = BTreeSet::new();
        for spec in &cluster.groups {
            let group = model.group(&spec.id).filter(|g| g.switchover.is_none());
            let Some(a) = group.and_then(|g| g.assignment.as_ref()).filter(|a| a.serving) else {
                continue;
            };
            let master = (spec.id.clone(), a.master);
            let fails = self.looks.get(&master).is_some_and(|l| l.failing_since.is_some());
            for m in &spec.members {
                let key = (spec.id.clone(), m.node);
                let Some(target) = cluster.redis_addr(m.node, spec).filter(|_| m.node != me) else {
                    continue;
                };
                if m.node == a.master || fails {
                    self.begin(now, &key, (a, spec, target), sink);
                    wanted.insert(key);
                }
            }
        }
        self.looks.retain(|key, _| wanted.contains(key));
    }

    fn begin(
        &mut self,
        now: Mono,
        key: &Key,
        (a, spec, target): (&Assignment, &GroupSpec, SocketAddr),
        sink: &mut Sink,
    ) {
        let look = self.looks.entry(key.clone()).or_insert_with(|| Look::new(a, spec, now));
        if look.epoch != a.epoch {
            *look = Look::new(a, spec, now);
        }
        if look.out.is_some() || now < look.due {
            return;
        }
        self.number += 1;
        look.out = Some((self.number, now));
        sink.push(Effect::Look { number: self.number, target, timeout: spec.probe.timeout });
    }

    /// A look was answered, or not. One that began for another epoch says nothing any more.
    pub(crate) fn looked(
        &mut self,
        now: Mono,
        number: u64,
        result: Result<(), String>,
        sink: &mut Sink,
    ) {
        let found = self.looks.iter_mut().find(|(_, l)| l.out.is_some_and(|(n, _)| n == number));
        let Some((key, look)) = found else { return };
        let began = look.out.take().map_or(now, |(_, began)| began);
        let node = key.1;
        let told = match result {
            Ok(()) => {
                (look.failures, look.failing_since) = (0, None);
                look.due = now + EVERY;
                self.known.insert(key.clone());
                let was_lost = matches!(look.seen, Some(Seen::Lost(_) | Seen::Never(_)));
                look.seen = Some(Seen::Reached);
                was_lost.then_some(EventKind::Reached { node })
            }
            Err(why) => {
                look.failures = look.failures.saturating_add(1);
                look.failing_since.get_or_insert(began);
                look.due = now + look.timing.interval;
                let is_new = !matches!(look.seen, Some(Seen::Lost(_) | Seen::Never(_)));
                (is_new && look.has_failed(now)).then(|| {
                    let lost = self.known.contains(key);
                    look.seen =
                        Some(if lost { Seen::Lost(why.clone()) } else { Seen::Never(why.clone()) });
                    EventKind::Unreached { node, why }
                })
            }
        };
        if let Some(kind) = told {
            sink.event(&key.0, look.epoch, look.index, kind);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Mono> {
        self.looks.values().filter(|l| l.out.is_none()).map(|l| l.due).min()
    }

    /// Of each group whose master is not reached: how its members are seen. Nothing is told of the others.
    pub(crate) fn told(&self) -> Vec<Sight> {
        let lost = |l: &Look| matches!(l.seen, Some(Seen::Lost(_) | Seen::Never(_)));
        let groups: BTreeSet<&GroupId> =
            self.looks.iter().filter(|(_, l)| lost(l)).map(|((g, _), _)| g).collect();
        let of = self.looks.iter().filter(|((g, _), _)| groups.contains(g));
        of.filter_map(|((group, node), l)| {
            let seen = l.seen.clone()?;
            Some(Sight { group: group.clone(), epoch: l.epoch, node: *node, seen })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::node_id, model::GroupModel};

    const MS: u64 = 1_000_000;

    /// Node c looks at a pair whose master is a; probes of 100 ms, 250 ms and 3.
    struct Case {
        sights: Sights,
        sink: Sink,
        model: Model,
        cluster: ClusterSpec,
        now: Mono,
        events: Vec<EventKind>,
        /// Looks that are not answered yet: when they will be, which, and how.
        out: Vec<(u64, u64, bool)>,
    }

    impl Case {
        fn new() -> Self {
            let mut cluster = crate::testing::cluster();
            cluster.groups[0].members.retain(|m| m.node != node_id("c"));
            let mut model = Model::default();
            let assignment = Some(Assignment {
                epoch: Epoch(1),
                master: node_id("a"),
                run_id: crate::ids::RunId::new("run-a"),
                cause: crate::command::Cause::Adopted,
                index: 3,
                serving: true,
                previous_master: None,
                since: Epoch(1),
            });
            let group = GroupModel { assignment, ..GroupModel::default() };
            model.groups.insert(cluster.groups[0].id.clone(), group);
            let (sights, sink) = (Sights::default(), Sink::default());
            let (events, out) = (Vec::new(), Vec::new());
            Self { sights, sink, model, cluster, now: Mono(1000 * MS), events, out }
        }

        fn group(&mut self) -> &mut GroupModel {
            self.model.groups.values_mut().next().unwrap()
        }

        fn look(&mut self) {
            let world = (&self.model, &self.cluster);
            self.sights.look(self.now, node_id("c"), world, &mut self.sink);
        }

        /// Go on for `ms`; `answer` says how a look at that host ends, and after how many milliseconds.
        fn run(&mut self, ms: u64, answer: impl Fn(u8) -> (bool, u64)) -> u32 {
            let mut begun = 0;
            for _ in 0..ms {
                self.now = Mono(self.now.0 + MS);
                self.look();
                while let Some(effect) = self.sink.pop() {
                    match effect {
                        Effect::Look { number, target, .. } => {
                            let SocketAddr::V4(at) = target else { panic!("{target}") };
                            let (ok, after) = answer(at.ip().octets()[3]);
                            self.out.push((self.now.0 + after * MS, number, ok));
                            begun += 1;
                        }
                        Effect::Event(e) => self.events.push(e.kind),
                        other => panic!("{other:?}"),
                    }
                }
                let now = self.now;
                for (_, number, ok) in self.out.extract_if(.., |(at, ..)| *at <= now.0) {
                    let result = if ok { Ok(()) } else { Err("no answer".to_owned()) };
                    self.sights.looked(now, number, result, &mut self.sink);
                }
            }
            begun
        }

        fn told(&self) -> Vec<(NodeId, Seen)> {
            self.sights.told().into_iter().map(|s| (s.node, s.seen)).collect()
        }
    }

    const WELL: fn(u8) -> (bool, u64) = |_| (true, 1);
    /// A filter drops what is sent to a: each look at it takes its whole time.
    const FILTERED: fn(u8) -> (bool, u64) = |host| if host == 1 { (false, 250) } else { (true, 1) };

    #[test]
    fn a_master_that_is_reached_is_looked_at_once_a_second_and_nothing_is_told() {
        let mut case = Case::new();
        let looks = case.run(10_000, WELL);
        assert!((9..=11).contains(&looks), "{looks}");
        assert_eq!((case.told(), case.events.len()), (Vec::new(), 0));
    }

    #[test]
    fn a_master_that_was_reached_and_is_not_any_more_is_told_with_the_others() {
        let mut case = Case::new();
        case.run(2000, WELL);
        let mut took = 0;
        while case.told().is_empty() {
            case.run(1, FILTERED_AT_ONCE);
            took += 1;
            assert!(took < 3000, "not told");
        }
        let lost = (node_id("a"), Seen::Lost("no answer".into()));
        let other = (node_id("b"), Seen::Reached);
        assert!(case.told().contains(&lost) && case.told().contains(&other), "{:?}", case.told());
        case.run(2000, WELL);
        assert_eq!(case.told(), Vec::new());
        let told = |kind: fn(&EventKind) -> bool| case.events.iter().filter(|e| kind(e)).count();
        assert_eq!(told(|e| matches!(e, EventKind::Unreached { .. })), 1);
        assert_eq!(told(|e| matches!(e, EventKind::Reached { .. })), 1);
    }

    /// Refused looks come back at once: `fall` of them in a moment are no evidence.
    const FILTERED_AT_ONCE: fn(u8) -> (bool, u64) = |host| (host != 1, 0);

    #[test]
    fn refusals_of_a_moment_tell_nothing() {
        let mut case = Case::new();
        case.run(2000, WELL);
        // The next look is due within a second; five of them fail at most.
        case.run(1000, WELL);
        let mut failing = 0;
        while failing < 600 {
            case.run(1, FILTERED_AT_ONCE);
            failing += u32::from(case.sights.looks.values().any(|l| l.failing_since.is_some()));
            assert_eq!(case.told(), Vec::new());
        }
        case.run(2000, WELL);
        assert_eq!((case.told(), case.events.len()), (Vec::new(), 0));
    }

    #[test]
    fn a_filter_is_told_after_fall_looks_and_the_second_between_two() {
        let mut case = Case::new();
        case.run(2500, WELL);
        case.run(1950, FILTERED);
        assert!(matches!(case.told()[..], [(_, Seen::Lost(_)), ..]), "{:?}", case.told());
    }

    #[test]
    fn a_master_that_was_never_reached_is_told_as_such() {
        let mut case = Case::new();
        case.run(3000, FILTERED);
        assert!(matches!(case.told()[..], [(_, Seen::Never(_)), ..]), "{:?}", case.told());
    }

    #[test]
    fn nobody_looks_during_a_switchover_nor_at_a_master_that_does_not_serve_yet() {
        let mut case = Case::new();
        case.run(2000, FILTERED);
        case.group().switchover = Some(node_id("b"));
        assert_eq!(case.run(3000, FILTERED), 0);
        assert_eq!(case.told(), Vec::new(), "what was seen before does not count");
        case.group().switchover = None;
        case.group().assignment.as_mut().unwrap().serving = false;
        assert_eq!(case.run(3000, FILTERED), 0);
    }

    #[test]
    fn what_was_seen_of_an_epoch_ends_with_it() {
        let mut case = Case::new();
        case.run(2000, WELL);
        case.run(3000, FILTERED);
        assert_ne!(case.told(), Vec::new());
        case.group().assignment.as_mut().unwrap().epoch = Epoch(2);
        case.look();
        assert_eq!(case.told(), Vec::new());
    }
}
