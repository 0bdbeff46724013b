//! To the leader's own operators' service, over one hop.
//!
//! Each call has a connection of its own: such calls are rare, and a fresh connection is never a stale one. So "could
//! not connect", where nothing was done, is also told from "lost on the way", where the outcome is unknown.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use redkeep_proto::admin::v1::admin_service_client::AdminServiceClient;
use tokio::time::timeout;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::outcome;
use crate::tls::TlsFiles;

/// How long a read may wait for the leader.
pub(super) const READ_LIMIT: Duration = Duration::from_millis(300);
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// Where the leader answers operators.
#[derive(Clone, Debug)]
pub(super) struct LeaderLink {
    pub(super) name: String,
    pub(super) admin: SocketAddr,
    /// None = plain text.
    pub(super) tls: Option<Arc<TlsFiles>>,
}

impl LeaderLink {
    async fn connect(&self) -> Result<AdminServiceClient<Channel>, tonic::transport::Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.admin))?
            .connect_timeout(CONNECT_LIMIT);
        if let Some(tls) = &self.tls {
            endpoint = endpoint.tls_config(tls.client(&self.name))?;
        }
        Ok(AdminServiceClient::new(endpoint.connect().await?))
    }

    /// Ask for something that changes nothing.
    ///
    /// # Errors
    /// For people: why there is no answer.
    pub(super) async fn read<T, F>(
        &self,
        call: impl FnOnce(AdminServiceClient<Channel>) -> F + Send,
    ) -> Result<T, String>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>> + Send,
    {
        let asked = async {
            let client =
                self.connect().await.map_err(|e| format!("cannot be reached: {}", chain(&e)))?;
            let answer = call(client).await.map_err(|s| format!("answered: {}", s.message()))?;
            Ok(answer.into_inner())
        };
        let answer = timeout(READ_LIMIT, asked).await;
        answer
            .unwrap_or_else(|_| Err(format!("did not answer within {} ms", READ_LIMIT.as_millis())))
            .map_err(|why| format!("the leader {} {why}", self.name))
    }

    /// Ask for a change.
    ///
    /// # Errors
    /// The leader's own status; UNAVAILABLE where nothing was sent; ABORTED where the answer was lost.
    pub(super) async fn write<T, F>(
        &self,
        limit: Duration,
        call: impl FnOnce(AdminServiceClient<Channel>) -> F + Send,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>> + Send,
    {
        let client = self.connect().await.map_err(|e| {
            let text = format!(
                "the leader {} cannot be reached, nothing was done: {}",
                self.name,
                chain(&e)
            );
            outcome::no_leader(&text)
        })?;
        match timeout(limit, call(client)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if is_the_leaders_own(&status) => Err(status),
            Ok(Err(status)) => Err(outcome::unknown(&format!(
                "the leader {} was lost: {}",
                self.name,
                status.message()
            ))),
            Err(_) => {
                Err(outcome::unknown(&format!("the leader {} did not answer in time", self.name)))
            }
        }
    }
}

/// What the leader's service says has details, or the code of an unknown outcome; what the connection says has not.
fn is_the_leaders_own(status: &Status) -> bool {
    !status.details().is_empty() || status.code() == Code::Aborted
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
