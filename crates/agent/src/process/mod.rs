//! The process behind a Redis: is it dying, and where does it listen.
//!
//! - [`ProcessWatch`]: death seen within about a millisecond, whatever the heap.
//! - [`Listeners`]: the listening sockets of the process, to be compared with the guarded ports.
//!
//! All facts come from pidfds and `/proc` of the supervisor's own pid and mount namespace.
//!
//! Deliberately absent: signals (the supervisor never stops a Redis), and judging a hang (only a probe can).

mod listeners;
mod stat;
mod watch;

pub use listeners::{Listeners, ListenersError, UnixListener, UnixReach};
pub use stat::{LifeState, ProcessId, life_state};
pub use watch::{Evidence, ProcessEvent, ProcessWatch, WatchError};
