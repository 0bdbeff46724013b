//! What a supervisor costs while nothing happens.

use std::time::Duration;

use anyhow::{Result, ensure};
use redkeep_lab::{Mono, Pair, Usage};

/// Long enough for the 10 ms steps of the kernel's accounts.
const SPAN: Duration = Duration::from_secs(15);
/// The table says 1.5 % of a core and 30 MB; three times that on a busy machine.
const CPU_LIMIT: f64 = 0.045;
const RESIDENT_LIMIT: u64 = 90 << 20;

#[test]
fn idle_supervisor_costs_next_to_nothing() -> Result<()> {
    let pair = Pair::start("300ms")?;
    for events in pair.events() {
        events.stop()?;
    }
    let names = ["a", "b", "w"];
    let usage = |name: &str| -> Result<Usage> { pair.supervisor(name)?.process().usage() };
    let before: Vec<Usage> = names.into_iter().map(usage).collect::<Result<_>>()?;
    let began = Mono::now();
    // The passing of time is what is measured; there is no condition to wait for.
    std::thread::sleep(SPAN);
    let after: Vec<Usage> = names.into_iter().map(usage).collect::<Result<_>>()?;
    let span = Mono::now().since(began);
    for ((name, before), after) in names.into_iter().zip(&before).zip(&after) {
        let share = (after.cpu - before.cpu).as_secs_f64() / span.as_secs_f64();
        let megabytes = after.resident as f64 / f64::from(1 << 20);
        println!(
            "FIGURE idle, supervisor {name}: {:.2} % of a core, {megabytes:.1} MB resident ({} s)",
            share * 100.0,
            span.as_secs()
        );
        ensure!(share <= CPU_LIMIT, "{name} uses {:.1} % of a core", share * 100.0);
        ensure!(after.resident <= RESIDENT_LIMIT, "{name} holds {megabytes:.1} MB");
    }
    let status = pair.assignment("w")?;
    ensure!(status.master == "a", "moved while idle: {status:?}");
    Ok(())
}
