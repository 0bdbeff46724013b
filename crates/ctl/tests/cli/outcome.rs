//! Exit codes, and that a change is asked for exactly once.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    process::Stdio,
};

use crate::support::{Prepared, Supervisor, broken, command, golden, healthy, redkeepctl, refused};
use redkeep_proto::admin::v1 as pb;
use tonic::{Code, Status};

fn done() -> pb::Outcome {
    pb::Outcome {
        answered_by: "w".to_owned(),
        index: 61,
        epoch: 4,
        text: "b is master of pair at epoch 4".to_owned(),
    }
}

fn deciding(outcome: Result<pb::Outcome, Status>) -> Prepared {
    Prepared { statuses: vec![healthy()].into(), outcome: Some(outcome), ..Prepared::default() }
}

fn refusal(reason: pb::RefusalReason, text: &str) -> pb::Refusal {
    pb::Refusal {
        reason: reason.into(),
        text: text.to_owned(),
        help: "redkeepctl explain pair".to_owned(),
        ..pb::Refusal::default()
    }
}

const SWITCHOVER: [&str; 4] = ["switchover", "pair", "--to", "b"];

#[test]
fn done_is_0_and_says_what_was_done() {
    let server = Supervisor::start(deciding(Ok(done())));
    let told = server.run(&SWITCHOVER);
    assert_eq!((told.code, told.stdout.as_str()), (0, "b is master of pair at epoch 4\n"));
    let told = server.run(&["-o", "json", "switchover", "pair"]);
    golden("switchover.json", &told.stdout);
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked[0].contains("to: \"b\", dry_run: false, forwarded: false"), "{asked:?}");
    assert!(asked[1].contains("to: \"\""), "{asked:?}");
}

#[test]
fn every_verb_says_what_it_was_told() {
    let server = Supervisor::start(deciding(Ok(done())));
    let table: [(&[&str], &str); 11] = [
        (
            &["failover", "pair", "--to", "b", "--allow-data-loss", "--yes"],
            "FailoverRequest { group: \"pair\", to: \"b\", allow_data_loss: true, dry_run: false, forwarded: false }",
        ),
        (
            &["pause", "pair", "--for", "10m"],
            "PauseRequest { group: \"pair\", duration: Some(Duration { seconds: 600, nanos: 0 }), forwarded: false }",
        ),
        (
            &["pause", "--for", "1500ms"],
            "PauseRequest { group: \"\", duration: Some(Duration { seconds: 1, nanos: 500000000 }), forwarded: false }",
        ),
        (&["resume"], "ResumeRequest { group: \"\", forwarded: false }"),
        (&["acknowledge"], "AcknowledgeRequest { group: \"\", dry_run: false, forwarded: false }"),
        (
            &["acknowledge", "pair", "--dry-run"],
            "AcknowledgeRequest { group: \"pair\", dry_run: true, forwarded: false }",
        ),
        (
            &["leader", "transfer", "w", "--wait"],
            "TransferLeadershipRequest { to: \"w\", forwarded: false }",
        ),
        (
            &[
                "node",
                "add",
                "w",
                "--peer",
                "10.99.0.9:7600",
                "--admin",
                "10.99.0.9:7601",
                "--wait",
            ],
            "AddNodeRequest { name: \"w\", peer: \"10.99.0.9:7600\", admin: \"10.99.0.9:7601\", dry_run: false, forwarded: false }",
        ),
        (
            &["node", "remove", "w"],
            "RemoveNodeRequest { name: \"w\", dry_run: false, forwarded: false }",
        ),
        (
            &["member", "add", "pair", "w"],
            "AddMemberRequest { group: \"pair\", node: \"w\", priority: 100, dry_run: false, forwarded: false }",
        ),
        (
            &["member", "remove", "pair", "b", "--dry-run"],
            "RemoveMemberRequest { group: \"pair\", node: \"b\", dry_run: true, forwarded: false }",
        ),
    ];
    for (words, request) in table {
        assert_eq!(server.run(words).code, 0, "{words:?}");
        assert_eq!(server.asked().last().unwrap(), request);
    }
}

#[test]
fn a_loss_of_data_is_not_asked_for_without_a_name() {
    let server = Supervisor::start(deciding(Ok(done())));
    for more in [&[][..], &["--dry-run"], &["--yes"]] {
        let told = server.run(&[&["failover", "pair", "--allow-data-loss"], more].concat());
        assert_eq!(told.code, 2, "{}", told.stderr);
        assert!(told.stderr.contains("name it with --to NODE"), "{}", told.stderr);
    }
    assert!(server.asked().is_empty());
}

#[test]
fn a_dry_run_says_so_and_changes_nothing() {
    let server = Supervisor::start(deciding(Ok(done())));
    let told = server.run(&["failover", "pair", "--dry-run"]);
    assert_eq!(told.stdout, "dry run: b is master of pair at epoch 4\n");
    let asked = server.asked();
    assert!(asked.iter().all(|a| a.contains("dry_run: true")), "{asked:?}");
}

#[test]
fn refused_is_1_with_the_reason_and_a_command_that_helps() {
    let why = refusal(pb::RefusalReason::Excluded, "b cannot be promoted: its link is down");
    let server = Supervisor::start(deciding(Err(refused(Code::FailedPrecondition, &why))));
    let told = server.run(&SWITCHOVER);
    assert_eq!((told.code, told.stdout.as_str()), (1, ""));
    assert_eq!(
        told.stderr,
        "redkeepctl: refused: b cannot be promoted: its link is down\n  try: redkeepctl explain pair\n"
    );
}

#[test]
fn wrong_usage_is_2() {
    let cases: [&[&str]; 8] = [
        &["promote", "pair"],
        &["switchover"],
        &["pause", "pair"],
        &["pause", "pair", "--for", "10"],
        &["-o", "yaml", "status"],
        &["--endpoint", "10.99.0.1", "status"],
        &["--ca", "/nonexistent/ca.pem", "status"],
        &["--ca", "/nonexistent", "--cert", "/nonexistent", "--key", "/nonexistent", "status"],
    ];
    for words in cases {
        let told = redkeepctl(&[], words);
        assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{words:?}: {}", told.stderr);
        assert!(!told.stderr.is_empty());
    }
}

fn closed_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn unreachable_is_3_and_names_every_endpoint() {
    let (one, two) = (closed_port(), closed_port());
    for verb in [&["status"][..], &SWITCHOVER, &["events"]] {
        let told = redkeepctl(&["--endpoint", &one, "--endpoint", &two], verb);
        assert_eq!(told.code, 3, "{}", told.stderr);
        assert!(told.stderr.contains(&one) && told.stderr.contains(&two), "{}", told.stderr);
    }
}

#[test]
fn a_supervisor_without_a_leader_is_3_since_nothing_was_done() {
    let why = refusal(pb::RefusalReason::NotLeader, "no leader is known; nothing was done");
    let server = Supervisor::start(deciding(Err(refused(Code::Unavailable, &why))));
    let told = server.run(&SWITCHOVER);
    assert_eq!(told.code, 3);
    assert!(told.stderr.contains("nothing was done"), "{}", told.stderr);
}

#[test]
fn endpoints_are_tried_in_order_and_the_environment_names_them_too() {
    let why = refusal(pb::RefusalReason::NotLeader, "no leader is known; nothing was done");
    let leaderless = Supervisor::start(deciding(Err(refused(Code::Unavailable, &why))));
    let server = Supervisor::start(deciding(Ok(done())));
    let list = format!("{}, {},{}", closed_port(), leaderless.addr, server.addr);
    let output = command(&SWITCHOVER).env("REDKEEP_ENDPOINT", list).output().unwrap();
    let told = crate::support::told(output);
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    assert_eq!((leaderless.asked().len(), server.asked().len()), (1, 1));
}

#[test]
fn an_unknown_outcome_is_4_and_is_not_tried_elsewhere() {
    let lost = Status::aborted("the outcome is not known: leadership changed");
    let server = Supervisor::start(deciding(Err(lost)));
    let other = Supervisor::start(deciding(Ok(done())));
    let endpoints = ["--endpoint", &server.addr.to_string(), "--endpoint", &other.addr.to_string()];
    let told = redkeepctl(&endpoints, &SWITCHOVER);
    assert_eq!(told.code, 4);
    assert_eq!(
        told.stderr,
        "redkeepctl: the outcome is not known: leadership changed\n  see: redkeepctl status\n"
    );
    assert!(other.asked().is_empty());
}

#[test]
fn a_change_without_an_answer_in_time_is_4() {
    let hanging = Prepared { hangs: true, ..deciding(Ok(done())) };
    let server = Supervisor::start(hanging);
    let told = server.run(&["--timeout", "500ms", "switchover", "pair"]);
    assert_eq!(told.code, 4, "{}", told.stderr);
    assert_eq!(server.asked().len(), 1);
}

/// At epoch 4 b serves; a is back as its replica.
fn healed() -> pb::Status {
    let mut status = healthy();
    let group = &mut status.groups[0];
    group.epoch = 4;
    group.members.swap(0, 1);
    group.master = "b".to_owned();
    (group.members[0].node, group.members[1].node) = ("a".to_owned(), "b".to_owned());
    status
}

#[test]
fn wait_goes_on_until_the_others_follow() {
    let not_serving = broken();
    let mut no_link = healed();
    no_link.groups[0].members[0].redis.as_mut().unwrap().link_up = false;
    let statuses = vec![healthy(), not_serving, no_link, healed()];
    let prepared = Prepared { statuses: statuses.into(), ..deciding(Ok(done())) };
    let server = Supervisor::start(prepared);
    let told = server.run(&["switchover", "pair", "--wait"]);
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    assert_eq!(server.prepared.statuses.lock().unwrap().len(), 1);
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_wait_that_ends_early_is_4_and_says_what_is_missing() {
    let mut status = healed();
    status.groups[0].members[0].eligible = false;
    let prepared = Prepared { statuses: vec![status].into(), ..deciding(Ok(done())) };
    let told =
        Supervisor::start(prepared).run(&["--timeout", "1s", "switchover", "pair", "--wait"]);
    assert_eq!(told.code, 4);
    let missing =
        "it was done at epoch 4, but the wait ended early: a does not follow b in full yet";
    assert!(told.stderr.contains(missing), "{}", told.stderr);
}

fn events(count: u64) -> Prepared {
    let event = |index| pb::Event {
        node: "a".to_owned(),
        mono_ns: 1_000 + index,
        time: crate::support::at(1_700_000_000_000),
        group: "pair".to_owned(),
        epoch: 3,
        index,
        kind: pb::EventKind::VipUp.into(),
        text: "the VIP is up and announced".to_owned(),
        about: String::new(),
    };
    Prepared { events: (0..count).map(event).collect(), ..deciding(Ok(done())) }
}

#[test]
fn events_are_lines_as_they_happen() {
    let server = Supervisor::start(events(2));
    let read = |words: &[&str], lines: usize| {
        let endpoint = server.addr.to_string();
        let all: Vec<_> =
            ["--endpoint", &endpoint].into_iter().chain(words.iter().copied()).collect();
        let mut child = command(&all).stdout(Stdio::piped()).spawn().unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        for _ in 0..lines {
            reader.read_line(&mut text).unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        text
    };
    golden("events.txt", &read(&["events", "pair"], 2));
    golden("events.json", &read(&["-o", "json", "events"], 2));
}

/// One node answers and one does not: the lines of the first come, and the gap is said.
#[test]
fn events_of_all_nodes_say_which_are_missing() {
    let other = Supervisor::start(events(1));
    let mut status = healthy();
    status.nodes[0].admin = other.addr.to_string();
    status.nodes[1].admin = closed_port();
    status.nodes.truncate(2);
    let asked = Supervisor::start(Prepared { statuses: vec![status].into(), ..events(1) });
    let endpoint = asked.addr.to_string();
    let mut child = command(&["--endpoint", &endpoint, "events", "--all"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut line, mut gap) = (String::new(), String::new());
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut gap).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("the VIP is up and announced"), "{line}");
    assert!(gap.starts_with("redkeepctl: events may be missing: "), "{gap}");
    assert!(asked.asked().is_empty());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let server = Supervisor::start(events(100_000));
    let endpoint = server.addr.to_string();
    let mut child = command(&["--endpoint", &endpoint, "events"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0_u8; 16];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let told = crate::support::told(child.wait_with_output().unwrap());
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
}

#[test]
fn without_a_terminal_there_is_no_colour() {
    let prepared = Prepared { statuses: vec![broken()].into(), ..Prepared::default() };
    let told = Supervisor::start(prepared).run(&["status"]);
    assert!(!told.stdout.contains('\x1b'));
}
