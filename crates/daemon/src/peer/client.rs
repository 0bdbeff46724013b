//! The stream to one peer: connect, send, watch the acknowledgements, give up early, connect again.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::stream;
use hyper_util::rt::TokioIo;
use redkeep_core::{Input, NodeId, spec::NodeSpec};
use redkeep_proto::peer::v1::{ExchangeRequest, peer_service_client::PeerServiceClient};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout, timeout_at},
};
use tonic::transport::{Channel, Endpoint};

use super::{
    Local, Outbox, PROTOCOL_VERSION, codec, patience,
    receipt::{Receipt, stream_name},
};
use crate::{executor::lock::chain, inbox::Inbox};

/// Pause after a refused connection: the process may be back any moment.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// After so many times its patience a link that has nothing to say says that: a connection that is dead is then found and
/// replaced before it is needed. One that is needed earlier is found dead by what it is needed for.
const QUIET: u32 = 10;

/// How a stream ended.
#[derive(Debug)]
pub(super) enum End {
    /// An envelope stayed unacknowledged: the path is cut or the peer is frozen.
    Silent,
    /// The peer or its kernel closed it.
    Closed,
    /// The peer does not want us, or we do not want it; the text says who and why.
    Refused(String),
}

/// Serve one link for ever.
pub(super) async fn run(local: Local, peer: NodeSpec, outbox: Arc<Outbox>, inbox: Inbox) {
    let patience = patience(local.lease_ttl);
    let mut closed = false;
    let mut said = String::new();
    loop {
        let connected = match timeout(patience, connect(peer.peer)).await {
            Ok(connected) => connected,
            Err(_elapsed) => {
                // No answer proves nothing, and makes what was seen before old.
                closed = false;
                continue;
            }
        };
        let end = match connected {
            Ok(stream) => exchange(&local, &peer, stream, &outbox).await,
            Err(error) => {
                // Whoever comes next says it again.
                said.clear();
                if error.kind() == io::ErrorKind::ConnectionRefused && std::mem::take(&mut closed) {
                    tracing::info!(peer = %peer.name, "the peer's process is gone");
                    inbox.answer(Input::PeerDied { peer: peer.id });
                }
                sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        match end {
            End::Silent => closed = false,
            End::Closed => closed = true,
            End::Refused(reason) => {
                closed = false;
                if reason != said {
                    tracing::error!(peer = %peer.name, %reason, "no stream to the peer");
                    said = reason;
                }
                sleep(patience).await;
            }
        }
    }
}

/// A fresh socket each time: a SYN that was lost is sent again by the kernel only after a second.
async fn connect(peer: SocketAddr) -> io::Result<TcpStream> {
    let socket = if peer.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    socket.connect(peer).await
}

/// A gRPC channel over a connected socket.
pub(super) async fn channel(
    local: &Local,
    peer: &NodeSpec,
    stream: TcpStream,
) -> Result<Channel, tonic::transport::Error> {
    let scheme = if local.tls.is_some() { "https" } else { "http" };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", peer.peer))?
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .connect_timeout(patience(local.lease_ttl));
    if let Some(tls) = &local.tls {
        endpoint = endpoint.tls_config(tls.client(&peer.name))?;
    }
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        // The socket is good for one connection; the next one is the link's business, not tonic's.
        let stream = stream
            .take()
            .map(TokioIo::new)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async move { stream }
    });
    endpoint.connect_with_connector(connector).await
}

/// The right to take from an outbox, which ends with the exchange: the HTTP/2 layer keeps a connection that is cut, and
/// the request stream on it, until TCP gives up, and would go on taking messages to nowhere.
#[derive(Debug)]
struct Turn {
    outbox: Arc<Outbox>,
    over: Arc<AtomicBool>,
}

impl Turn {
    fn begin(outbox: &Arc<Outbox>) -> Self {
        Self { outbox: Arc::clone(outbox), over: Arc::default() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        self.outbox.wake_all();
    }
}

async fn exchange(local: &Local, peer: &NodeSpec, stream: TcpStream, outbox: &Arc<Outbox>) -> End {
    let patience = patience(local.lease_ttl);
    let turn = Turn::begin(outbox);
    let opened = timeout(patience, async {
        let channel = channel(local, peer, stream).await.map_err(|e| opening_failure(&e))?;
        let receipt = local.receipts.of(peer.id);
        let name = stream_name();
        receipt.begin(name);
        let sender = Sender {
            local: local.clone(),
            to: peer.id,
            outbox: Arc::clone(outbox),
            over: Arc::clone(&turn.over),
            receipt: Arc::clone(&receipt),
            name,
            seq: 0,
        };
        let envelopes = stream::unfold(sender, Sender::next);
        let mut client = PeerServiceClient::new(channel);
        let answer = client.exchange(envelopes).await.map_err(|status| end_of(&status))?;
        Ok((answer.into_inner(), receipt, name))
    });
    let (mut acknowledgements, receipt, name) = match opened.await {
        Err(_elapsed) => return End::Silent,
        Ok(Err(end)) => return end,
        Ok(Ok(opened)) => opened,
    };
    tracing::debug!(peer = %peer.name, "stream opened");
    loop {
        let answer = tokio::select! {
            answer = acknowledgements.message() => answer,
            () = receipt.silence(name) => {
                tracing::debug!(peer = %peer.name, "no acknowledgement in time");
                return End::Silent;
            }
        };
        match answer {
            Ok(Some(ack)) => receipt.acknowledged(name, ack.seq),
            Ok(None) => return End::Closed,
            Err(status) => return end_of(&status),
        }
    }
}

pub(super) fn opening_failure(error: &tonic::transport::Error) -> End {
    let text = chain(error);
    // rustls says so of the other side's certificate only; its own is in an alert.
    if text.contains("certificate") {
        End::Refused(format!("its certificate is not accepted: {text}"))
    } else {
        End::Closed
    }
}

/// A refusal in words is not the end of a process.
pub(super) fn end_of(status: &tonic::Status) -> End {
    let cause = std::error::Error::source(status).map(chain).unwrap_or_default();
    // TLS 1.3 refuses a client's certificate after the client is done (RFC 8446, section 4.4.2.4).
    if cause.contains("fatal alert") {
        return End::Refused(format!("it does not accept this node's certificate: {cause}"));
    }
    match status.code() {
        tonic::Code::FailedPrecondition
        | tonic::Code::PermissionDenied
        | tonic::Code::Unimplemented => {
            End::Refused(format!("it refuses this node: {}", status.message()))
        }
        _ => End::Closed,
    }
}

/// The outbox as envelopes; an empty one when nothing was to be said for a while, so that a cut is noticed.
struct Sender {
    local: Local,
    to: NodeId,
    outbox: Arc<Outbox>,
    over: Arc<AtomicBool>,
    receipt: Arc<Receipt>,
    /// Of this stream.
    name: u64,
    seq: u64,
}

impl Sender {
    async fn next(mut self) -> Option<(ExchangeRequest, Self)> {
        let quiet_until = Instant::now() + patience(self.local.lease_ttl) * QUIET;
        let messages = loop {
            if self.over.load(Ordering::Acquire) {
                return None;
            }
            let messages = self.outbox.take();
            // The first envelope goes out at once: the peer checks who we are by it.
            if !messages.is_empty() || self.seq == 0 {
                break messages;
            }
            if timeout_at(quiet_until, self.outbox.filled()).await.is_err() {
                break messages;
            }
        };
        self.seq += 1;
        let envelope = ExchangeRequest {
            cluster: self.local.cluster.clone(),
            from: self.local.node.0,
            to: self.to.0,
            protocol_version: PROTOCOL_VERSION,
            seq: self.seq,
            messages: messages.iter().map(codec::encode).collect(),
            stream: self.name,
            receipt: self.receipt.ride(),
        };
        self.receipt.sent(self.name, self.seq, Instant::now());
        Some((envelope, self))
    }
}
