//! What others do to the host is seen, and what the own lock and VIP table do is not.
#![allow(clippy::unwrap_used)]

mod kernel_lab;

use std::num::NonZeroU32;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kernel_lab::{
    HOST4, Lab, PORT, VIP4, ask_once, config, eth0, is_refused, item, lease, port_only, run,
    serve_echo, vip4, vip6,
};
use redkeep_agent::lock::Generation::{A, B};
use redkeep_agent::lock::{KernelLock, LockHealth, Ownership, close_ports};
use redkeep_agent::vip::{Foreign, LinkName, VipTable};
use redkeep_agent::watch::{HostEvent, Source, Watch};

const BOUND: Duration = Duration::from_secs(5);

fn watch_tables(own: u32) -> (Watch, Receiver<HostEvent>) {
    let (sender, events) = mpsc::channel();
    let watch = Watch::tables(own, move |event| {
        let _ = sender.send(event);
    });
    (watch.unwrap(), events)
}

fn watch_network(own: u32) -> (Watch, Receiver<HostEvent>) {
    let (sender, events) = mpsc::channel();
    let watch = Watch::network(own, move |event| {
        let _ = sender.send(event);
    });
    (watch.unwrap(), events)
}

/// The next event that is wanted; others are printed and passed over.
fn next_matching(events: &Receiver<HostEvent>, wanted: impl Fn(&HostEvent) -> bool) -> HostEvent {
    let until = Instant::now() + BOUND;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let event = events.recv_timeout(left).expect("the event in time");
        if wanted(&event) {
            return event;
        }
        println!("passed over: {event:?}");
    }
}

fn lost(table: &str) -> impl Fn(&HostEvent) -> bool {
    move |event| matches!(event, HostEvent::LockLost { table: lost } if lost == table)
}

#[test]
fn a_flushed_plain_lock_is_reported_and_mended_closed_at_once() {
    let lab = Lab::new();
    serve_echo(PORT);
    let mut lock = KernelLock::open_plain(config()).unwrap();
    let (_watch, events) = watch_tables(lock.port_id());
    for round in 0..5 {
        lease(&mut lock, A, &[item(PORT, round)], Duration::from_secs(20));
        let (begun, mended) = std::thread::scope(|scope| {
            let flush = scope.spawn(|| {
                lab.host.within(|| {
                    let begun = Instant::now();
                    run(&["nft", "flush", "ruleset"]);
                    begun
                })
            });
            next_matching(&events, lost("redkeep"));
            lock.mend(&[port_only(PORT)]).unwrap();
            let mended = Instant::now();
            (flush.join().unwrap(), mended)
        });
        let took = mended.duration_since(begun);
        println!("mended {took:?} after nft was started");
        assert!(took < BOUND, "{took:?}");
        assert!(is_refused(&lab.peer.within(|| ask_once(HOST4, PORT))));
        assert_eq!(lock.verify().unwrap(), LockHealth::Intact);
        while events.try_recv().is_ok() {}
    }
}

#[test]
fn the_own_renewals_are_no_events_and_a_foreign_element_is() {
    let lab = Lab::new();
    let mut lock = KernelLock::open_plain(config()).unwrap();
    let (_watch, events) = watch_tables(lock.port_id());
    for nonce in 0..100 {
        lease(&mut lock, if nonce % 2 == 0 { A } else { B }, &[item(PORT, nonce)], BOUND);
    }
    lab.host.exec(&["nft", "add", "element", "inet", "redkeep", "gate_a", "{ 9999 }"]);
    let first = events.recv_timeout(BOUND).unwrap();
    assert_eq!(first, HostEvent::LockChanged { table: "redkeep".to_owned() });
}

#[test]
fn a_foreign_table_of_another_name_is_no_event() {
    let lab = Lab::new();
    let lock = KernelLock::open_plain(config()).unwrap();
    let (_watch, events) = watch_tables(lock.port_id());
    lab.host.exec(&["nft", "add", "table", "inet", "other"]);
    lab.host.exec(&["nft", "delete", "table", "inet", "other"]);
    lab.host.exec(&["nft", "add", "rule", "inet", "redkeep", "input", "counter"]);
    let first = events.recv_timeout(BOUND).unwrap();
    assert_eq!(first, HostEvent::LockChanged { table: "redkeep".to_owned() });
}

#[test]
fn a_flush_beside_an_owned_lock_costs_the_start_table_alone() {
    let lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    if lock.ownership() == Ownership::Plain {
        println!("this kernel has no owned tables: nothing to show");
        return;
    }
    let (_watch, events) = watch_tables(lock.port_id());
    lab.host.exec(&["nft", "flush", "ruleset"]);
    next_matching(&events, |event| {
        assert!(!lost("redkeep")(event) && !lost("redkeep_eth0")(event), "{event:?}");
        lost("redkeep_start")(event)
    });
    lock.mend_start().unwrap();
    assert_eq!(lock.verify().unwrap(), LockHealth::Intact);
}

#[test]
fn a_start_of_a_redis_is_noticed() {
    let lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    let (_watch, events) = watch_tables(lock.port_id());
    lab.host.within(|| close_ports(&config(), &[PORT])).unwrap();
    next_matching(&events, |event| *event == HostEvent::StartNoticed);
    assert_eq!(lock.starts().unwrap().len(), 1);
}

#[test]
fn lost_notifications_are_reported_as_such() {
    let _lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock().unwrap();
    let (sender, events) = mpsc::channel();
    let blocked = Arc::clone(&gate);
    // No own port number: the renewals below are events, and the sink does not come back to read them.
    let _watch = Watch::tables(0, move |event| {
        drop(blocked.lock());
        let _ = sender.send(event);
    })
    .unwrap();
    for nonce in 0..20_000 {
        lock.arm(A, &[item(PORT, nonce)], BOUND).unwrap();
    }
    drop(held);
    next_matching(&events, |event| *event == HostEvent::Overrun(Source::Tables));
}

#[test]
fn a_vip_that_somebody_deletes_or_that_expires_is_reported() {
    let lab = Lab::new();
    let mut table = VipTable::open().unwrap();
    let (_watch, events) = watch_network(table.port_id());
    for vip in [vip4(), vip6()] {
        table.ensure_present(&vip, NonZeroU32::new(60).unwrap()).unwrap();
        let address = format!("{}/{}", vip.address, vip.prefix_len);
        let begun = Instant::now();
        lab.host.exec(&["ip", "addr", "del", &address, "dev", "eth0"]);
        let event = next_matching(&events, |e| matches!(e, HostEvent::AddressRemoved(_)));
        println!("{address}: seen {:?} after ip was started", begun.elapsed());
        let HostEvent::AddressRemoved(removed) = event else { unreachable!() };
        assert_eq!(removed.vip, vip);
        table.ensure_present(&vip, NonZeroU32::MIN).unwrap();
        next_matching(&events, |e| matches!(e, HostEvent::AddressRemoved(r) if r.vip == vip));
    }
}

#[test]
fn the_own_ipv4_changes_are_no_events_and_a_foreign_address_is() {
    let lab = Lab::new();
    let mut table = VipTable::open().unwrap();
    let (_watch, events) = watch_network(table.port_id());
    for _ in 0..20 {
        table.ensure_present(&vip4(), NonZeroU32::new(60).unwrap()).unwrap();
    }
    table.ensure_absent(VIP4.into(), Foreign::Keep).unwrap();
    table.ensure_present(&vip6(), NonZeroU32::new(60).unwrap()).unwrap();
    lab.host.exec(&["ip", "addr", "add", "10.99.0.77/32", "dev", "eth0"]);
    let event = next_matching(&events, |event| {
        matches!(event, HostEvent::AddressAdded(_) | HostEvent::AddressRemoved(_))
    });
    let HostEvent::AddressAdded(added) = event else { panic!("{event:?}") };
    assert_eq!(added.vip.address.to_string(), "10.99.0.77");
}

#[test]
fn links_going_down_up_away_and_coming_anew_are_reported() {
    let lab = Lab::new();
    let (_watch, events) = watch_network(0);
    let host = lab.host.name.as_str();
    let is = |wanted: HostEvent| move |event: &HostEvent| *event == wanted;
    run(&["ip", "-n", host, "link", "set", "eth0", "down"]);
    next_matching(&events, is(HostEvent::LinkDown(eth0())));
    run(&["ip", "-n", host, "link", "set", "eth0", "up"]);
    next_matching(&events, is(HostEvent::LinkUp(eth0())));
    run(&["ip", "-n", &lab.peer.name, "link", "set", "eth0", "down"]);
    next_matching(&events, is(HostEvent::LinkDown(eth0())));
    run(&["ip", "-n", host, "link", "del", "eth0"]);
    next_matching(&events, is(HostEvent::LinkRemoved(eth0())));
    let peer = lab.peer.name.as_str();
    run(&[
        "ip", "link", "add", "eth0", "netns", host, "type", "veth", "peer", "name", "eth0",
        "netns", peer,
    ]);
    next_matching(&events, is(HostEvent::LinkAppeared(eth0())));
    run(&["ip", "-n", host, "link", "set", "eth0", "name", "eth9"]);
    next_matching(&events, is(HostEvent::LinkRemoved(eth0())));
    next_matching(&events, is(HostEvent::LinkAppeared(LinkName::new("eth9").unwrap())));
}

#[test]
fn a_dropped_watch_has_ended_its_thread() {
    let _lab = Lab::new();
    for (watch, events) in [watch_tables(0), watch_network(0)] {
        drop(watch);
        assert_eq!(events.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Disconnected));
    }
}
