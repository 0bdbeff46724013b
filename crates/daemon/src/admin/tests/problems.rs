//! Each trouble is said once, with its severity and the command that helps.

use std::{net::SocketAddr, sync::Arc};

use redkeep_core::{
    GroupId, Span,
    ids::node_id,
    observe::{Bypass, DownReason, ProbeFailure, RedisRole, RedisView, TakeoverFailure},
    plan::HoldReason,
    spec::Durability,
    status::StatusView,
};
use redkeep_proto::admin::v1::{Problem, Severity};

use super::prepared::{observation, pair, replica_of};
use crate::admin::{problems, view::View};

fn of(status: StatusView) -> Vec<Problem> {
    let me = "a".to_owned();
    let history = Arc::default();
    problems::of(&View { me, status: Arc::new(status), history, leader_heard_ago: None })
}

/// One change to a sound view gives exactly these problems.
fn check(change: impl FnOnce(&mut StatusView), expected: &[(Severity, &str, &str)]) {
    let mut view = pair().leading();
    change(&mut view);
    let found = of(view);
    let told: Vec<_> =
        found.iter().map(|p| (p.severity(), p.text.as_str(), p.help.as_str())).collect();
    assert_eq!(told, expected);
}

const EXPLAIN: &str = "redkeepctl explain pair";
const REDIS: &str = "systemctl status redis-server (on that node)";
use Severity::{Critical, Warning};

#[test]
fn a_sound_cluster_has_no_problems() {
    check(|_| {}, &[]);
}

#[test]
fn a_silent_supervisor_is_named_with_its_silence() {
    let text = "the supervisor of w is silent for 1.5 s";
    let help = "systemctl status redkeepd (on that node)";
    check(|v| v.nodes[2].heard_ago = Some(Span::from_millis(1_500)), &[(Warning, text, help)]);
    let text = "the supervisor of w was never heard by this leader";
    check(|v| v.nodes[2].heard_ago = None, &[(Warning, text, help)]);
    check(|v| v.nodes.truncate(2), &[(Warning, text, help)]);
}

#[test]
fn a_group_that_nobody_serves_is_critical_and_says_why() {
    check(
        |v| {
            v.groups[0].serving = false;
            v.groups[0].hold = Some(HoldReason::TakeoverRunning { left: Span::from_millis(900) });
        },
        &[(
            Critical,
            "a was made master and does not serve yet: the new master has 900ms left to start serving",
            EXPLAIN,
        )],
    );
    check(
        |v| {
            v.groups[0].master = None;
            v.groups[0].serving = false;
            v.groups[0].hold = Some(HoldReason::AdoptionIncomplete);
        },
        &[(
            Critical,
            "no master was assigned yet: first start: not all members have reported yet",
            "systemctl status redkeepd redis-server (on each member)",
        )],
    );
}

#[test]
fn a_takeover_that_cannot_go_on_names_the_step_and_where_to_look() {
    let steps = [
        (
            TakeoverFailure::Promote,
            "Redis at a cannot be made master",
            "journalctl -u redkeepd says what it answered: password, ACL, rename_commands (on that node)",
        ),
        (
            TakeoverFailure::Vip,
            "a cannot add the VIP 10.99.0.100 to eth0",
            "ip link show eth0 (on that node)",
        ),
        (
            TakeoverFailure::NotAnsweringAtVip,
            "Redis at a does not answer at the VIP 10.99.0.100",
            "bind in redis.conf must let 10.99.0.100 in: redis-cli CONFIG GET bind (on that node)",
        ),
        (
            TakeoverFailure::Lock,
            "the kernel lock at a cannot be worked: its port may be open to all",
            "journalctl -u redkeepd says what the kernel answered; nft list table inet redkeep (on that node)",
        ),
    ];
    for (failure, text, help) in steps {
        check(
            |v| {
                v.groups[0].serving = false;
                v.groups[0].members[0].serving = None;
                v.groups[0].members[0].takeover_failure = Some(failure);
            },
            &[
                (Critical, "a was made master and does not serve yet", EXPLAIN),
                (Critical, text, help),
            ],
        );
    }
}

/// Without a quorum the log still says "serving"; the holder's own host says that its lease ended.
#[test]
fn a_master_whose_lease_ended_is_critical() {
    let text = "a is the master but does not serve at the VIP now: it holds no lease";
    check(|v| v.groups[0].members[0].serving = None, &[(Critical, text, EXPLAIN)]);
}

#[test]
fn a_dead_master_comes_before_a_lost_link() {
    check(
        |v| {
            v.groups[0].members[0].redis = RedisView::Down(DownReason::Dead);
            v.groups[0].hold = Some(HoldReason::NoCandidate);
            let RedisView::Up(seen) = &mut v.groups[0].members[1].redis else { panic!() };
            let RedisRole::Replica { link_up, .. } = &mut seen.role else { panic!() };
            *link_up = false;
        },
        &[
            (
                Critical,
                "the group waits: no eligible replica is up",
                "start Redis and redkeepd of the members; if they are gone: redkeepctl failover pair --to NODE --allow-data-loss --dry-run",
            ),
            (Critical, "Redis at a is down: its process died", REDIS),
            (Warning, "Redis at b has lost its link to the master", EXPLAIN),
        ],
    );
}

#[test]
fn a_replica_that_is_not_one_is_named() {
    let b = |redis| move |v: &mut StatusView| v.groups[0].members[1].redis = redis;
    check(
        b(RedisView::Up(observation("rb", RedisRole::Master, 1))),
        &[(Warning, "Redis at b is a master, but not the group's; its port is closed", EXPLAIN)],
    );
    check(
        b(RedisView::Up(observation("rb", replica_of("10.99.0.9"), 1))),
        &[(Warning, "Redis at b follows 10.99.0.9:16465 and not 10.99.0.1:16465", EXPLAIN)],
    );
    let mut writable = observation("rb", replica_of("10.99.0.1"), 1);
    let RedisRole::Replica { read_only, .. } = &mut writable.role else { panic!() };
    *read_only = false;
    check(
        b(RedisView::Up(writable)),
        &[(
            Warning,
            "Redis at b is a replica that takes writes (replica-read-only no); its port is closed",
            "replica-read-only yes in redis.conf, then systemctl restart redis-server (on that node)",
        )],
    );
    check(
        |v| {
            let member = &mut v.groups[0].members[1];
            member.redis = RedisView::Up(observation("rb", RedisRole::Master, 1));
            member.takeover_failure = Some(TakeoverFailure::Lock);
        },
        &[
            (Warning, "Redis at b is a master, but not the group's", EXPLAIN),
            (
                Warning,
                "the kernel lock at b cannot be worked: its port may be open to all",
                "journalctl -u redkeepd says what the kernel answered; nft list table inet redkeep (on that node)",
            ),
        ],
    );
    let seen = observation("rb", replica_of("10.99.0.1"), 1);
    check(
        b(RedisView::Doubtful(seen, ProbeFailure::Timeout)),
        &[(Warning, "Redis at b did not answer its last probe", EXPLAIN)],
    );
    check(
        b(RedisView::Unknown),
        &[(Warning, "Redis at b has not answered since its supervisor started", EXPLAIN)],
    );
}

#[test]
fn a_way_around_the_lock_is_told_of_each_member_with_what_closes_it() {
    let open = |index: usize, way: Bypass| {
        move |v: &mut StatusView| {
            let RedisView::Up(seen) = &mut v.groups[0].members[index].redis else { panic!() };
            seen.bypass = vec![way];
        }
    };
    check(
        open(0, Bypass::Tcp("10.99.0.1:6380".parse().unwrap())),
        &[(
            Warning,
            "Redis at a can be reached around the lock: it listens on 10.99.0.1:6380 besides the group's port",
            "CONFIG SET tls-port 0 (or port back to the group's), the same in redis.conf (on that node)",
        )],
    );
    check(
        open(1, Bypass::Unix { path: "/run/r".to_owned(), mode: 0o777, uid: 0 }),
        &[(
            Warning,
            "Redis at b can be reached around the lock: others may open its unix socket /run/r (mode 777, owner 0)",
            "chmod 700 /run/r, and unixsocketperm 700 in redis.conf (on that node)",
        )],
    );
}

#[test]
fn a_way_around_the_lock_that_holds_the_group_is_told_once() {
    let way = Bypass::Unix { path: "/run/r".to_owned(), mode: 0o777, uid: 0 };
    check(
        |v| {
            let RedisView::Up(seen) = &mut v.groups[0].members[0].redis else { panic!() };
            seen.bypass = vec![way.clone()];
            v.groups[0].hold = Some(HoldReason::Bypass { node: "a".to_owned(), open: vec![way] });
        },
        &[(
            Warning,
            "the group waits: Redis at a can be reached around the lock: others may open its unix socket /run/r (mode 777, owner 0)",
            "chmod 700 /run/r, and unixsocketperm 700 in redis.conf (on that node)",
        )],
    );
}

#[test]
fn no_eligible_replica_and_a_pause_are_warnings() {
    check(
        |v| v.groups[0].eligible.clear(),
        &[(
            Warning,
            "no replica may be promoted: losing the master now stops the service",
            EXPLAIN,
        )],
    );
    check(
        |v| v.groups[0].paused_for = Some(Span::from_secs(61)),
        &[(Warning, "automatic failover is paused for 61 s more", "redkeepctl resume pair")],
    );
    check(
        |v| {
            v.groups[0].paused_for = Some(Span::from_secs(61));
            v.groups[0].paused_with_all = true;
        },
        &[(Warning, "automatic failover is paused for 61 s more", "redkeepctl resume")],
    );
}

#[test]
fn brakes_name_the_command_that_ends_them() {
    let cooldown = HoldReason::Cooldown { left: Span::from_secs(9) };
    let mass = HoldReason::MassFailure { failing: 3, limit: 1 };
    for (hold, help) in [
        (cooldown, "redkeepctl acknowledge pair ends it; failover pair does not wait"),
        (mass, "redkeepctl status, then acknowledge [pair]; failover pair does not wait"),
    ] {
        assert!(hold.to_string().contains("redkeepctl acknowledge"), "{hold}");
        let text = format!("the group waits: {hold}");
        check(|v| v.groups[0].hold = Some(hold), &[(Warning, &text, help)]);
    }
}

#[test]
fn a_strict_group_whose_redis_does_not_ask_for_its_replicas_is_told() {
    let text = "durability is strict, and Redis at a does not ask for 1 attached replicas";
    let help = "journalctl -u redkeepd says what it answered: ACL, rename_commands (on that node)";
    for told in [None, Some(0)] {
        let change = |v: &mut StatusView| {
            (v.groups[0].durability, v.groups[0].min_replicas) = (Durability::Strict, told);
        };
        check(change, &[(Warning, text, help)]);
    }
    let told = |v: &mut StatusView| {
        (v.groups[0].durability, v.groups[0].min_replicas) = (Durability::Strict, Some(1));
    };
    check(told, &[]);
}

#[test]
fn without_a_leader_the_cluster_comes_first() {
    let found = of(pair().leaderless());
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].severity(), found[0].group.as_str()), (Critical, ""));
}

#[test]
fn a_follower_does_not_guess_about_others() {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let view = pair().following_at(nobody);
    assert_eq!(view.groups[0].group, GroupId::new("pair"));
    assert_eq!(view.node, node_id("w"));
    assert_eq!(of(view), []);
}
