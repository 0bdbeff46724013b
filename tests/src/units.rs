//! What systemd would run on a host, taken from the units in `deploy/`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::binaries::redkeepd;
use crate::host::Host;
use crate::redis::PORT;

/// Runs what the boot unit runs before Redis starts.
pub fn boot_units(host: &Host) -> Result<()> {
    run_commands(host, &deployed("redkeep-guard.service")?, "ExecStart=")
}

/// Runs what the drop-in of the Redis unit runs before each start.
pub fn drop_in(host: &Host) -> Result<()> {
    run_commands(host, &deployed("redkeep.conf")?, "ExecStartPre=")
}

fn run_commands(host: &Host, unit: &Path, directive: &str) -> Result<()> {
    let text = std::fs::read_to_string(unit)?;
    let program = redkeepd()?.display().to_string();
    let port = PORT.to_string();
    let file = host.dir().join("redkeep.toml").display().to_string();
    let mut count = 0;
    for command in text.lines().filter_map(|line| line.strip_prefix(directive)) {
        let words: Vec<&str> = command.trim_start_matches(['+', '-', '!']).split(' ').collect();
        ensure!(words.first().is_some_and(|word| word.ends_with("/redkeepd")), "{command}");
        // Units carry an example's port and the usual place of the file.
        let localised = |word: &&str| match *word {
            "/etc/redkeep/redkeep.toml" => file.clone(),
            word if word.parse::<u16>().is_ok() => port.clone(),
            word => word.to_owned(),
        };
        let arguments: Vec<String> = words[1..].iter().map(localised).collect();
        let mut all = vec![program.as_str()];
        all.extend(arguments.iter().map(String::as_str));
        host.run_ok(&all)?;
        count += 1;
    }
    ensure!(count > 0, "{} has no {directive}", unit.display());
    Ok(())
}

fn deployed(name: &str) -> Result<PathBuf> {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let mut open = vec![deploy];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.file_name().is_some_and(|found| found == name) {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("deploy/ has no {name}")
}
