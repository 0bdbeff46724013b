//! A password that does not get into logs.
//!
//! Invariant: neither `Debug` nor any error of this module shows the content.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Longest password file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// A password. Its `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A password read from a file, and whether others on the host can read that file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFile {
    /// The password.
    pub secret: Secret,
    /// The file's permission bits, when "others" may read it: worth a warning.
    pub world_readable_mode: Option<u32>,
}

/// Why a password file was refused. Each names the file and the rule.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be opened or read.
    #[error("password file {}: cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It has no bytes before the end of the line.
    #[error("password file {}: is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It has more than one line, or a NUL.
    #[error("password file {}: must hold one line without control characters", path.display())]
    NotOneLine {
        /// The file.
        path: PathBuf,
    },
    /// It is no UTF-8.
    #[error("password file {}: is not UTF-8", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
    },
    /// It is longer than 4096 bytes.
    #[error("password file {}: is longer than {FILE_BYTES_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
}

impl Secret {
    /// Wraps a password.
    #[must_use]
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// The password itself, for the wire only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a password from the one line of `path`; the line's end is not part of it.
    ///
    /// # Errors
    /// [`SecretError`] names the file and the rule.
    pub fn read(path: &Path) -> Result<SecretFile, SecretError> {
        let named = || path.to_path_buf();
        let read = |source| SecretError::Read { path: named(), source };
        let file = File::open(path).map_err(read)?;
        let mode = file.metadata().map_err(read)?.permissions().mode() & 0o7777;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > FILE_BYTES_MAX) {
            return Err(SecretError::TooLong { path: named() });
        }
        let text = String::from_utf8(bytes).map_err(|_| SecretError::NotUtf8 { path: named() })?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            return Err(SecretError::Empty { path: named() });
        }
        if line.chars().any(char::is_control) {
            return Err(SecretError::NotOneLine { path: named() });
        }
        let world_readable_mode = (mode & 0o004 != 0).then_some(mode);
        Ok(SecretFile { secret: Self(line.to_owned()), world_readable_mode })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    fn file(name: &str, content: &[u8], mode: u32) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("redkeep-secret-{}-{name}", std::process::id()));
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn trailing_newline_is_not_part_of_the_password() {
        for (name, content) in
            [("lf", &b"pass word\n"[..]), ("crlf", b"pass word\r\n"), ("no", b"pass word")]
        {
            let path = file(name, content, 0o600);
            let read = Secret::read(&path).unwrap();
            assert_eq!(read.secret.expose(), "pass word");
            assert_eq!(read.world_readable_mode, None);
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn world_readable_file_is_reported() {
        let path = file("wr", b"x\n", 0o644);
        assert_eq!(Secret::read(&path).unwrap().world_readable_mode, Some(0o644));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn each_bad_file_names_itself_and_the_rule() {
        let cases: [(&str, Vec<u8>, &str); 4] = [
            ("empty", b"\n".to_vec(), "is empty"),
            ("lines", b"a\nb\n".to_vec(), "one line"),
            ("binary", vec![0xff, 0xfe], "not UTF-8"),
            ("long", vec![b'x'; 4097], "longer than 4096"),
        ];
        for (name, content, rule) in cases {
            let path = file(name, &content, 0o600);
            let text = Secret::read(&path).unwrap_err().to_string();
            assert!(text.contains(rule) && text.contains(path.to_str().unwrap()), "{text}");
            fs::remove_file(path).unwrap();
        }
        assert!(matches!(Secret::read(Path::new("/nonexistent/x")), Err(SecretError::Read { .. })));
    }

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret");
    }
}
