//! Events as they happen. No time limit: it ends when the reader or the server does.

use redkeep_proto::admin::v1::WatchEventsRequest;
use tokio::sync::mpsc;

use super::name;
use crate::{
    connect::{Client, Target},
    failure::{Failure, Meaning, meaning},
    out::Out,
    show,
    view::EventView,
};

/// Lines that may wait for the terminal.
const LINES_MAX: usize = 256;

pub(super) async fn events(
    target: &Target,
    group: Option<&str>,
    all: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    let (client, status) = target.first().await?;
    let request = WatchEventsRequest { group: name(group) };
    if !all {
        return one(client, request, out).await;
    }
    let (lines, mut told) = mpsc::channel(LINES_MAX);
    for node in status.nodes {
        let target = target.node(&node.name, &node.admin);
        tokio::spawn(follow(target, request.clone(), lines.clone()));
    }
    drop(lines);
    while let Some(event) = told.recv().await {
        out.line(&event, show::event)?;
    }
    Err(Failure::Unknown("no node of the cluster tells events any more".to_owned()))
}

/// One node; its end is the end.
async fn one(
    mut client: Client,
    request: WatchEventsRequest,
    out: &mut Out,
) -> Result<(), Failure> {
    let failed = |status| match meaning(&status) {
        Meaning::Refused(failure) => failure,
        Meaning::NotDone(why) | Meaning::Lost(why) => Failure::Unreachable { tried: vec![why] },
    };
    let mut events = client.watch_events(request).await.map_err(failed)?.into_inner();
    while let Some(told) = events.message().await.map_err(failed)? {
        if let Some(event) = told.event {
            out.line(&EventView::from(event), show::event)?;
        }
    }
    Err(Failure::Unreachable { tried: vec!["the supervisor stopped".to_owned()] })
}

/// One of many: asked again for as long as anybody reads, and a gap is said.
async fn follow(mut target: Target, request: WatchEventsRequest, lines: mpsc::Sender<EventView>) {
    let mut lost: Option<String> = None;
    while !lines.is_closed() {
        target.deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(5);
        let why = match target.first().await {
            Ok((client, _)) => match relay(client, request.clone(), &lines).await {
                Ok(()) => "the supervisor stopped".to_owned(),
                Err(status) => status.message().to_owned(),
            },
            Err(Failure::Unreachable { tried }) => tried.join("; "),
            Err(other) => other.to_string(),
        };
        if lost.as_ref() != Some(&why) {
            eprintln!("redkeepctl: events may be missing: {why}");
            lost = Some(why);
        }
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

async fn relay(
    mut client: Client,
    request: WatchEventsRequest,
    lines: &mpsc::Sender<EventView>,
) -> Result<(), tonic::Status> {
    let mut events = client.watch_events(request).await?.into_inner();
    while let Some(told) = events.message().await? {
        let Some(event) = told.event else { continue };
        if lines.send(event.into()).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
