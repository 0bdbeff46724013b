//! grpc.health.v1: SERVING while a leader is known, for the whole server and for the operators' service.

use std::sync::Arc;

use redkeep_core::status::StatusView;
use tokio::sync::watch;
use tonic_health::{ServingStatus, server::HealthReporter};

pub(super) const SERVICE: &str = "redkeep.admin.v1.AdminService";

/// Keep the answer until the driver is gone.
pub(super) async fn keep(reporter: HealthReporter, mut status: watch::Receiver<Arc<StatusView>>) {
    let mut last = None;
    loop {
        let serving = status.borrow_and_update().leader.is_some();
        if last != Some(serving) {
            let now = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            reporter.set_service_status("", now).await;
            reporter.set_service_status(SERVICE, now).await;
            last = Some(serving);
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
