//! The nemesis judges real runs: one whose lock was removed is convicted.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use redkeep_lab::nemesis::{Fault, Plan, Role, Step, run};

/// Every supervisor of the cluster is killed and started again; then stress-ng takes all cores of the machine.
#[test]
fn supervisors_killed_together_and_starved_ones_make_no_second_master() -> Result<()> {
    let step = |at, fault, length| Step {
        at: Duration::from_millis(at),
        fault,
        target: Role::Witness,
        length: Duration::from_millis(length),
    };
    let steps =
        vec![step(2_000, Fault::KillAllSupervisors, 300), step(6_000, Fault::Starve, 3_000)];
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nemesis-all");
    let run = run(&Plan { seed: 0, steps }, &out)?;
    println!("{}", run.judgement);
    let violations = &run.judgement.violations;
    ensure!(violations.is_empty(), "{violations:?}");
    Ok(())
}

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
