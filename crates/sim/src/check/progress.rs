//! Agreement and progress, sampled: equal models at equal log indices; a reason whenever nothing moves; service again
//! within a bound once everything is healed.

use std::collections::BTreeMap;

use redkeep_core::{Span, status::StatusView};

use crate::{check::Violation, clock::Real};

/// A group that nobody serves has this long until a reason must be given: elections and takeovers need some.
const SILENT_MAX: Span = Span::from_secs(3);
/// Log indices that are remembered.
const INDICES_MAX: usize = 2_000;

#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    /// Since when nobody serves, nothing was decided, and the same leader says nothing.
    since: Option<(Real, u64, u64)>,
}

#[derive(Debug)]
pub struct Progress {
    unserved_since: Vec<Option<Real>>,
    models: BTreeMap<u64, u64>,
    waiting: Vec<Waiting>,
}

impl Progress {
    #[must_use]
    pub fn new(groups: usize) -> Self {
        Self {
            unserved_since: vec![None; groups],
            models: BTreeMap::new(),
            waiting: vec![Waiting::default(); groups],
        }
    }

    /// # Errors
    /// Another node had another model at this log index.
    pub fn agreed(&mut self, status: &StatusView) -> Result<(), Violation> {
        let digest = digest(status);
        let known = *self.models.entry(status.applied).or_insert(digest);
        if self.models.len() > INDICES_MAX {
            self.models.pop_first();
        }
        if known == digest {
            Ok(())
        } else {
            Err(Violation::ModelsDiffer { applied: status.applied })
        }
    }

    /// For how long nobody has served the group.
    pub fn unserved(&mut self, now: Real, group: usize, served: bool) -> Span {
        let slot = &mut self.unserved_since[group];
        if served {
            *slot = None;
            return Span(0);
        }
        now.since(*slot.get_or_insert(now))
    }

    /// What the leader says of a group that is `served` or not.
    ///
    /// # Errors
    /// It has said nothing for too long.
    pub fn reasoned(
        &mut self,
        now: Real,
        group: usize,
        served: bool,
        leader: Option<&StatusView>,
    ) -> Result<(), Violation> {
        let slot = &mut self.waiting[group].since;
        let says = leader.and_then(|l| l.groups.get(group).map(|g| (l.term, g)));
        let Some((term, g)) = says.filter(|(_, g)| !served && g.hold.is_none()) else {
            *slot = None;
            return Ok(());
        };
        match *slot {
            Some((since, t, epoch)) if t == term && epoch == g.epoch.0 => {
                let since = now.since(since);
                if since > SILENT_MAX {
                    return Err(Violation::SilentWait { group, since });
                }
            }
            Some(_) | None => *slot = Some((now, term, g.epoch.0)),
        }
        Ok(())
    }
}

/// What the log alone determines.
fn digest(status: &StatusView) -> u64 {
    let mut text = String::new();
    if let Some(cluster) = &status.cluster {
        // A node that joins is a learner in whatever snapshot it gets: learners may differ, and change no quorum.
        let nodes: Vec<_> = cluster.nodes.iter().map(|n| n.id).collect();
        text.push_str(&format!("{:?}{nodes:?}", status.voters));
    }
    for g in &status.groups {
        let part = (
            (&g.group, g.epoch, g.master, g.cause, g.assigned_at),
            (g.serving, &g.eligible, &g.joining, g.switchover_to),
            g.members.iter().map(|m| m.node).collect::<Vec<_>>(),
        );
        text.push_str(&format!("{part:?}"));
    }
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
