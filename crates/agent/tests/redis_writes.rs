//! Whether writes are answered, against a real redis-server.
#![allow(clippy::unwrap_used)]

mod redis_support;

use std::time::{Duration, Instant};

use redis_support::{Server, info, remove, run};
use redkeep_agent::redis::{RedisEndpoint, RedisFailure, WriteCheck};

const TIMEOUT: Duration = Duration::from_millis(100);

fn check(endpoint: RedisEndpoint) -> WriteCheck {
    WriteCheck::new(RedisEndpoint { command_timeout: TIMEOUT, ..endpoint })
}

/// Looks, as the owner does every 20 ms, until `accepted`.
async fn look_until(
    check: &mut WriteCheck,
    what: &str,
    mut accepted: impl FnMut(&Result<(), RedisFailure>) -> bool,
) -> Duration {
    let began = Instant::now();
    loop {
        let result = check.look().await;
        if accepted(&result) {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain: {what}: {result:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn deletions(client: &mut redis::Connection) -> u64 {
    let text = info(client, "commandstats", "cmdstat_del");
    text.trim_start_matches("calls=").split(',').next().unwrap_or("0").parse().unwrap_or(0)
}

#[tokio::test]
async fn writes_held_by_a_pause_are_seen_and_their_end_too() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut check = check(server.endpoint());
    let answered = |result: &Result<(), RedisFailure>| result.is_ok();
    look_until(&mut check, "the first question", |_| deletions(&mut client) > 0).await;
    run(&mut client, &["CLIENT", "PAUSE", "60000", "WRITE"]);
    assert_eq!(run(&mut client, &["PING"]), redis::Value::SimpleString("PONG".into()));
    let held =
        |result: &Result<(), RedisFailure>| matches!(result, Err(RedisFailure::Timeout { .. }));
    let took = look_until(&mut check, "held", held).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    run(&mut client, &["CLIENT", "UNPAUSE"]);
    look_until(&mut check, "answered", answered).await;
}

#[tokio::test]
async fn a_look_is_asked_once_a_second_and_changes_nothing() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let before = info(&mut client, "replication", "master_repl_offset");
    let mut check = check(server.endpoint());
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        check.look().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!((1..=4).contains(&deletions(&mut client)), "{}", deletions(&mut client));
    assert_eq!(info(&mut client, "replication", "master_repl_offset"), before);
    assert_eq!(info(&mut client, "persistence", "rdb_changes_since_last_save"), "0");
}

#[tokio::test]
async fn a_pause_of_our_own_is_forgiven() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut check = check(server.endpoint());
    run(&mut client, &["CLIENT", "PAUSE", "60000", "WRITE"]);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        check.look().await.unwrap();
        check.forgive();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_refusal_after_a_disk_error_is_told_and_other_refusals_are_answers() {
    let server = Server::start(&["--save", "3600 1"]);
    let mut client = server.client();
    run(&mut client, &["CONFIG", "SET", "min-replicas-to-write", "9"]);
    let mut check = check(server.endpoint());
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1500) {
        check.look().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    run(&mut client, &["CONFIG", "SET", "min-replicas-to-write", "0"]);
    run(&mut client, &["SET", "key", "value"]);
    remove(&server.directory);
    run(&mut client, &["BGSAVE"]);
    let misconf = |result: &Result<(), RedisFailure>| *result == Err(RedisFailure::Misconf);
    look_until(&mut check, "MISCONF", misconf).await;
}

/// A user who may not delete is no reason for anything.
#[tokio::test]
async fn who_may_not_ask_asks_no_more() {
    let server = Server::start(&[]);
    let mut client = server.client();
    run(&mut client, &["ACL", "SETUSER", "default", "-del"]);
    let mut check = check(server.endpoint());
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2500) {
        check.look().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = info(&mut client, "commandstats", "cmdstat_del");
    assert!(refused.contains("rejected_calls=1,") || refused.is_empty(), "{refused}");
}
