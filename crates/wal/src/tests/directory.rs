//! Real directories.

use super::workload::{Workload, same};
use crate::{Identity, OpenError, Wal};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// A directory of its own, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("redkeep-wal-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn identity(node: &str) -> Identity {
    Identity { cluster: "prod".into(), node: node.into() }
}

#[test]
fn a_new_directory_is_private_and_knows_that_it_is_fresh() {
    let scratch = Scratch::new("new");
    let dir = scratch.0.join("deep/data");
    let (mut wal, state) = Wal::open(&dir, &identity("a")).expect("opens");
    let mode = |path: &std::path::Path| {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    };
    assert_eq!((mode(&dir), mode(wal.path())), (0o700, 0o600));
    assert!(state.fresh && !state.bootstrapped && state.recovered.is_fresh());
    assert_eq!(state.incarnation, 1);
    let disk = wal.disk().expect("measured");
    assert!(disk.file_bytes > 0 && disk.free_bytes > 0);
    wal.mark_bootstrapped().expect("written");
    wal.close().expect("closed");
    let (_, again) = Wal::open(&dir, &identity("a")).expect("opens");
    assert_eq!((again.fresh, again.bootstrapped, again.incarnation), (false, true, 2));
    assert_eq!(again.dir_id, state.dir_id, "the directory keeps its id");
    let other = Scratch::new("other");
    let (_, other) = Wal::open(&other.0, &identity("a")).expect("opens");
    assert_ne!(other.dir_id, state.dir_id, "a new directory has another id");
}

#[test]
fn what_was_written_comes_back_and_the_commit_index_goes_along() {
    let scratch = Scratch::new("back");
    let mut workload = Workload::new(1);
    for round in 0..5 {
        let (mut wal, state) = Wal::open(&scratch.0, &identity("a")).expect("opens");
        assert_eq!(state.recovered, workload.image, "round {round}");
        for _ in 0..20 {
            wal.persist(&workload.next()).expect("written");
        }
        wal.close().expect("closed");
    }
    // Dropped without closing: only the commit index may be older.
    let (mut wal, _) = Wal::open(&scratch.0, &identity("a")).expect("opens");
    wal.persist(&workload.next()).expect("written");
    drop(wal);
    let (_, state) = Wal::open(&scratch.0, &identity("a")).expect("opens");
    assert!(same(&state.recovered, &workload.image));
}

#[test]
fn another_nodes_or_clusters_directory_is_refused_with_both_names() {
    let scratch = Scratch::new("identity");
    drop(Wal::open(&scratch.0, &identity("a")).expect("opens"));
    for other in [identity("b"), Identity { cluster: "test".into(), node: "a".into() }] {
        let refused = Wal::open(&scratch.0, &other).expect_err("refused");
        assert!(matches!(refused, OpenError::Identity { .. }));
        let text = refused.to_string();
        assert!(text.contains(&other.to_string()) && text.contains(&identity("a").to_string()));
        assert!(text.contains("data_dir"), "says how to mend it: {text}");
    }
    Wal::open(&scratch.0, &identity("a")).expect("still opens");
}

#[test]
fn a_directory_in_use_is_refused() {
    let scratch = Scratch::new("use");
    let first = Wal::open(&scratch.0, &identity("a")).expect("opens");
    let refused = Wal::open(&scratch.0, &identity("a")).expect_err("refused");
    assert!(matches!(&refused, OpenError::InUse { path } if *path == scratch.0));
    drop(first);
    Wal::open(&scratch.0, &identity("a")).expect("free again");
}

#[test]
fn burned_epochs_only_rise() {
    let scratch = Scratch::new("burn");
    let (mut wal, _) = Wal::open(&scratch.0, &identity("a")).expect("opens");
    for (epoch, burned) in [(5, 5), (3, 5), (5, 5), (9, 9), (1, 9)] {
        wal.burn("cache", epoch).expect("written");
        assert_eq!(wal.burned("cache"), Some(burned));
    }
    wal.burn("queue", 2).expect("written");
    drop(wal);
    let (_, state) = Wal::open(&scratch.0, &identity("a")).expect("opens");
    assert_eq!(state.burned, [("cache".into(), 9), ("queue".into(), 2)].into());
    assert!(state.recovered.is_fresh());
}

#[test]
fn an_unfinished_creation_is_begun_anew_and_an_empty_file_is_damage() {
    let scratch = Scratch::new("unfinished");
    std::fs::create_dir_all(&scratch.0).expect("made");
    std::fs::write(scratch.0.join("raft.redb.new"), b"half a header").expect("written");
    drop(Wal::open(&scratch.0, &identity("a")).expect("opens"));
    assert!(!scratch.0.join("raft.redb.new").exists());
    std::fs::write(scratch.0.join("raft.redb"), b"").expect("written");
    let refused = Wal::open(&scratch.0, &identity("a")).expect_err("refused");
    assert!(matches!(refused, OpenError::Damaged { .. }), "{refused:?}");
    assert!(refused.to_string().contains("new node id"), "says how to mend it: {refused}");
}
