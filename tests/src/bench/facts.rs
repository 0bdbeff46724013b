//! The machine and the programs of a run, as the machine tells them.

use std::process::Command;

use anyhow::{Context, Result};

use crate::binaries::redkeepd;

/// Lines of the document's first table.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) rows: Vec<(&'static str, String)>,
}

impl Facts {
    pub(super) fn collect(command: &str) -> Result<Self> {
        let redkeep = redkeepd()?.display().to_string();
        let cores = std::thread::available_parallelism()?;
        let rows = vec![
            ("command", format!("`{command}`")),
            ("begun", first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"])?),
            ("cores", format!("{cores}, {}", processor())),
            ("memory", memory()),
            ("kernel", first_line("uname", &["-sr"])?),
            ("redkeep", first_line(&redkeep, &["--version"])?),
            ("Redis and Sentinel", first_line("redis-server", &["--version"])?),
            ("keepalived", first_line("keepalived", &["--version"])?),
            ("load before", load()?),
        ];
        Ok(Facts { rows })
    }

    /// What is known only at the end.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.rows.push(("load after", load()?));
        self.rows.push(("ended", first_line("date", &["-u", "+%Y-%m-%d %H:%M UTC"])?));
        Ok(())
    }
}

/// Some programs tell their version on stderr.
fn first_line(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| program.to_owned())?;
    let told = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&told).into_owned();
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// Averages over 1, 5 and 15 minutes.
fn load() -> Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let averages: Vec<&str> = text.split_whitespace().take(3).collect();
    let recent: f64 = averages.first().and_then(|word| word.parse().ok()).unwrap_or_default();
    let busy = recent > std::thread::available_parallelism()?.get() as f64;
    let remark = if busy { ": other work kept the machine busy" } else { "" };
    Ok(format!("{}{remark}", averages.join(" ")))
}

fn processor() -> String {
    value_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "processor not named".to_owned())
}

fn memory() -> String {
    let told = value_of("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kilobytes: f64 =
        told.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default();
    format!("{:.1} GiB", kilobytes / f64::from(1 << 20))
}

fn value_of(file: &str, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
