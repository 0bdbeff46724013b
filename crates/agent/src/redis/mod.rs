//! The Redis beside the supervisor: looking at it and changing its role.
//!
//! - [`Probe`]: one look, one round trip, a typed failure.
//! - [`WriteCheck`]: whether writes are answered.
//! - [`Control`]: the one connection for commands that change something, under the rule that a command once sent is never
//!   forgotten.
//! - [`OffsetPoll`]: the tight wait for equal offsets in a planned switchover.
//! - [`Snapshot`]: the data set, written into Redis's own file.
//!
//! Everything runs on the caller's tokio runtime. Each type owns its connection: a command that Redis holds back delays
//! only the commands behind it on the same connection.
//!
//! Deliberately absent: decisions, retries over time, DNS (addresses are numeric), starting or stopping Redis.

mod connection;
mod control;
mod control_link;
mod control_settings;
mod control_types;
mod endpoint;
mod failure;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod look;
mod observation;
mod offset;
mod probe;
mod secret;
mod snapshot;
mod writes;

pub use connection::Connection;
pub use control::Control;
pub use control_types::{
    ControlError, MasterAddress, MasterAuth, MasterAuthChange, Outcome, PauseScope, Paused,
    Promotion, Relink, Unpaused,
};
pub use endpoint::{RedisAddress, RedisEndpoint};
pub use failure::{ProbeFailure, RedisFailure};
pub use look::look_at;
pub use observation::{
    Flavour, InfoError, Observation, Persistence, ReplicaLine, ReplicaLink, ReplicationView, Role,
    ServerIdentity, Version, WriteRefusal, WriteSettings,
};
pub use offset::{OffsetPoll, OffsetReached};
pub use probe::Probe;
pub use secret::{Secret, SecretError, SecretFile};
pub use snapshot::{Snapshot, SnapshotError};
pub use writes::WriteCheck;
