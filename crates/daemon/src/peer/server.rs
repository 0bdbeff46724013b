//! What peers call: their streams, and the question who a node is.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use redkeep_core::{Input, NodeId, spec::NodeSpec};
use redkeep_proto::peer::v1::{
    ExchangeRequest, ExchangeResponse, IdentifyRequest, IdentifyResponse,
    peer_service_server::{PeerService, PeerServiceServer},
};
use tokio::{net::TcpListener, sync::watch, time::Instant};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use super::{Local, PROTOCOL_VERSION, codec, identity::KnownPeers, receipt::Receipt};
use crate::{inbox::Inbox, tls};

type Acknowledgements = Pin<Box<dyn Stream<Item = Result<ExchangeResponse, Status>> + Send>>;

/// The peer service of this node.
#[derive(Debug)]
pub(crate) struct PeerEndpoint {
    local: Local,
    nodes: watch::Receiver<Vec<NodeSpec>>,
    inbox: Inbox,
    known: Arc<KnownPeers>,
    /// Number of the newest stream of each peer; an older one ends when it is no longer its own.
    streams: Mutex<BTreeMap<NodeId, watch::Sender<u64>>>,
}

impl PeerEndpoint {
    pub(crate) fn new(
        local: Local,
        nodes: watch::Receiver<Vec<NodeSpec>>,
        inbox: Inbox,
        known: Arc<KnownPeers>,
    ) -> Self {
        Self { local, nodes, inbox, known, streams: Mutex::default() }
    }

    /// Serve for the life of the process.
    ///
    /// # Errors
    /// The TLS files do not fit together.
    pub(crate) async fn serve(self, listener: TcpListener) -> Result<(), tonic::transport::Error> {
        let mut server = Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .tcp_keepalive(Some(Duration::from_secs(10)));
        if let Some(files) = &self.local.tls {
            server = server.tls_config(files.server())?;
        }
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        server.add_service(PeerServiceServer::new(self)).serve_with_incoming(incoming).await
    }

    /// The peer that an envelope says it is from, if it may say so.
    fn check(
        &self,
        name: &str,
        from: u64,
        version: u32,
        certificate: Option<&tls::PeerCertificate>,
    ) -> Result<NodeSpec, Status> {
        if name != self.local.cluster {
            return Err(Status::failed_precondition(format!(
                "this is cluster {:?}, not {name:?}",
                self.local.cluster
            )));
        }
        if version != PROTOCOL_VERSION {
            let text = format!("protocol version {PROTOCOL_VERSION} is spoken here, not {version}");
            return Err(Status::failed_precondition(text));
        }
        let node =
            self.nodes.borrow().iter().find(|n| n.id.0 == from && n.id != self.local.node).cloned();
        let Some(node) = node else {
            return Err(Status::failed_precondition(format!(
                "node {from:x} is not in this cluster's configuration"
            )));
        };
        if self.local.tls.is_some() && !certificate.is_some_and(|c| c.names(&node.name)) {
            let text =
                format!("the certificate does not name {:?} (subject alternative name)", node.name);
            return Err(Status::permission_denied(text));
        }
        Ok(node)
    }

    /// Make this the newest stream of `peer`: its number, and the news of a newer one.
    fn newest(&self, peer: NodeId) -> (u64, watch::Receiver<u64>) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = streams.entry(peer).or_insert_with(|| watch::Sender::new(0));
        let number = *newest.borrow() + 1;
        newest.send_replace(number);
        (number, newest.subscribe())
    }
}

#[tonic::async_trait]
impl PeerService for PeerEndpoint {
    type ExchangeStream = Acknowledgements;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Acknowledgements>, Status> {
        let certificate = tls::PeerCertificate::of(&request);
        let mut envelopes = request.into_inner();
        let first =
            envelopes.message().await?.ok_or_else(|| Status::invalid_argument("no envelope"))?;
        let peer =
            self.check(&first.cluster, first.from, first.protocol_version, certificate.as_ref())?;
        if first.to != self.local.node.0 {
            let text = format!(
                "this is node {:x}, not {:x}: two nodes share an address",
                self.local.node.0, first.to
            );
            return Err(Status::failed_precondition(text));
        }
        let (number, newer) = self.newest(peer.id);
        tracing::debug!(peer = %peer.name, number, "stream accepted");
        let receipt = self.local.receipts.of(peer.id);
        let (stream, inbox) = (first.stream, self.inbox.clone());
        let reader = Reader { peer, number, newer, stream, envelopes, inbox, receipt };
        let opened = reader.deliver(first);
        // The opener waits for a first response, which may not wait for a ride.
        let opening = reader.receipt.untold(reader.stream).map(|seq| Ok(ExchangeResponse { seq }));
        let later =
            stream::unfold(opened.map(|()| reader), |reader| async { reader?.next().await });
        Ok(Response::new(Box::pin(stream::iter(opening).chain(later))))
    }

    async fn identify(
        &self,
        request: Request<IdentifyRequest>,
    ) -> Result<Response<IdentifyResponse>, Status> {
        let certificate = tls::PeerCertificate::of(&request);
        let asked = request.into_inner();
        let peer =
            self.check(&asked.cluster, asked.node, asked.protocol_version, certificate.as_ref())?;
        let dir_id = <[u8; 16]>::try_from(asked.dir_id.as_slice())
            .map_err(|_| Status::invalid_argument("dir_id must be 16 bytes"))?;
        let known = Arc::clone(&self.known);
        let (id, added) = (peer.id, peer.added);
        // Written to disk before the answer, on a thread that may wait.
        let known_dir_id = tokio::task::spawn_blocking(move || known.meet(id, dir_id))
            .await
            .map_err(|e| Status::internal(e.to_string()))?
            .map_err(|e| Status::internal(format!("cannot record the peer: {e}")))?;
        Ok(Response::new(IdentifyResponse {
            node: self.local.node.0,
            known: known_dir_id.is_some(),
            known_dir_id: known_dir_id.map(Vec::from).unwrap_or_default(),
            added,
        }))
    }
}

/// One stream of one peer: envelopes become inputs, and what found no ride back in time is acknowledged.
struct Reader {
    peer: NodeSpec,
    number: u64,
    newer: watch::Receiver<u64>,
    /// The sender's name for this stream.
    stream: u64,
    envelopes: Streaming<ExchangeRequest>,
    inbox: Inbox,
    receipt: Arc<Receipt>,
}

/// What a reader waits for.
enum Received {
    Envelope(ExchangeRequest),
    /// This and all before it found no ride in time.
    Overdue(u64),
    /// The stream ended, or is no longer the newest.
    End,
}

impl Reader {
    async fn next(mut self) -> Option<(Result<ExchangeResponse, Status>, Option<Self>)> {
        loop {
            let received = match self.receive().await {
                Received::Envelope(envelope) => envelope,
                Received::Overdue(seq) => return Some((Ok(ExchangeResponse { seq }), Some(self))),
                Received::End => return None,
            };
            self.deliver(received)?;
            // Most are answered by the core at once: then no acknowledgement need be waited for.
            tokio::task::yield_now().await;
        }
    }

    async fn receive(&mut self) -> Received {
        let number = self.number;
        tokio::select! {
            biased;
            _ = self.newer.wait_for(|newest| *newest != number) => Received::End,
            envelope = self.envelopes.message() => {
                envelope.ok().flatten().map_or(Received::End, Received::Envelope)
            }
            // Not by a timer of its own: that would wake this thread for little else.
            seq = self.receipt.overdue(self.stream) => Received::Overdue(seq),
        }
    }

    fn deliver(&self, envelope: ExchangeRequest) -> Option<()> {
        if envelope.from != self.peer.id.0 || envelope.stream != self.stream {
            return None;
        }
        self.receipt.arrived(self.stream, envelope.seq, Instant::now());
        if let Some(receipt) = envelope.receipt {
            self.receipt.acknowledged(receipt.stream, receipt.seq);
        }
        for message in envelope.messages {
            match codec::decode(message) {
                Ok(message) => self.inbox.offer(Input::Peer { from: self.peer.id, message }),
                Err(error) => {
                    tracing::warn!(peer = %self.peer.name, %error, "a message was not understood");
                }
            }
        }
        Some(())
    }
}
