//! Other data than the group's: a master that somebody makes a copy of another Redis, and a cold start after which a replica's old
//! data set counts further than the last master's.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    ClusterFile, Host, Lab, Mono, PASSWORD, PORT, Pair, Redis, RedisOptions, Reply, slowed,
    wait_status, wait_until,
};

const LIMIT: Duration = Duration::from_secs(60);
/// What may be lost by a failover: `max_lag` and a lease, with the second that Redis rounds by.
const TAIL: Duration = Duration::from_millis(4300);

fn start_pair(options: &RedisOptions) -> Result<Pair> {
    let lab = Lab::builder().build()?;
    let file = ClusterFile::founding(&lab, "300ms")?;
    let mut pair = Pair::start_in(lab, &file, options)?;
    pair.start_writers(&[])?;
    Ok(pair)
}

/// One command to the Redis of a host, from where the clients are.
fn order(pair: &Pair, host: &str, words: &[&str]) -> Result<Reply> {
    let at = SocketAddr::new(pair.host(host)?.address(), PORT);
    pair.host("c")?.redis(at, PASSWORD, words)
}

fn done(reply: &Reply) -> Result<()> {
    ensure!(*reply == Reply::Simple("OK".to_owned()), "{reply:?}");
    Ok(())
}

/// A Redis of somebody else, with so many keys.
fn foreign(host: &Host, keys: usize) -> Result<Redis> {
    let redis = Redis::start(host, RedisOptions::default())?;
    let at = SocketAddr::new(host.address(), PORT);
    for n in 0..keys {
        done(&host.redis(at, PASSWORD, &["SET", &format!("foreign:{n}"), "1"])?)?;
    }
    Ok(redis)
}

/// With Redis's own `repl-diskless-sync-delay`, 5 s: with none the replica may have copied the other data before the fence.
fn copies_another(keys: usize) -> Result<()> {
    let mut options = RedisOptions::default();
    let delay = ("repl-diskless-sync-delay".to_owned(), "5".to_owned());
    options.extra = vec![("repl-diskless-sync".to_owned(), "yes".to_owned()), delay];
    let pair = start_pair(&options)?;
    let client = pair.host("c")?;
    let _other = foreign(client, keys)?;
    let old = pair.assignment("w")?.master;
    let fault = Mono::now();
    let at = client.address().to_string();
    done(&order(&pair, &old, &["REPLICAOF", &at, &PORT.to_string()])?)?;
    let taken =
        pair.wait_taken_over(&old, fault).with_context(|| pair.story(fault, Mono::now()))?;
    let new = taken.server.split(':').next().unwrap_or_default().to_owned();
    pair.wait_replica(&old, &new, "w").with_context(|| pair.story(fault, Mono::now()))?;
    pair.keep_writing(Duration::from_millis(500))?;
    let end = Mono::now();
    let verdict = pair.outcome()?.verdict(fault, end);
    println!("a copy of a Redis with {keys} keys: {verdict}\n{}", pair.story(fault, end));
    verdict.ensure_one_master()?;
    verdict.ensure_lost_within(TAIL)?;
    for host in [&old, &new] {
        let found = order(&pair, host, &["EXISTS", "foreign:0"])?;
        ensure!(found == Reply::Integer(0), "{host} has other data: {found:?}");
    }
    Ok(())
}

#[test]
fn master_that_copies_a_small_redis_is_replaced_by_its_replica() -> Result<()> {
    copies_another(3)
}

#[test]
fn master_that_copies_an_empty_redis_is_replaced_by_its_replica() -> Result<()> {
    copies_another(0)
}

/// a is the last master and has an append-only file; b has an RDB from before, and its file makes it a replica, so that also
/// before Redis 7 it comes back with the history and a large offset.
#[test]
fn last_master_with_an_append_only_file_wins_against_an_older_snapshot() -> Result<()> {
    let mut pair = start_pair(&RedisOptions::default())?;
    ensure!(pair.assignment("w")?.master == "a", "only a's file makes a master");
    for (directive, value) in [("appendfsync", "always"), ("appendonly", "yes")] {
        done(&order(&pair, "a", &["CONFIG", "SET", directive, value])?)?;
        pair.redis_mut("a")?.set_directive(directive, value);
    }
    done(&order(&pair, "b", &["SAVE"])?)?;
    let rewritten = || {
        let info = order(&pair, "a", &["INFO", "persistence"]).ok()?.text()?;
        let ready = info.contains("aof_rewrite_in_progress:0")
            && info.contains("aof_rewrite_scheduled:0")
            && info.contains("aof_last_bgrewrite_status:ok");
        ready.then_some(())
    };
    wait_until("the append-only file", LIMIT, rewritten)?;
    pair.keep_writing(slowed(Duration::from_secs(1)))?;
    let off = Mono::now();
    pair.restart_all_hosts()?;
    let serves = |status: &serde_json::Value| {
        let group = &status["groups"][0];
        group["serving"] == true && group["master"] == "a"
    };
    wait_status(pair.lab(), "w", "the last master to serve", LIMIT, serves)
        .with_context(|| pair.story(off, Mono::now()))?;
    let instance = pair.redis("a")?.instance();
    let held = &pair.writers()[1];
    wait_until("a write to be answered by it", LIMIT, || {
        held.last_server().filter(|server| **server == *instance)
    })?;
    let outcome = pair.outcome()?;
    ensure!(outcome.lost().is_empty(), "lost {} writes", outcome.lost().len());
    pair.wait_replica("b", "a", "w")
}
