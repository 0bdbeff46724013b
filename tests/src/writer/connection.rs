//! One non-blocking connection of a writer.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};

use super::{Ack, Failure, WAIT_LIMIT};
use crate::resp::{Decoder, Reply, encode_command};
use crate::time::Mono;

/// What the next reply on the connection answers.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    Auth,
    Pidfile,
    Write { sequence: u64, sent: Mono },
    Wait { sequence: u64, replicas: u32, sent: Mono },
}

/// State of the connection after an event.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing to report.
    Waiting,
    Acked(Ack),
    /// Enough replicas have the acknowledged write.
    Confirmed(u64),
    Failed(Failure),
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    connected: bool,
    opened: Mono,
    /// At this instant nothing unread was there.
    quiet_at: Mono,
    server: Option<Arc<str>>,
    decoder: Decoder,
    awaited: VecDeque<Awaited>,
    outbox: Vec<u8>,
}

impl Connection {
    /// Begins to connect; `AUTH` and the question for the pidfile go out once connected.
    pub(super) fn open(to: SocketAddr, password: &str) -> Result<Self, Failure> {
        let network = |error: std::io::Error| Failure::Network(error.kind());
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))
            .map_err(network)?;
        socket.set_nonblocking(true).map_err(network)?;
        socket.set_tcp_nodelay(true).map_err(network)?;
        let opened = Mono::now();
        match socket.connect(&to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
            Err(error) => return Err(network(error)),
        }
        let mut outbox = Vec::new();
        encode_command(&mut outbox, &[b"AUTH", password.as_bytes()]);
        encode_command(&mut outbox, &[b"CONFIG", b"GET", b"pidfile"]);
        Ok(Connection {
            stream: socket.into(),
            connected: false,
            opened,
            quiet_at: opened,
            server: None,
            decoder: Decoder::default(),
            awaited: VecDeque::from([Awaited::Auth, Awaited::Pidfile]),
            outbox,
        })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn opened(&self) -> Mono {
        self.opened
    }

    /// When the oldest unanswered write was sent.
    pub(super) fn oldest_write(&self) -> Option<Mono> {
        self.awaited.iter().find_map(|awaited| match awaited {
            Awaited::Write { sent, .. } | Awaited::Wait { sent, .. } => Some(*sent),
            Awaited::Auth | Awaited::Pidfile => None,
        })
    }

    /// Whether all that was asked has been answered.
    pub(super) fn is_idle(&self) -> bool {
        self.connected && self.awaited.is_empty()
    }

    /// Notes that a look at the socket begun at `at` found nothing to read.
    pub(super) fn note_quiet(&mut self, at: Mono) {
        self.quiet_at = self.quiet_at.max(at);
    }

    /// Queues a `SET`, and a `WAIT` if it is to be confirmed; they leave at once if the connection is up.
    pub(super) fn write(
        &mut self,
        sequence: u64,
        key: &str,
        replicas: Option<u32>,
    ) -> Result<(), Failure> {
        encode_command(&mut self.outbox, &[b"SET", key.as_bytes(), key.as_bytes()]);
        let sent = Mono::now();
        self.awaited.push_back(Awaited::Write { sequence, sent });
        if let Some(replicas) = replicas {
            let limit = WAIT_LIMIT.as_millis().to_string();
            let count = replicas.to_string();
            encode_command(&mut self.outbox, &[b"WAIT", count.as_bytes(), limit.as_bytes()]);
            self.awaited.push_back(Awaited::Wait { sequence, replicas, sent });
        }
        if self.connected { self.flush() } else { Ok(()) }
    }

    /// To be called when `poll` reports the socket; drains what has arrived.
    pub(super) fn on_ready(&mut self) -> Vec<Progress> {
        if !self.connected {
            match self.finish_connect() {
                Ok(true) => {}
                Ok(false) => return Vec::new(),
                Err(failure) => return vec![Progress::Failed(failure)],
            }
        }
        let mut progress = Vec::new();
        let mut buffer = [0_u8; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => progress.push(Progress::Failed(Failure::Closed)),
                Ok(count) => {
                    let seen = Mono::now();
                    self.decoder.feed(&buffer[..count]);
                    self.take_replies(seen, &mut progress);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => progress.push(Progress::Failed(Failure::Network(error.kind()))),
            }
            return progress;
        }
    }

    fn finish_connect(&mut self) -> Result<bool, Failure> {
        let network = |error: std::io::Error| Failure::Network(error.kind());
        if let Some(error) = self.stream.take_error().map_err(network)? {
            return Err(network(error));
        }
        match self.stream.peer_addr() {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(false),
            Err(error) => return Err(network(error)),
        }
        self.connected = true;
        let now = Mono::now();
        for awaited in &mut self.awaited {
            if let Awaited::Write { sent, .. } | Awaited::Wait { sent, .. } = awaited {
                *sent = now;
            }
        }
        self.flush()?;
        Ok(true)
    }

    /// The requests are far smaller than a socket's buffer, so a part sent is a failure.
    fn flush(&mut self) -> Result<(), Failure> {
        let sent = self.stream.write(&self.outbox);
        match sent {
            Ok(count) if count == self.outbox.len() => {
                self.outbox.clear();
                Ok(())
            }
            Ok(_) => Err(Failure::Network(ErrorKind::WriteZero)),
            Err(error) => Err(Failure::Network(error.kind())),
        }
    }

    fn take_replies(&mut self, seen: Mono, progress: &mut Vec<Progress>) {
        loop {
            let reply = match self.decoder.next_reply() {
                Ok(Some(reply)) => reply,
                Ok(None) => return,
                Err(error) => {
                    let text = format!("unreadable reply: {error}");
                    progress.push(Progress::Failed(Failure::Answer(text)));
                    return;
                }
            };
            let step = self.take_reply(&reply, seen);
            let failed = matches!(step, Progress::Failed(_));
            progress.push(step);
            if failed {
                return;
            }
        }
    }

    fn take_reply(&mut self, reply: &Reply, seen: Mono) -> Progress {
        if let Reply::Error(text) = reply {
            return Progress::Failed(Failure::Answer(text.clone()));
        }
        match self.awaited.pop_front() {
            Some(Awaited::Auth) => Progress::Waiting,
            Some(Awaited::Pidfile) => {
                let path = reply.elements().get(1).and_then(Reply::text).unwrap_or_default();
                let name = path.rsplit('/').next().unwrap_or_default();
                self.server = Some(Arc::from(name));
                Progress::Waiting
            }
            Some(Awaited::Write { sequence, sent }) => {
                let server = self.server.clone().unwrap_or_else(|| Arc::from("unknown"));
                let absent_at = self.quiet_at.max(sent);
                Progress::Acked(Ack { sequence, sent, absent_at, seen, server, confirmed: false })
            }
            Some(Awaited::Wait { sequence, replicas, sent: _ }) => match reply {
                Reply::Integer(count) if *count >= i64::from(replicas) => {
                    Progress::Confirmed(sequence)
                }
                _ => Progress::Waiting,
            },
            None => Progress::Failed(Failure::Answer("a reply to no request".into())),
        }
    }
}

/// linux/errno.h; `std` has no stable kind for it.
const EINPROGRESS: i32 = 115;
