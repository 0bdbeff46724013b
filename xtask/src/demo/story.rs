//! An act's timeline, from what supervisors, kernels and clients saw.

use std::collections::BTreeSet;

use redkeep_lab::{Pair, Timeline, Verdict, WallOffset};
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

/// `KIND: sentence` of an event worth telling.
fn words(event: &Value) -> Option<String> {
    let kind = event["kind"].as_str()?.to_uppercase().replace('-', "_");
    let kind = kind.trim_start_matches("EVENT_KIND_");
    if !TOLD.contains(&kind) {
        return None;
    }
    let text = event["text"].as_str().unwrap_or_default();
    Some(format!("{:<18} {text}", kind.to_lowercase().replace('_', " ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_told_by_kind_however_it_is_spelt() {
        for kind in ["EVENT_KIND_PROMOTED", "promoted", "Promoted"] {
            let told = words(&json!({ "kind": kind, "text": "master now" }));
            assert_eq!(told.as_deref(), Some("promoted           master now"));
        }
        assert_eq!(words(&json!({ "kind": "lease_granted" })), None);
    }
}
