//! A supervisor's admin service with prepared answers, and `redkeepctl` as a program against it.

use std::{
    net::SocketAddr,
    pin::Pin,
    process::{Command, Output, Stdio},
    sync::{Arc, Mutex},
};

use futures_util::{Stream, StreamExt as _, stream};
use redkeep_proto::{
    admin::v1::{
        self as pb,
        admin_service_server::{AdminService, AdminServiceServer},
    },
    details::encode_refusal,
};
use tokio::net::TcpListener;
use tonic::{
    Code, Request, Response, Status,
    transport::{Server, ServerTlsConfig, server::TcpIncoming},
};

/// What the service answers, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// Answers to `GetStatus`, in turn; the last one stays.
    pub(crate) statuses: Mutex<Vec<pb::Status>>,
    pub(crate) history: Vec<pb::HistoryRecord>,
    pub(crate) explain: Option<pb::ExplainResponse>,
    pub(crate) events: Vec<pb::Event>,
    pub(crate) quarantine: pb::ListQuarantineResponse,
    /// To every write.
    pub(crate) outcome: Option<Result<pb::Outcome, Status>>,
    /// Writes never end.
    pub(crate) hangs: bool,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl Prepared {
    fn note(&self, asked: &impl std::fmt::Debug) {
        self.asked.lock().unwrap().push(format!("{asked:?}"));
    }

    async fn decide(&self, asked: &impl std::fmt::Debug) -> Result<Option<pb::Outcome>, Status> {
        self.note(asked);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        self.outcome.clone().unwrap().map(Some)
    }
}

pub(crate) fn refused(code: Code, refusal: &pb::Refusal) -> Status {
    let details = encode_refusal(code.into(), &refusal.text, refusal);
    Status::with_details(code, refusal.text.clone(), details.into())
}

struct Service(Arc<Prepared>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AdminService for Service {
    type WatchEventsStream =
        Pin<Box<dyn Stream<Item = Result<pb::WatchEventsResponse, Status>> + Send>>;

    async fn get_status(&self, _: Request<pb::GetStatusRequest>) -> Answer<pb::GetStatusResponse> {
        let mut statuses = self.0.statuses.lock().unwrap();
        let status = if statuses.len() > 1 {
            statuses.remove(0)
        } else {
            statuses.first().cloned().unwrap()
        };
        Ok(Response::new(pb::GetStatusResponse { status: Some(status) }))
    }

    async fn watch_events(
        &self,
        request: Request<pb::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        self.0.note(&request.into_inner());
        let events = self.0.events.clone().into_iter();
        let told = stream::iter(events.map(|e| Ok(pb::WatchEventsResponse { event: Some(e) })));
        Ok(Response::new(Box::pin(told.chain(stream::pending()))))
    }

    async fn get_history(
        &self,
        request: Request<pb::GetHistoryRequest>,
    ) -> Answer<pb::GetHistoryResponse> {
        self.0.note(&request.into_inner());
        let freshness = self.0.statuses.lock().unwrap()[0].freshness.clone();
        Ok(Response::new(pb::GetHistoryResponse { freshness, records: self.0.history.clone() }))
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Answer<pb::ExplainResponse> {
        self.0.note(&request.into_inner());
        Ok(Response::new(self.0.explain.clone().unwrap()))
    }

    async fn list_quarantine(
        &self,
        request: Request<pb::ListQuarantineRequest>,
    ) -> Answer<pb::ListQuarantineResponse> {
        self.0.note(&request.into_inner());
        Ok(Response::new(self.0.quarantine.clone()))
    }

    async fn switchover(
        &self,
        request: Request<pb::SwitchoverRequest>,
    ) -> Answer<pb::SwitchoverResponse> {
        let outcome = self.0.decide(&request.into_inner()).await?;
        Ok(Response::new(pb::SwitchoverResponse { outcome }))
    }

    async fn failover(
        &self,
        request: Request<pb::FailoverRequest>,
    ) -> Answer<pb::FailoverResponse> {
        let outcome = self.0.decide(&request.into_inner()).await?;
        Ok(Response::new(pb::FailoverResponse { outcome }))
    }

    async fn pause(&self, request: Request<pb::PauseRequest>) -> Answer<pb::PauseResponse> {
        let outcome = self.0.decide(&request.into_inner()).await?;
        Ok(Response::new(pb::PauseResponse { outcome }))
    }

    async fn resume(&self, request: Request<pb::ResumeRequest>) -> Answer<pb::ResumeResponse> {
        let outcome = self.0.decide(&request.into_inner()).await?;
        Ok(Response::new(pb::ResumeResponse { outcome }))
    }

    async fn acknowledge(
        &self,
        request: Request<pb::AcknowledgeRequest>,
    ) -> Answer<pb::AcknowledgeResponse> {
        let outcome = self.0.decide(&request.into_inner()).await?;
        Ok(Response::new(pb::AcknowledgeResponse { outcome }))
    }

    async fn transfer_leadership(
        &self,
        request: Request<pb::TransferLeadershipRequest>,
    ) -> Answer<pb::TransferLeadershipResponse> {
        let outcome = self.0.decide(&request.into_inner()).await?;
        Ok(Response::new(pb::TransferLeadershipResponse { outcome }))
    }

    async fn add_node(&self, request: Request<pb::AddNodeRequest>) -> Answer<pb::AddNodeResponse> {
        let outcome = self.0.decide(&request.into_inner()).await?;
        Ok(Response::new(pb::AddNodeResponse { outcome }))
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Answer<pb::RemoveNodeResponse> {
        let outcome = self.0.decide(&request.into_inner()).await?;
        Ok(Response::new(pb::RemoveNodeResponse { outcome }))
    }

    async fn add_member(
        &self,
        request: Request<pb::AddMemberRequest>,
    ) -> Answer<pb::AddMemberResponse> {
        let outcome = self.0.decide(&request.into_inner()).await?;
        Ok(Response::new(pb::AddMemberResponse { outcome }))
    }

    async fn remove_member(
        &self,
        request: Request<pb::RemoveMemberRequest>,
    ) -> Answer<pb::RemoveMemberResponse> {
        let outcome = self.0.decide(&request.into_inner()).await?;
        Ok(Response::new(pb::RemoveMemberResponse { outcome }))
    }
}

/// The service on a loopback port, for the life of the value.
pub(crate) struct Supervisor {
    pub(crate) addr: SocketAddr,
    pub(crate) prepared: Arc<Prepared>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Supervisor {
    pub(crate) fn start(prepared: Prepared) -> Self {
        Self::start_with(prepared, None)
    }

    pub(crate) fn start_with(prepared: Prepared, tls: Option<ServerTlsConfig>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let prepared = Arc::new(prepared);
        let service = AdminServiceServer::new(Service(Arc::clone(&prepared)));
        runtime.spawn(async move {
            let mut server = Server::builder();
            if let Some(tls) = tls {
                server = server.tls_config(tls).unwrap();
            }
            let serve = server.add_service(service);
            serve.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        Self { addr, prepared, runtime: Some(runtime) }
    }

    pub(crate) fn run(&self, words: &[&str]) -> Told {
        redkeepctl(&["--endpoint", &self.addr.to_string()], words)
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.prepared.asked.lock().unwrap().clone()
    }
}

/// What the program said.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program without any environment of ours and without a terminal.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_redkeepctl"));
    for name in ["ENDPOINT", "CA", "CERT", "KEY", "SERVER_NAME"] {
        command.env_remove(format!("REDKEEP_{name}"));
    }
    command.args(words).stdin(Stdio::null());
    command
}

pub(crate) fn redkeepctl(before: &[&str], words: &[&str]) -> Told {
    let all: Vec<_> = before.iter().chain(words).copied().collect();
    told(command(&all).output().unwrap())
}

pub(crate) fn told(output: Output) -> Told {
    Told {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Compare with `tests/golden/NAME`; with UPDATE_GOLDEN=1 write it, to be read in review.
pub(crate) fn golden(name: &str, text: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "differs from {path}; UPDATE_GOLDEN=1 writes it");
}

/// How long ago changes with each run: leave it out.
pub(crate) fn without_age(text: &str) -> String {
    let mut kept = Vec::new();
    for line in text.lines() {
        let line = match (line.find(" ("), line.find(" ago),")) {
            (Some(from), Some(to)) if from < to => format!("{}{}", &line[..from], &line[to + 5..]),
            _ => line.to_owned(),
        };
        let line = match line.split_once("\"assigned_ago_ms\": ") {
            Some((before, _)) => format!("{before}\"assigned_ago_ms\": AGE,"),
            None => line,
        };
        kept.push(line);
    }
    kept.join("\n") + "\n"
}

fn duration(ms: i64) -> Option<prost_types::Duration> {
    let nanos = i32::try_from(ms % 1_000).unwrap() * 1_000_000;
    Some(prost_types::Duration { seconds: ms / 1_000, nanos })
}

pub(crate) fn at(ms: i64) -> Option<prost_types::Timestamp> {
    let nanos = i32::try_from(ms % 1_000).unwrap() * 1_000_000;
    Some(prost_types::Timestamp { seconds: ms / 1_000, nanos })
}

/// a serves at epoch 3, b follows it, the witness w leads and answers.
pub(crate) fn healthy() -> pb::Status {
    let node = |name: &str, id, ip| pb::NodeStatus {
        name: name.to_owned(),
        id,
        leader: name == "w",
        witness: name == "w",
        observed: true,
        heard_ago: duration(if name == "w" { 0 } else { 41 }),
        applied: 57,
        admin: format!("10.99.0.{ip}:7601"),
        peer: format!("10.99.0.{ip}:7600"),
        heard: true,
        vote: pb::Vote::Voter.into(),
    };
    pb::Status {
        cluster: "demo".to_owned(),
        answered_by: "w".to_owned(),
        freshness: Some(pb::Freshness {
            node: "w".to_owned(),
            source: pb::FreshnessSource::Leader.into(),
            leader_heard_ago: None,
            note: String::new(),
        }),
        server_version: "0.1.0".to_owned(),
        role: pb::RaftRole::Leader.into(),
        term: 4,
        leader: "w".to_owned(),
        applied: 57,
        committed: 57,
        nodes: vec![node("a", 1, 1), node("b", 2, 2), node("w", 3, 3)],
        groups: vec![healthy_group()],
        problems: Vec::new(),
        spec: Some(pb::ClusterSpec {
            timing: Some(pb::Timing { lease_ttl: duration(300), ..pb::Timing::default() }),
            ..pb::ClusterSpec::default()
        }),
    }
}

pub(crate) fn excluded(reason: pb::ExclusionReason, text: &str) -> Option<pb::Exclusion> {
    Some(pb::Exclusion { reason: reason.into(), text: text.to_owned() })
}

pub(crate) fn healthy_group() -> pb::GroupStatus {
    let eligible = pb::EligibleMember { node: "b".to_owned(), run_id: "62bb0b8c".to_owned() };
    pb::GroupStatus {
        name: "pair".to_owned(),
        epoch: 3,
        master: "a".to_owned(),
        cause: pb::Cause::MasterDown.into(),
        assigned_at: 40,
        assigned_time: at(1_700_000_000_123),
        serving: true,
        eligible: vec![eligible],
        joining: Vec::new(),
        wait_replicas: 1,
        switchover_to: String::new(),
        paused_for: None,
        lease_left: duration(212),
        members: vec![member("a"), member("b")],
        hold: None,
        vip: "10.99.0.100/32".to_owned(),
        port: 16_465,
        interface: "eth0".to_owned(),
        durability: pb::Durability::Async.into(),
        min_replicas: Some(0),
        sights: vec![sight("w", pb::SightState::Lost, "no answer within 250 ms")],
    }
}

fn sight(by: &str, state: pb::SightState, why: &str) -> pb::Sight {
    let (by, why) = (by.to_owned(), why.to_owned());
    pb::Sight { by, node: "a".to_owned(), state: state.into(), why }
}

fn member(name: &str) -> pb::MemberStatus {
    let is_master = name == "a";
    let attached = pb::AttachedReplica {
        address: "10.99.0.2:16465".to_owned(),
        online: true,
        offset: 123_440,
        lag: duration(0),
    };
    let redis = pb::Redis {
        run_id: if is_master { "d1f0aa77" } else { "62bb0b8c" }.to_owned(),
        role: if is_master { pb::RedisRole::Master } else { pb::RedisRole::Replica }.into(),
        follows: if is_master { String::new() } else { "10.99.0.1:16465".to_owned() },
        link_up: !is_master,
        read_only: !is_master,
        replication_id: "7d1c9e".to_owned(),
        offset: if is_master { 123_456 } else { 123_440 },
        keys: 12,
        version: "7.0.15".to_owned(),
        replicas: if is_master { vec![attached] } else { Vec::new() },
        settled: true,
        lag_bytes: (!is_master).then_some(16),
        previous_replication_id: "0ab1".to_owned(),
        previous_until_offset: 99,
        bypass: Vec::new(),
    };
    pb::MemberStatus {
        node: name.to_owned(),
        known: true,
        health: pb::RedisHealth::Up.into(),
        redis: Some(redis),
        trouble: String::new(),
        fenced: None,
        serving: is_master.then_some(3),
        excluded: if is_master {
            excluded(pb::ExclusionReason::IsMaster, "it is the master now")
        } else {
            None
        },
        priority: 100,
        address: format!("10.99.0.{}:16465", if is_master { 1 } else { 2 }),
        eligible: !is_master,
        takeover_failure: pb::TakeoverFailure::Unspecified.into(),
    }
}

/// a is dead, b has lost its link and waits, the supervisor of a is silent.
pub(crate) fn broken() -> pb::Status {
    let mut status = healthy();
    status.nodes[0].heard = false;
    status.nodes[0].heard_ago = duration(2_300);
    let group = &mut status.groups[0];
    group.serving = false;
    group.eligible.clear();
    group.lease_left = duration(0);
    group.paused_for = duration(540_000);
    group.hold = Some(pb::Hold {
        reason: pb::HoldReason::NoCandidate.into(),
        text: "no eligible replica is up".to_owned(),
        left: None,
    });
    let a = &mut group.members[0];
    a.health = pb::RedisHealth::Down.into();
    a.trouble = "its process died".to_owned();
    a.redis = None;
    a.serving = None;
    a.fenced = Some(pb::Fenced {
        epoch: 3,
        offset: 123_456,
        confirmed_by_target: false,
        cause: pb::FenceCause::RedisDead.into(),
    });
    let b = &mut group.members[1];
    b.eligible = false;
    b.excluded =
        excluded(pb::ExclusionReason::NotEligible, "it is not in the committed eligible set");
    b.redis.as_mut().unwrap().link_up = false;
    let problem = |severity: pb::Severity, group: &str, text: &str, help: &str| pb::Problem {
        severity: severity.into(),
        group: group.to_owned(),
        node: "a".to_owned(),
        text: text.to_owned(),
        help: help.to_owned(),
    };
    status.problems = vec![
        problem(
            pb::Severity::Critical,
            "pair",
            "a was made master and does not serve yet: no eligible replica is up",
            "redkeepctl explain pair",
        ),
        problem(
            pb::Severity::Warning,
            "",
            "the supervisor of a is silent for 2.3 s",
            "systemctl status redkeepd (on that node)",
        ),
    ];
    status
}
