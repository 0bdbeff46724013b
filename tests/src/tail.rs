//! Whether what was lost is the unreplicated tail and nothing else.
//!
//! Replication is a stream: a replica that lacks a write lacks every later one too. So a write
//! that is lost while a later one of the same master survives was lost by something else.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::time::Mono;
use crate::verdict::Outcome;
use crate::writer::Ack;

impl Outcome {
    /// The same without what was acknowledged before `server` became the master that it was at
    /// `fault`: what an earlier fault cost is not this one's.
    #[must_use]
    pub fn of_reign(self, server: &str, fault: Mono) -> Self {
        let acks = self.writers().iter().flat_map(|(_, record)| &record.acks);
        let earlier = acks.filter(|ack| *ack.server != *server && ack.seen < fault);
        let last = earlier.map(|ack| ack.seen).max();
        match last {
            Some(last) => self.since(last + Duration::from_nanos(1)),
            None => self,
        }
    }

    /// Fails unless all lost writes are the last that `server` acknowledged, none of them
    /// longer than `span` before `fault`.
    pub fn ensure_only_tail_lost(&self, server: &str, fault: Mono, span: Duration) -> Result<()> {
        let Some(first) = self.lost().iter().min_by_key(|lost| lost.ack.seen) else {
            return Ok(());
        };
        let foreign = self.lost().iter().find(|lost| *lost.ack.server != *server);
        ensure!(foreign.is_none(), "lost by another than {server}: {foreign:?}");
        let survivor = self.survivors(server).find(|ack| ack.sent > first.ack.seen);
        ensure!(survivor.is_none(), "{first:?} is lost, the later {survivor:?} is not");
        let age = fault.since(first.ack.seen);
        ensure!(age <= span, "lost {age:?} before the fault: {first:?}");
        Ok(())
    }

    fn survivors(&self, server: &str) -> impl Iterator<Item = &Ack> {
        let lost: BTreeSet<&str> = self.lost().iter().map(|lost| lost.key.as_str()).collect();
        let with_keys = self
            .writers()
            .iter()
            .flat_map(|(spec, record)| record.acks.iter().map(|ack| (spec.key(ack.sequence), ack)));
        with_keys
            .filter(move |(key, ack)| *ack.server == *server && !lost.contains(key.as_str()))
            .map(|(_, ack)| ack)
    }
}
