//! A TCP relay that can hold back what the client sends, and can cut the client's side while Redis's stays open: what a
//! cut network or a killed supervisor leaves behind.
#![allow(clippy::unwrap_used)]
#![allow(unreachable_pub, reason = "shared by test binaries")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    held: bool,
    /// Connections in the order of their arrival: client side, Redis side.
    connections: Vec<(TcpStream, TcpStream)>,
    /// Bytes that were held back so far.
    waiting: usize,
}

impl Proxy {
    pub fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(target)) else {
                    return;
                };
                relay(client, server, &shared);
            }
        });
        Self { address, state }
    }

    /// From now on nothing goes on that clients send on the connections so far. New connections pass.
    pub fn hold(&self) {
        self.state.0.lock().unwrap().held = true;
    }

    /// Waits until a client has sent something that is held back.
    pub fn wait_for_held_bytes(&self) {
        let (state, changed) = &*self.state;
        let guard = state.lock().unwrap();
        let (guard, _) = changed
            .wait_timeout_while(guard, Duration::from_secs(20), |state| state.waiting == 0)
            .unwrap();
        assert!(guard.waiting > 0, "waited in vain for bytes to hold");
    }

    /// Closes the clients' sides of all connections; Redis sees nothing of it.
    pub fn cut_clients(&self) {
        for (client, _) in &self.state.0.lock().unwrap().connections {
            client.shutdown(Shutdown::Both).unwrap();
        }
    }

    /// Sends the held bytes on, also those of cut connections.
    pub fn release(&self) {
        let (state, changed) = &*self.state;
        state.lock().unwrap().held = false;
        changed.notify_all();
    }
}

/// Connections made while holding are not held: only the older ones are.
fn relay(client: TcpStream, server: TcpStream, state: &Arc<(Mutex<State>, Condvar)>) {
    let (mut from_server, mut to_client) =
        (server.try_clone().unwrap(), client.try_clone().unwrap());
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    let shared = Arc::clone(state);
    let made_while_held = {
        let mut state = state.0.lock().unwrap();
        state.connections.push((client, server));
        state.held
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_client.read(&mut buffer) {
            let (state, changed) = &*shared;
            let mut guard = state.lock().unwrap();
            if guard.held && !made_while_held {
                guard.waiting += count;
                changed.notify_all();
                guard = changed.wait_while(guard, |state| state.held).unwrap();
            }
            drop(guard);
            // Redis may have freed the client meanwhile: then the bytes are lost, as they should be.
            let _ = to_server.write_all(&buffer[..count]);
        }
        // No shutdown of Redis's side: it must not learn that the client has gone.
        std::mem::forget(to_server);
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from_server.read(&mut buffer) {
            if to_client.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
}
