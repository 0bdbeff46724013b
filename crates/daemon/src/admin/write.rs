//! Changes that operators ask for: decided by the leader, wherever they are asked.

use std::time::Duration;

use redkeep_core::{AdminRequest, GroupId, Span, spec::Timing};
use redkeep_proto::{admin::v1 as pb, order::Order};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Response, Status};

use super::{
    outcome::{self, Decided},
    port::AdminPort,
    service::{Answer, Service},
    view::View,
};

impl<P: AdminPort> Service<P> {
    /// Decide here if this node leads, else at the leader, but over no second hop.
    ///
    /// While leadership moves, nobody leads for some milliseconds. No operator should have to know that: a request
    /// that nobody has taken yet waits for a leader.
    pub(super) async fn decide<O: Order>(
        &self,
        asked: O,
        request: AdminRequest,
    ) -> Answer<O::Response> {
        let timing = self.view().spec().map(|s| s.timing).ok_or_else(outcome::not_ready)?;
        let limit = write_limit(&timing);
        let patience = Instant::now() + leader_limit(&timing);
        loop {
            let view = self.view();
            match self.decide_once(&view, asked.clone(), request.clone(), limit).await {
                // The node that forwarded it waits, and asks again.
                Err(status) if status.code() == Code::Unavailable && !asked.is_forwarded() => {
                    if !self.wait_for_another_leader(&view, patience).await {
                        return Err(status);
                    }
                }
                outcome => return outcome.map(|outcome| Response::new(O::answer(outcome))),
            }
        }
    }

    /// UNAVAILABLE where nobody took the request.
    async fn decide_once(
        &self,
        view: &View,
        asked: impl Order,
        request: AdminRequest,
        limit: Duration,
    ) -> Result<pb::Outcome, Status> {
        let group = group_of(&request).cloned();
        let reply = self.port.submit(request, limit).await;
        let leader = match outcome::decided(reply, group.as_ref(), &self.me)? {
            Decided::Done(outcome) => return Ok(outcome),
            Decided::Elsewhere(leader) => leader,
        };
        if asked.is_forwarded() {
            let text = format!("{} does not lead any more; nothing was done", self.me);
            return Err(outcome::no_leader(&text));
        }
        let Some(link) = self.link(view, leader) else {
            return Err(outcome::no_leader("no leader is known; nothing was done"));
        };
        let answer = link.write(limit, |client| asked.forwarded().send(client)).await?;
        answer.ok_or_else(|| outcome::unknown("the leader's answer was empty"))
    }

    /// False when no leader but the one in `tried` was known in time.
    async fn wait_for_another_leader(&self, tried: &View, until: Instant) -> bool {
        let tried = (tried.status.term, tried.status.leader);
        let mut status = self.port.status();
        let another = status.wait_for(|s| s.leader.is_some() && (s.term, s.leader) != tried);
        timeout_at(until, another).await.is_ok_and(|seen| seen.is_ok())
    }
}

/// Whose refusal it would be.
fn group_of(request: &AdminRequest) -> Option<&GroupId> {
    match request {
        AdminRequest::Switchover { group, .. }
        | AdminRequest::Failover { group, .. }
        | AdminRequest::AddMember { group, .. }
        | AdminRequest::RemoveMember { group, .. } => Some(group),
        AdminRequest::Pause { group, .. }
        | AdminRequest::Resume { group }
        | AdminRequest::Acknowledge { group, .. } => group.as_ref(),
        AdminRequest::TransferLeadership { .. }
        | AdminRequest::AddNode { .. }
        | AdminRequest::RemoveNode { .. } => None,
    }
}

/// Longer than any of the core's own limits, so that the core's reason is heard.
fn write_limit(timing: &Timing) -> Duration {
    let steps = timing.switchover_timeout.0 + timing.takeover_timeout.0 * 2;
    let lease = timing.wait_for(Span(timing.lease_ttl.0 * 2)).0;
    Duration::from_nanos(steps.saturating_add(lease)) + Duration::from_secs(1)
}

/// How long a request waits for a leader: enough for an election and another, whose timeouts end within 3/5 of a lease.
fn leader_limit(timing: &Timing) -> Duration {
    Duration::from_nanos(timing.lease_ttl.0.saturating_mul(2))
}
