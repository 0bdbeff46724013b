//! Verbs that change something.
//!
//! A change of a master shows its plan and asks first where somebody sits at a terminal; scripts are not asked.

use std::{
    future::Future,
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use redkeep_proto::admin::v1::{
    self as pb, AcknowledgeRequest, FailoverRequest, GetStatusRequest, PauseRequest, RedisHealth,
    ResumeRequest, SwitchoverRequest, TransferLeadershipRequest,
};

use super::{Kind, ask, name, order, pause_before_next_look};
use crate::{
    args::{Change, Consent},
    connect::Target,
    failure::Failure,
    out::Out,
    view::OutcomeView,
};

pub(super) async fn switchover(
    target: &Target,
    group: &str,
    change: &Change,
    out: &mut Out,
) -> Result<(), Failure> {
    let call = |dry_run| {
        let (group, to) = (group.to_owned(), name(change.to.as_deref()));
        order(target, SwitchoverRequest { group, to, dry_run, forwarded: false })
    };
    match agreed(change.consent, "", call, out).await? {
        Some(outcome) => finish(target, group, (change, outcome), out).await,
        None => Ok(()),
    }
}

pub(super) async fn failover(
    target: &Target,
    group: &str,
    allow_data_loss: bool,
    (change, out): (&Change, &mut Out),
) -> Result<(), Failure> {
    if allow_data_loss && change.to.is_none() {
        let text = format!(
            "--allow-data-loss counts for a node that is named only: look with `redkeepctl explain {group}` who has most, then name it with --to NODE"
        );
        return Err(Failure::Usage(text));
    }
    let call = |dry_run| {
        let (group, to) = (group.to_owned(), name(change.to.as_deref()));
        order(target, FailoverRequest { group, to, allow_data_loss, dry_run, forwarded: false })
    };
    let warning = if allow_data_loss { "; ACKNOWLEDGED WRITES MAY BE LOST" } else { "" };
    match agreed(change.consent, warning, call, out).await? {
        Some(outcome) => finish(target, group, (change, outcome), out).await,
        None => Ok(()),
    }
}

pub(super) async fn pause(
    target: &Target,
    group: Option<&str>,
    length: Duration,
    out: &mut Out,
) -> Result<(), Failure> {
    let duration = prost_types::Duration::try_from(length)
        .map_err(|_| Failure::Usage("--for is too long: at most 7d".to_owned()))?;
    let request = PauseRequest { group: name(group), duration: Some(duration), forwarded: false };
    tell(out, order(target, request).await?, false)
}

pub(super) async fn resume(
    target: &Target,
    group: Option<&str>,
    out: &mut Out,
) -> Result<(), Failure> {
    let request = ResumeRequest { group: name(group), forwarded: false };
    tell(out, order(target, request).await?, false)
}

pub(super) async fn acknowledge(
    target: &Target,
    group: Option<&str>,
    dry_run: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    let request = AcknowledgeRequest { group: name(group), dry_run, forwarded: false };
    tell(out, order(target, request).await?, dry_run)
}

pub(super) async fn transfer(
    target: &Target,
    node: &str,
    wait: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    let request = TransferLeadershipRequest { to: node.to_owned(), forwarded: false };
    let outcome = order(target, request).await?;
    let mut leader = String::new();
    while wait && leader != node {
        if !pause_before_next_look(target.deadline).await {
            let text = format!("{node} does not lead yet; {leader} does");
            return Err(Failure::Unfinished(text));
        }
        // A cluster between two leaders, or an endpoint that is slow, is looked at again.
        if let Ok(status) = look(target, "").await {
            leader = status.leader;
        }
    }
    tell(out, outcome, false)
}

pub(super) fn tell(out: &mut Out, outcome: pb::Outcome, dry_run: bool) -> Result<(), Failure> {
    out.answer(&OutcomeView::new(outcome, dry_run), |view, _| {
        let mark = if view.dry_run { "dry run: " } else { "" };
        format!("{mark}{}\n", view.text)
    })
}

/// Does what `call(false)` orders if it may; `call(true)` only says what would happen. None after a dry run, which is told.
pub(super) async fn agreed<F>(
    consent: Consent,
    warning: &str,
    call: impl Fn(bool) -> F,
    out: &mut Out,
) -> Result<Option<pb::Outcome>, Failure>
where
    F: Future<Output = Result<pb::Outcome, Failure>>,
{
    if consent.dry_run {
        tell(out, call(true).await?, true)?;
        return Ok(None);
    }
    if asks(consent.yes, out) {
        confirm(&format!("{}{warning}", call(true).await?.text))?;
    }
    call(false).await.map(Some)
}

fn asks(yes: bool, out: &Out) -> bool {
    !yes && out.is_table() && io::stdin().is_terminal()
}

fn confirm(plan: &str) -> Result<(), Failure> {
    eprint!("{plan}.\nGo on? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::Declined),
    }
}

/// Say what was done, after the wait that was asked for.
async fn finish(
    target: &Target,
    group: &str,
    (change, outcome): (&Change, pb::Outcome),
    out: &mut Out,
) -> Result<(), Failure> {
    if change.wait {
        healed(target, group, outcome.epoch).await?;
    }
    tell(out, outcome, false)
}

pub(super) async fn look(target: &Target, group: &str) -> Result<pb::Status, Failure> {
    let request = GetStatusRequest { local_only: false, group: group.to_owned() };
    let answer = ask(target, Kind::Question, |mut client| {
        let request = request.clone();
        async move { client.get_status(request).await }
    });
    Ok(answer.await?.status.unwrap_or_default())
}

/// Wait until every other member follows the master of `epoch` (or a later one) and may be promoted itself.
async fn healed(target: &Target, group: &str, epoch: u64) -> Result<(), Failure> {
    let mut missing = "no answer".to_owned();
    loop {
        if let Ok(status) = look(target, group).await {
            match status.groups.iter().find(|g| g.name == group) {
                Some(found) => match unhealed(found, epoch) {
                    Some(why) => missing = why,
                    None => return Ok(()),
                },
                None => "the group is not known there".clone_into(&mut missing),
            }
        }
        if !pause_before_next_look(target.deadline).await {
            let text = format!("it was done at epoch {epoch}, but the wait ended early: {missing}");
            return Err(Failure::Unfinished(text));
        }
    }
}

/// What is missing to full strength.
fn unhealed(group: &pb::GroupStatus, epoch: u64) -> Option<String> {
    if group.epoch < epoch || !group.serving {
        return Some(format!("{} does not serve at epoch {epoch} yet", group.master));
    }
    let others = group.members.iter().filter(|m| m.node != group.master);
    others
        .filter(|m| {
            let follows = m.redis.as_ref().is_some_and(|r| r.link_up);
            !(m.eligible && follows && m.health() == RedisHealth::Up)
        })
        .map(|m| format!("{} does not follow {} in full yet", m.node, group.master))
        .next()
}
