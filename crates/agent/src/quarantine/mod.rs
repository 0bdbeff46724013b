//! Data sets of old masters that were kept aside: one directory, bounded in files and bytes.
//!
//! Synchronous: for a blocking thread. A file appears under its name only when all of it is on disk. Where the directory is on
//! the file system of Redis it costs a hard link and no copy: Redis renames each new file over its old one and never writes
//! into it. A copy is written out in small pieces, so that whoever else syncs on that disk (the log of the supervisor) never waits
//! for the whole of it, and it is given up before it takes the room that the log needs.
//!
//! Deliberately absent: reading what is in a file, and deciding what is kept.

mod name;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use name::Name;

/// Read and written at once.
const PIECE: usize = 1 << 20;
/// Written out after so many pieces.
const PIECES_A_SYNC: usize = 16;

/// Where, and how much at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The directory; made when the first file is kept.
    pub directory: PathBuf,
    /// Files of one group.
    pub max_files: usize,
    /// All files together, bytes; 0 = nothing is kept.
    pub max_bytes: u64,
    /// What a copy leaves free on the file system of the directory, bytes. A piece is looked at and then written, so copies
    /// that are made at the same moment can take a piece each of it.
    pub leave_free: u64,
    /// Identity of the log whose epochs are meant.
    pub log: u32,
}

/// One data set that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What the file's name says.
    pub name: Name,
    /// Bytes.
    pub size: u64,
    /// When it was written; seconds since 1970 by the wall clock, for display and for the order of removal.
    pub unix_s: i64,
    /// The file.
    pub path: PathBuf,
}

/// Why a data set was not kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// By configuration.
    #[error("quarantine is switched off on this node (max_bytes = \"0\")")]
    Off,
    /// More than all files together may have.
    #[error("its file has {size} bytes, and max_bytes is {max}")]
    TooLarge {
        /// Of the file; bytes.
        size: u64,
        /// The bound; bytes.
        max: u64,
    },
    /// Others are being kept at this moment and hold the room.
    #[error(
        "its file has {size} bytes, others that are being kept at this moment have {under_way}, and max_bytes is {max}"
    )]
    NoRoom {
        /// Of the file; bytes.
        size: u64,
        /// Of the others; bytes.
        under_way: u64,
        /// The bound; bytes.
        max: u64,
    },
    /// A copy of it would take the room of others on that disk.
    #[error(
        "its file has {size} bytes, {free} are free where it would be copied to, and {leave_free} must stay free for the supervisor's log: make room, or name a directory on another disk by [quarantine] dir"
    )]
    DiskFull {
        /// Of the file; bytes.
        size: u64,
        /// On the disk without it; bytes.
        free: u64,
        /// The bound; bytes.
        leave_free: u64,
    },
    /// The caller does not want it any more.
    #[error("it took too long, or another change of role came first")]
    Stopped,
    /// A file could not be read, written or moved.
    #[error("{step} {path}", path = path.display())]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

fn failed<'a>(step: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> KeepError + 'a {
    move |source| KeepError::File { step, path: path.to_owned(), source }
}

/// See the module's text.
#[derive(Debug)]
pub struct Store {
    settings: Settings,
    /// Bytes of the files under way. Groups return together when their host does: each holds its room from the start, and
    /// files come and go under this lock.
    under_way: Mutex<u64>,
}

impl Store {
    /// Removes what an earlier process left unfinished.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let store = Self { settings, under_way: Mutex::default() };
        for file in fs::read_dir(&store.settings.directory).into_iter().flatten().flatten() {
            if name::is_part(&file.file_name()) {
                let _ = fs::remove_file(file.path());
            }
        }
        store
    }

    /// Where, and how much at most.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether nothing is to be kept.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.settings.max_bytes == 0
    }

    /// What is kept, oldest first.
    ///
    /// # Errors
    /// The directory is there and cannot be read.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let files = match fs::read_dir(&self.settings.directory) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut entries = Vec::new();
        for file in files {
            let file = file?;
            let Some(name) = Name::read(&file.file_name()) else { continue };
            match file.metadata() {
                Ok(found) => entries.push(Entry {
                    name,
                    size: found.len(),
                    unix_s: found.mtime(),
                    path: file.path(),
                }),
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|a, b| (a.unix_s, &a.name).cmp(&(b.unix_s, &b.name)));
        Ok(entries)
    }

    /// What was kept of `group` at `epoch` of the present log.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn find(&self, group: &str, epoch: u64) -> io::Result<Option<Entry>> {
        let wanted = |e: &Entry| {
            e.name.group == group && e.name.epoch == epoch && e.name.log == self.settings.log
        };
        Ok(self.entries()?.into_iter().find(wanted))
    }

    /// Keeps the file of Redis at `saved`. Oldest ones make room: after it where the bound has room for both, else before.
    /// `go_on` is asked all the time.
    ///
    /// # Errors
    /// [`KeepError`]; nothing of it is left then.
    pub fn keep(
        &self,
        saved: &Path,
        (group, epoch, gap): (&str, u64, Option<u64>),
        go_on: &dyn Fn() -> bool,
    ) -> Result<Entry, KeepError> {
        let max = self.settings.max_bytes;
        if max == 0 {
            return Err(KeepError::Off);
        }
        let source = File::open(saved).map_err(failed("open", saved))?;
        let size = source.metadata().map_err(failed("look at", saved))?.len();
        if size > max {
            return Err(KeepError::TooLarge { size, max });
        }
        let name = Name { group: group.to_owned(), epoch, gap, log: self.settings.log };
        let directory = &self.settings.directory;
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory).map_err(failed("make", directory))?;
        let mut room = self.reserve(group, size)?;
        let part = directory.join(name.part());
        let path = directory.join(name.file());
        let placed = bring((saved, source), &part, self.settings.leave_free, go_on)
            .and_then(|()| room.fill(&part, &path));
        if let Err(error) = placed {
            let _ = fs::remove_file(&part);
            return Err(error);
        }
        self.thin_out(group);
        let synced = File::open(directory).and_then(|d| d.sync_all());
        synced.map_err(failed("sync", directory))?;
        let found = fs::metadata(&path).map_err(failed("look at", &path))?;
        Ok(Entry { name, size: found.len(), unix_s: found.mtime(), path })
    }

    fn under_way(&self) -> MutexGuard<'_, u64> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a file of `group`. Nothing is removed for it that the bound has room for.
    fn reserve(&self, group: &str, size: u64) -> Result<Room<'_>, KeepError> {
        let max = self.settings.max_bytes;
        let mut under_way = self.under_way();
        let claimed = under_way.saturating_add(size);
        if claimed > max {
            return Err(KeepError::NoRoom { size, under_way: *under_way, max });
        }
        let directory = &self.settings.directory;
        let mut entries = self.entries().map_err(failed("read", directory))?;
        while entries.iter().map(|e| e.size).fold(claimed, u64::saturating_add) > max {
            // Of its own group first, if that has one that goes in any case.
            let oldest = self.one_too_many(&entries, group, 1).unwrap_or(0);
            remove(&entries.remove(oldest))?;
        }
        *under_way = claimed;
        Ok(Room { store: self, size })
    }

    /// Removes the oldest of `group` above the bound of its files. What was kept is kept, also where that fails.
    fn thin_out(&self, group: &str) {
        let _alone = self.under_way();
        let Ok(mut entries) = self.entries() else { return };
        while let Some(oldest) = self.one_too_many(&entries, group, 0) {
            let path = entries[oldest].path.clone();
            if let Err(error) = remove(&entries.remove(oldest)) {
                tracing::warn!(path = %path.display(), %error, "more files are kept than max_files");
            }
        }
    }

    /// The oldest of `group`, if it has too many with `more`.
    fn one_too_many(&self, entries: &[Entry], group: &str, more: usize) -> Option<usize> {
        let mut of_group = entries.iter().enumerate().filter(|(_, e)| e.name.group == group);
        let (oldest, _) = of_group.next()?;
        (of_group.count() + 1 + more > self.settings.max_files.max(1)).then_some(oldest)
    }
}

/// Room that a file under way holds; given back when it is dropped.
struct Room<'a> {
    store: &'a Store,
    size: u64,
}

impl Room<'_> {
    /// The whole file gets its name: from here on it is counted by that.
    fn fill(&mut self, part: &Path, path: &Path) -> Result<(), KeepError> {
        let mut under_way = self.store.under_way();
        fs::rename(part, path).map_err(failed("rename", part))?;
        *under_way -= std::mem::take(&mut self.size);
        Ok(())
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        *self.store.under_way() -= self.size;
    }
}

fn remove(entry: &Entry) -> Result<(), KeepError> {
    tracing::info!(path = %entry.path.display(), size = entry.size, "removed, the oldest, to make room");
    match fs::remove_file(&entry.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", &entry.path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The same file under another name, or a copy; on disk when this returns.
fn bring(
    (saved, mut source): (&Path, File),
    part: &Path,
    leave_free: u64,
    go_on: &dyn Fn() -> bool,
) -> Result<(), KeepError> {
    if !go_on() {
        return Err(KeepError::Stopped);
    }
    let _ = fs::remove_file(part);
    if fs::hard_link(saved, part).is_ok() {
        let (link, found) = (fs::metadata(part), source.metadata());
        let same = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        if link.ok().zip(found.ok()).is_some_and(|(a, b)| same(a, b)) {
            return source.sync_all().map_err(failed("sync", saved));
        }
        // Redis has written another one meanwhile.
        fs::remove_file(part).map_err(failed("remove", part))?;
    }
    copy((saved, &mut source), part, leave_free, go_on)
}

/// Piece by piece, while there is room for what is still to come.
fn copy(
    (saved, source): (&Path, &mut File),
    part: &Path,
    leave_free: u64,
    go_on: &dyn Fn() -> bool,
) -> Result<(), KeepError> {
    let size = source.metadata().map_err(failed("look at", saved))?.len();
    let directory = part.parent().unwrap_or(part);
    let mut written = 0;
    // Before anything is made: on a full disk not even a name can be.
    look_for_room(directory, (size, written), leave_free)?;
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part);
    let mut copy = options.map_err(failed("make", part))?;
    let mut piece = vec![0; PIECE];
    for number in 1.. {
        if !go_on() {
            return Err(KeepError::Stopped);
        }
        let read = source.read(&mut piece).map_err(failed("read", saved))?;
        if read == 0 {
            break;
        }
        // The log grows, and files of other groups are copied at the same time.
        look_for_room(directory, (size.max(written + read as u64), written), leave_free)?;
        copy.write_all(&piece[..read]).map_err(failed("write", part))?;
        written += read as u64;
        if number % PIECES_A_SYNC == 0 {
            copy.sync_data().map_err(failed("sync", part))?;
        }
    }
    copy.sync_all().map_err(failed("sync", part))
}

/// Fails where `leave_free` would not stay free beside a file of `size`, of which `written` are there.
fn look_for_room(
    directory: &Path,
    (size, written): (u64, u64),
    leave_free: u64,
) -> Result<(), KeepError> {
    let disk = rustix::fs::statvfs(directory)
        .map_err(|error| failed("ask for the room on the disk of", directory)(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize).saturating_add(written);
    if free < size.saturating_add(leave_free) {
        return Err(KeepError::DiskFull { size, free, leave_free });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
