//! Three groups whose masters run at a, led from c: which of them the leader fails over.

use redkeep_consensus::{Mono, NodeId, Span};

use super::super::{Elected, Leader, LeaderWish, Round};
use crate::{
    command::{Assign, Body, Cause, Command},
    ids::{Epoch, GroupId, Now, RequestId, RunId, node_id},
    model::{Applied, Model},
    mutations::Mutations,
    observe::{
        DownReason, EligibleMember, FenceCause, Fenced, GroupReport, RedisObservation, RedisView,
        Report, Seen, Sight,
    },
    plan::{Forced, HoldReason},
    recent::{AT_ONCE, Recent},
    testing,
};

const GROUPS: [&str; 3] = ["g0", "g1", "g2"];
const TTL: Span = Span::from_millis(300);

fn group(n: usize) -> GroupId {
    GroupId::new(GROUPS[n])
}

struct Bench {
    leader: Leader,
    model: Model,
    recent: Recent,
    now: Mono,
    index: u64,
    /// By group: its master's Redis died, and its node fenced.
    dead: [bool; 3],
    /// By group: b and c do not reach its master any more; c reaches b.
    lost: [bool; 3],
    a_silent: bool,
    b_silent: bool,
    /// By how much the replicas have passed what their masters told last; bytes.
    ahead: u64,
}

impl Bench {
    fn limited_to(limit: u32) -> Self {
        let mut spec = testing::cluster();
        spec.mass_failure_limit = limit;
        let one = spec.groups.remove(0);
        let named = |n: &str| crate::spec::GroupSpec { id: GroupId::new(n), ..one.clone() };
        spec.groups = GROUPS.map(named).to_vec();
        let timing = spec.timing;
        let now = Mono(1_000_000_000_000);
        let elected = Elected { term: 1, last_index: 0 };
        let at = Now { boot: now, raw: now, unix_ms: 0 };
        let mut bench = Self {
            leader: Leader::new(node_id("c"), elected, at, timing, Mutations::NONE),
            model: Model::default(),
            recent: Recent::default(),
            now,
            index: 0,
            dead: [false; 3],
            lost: [false; 3],
            a_silent: false,
            b_silent: false,
            ahead: 0,
        };
        bench.apply(Body::Bootstrap(spec));
        for n in 0..GROUPS.len() {
            bench.begin(n);
        }
        bench
    }

    /// a serves at epoch 1 and b is eligible.
    fn begin(&mut self, n: usize) {
        let (group, epoch) = (group(n), Epoch(1));
        self.apply(Body::Assign(Assign {
            group: group.clone(),
            epoch,
            master: node_id("a"),
            run_id: RunId::new("run-a"),
            cause: Cause::Operator,
            evidence: String::new(),
            estimated_loss_bytes: Some(0),
            old_master_eligible: false,
            goes_on: false,
        }));
        self.apply(Body::Serving { group: group.clone(), epoch });
        let members = vec![EligibleMember { node: node_id("b"), run_id: RunId::new("run-b") }];
        let joining = Vec::new();
        self.apply(Body::Eligible { group, epoch, members, joining, has_data: true });
    }

    fn apply(&mut self, body: Body) -> Applied {
        self.index += 1;
        let applied = self.model.apply(self.index, 1, Command { at_unix_ms: 0, body });
        if let Applied::Assigned(g) = &applied {
            let a = self.model.groups[g].assignment.as_ref().unwrap();
            if a.previous_master.is_some() && a.cause.is_automatic() {
                self.recent.failed_over(self.now, g);
            }
        }
        if let Applied::Acknowledged(group) = &applied {
            for g in self.model.groups.keys().filter(|g| group.as_ref().is_none_or(|x| x == *g)) {
                self.recent.acknowledge(self.now, g);
            }
        }
        self.with_round(|leader, round, index| leader.applied(round, index, &applied));
        applied
    }

    fn with_round<T>(&mut self, f: impl FnOnce(&mut Leader, &Round<'_>, u64) -> T) -> T {
        let now = Now { boot: self.now, raw: self.now, unix_ms: 0 };
        let cluster = self.model.spec.clone().unwrap();
        let round = Round {
            now,
            model: &self.model,
            cluster: &cluster,
            paused: &|_| false,
            recent: &self.recent,
            applied: self.index,
        };
        f(&mut self.leader, &round, self.index)
    }

    fn acknowledge(&mut self, group: Option<GroupId>) {
        self.apply(Body::Acknowledge { group });
    }

    /// Reports come in and all groups are planned. Who is assigned.
    fn look(&mut self) -> Vec<(usize, &'static str)> {
        for node in ["a", "b"] {
            if self.is_heard(node) {
                self.reported(node);
            }
        }
        if self.lost.contains(&true) {
            self.reported("c");
        }
        let now = Now { boot: self.now, raw: self.now, unix_ms: 0 };
        let wishes = self.with_round(|leader, round, _| leader.plan_all(round));
        let mut assigned = Vec::new();
        for wish in wishes {
            let LeaderWish::Propose { group, body, is_assign } = wish else {
                panic!("{wish:?}");
            };
            if let Body::Assign(a) = &body {
                let n = GROUPS.iter().position(|g| *g == group.as_str()).unwrap();
                assigned.push((n, if a.master == node_id("a") { "a" } else { "b" }));
            }
            self.leader.proposed(now, &group, is_assign, Some(self.index + 1));
            self.apply(body);
        }
        assigned
    }

    fn is_heard(&self, node: &str) -> bool {
        match node {
            "a" => !self.a_silent,
            _ => !self.b_silent,
        }
    }

    /// Time goes by, and masters that are well are granted on.
    fn later(&mut self, by: Span) {
        self.now += by;
        for n in 0..GROUPS.len() {
            let master = self.model.groups[&group(n)].master().unwrap();
            let name = if master == node_id("a") { "a" } else { "b" };
            if self.is_heard(name) && !(name == "a" && self.dead[n]) {
                self.leader.grantor.grant(self.now, master, &group(n), TTL);
            }
        }
    }

    fn reported(&mut self, node: &'static str) {
        let of = |n: usize| {
            let id = group(n);
            let a = self.model.groups[&id].assignment.as_ref().unwrap();
            let died = node == "a" && self.dead[n];
            let fenced = Fenced {
                epoch: Epoch(1),
                offset: 100,
                confirmed_by_target: false,
                cause: FenceCause::RedisDead,
            };
            GroupReport {
                group: id,
                redis: if died {
                    RedisView::Down(DownReason::Dead)
                } else {
                    RedisView::Up(redis(node, a.master, self.ahead))
                },
                fenced: died.then_some(fenced),
                serving: (a.master == node_id(node)).then_some(a.epoch),
                takeover_failure: None,
                min_replicas: None,
                led: None,
            }
        };
        let groups = (0..GROUPS.len()).map(of).collect();
        let (seq, applied) = (self.now.0, self.index);
        let sights = if node == "a" { Vec::new() } else { self.sights() };
        let report = Report { incarnation: 1, seq, applied, groups, sights };
        self.leader.reported(self.now, node_id(node), report, &self.model);
    }

    fn sights(&self) -> Vec<Sight> {
        let of = |n: usize| {
            let sight =
                |node, seen| Sight { group: group(n), epoch: Epoch(1), node: node_id(node), seen };
            [sight("a", Seen::Lost("no answer".into())), sight("b", Seen::Reached)]
        };
        (0..GROUPS.len()).filter(|n| self.lost[*n]).flat_map(of).collect()
    }

    fn holds(&self) -> [Option<HoldReason>; 3] {
        [0, 1, 2].map(|n| self.leader.hold(&group(n)))
    }
}

fn redis(node: &str, master: NodeId, ahead: u64) -> RedisObservation {
    let run_id = format!("run-{node}");
    match master == node_id(node) {
        true => RedisObservation { offset: 100, ..testing::master(&run_id) },
        false => RedisObservation { offset: 100 + ahead, ..testing::replica(&run_id) },
    }
}

fn mass(failing: usize, limit: u32) -> Option<HoldReason> {
    Some(HoldReason::MassFailure { failing, limit })
}

const MOMENT: Span = Span::from_millis(50);

#[test]
fn more_failures_at_once_than_the_limit_fail_nobody_over() {
    for (limit, failed_over) in [(0, 2), (1, 0), (2, 2)] {
        let mut b = Bench::limited_to(limit);
        assert_eq!(b.look(), [], "all is well");
        b.later(MOMENT);
        b.dead = [true, true, false];
        assert_eq!(b.look().len(), failed_over, "limit {limit}");
        if failed_over == 0 {
            assert_eq!(b.holds(), [mass(2, 1), mass(2, 1), None]);
        }
    }
}

#[test]
fn a_failover_counts_for_a_minute() {
    let mut b = Bench::limited_to(1);
    b.look();
    b.later(MOMENT);
    b.dead[0] = true;
    assert_eq!(b.look(), [(0, "b")]);
    b.later(MOMENT);
    b.dead[1] = true;
    assert_eq!(b.look(), []);
    assert_eq!(b.holds()[1], mass(2, 1));
    b.later(AT_ONCE);
    assert_eq!(b.look(), [(1, "b")], "one at a time may");
}

#[test]
fn an_operator_s_order_is_not_held() {
    let mut b = Bench::limited_to(1);
    b.look();
    b.later(MOMENT);
    b.dead = [true, true, false];
    assert_eq!(b.look(), []);
    let order = Forced { request: RequestId(1), to: Some(node_id("b")), allow_data_loss: false };
    b.leader.force(&group(0), order);
    b.later(MOMENT);
    // The other is then the only one, and goes too.
    assert_eq!(b.look(), [(0, "b"), (1, "b")]);
}

#[test]
fn an_acknowledgement_is_for_the_failures_that_there_are() {
    let mut b = Bench::limited_to(1);
    b.look();
    b.later(MOMENT);
    b.dead = [true, true, false];
    assert_eq!(b.look(), []);
    b.acknowledge(None);
    b.later(MOMENT);
    assert_eq!(b.look().len(), 2);
    b.later(MOMENT);
    b.dead[2] = true;
    assert_eq!(b.look().len(), 1, "the first two count no more");
}

#[test]
fn an_acknowledgement_of_one_group_lets_that_one_go_and_the_others_wait() {
    let mut b = Bench::limited_to(1);
    b.look();
    b.later(MOMENT);
    b.dead = [true; 3];
    assert_eq!(b.look(), []);
    b.acknowledge(Some(group(1)));
    b.later(MOMENT);
    assert_eq!(b.look(), [(1, "b")]);
    assert_eq!([b.holds()[0].clone(), b.holds()[2].clone()], [mass(2, 1), mass(2, 1)]);
}

/// Nobody can be promoted for longer than an acknowledgement holds by time alone.
#[test]
fn an_acknowledgement_lasts_as_long_as_the_failure() {
    let mut b = Bench::limited_to(1);
    b.look();
    (b.dead, b.b_silent) = ([true, true, false], true);
    b.later(Span::from_secs(2));
    assert_eq!(b.look(), []);
    b.acknowledge(None);
    for _ in 0..3 {
        b.later(AT_ONCE);
        assert_eq!(b.look(), []);
        assert_eq!(b.holds()[0], Some(HoldReason::NoCandidate));
    }
    b.b_silent = false;
    b.later(MOMENT);
    assert_eq!(b.look(), [(0, "b"), (1, "b")]);
}

#[test]
fn masters_that_are_heard_again_go_on_at_their_own_node() {
    let mut b = Bench::limited_to(1);
    b.look();
    b.a_silent = true;
    b.later(Span::from_secs(2));
    assert_eq!(b.look(), []);
    assert_eq!(b.holds(), [mass(3, 1), mass(3, 1), mass(3, 1)]);
    b.a_silent = false;
    b.now += MOMENT;
    assert_eq!(b.look(), [(0, "a"), (1, "a"), (2, "a")]);
}

/// The lease of a lost host may end a moment before the host counts as silent, and its replicas may have been asked later than it.
#[test]
fn masters_whose_replicas_would_be_named_count_although_their_node_is_heard() {
    let mut b = Bench::limited_to(1);
    b.look();
    b.later(MOMENT);
    b.look();
    b.a_silent = true;
    b.ahead = 10;
    b.now += MOMENT;
    b.now += MOMENT;
    // Something of it was heard after its last report and its last grant.
    b.leader.heard(b.now, node_id("a"), testing::cluster().timing.silent_after());
    b.now += Span(b.leader.grantor.wait_left(b.now, &group(0)).0 - 1);
    assert_eq!(b.look(), [], "its lease runs");
    b.now += Span(1);
    assert_eq!(b.look(), []);
    assert_eq!(b.holds(), [mass(3, 1), mass(3, 1), mass(3, 1)]);
}

/// The next leader counts what it sees, and knows what was acknowledged a moment ago.
#[test]
fn the_next_leader_knows_of_an_acknowledgement() {
    let mut b = Bench::limited_to(1);
    b.look();
    b.dead = [true, true, false];
    b.later(MOMENT);
    assert_eq!(b.look(), []);
    b.acknowledge(None);
    let at = Now { boot: b.now, raw: b.now, unix_ms: 0 };
    let timing = b.model.spec.as_ref().unwrap().timing;
    let elected = Elected { term: 2, last_index: b.index };
    b.leader = Leader::new(node_id("c"), elected, at, timing, Mutations::NONE);
    b.later(MOMENT);
    assert_eq!(b.look(), [(0, "b"), (1, "b")]);
}

#[test]
fn masters_that_a_majority_cannot_reach_count_too() {
    let mut b = Bench::limited_to(1);
    for _ in 0..30 {
        assert_eq!(b.look(), [], "all is well");
        b.later(MOMENT);
    }
    b.lost = [true, true, false];
    assert_eq!(b.look(), []);
    assert_eq!(b.holds(), [mass(2, 1), mass(2, 1), None]);
}

/// Found by the simulator: a leader that was stopped took its own time for a wait, and named whom it heard first.
#[test]
fn time_in_which_the_leader_stood_still_counts_for_no_wait() {
    let mut b = Bench::limited_to(0);
    b.look();
    let waits_from = |b: &Bench| b.leader.assigned_at(&crate::leader::GroupLead::default());
    let began = waits_from(&b);
    let silence = testing::cluster().timing.silent_after();
    b.later(silence);
    b.look();
    assert_eq!(waits_from(&b), began);
    b.later(Span(silence.0 + 1));
    b.look();
    assert_eq!(waits_from(&b), b.now);
}
