//! Role changes, pauses and the rule that a command once sent is never forgotten, against a real redis-server.
#![allow(clippy::unwrap_used)]

#[path = "redis_support/proxy.rs"]
mod proxy;
mod redis_support;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proxy::Proxy;
use redis_support::{Server, endpoint, info, run, spread_us, wait_until};
use redkeep_agent::redis::{
    Control, ControlError, MasterAddress, MasterAuth, MasterAuthChange, OffsetPoll, OffsetReached,
    Outcome, PauseScope, Promotion, RedisEndpoint, RedisFailure, Relink, Secret, Unpaused,
};

const PATIENT: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(60);

fn done<T: std::fmt::Debug>(outcome: Outcome<T>) -> T {
    match outcome {
        Outcome::Done(value) => value,
        Outcome::Pending => panic!("still pending"),
    }
}

fn master_at(server: &Server) -> MasterAddress {
    MasterAddress { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: server.port }
}

fn role(server: &Server) -> String {
    info(&mut server.client(), "replication", "role")
}

/// A replica of nobody reachable: its role shows whether a promotion ran.
fn lone_replica() -> Server {
    Server::start(&["--replicaof", "127.0.0.1 1"])
}

/// Master and replica with the link up.
fn pair() -> (Server, Server) {
    let master = Server::start(&[]);
    let port = master.port.to_string();
    let replica = Server::start(&["--replicaof", &format!("127.0.0.1 {port}")]);
    let mut client = replica.client();
    wait_until("the link is up", || info(&mut client, "replication", "master_link_status") == "up");
    (master, replica)
}

/// The role stays as it is: enough commands go by for anything left in a socket to run.
fn assert_role_stays(server: &Server, expected: &str) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(300) {
        assert_eq!(role(server), expected);
    }
}

#[tokio::test]
async fn roles_go_round_with_passwords() {
    let (a, b) =
        (Server::start(&["--requirepass", "secret"]), Server::start(&["--requirepass", "secret"]));
    let mut control_a = Control::new(a.endpoint_with_password("secret"));
    let mut control_b = Control::new(b.endpoint_with_password("secret"));
    assert!(!control_a.settled(), "an earlier process may have left a command");
    let auth = MasterAuth { username: None, password: Secret::new("secret") };
    let follow = control_b.replica_of(&master_at(&a), Some(&auth), PATIENT).await.unwrap();
    assert_eq!(done(follow), MasterAuthChange::Set);
    assert!(control_b.settled());
    let mut client = b.client_with(":secret@");
    wait_until("b follows", || info(&mut client, "replication", "master_link_status") == "up");
    let again = control_b.replica_of(&master_at(&a), Some(&auth), PATIENT).await.unwrap();
    assert_eq!(done(again), MasterAuthChange::Unchanged);

    assert!(!done(control_b.is_master(PATIENT).await.unwrap()));
    let offset: u64 = info(&mut client, "replication", "slave_repl_offset").parse().unwrap();
    let promotion = done(control_b.promote(PATIENT).await.unwrap());
    assert!(promotion.offset >= offset);
    assert!(done(control_b.is_master(PATIENT).await.unwrap()));
    // Harmless where it is done already.
    assert_eq!(done(control_b.promote(PATIENT).await.unwrap()), promotion);
    done(control_a.replica_of(&master_at(&b), Some(&auth), PATIENT).await.unwrap());
    let mut client = a.client_with(":secret@");
    wait_until("a follows", || info(&mut client, "replication", "master_link_status") == "up");
    let mut client = b.client_with(":secret@");
    assert_eq!(info(&mut client, "stats", "sync_full"), "0", "the way back is a partial resync");
}

#[tokio::test]
async fn promotion_takes_less_than_a_round_of_timers() {
    let (master, replica) = pair();
    let mut control = Control::new(replica.endpoint());
    done(control.ready(PATIENT).await.unwrap());
    let mut times = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        done(control.promote(PATIENT).await.unwrap());
        times.push(began.elapsed());
        done(control.replica_of(&master_at(&master), None, PATIENT).await.unwrap());
    }
    println!("promote with ROLE p50/max us: {:?}", spread_us(times));
}

#[tokio::test]
async fn slaveof_is_used_where_replicaof_is_unknown() {
    let arguments = ["--replicaof", "127.0.0.1 1", "--rename-command", "REPLICAOF", ""];
    let server = Server::start(&arguments);
    let mut control = Control::new(server.endpoint());
    done(control.promote(PATIENT).await.unwrap());
    assert_eq!(role(&server), "master");
    let master = MasterAddress { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 };
    done(control.replica_of(&master, None, PATIENT).await.unwrap());
    assert_eq!(role(&server), "slave");
}

#[tokio::test]
async fn renamed_role_command_is_called_by_its_new_name() {
    let arguments = ["--replicaof", "127.0.0.1 1", "--rename-command", "REPLICAOF", "x-role"];
    let server = Server::start(&[&arguments[..], &["--rename-command", "SLAVEOF", ""]].concat());
    let mut control = Control::new(server.endpoint());
    let refused = control.promote(PATIENT).await.unwrap_err();
    let unknown = RedisFailure::UnknownCommand { command: "SLAVEOF".to_owned() };
    assert_eq!(refused, ControlError::Redis { command: "SLAVEOF", source: unknown });
    assert!(control.settled(), "a refusal is an answer");
    let renamed = BTreeMap::from([("REPLICAOF".to_owned(), "x-role".to_owned())]);
    let mut control = Control::new(RedisEndpoint { renamed, ..server.endpoint() });
    done(control.promote(PATIENT).await.unwrap());
    assert_eq!(role(&server), "master");
}

#[tokio::test]
async fn user_that_may_not_see_clients_cannot_settle() {
    let server = lone_replica();
    run(&mut server.client(), &["ACL", "SETUSER", "u", "on", ">p", "+@all", "-client"]);
    let mut control = Control::new(RedisEndpoint {
        username: Some("u".to_owned()),
        ..server.endpoint_with_password("p")
    });
    let refused = control.promote(PATIENT).await.unwrap_err();
    let source = RedisFailure::NoPermission { command: "CLIENT".to_owned() };
    assert_eq!(refused, ControlError::Redis { command: "CLIENT", source });
    assert!(!control.settled());
    assert_eq!(role(&server), "slave", "nothing was sent");
}

#[tokio::test]
async fn command_to_a_frozen_redis_stays_pending_until_it_is_answered() {
    let server = lone_replica();
    let mut control = Control::new(server.endpoint());
    done(control.ready(PATIENT).await.unwrap());
    assert!(control.settled());
    server.signal(libc::SIGSTOP);
    assert_eq!(control.promote(SHORT).await.unwrap(), Outcome::Pending);
    assert!(!control.settled() && control.unanswered_since().is_some());
    // Nothing is sent behind it, neither a second promotion nor its opposite.
    assert_eq!(control.promote(SHORT).await.unwrap(), Outcome::Pending);
    let back = control.replica_of(&master_at(&server), None, SHORT).await.unwrap();
    assert_eq!(back, Outcome::Pending);
    server.signal(libc::SIGCONT);
    done(control.ready(PATIENT).await.unwrap());
    assert!(control.settled() && control.unanswered_since().is_none());
    assert_eq!(role(&server), "master", "it ran, late");
    assert_role_stays(&server, "master");
}

#[tokio::test]
async fn cancelled_call_is_not_forgotten() {
    let server = lone_replica();
    let mut control = Control::new(server.endpoint());
    done(control.ready(PATIENT).await.unwrap());
    server.signal(libc::SIGSTOP);
    assert!(tokio::time::timeout(SHORT, control.promote(PATIENT)).await.is_err());
    assert!(!control.settled());
    server.signal(libc::SIGCONT);
    // Settled as soon as the answer is there, without a further call.
    let began = Instant::now();
    while !control.settled() {
        assert!(began.elapsed() < PATIENT);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(role(&server), "master");
}

#[tokio::test]
async fn frozen_redis_cannot_settle_an_earlier_process() {
    let server = lone_replica();
    let mut earlier = Control::new(server.endpoint());
    done(earlier.ready(PATIENT).await.unwrap());
    server.signal(libc::SIGSTOP);
    assert_eq!(earlier.promote(SHORT).await.unwrap(), Outcome::Pending);
    // The earlier process dies: its socket closes, its command lies in Redis's buffer.
    drop(earlier);
    let mut control = Control::new(server.endpoint());
    let failed = control.ready(SHORT).await.unwrap_err();
    assert!(matches!(failed, ControlError::Connect { source: RedisFailure::Timeout { .. } }));
    assert!(!control.settled());
    server.signal(libc::SIGCONT);
    done(control.ready(PATIENT).await.unwrap());
    assert!(control.settled());
    let settled_role = role(&server);
    assert_role_stays(&server, &settled_role);
}

#[tokio::test]
async fn late_command_of_a_broken_connection_cannot_run() {
    let server = lone_replica();
    let proxy = Proxy::before(server.address());
    let mut control = Control::new(endpoint(proxy.address));
    done(control.ready(PATIENT).await.unwrap());
    // The promotion is under way, not yet in Redis, when the connection breaks.
    proxy.hold();
    assert_eq!(control.promote(SHORT).await.unwrap(), Outcome::Pending);
    proxy.wait_for_held_bytes();
    proxy.cut_clients();
    let began = Instant::now();
    while control.unanswered_since().is_some() {
        assert!(began.elapsed() < PATIENT);
        // The broken connection is noticed at the next call; it reconnects and kills the old one inside Redis.
        done(control.ready(PATIENT).await.unwrap());
    }
    assert!(control.settled());
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.client()).unwrap();
    assert_eq!(clients.matches("name=redkeep-control-").count(), 1, "{clients}");
    proxy.release();
    assert_role_stays(&server, "slave");
}

#[tokio::test]
async fn broken_connection_with_an_unanswered_command_is_not_settled() {
    let mut server = lone_replica();
    let proxy = Proxy::before(server.address());
    let mut control = Control::new(endpoint(proxy.address));
    done(control.ready(PATIENT).await.unwrap());
    server.signal(libc::SIGSTOP);
    assert_eq!(control.promote(SHORT).await.unwrap(), Outcome::Pending);
    proxy.cut_clients();
    let failed = control.ready(SHORT).await.unwrap_err();
    assert!(matches!(failed, ControlError::Connect { .. }), "{failed:?}");
    assert!(!control.settled());
    // Another process's death settles nothing, that of this one does.
    assert!(!control.forget_process(server.pid() + 1));
    assert!(!control.settled());
    server.signal(libc::SIGKILL);
    server.reap();
    assert!(control.forget_process(server.pid()));
    assert!(control.settled());
}

#[tokio::test]
async fn idle_connection_closed_by_redis_is_replaced() {
    let server = lone_replica();
    let mut control = Control::new(server.endpoint());
    done(control.ready(PATIENT).await.unwrap());
    run(&mut server.client(), &["CLIENT", "KILL", "TYPE", "normal"]);
    wait_until("it is gone", || {
        let clients: String = redis::cmd("CLIENT").arg("LIST").query(&mut server.client()).unwrap();
        !clients.contains("redkeep-control")
    });
    assert!(control.settled(), "nothing was unanswered");
    // Used before its end was read, it fails once; the next use has a new one.
    if control.promote(PATIENT).await.is_err() {
        done(control.promote(PATIENT).await.unwrap());
    }
    assert!(control.settled());
}

#[tokio::test]
async fn paused_writes_wait_and_reads_do_not() {
    let server = Server::start(&[]);
    let mut control = Control::new(server.endpoint());
    let paused = done(control.pause_writes(Duration::from_secs(10), PATIENT).await.unwrap());
    assert_eq!(paused.scope, PauseScope::Writes);
    let written = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&written);
    let mut writer = server.client();
    let thread = std::thread::spawn(move || {
        run(&mut writer, &["SET", "key", "value"]);
        flag.store(true, Ordering::Release);
    });
    let mut client = server.client();
    wait_until("the write is held back", || info(&mut client, "clients", "blocked_clients") == "1");
    assert!(!written.load(Ordering::Acquire));
    assert_eq!(done(control.unpause(PATIENT).await.unwrap()), Unpaused::Now);
    thread.join().unwrap();
}

#[tokio::test]
async fn offset_read_in_a_pause_is_reached_by_the_replica_and_nothing_is_lost() {
    let (master, replica) = pair();
    let stop = Arc::new(AtomicBool::new(false));
    let (stopping, mut writer) = (Arc::clone(&stop), master.client());
    let writes = std::thread::spawn(move || {
        let mut written = 0_u64;
        while !stopping.load(Ordering::Acquire) {
            let set = redis::cmd("INCR").arg("n").query::<u64>(&mut writer);
            match set {
                Ok(n) => written = n,
                Err(_) => break,
            }
        }
        written
    });
    let mut reader = master.client();
    wait_until("the writer writes", || run(&mut reader, &["EXISTS", "n"]) == redis::Value::Int(1));
    let mut control = Control::new(master.endpoint());
    let at_replica = OffsetPoll::open(replica.endpoint()).await.unwrap();
    let at_master = OffsetPoll::open(master.endpoint()).await.unwrap();
    let (mut applied, mut acknowledged) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let paused = done(control.pause_writes(PATIENT, PATIENT).await.unwrap());
        let began = Instant::now();
        let reached = at_replica.until_applied(paused.offset, PATIENT).await.unwrap();
        applied.push(began.elapsed());
        assert!(matches!(reached, OffsetReached::Yes { offset } if offset >= paused.offset));
        done(control.unpause(PATIENT).await.unwrap());
        // Outside a pause, against writes that go on.
        let goal = at_master.replication().await.unwrap().offset;
        let began = Instant::now();
        let line = ("127.0.0.1", replica.port);
        let reached = at_master.until_acknowledged(line, goal, PATIENT).await.unwrap();
        acknowledged.push(began.elapsed());
        assert!(matches!(reached, OffsetReached::Yes { offset } if offset >= goal));
    }
    println!("offset applied p50/max us: {:?}", spread_us(applied));
    println!("offset acknowledged p50/max us: {:?}", spread_us(acknowledged));
    let paused = done(control.pause_writes(PATIENT, PATIENT).await.unwrap());
    at_replica.until_applied(paused.offset, PATIENT).await.unwrap();
    let on_replica: u64 = redis::cmd("GET").arg("n").query(&mut replica.client()).unwrap();
    stop.store(true, Ordering::Release);
    done(control.unpause(PATIENT).await.unwrap());
    let written = writes.join().unwrap();
    // The write that waited through the pause comes after it; none other does.
    assert!(on_replica + 1 >= written && on_replica <= written, "{on_replica} {written}");
}

#[tokio::test]
async fn offset_that_is_not_reached_ends_at_the_deadline_with_the_last_one_seen() {
    let (master, replica) = pair();
    let at_replica = OffsetPoll::open(replica.endpoint()).await.unwrap();
    let at_master = OffsetPoll::open(master.endpoint()).await.unwrap();
    let goal = u64::MAX;
    let reached = at_replica.until_applied(goal, SHORT).await.unwrap();
    assert!(matches!(reached, OffsetReached::No { offset: Some(_) }));
    let reached =
        at_master.until_acknowledged(("127.0.0.1", replica.port), goal, SHORT).await.unwrap();
    assert!(matches!(reached, OffsetReached::No { offset: Some(_) }));
    let reached = at_master.until_acknowledged(("10.9.9.9", 1), goal, SHORT).await.unwrap();
    assert_eq!(reached, OffsetReached::No { offset: None });
    // Behind a WAIT that still runs: Redis ends one at its own ticks of 100 ms.
    let failure = at_master.until_applied(0, PATIENT).await.unwrap_err();
    assert_eq!(failure, RedisFailure::Protocol { what: "INFO of a replica" });
}

#[tokio::test]
async fn write_gate_settings_and_snapshots_are_carried_out() {
    let server = Server::start(&[]);
    let mut control = Control::new(server.endpoint());
    done(control.set_min_replicas_to_write(9, PATIENT).await.unwrap());
    let refused = redis::cmd("SET").arg("k").arg("v").query::<()>(&mut server.client());
    assert_eq!(refused.unwrap_err().code(), Some("NOREPLICAS"));
    let minimum = control.config_get("min-replicas-to-write", PATIENT).await.unwrap();
    assert_eq!(done(minimum).as_deref(), Some("9"));
    done(control.set_min_replicas_to_write(0, PATIENT).await.unwrap());
    run(&mut server.client(), &["SET", "k", "v"]);
    assert_eq!(done(control.config_get("no-such-setting", PATIENT).await.unwrap()), None);
    done(control.config_set("maxclients", "99", PATIENT).await.unwrap());
    done(control.bgsave(PATIENT).await.unwrap());
    wait_until("the snapshot is there", || server.directory.join("dump.rdb").exists());
    let mut client = server.client();
    assert!(done(control.kill_normal_clients(PATIENT).await.unwrap()) >= 1);
    assert!(redis::cmd("PING").query::<()>(&mut client).is_err());
    let promotion = done(control.promote(PATIENT).await.unwrap());
    assert_eq!(promotion, Promotion { offset: 0 });
}

#[tokio::test]
async fn quiet_link_to_the_master_is_made_anew_and_goes_on_where_it_was() {
    let (master, replica) = pair();
    let mut control = Control::new(replica.endpoint());
    let (mut at_master, mut at_replica) = (master.client(), replica.client());
    // The other end hears nothing of it and says nothing more, as after a cut.
    // When it said the last is not known here; that a link is left alone until then shows the next test.
    master.signal(libc::SIGSTOP);
    let quiet = Duration::from_secs(2);
    let began = Instant::now();
    while control.relink(&master_at(&master), quiet, PATIENT).await.unwrap()
        != Outcome::Done(Relink::Anew)
    {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    // It is not up again: the attempt is made anew.
    let down = control.relink(&master_at(&master), quiet, PATIENT).await.unwrap();
    assert_eq!(down, Outcome::Done(Relink::Anew));
    master.signal(libc::SIGCONT);
    wait_until("the link is up", || {
        info(&mut at_replica, "replication", "master_link_status") == "up"
    });
    assert_eq!(info(&mut at_master, "stats", "sync_full"), "1", "no second copy");
    assert_eq!(info(&mut at_master, "stats", "sync_partial_ok"), "1");
    assert!(control.settled());
}

#[tokio::test]
async fn link_that_lives_or_is_another_is_left_alone() {
    let (master, replica) = pair();
    let mut control = Control::new(replica.endpoint());
    let mut relink = async |at: &MasterAddress, quiet| {
        done(control.relink(at, Duration::from_secs(quiet), PATIENT).await.unwrap())
    };
    let other = MasterAddress { host: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 };
    assert_eq!(relink(&master_at(&master), 60).await, Relink::Lives);
    assert_eq!(relink(&other, 0).await, Relink::OtherRole);
    let mut of_master = Control::new(master.endpoint());
    let never = of_master.relink(&master_at(&replica), Duration::ZERO, PATIENT).await.unwrap();
    assert_eq!(never, Outcome::Done(Relink::OtherRole));
    assert_eq!(info(&mut master.client(), "stats", "sync_partial_ok"), "0");
}

/// A master that takes two seconds to make a copy, its replica, which waits for it, and the replica's control.
async fn long_copy() -> (Server, Server, Control) {
    let master = Server::start(&["--rdb-key-save-delay", "2000"]);
    run(&mut master.client(), &["DEBUG", "POPULATE", "1000"]);
    let replica = lone_replica();
    let mut control = Control::new(replica.endpoint());
    done(control.replica_of(&master_at(&master), None, PATIENT).await.unwrap());
    let mut at_replica = replica.client();
    wait_until("a copy is under way", || {
        info(&mut at_replica, "replication", "master_sync_in_progress") == "1"
    });
    (master, replica, control)
}

/// The master forks for a copy that takes long: to end the link would begin it anew.
#[tokio::test]
async fn copy_under_way_is_left_alone() {
    let (master, replica, mut control) = long_copy().await;
    let (mut client, mut at_replica) = (master.client(), replica.client());
    let left = control.relink(&master_at(&master), PATIENT, PATIENT).await.unwrap();
    assert_eq!(left, Outcome::Done(Relink::Lives));
    wait_until("the link is up", || {
        info(&mut at_replica, "replication", "master_link_status") == "up"
    });
    assert_eq!(info(&mut client, "stats", "sync_full"), "1");
}

/// Found by random faults: the master had closed its end during a cut, and Redis waited for the rest of the copy until `repl-timeout`.
#[tokio::test]
async fn copy_of_which_nothing_comes_any_more_is_begun_anew() {
    let (master, replica, mut control) = long_copy().await;
    let (mut client, mut at_replica) = (master.client(), replica.client());
    master.signal(libc::SIGSTOP);
    let quiet = Duration::from_secs(2);
    let began = Instant::now();
    while control.relink(&master_at(&master), quiet, PATIENT).await.unwrap()
        != Outcome::Done(Relink::Anew)
    {
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    master.signal(libc::SIGCONT);
    wait_until("the link is up", || {
        info(&mut at_replica, "replication", "master_link_status") == "up"
    });
    assert_eq!(info(&mut client, "stats", "sync_full"), "2");
    assert!(control.settled());
}
