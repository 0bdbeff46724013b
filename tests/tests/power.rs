//! Hosts that lose their power, and what they find closed when it comes back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    DataSet, Failure, Figure, Mono, Pair, Writer, WriterSpec, boot_units, drop_in, redis_at,
    repetitions, wait_until,
};

const LEASE: Duration = Duration::from_millis(300);
/// Writes of this long before the fault tell who was master.
const WARM: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(60);
/// The table says lease + 60 ms; ten times that catches a hang on a busy machine.
const SERVICE_LIMIT: Duration = Duration::from_millis(3600);

#[test]
fn host_powered_off_is_replaced_when_its_lease_is_over() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&["na", "nb"])?;
    let mut back = Figure::new("service back, master's host powered off");
    for _ in 0..repetitions(3, 10) {
        let old = pair.master()?;
        let begun = Mono::now();
        let fault = pair.lab().power_off(&old)?;
        let taken =
            pair.wait_taken_over(&old, fault).with_context(|| pair.story(begun, Mono::now()))?;
        let new = taken.server.split(':').next().unwrap_or_default().to_owned();
        pair.keep_writing(LEASE)?;
        pair.lab().power_on(&old)?;
        boot_units(pair.host(&old)?)?;
        pair.restart_redis(&old, DataSet::Kept)?;
        pair.restart_supervisor(&old)?;
        pair.wait_replica(&old, &new, "w").with_context(|| pair.story(begun, Mono::now()))?;
        let end = Mono::now();
        let verdict = pair.outcome()?.since(begun - WARM).verdict(fault, end);
        println!("{old} off: {verdict}");
        pair.tell_if_slow(&verdict, LEASE + Duration::from_millis(60), fault);
        let judge = || -> Result<()> {
            verdict.ensure_one_master()?;
            verdict.ensure_lost_within(LEASE)?;
            ensure!(verdict.service_back.is_some_and(|back| back < SERVICE_LIMIT), "too late");
            Ok(())
        };
        judge().with_context(|| format!("{verdict}\n{}", pair.story(begun, end)))?;
        back.add(verdict.service_back.unwrap_or_default());
    }
    back.print();
    Ok(())
}

#[test]
fn witness_lost_and_back_moves_nothing() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&[])?;
    let before = pair.assignment("w")?;
    let mut gap = Figure::new("write gap, witness lost and back");
    for _ in 0..repetitions(2, 10) {
        let fault = pair.lab().power_off("w")?;
        pair.keep_writing(LEASE * 5)?;
        pair.lab().power_on("w")?;
        pair.restart_supervisor("w")?;
        pair.wait_all_heard("w")?;
        pair.keep_writing(LEASE * 2)?;
        let end = Mono::now();
        let after = pair.assignment("w")?;
        let verdict = pair.outcome()?.since(fault - WARM).verdict(fault, end);
        println!("witness off and on, leader {} then {}: {verdict}", before.leader, after.leader);
        let judge = || -> Result<()> {
            let same = after.is_as(&before);
            ensure!(same, "moved: {after:?}");
            ensure!(verdict.service_back.is_none(), "another server answered");
            ensure!(verdict.lost == 0, "lost");
            ensure!(!pair.vip_was_lost(fault, end), "the VIP was gone");
            ensure!(verdict.write_gap < Duration::from_secs(10), "writes stopped");
            Ok(())
        };
        judge().with_context(|| format!("{verdict}\n{}", pair.story(fault, end)))?;
        gap.add(verdict.write_gap);
    }
    gap.print();
    Ok(())
}

/// Redis comes up by its own file, as a master, and nobody supervises it yet.
#[test]
fn rebooted_host_keeps_its_port_closed_until_it_is_a_replica() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&["na", "nb"])?;
    for _ in 0..repetitions(2, 10) {
        let begun = Mono::now();
        // Only a's file makes a master; b's names a to follow.
        ensure!(pair.master()? == "a", "the scenario begins with the master on a");
        let fault = pair.lab().reboot("a")?;
        boot_units(pair.host("a")?)?;
        let spec = WriterSpec::fresh("direct", redis_at(pair.host("a")?.address()));
        let direct = Writer::start(pair.host("nb")?, spec.beside_victim())?;
        drop_in(pair.host("a")?)?;
        let started = pair.restart_redis("a", DataSet::Kept)?;
        ensure_is_master(&pair)?;
        wait_until("the closed port to refuse", LIMIT, || {
            let record = direct.record();
            let refused = |at: Mono| at > started;
            (record.refusals.iter().filter(|refusal| refused(refusal.at)).count() > 50)
                .then_some(())
        })?;
        let mut taken = pair.wait_taken_over("a", fault);
        if taken.is_err() {
            taken = taken.with_context(|| pair.story(begun, Mono::now()));
        }
        ensure!(taken?.server.starts_with("b:"), "a served without a grant");
        pair.restart_supervisor("a")?;
        pair.wait_replica("a", "b", "w").with_context(|| pair.story(begun, Mono::now()))?;
        wait_until("a to refuse as a replica does", LIMIT, || {
            let readonly = |failure: &Failure| matches!(failure, Failure::Answer(text) if text.starts_with("READONLY"));
            direct.record().refusals.iter().any(|refusal| readonly(&refusal.failure)).then_some(())
        })?;
        let end = Mono::now();
        let (_, record) = direct.finish();
        ensure!(record.acks.is_empty(), "a acknowledged {} direct writes", record.acks.len());
        let verdict = pair.outcome()?.since(begun - WARM).verdict(fault, end);
        println!("a rebooted: {verdict}");
        verdict.ensure_one_master()?;
        verdict.ensure_lost_within(LEASE)?;
        let back = pair.ctl(&["switchover", redkeep_lab::GROUP, "--wait", "--yes"])?;
        ensure!(back.code == Some(0), "switchover: {}{}", back.stdout, back.stderr);
        pair.wait_replica("b", "a", "w")?;
        wait_until("writes at a", LIMIT, || (pair.master().ok()? == "a").then_some(()))?;
    }
    Ok(())
}

/// Asked through a port-less way: the supervisor's is not there yet, so Redis's own log must do.
fn ensure_is_master(pair: &Pair) -> Result<()> {
    let log = pair.redis("a")?.log_text();
    ensure!(!log.contains("REPLICA sync"), "a follows somebody already: {log}");
    Ok(())
}
