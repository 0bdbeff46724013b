//! A deterministic simulator of whole clusters: cores, kernels' locks, disks, clocks, network, Redis and clients.
//!
//! A [`plan::Plan`] is drawn from a seed; a [`world::World`] runs it on virtual time; [`check`]ers outside the system
//! under test look on. Invariants: a run is a function of its plan alone (two runs give the same trace hash), and a
//! checker is trusted only after it caught the bug that it is for (`Switches`). Deliberately absent: threads, wall
//! clock, sockets, and any shortcut through the core's own state where a host can be asked instead.

pub mod check;
pub mod claims;
pub mod clock;
pub mod disk;
pub mod fault;
pub mod lease_model;
pub mod lock;
pub mod mutants;
pub mod net;
pub mod plan;
pub mod redis;
pub mod rng;
pub mod runner;
pub mod trace;
pub mod world;
