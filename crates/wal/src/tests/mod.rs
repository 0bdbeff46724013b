//! Claims about [`crate::Wal`], on real files and on a disk that fails.

mod consensus;
mod crash;
mod directory;
mod every_point;
mod faulty;
mod history;
mod rot;
mod workload;
