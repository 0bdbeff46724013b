//! Supervisors that join and leave the cluster, and members that join and leave groups.

use std::future::Future;

use redkeep_proto::admin::v1::{
    self as pb, AddMemberRequest, AddNodeRequest, RemoveMemberRequest, RemoveNodeRequest,
};

use super::{
    Kind, ask,
    change::{asks, confirm, look, tell},
    pause_before_next_look,
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
            let outcome = add(target, request).await?;
            if *wait && !dry_run {
                votes(target, node).await?;
            }
            tell(out, outcome, *dry_run)
        }
        Node::Remove { node, consent } => {
            let call = |dry_run| remove(target, node, dry_run);
            with_consent(*consent, call, out).await
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
            let call = |dry_run| add_member(target, request(dry_run));
            with_consent(*consent, call, out).await
        }
        Member::Remove { group, node, consent } => {
            let request = |dry_run| RemoveMemberRequest {
                group: group.clone(),
                node: node.clone(),
                dry_run,
                forwarded: false,
            };
            let call = |dry_run| remove_member(target, request(dry_run));
            with_consent(*consent, call, out).await
        }
    }
}

/// `call(true)` only says what would happen.
async fn with_consent<F>(
    consent: Consent,
    call: impl Fn(bool) -> F,
    out: &mut Out,
) -> Result<(), Failure>
where
    F: Future<Output = Result<pb::Outcome, Failure>>,
{
    if consent.dry_run {
        return tell(out, call(true).await?, true);
    }
    if asks(consent.yes, out) {
        confirm(&call(true).await?.text)?;
    }
    tell(out, call(false).await?, false)
}

async fn add(target: &Target, request: AddNodeRequest) -> Result<pb::Outcome, Failure> {
    let answer = ask(target, Kind::Order, |mut client| {
        let request = request.clone();
        async move { client.add_node(request).await }
    });
    Ok(answer.await?.outcome.unwrap_or_default())
}

async fn remove(target: &Target, node: &str, dry_run: bool) -> Result<pb::Outcome, Failure> {
    let request = RemoveNodeRequest { name: node.to_owned(), dry_run, forwarded: false };
    let answer = ask(target, Kind::Order, |mut client| {
        let request = request.clone();
        async move { client.remove_node(request).await }
    });
    Ok(answer.await?.outcome.unwrap_or_default())
}

async fn add_member(target: &Target, request: AddMemberRequest) -> Result<pb::Outcome, Failure> {
    let answer = ask(target, Kind::Order, |mut client| {
        let request = request.clone();
        async move { client.add_member(request).await }
    });
    Ok(answer.await?.outcome.unwrap_or_default())
}

async fn remove_member(
    target: &Target,
    request: RemoveMemberRequest,
) -> Result<pb::Outcome, Failure> {
    let answer = ask(target, Kind::Order, |mut client| {
        let request = request.clone();
        async move { client.remove_member(request).await }
    });
    Ok(answer.await?.outcome.unwrap_or_default())
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
