//! A data set on its way from a running Redis into the quarantine directory and back into another Redis.
#![allow(clippy::unwrap_used)]

mod redis_support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis_support::{Server, info, run, wait_until};
use redkeep_agent::quarantine::{KeepError, Settings, Store};
use redkeep_agent::redis::{RedisFailure, Snapshot, SnapshotError};

const PATIENT: Duration = Duration::from_secs(20);

static NEXT: AtomicU32 = AtomicU32::new(0);

fn store(directory: PathBuf, leave_free: u64) -> Store {
    Store::new(Settings { directory, max_files: 4, max_bytes: 1 << 30, leave_free, log: 1 })
}

async fn take(server: &Server) -> Result<PathBuf, SnapshotError> {
    let snapshot = Snapshot::open(server.endpoint()).await.unwrap();
    tokio::time::timeout(PATIENT, snapshot.take()).await.unwrap()
}

fn fill(server: &Server, keys: usize) {
    let mut client = server.client();
    for key in 0..keys {
        run(&mut client, &["SET", &format!("key-{key}"), "value"]);
    }
}

/// Removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("redkeep-kept-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Keys in a Redis that is started from a copy of `file`.
fn keys_in(file: &Path) -> String {
    let scratch = Scratch::new();
    std::fs::copy(file, scratch.0.join("dump.rdb")).unwrap();
    let server = Server::start_in(&scratch.0, &[]);
    wait_until("the file is loaded", || server.raw("PING").as_deref() == Some("+PONG"));
    server.raw("DBSIZE").unwrap()
}

#[tokio::test]
async fn what_is_kept_is_the_data_set_as_it_was_and_loads() {
    let server = Server::start(&[]);
    fill(&server, 20);
    let saved = take(&server).await.unwrap();
    assert_eq!(saved, server.directory.join("dump.rdb"));
    let scratch = Scratch::new();
    let store = store(scratch.0.clone(), 0);
    let kept = store.keep(&saved, ("pair", 2, Some(77)), &|| true).unwrap();
    // Redis goes on, and overwrites its own file.
    run(&mut server.client(), &["FLUSHALL"]);
    take(&server).await.unwrap();
    assert_eq!(keys_in(&kept.path), ":20");
    assert_eq!(store.entries().unwrap(), [kept]);
}

/// One that began before the last writes is not enough.
#[tokio::test]
async fn a_snapshot_under_way_is_waited_for_and_taken_anew() {
    let server = Server::start(&[]);
    fill(&server, 50);
    let mut client = server.client();
    run(&mut client, &["CONFIG", "SET", "rdb-key-save-delay", "4000"]);
    run(&mut client, &["BGSAVE"]);
    run(&mut client, &["SET", "late", "value"]);
    assert_eq!(info(&mut client, "persistence", "rdb_bgsave_in_progress"), "1");
    let saved = take(&server).await.unwrap();
    assert_eq!(keys_in(&saved), ":51");
}

/// While the append-only file is rewritten, Redis puts a snapshot off.
#[tokio::test]
async fn a_rewrite_of_the_append_only_file_is_waited_for() {
    let server = Server::start(&["--appendonly", "yes"]);
    fill(&server, 50);
    let mut client = server.client();
    run(&mut client, &["CONFIG", "SET", "rdb-key-save-delay", "4000"]);
    run(&mut client, &["BGREWRITEAOF"]);
    run(&mut client, &["SET", "late", "value"]);
    assert_eq!(info(&mut client, "persistence", "aof_rewrite_in_progress"), "1");
    let saved = take(&server).await.unwrap();
    assert_eq!(keys_in(&saved), ":51");
}

#[tokio::test]
async fn a_snapshot_that_fails_is_told_by_its_cause() {
    // Redis writes into a directory that is not there any more.
    let server = Server::start(&[]);
    std::fs::remove_dir_all(&server.directory).unwrap();
    let gone = take(&server).await.unwrap_err();
    assert!(matches!(gone, SnapshotError::NotVisible { .. }), "{gone:?}");

    let server = Server::start(&[]);
    // Its temporary file cannot be renamed over a directory.
    std::fs::create_dir(server.directory.join("dump.rdb")).unwrap();
    let failed = take(&server).await.unwrap_err();
    assert!(matches!(failed, SnapshotError::Failed), "{failed:?}");

    let server = Server::start(&["--rename-command", "CONFIG", ""]);
    let unknown = take(&server).await.unwrap_err();
    let SnapshotError::Redis { command: "CONFIG", source } = unknown else { panic!("{unknown:?}") };
    assert!(matches!(source, RedisFailure::UnknownCommand { .. }), "{source:?}");
}

/// A file system of its own, for as long as the value lives.
struct Tmpfs(Scratch);

impl Tmpfs {
    fn of(size: &str) -> Self {
        let scratch = Scratch::new();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(&scratch.0);
        assert!(mount.status().unwrap().success());
        Self(scratch)
    }

    fn store(&self, leave_free: u64) -> Store {
        store(self.0.0.join("kept"), leave_free)
    }

    fn count(&self) -> usize {
        std::fs::read_dir(self.0.0.join("kept")).unwrap().count()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0.0).status();
    }
}

#[tokio::test]
async fn a_directory_on_another_file_system_gets_a_copy_and_a_full_one_keeps_nothing() {
    let server = Server::start(&["--rdbcompression", "no"]);
    let mut client = server.client();
    run(&mut client, &["SET", "large", &"x".repeat(3 << 20)]);
    fill(&server, 10);
    let saved = take(&server).await.unwrap();

    let large = Tmpfs::of("16m");
    let kept = large.store(0).keep(&saved, ("pair", 2, None), &|| true).unwrap();
    assert_eq!(keys_in(&kept.path), ":11");

    let full = Tmpfs::of("1m");
    let error = full.store(0).keep(&saved, ("pair", 2, None), &|| true).unwrap_err();
    assert!(matches!(error, KeepError::DiskFull { leave_free: 0, .. }), "{error:?}");
    assert_eq!(full.count(), 0, "a piece was left");
}

/// Room for all of it when it begins; then the log, or the file of another group, takes some.
#[tokio::test]
async fn a_copy_is_given_up_when_room_gets_scarce_meanwhile() {
    const RESERVE: u64 = 4 << 20;
    let server = Server::start(&["--rdbcompression", "no"]);
    run(&mut server.client(), &["SET", "large", &"x".repeat(6 << 20)]);
    let saved = take(&server).await.unwrap();

    let small = Tmpfs::of("16m");
    let pieces = AtomicU32::new(0);
    let others_write = || {
        if pieces.fetch_add(1, Ordering::Relaxed) == 3 {
            std::fs::write(small.0.0.join("log"), vec![7; 8 << 20]).unwrap();
        }
        true
    };
    let store = small.store(RESERVE);
    let error = store.keep(&saved, ("pair", 2, None), &others_write).unwrap_err();
    assert!(matches!(error, KeepError::DiskFull { leave_free: RESERVE, .. }), "{error:?}");
    assert!(pieces.load(Ordering::Relaxed) > 3, "it was not begun");
    assert_eq!(small.count(), 0, "a piece was left");
    std::fs::remove_file(small.0.0.join("log")).unwrap();
    store.keep(&saved, ("pair", 2, None), &|| true).unwrap();
}

/// As in a container: the path is there for both, and leads to two places.
#[tokio::test]
async fn another_file_system_under_the_same_path_is_noticed() {
    let server = Server::start(&[]);
    let directory = server.directory.display().to_string();
    let mount = |words: &[&str]| Command::new(words[0]).args(&words[1..]).status().unwrap();
    assert!(mount(&["mount", "-t", "tmpfs", "none", &directory]).success());
    let hidden = take(&server).await;
    assert!(mount(&["umount", &directory]).success());
    let hidden = hidden.unwrap_err();
    assert!(matches!(hidden, SnapshotError::NotVisible { .. }), "{hidden:?}");
}
