//! How much room the file takes and how much is left.

use std::fs::File;
use std::io;
use std::path::Path;

/// Room on the disk, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Length of the file.
    pub file_bytes: u64,
    /// What an unprivileged process may still write to the file system (`f_bavail`).
    pub free_bytes: u64,
}

pub(crate) fn measure(directory: &File, file: &Path) -> io::Result<Disk> {
    let file_bytes = std::fs::metadata(file)?.len();
    let stat = rustix::fs::fstatvfs(directory)?;
    Ok(Disk { file_bytes, free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize) })
}
