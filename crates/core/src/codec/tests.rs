//! Round trips over generated values, typed refusals, mutated bytes, and bytes that must stay readable for ever.

use core::net::{IpAddr, SocketAddr};

use prost::Message as _;
use redkeep_consensus::{NodeId, Span};
use redkeep_proto::log::v1 as pb;

use super::{CodecError, decode_command, decode_model, encode_command, encode_model};
use crate::{
    command::{Assign, Body, Cause, Command},
    ids::{Epoch, GroupId, RunId},
    model::{Assignment, GroupModel, Model, Pause, Record, RecordKind},
    observe::EligibleMember,
    spec::{ClusterSpec, Durability, GroupSpec, Member, NodeSpec, ProbeTiming, Timing, Vip},
};

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    /// Small, large and extreme values alike.
    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(3),
            1 => u64::MAX - self.below(3),
            _ => self.next() >> self.below(64),
        }
    }
    fn small(&mut self) -> u32 {
        u32::try_from(self.number() & 0xffff_ffff).unwrap()
    }
    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
    fn text(&mut self) -> String {
        let letters = ['a', 'Z', '0', '-', ' ', '"', '\n', 'é', '漢', '\u{0}'];
        (0..self.below(9)).map(|_| letters[usize::try_from(self.below(10)).unwrap()]).collect()
    }
    fn node(&mut self) -> NodeId {
        NodeId(self.number().max(1))
    }
    fn group(&mut self) -> GroupId {
        GroupId::new(&format!("g{}{}", self.below(100), self.text()))
    }
    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.coin() { Some(make(self)) } else { None }
    }
    fn some<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(4)).map(|_| make(self)).collect()
    }
    fn span(&mut self) -> Span {
        Span(self.number())
    }
    fn run_id(&mut self) -> RunId {
        RunId::new(&format!("{:040x}", self.next()))
    }
    fn eligible(&mut self) -> EligibleMember {
        EligibleMember { node: self.node(), run_id: self.run_id() }
    }
    fn ip(&mut self) -> IpAddr {
        if self.coin() {
            IpAddr::from(self.small().to_be_bytes())
        } else {
            IpAddr::from((u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes())
        }
    }
    fn port(&mut self) -> u16 {
        u16::try_from(self.below(65536)).unwrap()
    }
    fn cause(&mut self) -> Cause {
        let all = [
            Cause::Adopted,
            Cause::MasterDown,
            Cause::NodeSilent,
            Cause::MasterUnreached,
            Cause::Switchover,
            Cause::SwitchoverBack,
            Cause::Operator,
            Cause::ColdStart,
        ];
        all[usize::try_from(self.below(8)).unwrap()]
    }
    fn socket(&mut self) -> SocketAddr {
        SocketAddr::new(self.ip(), self.port())
    }
}

fn spec(dice: &mut Dice) -> ClusterSpec {
    ClusterSpec {
        name: dice.text(),
        timing: Timing {
            lease_ttl: dice.span(),
            max_clock_drift_ppm: dice.number(),
            margin: dice.span(),
            switchover_timeout: dice.span(),
            takeover_timeout: dice.span(),
            cold_start_wait: dice.span(),
            failover_cooldown: dice.span(),
        },
        mass_failure_limit: dice.small(),
        nodes: dice.some(node_spec),
        groups: dice.some(group_spec),
    }
}

fn node_spec(d: &mut Dice) -> NodeSpec {
    NodeSpec { id: d.node(), name: d.text(), peer: d.socket(), admin: d.socket(), added: d.coin() }
}

fn group_spec(d: &mut Dice) -> GroupSpec {
    let addr = d.ip();
    let longest = if addr.is_ipv4() { 32 } else { 128 };
    GroupSpec {
        id: d.group(),
        port: d.port(),
        vip: Vip { addr, prefix: u8::try_from(d.below(longest + 1)).unwrap() },
        interface: d.text(),
        members: d.some(|d| Member { node: d.node(), priority: d.small() }),
        probe: ProbeTiming {
            interval: d.span(),
            timeout: d.span(),
            fall: d.small(),
            loading_timeout: d.span(),
        },
        max_lag: d.span(),
        max_lag_bytes: d.number(),
        min_replicas_to_write: d.small(),
        durability: if d.below(2) == 0 { Durability::Async } else { Durability::Strict },
    }
}

const BODIES: u64 = 13;

fn command(dice: &mut Dice, body: u64) -> Command {
    let at_unix_ms = dice.number();
    let (group, epoch) = (dice.group(), Epoch(dice.number()));
    let body = match body {
        0 => Body::Bootstrap(spec(dice)),
        1 => Body::Assign(Assign {
            group,
            epoch,
            master: dice.node(),
            run_id: dice.run_id(),
            cause: dice.cause(),
            evidence: dice.text(),
            estimated_loss_bytes: dice.maybe(Dice::number),
            old_master_eligible: dice.coin(),
            goes_on: dice.coin(),
        }),
        2 => Body::Serving { group, epoch },
        3 => Body::Eligible {
            group,
            epoch,
            members: dice.some(Dice::eligible),
            joining: dice.some(Dice::eligible),
            has_data: dice.coin(),
        },
        4 => Body::Switchover { group, epoch, to: dice.node() },
        5 => Body::SwitchoverAbort { group, epoch, reason: dice.text() },
        6 => Body::Pause { group: dice.maybe(Dice::group), duration: dice.span() },
        7 => Body::Resume { group: dice.maybe(Dice::group) },
        8 => Body::AddNode(node_spec(dice)),
        9 => Body::RemoveNode { node: dice.node() },
        10 => {
            Body::AddMember { group, member: Member { node: dice.node(), priority: dice.small() } }
        }
        11 => Body::RemoveMember { group, node: dice.node() },
        _ => Body::Acknowledge { group: dice.maybe(Dice::group) },
    };
    Command { at_unix_ms, body }
}

fn pause(d: &mut Dice) -> Pause {
    Pause { index: d.number(), duration: d.span() }
}

fn record(d: &mut Dice) -> Record {
    let kind = match d.below(12) {
        0 => RecordKind::Bootstrapped,
        1 => RecordKind::Assigned {
            master: d.node(),
            from: d.maybe(Dice::node),
            cause: d.cause(),
            evidence: d.text(),
            estimated_loss_bytes: d.maybe(Dice::number),
        },
        2 => RecordKind::Serving { master: d.node() },
        3 => RecordKind::SwitchoverStarted { to: d.node() },
        4 => RecordKind::SwitchoverAborted { reason: d.text() },
        5 => RecordKind::Paused { duration: d.span() },
        6 => RecordKind::NodeAdded { name: d.text() },
        7 => RecordKind::NodeRemoved { name: d.text() },
        8 => RecordKind::MemberAdded { node: d.node() },
        9 => RecordKind::MemberRemoved { node: d.node() },
        10 => RecordKind::Resumed,
        _ => RecordKind::Acknowledged,
    };
    Record {
        index: d.number(),
        term: d.number(),
        at_unix_ms: d.number(),
        group: d.maybe(Dice::group),
        epoch: Epoch(d.number()),
        kind,
    }
}

fn group_model(d: &mut Dice) -> GroupModel {
    GroupModel {
        assignment: d.maybe(|d| Assignment {
            epoch: Epoch(d.number()),
            master: d.node(),
            run_id: d.run_id(),
            cause: d.cause(),
            index: d.number(),
            serving: d.coin(),
            previous_master: d.maybe(Dice::node),
            since: Epoch(1),
        }),
        eligible: d.some(Dice::eligible),
        joining: d.some(Dice::eligible),
        has_data: d.coin(),
        switchover: d.maybe(Dice::node),
        pause: d.maybe(pause),
    }
}

fn model(dice: &mut Dice) -> Model {
    Model {
        spec: dice.maybe(spec),
        groups: dice.some(|d| (d.group(), group_model(d))).into_iter().collect(),
        pause: dice.maybe(pause),
        history: (0..dice.below(20)).map(|_| record(dice)).collect(),
        left: dice.some(node_spec),
    }
}

#[test]
fn every_command_survives_the_round_trip() {
    let mut dice = Dice(1);
    for n in 0..4_000 {
        let before = command(&mut dice, n % BODIES);
        let after = decode_command(&encode_command(&before)).unwrap();
        assert_eq!(before, after);
    }
}

#[test]
fn every_model_survives_the_round_trip() {
    let mut dice = Dice(2);
    for _ in 0..1_000 {
        let before = model(&mut dice);
        let after = decode_model(&encode_model(&before)).unwrap();
        assert_eq!(before, after);
    }
}

/// A snapshot of a model that applied commands is the model, and goes on alike.
#[test]
fn a_restored_model_applies_like_the_original() {
    let mut dice = Dice(3);
    let mut cluster = spec(&mut dice);
    while cluster.groups.is_empty() || cluster.groups.iter().any(|g| g.members.is_empty()) {
        cluster = spec(&mut dice);
    }
    let (group, master) = (cluster.groups[0].id.clone(), cluster.groups[0].members[0].node);
    let mut original = Model::default();
    original.apply(1, 1, Command { at_unix_ms: 5, body: Body::Bootstrap(cluster) });
    let mut restored = decode_model(&encode_model(&original)).unwrap();
    let assign = Body::Assign(Assign {
        group: group.clone(),
        epoch: Epoch(1),
        master,
        run_id: dice.run_id(),
        cause: Cause::Adopted,
        evidence: String::new(),
        estimated_loss_bytes: Some(0),
        old_master_eligible: false,
        goes_on: false,
    });
    for (index, body) in [(2, assign), (3, Body::Serving { group, epoch: Epoch(1) })] {
        let entry = Command { at_unix_ms: index, body };
        let copy = decode_command(&encode_command(&entry)).unwrap();
        assert_eq!(original.apply(index, 1, entry), restored.apply(index, 1, copy));
    }
    assert_eq!(original, restored);
    assert_eq!(original.history.len(), 3);
}

/// Flip, cut, insert and splice valid bytes: each result decodes or is refused, and what decodes is stable.
#[test]
fn mutated_bytes_never_panic() {
    let mut dice = Dice(4);
    let (mut decoded, mut refused) = (0_u32, 0_u32);
    for n in 0..100_000 {
        let whole_model = n % 4 == 0;
        let mut bytes = if whole_model {
            encode_model(&model(&mut dice))
        } else {
            encode_command(&command(&mut dice, n % BODIES))
        };
        for _ in 0..=dice.below(4) {
            mutate(&mut dice, &mut bytes);
        }
        let stable = if whole_model {
            decode_model(&bytes).map(|m| decode_model(&encode_model(&m)).unwrap() == m)
        } else {
            decode_command(&bytes).map(|c| decode_command(&encode_command(&c)).unwrap() == c)
        };
        match stable {
            Ok(same) => {
                assert!(same);
                decoded += 1;
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                refused += 1;
            }
        }
    }
    assert!(decoded > 1_000 && refused > 10_000, "decoded {decoded}, refused {refused}");
}

fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let at = usize::try_from(dice.below(bytes.len() as u64 + 1)).unwrap();
    let byte = u8::try_from(dice.below(256)).unwrap();
    match dice.below(4) {
        0 => bytes.truncate(at),
        1 => bytes.insert(at, byte),
        2 if at < bytes.len() => bytes[at] = byte,
        _ if at < bytes.len() => bytes[at] ^= 1 << (byte % 8),
        _ => bytes.push(byte),
    }
}

fn assign_proto() -> pb::Assign {
    pb::Assign {
        group: "pair".to_owned(),
        epoch: 3,
        master: 7,
        run_id: "r".to_owned(),
        cause: pb::Cause::MasterDown.into(),
        evidence: String::new(),
        estimated_loss_bytes: 0,
        loss_unknown: false,
        old_master_eligible: false,
        goes_on: false,
    }
}

fn refuse(body: Option<pb::command::Body>, format: u32) -> CodecError {
    decode_command(&pb::Command { format, at_unix_ms: 0, body }.encode_to_vec()).unwrap_err()
}

#[test]
fn an_unknown_command_is_refused_by_name() {
    let error = refuse(None, 1);
    assert!(matches!(error, CodecError::Missing { field: "command.body" }), "{error}");
    // Field 99 of a later version: prost alone would skip it.
    let later = [0x08, 0x01, 0x9a, 0x06, 0x00];
    let error = decode_command(&later).unwrap_err();
    assert!(matches!(error, CodecError::Missing { field: "command.body" }), "{error}");
}

#[test]
fn a_newer_format_is_refused_before_anything_else() {
    let error = refuse(None, 2);
    assert!(matches!(error, CodecError::Format { found: 2, .. }), "{error}");
    let empty = decode_command(&[]).unwrap_err();
    assert!(matches!(empty, CodecError::Format { found: 0, .. }), "{empty}");
}

#[test]
fn an_unknown_enum_value_is_refused_by_name() {
    for value in [0, 9, -1] {
        let assign = pb::Assign { cause: value, ..assign_proto() };
        let error = refuse(Some(pb::command::Body::Assign(assign)), 1);
        let CodecError::UnknownValue { field: "assign.cause", value: seen } = error else {
            panic!("{error}");
        };
        assert_eq!(seen, value);
    }
}

#[test]
fn node_zero_and_an_unnamed_group_are_refused() {
    let nobody = pb::Assign { master: 0, ..assign_proto() };
    let error = refuse(Some(pb::command::Body::Assign(nobody)), 1);
    assert!(matches!(error, CodecError::OutOfRange { field: "assign.master", value: 0 }));
    let unnamed = pb::Assign { group: String::new(), ..assign_proto() };
    let error = refuse(Some(pb::command::Body::Assign(unnamed)), 1);
    assert!(matches!(error, CodecError::Missing { field: "assign.group" }));
}

#[test]
fn each_bad_field_of_a_spec_is_named() {
    let mut dice = Dice(5);
    let mut good = spec(&mut dice);
    while good.groups.is_empty() || good.nodes.is_empty() {
        good = spec(&mut dice);
    }
    let check = |spoil: &dyn Fn(&mut pb::ClusterSpec), wanted: &str| {
        let mut bad = super::spec::to_proto(&good);
        spoil(&mut bad);
        let body = pb::command::Body::Bootstrap(pb::Bootstrap { spec: Some(bad) });
        let text = refuse(Some(body), 1).to_string();
        assert!(text.starts_with(wanted), "{text}");
    };
    check(&|s| s.timing = None, "spec.timing is missing");
    check(&|s| s.nodes[0].id = 0, "spec.nodes.id is 0");
    check(&|s| s.nodes[0].peer = "a:1".to_owned(), "spec.nodes.peer is \"a:1\"");
    check(&|s| s.nodes[0].admin.clear(), "spec.nodes.admin is \"\"");
    check(&|s| s.groups[0].name.clear(), "spec.groups.name is missing");
    check(&|s| s.groups[0].port = 65_536, "spec.groups.port is 65536");
    check(&|s| s.groups[0].vip = None, "spec.groups.vip is missing");
    check(&|s| s.groups[0].probe = None, "spec.groups.probe is missing");
    let long = Some(pb::Vip { address: "10.0.0.1".to_owned(), prefix: 33 });
    check(&|s| s.groups[0].vip.clone_from(&long), "spec.groups.vip.prefix is 33");
    check(&|s| s.groups[0].members = vec![pb::Member::default()], "spec.groups.members.node is 0");
    check(&|s| s.groups[0].durability = 9, "spec.groups.durability has the value 9");
}

#[test]
fn a_group_that_is_twice_in_a_snapshot_is_refused() {
    let group = pb::GroupState { name: "pair".to_owned(), ..pb::GroupState::default() };
    let twice =
        pb::Snapshot { format: 1, groups: vec![group.clone(), group], ..pb::Snapshot::default() };
    let error = decode_model(&twice.encode_to_vec()).unwrap_err();
    assert!(matches!(error, CodecError::Duplicate { .. }), "{error}");
}

/// Bytes as version 0.1 writes them. If this fails, a field was renumbered: put it back.
#[test]
fn bytes_of_the_first_version_stay_readable() {
    let assign = Assign {
        group: GroupId::new("pair"),
        epoch: Epoch(3),
        master: NodeId(7),
        run_id: RunId::new("r"),
        cause: Cause::NodeSilent,
        evidence: "e".to_owned(),
        estimated_loss_bytes: Some(300),
        old_master_eligible: false,
        goes_on: false,
    };
    let command = Command { at_unix_ms: 1, body: Body::Assign(assign.clone()) };
    let bytes = [
        0x08, 0x01, 0x10, 0x01, 0x5a, 0x1c, 0x0a, 0x04, b'p', b'a', b'i', b'r', 0x10, 0x03, 0x19,
        7, 0, 0, 0, 0, 0, 0, 0, 0x22, 0x01, b'r', 0x28, 0x03, 0x32, 0x01, b'e', 0x38, 0xac, 0x02,
    ];
    assert_eq!(encode_command(&command), bytes);
    assert_eq!(decode_command(&bytes).unwrap(), command);
    // A loss of nothing was left out. It reads as it did, and what is not known is written apart from it.
    let mut short = bytes[..bytes.len() - 3].to_vec();
    short[5] -= 3;
    let none = Assign { estimated_loss_bytes: Some(0), ..assign.clone() };
    let none = Command { at_unix_ms: 1, body: Body::Assign(none) };
    assert_eq!(encode_command(&none), short);
    assert_eq!(decode_command(&short).unwrap(), none);
    let unknown = Assign { estimated_loss_bytes: None, ..assign.clone() };
    let unknown = Command { at_unix_ms: 1, body: Body::Assign(unknown) };
    assert_eq!(decode_command(&encode_command(&unknown)).unwrap(), unknown);
    let assign = Assign { old_master_eligible: true, ..assign };
    let command = Command { at_unix_ms: 1, body: Body::Assign(assign) };
    let mut bytes = bytes.to_vec();
    bytes[5] += 2;
    bytes.extend([0x40, 0x01]);
    assert_eq!(encode_command(&command), bytes);
    assert_eq!(decode_command(&bytes).unwrap(), command);
}
