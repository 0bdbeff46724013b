//! The nemesis judges real runs: one whose lock was removed is convicted.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use redkeep_lab::nemesis::{Fault, Plan, Role, Step, run};

/// The master's supervisor is killed, its host cut off, and its lock removed by root: all that would stop it is
/// the address's lifetime. A client on its side is acknowledged while the other host serves.
#[test]
fn a_master_without_its_lock_is_convicted() -> Result<()> {
    let at = Duration::from_secs(2);
    let length = Duration::from_secs(3);
    let step = |fault, length| Step { at, fault, target: Role::Master, length };
    let steps = vec![
        step(Fault::KillSupervisor, length),
        step(Fault::Cut, length),
        step(Fault::Sabotage, Duration::ZERO),
    ];
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nemesis");
    let run = run(&Plan { seed: 0, steps }, &out)?;
    println!("{}", run.judgement);
    let violations = &run.judgement.violations;
    ensure!(run.judgement.two_masters > Duration::from_millis(100), "{violations:?}");
    ensure!(violations.iter().any(|told| told.starts_with("two masters")), "{violations:?}");
    ensure!(violations.iter().any(|told| told.contains("without a fault")), "{violations:?}");
    ensure!(run.dir.join("history.jsonl").exists(), "no history");
    Ok(())
}
