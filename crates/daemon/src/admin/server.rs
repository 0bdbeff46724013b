//! The server on a node's admin address.

use std::{future::Future, sync::Arc, time::Duration};

use redkeep_proto::{FILE_DESCRIPTOR_SET, admin::v1::admin_service_server::AdminServiceServer};
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::{Server, server::TcpIncoming};

use super::{health, port::AdminPort, service::Service};
use crate::tls::TlsFiles;

/// A reader that is gone without a word is found by this.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("the certificate or key cannot be used")]
    Tls(#[source] tonic::transport::Error),
    #[error("the service descriptors cannot be read")]
    Reflection(#[from] tonic_reflection::server::Error),
    #[error("the operators' server ended")]
    Serve(#[source] tonic::transport::Error),
}

/// Answers operators for one node.
pub(crate) struct AdminServer<P> {
    port: Arc<P>,
    node: String,
    tls: Option<Arc<TlsFiles>>,
}

impl<P> std::fmt::Debug for AdminServer<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminServer").field("node", &self.node).finish_non_exhaustive()
    }
}

impl<P: AdminPort> AdminServer<P> {
    /// `node` is this node's name. Without `tls` it speaks plain text, here and towards the leader.
    pub(crate) fn new(port: Arc<P>, node: &str, tls: Option<Arc<TlsFiles>>) -> Self {
        Self { port, node: node.to_owned(), tls }
    }

    /// Serve until `stop`; then open streams are ended, and calls that wait for an outcome are waited for.
    ///
    /// # Errors
    /// The certificate cannot be used, or the listener failed.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let mut server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE));
        if let Some(tls) = &self.tls {
            server = server.tls_config(tls.server()).map_err(ServeError::Tls)?;
        }
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let keep_health = health::keep(reporter, self.port.status());
        let (closing, closed) = watch::channel(false);
        let service = Service::new(self.port, self.node, self.tls, closed);
        let serve = server
            .add_service(AdminServiceServer::new(service))
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .serve_with_incoming_shutdown(
                TcpIncoming::from(listener).with_nodelay(Some(true)),
                async {
                    stop.await;
                    closing.send_replace(true);
                },
            );
        tokio::select! {
            ended = serve => ended.map_err(ServeError::Serve),
            // The driver is gone: nothing can be answered any more.
            () = keep_health => Ok(()),
        }
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name(health::SERVICE)
        .with_service_name("grpc.health.v1.Health")
}
