//! `redkeep.admin.v1.AdminService`.

use std::{future::Future, pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use redkeep_core::{
    AdminRequest, GroupId, NodeId,
    spec::{ClusterSpec, Member},
    status::GroupStatus,
};
use redkeep_proto::admin::v1::{
    self as pb, admin_service_client::AdminServiceClient, admin_service_server::AdminService,
};
use tokio::sync::{broadcast, watch};
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    event,
    forward::LeaderLink,
    history, nodes, outcome,
    port::{AdminPort, StampedEvent},
    quarantine,
    time::{span, to_span},
    view::View,
};
use crate::tls::TlsFiles;

type Client = AdminServiceClient<Channel>;
pub(super) type Answer<T> = Result<Response<T>, Status>;

pub(super) struct Service<P> {
    pub(super) port: Arc<P>,
    pub(super) me: String,
    tls: Option<Arc<TlsFiles>>,
    /// True once the server stops.
    closed: watch::Receiver<bool>,
}

impl<P: AdminPort> Service<P> {
    pub(super) fn new(
        port: Arc<P>,
        me: String,
        tls: Option<Arc<TlsFiles>>,
        closed: watch::Receiver<bool>,
    ) -> Self {
        Self { port, me, tls, closed }
    }

    pub(super) fn view(&self) -> View {
        View {
            me: self.me.clone(),
            status: Arc::clone(&self.port.status().borrow()),
            history: self.port.history(),
            leader_heard_ago: self.port.leader_heard_ago(),
        }
    }

    pub(super) fn link(&self, view: &View, leader: Option<NodeId>) -> Option<LeaderLink> {
        let spec = view.spec()?;
        let node = spec.node(leader.filter(|l| *l != view.status.node)?)?;
        Some(LeaderLink { name: node.name.clone(), admin: node.admin, tls: self.tls.clone() })
    }

    /// The leader's answer to a read; else why there is none (empty where none was wanted).
    async fn ask_leader<T, F>(
        &self,
        view: &View,
        local_only: bool,
        call: impl FnOnce(Client) -> F + Send,
    ) -> Result<T, String>
    where
        F: Future<Output = Answer<T>> + Send,
    {
        if local_only || view.leads() {
            return Err(String::new());
        }
        match self.link(view, view.status.leader) {
            Some(link) => link.read(call).await,
            None => Err("no leader is known".to_owned()),
        }
    }
}

fn spec(view: &View) -> Result<&ClusterSpec, Status> {
    view.spec().ok_or_else(outcome::not_ready)
}

fn group(view: &View, name: &str) -> Result<GroupId, Status> {
    let groups = &spec(view)?.groups;
    groups.iter().map(|g| &g.id).find(|g| g.as_str() == name).cloned().ok_or_else(|| {
        let known: Vec<_> = groups.iter().map(|g| g.id.as_str()).collect();
        outcome::no_such_group(name, &known)
    })
}

/// Empty = all.
fn group_or_all(view: &View, name: &str) -> Result<Option<GroupId>, Status> {
    if name.is_empty() { Ok(None) } else { group(view, name).map(Some) }
}

fn node(view: &View, name: &str) -> Result<NodeId, Status> {
    let nodes = &spec(view)?.nodes;
    nodes.iter().find(|n| n.name == name).map(|n| n.id).ok_or_else(|| {
        let known: Vec<_> = nodes.iter().map(|n| n.name.as_str()).collect();
        outcome::no_such_node(name, &known)
    })
}

/// Empty = the best candidate.
fn node_or_best(view: &View, name: &str) -> Result<Option<NodeId>, Status> {
    if name.is_empty() { Ok(None) } else { node(view, name).map(Some) }
}

fn leads(freshness: Option<&pb::Freshness>) -> bool {
    freshness.is_some_and(|f| f.source() == pb::FreshnessSource::Leader)
}

#[tonic::async_trait]
impl<P: AdminPort> AdminService for Service<P> {
    type WatchEventsStream =
        Pin<Box<dyn Stream<Item = Result<pb::WatchEventsResponse, Status>> + Send>>;

    async fn get_status(
        &self,
        request: Request<pb::GetStatusRequest>,
    ) -> Answer<pb::GetStatusResponse> {
        let pb::GetStatusRequest { local_only, group: wanted } = request.into_inner();
        let view = self.view();
        let ask = pb::GetStatusRequest { local_only: true, group: wanted.clone() };
        let remote = self
            .ask_leader(&view, local_only, |mut c| async move { c.get_status(ask).await })
            .await;
        let note = match remote.map(|r: pb::GetStatusResponse| r.status) {
            Ok(Some(mut status)) if leads(status.freshness.as_ref()) => {
                status.answered_by.clone_from(&self.me);
                return Ok(Response::new(pb::GetStatusResponse { status: Some(status) }));
            }
            Ok(_) => "the leader stepped down just now".to_owned(),
            Err(why) => why,
        };
        if !wanted.is_empty() {
            group(&view, &wanted)?;
        }
        let status = Some(view.to_proto(&wanted, note));
        Ok(Response::new(pb::GetStatusResponse { status }))
    }

    async fn watch_events(
        &self,
        request: Request<pb::WatchEventsRequest>,
    ) -> Answer<Self::WatchEventsStream> {
        let pb::WatchEventsRequest { group: wanted } = request.into_inner();
        let group = group_or_all(&self.view(), &wanted)?;
        let watcher = Watcher {
            port: Arc::clone(&self.port),
            me: self.me.clone(),
            group,
            events: self.port.events(),
            closed: self.closed.clone(),
        };
        let events = stream::unfold(Some(watcher), |watcher| async move { watcher?.next().await });
        Ok(Response::new(Box::pin(events)))
    }

    async fn get_history(
        &self,
        request: Request<pb::GetHistoryRequest>,
    ) -> Answer<pb::GetHistoryResponse> {
        let pb::GetHistoryRequest { local_only, group: wanted, limit } = request.into_inner();
        let view = self.view();
        let ask = pb::GetHistoryRequest { local_only: true, group: wanted.clone(), limit };
        let remote = self
            .ask_leader(&view, local_only, |mut c| async move { c.get_history(ask).await })
            .await;
        let note = match remote {
            Ok(answer) if leads(answer.freshness.as_ref()) => return Ok(Response::new(answer)),
            Ok(_) => "the leader stepped down just now".to_owned(),
            Err(why) => why,
        };
        group_or_all(&view, &wanted)?;
        let records = history::lines(&view, &wanted, limit);
        let freshness = Some(view.freshness(note));
        Ok(Response::new(pb::GetHistoryResponse { freshness, records }))
    }

    async fn explain(&self, request: Request<pb::ExplainRequest>) -> Answer<pb::ExplainResponse> {
        let pb::ExplainRequest { local_only, group: wanted } = request.into_inner();
        let view = self.view();
        let id = group(&view, &wanted)?;
        let ask = pb::ExplainRequest { local_only: true, group: wanted };
        let remote =
            self.ask_leader(&view, local_only, |mut c| async move { c.explain(ask).await }).await;
        let note = match remote {
            Ok(answer) if leads(answer.freshness.as_ref()) => return Ok(Response::new(answer)),
            Ok(_) => "the leader stepped down just now".to_owned(),
            Err(why) => why,
        };
        let status = view.status.groups.iter().find(|g| g.group == id);
        let status = status.ok_or_else(outcome::not_ready)?;
        Ok(Response::new(explanation(&view, status, note)))
    }

    async fn list_quarantine(
        &self,
        request: Request<pb::ListQuarantineRequest>,
    ) -> Answer<pb::ListQuarantineResponse> {
        let pb::ListQuarantineRequest { group: wanted } = request.into_inner();
        group_or_all(&self.view(), &wanted)?;
        let port = Arc::clone(&self.port);
        let kept = tokio::task::spawn_blocking(move || port.kept()).await;
        let kept = kept.map_err(|_ended| Status::unavailable("the supervisor is stopping"))?;
        let unread =
            |error| Status::internal(format!("the quarantine directory cannot be read: {error}"));
        let kept = kept.map_err(unread)?;
        Ok(Response::new(quarantine::listing(&self.me, &wanted, kept)))
    }

    async fn switchover(
        &self,
        request: Request<pb::SwitchoverRequest>,
    ) -> Answer<pb::SwitchoverResponse> {
        let asked = request.into_inner();
        let view = self.view();
        let group = group(&view, &asked.group)?;
        let to = node_or_best(&view, &asked.to)?;
        let dry_run = asked.dry_run;
        self.decide(asked, AdminRequest::Switchover { group, to, dry_run }).await
    }

    async fn failover(
        &self,
        request: Request<pb::FailoverRequest>,
    ) -> Answer<pb::FailoverResponse> {
        let asked = request.into_inner();
        let view = self.view();
        let group = group(&view, &asked.group)?;
        let to = node_or_best(&view, &asked.to)?;
        let pb::FailoverRequest { allow_data_loss, dry_run, .. } = asked;
        self.decide(asked, AdminRequest::Failover { group, to, allow_data_loss, dry_run }).await
    }

    async fn pause(&self, request: Request<pb::PauseRequest>) -> Answer<pb::PauseResponse> {
        let asked = request.into_inner();
        let group = group_or_all(&self.view(), &asked.group)?;
        let duration = to_span(asked.duration.unwrap_or_default());
        self.decide(asked, AdminRequest::Pause { group, duration }).await
    }

    async fn resume(&self, request: Request<pb::ResumeRequest>) -> Answer<pb::ResumeResponse> {
        let asked = request.into_inner();
        let group = group_or_all(&self.view(), &asked.group)?;
        self.decide(asked, AdminRequest::Resume { group }).await
    }

    async fn acknowledge(
        &self,
        request: Request<pb::AcknowledgeRequest>,
    ) -> Answer<pb::AcknowledgeResponse> {
        let asked = request.into_inner();
        let group = group_or_all(&self.view(), &asked.group)?;
        let dry_run = asked.dry_run;
        self.decide(asked, AdminRequest::Acknowledge { group, dry_run }).await
    }

    async fn transfer_leadership(
        &self,
        request: Request<pb::TransferLeadershipRequest>,
    ) -> Answer<pb::TransferLeadershipResponse> {
        let asked = request.into_inner();
        let to = node(&self.view(), &asked.to)?;
        self.decide(asked, AdminRequest::TransferLeadership { to }).await
    }

    async fn add_node(&self, request: Request<pb::AddNodeRequest>) -> Answer<pb::AddNodeResponse> {
        let asked = request.into_inner();
        let node = nodes::newcomer(&asked)?;
        let dry_run = asked.dry_run;
        self.decide(asked, AdminRequest::AddNode { node, dry_run }).await
    }

    async fn remove_node(
        &self,
        request: Request<pb::RemoveNodeRequest>,
    ) -> Answer<pb::RemoveNodeResponse> {
        let asked = request.into_inner();
        let node = node(&self.view(), &asked.name)?;
        let dry_run = asked.dry_run;
        self.decide(asked, AdminRequest::RemoveNode { node, dry_run }).await
    }

    async fn add_member(
        &self,
        request: Request<pb::AddMemberRequest>,
    ) -> Answer<pb::AddMemberResponse> {
        let asked = request.into_inner();
        let view = self.view();
        let group = group(&view, &asked.group)?;
        let member = Member { node: node(&view, &asked.node)?, priority: asked.priority };
        let dry_run = asked.dry_run;
        self.decide(asked, AdminRequest::AddMember { group, member, dry_run }).await
    }

    async fn remove_member(
        &self,
        request: Request<pb::RemoveMemberRequest>,
    ) -> Answer<pb::RemoveMemberResponse> {
        let asked = request.into_inner();
        let view = self.view();
        let group = group(&view, &asked.group)?;
        let node = node(&view, &asked.node)?;
        let dry_run = asked.dry_run;
        self.decide(asked, AdminRequest::RemoveMember { group, node, dry_run }).await
    }
}

/// One reader of events.
struct Watcher<P> {
    port: Arc<P>,
    me: String,
    group: Option<GroupId>,
    events: broadcast::Receiver<Arc<StampedEvent>>,
    closed: watch::Receiver<bool>,
}

type Told = Result<pb::WatchEventsResponse, Status>;

impl<P: AdminPort> Watcher<P> {
    /// The next event, and the reader if it goes on.
    async fn next(mut self) -> Option<(Told, Option<Self>)> {
        loop {
            let received = tokio::select! {
                received = self.events.recv() => received,
                _ = self.closed.wait_for(|closed| *closed) => return None,
            };
            match received {
                Ok(stamped) if self.wants(&stamped) => {
                    let view = View {
                        me: self.me.clone(),
                        status: Arc::clone(&self.port.status().borrow()),
                        history: Arc::default(),
                        leader_heard_ago: None,
                    };
                    let event = Some(event::to_proto(&view, &stamped));
                    return Some((Ok(pb::WatchEventsResponse { event }), Some(self)));
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    return Some((Err(outcome::lagged(missed)), None));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn wants(&self, stamped: &StampedEvent) -> bool {
        match (&self.group, &stamped.event.group) {
            (Some(wanted), Some(group)) => wanted == group,
            (None, _) | (_, None) => true,
        }
    }
}

fn explanation(view: &View, status: &GroupStatus, note: String) -> pb::ExplainResponse {
    let group = view.group(status);
    let losses = status.members.iter().map(|m| m.loss);
    let mut candidates: Vec<_> = group
        .members
        .iter()
        .zip(losses)
        .map(|(m, loss)| pb::Candidate {
            node: m.node.clone(),
            eligible: m.eligible,
            excluded: m.excluded.clone(),
            priority: m.priority,
            offset: m.redis.as_ref().map(|r| r.offset),
            loss_bytes: loss.map(|l| l.bytes),
            loss_known_ago: loss.map(|l| span(l.known_ago)),
        })
        .collect();
    candidates.sort_by_key(|c| {
        (c.excluded.is_some(), std::cmp::Reverse((c.offset, c.priority)), c.node.clone())
    });
    let mut problems: Vec<_> = super::problems::of(view)
        .into_iter()
        .filter(|p| p.group.is_empty() || p.group == group.name)
        .collect();
    // It is being asked just now.
    let own = format!("redkeepctl explain {}", group.name);
    for problem in problems.iter_mut().filter(|p| p.help == own) {
        problem.help.clear();
    }
    pb::ExplainResponse {
        freshness: Some(view.freshness(note)),
        summary: summary(view, status),
        group: Some(group),
        candidates,
        problems,
    }
}

fn summary(view: &View, status: &GroupStatus) -> String {
    let master = status.master.map_or_else(String::new, |m| view.name(m));
    let now = match (&status.hold, status.switchover_to, status.master) {
        (Some(hold), _, _) => format!("the group waits: {hold}"),
        (None, Some(to), _) => format!("a switchover to {} is under way", view.name(to)),
        (None, None, None) => "no master was assigned yet".to_owned(),
        (None, None, Some(_)) if status.serving => {
            format!("{master} serves at epoch {}; nothing waits", status.epoch)
        }
        (None, None, Some(_)) => {
            format!("{master} was assigned at epoch {} and does not serve yet", status.epoch)
        }
    };
    if view.leads() {
        now
    } else if view.status.leader.is_none() {
        let log = match status.master {
            Some(_) => format!("by the log {master} is master at epoch {}", status.epoch),
            None => "no master was assigned yet".to_owned(),
        };
        format!("no leader is known, so nothing moves and no lease is renewed; {log}")
    } else {
        format!("{now} (as this node knows; only the leader knows what holds a group back)")
    }
}
