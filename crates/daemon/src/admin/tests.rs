//! The server over loopback, with a prepared driver.

mod prepared;
mod problems;
mod reads;
mod writes;

use std::time::Duration;

use redkeep_core::{Epoch, Event, EventKind, GroupId};
use redkeep_proto::admin::v1::{self as pb, admin_service_client::AdminServiceClient};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use self::prepared::{Prepared, Running, pair, test_certificates};
use super::port::StampedEvent;
use crate::tls::TlsFiles;

const LONG: Duration = Duration::from_secs(10);

async fn channel(server: &Running) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", server.addr)).unwrap();
    endpoint.connect().await.unwrap()
}

async fn client(server: &Running) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(channel(server).await)
}

fn event(group: Option<&str>, kind: EventKind) -> StampedEvent {
    let group = group.map(GroupId::new);
    let event = Event { group, epoch: Epoch(3), index: 17, kind };
    StampedEvent { mono_ns: 5, unix_us: 1_700_000_000_000_001, event }
}

#[tokio::test]
async fn events_are_told_in_order_and_by_group() {
    let server = Running::start(Prepared::new(pair().leading())).await;
    let wanted = pb::WatchEventsRequest { group: "pair".to_owned() };
    let mut events = client(&server).await.watch_events(wanted).await.unwrap().into_inner();
    server.port.tell(event(Some("pair"), EventKind::VipUp));
    server.port.tell(event(Some("other"), EventKind::VipGone));
    server.port.tell(event(None, EventKind::LockLost));
    let mut told = Vec::new();
    for _ in 0..2 {
        let next = tokio::time::timeout(LONG, events.message()).await.unwrap().unwrap();
        told.push(next.unwrap().event.unwrap());
    }
    assert_eq!(told[0].kind(), pb::EventKind::VipUp);
    assert_eq!(told[1].kind(), pb::EventKind::LockLost);
    let first = &told[0];
    assert_eq!((first.node.as_str(), first.group.as_str()), ("a", "pair"));
    assert_eq!((first.epoch, first.index, first.mono_ns), (3, 17, 5));
    let time = first.time.unwrap();
    assert_eq!((time.seconds, time.nanos), (1_700_000_000, 1_000));
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_so() {
    let server = Running::start(Prepared::new(pair().leading())).await;
    let all = pb::WatchEventsRequest::default();
    let mut events = client(&server).await.watch_events(all).await.unwrap().into_inner();
    // More than the channel holds, in one go: the server's task cannot run in between.
    for _ in 0..=prepared::EVENTS_KEPT {
        server.port.tell(event(None, EventKind::LockLost));
    }
    let error = loop {
        match tokio::time::timeout(LONG, events.message()).await.unwrap() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), Code::DataLoss);
}

#[tokio::test]
async fn an_open_stream_does_not_keep_the_server_from_stopping() {
    let mut server = Running::start(Prepared::new(pair().leading())).await;
    let all = pb::WatchEventsRequest::default();
    let mut events = client(&server).await.watch_events(all).await.unwrap().into_inner();
    server.stop();
    assert!(tokio::time::timeout(LONG, events.message()).await.unwrap().unwrap().is_none());
    tokio::time::timeout(LONG, server.ended()).await.unwrap();
}

#[tokio::test]
async fn health_is_serving_while_a_leader_is_known() {
    let server = Running::start(Prepared::new(pair().leading())).await;
    let mut health = HealthClient::new(channel(&server).await);
    for service in ["", super::health::SERVICE] {
        let asked = HealthCheckRequest { service: service.to_owned() };
        let mut answers = health.watch(asked).await.unwrap().into_inner();
        server.port.publish(pair().leaderless());
        let mut seen = Vec::new();
        while seen.last() != Some(&ServingStatus::NotServing) {
            let next = tokio::time::timeout(LONG, answers.message()).await.unwrap().unwrap();
            seen.push(next.unwrap().status());
        }
        server.port.publish(pair().leading());
        while seen.last() != Some(&ServingStatus::Serving) {
            let next = tokio::time::timeout(LONG, answers.message()).await.unwrap().unwrap();
            seen.push(next.unwrap().status());
        }
    }
}

#[tokio::test]
async fn reflection_names_what_is_served_here_and_no_more() {
    let server = Running::start(Prepared::new(pair().leading())).await;
    let mut reflection = ServerReflectionClient::new(channel(&server).await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let stream = futures_util::stream::iter([ask]);
    let mut answers = reflection.server_reflection_info(stream).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = answer else { panic!("{answer:?}") };
    let mut names: Vec<_> = list.service.into_iter().map(|s| s.name).collect();
    names.sort();
    assert_eq!(names, ["grpc.health.v1.Health", "redkeep.admin.v1.AdminService"]);
}

#[tokio::test]
async fn with_tls_only_a_certificate_of_our_ca_is_answered() {
    let [a, w, stranger] = test_certificates();
    let leader = Prepared::new(pair().leading());
    let server = Running::start_with(leader, Some(a)).await;
    let url = format!("https://{}", server.addr);
    let get = async |tls: &TlsFiles| {
        let endpoint = Endpoint::from_shared(url.clone()).unwrap();
        let channel = endpoint.tls_config(tls.client("a")).unwrap().connect().await.ok()?;
        let mut client = AdminServiceClient::new(channel);
        client.get_status(pb::GetStatusRequest::default()).await.ok()
    };
    assert!(get(&w).await.is_some());
    assert!(get(&stranger).await.is_none());
    let plain = AdminServiceClient::connect(format!("http://{}", server.addr)).await;
    if let Ok(mut plain) = plain {
        assert!(plain.get_status(pb::GetStatusRequest::default()).await.is_err());
    }
}

#[tokio::test]
async fn a_follower_reaches_its_leader_over_mutual_tls() {
    let [a, w, _] = test_certificates();
    let leader = Running::start_with(Prepared::new(pair().leading()), Some(a)).await;
    let follower = Prepared::new(pair().following_at(leader.addr));
    let follower = Running::start_with(follower, Some(w)).await;
    let endpoint = Endpoint::from_shared(format!("https://{}", follower.addr));
    let tls = follower.tls().client("w");
    let channel = endpoint.unwrap().tls_config(tls).unwrap().connect().await.unwrap();
    let status = AdminServiceClient::new(channel)
        .get_status(pb::GetStatusRequest::default())
        .await
        .unwrap()
        .into_inner()
        .status
        .unwrap();
    let freshness = status.freshness.unwrap();
    assert_eq!(freshness.source(), pb::FreshnessSource::Leader, "{}", freshness.note);
    assert_eq!((status.answered_by.as_str(), freshness.node.as_str()), ("w", "a"));
}
