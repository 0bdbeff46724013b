//! A look at the Redis of another host, as a client there would see it: a new connection, from no address that a lock exempts.

use std::{net::SocketAddr, time::Duration};

use redkeep_agent::redis::look_at;
use redkeep_core::{Input, Span};

use crate::inbox::Inbox;

/// Answers in any case: the core begins no other look at that Redis before.
pub(crate) async fn look(inbox: Inbox, number: u64, target: SocketAddr, timeout: Span) {
    let looked = look_at(target, Duration::from_nanos(timeout.0)).await;
    inbox.answer(Input::Looked { number, result: looked.map_err(|failure| failure.to_string()) });
}
