//! What a run proves: writes lost, the write gap, and the time with two masters.
//!
//! Every acknowledged write is looked for in the final master. The window of a [`Verdict`] is
//! meant to hold one fault and at most one change of master; a legitimate return of the old
//! master belongs to a window of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::host::Host;
use crate::resp::Reply;
use crate::time::Mono;
use crate::writer::{Ack, Record, Refusal, Standpoint, WriterSpec};

/// Keys asked for in one `MGET`.
const KEYS_A_REQUEST: usize = 500;

/// Keys whose acknowledged values are not in the final master.
#[derive(Clone, Debug)]
pub struct LostWrite {
    pub key: String,
    pub ack: Ack,
}

/// What all writers of a run saw, and what became of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    writers: Vec<(WriterSpec, Record)>,
    lost: Vec<LostWrite>,
    /// The clients' last acknowledgement before what is kept: who was master until then.
    before: Option<Ack>,
}

impl Outcome {
    /// Looks for every acknowledged write at `master`, asked from `host`.
    pub fn collect(
        writers: Vec<(WriterSpec, Record)>,
        host: &Host,
        master: SocketAddr,
    ) -> Result<Self> {
        let password = writers.first().context("no writer")?.0.password.clone();
        let mut connection = host.connect(master, &password)?;
        let mut lost = Vec::new();
        for (spec, record) in &writers {
            for acks in record.acks.chunks(KEYS_A_REQUEST) {
                let keys: Vec<String> = acks.iter().map(|ack| spec.key(ack.sequence)).collect();
                let mut words = vec!["MGET"];
                words.extend(keys.iter().map(String::as_str));
                let reply = connection.call(&words)?;
                let values = reply.elements();
                ensure!(values.len() == keys.len(), "MGET answered {reply:?}");
                for ((key, value), ack) in keys.iter().zip(values).zip(acks) {
                    if *value != Reply::Bulk(Some(key.as_bytes().to_vec())) {
                        lost.push(LostWrite { key: key.clone(), ack: ack.clone() });
                    }
                }
            }
        }
        Ok(Outcome { writers, lost, before: None })
    }

    /// The same without what was acknowledged before `mark`; who acknowledged last is kept.
    #[must_use]
    pub fn since(mut self, mark: Mono) -> Self {
        let clients = self.writers.iter().filter(|(spec, _)| is_client(spec));
        let earlier = clients.flat_map(|(_, record)| &record.acks).filter(|ack| ack.seen < mark);
        self.before = earlier.max_by_key(seen).cloned().or(self.before);
        for (_, record) in &mut self.writers {
            record.acks.retain(|ack| ack.seen >= mark);
            record.refusals.retain(|refusal| refusal.at >= mark);
        }
        self.lost.retain(|lost| lost.ack.seen >= mark);
        self
    }

    /// Writes acknowledged by whomever.
    pub fn acked(&self) -> usize {
        self.writers.iter().map(|(_, record)| record.acks.len()).sum()
    }

    pub fn lost(&self) -> &[LostWrite] {
        &self.lost
    }

    pub fn writers(&self) -> &[(WriterSpec, Record)] {
        &self.writers
    }

    /// What went wrong for one writer in a span; empty = it was not disturbed.
    pub fn refusals(&self, writer: &str, from: Mono, to: Mono) -> Vec<&Refusal> {
        let of_writer = self.writers.iter().filter(|(spec, _)| spec.name == writer);
        of_writer
            .flat_map(|(_, record)| &record.refusals)
            .filter(|refusal| refusal.at >= from && refusal.at < to)
            .collect()
    }

    /// Judges the time from `fault` to `end`.
    pub fn verdict(&self, fault: Mono, end: Mono) -> Verdict {
        let within = |ack: &&Ack| ack.seen >= fault && ack.seen < end;
        let mut before: Option<&Ack> = self.before.as_ref();
        let mut clients: Vec<&Ack> = Vec::new();
        let mut all: Vec<&Ack> = Vec::new();
        for (spec, record) in &self.writers {
            all.extend(record.acks.iter().filter(within));
            if is_client(spec) {
                clients.extend(record.acks.iter().filter(within));
                let last = record.acks.iter().filter(|ack| ack.seen < fault).max_by_key(seen);
                before = before.max_by(last);
            }
        }
        clients.sort_by_key(|ack| ack.seen);
        let old = before.map(|ack| Arc::clone(&ack.server));
        let lost: Vec<&LostWrite> = self.lost.iter().filter(|lost| lost.ack.seen < end).collect();
        let old_name = old.as_deref().unwrap_or_default();
        let other = clients.iter().find(|ack| *ack.server != *old_name).copied();
        Verdict {
            acked: all.len(),
            lost: lost.len(),
            last_lost_after_fault: lost
                .iter()
                .filter(|lost| lost.ack.seen >= fault)
                .map(|lost| lost.ack.seen.since(fault))
                .max(),
            first_lost_before_fault: lost
                .iter()
                .filter(|lost| lost.ack.seen < fault)
                .map(|lost| fault.since(lost.ack.seen))
                .max(),
            write_gap: longest_gap(before, &clients, (fault, end)),
            service_back: other.map(|ack| ack.seen.since(fault)),
            new_server: other.map(|ack| ack.server.to_string()),
            two_masters: two_masters(&all, old_name),
            old_server: old.map(|name| name.to_string()),
        }
    }
}

/// Findings of one window.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Acknowledged inside the window, by whomever.
    pub acked: usize,
    /// Acknowledged before the window's end and not in the final master.
    pub lost: usize,
    /// Largest distance from the fault to a later acknowledgement that was lost.
    pub last_lost_after_fault: Option<Duration>,
    /// Largest distance from an earlier acknowledgement that was lost to the fault.
    pub first_lost_before_fault: Option<Duration>,
    /// Longest time in which no client at [`Standpoint::Clients`] got an acknowledgement.
    pub write_gap: Duration,
    /// From the fault to the first acknowledgement by another server; `None` if there was none.
    pub service_back: Option<Duration>,
    /// The server of the last acknowledgement before the fault.
    pub old_server: Option<String>,
    /// The first other server that acknowledged.
    pub new_server: Option<String>,
    pub two_masters: TwoMasters,
}

/// Time in which the old master still acknowledged after the new one's first acknowledgement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TwoMasters {
    /// By the instants at which clients read the answers.
    pub seen: Duration,
    /// By the bounds of the answers' arrival: at least this long, however late a client read.
    pub proven: Duration,
    /// Writes that the old master acknowledged and that were sent after the new one's first
    /// acknowledgement was read.
    pub writes: usize,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "acknowledged {}, lost {}", self.acked, self.lost)?;
        if let Some(age) = self.first_lost_before_fault {
            write!(f, " (earliest {:.1} ms before the fault)", millis(age))?;
        }
        if let Some(age) = self.last_lost_after_fault {
            write!(f, " (latest {:.1} ms after the fault)", millis(age))?;
        }
        write!(f, "; write gap {:.1} ms", millis(self.write_gap))?;
        match (self.service_back, &self.new_server) {
            (Some(back), Some(server)) => {
                write!(f, "; service back at {server} after {:.1} ms", millis(back))?;
            }
            (Some(_) | None, _) => write!(f, "; the same server went on")?,
        }
        write!(f, "; two masters for {:.1} ms", millis(self.two_masters.seen))?;
        if self.two_masters.seen > Duration::ZERO {
            let proven = millis(self.two_masters.proven);
            write!(f, " (proven {proven:.1} ms, {} writes)", self.two_masters.writes)?;
        }
        Ok(())
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

fn seen(ack: &&Ack) -> Mono {
    ack.seen
}

fn is_client(spec: &WriterSpec) -> bool {
    spec.standpoint == Standpoint::Clients
}

trait Later<'a> {
    fn max_by(self, other: Option<&'a Ack>) -> Option<&'a Ack>;
}

impl<'a> Later<'a> for Option<&'a Ack> {
    fn max_by(self, other: Option<&'a Ack>) -> Option<&'a Ack> {
        self.into_iter().chain(other).max_by_key(seen)
    }
}

/// The gap may begin before the fault and may still be open at the end of the window.
fn longest_gap(before: Option<&Ack>, acks: &[&Ack], (fault, end): (Mono, Mono)) -> Duration {
    let mut last = before.map_or(fault, |ack| ack.seen);
    let mut longest = Duration::ZERO;
    for at in acks.iter().map(|ack| ack.seen).chain([end]) {
        longest = longest.max(at.since(last));
        last = at;
    }
    longest
}

fn two_masters(acks: &[&Ack], old: &str) -> TwoMasters {
    let mut first_of_others: Option<&Ack> = None;
    let mut by_server: BTreeMap<&str, Vec<&Ack>> = BTreeMap::new();
    for ack in acks {
        by_server.entry(&ack.server).or_default().push(ack);
        if *ack.server != *old && first_of_others.is_none_or(|first| ack.seen < first.seen) {
            first_of_others = Some(ack);
        }
    }
    let (Some(first), Some(of_old)) = (first_of_others, by_server.get(old)) else {
        return TwoMasters::default();
    };
    let latest = |stamp: fn(&Ack) -> Mono| {
        of_old.iter().map(|ack| stamp(ack).since(first.seen)).max().unwrap_or_default()
    };
    TwoMasters {
        seen: latest(|ack| ack.seen),
        proven: latest(|ack| ack.absent_at),
        writes: of_old.iter().filter(|ack| ack.sent > first.seen).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(ms: u64, server: &str) -> Ack {
        let at = Mono(ms * 1_000_000);
        let early = at - Duration::from_millis(2);
        let server = Arc::from(server);
        Ack { sequence: ms, sent: early, absent_at: early, seen: at, server, confirmed: false }
    }

    fn outcome(acks: Vec<Ack>, lost: &[u64]) -> Outcome {
        let lost = acks
            .iter()
            .filter(|ack| lost.contains(&ack.sequence))
            .map(|ack| LostWrite { key: ack.sequence.to_string(), ack: ack.clone() })
            .collect();
        let spec = WriterSpec::fresh("t", SocketAddr::from(([127, 0, 0, 1], 1)));
        let record = Record { acks, refusals: Vec::new(), sent: 0 };
        Outcome { writers: vec![(spec, record)], lost, before: None }
    }

    fn ms(count: u64) -> Mono {
        Mono(count * 1_000_000)
    }

    #[test]
    fn gap_spans_the_fault_and_service_is_back_with_the_new_server() {
        let run = outcome(vec![ack(90, "a"), ack(98, "a"), ack(130, "b"), ack(135, "b")], &[98]);
        let verdict = run.verdict(ms(100), ms(140));
        assert_eq!(verdict.write_gap, Duration::from_millis(32));
        assert_eq!(verdict.service_back, Some(Duration::from_millis(30)));
        assert_eq!(verdict.first_lost_before_fault, Some(Duration::from_millis(2)));
        assert_eq!(verdict.two_masters, TwoMasters::default());
        assert_eq!((verdict.acked, verdict.lost), (2, 1));
    }

    #[test]
    fn old_master_after_the_new_one_is_two_masters() {
        let acks = vec![ack(98, "a"), ack(110, "b"), ack(111, "a"), ack(120, "a")];
        let found = outcome(acks, &[]).verdict(ms(100), ms(140)).two_masters;
        assert_eq!(found.seen, Duration::from_millis(10));
        assert_eq!(found.proven, Duration::from_millis(8));
        assert_eq!(found.writes, 1);
    }

    #[test]
    fn old_master_is_known_although_its_earlier_writes_were_dropped() {
        let acks = vec![ack(98, "a"), ack(110, "b"), ack(120, "a")];
        let verdict = outcome(acks, &[]).since(ms(100)).verdict(ms(100), ms(140));
        assert_eq!(verdict.old_server.as_deref(), Some("a"));
        assert_eq!(verdict.two_masters.seen, Duration::from_millis(10));
        assert_eq!(verdict.write_gap, Duration::from_millis(20));
    }

    #[test]
    fn gap_that_never_ends_lasts_to_the_end() {
        let verdict = outcome(vec![ack(98, "a")], &[]).verdict(ms(100), ms(500));
        assert_eq!(verdict.write_gap, Duration::from_millis(402));
        assert_eq!(verdict.service_back, None);
    }
}
