//! A Redis that can be reached around the lock: no lease says anything about that way in.
//!
//! Such a pair is not adopted, such a member is not promoted, and beside such a master nobody else is named while its Redis may
//! live. What serves already goes on serving. No order of an operator skips this: it would make two writers.

use crate::{
    observe::{DownReason, RedisView},
    plan::{Exclusion, HoldReason, candidate::Candidates},
    spec::ClusterSpec,
};

/// Why nobody (else) may be named, whatever an operator says.
#[must_use]
pub fn hold(c: &Candidates<'_>, cluster: &ClusterSpec) -> Option<HoldReason> {
    match c.group.master() {
        Some(_) => of_master(c, cluster),
        None => of_pair(c, cluster),
    }
}

/// The master's Redis is not known to be dead and takes writes by an unguarded way. What was last seen of it counts
/// also when its node is silent.
#[must_use]
pub(super) fn of_master(c: &Candidates<'_>, cluster: &ClusterSpec) -> Option<HoldReason> {
    let master = c.group.master()?;
    let node = c.nodes.get(&master)?;
    let view = node.report.as_ref()?.group(&c.spec.id).map(|g| &g.redis);
    if matches!(view, Some(RedisView::Down(DownReason::Dead))) {
        return None;
    }
    let seen = node.last_observation(&c.spec.id)?;
    (seen.takes_writes() && !seen.bypass.is_empty())
        .then(|| HoldReason::Bypass { node: cluster.node_name(master), open: seen.bypass.clone() })
}

/// First start: the first member that is open around the lock.
fn of_pair(c: &Candidates<'_>, cluster: &ClusterSpec) -> Option<HoldReason> {
    c.spec.members.iter().find_map(|m| {
        let seen = c.report(m.node)?.redis.observation()?;
        (!seen.bypass.is_empty()).then(|| HoldReason::Bypass {
            node: cluster.node_name(m.node),
            open: seen.bypass.clone(),
        })
    })
}

/// The first member that is passed over for this alone, even at the price of data.
#[must_use]
pub(super) fn of_candidate(c: &Candidates<'_>, cluster: &ClusterSpec) -> Option<HoldReason> {
    let c = Candidates { allow_data_loss: true, ..*c };
    c.spec.members.iter().find_map(|m| match c.judge(m.node) {
        Err(Exclusion::Bypass { open }) => {
            Some(HoldReason::Bypass { node: cluster.node_name(m.node), open })
        }
        Err(_) | Ok(_) => None,
    })
}
