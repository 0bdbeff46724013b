//! Replicas that their master does not hear although nothing stands between them any more.
//!
//! After a long cut both ends of a replication connection wait for TCP's back-off before they send again: up to as long as
//! the cut, two minutes at most, and nobody may be promoted meanwhile. An attempt to connect waits likewise, and for a copy that
//! the master gave up during the cut Redis waits as long as `repl-timeout`. The leader knows both sides, so it finds such a
//! link, and the replica's own node ends it: Redis connects again at once, and goes on where it was if it can. Owned by the
//! leader; nothing depends on it but that time. Deliberately absent: whether the path is open, which others are asked
//! (`core/reach.rs`), and the last look, which the agent takes at the replica before it ends anything.

use std::collections::BTreeMap;

use redkeep_consensus::{Mono, NodeId, Span};

use super::{Leader, Round};
use crate::{
    ids::{Epoch, GroupId},
    observe::{RedisObservation, RedisRole, RedisView},
    plan::{Candidates, eligible::lines},
    spec::ClusterSpec,
};

/// A replica acknowledges each second. One that is not heard for longer than this is cut off, frozen, or waits for TCP.
const QUIET: Span = Span::from_secs(2);
/// The same replica is asked so often at most.
const EVERY: Span = Span::from_secs(2);

/// By group and replica's node: those that the master does not hear.
#[derive(Debug, Default)]
pub(crate) struct Links(BTreeMap<(GroupId, NodeId), Apart>);

#[derive(Clone, Copy, Debug)]
struct Apart {
    epoch: Epoch,
    since: Mono,
    asked: Option<Mono>,
}

/// A link that its replica should renew if the path is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeadLink {
    pub(crate) group: GroupId,
    pub(crate) epoch: Epoch,
    pub(crate) master: NodeId,
    pub(crate) replica: NodeId,
}

impl Links {
    /// Since when the master has not heard the replica; none if it hears it, or sends it a copy.
    fn note(
        &mut self,
        key: (GroupId, NodeId),
        epoch: Epoch,
        now: Mono,
        seen: Seen,
    ) -> Option<Apart> {
        let since = match seen {
            Seen::Copying => None,
            Seen::Quiet(lag) if lag <= QUIET => None,
            Seen::Quiet(lag) => Some(now - lag),
            Seen::Absent => Some(now),
        };
        let Some(since) = since else {
            self.0.remove(&key);
            return None;
        };
        let apart = self.0.entry(key).or_insert(Apart { epoch, since, asked: None });
        if apart.epoch != epoch {
            *apart = Apart { epoch, since, asked: None };
        }
        apart.since = apart.since.min(since);
        Some(*apart)
    }
}

/// A replica as its master sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    Copying,
    /// Since its last acknowledgement.
    Quiet(Span),
    Absent,
}

impl Leader {
    /// Links that have been dead for long and may be asked for again.
    pub(crate) fn dead_links(&mut self, round: &Round<'_>) -> Vec<DeadLink> {
        let mut links = std::mem::take(&mut self.links);
        let mut dead = Vec::new();
        for id in round.model.groups.keys() {
            if let Some(c) = self.candidates(round, id) {
                look(&c, round.cluster, &mut links, &mut dead);
            }
        }
        self.links = links;
        dead
    }

    pub(crate) fn asked_to_relink(&mut self, now: Mono, link: &DeadLink) {
        if let Some(apart) = self.links.0.get_mut(&(link.group.clone(), link.replica)) {
            apart.asked = Some(now);
        }
    }
}

fn look(c: &Candidates<'_>, cluster: &ClusterSpec, links: &mut Links, dead: &mut Vec<DeadLink>) {
    let Some(a) = c.group.assignment.as_ref().filter(|a| a.serving) else { return };
    let Some(RedisView::Up(master)) = c.report(a.master).map(|r| &r.redis) else { return };
    for m in c.spec.members.iter().filter(|m| m.node != a.master) {
        let key = (c.spec.id.clone(), m.node);
        let seen = seen_by(master, cluster, m.node);
        let Some(apart) = links.note(key, a.epoch, c.now_boot, seen) else { continue };
        let long = c.now_boot.since(apart.since) >= QUIET;
        let recent = apart.asked.is_some_and(|at| c.now_boot.since(at) < EVERY);
        if long && !recent && would_go_on(c, cluster, m.node, (a.master, master)) {
            let (group, epoch) = (c.spec.id.clone(), a.epoch);
            dead.push(DeadLink { group, epoch, master: a.master, replica: m.node });
        }
    }
}

fn seen_by(master: &RedisObservation, cluster: &ClusterSpec, node: NodeId) -> Seen {
    let (online, copying): (Vec<_>, Vec<_>) = lines(master, cluster, node).partition(|r| r.online);
    match (online.iter().map(|r| r.lag).min(), copying.is_empty()) {
        (Some(lag), _) if lag <= QUIET => Seen::Quiet(lag),
        (_, false) => Seen::Copying,
        (Some(lag), true) => Seen::Quiet(lag),
        (None, true) => Seen::Absent,
    }
}

/// Its own node is heard, it follows this master, and it would go on where it is. Else a link that comes back by itself is
/// better than a full copy.
fn would_go_on(
    c: &Candidates<'_>,
    cluster: &ClusterSpec,
    node: NodeId,
    (master_node, master): (NodeId, &RedisObservation),
) -> bool {
    let Some(RedisView::Up(o)) = c.report(node).map(|r| &r.redis) else { return false };
    let RedisRole::Replica { master_host, master_port, link_up, .. } = &o.role else {
        return false;
    };
    let addr = cluster.redis_addr(master_node, c.spec);
    let follows =
        addr.is_some_and(|at| at.port() == *master_port && at.ip().to_string() == *master_host);
    let goes_on = o.replication_id == master.replication_id
        && master.backlog_from.is_some_and(|from| o.offset.saturating_add(1) >= from.get());
    follows && o.settled && (goes_on || !link_up)
}
