//! Target `config`: any text is refused with reasons, or means what its written-out form means.

/// The check of files that a configuration names reads them; those of the kernel may never end.
const NOT_FILES: [&str; 3] = ["/proc", "/sys", "/dev"];

pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if !NOT_FILES.iter().any(|path| text.contains(path)) {
        let _ = redkeepd::fuzzing::config(text);
    }
}
