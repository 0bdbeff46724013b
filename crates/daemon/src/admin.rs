//! The operators' side of the supervisor: `redkeep.admin.v1`, grpc.health.v1 and reflection.
//!
//! Any node answers reads: from the leader if it can be had within 300 ms, else from its own view, and each answer
//! says which. Writes go to the leader, over at most one hop. Tasks: one per connection, owned by tonic, and one that
//! keeps the health answer. Invariants: nothing here changes state but through [`port::AdminPort::submit`]; a reply
//! says "refused" only when nothing was done, and a lost answer is never taken for a refusal. Deliberately absent:
//! decisions, and any lock that the driver could wait for.

mod event;
mod forward;
mod health;
mod history;
mod nodes;
mod outcome;
pub(crate) mod port;
mod problems;
mod quarantine;
mod server;
mod service;
mod spec;
mod time;
mod view;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use server::{AdminServer, ServeError};
