//! Supervisors that die: beside the master, and at the head of the cluster.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{
    ClusterFile, DataSet, Figure, Lab, Mono, Pair, RedisOptions, VIP, Verdict, Writer, WriterSpec,
    redis_at, repetitions, wait_until,
};

const LEASE: Duration = Duration::from_millis(300);
/// Writes of this long before the fault tell who was master.
const WARM: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(60);
/// Elections wait for the disk, and a busy one may take seconds for one sync; figures are printed.
const HANG_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn supervisor_restarted_within_the_lease_disturbs_nobody() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&[])?;
    let before = pair.assignment("w")?;
    let mut gap = Figure::new("write gap, supervisor beside the master restarted");
    for _ in 0..repetitions(3, 20) {
        let fault = pair.supervisor(&before.master)?.process().kill()?;
        let started = pair.restart_supervisor(&before.master)?;
        pair.keep_writing(LEASE * 4)?;
        let end = Mono::now();
        let outcome = pair.outcome()?.since(fault - WARM);
        let verdict = outcome.verdict(fault, end);
        println!("restarted after {:?}: {verdict}", started.since(fault));
        let judge = || -> Result<()> {
            let after = pair.assignment("w")?;
            let same = after.is_as(&before);
            ensure!(same, "moved: {after:?}");
            ensure!(!pair.vip_was_lost(fault, end), "the VIP was gone");
            for writer in ["fresh", "held"] {
                let refusals = outcome.refusals(writer, fault, end);
                ensure!(refusals.is_empty(), "{writer} was disturbed: {refusals:?}");
            }
            ensure!(verdict.lost == 0 && verdict.service_back.is_none(), "{verdict}");
            Ok(())
        };
        judge().with_context(|| {
            let log = pair.supervisor(&before.master).map(|it| it.process().log_text());
            format!("{verdict}\n{}\n{}", pair.story(fault, end), log.unwrap_or_default())
        })?;
        gap.add(verdict.write_gap);
        pair.wait_healthy()?;
    }
    gap.print();
    Ok(())
}

#[test]
fn supervisor_killed_for_good_leaves_a_host_that_refuses_all_writers() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&["na", "nb"])?;
    let mut back = Figure::new("service back, supervisor beside the master killed for good");
    for _ in 0..repetitions(2, 10) {
        let old = pair.master()?;
        let instance = pair.redis(&old)?.instance();
        let begun = Mono::now();
        // One writer on the old host itself and one straight to its Redis, past the VIP.
        let own = WriterSpec::fresh("own", std::net::SocketAddr::from((VIP, redkeep_lab::PORT)));
        let own = Writer::start(pair.host(&old)?, own.beside_victim())?;
        let direct = WriterSpec::held("direct", redis_at(pair.host(&old)?.address()));
        let direct = Writer::start(pair.host("c")?, direct.beside_victim())?;
        for writer in [&own, &direct] {
            writer.wait_more(20, LIMIT)?;
        }
        let fault = pair.supervisor(&old)?.process().kill()?;
        let taken =
            pair.wait_taken_over(&old, fault).with_context(|| pair.story(begun, Mono::now()))?;
        let new = taken.server.split(':').next().unwrap_or_default().to_owned();
        // Past the kernel's own removal of the address, which takes 1.75 s at most.
        pair.keep_writing(Duration::from_millis(2500))?;
        ensure!(!pair.host(&old)?.has_address(IpAddr::V4(VIP))?, "{old} still has the VIP");
        let refused = Mono::now();
        let mut records = pair.records();
        records.extend([own.finish(), direct.finish()]);
        let outcome = redkeep_lab::Outcome::collect(
            records,
            pair.host("c")?,
            (VIP, redkeep_lab::PORT).into(),
        )?;
        let outcome = outcome.since(begun - WARM);
        let verdict = outcome.verdict(fault, refused);
        println!("{old} unsupervised: {verdict}");
        pair.tell_if_slow(&verdict, LEASE + Duration::from_millis(60), fault);
        let judge = || -> Result<()> {
            outcome.ensure_silent_after(&instance, fault + LEASE)?;
            verdict.ensure_one_master()?;
            verdict.ensure_lost_within(LEASE)?;
            ensure!(verdict.service_back.is_some_and(|back| back < LEASE * 12), "too late");
            Ok(())
        };
        judge().with_context(|| format!("{verdict}\n{}", pair.story(begun, refused)))?;
        back.add(verdict.service_back.unwrap_or_default());
        pair.restart_supervisor(&old)?;
        pair.wait_replica(&old, &new, "w").with_context(|| pair.story(begun, Mono::now()))?;
    }
    back.print();
    Ok(())
}

/// Makes a node the leader; the rule may move leadership on again.
fn make_leader(pair: &Pair, node: &str, endpoint: &str) -> Result<()> {
    wait_until(&format!("{node} to lead"), LIMIT, || {
        if pair.assignment(endpoint).ok()?.leader == node {
            return Some(());
        }
        let words = ["leader", "transfer", node, "--wait"];
        // An election may be under way; the next look tells.
        let _ = redkeep_lab::ctl(pair.lab(), endpoint, endpoint, &words);
        None
    })
}

fn lose_leaders_host(lease: &str) -> Result<()> {
    let mut pair = Pair::start(lease)?;
    pair.start_writers(&[])?;
    let mut gap = Figure::new(&format!("write gap, leader's host lost, lease {lease}"));
    for _ in 0..repetitions(2, 10) {
        let master = pair.master()?;
        make_leader(&pair, "w", &master)?;
        let before = pair.assignment(&master)?;
        let fault = pair.lab().power_off("w")?;
        pair.keep_writing(Duration::from_secs(3))?;
        pair.lab().power_on("w")?;
        pair.restart_supervisor("w")?;
        pair.wait_healthy_at(&master)?;
        pair.wait_all_heard(&master)?;
        let end = Mono::now();
        let after = pair.assignment(&master)?;
        let verdict = pair.outcome()?.since(fault - WARM).verdict(fault, end);
        println!("leader w lost, then {}: {verdict}", after.leader);
        let judge = || -> Result<()> {
            verdict.ensure_one_master()?;
            // A master whose lease lapsed meanwhile is granted again; it is silent to nobody.
            let same = after.is_as(&before);
            ensure!(same, "moved: {after:?}");
            ensure!(verdict.lost == 0, "lost");
            ensure!(verdict.write_gap < HANG_LIMIT, "writes stopped");
            Ok(())
        };
        judge().with_context(|| format!("{verdict}\n{}", pair.story(fault, end)))?;
        gap.add(verdict.write_gap);
    }
    gap.print();
    Ok(())
}

#[test]
fn leaders_host_lost_stops_no_write_with_the_default_lease() -> Result<()> {
    lose_leaders_host("1s")
}

#[test]
fn leaders_host_lost_stops_writes_briefly_with_a_short_lease() -> Result<()> {
    lose_leaders_host("300ms")
}

#[test]
fn leaders_process_and_then_the_masters_redis_killed() -> Result<()> {
    for lease in ["1s", "300ms"] {
        let mut pair = Pair::start(lease)?;
        pair.start_writers(&[])?;
        let name = format!("service back, leader's process and 10 ms later Redis, lease {lease}");
        let mut back = Figure::new(&name);
        for _ in 0..repetitions(2, 10) {
            let old = pair.master()?;
            make_leader(&pair, "w", &old)?;
            let killed = pair.supervisor("w")?.process().kill_without_waiting()?;
            while Mono::now() < killed + Duration::from_millis(10) {
                std::hint::spin_loop();
            }
            let fault = pair.redis(&old)?.process().kill_without_waiting()?;
            let verdict = replaced(&mut pair, &old, fault)?;
            back.add(verdict.service_back.unwrap_or_default());
            pair.redis(&old)?.process().wait(LIMIT)?;
            pair.restart_redis(&old, DataSet::Kept)?;
            pair.restart_supervisor("w")?;
            let new = pair.master()?;
            pair.wait_replica(&old, &new, &new)?;
            pair.wait_all_heard(&new)?;
        }
        back.print();
    }
    Ok(())
}

/// Five supervisors: two hosts lost leave a majority.
#[test]
fn leaders_host_lost_together_with_the_masters() -> Result<()> {
    for lease in ["1s", "300ms"] {
        let lab = Lab::builder().host("x", 5).host("y", 6).build()?;
        let mut file = ClusterFile::founding(&lab, lease)?;
        for name in ["x", "y"] {
            file.nodes.push((name.to_owned(), lab.host(name)?.address()));
        }
        let mut pair = Pair::start_in(lab, &file, &RedisOptions::default())?;
        pair.start_writers(&["na", "nb"])?;
        let name = format!("service back, leader's and master's hosts lost, lease {lease}");
        let mut back = Figure::new(&name);
        for _ in 0..repetitions(1, 10) {
            let old = pair.master()?;
            let new = pair.other(&old)?.to_owned();
            make_leader(&pair, "w", &new)?;
            // Silent first: removing a host takes a busy machine a while.
            pair.lab().cut("w")?;
            let fault = pair.lab().power_off(&old)?;
            pair.lab().power_off("w")?;
            let verdict = replaced(&mut pair, &old, fault)?;
            back.add(verdict.service_back.unwrap_or_default());
            for host in ["w", old.as_str()] {
                pair.lab().power_on(host)?;
            }
            pair.restart_redis(&old, DataSet::Kept)?;
            for host in ["w", old.as_str()] {
                pair.restart_supervisor(host)?;
            }
            pair.wait_replica(&old, &new, &new)?;
            pair.wait_all_heard(&new)?;
        }
        back.print();
    }
    Ok(())
}

/// The leader and the master on one host: three supervisors, of which two are left.
#[test]
fn masters_host_lost_while_it_leads() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&["na", "nb"])?;
    let mut back = Figure::new("service back, master's host lost while it leads, lease 300ms");
    for _ in 0..repetitions(1, 10) {
        let old = pair.master()?;
        make_leader(&pair, &old, "w")?;
        let fault = pair.lab().power_off(&old)?;
        let verdict = replaced(&mut pair, &old, fault)?;
        back.add(verdict.service_back.unwrap_or_default());
        pair.lab().power_on(&old)?;
        pair.restart_redis(&old, DataSet::Kept)?;
        pair.restart_supervisor(&old)?;
        let new = pair.other(&old)?.to_owned();
        pair.wait_replica(&old, &new, "w")?;
        pair.wait_all_heard("w")?;
    }
    back.print();
    Ok(())
}

/// Waits for the other member and judges.
fn replaced(pair: &mut Pair, old: &str, fault: Mono) -> Result<Verdict> {
    pair.wait_taken_over(old, fault).with_context(|| pair.story(fault, Mono::now()))?;
    pair.keep_writing(LEASE)?;
    let end = Mono::now();
    let verdict = pair.outcome()?.since(fault - WARM).verdict(fault, end);
    println!("{old} replaced: {verdict}");
    let judge = || -> Result<()> {
        verdict.ensure_one_master()?;
        verdict.ensure_lost_within(LEASE)?;
        ensure!(verdict.service_back.is_some_and(|back| back < HANG_LIMIT), "too late");
        Ok(())
    };
    judge().with_context(|| format!("{verdict}\n{}", pair.story(fault, end)))?;
    Ok(verdict)
}
