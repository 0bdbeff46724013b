//! Leases: permission to act, never in the log. Rules L1 to L8 are those of `ARCHITECTURE.md`.

pub mod grantor;
pub mod holder;

#[cfg(test)]
mod tests;

pub use grantor::Grantor;
pub use holder::Holder;
