//! An act's timeline, from what supervisors, kernels and clients saw.

use std::collections::BTreeSet;

use redkeep_lab::{EventWatch, Pair, Timeline, Verdict, WallOffset};
use serde_json::Value;

use super::Act;

/// Events that tell the story; leases and elections of every day do not.
const TOLD: [&str; 15] = [
    "REDIS_DOWN",
    "REDIS_UP",
    "FENCING",
    "FENCED",
    "LEASE_LOST",
    "ASSIGNED",
    "PROMOTED",
    "VIP_UP",
    "VIP_GONE",
    "VIP_RIVAL",
    "SERVING",
    "FOLLOWING",
    "SWITCHOVER_STARTED",
    "SWITCHOVER_ABORTED",
    "LEADER_CHANGED",
];

/// The steps of a takeover by the first event that tells each; a node that is cut off or dead
/// tells nothing, so a step may be missing.
const STEPS: [(&str, &str); 5] = [
    ("REDIS_DOWN", "detected"),
    ("FENCED", "fenced"),
    ("ASSIGNED", "decided"),
    ("PROMOTED", "promoted"),
    ("VIP_UP", "VIP up"),
];

/// One line: when each step of the takeover was done, from the fault; empty if there was none.
pub(super) fn steps(pair: &Pair, act: &Act, verdict: &Verdict) -> String {
    let Some(back) = verdict.service_back else { return String::new() };
    let events: Vec<_> = pair.events().iter().flat_map(EventWatch::events).collect();
    let first = |wanted: &str| {
        let told = events.iter().filter(|(at, event)| *at >= act.fault && is_kind(event, wanted));
        told.map(|(at, _)| at.since(act.fault)).filter(|after| *after <= back).min()
    };
    let mut steps: Vec<String> = Vec::new();
    for (kind, step) in STEPS {
        steps.extend(first(kind).map(|after| format!("{step} {:.1}", after.as_secs_f64() * 1e3)));
    }
    steps.push(format!("first write {:.1} ms", back.as_secs_f64() * 1e3));
    steps.join(", ")
}

pub(super) fn timeline(pair: &Pair, act: &Act, verdict: &Verdict) -> Timeline {
    let (fault, end) = (act.fault, act.end);
    let mut timeline = Timeline::since(fault);
    for watch in pair.events() {
        // Each node applies the same decision; its first telling by each node is enough.
        let mut told = BTreeSet::new();
        for (at, event) in watch.events().into_iter().filter(|(at, _)| *at >= fault && *at < end) {
            if let Some(text) = words(&event)
                && told.insert(text.clone())
            {
                timeline.add(at, &format!("node {}", watch.node()), text);
            }
        }
    }
    timeline.extend(pair.address_moments());
    let offset = WallOffset::measure();
    for host in ["a", "b"] {
        if let Ok(redis) = pair.redis(host) {
            let witness = format!("redis {host}");
            for at in redis.promotions(offset) {
                timeline.add(at, &witness, "logs MASTER MODE enabled");
            }
        }
    }
    timeline.keep_within(fault, end);
    timeline.add(fault, "demo", act.deed.as_str());
    if let (Some(back), Some(server)) = (verdict.service_back, &verdict.new_server) {
        timeline.add(fault + back, "client c", format!("first write acknowledged by {server}"));
    }
    timeline
}

fn is_kind(event: &Value, wanted: &str) -> bool {
    event["kind"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case(wanted))
}

/// Kind and sentence of an event worth telling.
fn words(event: &Value) -> Option<String> {
    let kind = TOLD.iter().find(|kind| is_kind(event, kind))?;
    let text = event["text"].as_str().unwrap_or_default();
    Some(format!("{:<18} {text}", kind.to_lowercase().replace('_', " ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_belongs_to_the_story_is_told() {
        let told = words(&json!({ "kind": "vip_up", "text": "the VIP is up" }));
        assert_eq!(told.as_deref(), Some("vip up             the VIP is up"));
        assert_eq!(words(&json!({ "kind": "lease_granted" })), None);
    }
}
