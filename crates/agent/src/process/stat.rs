//! Reading a process's life signs from `/proc/PID/stat` and `/proc/PID/status` (proc(5)).
//!
//! Invariant: a process is named by pid *and* start time, so a reused pid reads as gone.

use std::io;

/// `PF_EXITING` of `include/linux/sched.h`: the main thread is in `do_exit`; it runs no program code any more.
const PF_EXITING: u64 = 0x4;
/// `PF_DUMPCORE`: the process writes its core; it runs no program code any more.
const PF_DUMPCORE: u64 = 0x200;
/// SIGKILL's bit in the `SigPnd` and `ShdPnd` masks.
const SIGKILL_BIT: u64 = 1 << 8;

/// A process, safe against reuse of its pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// Process id in our pid namespace.
    pub pid: u32,
    /// Start time in clock ticks since boot, field 22 of `/proc/PID/stat`.
    pub start_time_ticks: u64,
}

/// What `/proc` says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeState {
    /// It can run its program.
    Alive {
        /// Number of threads.
        threads: u32,
    },
    /// It will not run its program again, but may still hold memory and sockets.
    Dying,
    /// No such process, or its pid names another one.
    Gone,
}

impl ProcessId {
    /// The process that has `pid` now.
    ///
    /// # Errors
    /// `NotFound` if there is none; else what reading `/proc` gave.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = read_stat(pid)?;
        Ok(Self { pid, start_time_ticks: stat.start_time_ticks })
    }
}

/// Reads the life signs of `process`: two small files, about 30 us.
///
/// A pending SIGKILL counts as dying: the main thread may need milliseconds to take note of it, program code it runs no more.
///
/// # Errors
/// Reading `/proc` failed although the process may exist.
pub fn life_state(process: ProcessId) -> io::Result<LifeState> {
    let stat = match read_stat(process.pid) {
        Ok(stat) => stat,
        Err(error) if is_gone(&error) => return Ok(LifeState::Gone),
        Err(error) => return Err(error),
    };
    if stat.start_time_ticks != process.start_time_ticks {
        return Ok(LifeState::Gone);
    }
    let ended = matches!(stat.state, b'Z' | b'X' | b'x');
    if ended || stat.flags & (PF_EXITING | PF_DUMPCORE) != 0 || kill_pending(process.pid) {
        return Ok(LifeState::Dying);
    }
    Ok(LifeState::Alive { threads: stat.threads })
}

fn is_gone(error: &io::Error) -> bool {
    // A read of an open file of a process that was reaped meanwhile fails with ESRCH.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: u8,
    flags: u64,
    threads: u32,
    start_time_ticks: u64,
}

fn read_stat(pid: u32) -> io::Result<Stat> {
    let text = std::fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The name in field 2 may hold anything, `)` and spaces included: fields are counted from the last `)`.
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let name_end = text.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(text.get(name_end + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // fields[0] is field 3 of proc(5).
    let field = |number: usize| fields.get(number - 3).copied();
    Some(Stat {
        state: *field(3)?.as_bytes().first()?,
        flags: field(9)?.parse().ok()?,
        threads: field(20)?.parse().ok()?,
        start_time_ticks: field(22)?.parse().ok()?,
    })
}

fn kill_pending(pid: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return false;
    };
    status
        .lines()
        .filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")))
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask & SIGKILL_BIT != 0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_the_last_parenthesis() {
        let text = b"42 (a) R (b) S 1 42 42 0 -1 4194308 10 0 0 0 1 2 0 0 20 0 5 0 987654 1 2";
        assert_eq!(
            parse_stat(text),
            Some(Stat { state: b'S', flags: 4_194_308, threads: 5, start_time_ticks: 987_654 })
        );
        assert_eq!(parse_stat(b"42 (a"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn own_process_is_alive_and_another_start_time_is_gone() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(matches!(life_state(own).unwrap(), LifeState::Alive { threads } if threads >= 1));
        let reused = ProcessId { start_time_ticks: own.start_time_ticks + 1, ..own };
        assert_eq!(life_state(reused).unwrap(), LifeState::Gone);
    }
}
