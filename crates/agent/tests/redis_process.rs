//! Death of a real redis-server, with a small and a big heap, and what is no death.
#![allow(clippy::unwrap_used)]

mod redis_support;

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use redis_support::{Server, run, spread_us, wait_until};
use redkeep_agent::process::{
    Evidence, LifeState, Listeners, ProcessEvent, ProcessId, ProcessWatch, UnixReach, WatchError,
    life_state,
};

fn watch(server: &Server) -> (ProcessWatch, Receiver<(Instant, ProcessEvent)>) {
    let (sender, receiver) = channel();
    let watch = ProcessWatch::new(server.pid(), move |event| {
        sender.send((Instant::now(), event)).unwrap();
    })
    .unwrap();
    wait_until("the watch sleeps", || watch_sleeps(server.pid()));
    (watch, receiver)
}

/// Whether the watch's thread is in poll(2), so that a death comes as an event.
fn watch_sleeps(pid: u32) -> bool {
    let asleep = format!("(pidfd-{pid}) S");
    std::fs::read_dir("/proc/self/task").unwrap().any(|entry| {
        std::fs::read_to_string(entry.unwrap().path().join("stat"))
            .is_ok_and(|stat| stat.contains(&asleep))
    })
}

/// Kills the server; returns when the death was seen and when the client's socket closed, both since the kill.
fn kill_and_time(server: &mut Server) -> (Duration, Duration, Evidence) {
    let (watch, events) = watch(server);
    let process = watch.process();
    let mut socket = std::net::TcpStream::connect(server.address()).unwrap();
    let closed = std::thread::spawn(move || {
        let mut byte = [0];
        let _ = socket.read(&mut byte);
        Instant::now()
    });
    let killed = Instant::now();
    server.signal(libc::SIGKILL);
    let (seen, event) = events.recv_timeout(Duration::from_secs(20)).unwrap();
    let ProcessEvent::Dying { process: dying, evidence } = event;
    assert_eq!(dying, process);
    let closed = closed.join().unwrap();
    assert!(events.recv_timeout(Duration::from_millis(50)).is_err(), "told twice");
    server.reap();
    assert_eq!(life_state(process).unwrap(), LifeState::Gone);
    (seen.duration_since(killed), closed.duration_since(killed), evidence)
}

#[test]
fn kill_of_a_small_redis_is_seen_at_once() {
    let mut seen = Vec::new();
    let mut closed = Vec::new();
    for _ in 0..20 {
        let times = kill_and_time(&mut Server::start(&[]));
        seen.push(times.0);
        closed.push(times.1);
    }
    println!("small heap: seen p50/max us {:?}, closed {:?}", spread_us(seen), spread_us(closed));
}

#[test]
fn kill_of_a_big_redis_is_seen_before_its_sockets_close() {
    let mut seen = Vec::new();
    let mut closed = Vec::new();
    for _ in 0..3 {
        let mut server = Server::start(&[]);
        run(&mut server.client(), &["DEBUG", "POPULATE", "300000", "key", "1000"]);
        let by_threads = watch(&server).0.is_by_threads();
        let times = kill_and_time(&mut server);
        if by_threads {
            assert_ne!(times.2, Evidence::Process);
            assert!(times.0 < times.1, "seen after {:?}, closed after {:?}", times.0, times.1);
        }
        seen.push(times.0);
        closed.push(times.1);
    }
    println!("300 MB heap: seen p50/max us {:?}, closed {:?}", spread_us(seen), spread_us(closed));
}

#[test]
fn kernel_without_pidfds_sees_death_by_polling() {
    let mut server = Server::start(&[]);
    let (sender, events) = channel();
    let watch = ProcessWatch::by_stat(server.pid(), move |event| {
        sender.send((Instant::now(), event)).unwrap();
    })
    .unwrap();
    assert!(!watch.is_by_threads());
    wait_until("the watch sleeps", || watch_sleeps(server.pid()));
    let killed = Instant::now();
    server.signal(libc::SIGKILL);
    let (seen, event) = events.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(event, ProcessEvent::Dying { process: watch.process(), evidence: Evidence::Stat });
    println!("by polling: seen after {} us", seen.duration_since(killed).as_micros());
    server.reap();
}

#[test]
fn orderly_shutdown_is_a_death_too() {
    let mut server = Server::start(&[]);
    let (_watch, events) = watch(&server);
    let _ = redis::cmd("SHUTDOWN").arg("NOSAVE").query::<()>(&mut server.client());
    events.recv_timeout(Duration::from_secs(20)).unwrap();
    server.reap();
}

#[test]
fn crash_is_a_death_too() {
    let mut server = Server::start(&["--crash-memcheck-enabled", "no"]);
    let (_watch, events) = watch(&server);
    let _ = redis::cmd("DEBUG").arg("SEGFAULT").query::<()>(&mut server.client());
    events.recv_timeout(Duration::from_secs(20)).unwrap();
    server.reap();
}

#[test]
fn frozen_process_is_not_dead() {
    let server = Server::start(&[]);
    let (watch, events) = watch(&server);
    server.signal(libc::SIGSTOP);
    assert!(events.recv_timeout(Duration::from_millis(500)).is_err());
    assert!(matches!(life_state(watch.process()).unwrap(), LifeState::Alive { .. }));
    server.signal(libc::SIGCONT);
}

#[test]
fn worker_thread_that_ends_alone_is_no_death() {
    // The watched process is this one: its threads come and go, and it lives.
    let (workers_end, workers_wait) = channel::<()>();
    let worker = std::thread::spawn(move || workers_wait.recv());
    let (sender, events) = channel();
    let watch =
        ProcessWatch::new(std::process::id(), move |event| sender.send(event).unwrap()).unwrap();
    drop(workers_end);
    worker.join().unwrap().unwrap_err();
    for _ in 0..20 {
        std::thread::spawn(std::thread::yield_now).join().unwrap();
    }
    assert!(events.recv_timeout(Duration::from_millis(500)).is_err());
    drop(watch);
    assert!(events.recv().is_err(), "a dropped watch says nothing");
}

#[test]
fn process_that_died_before_the_watch_is_told_or_refused() {
    let mut server = Server::start(&[]);
    let pid = server.pid();
    let process = ProcessId::of(pid).unwrap();
    // A zombie until it is reaped.
    server.signal(libc::SIGKILL);
    wait_until("it dies", || life_state(process).unwrap() == LifeState::Dying);
    let (sender, events) = channel();
    let _watch = ProcessWatch::new(pid, move |event| sender.send(event).unwrap()).unwrap();
    events.recv_timeout(Duration::from_secs(20)).unwrap();
    server.reap();
    let refused = ProcessWatch::new(pid, |_| {});
    assert!(matches!(refused, Err(WatchError::NoProcess { pid: named }) if named == pid));
}

#[test]
fn listeners_of_redis_are_its_port_and_its_unix_socket_with_its_reach() {
    let directory = std::env::temp_dir().join(format!("redkeep-listen-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("redis.sock");
    let arguments = ["--unixsocket", path.to_str().unwrap(), "--unixsocketperm", "777"];
    let server = Server::start_in(&directory, &arguments);
    let found = Listeners::of(server.pid()).unwrap();
    assert_eq!(found.tcp, [server.address()]);
    assert!(found.has_port(server.port) && !found.has_port(1));
    assert_eq!(found.unguarded(&[server.port].into()), []);
    assert_eq!((&found.unix[0].path, found.unix[0].reach), (&path, UnixReach::Everyone));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    let uid = rustix::process::geteuid().as_raw();
    assert_eq!(Listeners::of(server.pid()).unwrap().unix[0].reach, UnixReach::Owner { uid });
    // A port set at run time is seen.
    let other = redis_support::free_port();
    run(&mut server.client(), &["CONFIG", "SET", "port", &other.to_string()]);
    assert_eq!(Listeners::of(server.pid()).unwrap().unguarded(&[server.port].into()).len(), 1);
}
