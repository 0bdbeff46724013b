//! The lock through restarts, boots, foreign changes and starts of its Redis.
#![allow(clippy::unwrap_used)]

mod kernel_lab;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::Duration;

use kernel_lab::{
    HOST4, Lab, MARK, OWN_SOURCE, PORT, ask, ask_once, config, connect, is_refused, item, lease,
    local, port_only, serve_echo, wait_for,
};
use redkeep_agent::lock::Generation::{A, B};
use redkeep_agent::lock::{
    KernelLock, LockConfig, LockError, LockHealth, Ownership, StartNotice, close_ports,
    install_closed,
};

const TTL: Duration = Duration::from_millis(300);

#[test]
fn a_running_master_is_adopted_without_an_interruption() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut held = lab.peer.within(|| connect(HOST4, PORT)).unwrap();
    let nothing_closed = LockConfig { closed_ports: vec![], ..config() };
    let mut lock = KernelLock::open(nothing_closed).unwrap();
    lock.arm(A, &[item(PORT, 7)], Duration::from_millis(1500)).unwrap();
    ask(&mut held).unwrap();
    lock.open_gates(A, &[item(PORT, 7)]).unwrap();
    ask(&mut held).unwrap();
    assert!(lock.snapshot().unwrap().guarded.contains(&PORT));
    // From here on the lease rules.
    wait_for("expiry", Duration::from_secs(5), || lock.snapshot().unwrap().a.timers.is_empty());
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    lock.unguard(&[port_only(PORT)]).unwrap();
    assert!(lab.peer.within(|| ask_once(HOST4, PORT)).is_ok());
}

#[test]
fn a_successor_adopts_the_lease_and_voids_the_predecessors_grant() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut first = KernelLock::open(config()).unwrap();
    lease(&mut first, A, &[item(PORT, 1)], Duration::from_secs(5));
    first.arm(B, &[item(PORT, 2)], Duration::from_secs(5)).unwrap();
    let mut held = lab.peer.within(|| connect(HOST4, PORT)).unwrap();
    ask(&mut held).unwrap();
    if first.ownership() == Ownership::Owned {
        assert!(matches!(KernelLock::open(config()), Err(LockError::OwnedByAnother)));
    }
    drop(first);
    ask(&mut held).unwrap();
    let mut second = KernelLock::open(config()).unwrap();
    assert!(second.adopted());
    ask(&mut held).unwrap();
    let snapshot = second.snapshot().unwrap();
    assert!(snapshot.leased(PORT) && snapshot.guarded.contains(&PORT), "{snapshot:?}");
    assert!(snapshot.b.timers.contains_key(&PORT) && snapshot.b.gates.is_empty());
    assert!(snapshot.a.timers[&PORT] <= Duration::from_secs(5));
    assert!(matches!(second.open_gates(B, &[item(PORT, 2)]), Err(LockError::NotArmed)));
    lease(&mut second, B, &[item(PORT, 3)], Duration::from_secs(5));
    ask(&mut held).unwrap();
    assert_eq!(second.verify().unwrap(), LockHealth::Intact);
}

#[test]
fn an_owned_lock_survives_a_foreign_flush() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    if lock.ownership() == Ownership::Plain {
        println!("this kernel has no owned tables: nothing to show");
        return;
    }
    lab.host.exec(&["nft", "flush", "ruleset"]);
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    // The start table belongs to nobody and is gone; it comes back beside an undisturbed lease.
    lease(&mut lock, A, &[item(PORT, 1)], Duration::from_secs(20));
    let mut held = lab.peer.within(|| connect(HOST4, PORT)).unwrap();
    ask(&mut held).unwrap();
    assert_eq!(lock.mend(&[port_only(PORT)]).unwrap(), LockHealth::StartAltered);
    assert_eq!(lock.verify().unwrap(), LockHealth::Intact);
    ask(&mut held).unwrap();
}

#[test]
fn losing_a_link_costs_no_lease() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    lease(&mut lock, A, &[item(PORT, 1)], Duration::from_secs(20));
    let mut held = connect(Ipv4Addr::LOCALHOST, PORT).unwrap();
    ask(&mut held).unwrap();
    lab.host.exec(&["ip", "link", "del", "eth0"]);
    println!("a lost link is {:?}", lock.mend(&[port_only(PORT)]).unwrap());
    assert_eq!(lock.verify().unwrap(), LockHealth::Intact);
    ask(&mut held).unwrap();
    lease(&mut lock, B, &[item(PORT, 2)], Duration::from_secs(20));
    ask(&mut held).unwrap();
}

#[test]
fn a_start_that_was_seen_stays_closed_over_a_foreign_flush() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    lease(&mut lock, A, &[item(PORT, 1)], Duration::from_secs(20));
    lab.host.within(|| close_ports(&config(), &[PORT])).unwrap();
    let start = lock.starts().unwrap()[0];
    lab.host.exec(&["nft", "flush", "ruleset"]);
    let health = lock.verify().unwrap();
    assert!(matches!(health, LockHealth::StartAltered | LockHealth::Missing), "{health:?}");
    lock.mend_start().unwrap();
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    if lock.ownership() == Ownership::Owned {
        lock.admit_start(start, None).unwrap();
    }
}

#[test]
fn a_flushed_plain_lock_is_mended_closed() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open_plain(config()).unwrap();
    lease(&mut lock, A, &[item(PORT, 1)], Duration::from_secs(5));
    assert_eq!(lock.verify().unwrap(), LockHealth::Intact);
    lab.host.exec(&["nft", "flush", "ruleset"]);
    assert_eq!(lock.verify().unwrap(), LockHealth::Missing);
    assert!(matches!(lock.arm(B, &[item(PORT, 2)], TTL), Err(LockError::Missing)));
    assert_eq!(lock.mend(&[port_only(PORT)]).unwrap(), LockHealth::Missing);
    assert_eq!(lock.verify().unwrap(), LockHealth::Intact);
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))), "nothing is put back");
    lease(&mut lock, B, &[item(PORT, 3)], Duration::from_secs(5));
    assert!(lab.peer.within(|| ask_once(HOST4, PORT)).is_ok());
}

/// On a kernel whose tables have no lasting owner somebody else can take the name after a flush.
#[test]
fn a_lock_whose_name_is_taken_cannot_be_put_back_until_it_is_free() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open_plain(config()).unwrap();
    lease(&mut lock, A, &[item(PORT, 1)], Duration::from_secs(5));
    lab.host.exec(&["nft", "flush", "ruleset"]);
    let mut other = Command::new("nft").arg("-i").stdin(Stdio::piped()).spawn().unwrap();
    let mut orders = other.stdin.take().unwrap();
    orders.write_all(b"add table inet redkeep { flags owner; }\n").unwrap();
    let listed = || lab.host.exec(&["nft", "list", "tables"]).contains("inet redkeep\n");
    wait_for("the foreign table", Duration::from_secs(10), listed);
    assert!(lock.mend(&[port_only(PORT)]).is_err());
    assert!(lock.reinstall(&[port_only(PORT)]).is_err());
    assert!(lab.peer.within(|| ask_once(HOST4, PORT)).is_ok(), "nothing guards it");
    drop(orders);
    assert!(other.wait().unwrap().success());
    lock.reinstall(&[port_only(PORT)]).unwrap();
    assert_eq!(lock.verify().unwrap(), LockHealth::Intact);
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))), "it is back, closed");
}

#[test]
fn what_was_guarded_or_started_before_this_process_stays_closed_over_a_foreign_flush() {
    let lab = Lab::new();
    serve_echo(PORT);
    let nothing_closed = || LockConfig { closed_ports: vec![], ..config() };
    drop(KernelLock::open_plain(config()).unwrap());
    let mut guarded = KernelLock::open_plain(nothing_closed()).unwrap();
    lab.host.exec(&["nft", "flush", "ruleset"]);
    assert_eq!(guarded.mend(&[]).unwrap(), LockHealth::Missing);
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))), "guarded by a predecessor");
    guarded.unguard(&[port_only(PORT)]).unwrap();
    assert!(lab.peer.within(|| ask_once(HOST4, PORT)).is_ok());
    drop(guarded);
    lab.host.within(|| close_ports(&config(), &[PORT])).unwrap();
    let mut started = KernelLock::open_plain(nothing_closed()).unwrap();
    lab.host.exec(&["nft", "flush", "ruleset"]);
    assert_eq!(started.mend(&[]).unwrap(), LockHealth::Missing);
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))), "started before");
}

#[test]
fn a_foreign_rule_or_a_missing_port_is_seen() {
    let lab = Lab::new();
    let mut lock = KernelLock::open_plain(config()).unwrap();
    lab.host.exec(&["nft", "insert", "rule", "inet", "redkeep", "input", "accept"]);
    assert_eq!(lock.verify().unwrap(), LockHealth::Altered);
    lock.reinstall(&[port_only(PORT)]).unwrap();
    assert_eq!(lock.verify().unwrap(), LockHealth::Intact);
    let element = format!("{{ {PORT} }}");
    lab.host.exec(&["nft", "delete", "element", "inet", "redkeep", "guarded", &element]);
    assert_eq!(lock.verify().unwrap(), LockHealth::Altered);
    lock.reinstall(&[port_only(PORT)]).unwrap();
    lab.host.exec(&["nft", "flush", "chain", "inet", "redkeep", "output"]);
    assert_eq!(lock.verify().unwrap(), LockHealth::Altered);
}

#[test]
fn the_boot_unit_closes_before_any_supervisor_and_is_adopted() {
    let lab = Lab::new();
    serve_echo(PORT);
    let boot = LockConfig { links: vec![], closed_ports: vec![], ..config() };
    install_closed(&boot, &[PORT]).unwrap();
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    install_closed(&boot, &[PORT]).unwrap();
    let lock = KernelLock::open(LockConfig { closed_ports: vec![], ..config() }).unwrap();
    assert!(lock.adopted());
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
}

#[test]
fn a_starting_redis_closes_its_port_under_a_live_lease_of_an_owning_supervisor() {
    let lab = Lab::new();
    serve_echo(PORT);
    serve_echo(PORT + 1);
    let mut lock = KernelLock::open(config()).unwrap();
    let items = [item(PORT, 1), item(PORT + 1, 2)];
    lease(&mut lock, A, &items, Duration::from_secs(20));
    let mut held = lab.peer.within(|| connect(HOST4, PORT)).unwrap();
    ask(&mut held).unwrap();
    // The owner does nothing at all here: the call works from another socket, as from another process.
    lab.host.within(|| close_ports(&config(), &[PORT])).unwrap();
    assert!(ask(&mut held).is_err());
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    assert!(is_refused(&local(None, None, HOST4.into())));
    assert!(local(Some(MARK), Some(OWN_SOURCE), HOST4.into()).is_ok(), "the supervisor looks in");
    assert!(lab.peer.within(|| ask_once(HOST4, PORT + 1)).is_ok(), "another group's port");
    // A new lease does not lift it either.
    lease(&mut lock, B, &[item(PORT, 3), item(PORT + 1, 4)], Duration::from_secs(20));
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    // Admitting the start hands the port, closed, to the main table.
    let starts = lock.starts().unwrap();
    assert_eq!(starts.iter().map(|start| start.port).collect::<Vec<_>>(), [PORT]);
    lock.admit_start(starts[0], None).unwrap();
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    assert!(lab.peer.within(|| ask_once(HOST4, PORT + 1)).is_ok());
    lease(&mut lock, A, &[item(PORT, 5)], Duration::from_secs(5));
    assert!(lab.peer.within(|| ask_once(HOST4, PORT)).is_ok());
}

#[test]
fn admitting_an_earlier_start_lifts_nothing() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open(config()).unwrap();
    lab.host.within(|| close_ports(&config(), &[PORT])).unwrap();
    let first = lock.starts().unwrap()[0];
    lab.host.within(|| close_ports(&config(), &[PORT])).unwrap();
    lease(&mut lock, A, &[item(PORT, 1)], Duration::from_secs(5));
    assert!(matches!(lock.admit_start(first, None), Err(LockError::StartSuperseded)));
    assert!(lock.snapshot().unwrap().leased(PORT), "nothing was changed");
    assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
    let second = lock.starts().unwrap();
    assert!(matches!(second.as_slice(), [StartNotice { .. }]) && second[0] > first);
    lock.admit_start(second[0], None).unwrap();
    assert!(lock.starts().unwrap().is_empty());
}
