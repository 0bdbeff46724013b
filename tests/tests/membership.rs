//! Supervisors that join and leave a running cluster.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    ClusterFile, Lab, Mono, Pair, Redis, RedisOptions, Supervisor, ctl, slowed, wait_status,
};
use serde_json::Value;

const LEASE: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(30);
/// What is meant is some 20 ms; this catches a hang.
const SERVICE_LIMIT: Duration = Duration::from_secs(1);
/// The exit code of a node whose identity is in doubt.
const MUST_NOT_RUN: i32 = 3;

/// Names and votes, as `endpoint` answers.
fn votes(status: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    nodes.iter().map(|n| (text(&n["name"]), text(&n["vote"]))).collect()
}

fn all_vote(status: &Value, names: &[&str]) -> bool {
    let votes = votes(status);
    votes.len() == names.len()
        && names.iter().all(|n| votes.contains(&((*n).to_owned(), "voter".to_owned())))
}

fn order(lab: &Lab, words: &[&str]) -> Result<()> {
    let done = ctl(lab, "a", "a", words)?;
    ensure!(done.code == Some(0), "{words:?}: {done:?}");
    Ok(())
}

/// The file as it is to be on all hosts once `x` stands for `w`.
fn file_with_x(lab: &Lab) -> Result<ClusterFile> {
    let mut file = ClusterFile::founding(lab, "300ms")?;
    file.nodes.retain(|(name, _)| name != "w");
    file.nodes.push(("x".to_owned(), lab.host("x")?.address()));
    Ok(file)
}

#[test]
fn a_witness_lost_for_good_is_replaced_and_nobody_is_disturbed() -> Result<()> {
    let lab = Lab::builder().host("x", 4).build()?;
    let file = ClusterFile::founding(&lab, "300ms")?;
    let mut pair = Pair::start_in(lab, &file, &RedisOptions::default())?;
    pair.start_writers(&[])?;
    let master = pair.master()?;
    let lost = pair.lab().power_off("w")?;
    let leads = |status: &Value| status["leader"].as_str().is_some_and(|l| l != "w");
    wait_status(pair.lab(), "a", "another leader", slowed(LIMIT), leads)?;

    let address = pair.host("x")?.address();
    let (peer, admin) = (format!("{address}:7600"), format!("{address}:7601"));
    order(pair.lab(), &["node", "add", "x", "--peer", &peer, "--admin", &admin])?;
    let mut file = file_with_x(pair.lab())?;
    let forgotten = Supervisor::start(pair.host("x")?, &file)?;
    let ended = forgotten.process().wait(slowed(LIMIT))?;
    let said = forgotten.process().log_text();
    ensure!(ended.code() == Some(MUST_NOT_RUN), "{ended:?}: {said}");
    ensure!(said.contains("`join = true`"), "no mend is named: {said}");
    file.joining = Some("x".to_owned());
    let _x = Supervisor::start(pair.host("x")?, &file)?;
    let four = |status: &Value| all_vote(status, &["a", "b", "w", "x"]);
    wait_status(pair.lab(), "a", "x to vote", slowed(LIMIT), four)?;
    order(pair.lab(), &["node", "remove", "w"])?;
    let three = |status: &Value| all_vote(status, &["a", "b", "x"]);
    wait_status(pair.lab(), "x", "w to be out", slowed(LIMIT), three)?;
    pair.keep_writing(LEASE * 2)?;
    let verdict = pair.outcome()?.verdict(lost, Mono::now());
    println!("w replaced by x: {verdict}");
    ensure!(verdict.service_back.is_none() && verdict.lost == 0, "disturbed: {verdict}");
    refuses_what_would_harm(&pair)?;

    let leads = |status: &Value| status["leader"].as_str() == Some("x");
    wait_status(pair.lab(), "a", "the new witness to lead", slowed(LIMIT), leads)?;
    let begun = Mono::now();
    let fault = pair.redis(&master)?.process().kill_without_waiting()?;
    pair.wait_taken_over(&master, fault).with_context(|| pair.story(begun, Mono::now()))?;
    let verdict = pair.outcome()?.since(begun).verdict(fault, Mono::now());
    println!("{master} killed under x: {verdict}");
    verdict.ensure_one_master()?;
    ensure!(verdict.service_back.is_some_and(|b| b < slowed(SERVICE_LIMIT)), "{verdict}");
    Ok(())
}

/// The host of the replica is gone with its disk: another takes its place, by commands alone.
#[test]
fn a_member_lost_for_good_is_replaced_and_the_new_one_takes_over() -> Result<()> {
    let lab = Lab::builder().host("x", 4).build()?;
    let founding = ClusterFile::founding(&lab, "300ms")?;
    let mut pair = Pair::start_in(lab, &founding, &RedisOptions::default())?;
    pair.start_writers(&[])?;
    ensure!(pair.master()? == "a", "the scenario begins with the master on a");
    let lost = pair.lab().power_off("b")?;

    let host = pair.host("x")?;
    let (peer, admin) = (format!("{}:7600", host.address()), format!("{}:7601", host.address()));
    order(pair.lab(), &["node", "add", "x", "--peer", &peer, "--admin", &admin])?;
    let mut file = founding.clone();
    file.nodes = vec![
        founding.nodes[0].clone(),
        founding.nodes[2].clone(),
        ("x".to_owned(), host.address()),
    ];
    file.groups[0].members = vec!["a".to_owned(), "x".to_owned()];
    file.joining = Some("x".to_owned());
    let redis = Redis::start(host, RedisOptions::default())?;
    let _x = Supervisor::start(host, &file)?;
    let four = |status: &Value| all_vote(status, &["a", "b", "w", "x"]);
    wait_status(pair.lab(), "a", "x to vote", slowed(LIMIT), four)?;
    order(pair.lab(), &["member", "add", "pair", "x"])?;
    pair.wait_replica("x", "a", "w")?;
    order(pair.lab(), &["member", "remove", "pair", "b"])?;
    order(pair.lab(), &["node", "remove", "b"])?;
    let three = |status: &Value| all_vote(status, &["a", "w", "x"]);
    wait_status(pair.lab(), "w", "b to be out", slowed(LIMIT), three)?;
    pair.keep_writing(LEASE * 2)?;
    let verdict = pair.outcome()?.verdict(lost, Mono::now());
    println!("b replaced by x: {verdict}");
    ensure!(verdict.service_back.is_none() && verdict.lost == 0, "disturbed: {verdict}");

    let begun = Mono::now();
    let fault = pair.redis("a")?.process().kill_without_waiting()?;
    let taken = pair.wait_taken_over("a", fault).with_context(|| pair.story(begun, Mono::now()))?;
    ensure!(*taken.server == *redis.instance(), "{} answered", taken.server);
    let verdict = pair.outcome()?.since(begun).verdict(fault, Mono::now());
    println!("a killed, x took over: {verdict}");
    verdict.ensure_one_master()?;
    ensure!(verdict.service_back.is_some_and(|b| b < slowed(SERVICE_LIMIT)), "{verdict}");
    Ok(())
}

fn refuses_what_would_harm(pair: &Pair) -> Result<()> {
    let table: [(&[&str], &str); 4] = [
        (&["node", "remove", "x"], "2 nodes with a vote would be left"),
        (&["node", "remove", "b"], "it is a member of group pair"),
        (
            &["node", "add", "w", "--peer", "10.99.0.9:7600", "--admin", "10.99.0.9:7601"],
            "choose another name",
        ),
        (
            &["node", "add", "y", "--peer", "host:7600", "--admin", "10.99.0.9:7601"],
            "must be ADDRESS:PORT",
        ),
    ];
    for (words, why) in table {
        let refused = ctl(pair.lab(), "a", "b", words)?;
        ensure!(refused.code == Some(1) && refused.stderr.contains(why), "{words:?}: {refused:?}");
    }
    Ok(())
}
