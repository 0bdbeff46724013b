//! What a supervisor tells after a restart: news, and no news twice.

mod world;

use redkeep_consensus::{Entry, EntryKind};
use redkeep_core::ids::node_id;
use redkeep_core::*;
use world::World;

/// Decisions that were told as events since the last start.
fn decisions(w: &mut World, name: &str) -> Vec<(u64, &'static str)> {
    let of = |e: &Event| match e.kind {
        EventKind::Assigned { .. } => Some((e.epoch.0, "assigned")),
        EventKind::Serving { .. } => Some((e.epoch.0, "serving")),
        EventKind::Eligible { .. } => Some((e.epoch.0, "eligible")),
        EventKind::SwitchoverAborted { .. } => Some((e.epoch.0, "aborted")),
        EventKind::Paused { seconds: 60 } => Some((e.epoch.0, "paused")),
        EventKind::Resumed => Some((e.epoch.0, "resumed")),
        _ => None,
    };
    w.host(name).log.iter().filter_map(of).collect()
}

fn knows_all(w: &mut World, name: &str) -> bool {
    let now = w.now();
    let newest = w.hosts.values_mut().map(|h| h.core.status(now).committed).max();
    Some(w.host(name).core.status(now).applied) == newest
}

#[test]
fn decisions_of_an_earlier_life_are_history_and_not_told_again() {
    let mut w = World::settled_pair();
    assert_ne!(decisions(&mut w, "b"), [], "they were told once");
    for name in ["b", "w", "a"] {
        w.stop_supervisor(name);
        w.start_supervisor(name, &world::spec());
        w.until("it has applied its log", 5000, |w| knows_all(w, name));
        w.until("all is quiet", 5000, |w| w.serving() == Some("a") && w.writable("a"));
        assert_eq!(decisions(&mut w, name), [], "of {name}");
        assert_ne!(w.host(name).core.history(), [], "history has them");
    }
}

/// Their kernels go on; what the old leader granted is not waited for, since the same node asks again.
#[test]
fn all_supervisors_restarted_at_once_move_nothing() {
    let mut w = World::settled_pair();
    let epoch = w.pair_status().unwrap().epoch;
    for name in ["a", "b", "w"] {
        w.stop_supervisor(name);
    }
    for name in ["a", "b", "w"] {
        w.start_supervisor(name, &world::spec());
    }
    let mut closed = 0;
    for _ in 0..3_000 {
        w.run(1);
        closed += u64::from(!w.writable("a"));
        assert!(!w.writable("b"));
    }
    assert!(closed <= 200, "{closed} ms");
    assert_eq!((w.serving(), w.pair_status().unwrap().epoch), (Some("a"), epoch));
    assert!(w.host("a").vip);
}

#[test]
fn a_pause_and_its_end_are_told_by_every_node_once() {
    let mut w = World::settled_pair();
    w.host("b").log.clear();
    let duration = Span::from_secs(60);
    for request in
        [AdminRequest::Pause { group: None, duration }, AdminRequest::Resume { group: None }]
    {
        w.ask(request);
        w.run(200);
    }
    assert_eq!(decisions(&mut w, "b"), [(0, "paused"), (0, "resumed")]);
    w.stop_supervisor("b");
    w.start_supervisor("b", &world::spec());
    w.until("it has applied its log", 5000, |w| knows_all(w, "b"));
    assert_eq!(decisions(&mut w, "b"), []);
}

/// The commit index is written lazily: what was applied may be beyond it on disk.
#[test]
fn decisions_beyond_the_commit_index_on_disk_are_not_told_again() {
    let mut w = World::settled_pair();
    w.stop_supervisor("b");
    w.host("b").disk.hard_state.commit = 1;
    w.start_supervisor("b", &world::spec());
    w.until("it has applied its log", 5000, |w| knows_all(w, "b"));
    assert_eq!(decisions(&mut w, "b"), []);
}

#[test]
fn decisions_that_were_made_meanwhile_are_told() {
    let mut w = World::settled_pair();
    w.stop_supervisor("a");
    w.until("b took over", 3000, |w| w.writable("b") && w.serving() == Some("b"));
    w.start_supervisor("a", &world::spec());
    w.until("it has applied its log", 5000, |w| knows_all(w, "a"));
    let told = decisions(&mut w, "a");
    assert!(told.starts_with(&[(2, "assigned"), (2, "serving")]), "{told:?}");
}

/// Entries that never got a majority are replaced by other leaders' at the same indexes, which are news.
#[test]
fn a_decision_that_replaces_one_of_the_recovered_log_is_told() {
    let mut w = World::settled_pair();
    w.stop_supervisor("a");
    // As if it had led for a moment, and nobody had heard.
    let disk = &mut w.host("a").disk;
    disk.hard_state.term += 1;
    let (last, term) = (disk.last_index(), disk.hard_state.term);
    let entry = |index| Entry {
        term,
        index,
        kind: EntryKind::Normal,
        context: Vec::new(),
        data: Vec::new(),
    };
    disk.entries.extend((last + 1..=last + 2).map(entry));
    w.until("b took over", 3000, |w| w.writable("b") && w.serving() == Some("b"));
    for to in ["b", "w"] {
        w.ask(AdminRequest::TransferLeadership { to: node_id(to) });
        w.until("another leads", 1000, |w| w.leader() == Some(to));
    }
    w.start_supervisor("a", &world::spec());
    w.until("it has applied its log", 5000, |w| knows_all(w, "a"));
    let told = decisions(&mut w, "a");
    assert!(told.starts_with(&[(2, "assigned"), (2, "serving")]), "{told:?}");
}
