//! Announcements and probes on a real link, and the lock that holds back those of a dead VIP.
#![allow(clippy::unwrap_used)]

mod kernel_lab;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use kernel_lab::{Lab, PORT, VIP4, VIP6, config, eth0, run, vip4, vip6, wait_for};
use redkeep_agent::announce::{AnnounceError, Announcer};
use redkeep_agent::lock::{Generation, GuardedPort, KernelLock, LeaseItem, LockError, LockHealth};
use redkeep_agent::sys::link_address;
use redkeep_agent::vip::{LinkName, Vip, VipTable};
use socket2::{Domain, Socket, Type};

const STRANGER: &str = "02:00:00:00:00:99";
const LONG: Duration = Duration::from_secs(20);

fn addresses() -> [IpAddr; 2] {
    [VIP4.into(), VIP6.parse().unwrap()]
}

fn under_vip(vip: Vip) -> GuardedPort {
    GuardedPort { port: PORT, vip: Some(vip) }
}

fn with_vip(vip: Vip, nonce: u64) -> LeaseItem {
    LeaseItem { port: PORT, vip: Some(vip), nonce }
}

fn colons(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Makes the peer believe that a stranger holds the address.
fn mislead(lab: &Lab, address: IpAddr) {
    let address = address.to_string();
    run(&[
        "ip",
        "-n",
        &lab.peer.name,
        "neigh",
        "replace",
        &address,
        "lladdr",
        STRANGER,
        "dev",
        "eth0",
        "nud",
        "reachable",
    ]);
}

fn belief(lab: &Lab, address: IpAddr) -> String {
    run(&["ip", "-n", &lab.peer.name, "neigh", "show", &address.to_string(), "dev", "eth0"])
}

/// An ARP reply of any sender address, and the same in the name of another packet kind.
fn arp_reply(mac: [u8; 6], sender: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 2]);
    for _ in 0..2 {
        frame.extend(mac);
        frame.extend(sender.octets());
    }
    frame
}

#[test]
fn an_announcement_moves_the_neighbours_belief_at_once() {
    let lab = Lab::new();
    let announcer = Announcer::open(&eth0()).unwrap();
    let ours = colons(announcer.mac());
    for address in addresses() {
        mislead(&lab, address);
        assert!(belief(&lab, address).contains(STRANGER));
        announcer.announce(address).unwrap();
        let took = wait_for("a changed neighbour entry", Duration::from_secs(5), || {
            belief(&lab, address).contains(&ours)
        });
        println!("{address}: believed within {took:?}");
    }
}

#[test]
fn a_probe_finds_a_rival_and_not_oneself() {
    let lab = Lab::new();
    let mut table = VipTable::open().unwrap();
    let announcer = Announcer::open(&eth0()).unwrap();
    let wait = Duration::from_millis(100);
    for vip in [vip4(), vip6()] {
        assert_eq!(announcer.probe(vip.address, wait).unwrap(), None, "nobody has it");
        table.ensure_present(&vip, NonZeroU32::new(30).unwrap()).unwrap();
        assert_eq!(announcer.probe(vip.address, wait).unwrap(), None, "oneself has it");
        let address = format!("{}/{}", vip.address, vip.prefix_len);
        let mut command = vec!["ip", "addr", "add", &address, "dev", "eth0"];
        if vip.address.is_ipv6() {
            command.push("nodad");
        }
        lab.peer.exec(&command);
        let peer = lab.peer.within(|| Announcer::open(&eth0()).unwrap().mac());
        // The kernel joins the address's group a moment after it has the address.
        wait_for("an answer of the rival", Duration::from_secs(5), || {
            let rival = announcer.probe(vip.address, wait).unwrap();
            rival.inspect(|rival| println!("{address}: {rival:?}")).is_some_and(|r| r.mac == peer)
        });
    }
}

#[test]
fn a_dead_lease_holds_back_announcements_and_a_live_one_lets_them_pass() {
    let lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    let announcer = Announcer::open(&eth0()).unwrap();
    let ours = colons(announcer.mac());
    for vip in [vip4(), vip6()] {
        let address = vip.address;
        lock.guard(&[under_vip(vip.clone())]).unwrap();
        mislead(&lab, address);
        let locked = |result| matches!(result, Err(AnnounceError::Locked));
        assert!(locked(announcer.announce(address)), "{address} without a lease");
        lock.arm(Generation::A, &[with_vip(vip.clone(), 1)], Duration::from_millis(1200)).unwrap();
        assert!(locked(announcer.announce(address)), "{address} armed only");
        assert!(belief(&lab, address).contains(STRANGER));
        lock.open_gates(Generation::A, &[with_vip(vip.clone(), 1)]).unwrap();
        announcer.announce(address).unwrap();
        wait_for("a changed neighbour entry", Duration::from_secs(5), || {
            belief(&lab, address).contains(&ours)
        });
        wait_for("expiry", Duration::from_secs(5), || locked(announcer.announce(address)));
        kernel_lab::lease(&mut lock, Generation::B, &[with_vip(vip.clone(), 2)], LONG);
        announcer.announce(address).unwrap();
        lock.close(&[under_vip(vip)]).unwrap();
        assert!(locked(announcer.announce(address)), "{address} closed");
    }
}

#[test]
fn the_kernels_own_answers_for_a_dead_vip_do_not_leave() {
    let lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    let mut table = VipTable::open().unwrap();
    let mac = Announcer::open(&eth0()).unwrap().mac();
    for vip in [vip4(), vip6()] {
        table.ensure_present(&vip, NonZeroU32::new(60).unwrap()).unwrap();
        let ask = || {
            lab.peer.within(|| {
                let wait = Duration::from_millis(200);
                Announcer::open(&eth0()).unwrap().probe(vip.address, wait).unwrap()
            })
        };
        wait_for("an answer before it is guarded", Duration::from_secs(5), || {
            ask().map(|rival| rival.mac) == Some(mac)
        });
        lock.guard(&[under_vip(vip.clone())]).unwrap();
        assert_eq!(ask(), None, "guarded without a lease");
        kernel_lab::lease(&mut lock, Generation::A, &[with_vip(vip.clone(), 1)], LONG);
        assert_eq!(ask().map(|rival| rival.mac), Some(mac), "under its lease");
        lock.close(&[under_vip(vip.clone())]).unwrap();
        assert_eq!(ask(), None, "closed again");
    }
}

/// Sends a frame from the host by a packet socket; true when the kernel took it.
fn send_raw(frame: &[u8], protocol: u16, bypass: bool) -> bool {
    let index = rustix::net::netdevice::name_to_index(
        Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap(),
        "eth0",
    )
    .unwrap();
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(0.into())).unwrap();
    if bypass {
        kernel_lab::bypass_queueing(&socket);
    }
    socket.send_to(frame, &link_address(index, protocol).unwrap()).is_ok()
}

#[test]
fn raw_arp_of_a_dead_vip_is_dropped_in_whatever_form_and_other_arp_is_not() {
    let lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    lock.guard(&[under_vip(vip4())]).unwrap();
    let mac = Announcer::open(&eth0()).unwrap().mac();
    let listener = lab.peer.within(|| {
        let index = rustix::net::netdevice::name_to_index(
            Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap(),
            "eth0",
        )
        .unwrap();
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(0.into())).unwrap();
        socket.bind(&link_address(index, 0x0806).unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        socket
    });
    // A frame that may pass comes last: what the peer saw before it is all that left.
    let marker = Ipv4Addr::new(10, 99, 0, 77);
    let seen_of_vip = || {
        assert!(send_raw(&arp_reply(mac, marker), 0x0806, false));
        let mut seen = 0;
        loop {
            let mut frame = [0; 64];
            let length = (&listener).read(&mut frame).unwrap();
            match frame[..length].get(28..32) {
                Some(sender) if sender == marker.octets() => return seen,
                Some(sender) if sender == VIP4.octets() => seen += 1,
                _ => {}
            }
        }
    };
    // Protocol as it is, none, ETH_P_ALL, a lie; and past the queueing discipline.
    let forms = [(0x0806, false), (0, false), (3, false), (0x0800, false), (0x0806, true)];
    for (protocol, bypass) in forms {
        let _ = send_raw(&arp_reply(mac, VIP4), protocol, bypass);
        assert_eq!(seen_of_vip(), 0, "protocol {protocol:#06x}, bypass {bypass}");
    }
    kernel_lab::lease(&mut lock, Generation::A, &[with_vip(vip4(), 1)], LONG);
    for (protocol, bypass) in forms {
        assert!(send_raw(&arp_reply(mac, VIP4), protocol, bypass));
        assert_eq!(seen_of_vip(), 1, "protocol {protocol:#06x}, bypass {bypass}");
    }
}

#[test]
fn a_link_made_anew_is_covered_again_and_closed() {
    let lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    lock.guard(&[under_vip(vip4())]).unwrap();
    kernel_lab::lease(&mut lock, Generation::A, &[with_vip(vip4(), 1)], LONG);
    Announcer::open(&eth0()).unwrap().announce(VIP4.into()).unwrap();
    run(&["ip", "-n", &lab.host.name, "link", "del", "eth0"]);
    assert!(matches!(lock.ensure_link(&eth0()), Ok(()) | Err(LockError::LinkAbsent(_))));
    assert!(matches!(Announcer::open(&eth0()), Err(AnnounceError::LinkAbsent(_))));
    run(&[
        "ip",
        "link",
        "add",
        "eth0",
        "netns",
        &lab.host.name,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        &lab.peer.name,
    ]);
    for ns in [&lab.host, &lab.peer] {
        run(&["ip", "-n", &ns.name, "link", "set", "eth0", "up"]);
    }
    lock.ensure_link(&eth0()).unwrap();
    lock.close(&[under_vip(vip4())]).unwrap();
    let announcer = Announcer::open(&eth0()).unwrap();
    assert!(matches!(announcer.announce(VIP4.into()), Err(AnnounceError::Locked)));
    kernel_lab::lease(&mut lock, Generation::B, &[with_vip(vip4(), 2)], LONG);
    announcer.announce(VIP4.into()).unwrap();
}

#[test]
fn a_successor_adopts_the_vips_lease_too() {
    let _lab = Lab::new();
    let mut first = KernelLock::open(config()).unwrap();
    kernel_lab::lease(&mut first, Generation::A, &[with_vip(vip4(), 1)], LONG);
    drop(first);
    let announcer = Announcer::open(&eth0()).unwrap();
    announcer.announce(VIP4.into()).unwrap();
    let mut second = KernelLock::open(config()).unwrap();
    announcer.announce(VIP4.into()).unwrap();
    let snapshot = second.snapshot().unwrap();
    let key = (eth0(), IpAddr::from(VIP4));
    assert!(snapshot.guarded_vips.contains(&key), "{snapshot:?}");
    assert!(snapshot.a.vip_timers.contains_key(&key) && snapshot.a.vip_gates.contains(&key));
    second.close(&[under_vip(vip4())]).unwrap();
    assert!(matches!(announcer.announce(VIP4.into()), Err(AnnounceError::Locked)));
}

#[test]
fn a_lost_link_table_does_not_keep_a_port_open() {
    let lab = Lab::new();
    kernel_lab::serve_echo(PORT);
    let mut lock = KernelLock::open_plain(config()).unwrap();
    kernel_lab::lease(&mut lock, Generation::A, &[with_vip(vip4(), 1)], LONG);
    let reach = || lab.peer.within(|| kernel_lab::ask_once(kernel_lab::HOST4, PORT));
    assert!(reach().is_ok());
    lab.host.exec(&["nft", "delete", "table", "netdev", "redkeep_eth0"]);
    lock.close(&[under_vip(vip4())]).unwrap();
    assert!(kernel_lab::is_refused(&reach()));
    assert_eq!(lock.mend(&[under_vip(vip4())]).unwrap(), LockHealth::LinkAltered);
    assert_eq!(lock.verify().unwrap(), LockHealth::Intact);
    let announcer = Announcer::open(&eth0()).unwrap();
    assert!(matches!(announcer.announce(VIP4.into()), Err(AnnounceError::Locked)));
    let elsewhere = Vip { link: LinkName::new("other0").unwrap(), ..vip4() };
    lock.close(&[under_vip(elsewhere)]).unwrap();
}

#[test]
fn a_vip_on_an_uncovered_link_cannot_be_armed() {
    let _lab = Lab::new();
    let mut lock = KernelLock::open(config()).unwrap();
    let nowhere = Vip { link: LinkName::new("other0").unwrap(), ..vip4() };
    let refused = lock.arm(Generation::A, &[with_vip(nowhere, 1)], LONG);
    assert!(matches!(refused, Err(LockError::LinkNotCovered(_))));
    assert!(lock.snapshot().unwrap().a.timers.is_empty());
}

#[test]
fn a_link_without_ethernet_addresses_is_named() {
    let _lab = Lab::new();
    let lo = LinkName::new("lo").unwrap();
    assert!(matches!(Announcer::open(&lo), Err(AnnounceError::NotEthernet(_))));
}
