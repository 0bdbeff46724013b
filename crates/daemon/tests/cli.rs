//! The program's face on the command line.
#![allow(clippy::unwrap_used)]

use std::process::Command;

#[test]
fn version_names_the_program_not_its_package() {
    let said = Command::new(env!("CARGO_BIN_EXE_redkeepd")).arg("--version").output().unwrap();
    assert!(said.status.success());
    let text = String::from_utf8(said.stdout).unwrap();
    assert_eq!(text, format!("redkeepd {}\n", env!("CARGO_PKG_VERSION")));
}
