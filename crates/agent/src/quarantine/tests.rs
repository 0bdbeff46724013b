//! The directory and its bounds, with files of a few bytes.
#![allow(clippy::unwrap_used)]

use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, mpsc};
use std::thread;

use super::*;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory with a file of Redis in it, and a store beside; removed when dropped.
struct Bench {
    directory: PathBuf,
    saved: PathBuf,
    store: Store,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Bench {
    fn new(max_files: usize, max_bytes: u64) -> Self {
        Self::leaving(0, max_files, max_bytes)
    }

    fn leaving(leave_free: u64, max_files: usize, max_bytes: u64) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir()
            .join(format!("redkeep-quarantine-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let kept = directory.join("kept");
        let settings = Settings { directory: kept, max_files, max_bytes, leave_free, log: 7 };
        Self { saved: directory.join("dump.rdb"), directory, store: Store::new(settings) }
    }

    /// Redis renames a new file into place.
    fn save(&self, content: &[u8]) {
        let new = self.directory.join("temp.rdb");
        fs::write(&new, content).unwrap();
        fs::rename(&new, &self.saved).unwrap();
    }

    fn keep(&self, group: &str, epoch: u64, content: &[u8]) -> Result<Entry, KeepError> {
        self.save(content);
        self.store.keep(&self.saved, (group, epoch, Some(epoch * 10)), &|| true)
    }

    /// By a path at which no link can be made of it: /proc is another file system.
    fn keep_copied(&self, group: &str, epoch: u64, content: &[u8]) -> Result<Entry, KeepError> {
        self.save(content);
        let opened = File::open(&self.saved).unwrap();
        let saved = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        self.store.keep(&saved, (group, epoch, None), &|| true)
    }

    fn kept(&self) -> Vec<(String, u64)> {
        let mut kept: Vec<_> = self.names().into_iter().map(|n| (n.group, n.epoch)).collect();
        kept.sort();
        kept
    }

    fn names(&self) -> Vec<Name> {
        self.store.entries().unwrap().into_iter().map(|e| e.name).collect()
    }
}

#[test]
fn what_is_kept_is_not_changed_by_what_redis_writes_later() {
    let b = Bench::new(4, 1000);
    assert_eq!(b.store.entries().unwrap(), Vec::new(), "no directory is an empty one");
    let entry = b.keep("pair", 3, b"first").unwrap();
    assert_eq!((entry.size, entry.name.gap), (5, Some(30)));
    b.save(b"second");
    assert_eq!(fs::read(&entry.path).unwrap(), b"first");
    assert_eq!(b.store.find("pair", 3).unwrap(), Some(entry));
    assert_eq!(b.store.find("pair", 4).unwrap(), None);
    let mode = fs::metadata(b.directory.join("kept")).unwrap().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// Where the directory is on another file system; and where Redis replaced its file in between.
#[test]
fn a_copy_is_whole_and_ends_when_it_is_not_wanted_any_more() {
    let b = Bench::new(4, u64::MAX);
    let content: Vec<u8> = (0..PIECE * 2 + 77).map(|n| (n % 251) as u8).collect();
    b.save(&content);
    let opened = || File::open(&b.saved).unwrap();
    let part = b.directory.join("part");
    // The path does not lead to what was opened: no link can be made of it.
    let elsewhere = b.directory.join("elsewhere");
    bring((&elsewhere, opened()), &part, 0, &|| true).unwrap();
    assert_eq!(fs::read(&part).unwrap(), content);
    fs::write(&elsewhere, b"newer").unwrap();
    bring((&elsewhere, opened()), &part, 0, &|| true).unwrap();
    assert_eq!(fs::read(&part).unwrap(), content, "what was opened, not what came after");
    let asked = AtomicU32::new(0);
    let twice = || asked.fetch_add(1, Ordering::Relaxed) < 2;
    fs::remove_file(&elsewhere).unwrap();
    let stopped = bring((&elsewhere, opened()), &part, 0, &twice);
    assert!(matches!(stopped, Err(KeepError::Stopped)), "{stopped:?}");
}

#[test]
fn nothing_is_left_of_what_was_not_kept() {
    let b = Bench::new(4, 10);
    b.save(b"12345");
    let stopped = b.store.keep(&b.saved, ("pair", 1, None), &|| false);
    assert!(matches!(stopped, Err(KeepError::Stopped)), "{stopped:?}");
    let large = b.keep("pair", 1, b"12345678901");
    assert!(matches!(large, Err(KeepError::TooLarge { size: 11, max: 10 })), "{large:?}");
    let missing = b.store.keep(Path::new("/nonexistent/dump.rdb"), ("pair", 1, None), &|| true);
    assert!(matches!(missing, Err(KeepError::File { step: "open", .. })), "{missing:?}");
    assert_eq!(fs::read_dir(b.directory.join("kept")).unwrap().count(), 0);
}

/// Found by the nemesis: a copy took the room of the supervisor's log, which could not start again beside it.
#[test]
fn a_copy_that_would_leave_too_little_room_is_not_made() {
    let b = Bench::leaving(u64::MAX, 4, 1000);
    let refused = b.keep_copied("pair", 1, b"12345").unwrap_err();
    let KeepError::DiskFull { size: 5, free, leave_free: u64::MAX } = &refused else {
        panic!("{refused:?}")
    };
    let text = refused.to_string();
    for part in ["5 bytes", &format!("{free} are free"), &u64::MAX.to_string(), "[quarantine] dir"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(fs::read_dir(b.directory.join("kept")).unwrap().count(), 0);
    // Nothing is held any more; and a link takes no room.
    b.keep("pair", 2, &[7; 1000]).unwrap();
    assert_eq!(b.kept(), [("pair".to_owned(), 2)]);
    let b = Bench::leaving(0, 4, 1000);
    let copied = b.keep_copied("pair", 1, b"12345").unwrap();
    assert_ne!(fs::metadata(&copied.path).unwrap().ino(), fs::metadata(&b.saved).unwrap().ino());
}

#[test]
fn the_oldest_make_room_for_the_newest() {
    let b = Bench::new(2, 100);
    for epoch in 1..=3 {
        b.keep("pair", epoch, b"12345").unwrap();
    }
    b.keep("other", 9, b"12345").unwrap();
    let of = |group: &str, epoch| (group.to_owned(), epoch);
    assert_eq!(b.kept(), [of("other", 9), of("pair", 2), of("pair", 3)], "of its own group");
    // 95 bytes leave room for one of five.
    b.keep("other", 10, &[7; 95]).unwrap();
    assert_eq!(b.kept().len(), 2);
    assert!(b.kept().contains(&of("other", 10)));
}

/// Found by reading: each of the groups that return together saw the same free room, since files under way were not counted.
#[test]
fn files_that_are_kept_at_the_same_time_stay_within_the_bound() {
    let b = Bench::new(4, 100);
    b.keep("old", 1, &[7; 50]).unwrap();
    b.save(&[7; 40]);
    let (said, heard) = mpsc::channel();
    let gate = (Mutex::new(false), Condvar::new());
    let results = thread::scope(|scope| {
        let threads = ["one", "two", "three"].map(|group| {
            let (said, gate, b) = (said.clone(), &gate, &b);
            scope.spawn(move || {
                // Asked first when the room is held and nothing is there yet.
                let go_on = || {
                    said.send(group).unwrap();
                    let shut = gate.0.lock().unwrap();
                    drop(gate.1.wait_while(shut, |open| !*open).unwrap());
                    true
                };
                let result = b.store.keep(&b.saved, (group, 1, None), &go_on);
                said.send(group).unwrap();
                result
            })
        });
        for _ in 0..3 {
            heard.recv().unwrap();
        }
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        threads.map(|t| t.join().unwrap())
    });
    let refused: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert!(
        matches!(refused[..], [KeepError::NoRoom { size: 40, under_way: 80, max: 100 }]),
        "{results:?}"
    );
    let total: u64 = b.store.entries().unwrap().iter().map(|e| e.size).sum();
    assert_eq!((total, b.kept().len()), (80, 2));
    // Nothing is held any more.
    b.keep("four", 1, &[7; 100]).unwrap();
    assert_eq!(b.kept(), [("four".to_owned(), 1)]);
}

#[test]
fn an_older_file_stays_until_the_new_one_is_whole_where_there_is_room_for_both() {
    let b = Bench::new(1, 10);
    b.keep("pair", 1, b"12345").unwrap();
    b.save(b"12345");
    let kept_meanwhile = || !b.kept().contains(&("pair".to_owned(), 1));
    let stopped = b.store.keep(&b.saved, ("pair", 2, None), &kept_meanwhile);
    assert!(matches!(stopped, Err(KeepError::Stopped)), "{stopped:?}");
    assert_eq!(b.kept(), [("pair".to_owned(), 1)]);
    b.keep("pair", 2, b"12345").unwrap();
    assert_eq!(b.kept(), [("pair".to_owned(), 2)], "then it goes");
}

#[test]
fn what_goes_in_any_case_makes_room_first() {
    let b = Bench::new(1, 100);
    b.keep("other", 1, &[7; 40]).unwrap();
    b.keep("pair", 2, &[7; 40]).unwrap();
    b.keep("pair", 3, &[7; 40]).unwrap();
    assert_eq!(b.kept(), [("other".to_owned(), 1), ("pair".to_owned(), 3)]);
}

#[test]
fn a_bound_of_no_bytes_keeps_nothing() {
    let b = Bench::new(2, 0);
    assert!(b.store.is_off());
    assert!(matches!(b.keep("pair", 1, b""), Err(KeepError::Off)));
}

#[test]
fn what_a_dead_process_left_is_removed_and_files_of_others_stay() {
    let b = Bench::new(2, 100);
    let kept = b.keep("pair", 1, b"1").unwrap();
    let directory = b.directory.join("kept");
    let part = directory.join(Name { epoch: 2, ..kept.name.clone() }.part());
    fs::write(&part, b"half").unwrap();
    fs::write(directory.join("notes.txt"), b"mine").unwrap();
    let again = Store::new(b.store.settings().clone());
    assert!(!part.exists() && directory.join("notes.txt").exists());
    assert_eq!(again.entries().unwrap(), [kept]);
}
