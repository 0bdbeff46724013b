//! Supervisors that join and leave the cluster, and members that join and leave groups.

use std::future::Future;

use redkeep_proto::admin::v1::{
    self as pb, AddMemberRequest, AddNodeRequest, RemoveMemberRequest, RemoveNodeRequest,
};

use super::{
    change::{agreed, look, tell},
    order, pause_before_next_look,
};
use crate::{
    args::{Consent, Member, Node},
    connect::Target,
    failure::Failure,
    out::Out,
};

pub(super) async fn change(target: &Target, verb: &Node, out: &mut Out) -> Result<(), Failure> {
    match verb {
        Node::Add { node, peer, admin, wait, dry_run } => {
            let request = AddNodeRequest {
                name: node.clone(),
                peer: peer.clone(),
                admin: admin.clone(),
                dry_run: *dry_run,
                forwarded: false,
            };
            let outcome = order(target, request).await?;
            if *wait && !dry_run {
                votes(target, node).await?;
            }
            tell(out, outcome, *dry_run)
        }
        Node::Remove { node, consent } => {
            let request =
                |dry_run| RemoveNodeRequest { name: node.clone(), dry_run, forwarded: false };
            with_consent(*consent, |dry_run| order(target, request(dry_run)), out).await
        }
    }
}

pub(super) async fn change_member(
    target: &Target,
    verb: &Member,
    out: &mut Out,
) -> Result<(), Failure> {
    match verb {
        Member::Add { group, node, priority, consent } => {
            let request = |dry_run| AddMemberRequest {
                group: group.clone(),
                node: node.clone(),
                priority: *priority,
                dry_run,
                forwarded: false,
            };
            with_consent(*consent, |dry_run| order(target, request(dry_run)), out).await
        }
        Member::Remove { group, node, consent } => {
            let request = |dry_run| RemoveMemberRequest {
                group: group.clone(),
                node: node.clone(),
                dry_run,
                forwarded: false,
            };
            with_consent(*consent, |dry_run| order(target, request(dry_run)), out).await
        }
    }
}

async fn with_consent<F>(
    consent: Consent,
    call: impl Fn(bool) -> F,
    out: &mut Out,
) -> Result<(), Failure>
where
    F: Future<Output = Result<pb::Outcome, Failure>>,
{
    match agreed(consent, "", call, out).await? {
        Some(outcome) => tell(out, outcome, false),
        None => Ok(()),
    }
}

async fn votes(target: &Target, node: &str) -> Result<(), Failure> {
    loop {
        // A cluster between two leaders, or an endpoint that is slow, is looked at again.
        if let Ok(status) = look(target, "").await
            && status.nodes.iter().any(|n| n.name == node && n.vote() == pb::Vote::Voter)
        {
            return Ok(());
        }
        if !pause_before_next_look(target.deadline).await {
            let text = format!(
                "{node} is added and does not vote yet: is its supervisor running with `join = true`?"
            );
            return Err(Failure::Unfinished(text));
        }
    }
}
