//! Wire and log shapes, generated from `proto/`.
//!
//! Three packages with three promises: [`log`] is append-only for ever (a log written by any released version is read
//! by every later one), [`peer`] and [`admin`] keep wire and JSON compatible. Generated types never leave the codecs:
//! each field is checked there on its way into a type of our own.
//!
//! Feature `grpc` adds clients and servers, and what all orders of operators have in common. Deliberately absent: conversions
//! and any meaning; [`details`] alone knows where a refusal sits in a gRPC status.

pub mod details;
#[cfg(feature = "grpc")]
pub mod order;

/// Log entries and snapshots (`redkeep.log.v1`).
pub mod log {
    #[allow(clippy::all, clippy::pedantic, missing_debug_implementations, unreachable_pub)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/redkeep.log.v1.rs"));
    }
}

/// Between supervisors (`redkeep.peer.v1`).
pub mod peer {
    #[allow(clippy::all, clippy::pedantic, missing_debug_implementations, unreachable_pub)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/redkeep.peer.v1.rs"));
    }
}

/// For operators (`redkeep.admin.v1`).
pub mod admin {
    #[allow(clippy::all, clippy::pedantic, missing_debug_implementations, unreachable_pub)]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/redkeep.admin.v1.rs"));
    }
}

/// `FileDescriptorSet` of all packages and what they import, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/redkeep.bin"));
