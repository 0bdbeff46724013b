//! Files of steps and what must come of them, in the manner of raft-rs' and etcd's datadriven tests.
//!
//! A file is blocks: steps, one a line, then `----`, then what they gave, up to an empty line. Lines with `#` and empty lines
//! between blocks are kept. The steps are those of [`step`]; the cores are the real ones, on the world of these tests.

use redkeep_core::ids::node_id;
use redkeep_core::*;

use super::world::{
    self, World,
    tape::{self, Kind, Rule, Tape},
};

/// Play a file; what it says now.
pub(crate) fn play(text: &str) -> String {
    let mut w = World::pair();
    w.tape = Some(Tape::default());
    let mut out = String::new();
    let mut lines = text.lines();
    let mut steps = Vec::new();
    while let Some(line) = lines.next() {
        out += line;
        out.push('\n');
        if line != "----" {
            let line = line.split('#').next().unwrap_or_default().trim();
            steps.extend(Some(line.to_owned()).filter(|l| !l.is_empty()));
            continue;
        }
        for _ in lines.by_ref().take_while(|l| !l.is_empty()) {}
        for step in std::mem::take(&mut steps) {
            self::step(&mut w, &step);
            for line in std::mem::take(&mut tape(&mut w).lines) {
                out += line.trim_end();
                out.push('\n');
            }
        }
        out.push('\n');
    }
    assert_eq!(steps, Vec::<String>::new(), "steps without `----`");
    format!("{}\n", out.trim_end())
}

fn tape(w: &mut World) -> &mut Tape {
    w.tape.as_mut().expect("there from the beginning")
}

fn say(w: &mut World, text: String) {
    tape(w).lines.push(text);
}

fn host(name: &str) -> &'static str {
    ["a", "b", "w"].into_iter().find(|n| *n == name).unwrap_or_else(|| panic!("no host {name}"))
}

/// One step; `say` and the tape tell what came of it.
fn step(w: &mut World, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        // What is shown of what the cores want.
        ["show", ..] => {
            let kind = |word: &&str| Kind::ALL.iter().find(|(name, _)| name == word);
            let kinds = words[1..].iter().map(|word| kind(word).expect("a kind of line").1);
            tape(w).shown = kinds.collect();
        }
        // Times are told from now on.
        ["mark"] => {
            let t = w.t;
            tape(w).from = t;
        }
        ["run", ms] => w.run(ms.parse().expect("milliseconds")),
        ["until", ..] => {
            let ms = w.until(line, 20_000, |w| holds(w, &words[1..]));
            say(w, format!("after {ms} ms"));
        }
        ["status"] => status(w),
        _ if of_network(w, &words) || of_redis(w, &words) || of_operator(w, &words) => {}
        _ => panic!("no such step: {line}"),
    }
}

fn of_network(w: &mut World, words: &[&str]) -> bool {
    match *words {
        ["isolate", name] => w.isolate(host(name)),
        ["cut", one, other] => w.cut_between(host(one), host(other)),
        ["cut-one-way", from, to] => {
            w.cut.insert((host(from), host(to)));
        }
        ["heal"] => w.heal(),
        // Messages of a kind stay on their way, and come when they are released, in order.
        ["hold", kind, from, to] => {
            let (kind, from, to) = (kind.to_owned(), host(from), host(to));
            w.post.rules.push(Rule { kind, from, to });
        }
        ["release"] => {
            w.post.rules.clear();
            for (from, to, message) in std::mem::take(&mut w.post.held) {
                let text = tape::message_text(&message).map(|(_, text)| text);
                if let Some(text) = text {
                    say(w, format!("       {to}  <- {from}: {text}"));
                }
                w.feed(to, Input::Peer { from: node_id(from), message });
            }
            w.run(1);
        }
        // Those that are on their way are lost; others stay held.
        ["drop"] => w.post.held.clear(),
        _ => return false,
    }
    true
}

fn of_redis(w: &mut World, words: &[&str]) -> bool {
    match *words {
        ["kill-redis", name] => w.kill_redis(name),
        ["start-redis", name] => w.start_redis(name, false),
        ["start-redis-empty", name] => w.start_redis(name, true),
        ["hang", name] => w.redis(name).hung = true,
        ["go-on", name] => w.redis(name).hung = false,
        ["write", name, bytes] => w.redis(name).offset += bytes.parse::<u64>().expect("bytes"),
        // A write that is executed between the target's confirmation and the last look at the offset.
        ["write-late", name, bytes] => {
            w.redis(name).late_bytes = bytes.parse().expect("bytes");
        }
        ["no-catching-up", name] => w.redis(name).target_lags = true,
        ["refuse-opening", name] => w.host(name).deny_open = true,
        ["let-open", name] => w.host(name).deny_open = false,
        ["stop-supervisor", name] => w.stop_supervisor(name),
        ["start-supervisor", name] => w.start_supervisor(host(name), &world::spec()),
        _ => return false,
    }
    true
}

fn of_operator(w: &mut World, words: &[&str]) -> bool {
    let group = GroupId::new("pair");
    let request = match *words {
        ["switchover", to] => {
            AdminRequest::Switchover { group, to: Some(node_id(to)), dry_run: false }
        }
        ["failover", to] | ["failover", to, "--allow-data-loss"] => {
            let allow_data_loss = words.len() == 3;
            AdminRequest::Failover { group, to: Some(node_id(to)), allow_data_loss, dry_run: false }
        }
        ["lead", to] => AdminRequest::TransferLeadership { to: node_id(to) },
        _ => return false,
    };
    w.ask(request);
    w.run(1);
    true
}

fn holds(w: &mut World, words: &[&str]) -> bool {
    match *words {
        [name, "serves"] => w.serving() == Some(host(name)),
        [name, "is-writable"] => w.writable(name),
        [name, "is-open"] => w.is_open(name),
        [name, "is-closed"] => !w.is_open(name),
        [name, "follows"] => w.redis(name).master.is_some(),
        [name, "leads"] => w.leader() == Some(host(name)),
        [name, "is-named"] => {
            w.pair_status().is_some_and(|g| g.master == Some(node_id(host(name))))
        }
        ["one-is-eligible"] => w.pair_status().is_some_and(|g| g.eligible.len() == 1),
        ["nobody-is-eligible"] => w.pair_status().is_some_and(|g| g.eligible.is_empty()),
        [_, ..] | [] => panic!("no such condition: {words:?}"),
    }
}

/// What the leader says, and what the hosts are.
fn status(w: &mut World) {
    let leader = w.leader();
    let line = match (leader, w.pair_status()) {
        (Some(leader), Some(g)) => {
            let master = g.master.map_or("nobody", world::name_of);
            let serving = if g.serving { ", serving" } else { "" };
            let names: Vec<&str> = g.eligible.iter().map(|m| world::name_of(m.node)).collect();
            let hold = g.hold.map_or(String::new(), |h| format!("; held: {h}"));
            format!("{leader} leads: e{} {master}{serving}, eligible {names:?}{hold}", g.epoch)
        }
        _ => "nobody leads".to_owned(),
    };
    say(w, line);
    for name in ["a", "b"] {
        let door = if w.is_open(name) { "open" } else { "closed" };
        let guarded = w.host(name).lock.guarded.contains(&16465);
        let door = if guarded { door } else { "unguarded" };
        let vip = if w.host(name).vip { ", vip" } else { "" };
        let burned = w.host(name).burned.values().next().copied();
        let burned = burned.map_or(String::new(), |e| format!(", burned e{e}"));
        let r = w.redis(name).clone();
        let life = match (r.alive, r.hung, r.master) {
            (false, ..) => "dead".to_owned(),
            (_, true, _) => "hung".to_owned(),
            (.., None) => format!("master at {}", r.offset),
            (.., Some(_)) => format!("replica at {}", r.offset),
        };
        say(w, format!("{name}: {door}{vip}{burned}, redis run{} {life}", r.run));
    }
    let both = w.writable("a") && w.writable("b");
    assert!(!both, "two writers");
}
