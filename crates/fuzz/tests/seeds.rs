//! Where the corpora begin: values that real parts of the product made. With `FUZZ_SEEDS=DIR` they are written there
//! (`cargo xtask fuzz --seeds` does that); without, each is only given to its target.
#![allow(clippy::unwrap_used)]

#[path = "../../core/tests/world/mod.rs"]
mod world;

mod recorded;

use std::{collections::BTreeMap, fs, path::PathBuf};

use redkeep_consensus::{Entry, Mono, Snapshot, Span};
use redkeep_core::{
    AdminRequest, GroupId,
    codec::{decode_command, encode_model},
    ids::node_id,
    message::PeerMessage,
    model::Model,
};
use redkeep_fuzz::{
    TARGETS, join,
    raft::{Node, VOTERS},
};
use world::{World, tape::kind_of};

type Seeds = Vec<(String, Vec<u8>)>;

fn tagged(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}

/// A failover, a switchover, a pause and its end: every kind of command and of message comes up.
fn story() -> (World, Vec<(&'static str, PeerMessage)>) {
    let mut world = World::pair();
    world.said = Some(Vec::new());
    let mut world = World::settled(world);
    let ask = |world: &mut World, request| {
        world.ask(request);
        world.run(50);
    };
    let group = GroupId::new("pair");
    let duration = Span::from_millis(60_000);
    ask(&mut world, AdminRequest::Pause { group: Some(group.clone()), duration });
    ask(&mut world, AdminRequest::Resume { group: Some(group.clone()) });
    let to = Some(node_id("b"));
    ask(&mut world, AdminRequest::Switchover { group, to, dry_run: false });
    world.until("b serves", 3000, |w| w.serving() == Some("b"));
    world.until("a is eligible", 3000, |w| w.pair_status().is_some_and(|g| g.eligible.len() == 1));
    // A link that is cut makes the leader ask around; a Redis that hangs makes it ask for a fence.
    world.cut_between("w", "b");
    world.run(400);
    world.heal();
    world.run(1500);
    world.redis("b").hung = true;
    world.until("a serves", 5000, |w| w.serving() == Some("a"));
    world.run(200);
    let said = world.said.take().expect("was recorded");
    (world, said)
}

/// Records and commands as they lie on the disk of the story's witness.
fn wal_record(world: &World) -> Seeds {
    let disk = &world.hosts["w"].disk;
    let mut seeds = Seeds::new();
    let mut model = Model::default();
    let (mut script, mut kinds) = (Vec::new(), BTreeMap::new());
    for Entry { index, term, data, .. } in disk.entries.iter().filter(|e| !e.data.is_empty()) {
        let command = decode_command(data).expect("written by the core");
        let kind = format!("{:?}", command.body);
        let kind = kind.split([' ', '(']).next().unwrap_or("none").to_lowercase();
        kinds.insert(kind.clone(), tagged(0, data));
        model.apply(*index, *term, command);
        if kind == "bootstrap" {
            script.push(encode_model(&model));
        } else {
            script.push(data.clone());
        }
    }
    assert!(kinds.len() >= 7, "{:?}", kinds.keys());
    seeds.extend(kinds);
    seeds.push(("model".to_owned(), tagged(1, &encode_model(&model))));
    seeds.push(("log".to_owned(), tagged(2, &join(&script))));
    let entry = disk.entries.last().expect("a log");
    let snapshot = Snapshot { data: encode_model(&model), ..disk.snapshot.clone().expect("one") };
    let written = redkeep_wal::fuzzing::written(disk.hard_state, entry, &snapshot);
    let names = ["hard-state", "entry", "snapshot", "number", "record"];
    for ((name, kind), bytes) in names.into_iter().zip([4, 5, 6, 7, 3]).zip(written) {
        seeds.push((name.to_owned(), tagged(kind, &bytes)));
    }
    seeds
}

/// Some envelopes of each kind of message, one whole conversation, and scripts of three Raft nodes.
fn peer_envelope(said: &[(&'static str, PeerMessage)]) -> Seeds {
    let sent = |(seq, (from, message)): (u64, &(&str, PeerMessage))| {
        redkeepd::fuzzing::sent(node_id(from), seq, std::slice::from_ref(message))
    };
    let mut of_kind: BTreeMap<&str, Vec<&(&str, PeerMessage)>> = BTreeMap::new();
    for each in said {
        of_kind.entry(kind_of(&each.1)).or_default().push(each);
    }
    assert_eq!(of_kind.len(), 6, "{:?}", of_kind.keys());
    let mut seeds = Seeds::new();
    for (kind, all) in of_kind {
        // Some from the whole story.
        let every = all.len().div_ceil(8);
        let some: Vec<Vec<u8>> = (1..).zip(all.into_iter().step_by(every)).map(sent).collect();
        seeds.push((format!("envelope-{kind}"), tagged(1, &join(&some))));
        seeds.push((format!("envelope-{kind}-at-master"), tagged(3, &join(&some))));
    }
    let others = said.iter().filter(|(from, message)| *from != "a" && kind_of(message) != "raft");
    let mixed: Vec<Vec<u8>> = (1..).zip(others.step_by(101)).take(16).map(sent).collect();
    seeds.push(("envelope-mixed".to_owned(), tagged(3, &join(&mixed))));
    for (name, candidate) in [("raft-followed", 1), ("raft-led", 0)] {
        seeds.push((name.to_owned(), tagged(0, &join(&raft_script(candidate)))));
    }
    seeds
}

/// What the first of three nodes hears while the one at `candidate` is elected and two entries are agreed upon.
fn raft_script(candidate: usize) -> Vec<Vec<u8>> {
    let mut nodes = VOTERS.map(Node::start);
    let mut heard = Vec::new();
    let settle = |nodes: &mut [Node; 3], heard: &mut Vec<Vec<u8>>| {
        while let Some(at) = nodes.iter().position(|node| !node.sent.is_empty()) {
            let (to, bytes) = nodes[at].sent.remove(0);
            if to == VOTERS[0] {
                heard.push(tagged(u8::try_from(VOTERS[at].0).unwrap(), &bytes));
            }
            let to = VOTERS.iter().position(|node| *node == to).expect("one of them");
            assert!(nodes[to].step(VOTERS[at], &bytes));
        }
    };
    nodes[candidate].pass(Span::from_millis(400));
    if candidate == 0 {
        heard.push(vec![0x12]);
    }
    settle(&mut nodes, &mut heard);
    for _ in 0..2 {
        let now: Mono = nodes[candidate].now;
        nodes[candidate].consensus.propose(now, b"command".to_vec()).expect("leads");
        nodes[candidate].drain();
        if candidate == 0 {
            heard.push(vec![0x22]);
        }
        settle(&mut nodes, &mut heard);
    }
    let committed: Vec<u64> = nodes.iter().map(|node| node.consensus.committed()).collect();
    assert!(committed[candidate] >= 9, "{committed:?}");
    heard
}

fn config() -> Seeds {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let example = fs::read_to_string(root.join("deploy/redkeep.toml")).unwrap();
    // A file that is there on every machine, in place of those of a real host.
    let readable = example.replace("/etc/redkeep/pair.password", "/etc/passwd");
    let mut everything = String::new();
    for line in readable.lines() {
        // The commented-out keys, but for a table of TLS, which excludes plain text.
        let key = line.strip_prefix("# ").filter(|l| l.contains(" = ") && !l.contains("etc/"));
        everything += key.unwrap_or(line);
        everything.push('\n');
    }
    let tls = readable
        .replace("insecure = true", "# insecure = true")
        .replace("# [tls] ", "[tls] ")
        .replace("# ca =", "ca =")
        .replace("# cert =", "cert =")
        .replace("# key =", "key =")
        .replace("/etc/redkeep/ca.pem", "/etc/passwd")
        .replace("/etc/redkeep/node.pem", "/etc/passwd")
        .replace("/etc/redkeep/node.key", "/etc/passwd");
    let v6 = readable.replace("10.99.0.100/32", "fd99::100/128").replace("10.99.0.", "[fd99::");
    let v6 = v6.replace(":7600", "]:7600").replace(":7601", "]:7601");
    let valid = [("readable", readable), ("everything", everything), ("tls", tls), ("v6", v6)];
    for (name, text) in &valid {
        assert!(redkeepd::fuzzing::config(text), "{name} is refused:\n{text}");
    }
    valid
        .into_iter()
        .chain([("example", example)])
        .map(|(name, text)| (name.to_owned(), text.into_bytes()))
        .collect()
}

#[test]
fn every_seed_holds_and_is_written_where_asked() {
    let (world, said) = story();
    let seeds = [wal_record(&world), peer_envelope(&said), recorded::redis_reply(), config()];
    for ((name, target), seeds) in TARGETS.into_iter().zip(seeds) {
        for (seed, bytes) in seeds {
            target(&bytes);
            if let Some(dir) = std::env::var_os("FUZZ_SEEDS") {
                let dir = PathBuf::from(dir).join(name);
                fs::create_dir_all(&dir).unwrap();
                fs::write(dir.join(format!("seed-{seed}")), bytes).unwrap();
            }
        }
    }
}
