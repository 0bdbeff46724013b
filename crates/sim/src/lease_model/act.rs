//! What a step does.

use super::{
    Rule, Setting, reduce,
    state::{
        Arming, Ask, Entry, Lead, Node, State, VOTERS, What, bit, bits, host_of, is_majority, nodes,
    },
    steps::Step,
};

/// None if the step is not possible or changes nothing.
pub(crate) fn take(setting: &Setting, state: &State, step: Step) -> Option<State> {
    let mut next = *state;
    match step {
        Step::Tick => tick(&mut next),
        Step::Elect { node, votes } => elect(setting, &mut next, node, votes),
        Step::Replicate { from, to } => replicate(&mut next, from, to)?,
        Step::HearAppend { leader, from, places } => {
            hear_append(&mut next, leader, from, places)?;
        }
        Step::Commit { leader, places } => commit(&mut next, leader, places)?,
        Step::Arm { host, ttl } => arm(setting, &mut next, host, ttl),
        Step::Ask { slot } => {
            let term = next.node(host_of(slot)).term;
            next.hosts[slot / 2].armed[slot % 2].as_mut()?.asked |= bit(term);
        }
        Step::Take { leader, slot, term } => request(setting, &mut next, (leader, slot), term)?,
        Step::AckRound { leader, by, slot } => acknowledge_round(&mut next, (leader, slot), by)?,
        Step::HearRound { leader, by, slot } => {
            hear_round(setting, &mut next, (leader, slot), bit(by))?;
        }
        Step::Grant { leader, slot } => grant(setting, &mut next, leader, slot)?,
        Step::Open { slot } => open(setting, &mut next, slot)?,
        Step::Name { leader, master, life } => name(setting, &mut next, leader, (master, life))?,
        Step::TimeOut { leader } => next.node(leader).lead.as_mut()?.in_flight = 0,
        Step::Fence { host } => fence(setting, &mut next, host),
        Step::Die { host } => die(&mut next, host),
        Step::HearFence { leader } => hear_fence(&mut next, leader)?,
        Step::Restart { host } => restart(&mut next, host),
        Step::ChangeVoters { leader, voters } => {
            change_voters(setting, &mut next, leader, voters)?;
        }
        Step::Wipe { node } => *next.node(node) = Node { voters: VOTERS, ..Node::default() },
    }
    reduce::forget_what_ran_out(setting, &mut next);
    if !setting.plain {
        reduce::reduce(setting, &mut next);
    }
    (next != *state).then_some(next)
}

/// The log makes it master, by this life of its Redis, and it did not fence since: it may arm.
pub(crate) fn holds(setting: &Setting, state: &State, host: u8) -> bool {
    let h = &state.hosts[usize::from(host)];
    let of_this_life = !is_of_another_life(state, host) || !setting.keeps(Rule::OneLife);
    is_named(state, host) && of_this_life && state.node_group(host).epoch > h.burned
}

/// It has something to fence: what it holds, or the name of a life that is over.
pub(crate) fn may_fence(setting: &Setting, state: &State, host: u8) -> bool {
    let h = &state.hosts[usize::from(host)];
    let over = is_of_another_life(state, host) || h.seen != h.life;
    holds(setting, state, host) || is_named(state, host) && over
}

fn is_named(state: &State, host: u8) -> bool {
    state.node_group(host).master == Some(host)
}

fn is_of_another_life(state: &State, host: u8) -> bool {
    state.node_group(host).life != state.hosts[usize::from(host)].seen
}

fn tick(state: &mut State) {
    for timer in state.hosts.iter_mut().flat_map(|h| &mut h.timer) {
        *timer = timer.saturating_sub(1);
    }
    for lead in state.nodes.iter_mut().filter_map(|n| n.lead.as_mut()) {
        lead.not_before = lead.not_before.saturating_sub(1);
    }
}

fn elect(setting: &Setting, state: &mut State, node: u8, votes: u8) {
    let voters = || nodes().filter(|n| votes & bit(*n) != 0);
    let term = voters().map(|n| state.nodes[usize::from(n)].term).max().unwrap_or(0) + 1;
    for n in voters() {
        state.node(n).term = term;
        state.node(n).lead = None;
    }
    let lease = if setting.keeps(Rule::WholeLease) { setting.ttl } else { setting.armed };
    let not_before = if setting.keeps(Rule::NewLeaderWaits) { setting.wait(lease) } else { 0 };
    let elected = state.node(node);
    elected.tail.push(Entry::new(term, What::Nothing));
    elected.lead = Some(Lead { not_before, ..Lead::default() });
}

fn replicate(state: &mut State, from: u8, to: u8) -> Option<()> {
    let leader = state.nodes[usize::from(from)];
    let was = state.nodes[usize::from(to)];
    if leader.term < was.term {
        return None;
    }
    let mut follower = Node { lead: None, ..leader };
    let behind = was.commit.saturating_sub(leader.commit);
    // A new leader does not know yet how far its predecessor had committed.
    follower.apply(behind);
    // Where states are reduced and nobody can be elected any more, all count as if they had nothing committed.
    if was.commit > 0 {
        let summary = |n: &Node| (n.group, n.voters, n.commit_term);
        let meet = was.commit >= leader.commit;
        state.diverged |= follower.commit < was.commit
            || was.group.epoch > follower.group.epoch
            || meet && summary(&was) != summary(&follower);
    }
    if was.group.epoch > follower.group.epoch {
        follower.group = was.group;
    }
    *state.node(to) = follower;
    if let Some(lead) = &mut state.node(from).lead {
        lead.acked[usize::from(to)] = leader.tail.len;
    }
    Some(())
}

/// Raft: a majority has it, by the voters of now, and it is of the leader's own term.
pub(crate) fn may_commit(node: &Node, leader: u8, places: u8) -> bool {
    let Some(lead) = &node.lead else { return false };
    let have = bits(|n| lead.matched[usize::from(n)] >= places) | bit(leader);
    let last = node.tail.all().get(usize::from(places) - 1);
    last.is_some_and(|e| e.term() == node.term) && is_majority(have, node.voters)
}

fn hear_append(state: &mut State, leader: u8, from: u8, places: u8) -> Option<()> {
    let node = state.node(leader);
    node.lead.as_mut()?.matched[usize::from(from)] = places;
    let places = (1..=node.tail.len).rev().find(|n| may_commit(node, leader, *n));
    places.map_or(Some(()), |places| commit(state, leader, places))
}

fn commit(state: &mut State, leader: u8, places: u8) -> Option<()> {
    let node = state.node(leader);
    node.apply(places);
    let lead = node.lead.as_mut()?;
    lead.in_flight = lead.in_flight.saturating_sub(places);
    for place in lead.acked.iter_mut().chain(&mut lead.matched) {
        *place = place.saturating_sub(places);
    }
    Some(())
}

fn arm(setting: &Setting, state: &mut State, host: u8, ttl: u8) {
    let epoch = state.node(host).group.epoch;
    let h = &mut state.hosts[usize::from(host)];
    let generation = h.last_granted.map_or(0, |last| 1 - usize::from(last));
    h.arms += 1;
    if setting.keeps(Rule::GateOut) {
        h.gate[generation] = false;
    }
    if setting.keeps(Rule::ArmFirst) {
        h.timer[generation] = ttl;
    }
    h.armed[generation] = Some(Arming { epoch, ttl, ..Arming::default() });
    let slot = usize::from(host) * 2 + generation;
    for lead in state.nodes.iter_mut().filter_map(|n| n.lead.as_mut()) {
        lead.asks[slot] = Ask::default();
    }
}

/// A request that left in one of these terms tells its leader that no later one was elected before it was armed.
pub(crate) fn is_confirmed_by_itself(
    setting: &Setting,
    node: &Node,
    (leader, slot): (u8, usize),
    terms: u8,
) -> bool {
    let both = bit(leader) | bit(host_of(slot));
    !setting.keeps(Rule::ReadIndex)
        || node.has_committed_in_its_term()
            && (terms & bit(node.term) != 0 || !setting.keeps(Rule::TermOfRequest))
            && (confirm(setting, node, both) || !setting.keeps(Rule::MajorityWithSender))
}

/// They are a majority of the voters.
pub(crate) fn confirm(setting: &Setting, node: &Node, nodes: u8) -> bool {
    let of = if setting.keeps(Rule::VotersOnly) { nodes & node.voters } else { nodes };
    of.count_ones() * 2 > node.voters.count_ones()
}

fn request(
    setting: &Setting,
    state: &mut State,
    (leader, slot): (u8, usize),
    term: u8,
) -> Option<()> {
    let node = state.node(leader);
    let confirmed = is_confirmed_by_itself(setting, node, (leader, slot), bit(term));
    let ask = &mut node.lead.as_mut()?.asks[slot];
    *ask = Ask { taken: true, confirmed, got: bit(leader), ..*ask };
    Some(())
}

fn acknowledge_round(state: &mut State, (leader, slot): (u8, usize), by: u8) -> Option<()> {
    let same_term = state.node(by).term == state.node(leader).term;
    let node = state.node(leader);
    if !node.has_committed_in_its_term() || !same_term {
        return None;
    }
    node.lead.as_mut()?.asks[slot].sent |= bit(by);
    Some(())
}

pub(crate) fn hear_round(
    setting: &Setting,
    state: &mut State,
    (leader, slot): (u8, usize),
    by: u8,
) -> Option<()> {
    let node = state.node(leader);
    let got = node.lead?.asks[slot].got | by;
    let confirmed = confirm(setting, node, got);
    let ask = &mut node.lead.as_mut()?.asks[slot];
    *ask = Ask { got, confirmed: ask.confirmed || confirmed, ..*ask };
    Some(())
}

fn grant(setting: &Setting, state: &mut State, leader: u8, slot: usize) -> Option<()> {
    let Arming { epoch, ttl, .. } = *state.armed(slot)?;
    let node = state.node(leader);
    let group = node.group;
    let lead = node.lead.as_mut()?;
    let busy = lead.in_flight != 0 && setting.keeps(Rule::InFlight);
    if busy || (group.master, group.epoch) != (Some(host_of(slot)), epoch) {
        return None;
    }
    lead.asks[slot] = Ask { sent: lead.asks[slot].sent, ..Ask::default() };
    let ttl = if setting.keeps(Rule::AsArmed) { ttl } else { setting.armed };
    lead.not_before = lead.not_before.max(setting.wait(ttl));
    let host = &mut state.hosts[slot / 2];
    host.armed[slot % 2].as_mut()?.granted = true;
    if !setting.keeps(Rule::ArmId) {
        host.grants |= bit(epoch);
    }
    Some(())
}

fn open(setting: &Setting, state: &mut State, slot: usize) -> Option<()> {
    let (host, generation) = (&mut state.hosts[slot / 2], slot % 2);
    let armed = host.armed[generation]?;
    if !armed.granted && host.grants & bit(armed.epoch) == 0 {
        return None;
    }
    host.gate[generation] = true;
    host.last_granted = u8::try_from(generation).ok();
    // L1: once.
    host.armed[generation] = None;
    if !setting.keeps(Rule::ArmFirst) {
        host.timer[generation] = armed.ttl;
    }
    Some(())
}

fn name(setting: &Setting, state: &mut State, leader: u8, (master, life): (u8, u8)) -> Option<()> {
    let node = state.node(leader);
    let (group, term) = (node.group, node.term);
    let lead = node.lead.as_mut()?;
    let fenced = group.epoch > 0 && lead.fenced == group.epoch;
    let may = lead.not_before == 0 || fenced || !setting.keeps(Rule::NotBefore);
    // The same again is named only after a fence.
    let useless = group.master == Some(master) && !fenced;
    if !may || useless || lead.in_flight != 0 {
        return None;
    }
    let what = What::Assign { master, epoch: group.epoch + 1, life };
    lead.in_flight = node.tail.push(Entry::new(term, what));
    state.assigns += 1;
    Some(())
}

fn fence(setting: &Setting, state: &mut State, host: u8) {
    let group = state.node_group(host);
    let h = &mut state.hosts[usize::from(host)];
    h.close();
    h.seen = h.life;
    // The life that is named is over: the log itself keeps this host from arming again.
    if setting.keeps(Rule::Burn) && group.life == h.seen {
        h.burned = group.epoch;
    }
    h.fences |= bit(group.epoch);
}

/// What starts in its place finds its port taken out of all sets (design.md, drop-in).
fn die(state: &mut State, host: u8) {
    let h = &mut state.hosts[usize::from(host)];
    h.close();
    h.life += 1;
}

pub(crate) fn hear_fence(state: &mut State, leader: u8) -> Option<()> {
    let group = state.node(leader).group;
    if state.hosts[usize::from(group.master?)].fences & bit(group.epoch) != 0 {
        state.node(leader).lead.as_mut()?.fenced = group.epoch;
    }
    Some(())
}

/// The kernel keeps what it has; the new process reads back which generation is open.
fn restart(state: &mut State, host: u8) {
    state.restarts += 1;
    state.node(host).lead = None;
    let h = &mut state.hosts[usize::from(host)];
    h.armed = [None; 2];
    h.seen = h.life;
    h.last_granted = [0_u8, 1].into_iter().find(|g| {
        let g = usize::from(*g);
        h.gate[g] && h.timer[g] > 0
    });
}

fn change_voters(setting: &Setting, state: &mut State, leader: u8, voters: u8) -> Option<()> {
    let node = state.node(leader);
    let pending = node.tail.voters().next().is_some() && setting.keeps(Rule::OneChange);
    // Raft: only after an entry of the own term is committed may the membership change.
    if pending || !node.has_committed_in_its_term() {
        return None;
    }
    node.tail.push(Entry::new(node.term, What::Voters(voters)));
    Some(())
}
