//! The nftables lease against a real kernel: what passes, what does not, and until when.
#![allow(clippy::unwrap_used)]

mod kernel_lab;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use kernel_lab::{
    HOST4, HOST6, Lab, MARK, OWN_SOURCE, PORT, ask, ask_once, config, connect, connect_within,
    is_refused, item, kept, lease, local, port_only, serve_echo, tally, wait_for,
};
use redkeep_agent::lock::Generation::{A, B};
use redkeep_agent::lock::{KernelLock, LockConfig, LockError};

const TTL: Duration = Duration::from_millis(300);

#[test]
fn a_new_lock_is_closed_and_a_lease_opens_it_for_requests_and_replies() {
    let lab = Lab::new();
    serve_echo(PORT);
    serve_echo(PORT + 1);
    assert!(lab.peer.within(|| ask_once(HOST4, PORT)).is_ok(), "nothing is locked yet");
    let mut lock = KernelLock::open(config()).unwrap();
    assert!(!lock.adopted());
    let v6: Ipv6Addr = HOST6.parse().unwrap();
    for address in [IpAddr::from(HOST4), IpAddr::from(v6)] {
        assert!(is_refused(&lab.peer.within(|| ask_once(address, PORT))), "{address}");
        assert!(lab.peer.within(|| ask_once(address, PORT + 1)).is_ok(), "not guarded");
    }
    lease(&mut lock, A, &[item(PORT, 1)], Duration::from_secs(5));
    for address in [IpAddr::from(HOST4), IpAddr::from(v6)] {
        assert!(lab.peer.within(|| ask_once(address, PORT)).is_ok(), "{address}");
        assert!(local(None, None, address).is_ok(), "{address}");
    }
}

#[test]
fn arming_alone_opens_nothing() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    for generation in [A, B] {
        lock.arm(generation, &[item(PORT, 1)], Duration::from_secs(5)).unwrap();
        assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    }
}

#[test]
fn arming_the_open_generation_closes_its_gate() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    lease(&mut lock, A, &[item(PORT, 1)], Duration::from_secs(5));
    lock.arm(A, &[item(PORT, 2)], Duration::from_secs(5)).unwrap();
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
}

/// Asks on one old connection and on a new one each time, until both are refused. The times of the last
/// requests that were answered, if any was.
fn ask_to_the_end() -> Option<(Instant, Instant)> {
    let silence = Duration::from_millis(500);
    let once = || connect_within(HOST4, PORT, silence).and_then(|mut stream| ask(&mut stream));
    let mut stream = connect_within(HOST4, PORT, silence).ok()?;
    let (mut held, mut fresh) = (None, None);
    loop {
        let asked = Instant::now();
        let old = ask(&mut stream).inspect(|()| held = Some(asked));
        let asked = Instant::now();
        let new = once().inspect(|()| fresh = Some(asked));
        if old.is_err() && new.is_err() {
            return held.zip(fresh);
        }
    }
}

#[test]
fn the_lease_ends_by_itself_within_the_ttl() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    let mut longest = Duration::ZERO;
    for round in 0..20 {
        let (opened, when_opened) = mpsc::channel();
        let (armed, last) = thread::scope(|scope| {
            let peer = &lab.peer;
            let client = scope.spawn(move || {
                peer.enter();
                when_opened.recv().unwrap();
                ask_to_the_end()
            });
            lock.arm(A, &[item(PORT, round)], TTL).unwrap();
            let armed = Instant::now();
            // A starved test may come too late for its own arming: then there is nothing to see.
            let _ = lock.open_gates(A, &[item(PORT, round)]);
            opened.send(()).unwrap();
            (armed, client.join().unwrap())
        });
        let Some((held, fresh)) = last else { continue };
        let (held, fresh) = (held.duration_since(armed), fresh.duration_since(armed));
        println!("last answered request: old connection {held:?}, new connections {fresh:?}");
        assert!(held <= TTL && fresh <= TTL);
        longest = longest.max(held.min(fresh));
        if round >= 4 && longest >= TTL * 3 / 4 {
            return;
        }
    }
    panic!("no round lasted longer than {longest:?}");
}

#[test]
fn a_gate_without_a_live_timer_opens_nothing() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    lease(&mut lock, A, &[item(PORT, 1)], Duration::from_millis(60));
    wait_for("expiry", Duration::from_secs(5), || lock.snapshot().unwrap().a.timers.is_empty());
    let snapshot = lock.snapshot().unwrap();
    assert!(snapshot.a.gates.contains(&PORT) && !snapshot.leased(PORT));
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    // The other generation's timer does not help this gate.
    lock.arm(B, &[item(PORT, 2)], Duration::from_secs(5)).unwrap();
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
}

#[test]
fn wrong_used_superseded_and_expired_nonces_open_nothing() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    let long = Duration::from_secs(5);
    let not_armed = |result| matches!(result, Err(LockError::NotArmed));
    let closed = || is_refused(&lab.peer.within(|| ask_once(HOST4, PORT)));

    assert!(not_armed(lock.open_gates(A, &[item(PORT, 1)])), "never armed");
    lock.arm(A, &[item(PORT, 1)], long).unwrap();
    assert!(not_armed(lock.open_gates(A, &[item(PORT, 2)])), "wrong");
    assert!(not_armed(lock.open_gates(A, &[item(PORT + 1, 1)])), "another port's");
    lock.arm(A, &[item(PORT, 3)], long).unwrap();
    assert!(not_armed(lock.open_gates(A, &[item(PORT, 1)])), "superseded");
    assert!(closed());
    lock.open_gates(A, &[item(PORT, 3)]).unwrap();
    lock.close(&[port_only(PORT)]).unwrap();
    assert!(not_armed(lock.open_gates(A, &[item(PORT, 3)])), "used");
    assert!(closed());
    lock.arm(B, &[item(PORT, 4)], Duration::from_millis(60)).unwrap();
    wait_for("expiry", Duration::from_secs(5), || lock.snapshot().unwrap().b.timers.is_empty());
    assert!(not_armed(lock.open_gates(B, &[item(PORT, 4)])), "expired");
    assert!(closed());
}

#[test]
fn closing_voids_the_grant_that_is_under_way_for_this_port_only() {
    let lab = Lab::new();
    serve_echo(PORT);
    serve_echo(PORT + 1);
    let mut lock = KernelLock::open(config()).unwrap();
    lock.arm(A, &[item(PORT, 1), item(PORT + 1, 2)], Duration::from_secs(5)).unwrap();
    lock.close(&[port_only(PORT)]).unwrap();
    assert!(matches!(lock.open_gates(A, &[item(PORT, 1)]), Err(LockError::NotArmed)));
    lock.open_gates(A, &[item(PORT + 1, 2)]).unwrap();
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    assert!(lab.peer.within(|| ask_once(HOST4, PORT + 1)).is_ok());
}

#[test]
fn one_wrong_nonce_keeps_all_items_of_the_batch_closed() {
    let _lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    lock.arm(A, &[item(PORT, 1), item(PORT + 1, 2)], Duration::from_secs(5)).unwrap();
    let refused = lock.open_gates(A, &[item(PORT, 1), item(PORT + 1, 9)]);
    assert!(matches!(refused, Err(LockError::NotArmed)));
    assert!(lock.snapshot().unwrap().a.gates.is_empty());
    lock.open_gates(A, &[item(PORT, 1), item(PORT + 1, 2)]).unwrap();
}

#[test]
fn closing_leaves_other_ports_connected() {
    let lab = Lab::new();
    serve_echo(PORT);
    serve_echo(PORT + 1);
    let mut lock = KernelLock::open(config()).unwrap();
    let items = [item(PORT, 1), item(PORT + 1, 2)];
    lease(&mut lock, A, &items, Duration::from_secs(5));
    let mut stays = lab.peer.within(|| connect(HOST4, PORT + 1)).unwrap();
    let mut goes = lab.peer.within(|| connect(HOST4, PORT)).unwrap();
    ask(&mut stays).unwrap();
    ask(&mut goes).unwrap();
    lock.close(&[port_only(PORT)]).unwrap();
    lock.close(&[port_only(PORT)]).unwrap();
    assert!(ask(&mut goes).is_err());
    ask(&mut stays).unwrap();
}

#[test]
fn a_stalled_server_acknowledges_nothing_after_the_lease() {
    let lab = Lab::new();
    let listener = TcpListener::bind(("::", PORT)).unwrap();
    let mut lock = KernelLock::open(config()).unwrap();
    for duration in [Duration::from_millis(900), Duration::from_secs(20)] {
        // The request lies in the server's buffer while the lease lives; the answer comes after a wait.
        lease(&mut lock, A, &[item(PORT, 1)], duration);
        let silence = Duration::from_millis(500);
        let mut client = lab.peer.within(|| connect_within(HOST4, PORT, silence)).unwrap();
        client.write_all(b"x").unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        if duration < Duration::from_secs(1) {
            wait_for("expiry", Duration::from_secs(5), || {
                lock.snapshot().unwrap().a.timers.is_empty()
            });
            server.write_all(&byte).unwrap();
            let answer = client.read_exact(&mut byte);
            assert!(answer.is_err(), "a reply left a dead lease");
            // The reset that ends such a connection may leave: it acknowledges nothing.
            assert!(client.write_all(b"y").is_ok());
            assert_eq!(
                client.read_exact(&mut byte).unwrap_err().kind(),
                std::io::ErrorKind::ConnectionReset
            );
        } else {
            server.write_all(&byte).unwrap();
            client.read_exact(&mut byte).unwrap();
        }
    }
}

#[test]
fn renewals_by_turns_reset_no_connection() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    // Long beside the pace, so that a starved test is not late for its own lease.
    let ttl = Duration::from_secs(3);
    lease(&mut lock, A, &[item(PORT, 0)], ttl);
    tally(&lab.host);
    let (answers, failures, renewals) = thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel::<()>();
        let peer = &lab.peer;
        let client = scope.spawn(move || {
            peer.enter();
            let (mut answers, mut failures) = (0_u32, Vec::new());
            let mut stream = connect(HOST4, PORT).unwrap();
            while matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Empty)) {
                for result in [ask(&mut stream), ask_once(HOST4, PORT)] {
                    match result {
                        Ok(()) => answers += 1,
                        Err(error) => failures.push(error),
                    }
                }
            }
            (answers, failures)
        });
        let began = Instant::now();
        let mut generation = A;
        let mut nonce = 0;
        while began.elapsed() < Duration::from_secs(4) {
            // The pace of renewals is what is tested, not a wait for something.
            thread::sleep(Duration::from_millis(60));
            generation = generation.other();
            nonce += 1;
            lease(&mut lock, generation, &[item(PORT, nonce)], ttl);
        }
        drop(stop);
        let (answers, failures) = client.join().unwrap();
        (answers, failures, nonce)
    });
    println!("{answers} answers, {renewals} renewals");
    assert!(failures.is_empty(), "{failures:?}");
    let (kept, packets) = kept(&lab.host);
    println!("{packets} packets");
    assert_eq!(kept, (0, 0), "of {packets} packets");
    assert!(answers > 100 && renewals > 10);
}

#[test]
fn a_local_client_is_locked_and_only_the_marked_own_source_passes() {
    let lab = Lab::new();
    serve_echo(PORT);
    let _lock = KernelLock::open(config()).unwrap();
    for to in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(HOST4)] {
        assert!(is_refused(&local(None, None, to)), "unmarked, {to}");
        assert!(is_refused(&local(None, Some(OWN_SOURCE), to)), "own source unmarked, {to}");
        assert!(is_refused(&local(Some(MARK + 1), Some(OWN_SOURCE), to)), "wrong mark, {to}");
        assert!(local(Some(MARK), Some(OWN_SOURCE), to).is_ok(), "the supervisor, {to}");
        // Its request passes, the answer to another address does not.
        let error = local(Some(MARK), None, to).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "marked elsewhere, {to}");
    }
    let v6 = IpAddr::from(Ipv6Addr::LOCALHOST);
    assert!(is_refused(&local(None, None, v6)));
    assert_eq!(local(Some(MARK), None, v6).unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    drop(lab);
}

#[test]
fn nobody_else_may_use_the_own_source_even_under_a_lease() {
    let _lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    lease(&mut lock, A, &[item(PORT, 1)], Duration::from_secs(5));
    let to = IpAddr::from(Ipv4Addr::LOCALHOST);
    assert!(local(None, None, to).is_ok());
    assert!(is_refused(&local(None, Some(OWN_SOURCE), to)));
}

#[test]
fn a_replica_element_opens_its_port_until_it_is_forbidden_or_expires() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    let reach = || lab.peer.within(|| ask_once(HOST4, PORT));
    lock.permit_replica(&port_only(PORT), Duration::from_secs(5)).unwrap();
    lock.permit_replica(&port_only(PORT), Duration::from_secs(5)).unwrap();
    assert!(reach().is_ok());
    lock.forbid_replica(PORT).unwrap();
    lock.forbid_replica(PORT).unwrap();
    assert!(is_refused(&reach()));
    lock.permit_replica(&port_only(PORT), Duration::from_millis(60)).unwrap();
    wait_for("expiry", Duration::from_secs(5), || lock.snapshot().unwrap().replica.is_empty());
    assert!(is_refused(&reach()));
}

#[test]
fn permitting_again_renews_the_time() {
    let _lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    lock.permit_replica(&port_only(PORT), Duration::from_secs(5)).unwrap();
    lock.permit_replica(&port_only(PORT), Duration::from_secs(60)).unwrap();
    let left = lock.snapshot().unwrap().replica[&PORT];
    assert!(left > Duration::from_secs(50), "{left:?}");
}

#[test]
fn a_mark_that_everybody_has_is_refused() {
    let _lab = Lab::new();
    let unmarked = KernelLock::open(LockConfig { mark: 0, ..config() });
    assert!(matches!(unmarked, Err(LockError::UnmarkedSupervisor)));
}

#[test]
fn a_ttl_below_what_the_tick_allows_is_refused() {
    let _lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    let short = lock.arm(A, &[item(PORT, 1)], Duration::from_millis(9));
    assert!(matches!(short, Err(LockError::TtlTooShort { .. })), "{short:?}");
    let least = lock.least_ttl();
    lock.arm(A, &[item(PORT, 1)], least).unwrap();
    assert!(least >= Duration::from_millis(10) && least <= Duration::from_millis(30), "{least:?}");
}
