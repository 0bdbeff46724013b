//! Names of the files: what the file itself cannot say. `pair,epoch=4,gap=38211,log=1f2e3d4c.rdb`
//!
//! A group's name has no comma, so a name reads back as it was made.

use std::ffi::OsStr;

const ENDING: &str = ".rdb";
const PART: &str = ".part";
const UNKNOWN: &str = "unknown";

/// What a file's name says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The group.
    pub group: String,
    /// Epoch of the master that it was to follow.
    pub epoch: u64,
    /// Bytes beyond that master's history; `None` = unknown.
    pub gap: Option<u64>,
    /// Identity of the log whose epoch it is: another cluster may have begun anew.
    pub log: u32,
}

impl Name {
    pub(super) fn file(&self) -> String {
        let Self { group, epoch, gap, log } = self;
        let gap = gap.map_or_else(|| UNKNOWN.to_owned(), |gap| gap.to_string());
        format!("{group},epoch={epoch},gap={gap},log={log:08x}{ENDING}")
    }

    /// While it is being written.
    pub(super) fn part(&self) -> String {
        format!("{}{PART}", self.file())
    }

    pub(super) fn read(file: &OsStr) -> Option<Self> {
        let mut fields = file.to_str()?.strip_suffix(ENDING)?.split(',');
        let group = fields.next().filter(|group| !group.is_empty())?.to_owned();
        let epoch = fields.next()?.strip_prefix("epoch=")?.parse().ok()?;
        let gap = match fields.next()?.strip_prefix("gap=")? {
            UNKNOWN => None,
            known => Some(known.parse().ok()?),
        };
        let log = u32::from_str_radix(fields.next()?.strip_prefix("log=")?, 16).ok()?;
        let name = Self { group, epoch, gap, log };
        (fields.next().is_none() && name.file() == file.to_str()?).then_some(name)
    }
}

/// What an ended process may have left.
pub(super) fn is_part(file: &OsStr) -> bool {
    file.to_str().is_some_and(|file| file.ends_with(&format!("{ENDING}{PART}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_it_was_made() {
        for gap in [None, Some(0), Some(u64::MAX)] {
            let name = Name { group: "a-b_c.d".to_owned(), epoch: 7, gap, log: 0xab };
            assert_eq!(Name::read(name.file().as_ref()), Some(name.clone()));
            assert!(Name::read(name.part().as_ref()).is_none() && is_part(name.part().as_ref()));
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        for file in [
            "dump.rdb",
            "pair,epoch=4.rdb",
            "pair,epoch=4,gap=38211,log=1f2e3d4c",
            "pair,epoch=+4,gap=1,log=1f2e3d4c.rdb",
            "pair,epoch=4,gap=1,log=1f2e3d4c,x.rdb",
            ",epoch=4,gap=1,log=1f2e3d4c.rdb",
        ] {
            assert_eq!(Name::read(file.as_ref()), None, "{file}");
            assert!(!is_part(file.as_ref()));
        }
    }
}
