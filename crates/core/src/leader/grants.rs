//! Answering renewals: after planning, and only who may be answered (L3, L6).

use super::{Leader, LeaderWish, Round};
use crate::{
    command::Body,
    message::{Grant, PeerMessage, RenewGroup},
};

impl Leader {
    /// Answer the renewals whose round is done, after planning (L3, L6).
    pub(crate) fn grant_all(&mut self, round: &Round<'_>) -> Vec<LeaderWish> {
        let mut wishes = Vec::new();
        for w in self.grantor.take_answerable(round.applied) {
            let mut granted = Vec::new();
            for r in &w.renew.groups {
                let current = round.model.group(&r.group).and_then(|g| g.assignment.as_ref());
                let holds = current.is_some_and(|a| a.master == w.from && a.epoch == r.epoch);
                let fenced = self
                    .nodes
                    .get(&w.from)
                    .and_then(|n| n.report.as_ref())
                    .and_then(|n| n.group(&r.group));
                let burned = fenced.and_then(|g| g.fenced).is_some_and(|f| f.epoch >= r.epoch);
                if !holds || burned || self.drop_lagging(round, r, &mut wishes) {
                    continue;
                }
                if self.grantor.grant(round.now.raw, w.from, &r.group, w.renew.ttl) {
                    granted.push((r.group.clone(), r.epoch));
                }
            }
            if granted.is_empty() {
                continue;
            }
            self.grantor.sent(w.from);
            let grant = Grant { arm: w.renew.arm, term: self.term, groups: granted, from: self.me };
            wishes.push(LeaderWish::Send { to: w.from, message: PeerMessage::Grant(grant) });
        }
        wishes
    }

    /// Members beyond `max_lag` leave the set before the master may go on: this request is not granted, the next is.
    fn drop_lagging(
        &mut self,
        round: &Round<'_>,
        r: &RenewGroup,
        wishes: &mut Vec<LeaderWish>,
    ) -> bool {
        let Some(g) = round.model.group(&r.group) else { return true };
        let members: Vec<_> =
            g.eligible.iter().filter(|m| !r.lagging.contains(m)).cloned().collect();
        if members.len() == g.eligible.len() {
            return false;
        }
        let lead = self.groups.entry(r.group.clone()).or_default();
        if lead.pending.is_none() {
            let body = Body::Eligible {
                group: r.group.clone(),
                epoch: r.epoch,
                members,
                joining: Vec::new(),
                has_data: g.has_data,
            };
            wishes.push(LeaderWish::Propose { group: r.group.clone(), body, is_assign: false });
        }
        true
    }
}
