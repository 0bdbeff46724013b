//! The transport over loopback: two endpoints, and a path between them that can be cut.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::FutureExt as _;
use redkeep_core::{Input, ids::node_id, message::RaftClass};
use redkeep_proto::peer::v1::{ExchangeRequest, peer_service_client::PeerServiceClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use super::{
    identity::{Directory, KnownPeers},
    server::PeerEndpoint,
    *,
};
use crate::inbox::{Outlet, Post, inbox};

const LEASE: Span = Span(300_000_000);
/// Far beyond what is promised, and far below TCP's own back-off after a lost connection.
const BOUND: Duration = Duration::from_secs(5);

fn local(name: &str) -> Local {
    Local {
        cluster: "demo".to_owned(),
        node: node_id(name),
        tls: None,
        lease_ttl: LEASE,
        receipts: Arc::default(),
    }
}

fn spec(name: &str, peer: SocketAddr) -> NodeSpec {
    NodeSpec { id: node_id(name), name: name.to_owned(), peer, admin: peer, added: false }
}

fn message(n: u32) -> PeerMessage {
    PeerMessage::Raft { bytes: n.to_be_bytes().to_vec(), class: RaftClass::Other }
}

/// A node's server on a port of its own.
struct Server {
    addr: SocketAddr,
    outlet: Outlet,
    _task: JoinHandle<()>,
    nodes: watch::Sender<Vec<NodeSpec>>,
}

fn scratch(test: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("redkeep-peer-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

async fn serve(local: Local, test: &str, peers: &[&str]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let nodes = watch::Sender::new(peers.iter().map(|name| spec(name, addr)).collect());
    let (inbox, outlet) = inbox();
    let known = Arc::new(KnownPeers::open(&scratch(test)).unwrap());
    let endpoint = PeerEndpoint::new(local, nodes.subscribe(), inbox, known);
    let task = tokio::spawn(async move {
        endpoint.serve(listener).await.unwrap();
    });
    Server { addr, outlet, nodes, _task: task }
}

/// Links of node `a` to node `b` at `addr`.
fn links(local: Local, addr: SocketAddr) -> (Links, Outlet) {
    let (inbox, outlet) = inbox();
    let mut links = Links::new(local, Handle::current(), inbox);
    links.set_peers(&[spec("a", addr), spec("b", addr)]);
    (links, outlet)
}

/// The first input that `wanted` takes; none when it does not come in time.
async fn next(outlet: &mut Outlet, mut wanted: impl FnMut(&Input) -> bool) -> Option<Input> {
    let found = async {
        loop {
            match outlet.take().await {
                Post::Input(input) if wanted(&input) => return Some(input),
                Post::Input(_) | Post::Lock(_) | Post::Stalled(_) => {}
                Post::Stop => return None,
            }
        }
    };
    tokio::time::timeout(BOUND, found).await.ok().flatten()
}

fn is_message(n: u32) -> impl FnMut(&Input) -> bool {
    move |input| matches!(input, Input::Peer { from, message: m } if *from == node_id("a") && *m == message(n))
}

fn number(input: &Input) -> u32 {
    let Input::Peer { message: PeerMessage::Raft { bytes, .. }, .. } = input else {
        panic!("{input:?}")
    };
    u32::from_be_bytes(bytes.as_slice().try_into().unwrap())
}

/// Bytes go through until `frozen`; then those of connections made before go nowhere, and no FIN or RST is seen.
async fn freezable_path(to: SocketAddr) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let freeze = Arc::new(AtomicBool::new(false));
    let cut = Arc::clone(&freeze);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(to).await.unwrap();
            // As the sockets at both ends: waiting for acknowledgements of TCP would delay ours.
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            let born_after = cut.load(Ordering::SeqCst);
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::spawn(carry(from_client, to_server, Arc::clone(&cut), born_after));
            tokio::spawn(carry(from_server, to_client, Arc::clone(&cut), born_after));
        }
    });
    (addr, freeze)
}

async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    cut: Arc<AtomicBool>,
    born_after: bool,
) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if cut.load(Ordering::SeqCst) && !born_after {
            // Both halves stay open, so that nobody is told.
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_holed_connection_is_replaced_at_once() {
    let mut server = serve(local("b"), "black-hole", &["a", "b"]).await;
    let (path, freeze) = freezable_path(server.addr).await;
    let (mut links, _outlet) = links(local("a"), path);
    links.send(node_id("b"), message(1));
    links.flush();
    assert!(next(&mut server.outlet, is_message(1)).await.is_some());
    freeze.store(true, Ordering::SeqCst);
    let cut = Instant::now();
    let sender = tokio::spawn(async move {
        for n in 2.. {
            links.send(node_id("b"), message(n));
            links.flush();
            links.look();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let later = |input: &Input| matches!(input, Input::Peer { .. });
    let first = next(&mut server.outlet, later).await.expect("no message after the cut");
    // Promised is a third of the lease to notice and a round trip to replace; TCP alone would take minutes.
    assert!(cut.elapsed() < Duration::from_secs(10), "{:?}", cut.elapsed());
    // The abandoned stream is still there, on a connection that TCP holds on to: did it take its share, every other message would
    // be missing. A machine that stands still for the patience of a link makes another, and costs it what was under way.
    let from = number(&first);
    let mut last = from;
    for _ in 0..100 {
        let following = next(&mut server.outlet, later).await.expect("messages stopped");
        assert!(number(&following) > last, "a message came twice or late");
        last = number(&following);
    }
    assert!(last - from < 150, "of {} messages 100 arrived", last - from);
    sender.abort();
}

/// One envelope for a round and the grant that follows; a round that nobody else confirms goes to its asker all the same.
#[tokio::test]
async fn a_heartbeat_to_an_asker_waits_for_its_grant_but_not_for_long() {
    let mut server = serve(local("b"), "hold", &["a", "b"]).await;
    let (mut links, _outlet) = links(local("a"), server.addr);
    let beat = || PeerMessage::Raft { bytes: vec![7], class: RaftClass::Heartbeat };
    links.send(node_id("b"), message(1));
    links.flush();
    assert!(next(&mut server.outlet, is_message(1)).await.is_some());
    links.asked(node_id("b"));
    links.send(node_id("b"), beat());
    links.flush();
    assert!(links.look().is_some_and(|left| left <= Span(2_000_000)), "it is held");
    links.send(node_id("b"), message(2));
    links.flush();
    assert!(next(&mut server.outlet, is_message(2)).await.is_some());
    let is_beat = |input: &Input| matches!(input, Input::Peer { message: m, .. } if *m == beat());
    assert!(next(&mut server.outlet, is_beat).await.is_some());
    links.asked(node_id("b"));
    links.send(node_id("b"), beat());
    links.flush();
    // The driver's part: it looks when it was told to.
    let arrived = async {
        loop {
            let left = links.look().unwrap_or_default();
            let wait = Duration::from_nanos(left.0).min(REFUSALS);
            if tokio::time::timeout(wait, next(&mut server.outlet, is_beat)).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(BOUND, arrived).await.unwrap();
    links.send(node_id("b"), beat());
    links.flush();
    assert!(
        next(&mut server.outlet, is_beat).await.is_some(),
        "who asked for nothing does not wait"
    );
}

/// Nothing lost: each stream lives on, by receipts that ride on the other direction or by responses of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_both_directions_acknowledge_each_other() {
    let (a, b) = (local("a"), local("b"));
    let mut at_a = serve(a.clone(), "both-a", &["a", "b"]).await;
    let mut at_b = serve(b.clone(), "both-b", &["a", "b"]).await;
    let (mut from_a, _outlet_a) = links(a, at_b.addr);
    let (inbox, _outlet_b) = inbox();
    let mut from_b = Links::new(b, Handle::current(), inbox);
    from_b.set_peers(&[spec("a", at_a.addr)]);
    let peers = |input: &Input| matches!(input, Input::Peer { .. });
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    for n in 0..60 {
        pace.tick().await;
        from_a.send(node_id("b"), message(n));
        from_a.flush();
        assert_eq!(number(&next(&mut at_b.outlet, peers).await.unwrap()), n);
        // Answered at first, then not at all, so that both ways of telling are used.
        if n < 30 {
            from_b.send(node_id("a"), message(n));
            from_b.flush();
            assert_eq!(number(&next(&mut at_a.outlet, peers).await.unwrap()), n);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ended_and_a_port_that_refuses_are_a_death() {
    // A runtime of its own is the peer's process: with it go the listener and all connections.
    let process =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut server = process.spawn(serve(local("b"), "death", &["a", "b"])).await.unwrap();
    let (mut links, mut outlet) = links(local("a"), server.addr);
    links.send(node_id("b"), message(1));
    links.flush();
    assert!(next(&mut server.outlet, is_message(1)).await.is_some());
    assert!(outlet.take().now_or_never().is_none(), "nobody has died yet");
    process.shutdown_background();
    let died = next(&mut outlet, |i| matches!(i, Input::PeerDied { .. })).await;
    assert_eq!(died, Some(Input::PeerDied { peer: node_id("b") }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_refuses_from_the_start_proves_nothing() {
    let reserved = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = reserved.local_addr().unwrap();
    drop(reserved);
    let (mut links, mut outlet) = links(local("a"), addr);
    links.send(node_id("b"), message(1));
    links.flush();
    // Some refusals later the peer appears; until then nothing may have been said.
    for _ in 0..5 {
        assert!(TcpStream::connect(addr).await.is_err());
        tokio::time::sleep(REFUSALS).await;
    }
    let listener = TcpListener::bind(addr).await.unwrap();
    listener.accept().await.unwrap();
    assert!(outlet.take().now_or_never().is_none());
}

/// Longer than the pause between two attempts.
const REFUSALS: Duration = Duration::from_millis(30);

fn envelope(from: &str, seq: u64) -> ExchangeRequest {
    ExchangeRequest {
        cluster: "demo".to_owned(),
        from: node_id(from).0,
        to: node_id("b").0,
        protocol_version: PROTOCOL_VERSION,
        seq,
        messages: Vec::new(),
        stream: 1,
        receipt: None,
    }
}

async fn open(
    addr: SocketAddr,
    first: ExchangeRequest,
) -> Result<tonic::Streaming<redkeep_proto::peer::v1::ExchangeResponse>, tonic::Status> {
    let mut client = PeerServiceClient::connect(format!("http://{addr}")).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(first).await.unwrap();
    let envelopes =
        futures_util::stream::unfold((receiver, sender), |(mut receiver, sender)| async move {
            receiver.recv().await.map(|envelope| (envelope, (receiver, sender)))
        });
    client.exchange(envelopes).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_stream_of_a_peer_wins() {
    let server = serve(local("b"), "newest", &["a", "b"]).await;
    let mut first = open(server.addr, envelope("a", 1)).await.unwrap();
    assert_eq!(first.message().await.unwrap().unwrap().seq, 1);
    let mut second = open(server.addr, envelope("a", 1)).await.unwrap();
    assert_eq!(second.message().await.unwrap().unwrap().seq, 1);
    let ended =
        tokio::time::timeout(BOUND, first.message()).await.expect("the older stream must end");
    assert!(!matches!(ended, Ok(Some(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_with_a_reason() {
    let server = serve(local("b"), "strangers", &["a", "b"]).await;
    let cases = [
        (ExchangeRequest { cluster: "other".to_owned(), ..envelope("a", 1) }, "cluster"),
        (ExchangeRequest { protocol_version: 2, ..envelope("a", 1) }, "version"),
        (envelope("z", 1), "configuration"),
        (envelope("b", 1), "configuration"),
        (ExchangeRequest { to: 7, ..envelope("a", 1) }, "address"),
    ];
    for (first, reason) in cases {
        let status = open(server.addr, first).await.map(|_| ()).unwrap_err();
        assert_eq!(status.code(), tonic::Code::FailedPrecondition);
        assert!(status.message().contains(reason), "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_directory_of_a_known_node_must_not_run() {
    let server = serve(local("b"), "fresh", &["a", "b", "w"]).await;
    let nodes = [spec("a", server.addr), spec("b", server.addr), spec("w", server.addr)];
    let a = local("a");
    let fresh = |id| Directory { id: [id; 16], fresh: true, join: false };
    identity::introduce(&a, &nodes[..2], fresh(1)).await.unwrap();
    identity::introduce(&a, &nodes[..2], fresh(1)).await.unwrap();
    let error = identity::introduce(&a, &nodes[..2], fresh(2)).await.unwrap_err();
    assert!(error.to_string().contains("\"a\" is known to \"b\""), "{error}");
}

/// With a membership from its file it could make a majority that never meets the cluster's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_added_must_say_that_it_joins() {
    let server = serve(local("b"), "added", &["a", "b", "w"]).await;
    server.nodes.send_modify(|nodes| nodes[0].added = true);
    let nodes = [spec("a", server.addr), spec("b", server.addr)];
    let fresh = |join| Directory { id: [1; 16], fresh: true, join };
    let a = local("a");
    let error = identity::introduce(&a, &nodes, fresh(false)).await.unwrap_err();
    assert!(error.to_string().contains("`join = true`"), "{error}");
    identity::introduce(&a, &nodes, fresh(true)).await.unwrap();
}

/// A CA and certificates for the named nodes.
struct Authority {
    ca: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "redkeep test CA");
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { ca: rcgen::Issuer::new(params, key), pem }
    }

    fn files(&self, name: &str) -> Arc<TlsFiles> {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.ca).unwrap();
        Arc::new(TlsFiles::from_pem(&self.pem, &cert.pem(), &key.serialize_pem()))
    }
}

fn secured(name: &str, files: Arc<TlsFiles>) -> Local {
    Local { tls: Some(files), ..local(name) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_who_its_certificate_names() {
    let authority = Authority::new();
    let mut server = serve(secured("b", authority.files("b")), "tls", &["a", "b"]).await;
    let (_links, _outlet) = {
        let (mut links, outlet) = links(secured("a", authority.files("a")), server.addr);
        links.send(node_id("b"), message(1));
        links.flush();
        (links, outlet)
    };
    assert!(next(&mut server.outlet, is_message(1)).await.is_some());

    // A certificate of the same CA for another node does not speak for `a`.
    let liar = secured("a", authority.files("w"));
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let channel = client::channel(&liar, &spec("b", server.addr), stream).await.unwrap();
    let first = futures_util::stream::iter([envelope("a", 1)]);
    let status = PeerServiceClient::new(channel).exchange(first).await.map(|_| ()).unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status:?}");

    // A server that is not `b` is not spoken to.
    let a = secured("a", authority.files("a"));
    let stream = TcpStream::connect(server.addr).await.unwrap();
    assert!(client::channel(&a, &spec("w", server.addr), stream).await.is_err());
}
