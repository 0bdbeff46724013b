//! Somebody removes by hand what a supervisor keeps: an address, a ruleset.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redkeep_lab::{Figure, Mono, Pair, VIP, repetitions, slowed, wait_until};

/// Writes of this long before the fault tell who was master.
const WARM: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(30);
/// The table says 50 ms; ten times that catches a hang on a busy machine.
const MENDED_LIMIT: Duration = Duration::from_millis(500);

/// When the master's kernel lost the VIP and when it had it again.
fn mended(pair: &Pair, host: &str, from: Mono) -> Option<(Mono, Mono)> {
    let witness = format!("kernel {host}");
    let moments: Vec<_> = pair
        .address_moments()
        .into_iter()
        .filter(|moment| moment.witness == witness && moment.at >= from)
        .collect();
    let lost = moments.iter().position(|moment| moment.what == format!("lost {VIP}"))?;
    let back = moments[lost..].iter().find(|moment| moment.what == format!("has {VIP}"))?;
    Some((moments[lost].at, back.at))
}

/// Waits for an event of a kind at the node of a host, seen since `from`.
fn wait_event(pair: &Pair, host: &str, kind: &str, from: Mono) -> Result<()> {
    let watch = pair.events().iter().find(|watch| watch.node() == host).context("no watch")?;
    let is_kind = |value: &serde_json::Value| {
        let found = value["kind"].as_str().unwrap_or_default().to_uppercase().replace('-', "_");
        found.trim_start_matches("EVENT_KIND_") == kind
    };
    wait_until(&format!("event {kind} at {host}"), LIMIT, || {
        let events = watch.events();
        events.iter().any(|(at, value)| *at >= from && is_kind(value)).then_some(())
    })
}

#[test]
fn vip_removed_by_hand_is_back() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&[])?;
    let before = pair.assignment("w")?;
    let mut back = Figure::new("VIP back after ip addr del");
    for _ in 0..repetitions(3, 20) {
        let begun = Mono::now();
        pair.host(&before.master)?.remove_address(IpAddr::V4(VIP))?;
        let seen = || mended(&pair, &before.master, begun);
        let (lost, again) = wait_until("the VIP to be back", LIMIT, seen)
            .with_context(|| pair.story(begun, Mono::now()))?;
        back.add(again.since(lost));
        ensure!(again.since(lost) < slowed(MENDED_LIMIT), "back after {:?}", again.since(lost));
        wait_event(&pair, &before.master, "VIP_RESTORED", begun)?;
        pair.keep_writing(Duration::from_millis(300))?;
    }
    back.print();
    let after = pair.assignment("w")?;
    ensure!(after.is_as(&before), "moved: {after:?}");
    let outcome = pair.finish_writers()?;
    ensure!(outcome.lost().is_empty(), "lost {} writes", outcome.lost().len());
    Ok(())
}

#[test]
fn stray_vip_without_a_lease_is_removed() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&[])?;
    let before = pair.assignment("w")?;
    let other = pair.other(&before.master)?.to_owned();
    let begun = Mono::now();
    pair.host(&other)?.run_ok(&["ip", "addr", "add", &format!("{VIP}/32"), "dev", "eth0"])?;
    let gone = || (!pair.host(&other).ok()?.has_address(IpAddr::V4(VIP)).ok()?).then(Mono::now);
    let at = wait_until("the stray VIP to be removed", LIMIT, gone)?;
    let mut figure = Figure::new("stray VIP removed");
    figure.add(at.since(begun));
    figure.print();
    wait_event(&pair, &other, "VIP_STRAY", begun)?;
    pair.keep_writing(Duration::from_millis(300))?;
    let verdict = pair.outcome()?.verdict(begun, Mono::now());
    verdict.ensure_one_master()?;
    ensure!(verdict.service_back.is_none() && verdict.lost == 0, "{verdict}");
    Ok(())
}

/// `nft flush ruleset` spares a table that a living process owns (kernel 6.9 and later, flags
/// owner and persist); elsewhere the table comes back closed and a renewal opens it.
#[test]
fn flushed_ruleset_leaves_the_lock_standing_or_closed() -> Result<()> {
    let mut pair = Pair::start("300ms")?;
    pair.start_writers(&[])?;
    let before = pair.assignment("w")?;
    let master = pair.host(&before.master)?;
    let table = || master.run_ok(&["nft", "-s", "list", "table", "inet", "redkeep"]);
    let owned = table()?.contains("owner");
    let mut gap = Figure::new("write gap, nft flush ruleset");
    for _ in 0..repetitions(3, 20) {
        let begun = Mono::now();
        let flushed = master.run(&["nft", "flush", "ruleset"])?;
        println!("owned {owned}; nft flush ruleset: {}", flushed.status);
        let back = || table().ok().filter(|text| text.contains("guarded")).map(|_| Mono::now());
        let stands = wait_until("the table", LIMIT, back)?;
        pair.keep_writing(slowed(Duration::from_millis(600)))?;
        let end = Mono::now();
        let verdict = pair.outcome()?.since(begun - slowed(WARM)).verdict(begun, end);
        let judge = || -> Result<()> {
            ensure!(
                stands.since(begun) < slowed(MENDED_LIMIT),
                "table back after {:?}",
                stands.since(begun)
            );
            ensure!(verdict.service_back.is_none() && verdict.lost == 0, "{verdict}");
            if owned {
                let refusals = pair.outcome()?;
                let refusals = refusals.refusals("held", begun, end);
                ensure!(refusals.is_empty(), "disturbed: {refusals:?}");
            } else {
                wait_event(&pair, &before.master, "LOCK_LOST", begun)?;
            }
            Ok(())
        };
        judge().with_context(|| format!("{verdict}\n{}", pair.story(begun, end)))?;
        gap.add(verdict.write_gap);
    }
    gap.print();
    let after = pair.assignment("w")?;
    ensure!(after.is_as(&before), "moved: {after:?}");
    Ok(())
}
