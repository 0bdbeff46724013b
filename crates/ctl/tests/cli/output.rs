//! What is printed, against golden files; and the same for programs.

use crate::support::{Prepared, Supervisor, at, broken, golden, healthy, without_age};
use redkeep_proto::admin::v1 as pb;

fn serving(status: pb::Status) -> Prepared {
    Prepared { statuses: vec![status].into(), ..Prepared::default() }
}

fn check(status: pb::Status, words: &[&str], file: &str) {
    let told = Supervisor::start(serving(status)).run(words);
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    golden(file, &without_age(&told.stdout));
}

#[test]
fn status_of_a_sound_cluster() {
    check(healthy(), &["status"], "status.txt");
    check(healthy(), &["-o", "json", "status"], "status.json");
}

#[test]
fn status_of_a_broken_cluster_says_what_is_wrong_first() {
    check(broken(), &["status", "pair"], "status-broken.txt");
}

/// The log says "serving"; the holder's own host says that its lease ended.
#[test]
fn status_of_a_master_whose_lease_ended_does_not_say_that_it_serves() {
    let mut status = healthy();
    status.groups[0].lease_left = None;
    status.groups[0].members[0].serving = None;
    check(status, &["status"], "status-lapsed.txt");
}

#[test]
fn status_of_a_follower_without_its_leader_says_how_old_it_is() {
    let mut status = healthy();
    status.leader = String::new();
    status.freshness = Some(pb::Freshness {
        node: "b".to_owned(),
        source: pb::FreshnessSource::Local.into(),
        leader_heard_ago: Some(prost_types::Duration { seconds: 3, nanos: 200_000_000 }),
        note: "no leader is known".to_owned(),
    });
    for node in &mut status.nodes {
        node.observed = false;
        node.leader = false;
    }
    status.groups[0].members[0].known = false;
    check(status, &["status", "--local"], "status-follower.txt");
}

#[test]
fn status_before_the_spec_is_known() {
    let status = pb::Status {
        answered_by: "a".to_owned(),
        freshness: Some(pb::Freshness {
            node: "a".to_owned(),
            source: pb::FreshnessSource::Local.into(),
            leader_heard_ago: None,
            note: "no leader is known".to_owned(),
        }),
        ..pb::Status::default()
    };
    check(status, &["status"], "status-empty.txt");
}

fn history() -> Prepared {
    let of = |index, kind: pb::HistoryKind| pb::HistoryRecord {
        index,
        term: 2,
        time: at(1_700_000_000_000 + i64::try_from(index).unwrap()),
        group: "pair".to_owned(),
        epoch: 3,
        kind: kind.into(),
        node: "a".to_owned(),
        ..pb::HistoryRecord::default()
    };
    let text = |r: pb::HistoryRecord, text: &str| pb::HistoryRecord { text: text.to_owned(), ..r };
    let bootstrapped = pb::HistoryRecord {
        group: String::new(),
        epoch: 0,
        node: String::new(),
        ..of(1, pb::HistoryKind::Bootstrapped)
    };
    let assigned = pb::HistoryRecord {
        from: "b".to_owned(),
        cause: pb::Cause::MasterDown.into(),
        estimated_loss_bytes: Some(14),
        ..text(of(40, pb::HistoryKind::Assigned), "the process of b died")
    };
    let lossless = pb::HistoryRecord { estimated_loss_bytes: Some(0), ..assigned.clone() };
    let unknown = pb::HistoryRecord { estimated_loss_bytes: None, ..assigned.clone() };
    let paused = pb::HistoryRecord {
        duration: Some(prost_types::Duration { seconds: 600, nanos: 0 }),
        ..of(52, pb::HistoryKind::Paused)
    };
    let records = vec![
        bootstrapped,
        assigned,
        of(41, pb::HistoryKind::Serving),
        of(50, pb::HistoryKind::SwitchoverStarted),
        text(of(51, pb::HistoryKind::SwitchoverAborted), "the target was late"),
        paused,
        of(53, pb::HistoryKind::Resumed),
        pb::HistoryRecord { index: 60, ..lossless },
        pb::HistoryRecord { index: 70, ..unknown },
    ];
    Prepared { history: records, ..serving(healthy()) }
}

#[test]
fn history_is_a_line_for_each_decision() {
    let server = Supervisor::start(history());
    let told = server.run(&["history", "pair", "-n", "7"]);
    golden("history.txt", &told.stdout);
    let told = server.run(&["-o", "json", "history"]);
    golden("history.json", &told.stdout);
    let asked = server.asked();
    assert!(asked[0].contains("group: \"pair\", limit: 7"), "{asked:?}");
    assert!(asked[1].contains("group: \"\", limit: 20"), "{asked:?}");
}

#[test]
fn explain_names_the_rule_for_each_candidate() {
    let status = broken();
    let group = status.groups[0].clone();
    let candidate = |node: usize, eligible| pb::Candidate {
        node: group.members[node].node.clone(),
        eligible,
        excluded: group.members[node].excluded.clone(),
        priority: 100,
        offset: group.members[node].redis.as_ref().map(|r| r.offset),
        loss_bytes: (node == 1).then_some(16),
        loss_known_ago: (node == 1)
            .then_some(prost_types::Duration { seconds: 0, nanos: 40_000_000 }),
    };
    let answer = pb::ExplainResponse {
        freshness: status.freshness.clone(),
        summary: "the group waits: no eligible replica is up".to_owned(),
        candidates: vec![candidate(1, false), candidate(0, false)],
        problems: status.problems.clone(),
        group: Some(group.clone()),
    };
    let prepared = Prepared { explain: Some(answer), ..serving(status) };
    let server = Supervisor::start(prepared);
    golden("explain.txt", &without_age(&server.run(&["explain", "pair"]).stdout));
    golden("explain.json", &without_age(&server.run(&["-o", "json", "explain", "pair"]).stdout));
}

#[test]
fn quarantine_lists_what_the_asked_node_keeps() {
    let entry = |epoch, gap_bytes| pb::QuarantineEntry {
        group: "pair".to_owned(),
        epoch,
        gap_bytes,
        size_bytes: 1_048_576,
        time: at(1_700_000_000_000),
        path: format!("/var/lib/redkeep/quarantine/pair,epoch={epoch}.rdb"),
    };
    let quarantine = pb::ListQuarantineResponse {
        node: "a".to_owned(),
        directory: "/var/lib/redkeep/quarantine".to_owned(),
        max_bytes: 20 << 30,
        max_files: 4,
        entries: vec![entry(4, Some(38_211)), entry(7, None)],
    };
    let off =
        pb::ListQuarantineResponse { max_bytes: 0, entries: Vec::new(), ..quarantine.clone() };
    let server = Supervisor::start(Prepared { quarantine, ..serving(healthy()) });
    let told = server.run(&["quarantine", "list", "pair"]);
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    golden("quarantine.txt", &told.stdout);
    golden("quarantine.json", &server.run(&["-o", "json", "quarantine", "list"]).stdout);
    let asked = server.asked();
    assert!(asked[0].contains("group: \"pair\""), "{asked:?}");
    let server = Supervisor::start(Prepared { quarantine: off, ..serving(healthy()) });
    golden("quarantine-off.txt", &server.run(&["quarantine", "list"]).stdout);
}

#[test]
fn help_and_completions_name_every_verb() {
    let help = crate::support::redkeepctl(&[], &["--help"]);
    assert_eq!(help.code, 0);
    golden("help.txt", &help.stdout);
    for shell in ["bash", "zsh", "fish"] {
        let script = crate::support::redkeepctl(&[], &["completions", shell]);
        assert_eq!(script.code, 0);
        for verb in [
            "status",
            "history",
            "events",
            "explain",
            "switchover",
            "failover",
            "pause",
            "quarantine",
        ] {
            assert!(script.stdout.contains(verb), "{shell} misses {verb}");
        }
    }
}
