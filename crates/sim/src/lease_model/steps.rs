//! All that can happen next.

use super::{
    Rule, Setting, act,
    state::{D, HOSTS, SLOTS, State, VOTERS, W, bit, bits, nodes},
};

/// One thing that happens. A slot is an arming: 0 and 1 are the generations of a, 2 and 3 those of b.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Time passes for everybody.
    Tick,
    /// By the votes of these bits, its own included.
    Elect {
        node: u8,
        votes: u8,
    },
    /// An append arrives.
    Replicate {
        from: u8,
        to: u8,
    },
    /// An answer does, to it or to one that carried less: `from` has the first `places`.
    HearAppend {
        leader: u8,
        from: u8,
        places: u8,
    },
    /// In the place of `HearAppend`, where states are reduced: the leader takes the first `places` for committed.
    Commit {
        leader: u8,
        places: u8,
    },
    Arm {
        host: u8,
        ttl: u8,
    },
    /// The request leaves, with the term of now.
    Ask {
        slot: usize,
    },
    /// A request of that term arrives.
    Take {
        leader: u8,
        slot: usize,
        term: u8,
    },
    AckRound {
        leader: u8,
        by: u8,
        slot: usize,
    },
    HearRound {
        leader: u8,
        by: u8,
        slot: usize,
    },
    Grant {
        leader: u8,
        slot: usize,
    },
    /// A grant arrives.
    Open {
        slot: usize,
    },
    Name {
        leader: u8,
        master: u8,
        life: u8,
    },
    Fence {
        host: u8,
    },
    /// A Redis ends, and another life of it begins.
    Die {
        host: u8,
    },
    HearFence {
        leader: u8,
    },
    Restart {
        host: u8,
    },
    ChangeVoters {
        leader: u8,
        voters: u8,
    },
    /// Forgotten rule: a decision is taken for lost.
    TimeOut {
        leader: u8,
    },
    /// Forgotten rule: a node loses its disk and comes back under its id.
    Wipe {
        node: u8,
    },
}

fn hosts() -> impl Iterator<Item = u8> {
    (0..).take(HOSTS)
}

/// Each step that is possible in `state`, and what it leads to.
pub(crate) fn all(setting: &Setting, state: &State, found: &mut Vec<(Step, State)>) {
    let mut steps = vec![Step::Tick];
    for node in nodes() {
        elections(setting, state, node, &mut steps);
        leading(setting, state, node, &mut steps);
    }
    for host in hosts() {
        holding(setting, state, host, &mut steps);
    }
    steps.extend((0..SLOTS).map(|slot| Step::Open { slot }));
    if setting.plain {
        for leader in nodes() {
            hearing(state, leader, &mut steps);
        }
        steps.extend((0..SLOTS).map(|slot| Step::Ask { slot }));
    }
    if !setting.keeps(Rule::FreshId) {
        steps.push(Step::Wipe { node: W });
    }
    found.clear();
    found.extend(
        steps.into_iter().filter_map(|step| Some((step, act::take(setting, state, step)?))),
    );
}

fn elections(setting: &Setting, state: &State, node: u8, steps: &mut Vec<Step>) {
    let candidate = &state.nodes[usize::from(node)];
    if candidate.voters & bit(node) == 0 {
        return;
    }
    let willing = bits(|n| {
        let voter = &state.nodes[usize::from(n)];
        voter.rank() <= candidate.rank() && voter.term <= setting.elections
    });
    for votes in 0..1 << nodes().count() {
        // More votes than needed are as many steps: the votes, and then the next append.
        if votes & bit(node) != 0
            && votes & !(candidate.voters & willing) == 0
            && votes.count_ones() == candidate.voters.count_ones() / 2 + 1
        {
            steps.push(Step::Elect { node, votes });
        }
    }
}

fn leading(setting: &Setting, state: &State, leader: u8, steps: &mut Vec<Step>) {
    let node = &state.nodes[usize::from(leader)];
    let Some(lead) = &node.lead else { return };
    for to in nodes().filter(|to| *to != leader && node.voters & bit(*to) != 0) {
        steps.push(Step::Replicate { from: leader, to });
    }
    let confirmed = |slot: &usize| lead.asks[*slot].confirmed;
    steps.extend((0..SLOTS).filter(confirmed).map(|slot| Step::Grant { leader, slot }));
    if !setting.plain {
        let possible = (1..=node.tail.len).filter(|n| act::may_commit(node, leader, *n));
        steps.extend(possible.map(|places| Step::Commit { leader, places }));
    }
    if !setting.keeps(Rule::NoTimeOut) {
        steps.push(Step::TimeOut { leader });
    }
    // What it decides now could never be committed (`reduce::nobody_can_be_elected`): it would only keep it from granting.
    if state.over && node.term <= setting.elections {
        return;
    }
    if state.assigns < setting.assigns && lead.in_flight == 0 {
        // Any life of which it can have heard.
        let lives = |master: u8| 0..=state.hosts[usize::from(master)].seen;
        let names = |master| lives(master).map(move |life| Step::Name { leader, master, life });
        steps.extend(hosts().flat_map(names));
    }
    if setting.membership {
        match node.tail.voters().last().unwrap_or(node.voters) {
            VOTERS => steps.push(Step::ChangeVoters { leader, voters: VOTERS | bit(D) }),
            0b1111 => steps.push(Step::ChangeVoters { leader, voters: 0b1111 & !bit(W) }),
            _ => {}
        }
    }
}

/// What is under way to a leader.
fn hearing(state: &State, leader: u8, steps: &mut Vec<Step>) {
    let node = &state.nodes[usize::from(leader)];
    let Some(lead) = &node.lead else { return };
    for from in nodes() {
        let news = lead.matched[usize::from(from)] + 1..=lead.acked[usize::from(from)];
        steps.extend(news.map(|places| Step::HearAppend { leader, from, places }));
    }
    steps.push(Step::HearFence { leader });
    for slot in 0..SLOTS {
        let (ask, Some(armed)) = (&lead.asks[slot], state.armed(slot)) else { continue };
        if !ask.taken {
            let terms = (0..4).filter(|term| armed.asked & bit(*term) != 0);
            steps.extend(terms.map(|term| Step::Take { leader, slot, term }));
        } else if !ask.confirmed {
            let others = nodes().filter(|by| ask.got & bit(*by) == 0);
            steps.extend(others.clone().map(|by| Step::AckRound { leader, by, slot }));
            let sent = others.filter(|by| ask.sent & bit(*by) != 0);
            steps.extend(sent.map(|by| Step::HearRound { leader, by, slot }));
        }
    }
}

fn holding(setting: &Setting, state: &State, host: u8, steps: &mut Vec<Step>) {
    let may_arm = state.hosts[usize::from(host)].arms < setting.arms;
    if may_arm && act::holds(setting, state, host) {
        steps.push(Step::Arm { host, ttl: setting.ttl });
        if setting.armed < setting.ttl {
            steps.push(Step::Arm { host, ttl: setting.armed });
        }
    }
    if act::may_fence(setting, state, host) {
        steps.push(Step::Fence { host });
    }
    if state.hosts[usize::from(host)].life < setting.deaths {
        steps.push(Step::Die { host });
    }
    if state.restarts < setting.restarts {
        steps.push(Step::Restart { host });
    }
}
