//! States that can lead to the same are made one, so that a search ends.
//!
//! What is done here is either a step of the model that is taken at once, or something forgotten. Why no way to two writers is
//! lost stands at each. `--plain` searches without, as far as that ends, and `tests/lease_model.rs` compares the two: the same
//! hosts open at the same times, with the same terms and the same masters known; and every rule left out is caught by both.

use super::{
    Rule, Setting, act,
    state::{Ask, HOSTS, Host, Node, SLOTS, State, Tail, bit, bits, host_of, is_majority, nodes},
};

/// In both searches: an arming that ran out can open nothing, nor can what was said about it, since a grant names its arming.
pub(crate) fn forget_what_ran_out(setting: &Setting, state: &mut State) {
    for h in &mut state.hosts {
        for g in (0..2).filter(|g| h.timer[*g] == 0) {
            // Without this rule a gate stays open for the next arming.
            h.gate[g] &= !setting.keeps(Rule::GateOut);
            if setting.keeps(Rule::GateOut) && setting.keeps(Rule::ArmFirst) {
                h.armed[g] = None;
            }
        }
    }
    for slot in 0..SLOTS {
        if state.armed(slot).is_none() {
            forget_asks(state, slot);
        }
    }
}

fn forget_asks(state: &mut State, slot: usize) {
    for lead in state.nodes.iter_mut().filter_map(|n| n.lead.as_mut()) {
        lead.asks[slot] = Ask::default();
    }
}

pub(crate) fn reduce(setting: &Setting, state: &mut State) {
    say_all(setting, state);
    for slot in 0..SLOTS {
        forget_what_was_said(setting, state, slot);
    }
    if nobody_can_be_elected(setting, state) {
        state.over = true;
        let able = able(setting, state);
        for node in nodes() {
            forget_log(setting, state, node, able);
        }
    }
    for host in 0..HOSTS {
        forget_generations(setting, state, host);
    }
}

/// Nodes that may still vote within the bounds.
fn able(setting: &Setting, state: &State) -> u8 {
    bits(|n| state.nodes[usize::from(n)].term <= setting.elections)
}

/// All that can be said is said and heard at once: requests, acknowledgements of rounds and of appends, reports of a fence.
///
/// None of these steps takes anything away. What was heard only ever makes a grant, a commit or a decision possible, at any
/// later moment or never; so who has heard more can do all that one can who has heard less, and ends with the same hosts. Whether
/// and when to grant, to commit and to decide stay steps of their own. (A request counts in each term in which its
/// host was while it stood; a round for it is acknowledged by whoever is in the leader's term at any moment from then on.)
fn say_all(setting: &Setting, state: &mut State) {
    for slot in 0..SLOTS {
        let term = state.node(host_of(slot)).term;
        if let Some(armed) = &mut state.hosts[slot / 2].armed[slot % 2] {
            armed.asked |= bit(term);
        }
    }
    for leader in nodes() {
        let node = state.node(leader);
        let (term, committed) = (node.term, node.has_committed_in_its_term());
        let Some(lead) = &mut node.lead else { continue };
        lead.matched = lead.acked;
        act::hear_fence(state, leader);
        let in_term = bits(|n| state.nodes[usize::from(n)].term == term);
        for slot in 0..SLOTS {
            let Some(asked) = state.armed(slot).map(|a| a.asked) else { continue };
            if committed {
                act::hear_round(setting, state, (leader, slot), in_term);
            }
            let node = state.node(leader);
            let confirmed = act::is_confirmed_by_itself(setting, node, (leader, slot), asked);
            let Some(lead) = &mut node.lead else { continue };
            let ask = &mut lead.asks[slot];
            ask.confirmed |= confirmed;
            if ask.confirmed {
                ask.got = 0;
            }
        }
    }
}

/// Of an arming that was granted only the grant is needed: a second one would make its leader wait longer and open nothing
/// more. A leader that knows a higher epoch never grants an arming of a lower one. A request in a term counts for that
/// term's leader alone, who was elected before anybody was in that term; it is of no use once that leader is none any more, or
/// has confirmed.
fn forget_what_was_said(setting: &Setting, state: &mut State, slot: usize) {
    let Some(&armed) = state.armed(slot) else { return };
    if armed.granted {
        forget_asks(state, slot);
    }
    let mut of_use = 0;
    for node in &mut state.nodes {
        let Some(lead) = &mut node.lead else { continue };
        if node.group.epoch > armed.epoch {
            lead.asks[slot] = Ask::default();
        } else if !armed.granted && !lead.asks[slot].confirmed {
            of_use |= bit(node.term);
        }
    }
    if let Some(armed) = &mut state.hosts[slot / 2].armed[slot % 2]
        && setting.keeps(Rule::TermOfRequest)
    {
        armed.asked &= of_use;
    }
}

/// Those that may still vote within the bounds are no majority of any membership that one of them has or may come to have.
/// They only become fewer, so this stays true, and from then on logs are never compared for a vote again.
fn nobody_can_be_elected(setting: &Setting, state: &State) -> bool {
    let able = able(setting, state);
    let few = |voters: u8| !is_majority(able, voters);
    setting.keeps(Rule::FreshId)
        && nodes()
            .filter(|n| able & bit(*n) != 0)
            .map(|n| &state.nodes[usize::from(n)])
            .all(|node| few(node.voters) && node.tail.voters().all(few))
}

/// When nobody can be elected any more, a node that does not lead needs its term, and a host the master that it knows. A leader
/// needs what may still be committed, and the voters who do it; not how many entries lie before.
///
/// A leader of a term in which one could still vote has lost its majority for good (`nobody_can_be_elected`): what it decides
/// from now on is never committed, so it decides nothing and need not wait (`steps::leading`). What it decided
/// before may be, by those who acknowledged it before they left; if not that either, its log is of no use.
fn forget_log(setting: &Setting, state: &mut State, node: u8, able: u8) {
    let n = state.node(node);
    let commit_term = if n.has_committed_in_its_term() { n.term } else { 0 };
    let Some(lead) = &mut n.lead else {
        let group = if usize::from(node) < HOSTS { n.group } else { Default::default() };
        *n = Node { term: n.term, group, ..Node::default() };
        return;
    };
    (n.commit, n.commit_term) = (0, commit_term);
    if n.term > setting.elections {
        return;
    }
    lead.not_before = 0;
    let may_have = |places: u8| able | bits(|by| lead.acked[usize::from(by)] >= places);
    let alive = (1..=n.tail.len).any(|places| {
        let all = may_have(places);
        is_majority(all, n.voters) || n.tail.voters().any(|voters| is_majority(all, voters))
    });
    if alive {
        return;
    }
    n.tail = Tail::default();
    lead.acked = Default::default();
    lead.matched = Default::default();
    lead.in_flight = lead.in_flight.min(1);
    if lead.in_flight > 0 && setting.keeps(Rule::InFlight) && setting.keeps(Rule::NoTimeOut) {
        lead.asks = Default::default();
    }
}

/// A timer without a gate and without a request that could open it is none. Which of two generations is which is told by the
/// one that was granted last, and only as long as there will be another arming: so that one is called the first, and
/// with no more armings the one that ends later is. (A restart asks the kernel, so where there may be one the names stay.)
fn forget_generations(setting: &Setting, state: &mut State, host: usize) {
    let may_restart = state.restarts < setting.restarts;
    let h = &mut state.hosts[host];
    if setting.keeps(Rule::GateOut) && setting.keeps(Rule::ArmFirst) {
        for g in (0..2).filter(|g| !h.gate[*g] && h.armed[*g].is_none()) {
            h.timer[g] = 0;
        }
        if h.timer == [0; 2] || h.arms == setting.arms {
            h.last_granted = None;
        }
    }
    let key = |h: &Host, g: usize| (h.gate[g], h.timer[g], h.armed[g].is_some_and(|a| a.granted));
    let later = h.arms == setting.arms && key(h, 1) > key(h, 0);
    if may_restart || h.last_granted != Some(1) && !later {
        return;
    }
    h.last_granted = h.last_granted.map(|last| 1 - last);
    h.timer.swap(0, 1);
    h.gate.swap(0, 1);
    h.armed.swap(0, 1);
    for lead in state.nodes.iter_mut().filter_map(|n| n.lead.as_mut()) {
        lead.asks.swap(host * 2, host * 2 + 1);
    }
}
