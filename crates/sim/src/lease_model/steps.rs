//! All that can happen next.

use super::{
    Rule, Setting,
    state::{Arming, D, Entry, HOSTS, Lead, Message, NODES, Stage, State, W, Waiting, What},
};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Time passes for everybody.
    Tick,
    /// By the votes of these bits, its own included.
    Elect {
        node: u8,
        votes: u8,
    },
    Replicate {
        from: u8,
        to: u8,
    },
    Arm {
        host: u8,
    },
    Ask {
        host: u8,
        generation: usize,
        leader: u8,
    },
    Deliver(Message),
    AckRound {
        leader: u8,
        by: u8,
        asker: u8,
        arm: u8,
    },
    Grant {
        leader: u8,
        to: u8,
        arm: u8,
    },
    Name {
        leader: u8,
        master: u8,
    },
    /// Forgotten rule: a decision is taken for lost.
    TimeOut {
        leader: u8,
    },
    Fence {
        host: u8,
    },
    Restart {
        host: u8,
    },
    ChangeVoters {
        leader: u8,
        voters: u8,
    },
}

fn bit(node: u8) -> u8 {
    1 << node
}

fn nodes() -> impl Iterator<Item = u8> + Clone {
    (0..).take(NODES)
}

fn hosts() -> impl Iterator<Item = u8> {
    (0..).take(HOSTS)
}

/// Each step that is possible in `state`, and what it leads to.
pub(crate) fn all(setting: &Setting, state: &State) -> Vec<(Step, State)> {
    let mut steps = vec![Step::Tick];
    for node in nodes() {
        elections(setting, state, node, &mut steps);
        leading(setting, state, node, &mut steps);
    }
    for host in hosts() {
        holding(setting, state, host, &mut steps);
    }
    let heard = |m: &&Message| may_arrive(state, m);
    steps.extend(state.sent.iter().filter(heard).copied().map(Step::Deliver));
    steps.into_iter().filter_map(|step| Some((step, take(setting, state, step)?))).collect()
}

fn elections(setting: &Setting, state: &State, node: u8, steps: &mut Vec<Step>) {
    let candidate = &state.nodes[usize::from(node)];
    if candidate.voters() & bit(node) == 0 || candidate.log.is_full() {
        return;
    }
    for votes in 0..1 << NODES {
        // More votes than needed are as many steps: the votes, and then the next append.
        let fits = votes & bit(node) != 0
            && votes & !candidate.voters() == 0
            && votes.count_ones() == candidate.voters().count_ones() / 2 + 1
            && nodes().filter(|n| votes & bit(*n) != 0).all(|n| {
                let voter = &state.nodes[usize::from(n)];
                voter.log.rank() <= candidate.log.rank() && voter.term <= setting.elections
            });
        if fits {
            steps.push(Step::Elect { node, votes });
        }
    }
}

fn leading(setting: &Setting, state: &State, leader: u8, steps: &mut Vec<Step>) {
    let node = &state.nodes[usize::from(leader)];
    let Some(lead) = &node.lead else { return };
    for to in nodes().filter(|to| *to != leader && node.voters() & bit(*to) != 0) {
        steps.push(Step::Replicate { from: leader, to });
    }
    for w in &lead.waiting {
        match w.stage {
            Stage::Confirmed => steps.push(Step::Grant { leader, to: w.from, arm: w.arm }),
            Stage::Round(have) => {
                steps.extend(nodes().filter(|by| have & bit(*by) == 0).map(|by| Step::AckRound {
                    leader,
                    by,
                    asker: w.from,
                    arm: w.arm,
                }));
            }
        }
    }
    if state.assigns < setting.assigns && lead.in_flight == 0 {
        steps.extend(hosts().map(|master| Step::Name { leader, master }));
    }
    if !setting.keeps(Rule::NoTimeOut) {
        steps.push(Step::TimeOut { leader });
    }
    if setting.membership {
        match node.voters() {
            0b0111 => steps.push(Step::ChangeVoters { leader, voters: 0b0111 | bit(D) }),
            0b1111 => steps.push(Step::ChangeVoters { leader, voters: 0b1111 & !bit(W) }),
            _ => {}
        }
    }
}

fn holding(setting: &Setting, state: &State, host: u8, steps: &mut Vec<Step>) {
    let h = &state.hosts[usize::from(host)];
    let group = state.nodes[usize::from(host)].group();
    let holds = group.master == Some(host) && group.epoch > h.burned;
    if holds && h.arms < setting.arms {
        steps.push(Step::Arm { host });
    }
    for generation in 0..2 {
        if h.armed[generation].is_some() {
            let leaders = nodes().filter(|n| state.nodes[usize::from(*n)].lead.is_some());
            steps.extend(leaders.map(|leader| Step::Ask { host, generation, leader }));
        }
    }
    if holds {
        steps.push(Step::Fence { host });
    }
    if state.restarts < setting.restarts {
        steps.push(Step::Restart { host });
    }
}

/// False if it would change nothing: no copy of the state need be made to see that.
fn may_arrive(state: &State, message: &Message) -> bool {
    let lead = |node: u8| state.nodes[usize::from(node)].lead.as_ref();
    match *message {
        Message::Request { from, to, arm, .. } => {
            lead(to).is_some_and(|l| !l.waiting.iter().any(|w| (w.from, w.arm) == (from, arm)))
        }
        Message::RoundAck { to, term, .. } | Message::AppendAck { to, term, .. } => {
            lead(to).is_some() && state.nodes[usize::from(to)].term == term
        }
        Message::Grant { .. } | Message::Fenced { .. } => true,
    }
}

/// None if the step is not possible or changes nothing.
fn take(setting: &Setting, state: &State, step: Step) -> Option<State> {
    let mut next = state.clone();
    match step {
        Step::Tick => tick(&mut next),
        Step::Elect { node, votes } => elect(setting, &mut next, node, votes),
        Step::Replicate { from, to } => replicate(&mut next, from, to)?,
        Step::Arm { host } => arm(setting, &mut next, host)?,
        Step::Ask { host, generation, leader } => {
            let Arming { arm, epoch } = next.hosts[usize::from(host)].armed[generation]?;
            let term = next.node(host).term;
            next.send(Message::Request { from: host, to: leader, term, arm, epoch });
        }
        Step::Deliver(message) => deliver(setting, &mut next, message)?,
        Step::AckRound { leader, by, asker, arm } => {
            let term = next.node(leader).term;
            let lead = next.node(leader).lead.as_ref()?;
            let w = lead.waiting.iter().find(|w| (w.from, w.arm) == (asker, arm))?;
            let begun =
                matches!(w.stage, Stage::Round(_)) && next.node(leader).has_committed_in_its_term();
            if !begun || next.node(by).term != term {
                return None;
            }
            next.send(Message::RoundAck { from: by, to: leader, term, asker, arm });
        }
        Step::Grant { leader, to, arm } => grant(setting, &mut next, leader, (to, arm))?,
        Step::Name { leader, master } => name(setting, &mut next, leader, master)?,
        Step::TimeOut { leader } => next.node(leader).lead.as_mut()?.in_flight = 0,
        Step::Fence { host } => fence(setting, &mut next, host)?,
        Step::Restart { host } => restart(&mut next, host),
        Step::ChangeVoters { leader, voters } => change_voters(&mut next, leader, voters)?,
    }
    if setting.keeps(Rule::ArmId) && setting.keeps(Rule::GateOut) && setting.keeps(Rule::ArmFirst) {
        forget_what_cannot_matter(&mut next);
    }
    (next != *state).then_some(next)
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
    let not_before = if setting.keeps(Rule::NewLeaderWaits) { setting.wait() } else { 0 };
    let elected = state.node(node);
    let len = elected.log.push(Entry { term, what: What::Nothing });
    let mut lead = Lead { not_before, ..Lead::default() };
    lead.matched[usize::from(node)] = len;
    elected.lead = Some(lead);
}

fn replicate(state: &mut State, from: u8, to: u8) -> Option<()> {
    let leader = state.node(from).clone();
    let follower = state.node(to);
    if leader.term < follower.term {
        return None;
    }
    follower.term = leader.term;
    follower.lead = None;
    follower.log = leader.log;
    follower.commit = follower.commit.max(leader.commit);
    let (term, len) = (leader.term, leader.log.len);
    state.send(Message::AppendAck { from: to, to: from, term, len });
    Some(())
}

fn arm(setting: &Setting, state: &mut State, host: u8) -> Option<()> {
    let group = state.node(host).group();
    let h = &mut state.hosts[usize::from(host)];
    if group.master != Some(host) || group.epoch <= h.burned {
        return None;
    }
    let generation = h.last_granted.map_or(0, |last| 1 - usize::from(last));
    h.arms += 1;
    if setting.keeps(Rule::GateOut) {
        h.gate[generation] = false;
    }
    if setting.keeps(Rule::ArmFirst) {
        h.timer[generation] = setting.ttl;
    }
    h.armed[generation] = Some(Arming { arm: h.arms, epoch: group.epoch });
    Some(())
}

fn deliver(setting: &Setting, state: &mut State, message: Message) -> Option<()> {
    match message {
        Message::Request { from, to, term, arm, epoch } => {
            let leader = state.node(to);
            let own = leader.has_committed_in_its_term()
                && (term == leader.term || !setting.keeps(Rule::TermOfRequest))
                && (leader.is_majority(bit(to) | bit(from))
                    || !setting.keeps(Rule::MajorityWithSender));
            let stage = if own || !setting.keeps(Rule::ReadIndex) {
                Stage::Confirmed
            } else {
                Stage::Round(bit(to))
            };
            let waiting = &mut leader.lead.as_mut()?.waiting;
            if waiting.iter().any(|w| (w.from, w.arm) == (from, arm)) {
                return None;
            }
            waiting.push(Waiting { from, arm, epoch, stage });
            waiting.sort_unstable();
        }
        Message::RoundAck { from, to, term, asker, arm } => {
            let leader = state.node(to);
            if leader.term != term {
                return None;
            }
            let mut lead = leader.lead.take()?;
            for w in lead.waiting.iter_mut().filter(|w| (w.from, w.arm) == (asker, arm)) {
                if let Stage::Round(by) = w.stage {
                    let by = by | bit(from);
                    w.stage =
                        if leader.is_majority(by) { Stage::Confirmed } else { Stage::Round(by) };
                }
            }
            leader.lead = Some(lead);
        }
        Message::Grant { to, arm, epoch } => open(setting, state, to, Arming { arm, epoch })?,
        Message::AppendAck { from, to, term, len } => acknowledge(state, (from, to), term, len)?,
        Message::Fenced { from, epoch } => {
            for node in &mut state.nodes {
                let group = node.group();
                if let Some(lead) = &mut node.lead
                    && group.epoch == epoch
                    && group.master == Some(from)
                {
                    lead.fenced = epoch;
                }
            }
        }
    }
    Some(())
}

fn open(setting: &Setting, state: &mut State, host: u8, granted: Arming) -> Option<()> {
    let h = &mut state.hosts[usize::from(host)];
    let named = |a: &Arming| {
        if setting.keeps(Rule::ArmId) { *a == granted } else { a.epoch == granted.epoch }
    };
    let generation = (0..2).rev().find(|g| h.armed[*g].as_ref().is_some_and(named))?;
    h.gate[generation] = true;
    h.last_granted = u8::try_from(generation).ok();
    if !setting.keeps(Rule::ArmFirst) {
        h.timer[generation] = setting.ttl;
        h.armed[generation] = None;
    }
    Some(())
}

fn acknowledge(state: &mut State, (from, to): (u8, u8), term: u8, len: u8) -> Option<()> {
    let leader = state.node(to);
    if leader.term != term {
        return None;
    }
    let mut lead = leader.lead.take()?;
    let matched = &mut lead.matched[usize::from(from)];
    *matched = len.max(*matched);
    lead.matched[usize::from(to)] = leader.log.len;
    for index in leader.commit + 1..=leader.log.len {
        let have = nodes().filter(|n| lead.matched[usize::from(*n)] >= index).map(bit).sum();
        let own_term = leader.log.upto(index).last().is_some_and(|e| e.term == leader.term);
        if own_term && leader.is_majority(have) {
            leader.commit = index;
        }
    }
    if lead.in_flight <= leader.commit {
        lead.in_flight = 0;
    }
    leader.lead = Some(lead);
    Some(())
}

fn grant(setting: &Setting, state: &mut State, leader: u8, (to, arm): (u8, u8)) -> Option<()> {
    let node = state.node(leader);
    let group = node.group();
    let lead = node.lead.as_mut()?;
    let at = lead.waiting.iter().position(|w| (w.from, w.arm) == (to, arm))?;
    let w = lead.waiting[at];
    let busy = lead.in_flight != 0 && setting.keeps(Rule::InFlight);
    if w.stage != Stage::Confirmed || busy || (group.master, group.epoch) != (Some(to), w.epoch) {
        return None;
    }
    lead.waiting.remove(at);
    lead.not_before = lead.not_before.max(setting.wait());
    state.send(Message::Grant { to, arm, epoch: w.epoch });
    Some(())
}

fn name(setting: &Setting, state: &mut State, leader: u8, master: u8) -> Option<()> {
    let node = state.node(leader);
    let (group, term) = (node.group(), node.term);
    let lead = node.lead.as_mut()?;
    let fenced = group.epoch > 0 && lead.fenced == group.epoch;
    let may = lead.not_before == 0 || fenced || !setting.keeps(Rule::NotBefore);
    // The same again is named only after a fence.
    let useless = group.master == Some(master) && !fenced;
    if !may || useless || lead.in_flight != 0 || node.log.is_full() {
        return None;
    }
    lead.in_flight =
        node.log.push(Entry { term, what: What::Assign { master, epoch: group.epoch + 1 } });
    state.assigns += 1;
    Some(())
}

fn fence(setting: &Setting, state: &mut State, host: u8) -> Option<()> {
    let group = state.node(host).group();
    let h = &mut state.hosts[usize::from(host)];
    if group.master != Some(host) || group.epoch <= h.burned {
        return None;
    }
    h.timer = [0; 2];
    h.gate = [false; 2];
    h.armed = [None; 2];
    if setting.keeps(Rule::Burn) {
        h.burned = group.epoch;
    }
    state.send(Message::Fenced { from: host, epoch: group.epoch });
    Some(())
}

/// The kernel keeps what it has; the new process reads back which generation is open.
fn restart(state: &mut State, host: u8) {
    state.restarts += 1;
    state.node(host).lead = None;
    let h = &mut state.hosts[usize::from(host)];
    h.armed = [None; 2];
    h.last_granted = [0_u8, 1].into_iter().find(|g| {
        let g = usize::from(*g);
        h.gate[g] && h.timer[g] > 0
    });
}

fn change_voters(state: &mut State, leader: u8, voters: u8) -> Option<()> {
    let node = state.node(leader);
    node.lead.as_ref()?;
    let pending = node.log.all()[usize::from(node.commit)..]
        .iter()
        .any(|e| matches!(e.what, What::Voters(_)));
    // Raft: only after an entry of the own term is committed may the membership change.
    if pending || node.log.is_full() || !node.has_committed_in_its_term() {
        return None;
    }
    let term = node.term;
    node.log.push(Entry { term, what: What::Voters(voters) });
    Some(())
}

/// States that differ only in what can do nothing any more are one: an arming that has run out, what was said about it,
/// and acknowledgements that tell nothing new.
fn forget_what_cannot_matter(state: &mut State) {
    for h in &mut state.hosts {
        for g in 0..2 {
            if h.timer[g] == 0 {
                h.gate[g] = false;
                h.armed[g] = None;
            }
        }
    }
    let hosts = &state.hosts;
    let armed =
        |host: u8, arm: u8| hosts[usize::from(host)].armed.iter().flatten().any(|a| a.arm == arm);
    for lead in state.nodes.iter_mut().filter_map(|n| n.lead.as_mut()) {
        lead.waiting.retain(|w| armed(w.from, w.arm));
    }
    let nodes = &state.nodes;
    state.sent.retain(|m| match *m {
        Message::Request { from, arm, .. } => armed(from, arm),
        Message::Grant { to, arm, .. } => armed(to, arm),
        Message::RoundAck { to, term, asker, arm, .. } => {
            nodes[usize::from(to)].term == term && armed(asker, arm)
        }
        Message::AppendAck { from, to, term, len } => {
            let node = &nodes[usize::from(to)];
            let known = node.lead.as_ref().map_or(u8::MAX, |l| l.matched[usize::from(from)]);
            node.term == term && len > known
        }
        Message::Fenced { .. } => true,
    });
}
