//! Choosing: pure functions of model, view, leases and now. What they return is proposed or held, never done here.

pub mod bypass;
pub mod candidate;
mod cold;
pub mod eligible;
pub mod history;
pub mod planner;
pub mod reason;
#[cfg(test)]
mod tests;
pub mod unreached;

pub use candidate::{Candidate, Candidates};
pub use history::Loss;
pub(crate) use planner::next_in_line;
pub use planner::{Forced, MassFailure, Plan, PlanInput, plan};
pub use reason::{Exclusion, HoldReason};
