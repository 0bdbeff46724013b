//! A refusal in the details of a gRPC status.
//!
//! The bytes of `grpc-status-details-bin` are a `google.rpc.Status` that holds one `Any`, as every gRPC tool expects
//! (<https://google.aip.dev/193>). The message is written out here so that googleapis is not needed.

use prost::{DecodeError, Message, Name as _};
use prost_types::Any;

use crate::admin::v1::Refusal;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// The details of a status with this code and message.
#[must_use]
pub fn encode_refusal(code: i32, message: &str, refusal: &Refusal) -> Vec<u8> {
    let any = Any { type_url: Refusal::type_url(), value: refusal.encode_to_vec() };
    RpcStatus { code, message: message.to_owned(), details: vec![any] }.encode_to_vec()
}

/// The refusal in the details of a status; none where there is no refusal in them.
///
/// # Errors
/// The details are not what gRPC says they are.
pub fn decode_refusal(details: &[u8]) -> Result<Option<Refusal>, DecodeError> {
    let url = Refusal::type_url();
    let status = RpcStatus::decode(details)?;
    let any = status.details.into_iter().find(|any| any.type_url == url);
    any.map(|any| Refusal::decode(any.value.as_slice())).transpose()
}

#[cfg(test)]
mod tests {
    use super::{decode_refusal, encode_refusal};
    use crate::admin::v1::{Refusal, RefusalReason};

    #[test]
    fn a_refusal_survives_the_details() {
        let refusal = Refusal {
            reason: RefusalReason::Busy.into(),
            text: "the group has another change in flight".to_owned(),
            ..Refusal::default()
        };
        let details = encode_refusal(9, "busy", &refusal);
        assert_eq!(decode_refusal(&details).unwrap(), Some(refusal));
    }

    #[test]
    fn foreign_details_are_no_refusal() {
        assert_eq!(decode_refusal(&[]).unwrap(), None);
        assert!(decode_refusal(&[0xff]).is_err());
    }
}
