//! A supervisor's data directory on a small file system of its own, so that it can be filled.
//!
//! A real ext4 in a file, by a loop device: its syncs reach the machine's disk, and what it says when it is full is
//! what a kernel says. The lab's cleaning unmounts it.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::host::Host;

/// Some twenty times what a log takes.
const BYTES: u64 = 16 << 20;

/// Puts what will be `redkeep` in the host's directory on a disk of its own; to be called before its supervisor starts.
pub(crate) fn give_small_disk(host: &Host) -> Result<()> {
    let (image, mount) = (host.dir().join("disk.img"), mount_point(host));
    std::fs::create_dir_all(&mount)?;
    // Not sparse: it must be full only when it is to be.
    let file = File::create(&image)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, BYTES)
        .context("make room for the small disk")?;
    run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
    run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount))?;
    let data = mount.join("redkeep");
    std::fs::create_dir_all(&data)?;
    std::os::unix::fs::symlink(&data, host.dir().join("redkeep"))?;
    Ok(())
}

/// Takes all that is free on the host's small disk.
pub(crate) fn fill(host: &Host) -> Result<()> {
    let mut file = File::create(filler(host))?;
    // Ever smaller pieces, so that not even a page is left.
    for piece in [1 << 16, 1 << 12, 1] {
        let zeros = vec![0; piece];
        loop {
            match file.write_all(&zeros) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(error).context("fill the small disk"),
            }
        }
    }
    Ok(())
}

/// Gives back what [`fill`] took.
pub(crate) fn free(host: &Host) -> Result<()> {
    match std::fs::remove_file(filler(host)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("free the disk"),
        _ => Ok(()),
    }
}

/// Unmounts everything below a directory; returns what went wrong.
pub(crate) fn unmount_below(dir: &Path) -> Vec<anyhow::Error> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let below = points.filter(|point| point.starts_with(dir) && point != dir);
    below.filter_map(|point| run(Command::new("umount").arg(point)).err()).collect()
}

fn mount_point(host: &Host) -> PathBuf {
    host.dir().join("disk")
}

fn filler(host: &Host) -> PathBuf {
    mount_point(host).join("filler")
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}", said.trim());
    Ok(())
}
