//! Round trips of every kind of message, typed refusals, and mutated bytes.

use prost::Message as _;
use redkeep_core::{
    ArmId, Epoch, GroupId, Mono, NodeId, RunId, Span,
    message::{Grant, PeerMessage, RaftClass, Reach, ReachStep, Renew, RenewGroup},
    observe::{
        AttachedReplica, Bypass, DownReason, EligibleMember, FenceCause, Fenced, GroupReport, Led,
        PreviousHistory, ProbeFailure, RedisObservation, RedisRole, RedisView, Report, Seen, Sight,
        TakeoverFailure,
    },
};
use redkeep_proto::peer::v1 as pb;

use super::{DecodeError, decode, encode};

const FAILURES: [ProbeFailure; 9] = [
    ProbeFailure::Timeout,
    ProbeFailure::Refused,
    ProbeFailure::Closed,
    ProbeFailure::Loading,
    ProbeFailure::Busy,
    ProbeFailure::Misconfigured,
    ProbeFailure::Denied,
    ProbeFailure::Protocol,
    ProbeFailure::WritesHeld,
];
const DOWNS: [DownReason; 7] = [
    DownReason::Dead,
    DownReason::Hung,
    DownReason::LoadingTooLong,
    DownReason::DiskError,
    DownReason::Denied,
    DownReason::Protocol,
    DownReason::WritesHeld,
];
const CAUSES: [FenceCause; 8] = [
    FenceCause::RedisDead,
    FenceCause::RunIdChanged,
    FenceCause::WrongRole,
    FenceCause::LeaderAsked,
    FenceCause::Unreached,
    FenceCause::Switchover,
    FenceCause::TakeoverFailed,
    FenceCause::Stopping,
];
const TAKEOVERS: [Option<TakeoverFailure>; 5] = [
    None,
    Some(TakeoverFailure::Promote),
    Some(TakeoverFailure::Vip),
    Some(TakeoverFailure::NotAnsweringAtVip),
    Some(TakeoverFailure::Lock),
];

fn observation(n: u64) -> RedisObservation {
    let role = if n.is_multiple_of(2) {
        RedisRole::Master
    } else {
        RedisRole::Replica {
            master_host: "10.99.0.1".to_owned(),
            master_port: 16_465,
            link_up: n % 4 == 1,
            read_only: n % 8 == 1,
        }
    };
    RedisObservation {
        run_id: RunId::new("62bb0b8c"),
        role,
        replication_id: "7d1c".to_owned(),
        previous: (n.is_multiple_of(3))
            .then(|| PreviousHistory { replication_id: "11aa".to_owned(), until_offset: n }),
        offset: u64::MAX - n,
        keys: n,
        backlog_from: std::num::NonZeroU64::new(n % 5),
        replicas: ["10.99.0.2", "fd99::2"]
            .map(|addr| AttachedReplica {
                addr: addr.parse().unwrap(),
                port: 16_465,
                online: n.is_multiple_of(5),
                offset: n,
                lag: Span(n),
            })
            .to_vec(),
        version: "7.0.15".to_owned(),
        append_only: n.is_multiple_of(2),
        settled: n.is_multiple_of(7),
        bypass: match n % 3 {
            0 => Vec::new(),
            1 => vec![Bypass::Tcp("[fd99::1]:6380".parse().unwrap())],
            _ => vec![
                Bypass::Tcp("10.99.0.1:6380".parse().unwrap()),
                Bypass::Unix { path: "/run/a b".to_owned(), mode: 0o777, uid: u32::MAX },
            ],
        },
    }
}

/// Each number gives another message; all enum values come up within 1260.
fn message(n: u64) -> PeerMessage {
    let pick = |len: usize| usize::try_from(n / 9).unwrap() % len;
    let group = GroupId::new("pair");
    let arm = ArmId { incarnation: n, counter: u64::MAX - n };
    match n % 9 {
        0 => PeerMessage::Raft {
            bytes: n.to_le_bytes().to_vec(),
            class: [RaftClass::Heartbeat, RaftClass::Other][pick(2)],
        },
        1 => PeerMessage::Renew {
            term: n ^ 7,
            renew: Renew {
                arm,
                last_grant: (n % 4 == 1).then_some(arm),
                ttl: Span(300_000_000),
                groups: vec![RenewGroup {
                    group,
                    epoch: Epoch(n),
                    lagging: vec![EligibleMember { node: NodeId(n), run_id: RunId::new("r") }],
                }],
            },
        },
        2 => PeerMessage::Grant(Grant {
            arm,
            term: n,
            groups: vec![(group.clone(), Epoch(n)), (GroupId::new("other"), Epoch(0))],
            from: NodeId(n),
        }),
        3 => PeerMessage::FenceRequest { group, epoch: Epoch(n), unreached: n.is_multiple_of(2) },
        4 => PeerMessage::Reach(Reach {
            step: [ReachStep::Ask, ReachStep::Ping, ReachStep::Pong, ReachStep::Heard][pick(4)],
            target: NodeId(n),
            asker: NodeId(u64::MAX - n),
            asked_at: Mono(n),
        }),
        5 => PeerMessage::RelinkRequest { group, epoch: Epoch(n) },
        _ => {
            let redis = match pick(4) {
                0 => RedisView::Unknown,
                1 => RedisView::Up(observation(n)),
                2 => RedisView::Doubtful(observation(n), FAILURES[pick(32) / 4]),
                _ => RedisView::Down(DOWNS[pick(24) / 4]),
            };
            let fenced = Fenced {
                epoch: Epoch(n),
                offset: n,
                confirmed_by_target: n.is_multiple_of(4),
                cause: CAUSES[pick(8)],
            };
            let report = GroupReport {
                group,
                redis,
                fenced: (n % 12 > 5).then_some(fenced),
                serving: (n.is_multiple_of(5)).then_some(Epoch(n)),
                takeover_failure: TAKEOVERS[pick(5)],
                min_replicas: n.is_multiple_of(3).then_some(2),
                led: (n % 9 > 4).then(|| Led { epoch: Epoch(n), data: observation(n).lineage() }),
            };
            let seen = match pick(3) {
                0 => Seen::Reached,
                1 => Seen::Lost("no answer".to_owned()),
                _ => Seen::Never(String::new()),
            };
            let sight =
                Sight { group: report.group.clone(), epoch: Epoch(n), node: NodeId(n), seen };
            let (groups, sights) = (vec![report], vec![sight]);
            PeerMessage::Report(Report { incarnation: n, seq: n, applied: n, groups, sights })
        }
    }
}

#[test]
fn every_message_survives_the_round_trip() {
    for n in 1..3_000 {
        let before = message(n);
        let bytes = encode(&before).encode_to_vec();
        let after = decode(pb::Message::decode(bytes.as_slice()).unwrap()).unwrap();
        assert_eq!(before, after);
    }
}

fn refuse(body: Option<pb::message::Body>) -> String {
    decode(pb::Message { body }).unwrap_err().to_string()
}

#[test]
fn an_unknown_message_is_refused_by_name() {
    let error = decode(pb::Message { body: None }).unwrap_err();
    assert!(matches!(error, DecodeError::Missing { field: "message.body" }));
}

#[test]
fn each_bad_field_is_named() {
    use pb::message::Body;
    let raft = pb::RaftMessage { bytes: vec![], class: 0 };
    assert!(refuse(Some(Body::Raft(raft))).starts_with("raft.class has the value 0"));
    assert!(refuse(Some(Body::Renew(pb::Renew::default()))).starts_with("renew.arm is missing"));
    let grant = pb::Grant { arm: Some(pb::ArmId::default()), ..pb::Grant::default() };
    assert!(refuse(Some(Body::Grant(grant))).starts_with("grant.from is 0"));
    let fence = pb::FenceRequest::default();
    let reach = pb::Reach::default();
    assert!(refuse(Some(Body::Reach(reach))).starts_with("reach.step has the value 0"));
    assert!(refuse(Some(Body::FenceRequest(fence))).starts_with("fence_request.group is missing"));
    let relink = pb::RelinkRequest::default();
    let told = refuse(Some(Body::RelinkRequest(relink)));
    assert!(told.starts_with("relink_request.group is missing"));
}

#[test]
fn each_bad_field_of_a_report_is_named() {
    let good = |n| match encode(&message(n)).body {
        Some(pb::message::Body::Report(report)) => report,
        other => panic!("{other:?}"),
    };
    let with_up = (0..200).map(|n| n * 7 + 5).find(|n| {
        matches!(message(*n), PeerMessage::Report(r) if matches!(r.groups[0].redis, RedisView::Up(_)))
    });
    let with_up = with_up.unwrap();
    let check = |spoil: &dyn Fn(&mut pb::GroupReport), wanted: &str| {
        let mut report = good(with_up);
        spoil(&mut report.groups[0]);
        let text = refuse(Some(pb::message::Body::Report(report)));
        assert!(text.starts_with(wanted), "{text}");
    };
    let up = |g: &mut pb::GroupReport, spoil: &dyn Fn(&mut pb::RedisObservation)| {
        let Some(pb::redis_view::State::Up(seen)) = g.redis.as_mut().and_then(|r| r.state.as_mut())
        else {
            panic!("not up");
        };
        spoil(seen);
    };
    check(&|g| g.redis = None, "report.groups.redis is missing");
    check(&|g| g.takeover_failure = 9, "report.groups.takeover_failure has the value 9");
    check(&|g| g.fenced = Some(pb::Fenced::default()), "fenced.cause has the value 0");
    check(&|g| up(g, &|s| s.role = None), "redis_observation.role is missing");
    check(&|g| up(g, &|s| s.replicas[0].address.clear()), "attached_replica.address is \"\"");
    check(&|g| up(g, &|s| s.replicas[0].port = 70_000), "attached_replica.port is 70000");
}

/// Cut or change bytes: the message decodes or is refused, and never panics.
#[test]
fn mutated_bytes_never_panic() {
    let mut seed = 1_u64;
    let mut draw = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % n
    };
    let (mut decoded, mut refused) = (0_u32, 0_u32);
    for n in 1..100_000 {
        let mut bytes = encode(&message(n)).encode_to_vec();
        for _ in 0..=draw(3) {
            let at = draw(bytes.len().max(1));
            match draw(3) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, u8::try_from(draw(256)).unwrap()),
                _ if at < bytes.len() => bytes[at] ^= 1 << draw(8),
                _ => bytes.push(0),
            }
        }
        match pb::Message::decode(bytes.as_slice()).map(decode) {
            Ok(Ok(message)) => {
                assert_eq!(decode(encode(&message)).unwrap(), message);
                decoded += 1;
            }
            Ok(Err(_)) | Err(_) => refused += 1,
        }
    }
    assert!(decoded > 1_000 && refused > 10_000, "decoded {decoded}, refused {refused}");
}
