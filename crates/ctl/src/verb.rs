//! What each verb does.

mod change;
mod node;
mod read;
mod watch;

use std::future::Future;

use clap::CommandFactory as _;
use redkeep_proto::{admin::v1::Outcome, order::Order};
use tokio::time::{Instant, timeout_at};
use tonic::{Response, Status};

use crate::{
    args::{Args, Leader, Quarantine, Verb},
    connect::{Client, Target},
    failure::{Failure, Meaning, meaning},
    out::Out,
};

pub(crate) async fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    if let Verb::Completions { shell } = &args.verb {
        let mut script = Vec::new();
        clap_complete::generate(*shell, &mut Args::command(), "redkeepctl", &mut script);
        return out.raw(&script);
    }
    let target = Target::of(args)?;
    match &args.verb {
        Verb::Status { group, local } => read::status(&target, group.as_deref(), *local, out).await,
        Verb::History { group, limit, local } => {
            read::history(&target, group.as_deref(), (*limit, *local), out).await
        }
        Verb::Explain { group, local } => read::explain(&target, group, *local, out).await,
        Verb::Events { group, all } => watch::events(&target, group.as_deref(), *all, out).await,
        Verb::Switchover { group, change } => change::switchover(&target, group, change, out).await,
        Verb::Failover { group, allow_data_loss, change } => {
            change::failover(&target, group, *allow_data_loss, (change, out)).await
        }
        Verb::Pause { group, length } => {
            change::pause(&target, group.as_deref(), length.0, out).await
        }
        Verb::Resume { group } => change::resume(&target, group.as_deref(), out).await,
        Verb::Acknowledge { group, dry_run } => {
            change::acknowledge(&target, group.as_deref(), *dry_run, out).await
        }
        Verb::Leader(Leader::Transfer { node, wait }) => {
            change::transfer(&target, node, *wait, out).await
        }
        Verb::Node(verb) => node::change(&target, verb, out).await,
        Verb::Member(verb) => node::change_member(&target, verb, out).await,
        Verb::Quarantine(Quarantine::List { group }) => {
            read::quarantine(&target, group.as_deref(), out).await
        }
        Verb::Completions { .. } => Ok(()),
    }
}

/// Whether a question that was lost on the way may be asked again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It changes nothing: asked at each endpoint until one answers.
    Question,
    /// Asked once; only where an endpoint says that nothing was done, the next is asked.
    Order,
}

/// The answer of the first endpoint that has one.
async fn ask<T, F>(target: &Target, kind: Kind, call: impl Fn(Client) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut tried = Vec::new();
    for endpoint in &target.endpoints {
        let client = match target.ask(endpoint).await {
            Ok((client, _)) => client,
            Err(why) => {
                tried.push(why);
                continue;
            }
        };
        let lost = match timeout_at(target.deadline, call(client)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => match meaning(&status) {
                Meaning::Refused(failure) => return Err(failure),
                Meaning::NotDone(why) => {
                    tried.push(format!("{endpoint}: {why}"));
                    continue;
                }
                Meaning::Lost(why) => why,
            },
            Err(_) => "no answer in time".to_owned(),
        };
        if kind == Kind::Order {
            return Err(Failure::Unknown(lost));
        }
        tried.push(format!("{endpoint}: {lost}"));
    }
    Err(Failure::Unreachable { tried })
}

/// What became of an order.
async fn order(target: &Target, request: impl Order) -> Result<Outcome, Failure> {
    let outcome = ask(target, Kind::Order, |client| request.clone().send(client)).await?;
    Ok(outcome.unwrap_or_default())
}

/// Empty = all.
fn name(group: Option<&str>) -> String {
    group.unwrap_or_default().to_owned()
}

/// The next look of one that waits; false = no time is left.
async fn pause_before_next_look(deadline: Instant) -> bool {
    let next = Instant::now() + std::time::Duration::from_millis(100);
    if next >= deadline {
        return false;
    }
    tokio::time::sleep_until(next).await;
    true
}
