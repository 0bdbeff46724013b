//! Claims about [`crate::Consensus`], shown on a simulated network with virtual time.

mod basics;
mod garbage;
mod membership;
mod net;
mod reads;
mod recovery;
