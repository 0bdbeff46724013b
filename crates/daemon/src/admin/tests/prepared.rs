//! A driver with prepared views and answers, and a server in front of it.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use redkeep_consensus::Role;
use redkeep_core::{
    AdminReply, AdminRequest, Epoch, GroupId, NodeId, RunId, Span,
    command::Cause,
    ids::node_id,
    model::{Record, RecordKind},
    observe::{EligibleMember, RedisObservation, RedisRole, RedisView},
    spec::{ClusterSpec, Durability, GroupSpec, Member, NodeSpec, ProbeTiming, Timing, Vip},
    status::{GroupStatus, MemberStatus, NodeStatus, StatusView},
};
use tokio::{
    net::TcpListener,
    sync::{Notify, broadcast, oneshot, watch},
    task::JoinHandle,
};

use crate::{
    admin::{
        AdminServer,
        port::{AdminPort, Kept, StampedEvent},
    },
    tls::TlsFiles,
};

pub(super) const EVENTS_KEPT: usize = 16;

/// A driver that says what it was told to say.
#[derive(Debug)]
pub(super) struct Prepared {
    node: String,
    status: watch::Sender<Arc<StatusView>>,
    history: Arc<Vec<Record>>,
    events: broadcast::Sender<Arc<StampedEvent>>,
    replies: Mutex<VecDeque<AdminReply>>,
    requests: Mutex<Vec<AdminRequest>>,
    kept: Option<Kept>,
    /// Told at each request.
    pub(super) asked: Notify,
}

impl Prepared {
    pub(super) fn new(status: StatusView) -> Self {
        let cluster = status.cluster.as_ref().unwrap();
        Self {
            node: cluster.node_name(status.node),
            status: watch::Sender::new(Arc::new(status)),
            history: Arc::new(history()),
            events: broadcast::Sender::new(EVENTS_KEPT),
            replies: Mutex::default(),
            requests: Mutex::default(),
            kept: None,
            asked: Notify::new(),
        }
    }

    /// Answer the next request so; without an answer a request waits for ever.
    pub(super) fn will_reply(self, reply: AdminReply) -> Self {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner).push_back(reply);
        self
    }

    /// This is in the quarantine directory; without it, that cannot be read.
    pub(super) fn keeping(self, kept: Kept) -> Self {
        Self { kept: Some(kept), ..self }
    }

    pub(super) fn requests(&self) -> Vec<AdminRequest> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn publish(&self, status: StatusView) {
        self.status.send_replace(Arc::new(status));
    }

    pub(super) fn tell(&self, event: StampedEvent) {
        self.events.send(Arc::new(event)).unwrap();
    }
}

impl AdminPort for Prepared {
    fn status(&self) -> watch::Receiver<Arc<StatusView>> {
        self.status.subscribe()
    }

    fn history(&self) -> Arc<Vec<Record>> {
        Arc::clone(&self.history)
    }

    fn leader_heard_ago(&self) -> Option<Duration> {
        Some(Duration::from_millis(1_250))
    }

    fn kept(&self) -> std::io::Result<Kept> {
        self.kept.clone().ok_or_else(|| std::io::Error::other("no disk"))
    }

    async fn submit(&self, request: AdminRequest, limit: Duration) -> AdminReply {
        assert!(limit > Duration::from_secs(1));
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        let reply = self.replies.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        self.asked.notify_one();
        match reply {
            Some(reply) => reply,
            None => std::future::pending().await,
        }
    }

    fn events(&self) -> broadcast::Receiver<Arc<StampedEvent>> {
        self.events.subscribe()
    }
}

/// A server on a loopback port.
pub(super) struct Running {
    pub(super) addr: SocketAddr,
    pub(super) port: Arc<Prepared>,
    tls: Option<Arc<TlsFiles>>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    pub(super) async fn start(port: Prepared) -> Self {
        Self::start_with(port, None).await
    }

    pub(super) async fn start_with(port: Prepared, tls: Option<TlsFiles>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let port = Arc::new(port);
        let tls = tls.map(Arc::new);
        let server = AdminServer::new(Arc::clone(&port), &port.node, tls.clone());
        let task = tokio::spawn(async move {
            let stopped = async {
                stopped.await.ok();
            };
            server.serve(listener, stopped).await.unwrap();
        });
        Self { addr, port, tls, stop: Some(stop), task }
    }

    pub(super) fn tls(&self) -> &TlsFiles {
        self.tls.as_ref().unwrap()
    }

    pub(super) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Cut all connections at once.
    pub(super) fn kill(&self) {
        self.task.abort();
    }

    pub(super) async fn ended(&mut self) {
        (&mut self.task).await.unwrap();
    }
}

/// A cluster of a, b and the witness w with the group `pair`: a serves at epoch 3, b is its replica.
pub(super) struct Pair {
    spec: ClusterSpec,
}

pub(super) fn pair() -> Pair {
    let span = Span::from_millis;
    let node = |name: &str, ip: u8| NodeSpec {
        id: node_id(name),
        name: name.to_owned(),
        peer: SocketAddr::from(([10, 99, 0, ip], 7600)),
        admin: SocketAddr::from(([10, 99, 0, ip], 7601)),
        added: false,
    };
    let spec = ClusterSpec {
        name: "demo".to_owned(),
        timing: Timing {
            lease_ttl: span(300),
            max_clock_drift_ppm: 100_000,
            margin: span(25),
            switchover_timeout: span(2_000),
            takeover_timeout: span(2_000),
            cold_start_wait: span(30_000),
            failover_cooldown: span(0),
        },
        mass_failure_limit: 0,
        nodes: vec![node("a", 1), node("b", 2), node("w", 3)],
        groups: vec![GroupSpec {
            id: GroupId::new("pair"),
            port: 16_465,
            vip: Vip { addr: [10, 99, 0, 100].into(), prefix: 32 },
            interface: "eth0".to_owned(),
            members: ["a", "b"].map(|n| Member { node: node_id(n), priority: 100 }).to_vec(),
            probe: ProbeTiming {
                interval: span(100),
                timeout: span(250),
                fall: 3,
                loading_timeout: span(60_000),
            },
            max_lag: span(3_000),
            max_lag_bytes: 0,
            min_replicas_to_write: 0,
            durability: Durability::Async,
        }],
    };
    Pair { spec }
}

pub(super) fn observation(run_id: &str, role: RedisRole, offset: u64) -> RedisObservation {
    RedisObservation {
        run_id: RunId::new(run_id),
        role,
        replication_id: "7d1c".to_owned(),
        previous: None,
        offset,
        keys: 12,
        backlog_from: None,
        replicas: Vec::new(),
        version: "7.0.15".to_owned(),
        append_only: false,
        settled: true,
        bypass: Vec::new(),
    }
}

pub(super) fn replica_of(host: &str) -> RedisRole {
    RedisRole::Replica {
        master_host: host.to_owned(),
        master_port: 16_465,
        link_up: true,
        read_only: true,
    }
}

fn history() -> Vec<Record> {
    let of = |index, kind| Record {
        index,
        term: 2,
        at_unix_ms: 1_700_000_000_123,
        group: (index > 1).then(|| GroupId::new("pair")),
        epoch: Epoch(3),
        kind,
    };
    let assigned = RecordKind::Assigned {
        master: node_id("a"),
        from: Some(node_id("b")),
        cause: Cause::MasterDown,
        evidence: "the process died".to_owned(),
        estimated_loss_bytes: Some(14),
    };
    vec![
        of(1, RecordKind::Bootstrapped),
        of(40, assigned),
        of(41, RecordKind::Serving { master: node_id("a") }),
    ]
}

impl Pair {
    fn group(&self) -> GroupStatus {
        let member = |name, redis, serving| MemberStatus {
            node: node_id(name),
            redis: RedisView::Up(redis),
            fenced: None,
            serving,
            takeover_failure: None,
            excluded: None,
            loss: None,
            known: true,
        };
        GroupStatus {
            group: GroupId::new("pair"),
            epoch: Epoch(3),
            master: Some(node_id("a")),
            cause: Some(Cause::MasterDown),
            assigned_at: 40,
            serving: true,
            eligible: vec![EligibleMember { node: node_id("b"), run_id: RunId::new("rb") }],
            joining: Vec::new(),
            wait_replicas: 1,
            switchover_to: None,
            paused_for: None,
            paused_with_all: false,
            lease_left: Some(Span::from_millis(212)),
            members: vec![
                member("a", observation("ra", RedisRole::Master, 1_000), Some(Epoch(3))),
                member("b", observation("rb", replica_of("10.99.0.1"), 990), None),
            ],
            hold: None,
            durability: Durability::Async,
            min_replicas: Some(0),
            sights: Vec::new(),
        }
    }

    fn view(&self, node: &str, role: Role, leader: Option<NodeId>) -> StatusView {
        let nodes = ["a", "b", "w"].map(|n| NodeStatus {
            node: node_id(n),
            heard_ago: Some(Span::from_millis(20)),
            applied: 41,
        });
        StatusView {
            node: node_id(node),
            cluster: Some(self.spec.clone()),
            role,
            term: 2,
            leader,
            applied: 41,
            committed: 41,
            voters: ["a", "b", "w"].map(node_id).to_vec(),
            learners: Vec::new(),
            nodes: if role == Role::Leader { nodes.to_vec() } else { Vec::new() },
            groups: vec![self.group()],
        }
    }

    /// a leads.
    pub(super) fn leading(&self) -> StatusView {
        self.view("a", Role::Leader, Some(node_id("a")))
    }

    /// w follows the leader a, whose operators' server is at `admin`; w knows no Redis at first hand.
    pub(super) fn following_at(mut self, admin: SocketAddr) -> StatusView {
        self.spec.nodes[0].admin = admin;
        let mut view = self.view("w", Role::Follower, Some(node_id("a")));
        for member in &mut view.groups[0].members {
            member.redis = RedisView::Unknown;
            member.known = false;
        }
        view
    }

    /// w knows of no leader.
    pub(super) fn leaderless(&self) -> StatusView {
        self.view("w", Role::PreCandidate, None)
    }
}

/// Certificates of a, of w, and of a stranger with a CA of its own.
pub(super) fn test_certificates() -> [TlsFiles; 3] {
    let (ours, theirs) = (Authority::new("our ca"), Authority::new("their ca"));
    [ours.issue("a", &ours), ours.issue("w", &ours), theirs.issue("w", &ours)]
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate of this authority; `trusted` is the one that its owner trusts.
    fn issue(&self, name: &str, trusted: &Self) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        TlsFiles::from_pem(&trusted.pem, &cert.pem(), &key.serialize_pem())
    }
}
