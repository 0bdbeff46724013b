//! Claims about [`crate::Wal`], on real files and on a disk that fails.

mod consensus;
mod crash;
mod directory;
mod faulty;
mod rot;
mod workload;
