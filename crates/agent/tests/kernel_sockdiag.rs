//! Resetting the connections of a port, and of that port only.
#![allow(clippy::unwrap_used)]

mod kernel_lab;

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use kernel_lab::{HOST4, HOST6, Lab, MARK, OWN_SOURCE, PORT, ask, connect, serve_echo};
use redkeep_agent::sockdiag::SocketTable;

fn is_reset(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut byte = [0];
    matches!(stream.read(&mut byte), Err(error) if error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn all_connections_of_the_port_are_reset_in_both_families_and_no_others() {
    let lab = Lab::new();
    serve_echo(PORT);
    serve_echo(PORT + 1);
    let v6: IpAddr = HOST6.parse().unwrap();
    let mut clients = lab.peer.within(|| {
        let mut clients = Vec::new();
        for _ in 0..50 {
            clients.push(connect(HOST4, PORT).unwrap());
            clients.push(connect(v6, PORT).unwrap());
        }
        clients
    });
    for client in &mut clients {
        ask(client).unwrap();
    }
    let mut other = lab.peer.within(|| connect(HOST4, PORT + 1)).unwrap();
    let mut table = SocketTable::open().unwrap();
    let began = Instant::now();
    assert_eq!(table.destroy(PORT, None).unwrap(), 100);
    println!("100 connections destroyed in {:?}", began.elapsed());
    for client in &mut clients {
        assert!(is_reset(client));
    }
    ask(&mut other).unwrap();
    assert_eq!(table.destroy(PORT, None).unwrap(), 0);
}

#[test]
fn connections_that_nobody_accepted_are_reset_too() {
    let lab = Lab::new();
    let _listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
    let mut clients: Vec<_> =
        lab.peer.within(|| (0..5).map(|_| connect(HOST4, PORT).unwrap()).collect());
    let mut table = SocketTable::open().unwrap();
    assert_eq!(table.destroy(PORT, None).unwrap(), 5);
    for client in &mut clients {
        assert!(is_reset(client));
    }
}

#[test]
fn the_supervisors_own_connection_is_spared() {
    let _lab = Lab::new();
    serve_echo(PORT);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_mark(MARK).unwrap();
    socket.bind(&SocketAddr::from((OWN_SOURCE, 0)).into()).unwrap();
    socket.connect(&SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)).into()).unwrap();
    let mut own: TcpStream = socket.into();
    ask(&mut own).unwrap();
    let mut other = connect(Ipv4Addr::LOCALHOST, PORT).unwrap();
    ask(&mut other).unwrap();
    let mut table = SocketTable::open().unwrap();
    // The server listens on `::`, so the own connection's server side is a mapped address.
    assert_eq!(table.destroy(PORT, Some(OWN_SOURCE)).unwrap(), 1);
    assert!(is_reset(&mut other));
    ask(&mut own).unwrap();
    assert_eq!(table.destroy(PORT, None).unwrap(), 1);
    assert!(is_reset(&mut own));
}

#[test]
fn listeners_are_listed_with_their_inodes() {
    let _lab = Lab::new();
    let four = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
    let six = TcpListener::bind(("::1", PORT + 1)).unwrap();
    let found = SocketTable::open().unwrap().listening().unwrap();
    assert_eq!(found.len(), 2);
    for listener in [&four, &six] {
        let inode = u32::try_from(rustix::fs::fstat(listener).unwrap().st_ino).unwrap();
        let listed = found.iter().find(|f| f.address == listener.local_addr().unwrap()).unwrap();
        assert_eq!(listed.inode, inode);
    }
}

#[test]
fn this_kernel_can_destroy_sockets() {
    let _lab = Lab::new();
    SocketTable::open().unwrap().check_destroy().unwrap();
}
