//! What scenarios ask of a pair, over and over: who is master, one writer only, healed.
//!
//! Counts, losses and order are exact; times are bounded generously, since a busy machine
//! delays everything but must not excuse a second master.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::pair::Pair;
use crate::process::wait_until;
use crate::redis::{PASSWORD, PORT};
use crate::resp::Reply;
use crate::supervisor::wait_status;
use crate::tempo::slowed;
use crate::time::Mono;
use crate::timeline::Timeline;
use crate::verdict::{Outcome, Verdict};
use crate::writer::Ack;

const LIMIT: Duration = Duration::from_secs(60);

/// Who rules, as one node answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Node of the first group's master.
    pub master: String,
    pub epoch: u64,
    /// Node that leads in Raft.
    pub leader: String,
}

impl Assignment {
    /// The same master by the same decision. Who leads may be another: a busy machine moves that.
    pub fn is_as(&self, before: &Self) -> bool {
        (&self.master, self.epoch) == (&before.master, before.epoch)
    }

    /// Reads `redkeepctl -o json status`.
    pub fn of(status: &Value) -> Option<Self> {
        let group = status["groups"].as_array()?.first()?;
        let epoch = &group["epoch"];
        // JSON of protobuf writes 64-bit numbers as text.
        let epoch = epoch.as_u64().or_else(|| epoch.as_str()?.parse().ok())?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let leader = text(&status["leader"]).filter(|name| !name.is_empty())?;
        Some(Assignment { master: text(&group["master"])?, epoch, leader })
    }
}

impl Pair {
    /// Who rules, once `endpoint` knows it.
    pub fn assignment(&self, endpoint: &str) -> Result<Assignment> {
        let known = |status: &Value| Assignment::of(status).is_some();
        let status = wait_status(self.lab(), endpoint, "an assignment", slowed(LIMIT), known)?;
        Assignment::of(&status).context("no assignment")
    }

    /// Waits until `host` is an open, connected replica of `master`, as seen from `c`, and the
    /// group is healthy with that master and `host` eligible, as `endpoint` answers.
    pub fn wait_replica(&self, host: &str, master: &str, endpoint: &str) -> Result<()> {
        let at = SocketAddr::from((self.host(host)?.address(), PORT));
        let source = self.host(master)?.address().to_string();
        let mut last = String::new();
        let follows = || {
            let role = self.host("c").ok()?.redis(at, PASSWORD, &["ROLE"]);
            last = format!("{role:?}");
            let role = role.ok()?;
            let words = role.elements();
            let word = |index: usize| words.get(index).and_then(Reply::text).unwrap_or_default();
            let connected = word(1) == source && word(3) == "connected";
            (word(0) == "slave" && connected).then_some(())
        };
        wait_until(&format!("{host} to be a replica of {master}"), slowed(LIMIT), follows)
            .with_context(|| format!("last answer of {host} to ROLE: {last}"))?;
        let eligible = |status: &Value| {
            let Some(group) = status["groups"].as_array().and_then(|groups| groups.first()) else {
                return false;
            };
            let members = group["eligible"].as_array().map_or(&[][..], Vec::as_slice);
            group["serving"].as_bool() == Some(true)
                && group["master"].as_str() == Some(master)
                && members.iter().any(|member| member["node"].as_str() == Some(host))
        };
        let what = format!("{host} to be eligible under {master}");
        wait_status(self.lab(), endpoint, &what, slowed(LIMIT), eligible).map(drop)
    }

    /// Waits until the leader, as `endpoint` forwards, hears all nodes.
    pub fn wait_all_heard(&self, endpoint: &str) -> Result<()> {
        let heard = |status: &Value| {
            let nodes = status["nodes"].as_array().map_or(&[][..], Vec::as_slice);
            let all = |node: &Value| {
                node["heard"].as_bool() == Some(true) && node["applied"] == status["applied"]
            };
            !nodes.is_empty() && nodes.iter().all(all)
        };
        wait_status(self.lab(), endpoint, "all nodes to be heard", LIMIT, heard).map(drop)
    }

    /// Lets the clients on `c` write for at least `span`.
    pub fn keep_writing(&self, span: Duration) -> Result<()> {
        let started = Mono::now();
        let clients = &self.writers()[..2];
        while Mono::now().since(started) < span {
            clients.iter().try_for_each(|writer| writer.wait_more(5, slowed(LIMIT)))?;
        }
        clients.iter().try_for_each(|writer| writer.wait_more(20, slowed(LIMIT)))
    }

    /// What supervisors and kernels saw in a window, for the report of a failure.
    pub fn story(&self, from: Mono, to: Mono) -> Timeline {
        let mut timeline = Timeline::since(from);
        for watch in self.events() {
            timeline.extend(watch.moments(|event| {
                let kind = event["kind"].as_str().unwrap_or_default();
                Some(format!("{kind} {}", event["text"].as_str().unwrap_or_default()))
            }));
        }
        timeline.extend(self.address_moments());
        timeline.keep_within(from, to);
        timeline
    }

    /// Prints what happened since `from` when service came back later than `limit`: whose fault was it?
    pub fn tell_if_slow(&self, verdict: &Verdict, limit: Duration, from: Mono) {
        if verdict.service_back.is_some_and(|back| back > limit) {
            println!("{}", self.story(from, Mono::now()));
        }
    }

    /// Whether a supervisor told in the window that the disk of its log stalled. All hosts share the disk of this machine.
    pub fn disk_stalled(&self, from: Mono, to: Mono) -> bool {
        let story = self.story(from, to);
        story.moments().iter().any(|moment| moment.what.starts_with("disk_stalled"))
    }

    /// Whether a member's kernel lost the VIP in the window.
    pub fn vip_was_lost(&self, from: Mono, to: Mono) -> bool {
        let lost = format!("lost {}", self.vip().ip());
        let moments = self.address_moments();
        moments.iter().any(|moment| moment.at >= from && moment.at < to && moment.what == lost)
    }
}

impl Verdict {
    /// Fails unless no moment is proven at which two servers acknowledged.
    ///
    /// Judged by the bounds of the answers' arrival: a client that was not scheduled reads an
    /// old answer late, which is no second master.
    pub fn ensure_one_master(&self) -> Result<()> {
        let found = self.two_masters;
        ensure!(self.old_server.is_some(), "nobody wrote before the fault: {self}");
        ensure!(found.proven == Duration::ZERO && found.writes == 0, "two masters: {self}");
        Ok(())
    }

    /// Fails if a write acknowledged further than `span` from the fault was lost.
    pub fn ensure_lost_within(&self, span: Duration) -> Result<()> {
        let distant = |found: Option<Duration>| found.is_some_and(|found| found > span);
        ensure!(!distant(self.first_lost_before_fault), "lost long before the fault: {self}");
        ensure!(!distant(self.last_lost_after_fault), "lost long after the fault: {self}");
        Ok(())
    }
}

impl Outcome {
    /// Fails if the server's acknowledgements go on after `until`, by their bounds of arrival.
    pub fn ensure_silent_after(&self, server: &str, until: Mono) -> Result<()> {
        let acks = self.writers().iter().flat_map(|(_, record)| &record.acks);
        let late: Vec<&Ack> =
            acks.filter(|ack| *ack.server == *server && ack.absent_at > until).collect();
        let example = late.first();
        ensure!(late.is_empty(), "{server} acknowledged {} writes: {example:?}", late.len());
        Ok(())
    }
}

/// An address of the founding port.
pub fn redis_at(address: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(address.into(), PORT)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn assignment_is_read_from_numbers_and_from_text() {
        let expected = Assignment { master: "a".to_owned(), epoch: 3, leader: "w".to_owned() };
        for epoch in [json!(3), json!("3")] {
            let status = json!({ "leader": "w", "groups": [{ "master": "a", "epoch": epoch }] });
            assert_eq!(Assignment::of(&status).as_ref(), Some(&expected));
        }
        let leaderless = json!({ "leader": "", "groups": [{ "master": "a", "epoch": 3 }] });
        assert_eq!(Assignment::of(&leaderless), None);
    }
}
