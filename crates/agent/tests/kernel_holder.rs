//! The lock held by a process of its own, which is killed or frozen.
#![allow(clippy::unwrap_used)]

mod kernel_lab;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kernel_lab::{
    HOST4, Lab, PORT, ask, ask_once, config, connect, connect_within, is_refused, item, lease,
    port_only, serve_echo,
};
use redkeep_agent::lock::Generation::{A, B};
use redkeep_agent::lock::{KernelLock, LockError, Ownership, close_ports};
use rustix::process::{Pid, Signal, kill_process};

const TTL: Duration = Duration::from_millis(1000);
const HOLDER: &str = "REDKEEP_TEST_HOLDER_TTL_MS";

/// Not a test by itself: the body of the process that the tests below start. Renews for ever.
#[test]
#[ignore = "run by the other tests as a process of its own"]
fn holder_process() {
    let Ok(ttl) = std::env::var(HOLDER) else { return };
    let ttl = Duration::from_millis(ttl.parse().unwrap());
    let mut lock = KernelLock::open(config()).unwrap();
    let mut generation = A;
    let ends = Instant::now() + Duration::from_secs(60);
    for nonce in 0.. {
        lease(&mut lock, generation, &[item(PORT, nonce)], ttl);
        if nonce == 0 {
            println!("holding");
        }
        if Instant::now() > ends {
            return;
        }
        generation = generation.other();
        std::thread::sleep(ttl / 5);
    }
}

struct Holder(Child);

impl Holder {
    /// Starts a holder in the calling thread's namespace and waits until it has the lease.
    fn start(ttl: Duration) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["holder_process", "--exact", "--ignored", "--nocapture"])
            .env(HOLDER, ttl.as_millis().to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let found = lines.any(|line| line.unwrap().contains("holding"));
        assert!(found, "the holder ended");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Signals the holder, and asks until both an old and new connections are refused; the time of the last
/// request that was answered, from the signal.
fn last_answer_after(lab: &Lab, holder: &Holder, signal: Signal) -> Duration {
    let silence = Duration::from_millis(500);
    let mut held = lab.peer.within(|| connect_within(HOST4, PORT, silence)).unwrap();
    ask(&mut held).unwrap();
    let signalled = Instant::now();
    holder.signal(signal);
    lab.peer.within(|| {
        let mut last = signalled;
        loop {
            let asked = Instant::now();
            let old = ask(&mut held).is_ok();
            let silence = Duration::from_millis(500);
            let new = connect_within(HOST4, PORT, silence).and_then(|mut s| ask(&mut s)).is_ok();
            if old || new {
                last = asked;
            } else {
                return last.duration_since(signalled);
            }
            assert!(signalled.elapsed() < Duration::from_secs(5), "the lease does not end");
        }
    })
}

#[test]
fn a_killed_or_frozen_holder_loses_its_port_within_the_ttl() {
    for signal in [Signal::KILL, Signal::STOP] {
        let lab = Lab::new();
        serve_echo(PORT);
        let holder = Holder::start(TTL);
        let last = last_answer_after(&lab, &holder, signal);
        println!("{signal:?}: last answered request {last:?} after the signal");
        assert!(last <= TTL, "{last:?}");
        assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    }
}

#[test]
fn a_starting_redis_closes_its_port_while_the_owner_is_frozen() {
    let lab = Lab::new();
    serve_echo(PORT);
    // A lease so long that only the closing can explain a refusal.
    let holder = Holder::start(Duration::from_secs(50));
    assert!(lab.peer.within(|| ask_once(HOST4, PORT)).is_ok());
    holder.signal(Signal::STOP);
    let mut held = lab.peer.within(|| connect(HOST4, PORT)).unwrap();
    ask(&mut held).unwrap();
    close_ports(&config(), &[PORT]).unwrap();
    assert!(ask(&mut held).is_err());
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    // Its supervisor wakes up and goes on as if nothing had happened: nothing opens.
    holder.signal(Signal::CONT);
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
}

#[test]
fn an_orphaned_lease_is_adopted_while_it_lives_and_the_owner_alone_while_he_does() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut holder = Holder::start(Duration::from_secs(50));
    let mut held = lab.peer.within(|| connect(HOST4, PORT)).unwrap();
    holder.signal(Signal::STOP);
    let second = KernelLock::open(config());
    match second {
        Err(LockError::OwnedByAnother) => {}
        Ok(lock) => assert_eq!(lock.ownership(), Ownership::Plain),
        Err(other) => panic!("{other:?}"),
    }
    holder.0.kill().unwrap();
    holder.0.wait().unwrap();
    let mut lock = KernelLock::open(config()).unwrap();
    assert!(lock.adopted());
    ask(&mut held).unwrap();
    assert!(lock.snapshot().unwrap().leased(PORT));
    lock.close(&[port_only(PORT)]).unwrap();
    assert!(ask(&mut held).is_err());
}

#[test]
fn arming_and_opening_take_microseconds() {
    let _lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    let (mut arms, mut opens) = (Vec::new(), Vec::new());
    for nonce in 0..1000 {
        let generation = if nonce % 2 == 0 { A } else { B };
        let items = [item(PORT, nonce), item(PORT + 1, nonce)];
        let began = Instant::now();
        lock.arm(generation, &items, TTL).unwrap();
        arms.push(began.elapsed());
        let began = Instant::now();
        lock.open_gates(generation, &items).unwrap();
        opens.push(began.elapsed());
    }
    for (what, times) in [("arm", &mut arms), ("open", &mut opens)] {
        times.sort_unstable();
        println!("{what}: p50 {:?}, p99 {:?}, max {:?}", times[500], times[990], times[999]);
        assert!(times[500] < Duration::from_millis(1), "{what}");
    }
}
