//! What all requests of the operators' service that change something have in common.
//!
//! By rule each has types of its own; they differ in what is ordered and in nothing else.

use std::future::Future;

use tonic::{Response, Status, transport::Channel};

use crate::admin::v1::{Outcome, admin_service_client::AdminServiceClient};

/// A request for a change.
pub trait Order: Clone + Send + Sync {
    type Response: Send;

    /// Whether another node passed it on.
    fn is_forwarded(&self) -> bool;

    /// The same, passed on.
    #[must_use]
    fn forwarded(self) -> Self;

    /// What became of it at the node of `client`; an answer without an outcome is none.
    fn send(
        self,
        client: AdminServiceClient<Channel>,
    ) -> impl Future<Output = Result<Response<Option<Outcome>>, Status>> + Send;

    /// The answer that says `outcome`.
    fn answer(outcome: Outcome) -> Self::Response;
}

macro_rules! orders {
    ($($call:ident: $Request:ident -> $Response:ident,)*) => {$(
        impl Order for crate::admin::v1::$Request {
            type Response = crate::admin::v1::$Response;

            fn is_forwarded(&self) -> bool {
                self.forwarded
            }

            fn forwarded(self) -> Self {
                Self { forwarded: true, ..self }
            }

            async fn send(
                self,
                mut client: AdminServiceClient<Channel>,
            ) -> Result<Response<Option<Outcome>>, Status> {
                Ok(client.$call(self).await?.map(|answer| answer.outcome))
            }

            fn answer(outcome: Outcome) -> Self::Response {
                Self::Response { outcome: Some(outcome) }
            }
        }
    )*};
}

orders! {
    switchover: SwitchoverRequest -> SwitchoverResponse,
    failover: FailoverRequest -> FailoverResponse,
    pause: PauseRequest -> PauseResponse,
    resume: ResumeRequest -> ResumeResponse,
    acknowledge: AcknowledgeRequest -> AcknowledgeResponse,
    transfer_leadership: TransferLeadershipRequest -> TransferLeadershipResponse,
    add_node: AddNodeRequest -> AddNodeResponse,
    remove_node: RemoveNodeRequest -> RemoveNodeResponse,
    add_member: AddMemberRequest -> AddMemberResponse,
    remove_member: RemoveMemberRequest -> RemoveMemberResponse,
}
