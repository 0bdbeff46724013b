//! The probe against a real redis-server: every class of failure that can be provoked is provoked.
#![allow(clippy::unwrap_used)]

mod redis_support;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use redis_support::{Server, endpoint, free_port, info, remove, run, spread_us, wait_until};
use redkeep_agent::redis::{
    Observation, Probe, ProbeFailure, RedisAddress, RedisEndpoint, Role, Secret, WriteRefusal,
};

fn within(endpoint: RedisEndpoint, time: Duration) -> RedisEndpoint {
    RedisEndpoint { command_timeout: time, connect_timeout: time, ..endpoint }
}

async fn observe(endpoint: RedisEndpoint) -> Result<Observation, ProbeFailure> {
    Probe::new(endpoint).observe().await
}

/// Looks until `accepted`, with a bound.
async fn observe_until(
    probe: &mut Probe,
    what: &str,
    accepted: impl Fn(&Result<Observation, ProbeFailure>) -> bool,
) -> Result<Observation, ProbeFailure> {
    let began = Instant::now();
    loop {
        let result = probe.observe().await;
        if accepted(&result) {
            return result;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain: {what}: {result:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn healthy_master_is_observed_over_one_connection() {
    let server = Server::start(&["--min-replicas-to-write", "3"]);
    let mut client = server.client();
    run(&mut client, &["DEBUG", "POPULATE", "1"]);
    let mut probe = Probe::new(server.endpoint());
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let seen = probe.observe().await.unwrap();
        times.push(began.elapsed());
        assert_eq!((seen.role, seen.process_id, seen.keys), (Role::Master, server.pid(), 1));
        let settings = seen.write_settings.unwrap();
        assert_eq!(settings.min_replicas_to_write, 3);
        assert!(settings.stop_writes_on_bgsave_error && !settings.has_save_points);
    }
    println!("probe p50/max us: {:?}", spread_us(times));
    assert_eq!(info(&mut client, "clients", "connected_clients"), "2");
}

#[tokio::test]
async fn wrong_and_missing_passwords_are_auth_rejected() {
    let server = Server::start(&["--requirepass", "right"]);
    let rejected = Err(ProbeFailure::AuthRejected);
    assert_eq!(observe(server.endpoint_with_password("wrong")).await, rejected);
    assert_eq!(observe(server.endpoint()).await, rejected);
    let mut nobody = server.endpoint_with_password("right");
    nobody.username = Some("nobody".to_owned());
    assert_eq!(observe(nobody).await, rejected);
    observe(server.endpoint_with_password("right")).await.unwrap();
}

#[tokio::test]
async fn password_that_redis_does_not_ask_for_is_no_failure() {
    let server = Server::start(&[]);
    observe(server.endpoint_with_password("unused")).await.unwrap();
}

#[tokio::test]
async fn acl_user_needs_the_commands_that_the_probe_sends() {
    let server = Server::start(&[]);
    let mut client = server.client();
    run(&mut client, &["ACL", "SETUSER", "poor", "on", ">p", "+ping"]);
    run(&mut client, &["ACL", "SETUSER", "fair", "on", ">p", "+ping", "+info"]);
    let user = |name: &str| RedisEndpoint {
        username: Some(name.to_owned()),
        ..server.endpoint_with_password("p")
    };
    let failure = observe(user("poor")).await.unwrap_err();
    assert_eq!(failure, ProbeFailure::NoPermission { command: "INFO".to_owned() });
    // CONFIG is wanted, not needed.
    assert_eq!(observe(user("fair")).await.unwrap().write_settings, None);
}

#[tokio::test]
async fn renamed_command_is_unknown_unless_its_name_is_given() {
    let server = Server::start(&["--rename-command", "INFO", "x-info"]);
    let failure = observe(server.endpoint()).await.unwrap_err();
    assert_eq!(failure, ProbeFailure::UnknownCommand { command: "INFO".to_owned() });
    let renamed = BTreeMap::from([("INFO".to_owned(), "x-info".to_owned())]);
    observe(RedisEndpoint { renamed, ..server.endpoint() }).await.unwrap();
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    assert_eq!(observe(endpoint(address)).await, Err(ProbeFailure::Refused));
}

#[tokio::test]
async fn protected_mode_names_itself_and_a_password_lets_the_source_address_pass() {
    let source = Some(Ipv4Addr::new(127, 114, 107, 1));
    let open = Server::start(&[]);
    // Twenty times: the error line races with our first command.
    for _ in 0..20 {
        let failure = observe(RedisEndpoint { source, ..open.endpoint() }).await.unwrap_err();
        assert_eq!(failure, ProbeFailure::ProtectedMode);
    }
    let server = Server::start(&["--requirepass", "p"]);
    let mut probe = Probe::new(RedisEndpoint { source, ..server.endpoint_with_password("p") });
    probe.observe().await.unwrap();
    let clients: String =
        redis::cmd("CLIENT").arg("LIST").query(&mut server.client_with(":p@")).unwrap();
    assert!(clients.contains(" addr=127.114.107.1:"), "{clients}");
}

#[tokio::test]
async fn full_redis_says_maxclients() {
    let server = Server::start(&[]);
    let mut client = server.client();
    run(&mut client, &["CONFIG", "SET", "maxclients", "1"]);
    for _ in 0..20 {
        assert_eq!(observe(server.endpoint()).await, Err(ProbeFailure::MaxClients));
    }
}

#[tokio::test]
async fn unix_socket_gives_the_same_and_the_listener_s_process() {
    let directory = std::env::temp_dir().join(format!("redkeep-unix-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("redis.sock");
    let server = Server::start_in(&directory, &["--unixsocket", path.to_str().unwrap()]);
    let unix = RedisEndpoint { address: RedisAddress::Unix(path), ..server.endpoint() };
    assert_eq!(observe(unix.clone()).await.unwrap().process_id, server.pid());
    let connection =
        redkeep_agent::redis::Connection::open(&std::sync::Arc::new(unix)).await.unwrap();
    assert_eq!(connection.peer_process_id(), Some(server.pid()));
}

#[tokio::test]
async fn loading_is_named_with_its_estimate() {
    let mut server = Server::start(&[]);
    let mut client = server.client();
    run(&mut client, &["DEBUG", "POPULATE", "20000", "key", "100"]);
    run(&mut client, &["SAVE"]);
    let directory = server.directory.with_extension("loading");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::copy(server.directory.join("dump.rdb"), directory.join("dump.rdb")).unwrap();
    server.signal(libc::SIGKILL);
    server.reap();
    let slow = ["--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024"];
    let loading = Server::start_in(&directory, &slow);
    let mut probe = Probe::new(loading.endpoint());
    let failure = probe.observe().await.unwrap_err();
    assert!(matches!(failure, ProbeFailure::Loading { eta_s: Some(_) }), "{failure:?}");
    let seen = probe.last_observation().unwrap();
    assert!(seen.loading && seen.process_id == loading.pid());
    // The wait ends by speeding the load up, and the same probe sees it.
    run(&mut loading.client(), &["CONFIG", "SET", "key-load-delay", "0"]);
    let seen = observe_until(&mut probe, "the load ends", Result::is_ok).await.unwrap();
    assert_eq!(seen.keys, 20000);
}

#[tokio::test]
async fn endless_script_is_a_timeout_first_and_busy_then() {
    let server = Server::start(&["--lua-time-limit", "300"]);
    let mut probe = Probe::new(within(server.endpoint(), Duration::from_millis(50)));
    observe_until(&mut probe, "healthy", Result::is_ok).await.unwrap();
    let mut client = server.client();
    let script = std::thread::spawn(move || {
        redis::cmd("EVAL").arg("while true do end").arg(0).query::<()>(&mut client).unwrap_err()
    });
    let timeout = |result: &Result<_, _>| matches!(result, Err(ProbeFailure::Timeout { .. }));
    observe_until(&mut probe, "no answer", timeout).await.unwrap_err();
    let busy = |result: &Result<_, _>| *result == Err(ProbeFailure::Busy);
    observe_until(&mut probe, "busy", busy).await.unwrap_err();
    // A new connection hears the same.
    let mut fresh = Probe::new(server.endpoint());
    assert_eq!(fresh.observe().await, Err(ProbeFailure::Busy));
    assert_eq!(server.raw("SCRIPT KILL").as_deref(), Some("+OK"));
    script.join().unwrap();
    observe_until(&mut probe, "healthy again", Result::is_ok).await.unwrap();
}

#[tokio::test]
async fn unwritable_directory_is_misconf_with_its_cause() {
    let server = Server::start(&["--save", "3600 1"]);
    let mut client = server.client();
    run(&mut client, &["SET", "key", "value"]);
    remove(&server.directory);
    run(&mut client, &["BGSAVE"]);
    wait_until("the snapshot fails", || {
        info(&mut client, "persistence", "rdb_last_bgsave_status") == "err"
    });
    let mut probe = Probe::new(server.endpoint());
    assert_eq!(probe.observe().await, Err(ProbeFailure::Misconf));
    let seen = probe.last_observation().unwrap();
    assert_eq!(seen.write_refusal(), Some(WriteRefusal::BgsaveError));
    run(&mut client, &["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]);
    probe.refresh_settings();
    assert_eq!(probe.observe().await.unwrap().write_refusal(), None);
}

#[tokio::test]
async fn replica_with_a_failed_snapshot_is_misconf_and_still_seen_as_a_replica() {
    let server = Server::start(&["--save", "3600 1", "--replicaof", "127.0.0.1 1"]);
    remove(&server.directory);
    let mut client = server.client();
    run(&mut client, &["BGSAVE"]);
    wait_until("the snapshot fails", || {
        info(&mut client, "persistence", "rdb_last_bgsave_status") == "err"
    });
    let mut probe = Probe::new(server.endpoint());
    // Redis 7.0 refuses PING at replicas too; older ones do so at masters only.
    assert_eq!(probe.observe().await, Err(ProbeFailure::Misconf));
    let seen = probe.last_observation().unwrap();
    assert!(seen.is_read_only_replica());
    assert_eq!(seen.write_refusal(), Some(WriteRefusal::BgsaveError));
}

#[tokio::test]
async fn frozen_redis_gets_one_request_and_answers_the_same_connection_after_its_thaw() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut probe = Probe::new(within(server.endpoint(), Duration::from_millis(50)));
    observe_until(&mut probe, "healthy", Result::is_ok).await.unwrap();
    let commands = |client: &mut redis::Connection| -> u64 {
        info(client, "stats", "total_commands_processed").parse().unwrap()
    };
    let before = commands(&mut client);
    server.signal(libc::SIGSTOP);
    let began = Instant::now();
    let mut looks = 0;
    while began.elapsed() < Duration::from_millis(600) {
        let failure = probe.observe().await.unwrap_err();
        assert_eq!(failure, ProbeFailure::Timeout { after: Duration::from_millis(50) });
        looks += 1;
    }
    assert!(looks >= 8, "{looks} looks");
    server.signal(libc::SIGCONT);
    observe_until(&mut probe, "thawed", Result::is_ok).await.unwrap();
    // One request of five commands while frozen, then at most a few after the thaw: never one for each look.
    let sent = commands(&mut client) - before;
    assert!(sent <= 5 * 4 + 1, "{sent} commands for {looks} looks");
}

#[tokio::test]
async fn redis_frozen_before_the_first_look_is_a_timeout() {
    let server = Server::start(&[]);
    server.signal(libc::SIGSTOP);
    let time = Duration::from_millis(80);
    let result = observe(within(server.endpoint(), time)).await;
    assert_eq!(result, Err(ProbeFailure::Timeout { after: time }));
    server.signal(libc::SIGCONT);
}

#[tokio::test]
async fn killed_redis_closes_the_idle_connection_and_the_next_look_says_so() {
    let mut server = Server::start(&[]);
    let mut probe = Probe::new(server.endpoint());
    probe.observe().await.unwrap();
    let closed = probe.closed().unwrap();
    // Awaited beside looks: it borrows nothing.
    probe.observe().await.unwrap();
    server.signal(libc::SIGKILL);
    tokio::time::timeout(Duration::from_secs(5), closed).await.unwrap();
    server.reap();
    let failure = probe.observe().await.unwrap_err();
    assert!(matches!(failure, ProbeFailure::Refused | ProbeFailure::Closed), "{failure:?}");
}

#[tokio::test]
async fn at_most_one_look_is_answered_by_what_a_cancelled_one_asked() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut probe = Probe::new(server.endpoint());
    probe.observe().await.unwrap();
    server.signal(libc::SIGSTOP);
    let cancelled = tokio::time::timeout(Duration::from_millis(30), probe.observe()).await;
    assert!(cancelled.is_err());
    server.signal(libc::SIGCONT);
    run(&mut client, &["SET", "key", "value"]);
    // The answer to the cancelled look may be on its way still; it is used once and not again.
    let first = probe.observe().await.unwrap().keys;
    let second = probe.observe().await.unwrap().keys;
    assert!(first <= 1 && second == 1, "{first} {second}");
}

#[tokio::test]
async fn mark_needs_a_privilege_or_works() {
    let server = Server::start(&["--requirepass", "p"]);
    let marked = RedisEndpoint {
        mark: Some(0x7265_646b),
        password: Some(Secret::new("p")),
        ..server.endpoint()
    };
    match observe(marked).await {
        Ok(seen) => assert_eq!(seen.process_id, server.pid()),
        Err(failure) => assert!(matches!(failure, ProbeFailure::Socket { step: "SO_MARK", .. })),
    }
}
