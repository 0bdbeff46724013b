//! Orderly stop: SIGTERM or SIGINT, then, if asked for, the masters of this host are handed over, then leadership.
//! VIP and lock stay with the kernel, so that a restart within the lease disturbs nobody.

use std::time::Duration;

use redkeep_consensus::Role;
use redkeep_core::{AdminRequest, NodeId, status::StatusView};
use redkeep_proto::admin::v1::{SwitchoverRequest, admin_service_client::AdminServiceClient};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    admin::ServeError,
    config::{Config, OnStop},
    executor::lock::chain,
    front::Front,
    sd_notify::ServiceManager,
    tls::TlsFiles,
};

/// How long the operators' server may take to end its streams.
const SERVER_END: Duration = Duration::from_millis(200);
/// How long leadership may take to go over.
const TRANSFER: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(10);

pub(crate) async fn wait_and_hand_over(config: &Config, tls: Option<&TlsFiles>, front: &Front) {
    wait_for_signal().await;
    tracing::info!(on_stop = ?config.on_stop, "stopping");
    let service = ServiceManager::from_env();
    service.stopping();
    match config.on_stop {
        OnStop::Keep => {}
        OnStop::Switchover => {
            service.status("handing over masters");
            hand_masters_over(config, tls, front).await;
        }
    }
    service.status("handing over leadership");
    hand_leadership_over(config.node_id, front).await;
}

async fn wait_for_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process by themselves.
        tracing::error!("signals cannot be handled: no orderly stop");
        std::future::pending::<()>().await;
        return;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Leadership goes to a node that hears us and holds no VIP, if there is one.
async fn hand_leadership_over(node: NodeId, front: &Front) {
    let status = front.status();
    if status.role != Role::Leader {
        return;
    }
    let Some(to) = successor(node, &status) else { return };
    let reply = front.ask(AdminRequest::TransferLeadership { to }, TRANSFER).await;
    tracing::info!(to = to.0, ?reply, "leadership handed over");
    let gone = async {
        while front.status().role == Role::Leader {
            tokio::time::sleep(POLL).await;
        }
    };
    if tokio::time::timeout(TRANSFER, gone).await.is_err() {
        tracing::warn!("leadership was not taken over in time");
    }
}

fn successor(node: NodeId, status: &StatusView) -> Option<NodeId> {
    let holds = |id: NodeId| status.groups.iter().any(|g| g.master == Some(id));
    let heard = status.nodes.iter().filter(|n| n.node != node && n.heard_ago.is_some());
    heard.min_by_key(|n| (holds(n.node), n.heard_ago)).map(|n| n.node)
}

/// Through the own operators' server, which finds the leader.
async fn hand_masters_over(config: &Config, tls: Option<&TlsFiles>, front: &Front) {
    let held = |status: &StatusView| -> Vec<String> {
        let mine = status.groups.iter().filter(|g| g.master == Some(config.node_id));
        mine.map(|g| g.group.to_string()).collect()
    };
    let groups = held(&front.status());
    if groups.is_empty() {
        return;
    }
    let mut client = match operators(config, tls).await {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(error = %chain(&error), "the own operators' server cannot be reached: nothing is handed over");
            return;
        }
    };
    let limit = Duration::from_nanos(config.spec.timing.switchover_timeout.0) + TRANSFER;
    for group in groups {
        let request = SwitchoverRequest { group: group.clone(), ..SwitchoverRequest::default() };
        match tokio::time::timeout(limit, client.switchover(request)).await {
            Ok(Ok(_)) => tracing::info!(group, "handed over"),
            Ok(Err(status)) => {
                let reason = status.message();
                tracing::warn!(
                    group,
                    reason,
                    "not handed over: the others take over once the lease is out"
                );
            }
            Err(_elapsed) => tracing::warn!(group, "the handing over did not end in time"),
        }
    }
}

async fn operators(
    config: &Config,
    tls: Option<&TlsFiles>,
) -> Result<AdminServiceClient<Channel>, tonic::transport::Error> {
    let address = config.spec.node(config.node_id).map(|n| n.admin.to_string()).unwrap_or_default();
    let scheme = if tls.is_some() { "https" } else { "http" };
    let mut endpoint =
        Endpoint::from_shared(format!("{scheme}://{address}"))?.connect_timeout(TRANSFER);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls.client(&config.node))?;
    }
    Ok(AdminServiceClient::new(endpoint.connect().await?))
}

/// The operators' server was told; give it a moment to end its streams.
pub(crate) async fn end_operators(server: JoinHandle<Result<(), ServeError>>) {
    match tokio::time::timeout(SERVER_END, server).await {
        Ok(Ok(Err(error))) => {
            tracing::warn!(error = %chain(&error), "the operators' server ended with an error");
        }
        Ok(Ok(Ok(())) | Err(_)) => {}
        Err(_elapsed) => tracing::debug!("open streams of operators are cut"),
    }
}
