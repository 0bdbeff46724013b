//! `[quarantine]`: where this host keeps what an old master alone held, and how much of it.

use std::path::{Path, PathBuf};

use toml::Table;

use super::{DurationKey, MS, count, duration};
use crate::config::{
    Quarantine,
    raw::{Problems, Section, Wanted, quoted},
    unit,
};

const MAX_BYTES: u64 = 20 << 30;

pub(super) fn quarantine(root: &mut Section, data_dir: &Path, p: &mut Problems) -> Quarantine {
    let mut section =
        root.section("quarantine", p).unwrap_or_else(|| Section::new("quarantine", Table::new()));
    let s = &mut section;
    let dir = s.string("dir", p).map_or_else(|| data_dir.join("quarantine"), PathBuf::from);
    if !dir.is_absolute() && data_dir.is_absolute() {
        let text = quoted(&dir.to_string_lossy());
        p.add(&s.key("dir"), text, "must be an absolute path", "start it with /");
    }
    let max_files = count(s, "max_files", 1..=1_000, 4, p);
    let max_bytes = s.parsed(
        Wanted {
            name: "max_bytes",
            default: MAX_BYTES,
            parse: unit::bytes,
            rule: "must be a size with its unit (KiB, MiB, GiB, TiB), or \"0\" for nothing",
            mend: "the default is \"20GiB\"",
        },
        p,
    );
    let timeout =
        DurationKey { name: "timeout", default: 60_000 * MS, min: 1_000 * MS, max: 3_600_000 * MS };
    let timeout = duration(s, &timeout, p);
    section.finish(p);
    Quarantine { dir, max_files, max_bytes, timeout }
}
