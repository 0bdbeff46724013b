//! What is wrong, worst first, each in one sentence and with the command that helps.
//!
//! A pure function of one view. A follower says only what it knows at first hand; the leader's view says all.

use redkeep_core::{
    NodeId,
    observe::{Bypass, RedisRole, RedisView, Seen, Sight, TakeoverFailure},
    plan::HoldReason,
    spec::{ClusterSpec, Durability},
    status::{GroupStatus, MemberStatus},
};
use redkeep_proto::admin::v1::{Problem, Severity};

use super::view::{View, down_reason, host_port, is_heard};

const UNREACHED: &str = "firewall, bind and maxclients of that Redis: redis-cli -h ADDRESS -p PORT PING (on the nodes named)";

/// All problems of a view.
pub(super) fn of(view: &View) -> Vec<Problem> {
    let Some(spec) = view.spec() else {
        let text =
            "this node does not know the cluster's spec yet: a majority of supervisors must run";
        return vec![cluster(Severity::Critical, "", text.to_owned(), "systemctl status redkeepd")];
    };
    let mut found = Vec::new();
    if view.status.leader.is_none() {
        let text = "no leader is known: leases are not renewed and nothing fails over until a majority of supervisors hears each other";
        found.push(cluster(
            Severity::Critical,
            "",
            text.to_owned(),
            "redkeepctl status --local (on each node)",
        ));
    }
    if view.leads() {
        found.extend(silent_nodes(view, spec));
    }
    for group in &view.status.groups {
        found.extend(of_group(view, spec, group));
    }
    // A stable sort: within one severity the cluster comes before its groups.
    found.sort_by_key(|p| std::cmp::Reverse(p.severity));
    found
}

fn silent_nodes(view: &View, spec: &ClusterSpec) -> Vec<Problem> {
    let mut found = Vec::new();
    for node in spec.nodes.iter().filter(|n| n.id != view.status.node) {
        // A node that was never heard may be missing among those the leader knows.
        let seen = view.status.nodes.iter().find(|n| n.node == node.id);
        if seen.is_some_and(|n| is_heard(spec, n)) {
            continue;
        }
        let name = &node.name;
        let text = match seen.and_then(|n| n.heard_ago) {
            Some(ago) => format!("the supervisor of {name} is silent for {:.1} s", seconds(ago)),
            None => format!("the supervisor of {name} was never heard by this leader"),
        };
        let help = "systemctl status redkeepd (on that node)";
        found.push(cluster(Severity::Warning, name, text, help));
    }
    found
}

fn seconds(span: redkeep_core::Span) -> f64 {
    std::time::Duration::from_nanos(span.0).as_secs_f64()
}

fn of_group(view: &View, spec: &ClusterSpec, group: &GroupStatus) -> Vec<Problem> {
    let report = Reporter { group: group.group.as_str() };
    let mut found = Vec::new();
    let why = group.hold.as_ref().map_or_else(String::new, |h| format!(": {h}"));
    let help =
        || group.hold.as_ref().map_or_else(|| report.explain(), |h| report.help_for(group, h));
    match group.master {
        None => {
            let text = format!("no master was assigned yet{why}");
            found.push(report.say(Severity::Critical, "", text, help()));
        }
        Some(master) if !group.serving => {
            let name = view.name(master);
            let text = format!("{name} was made master and does not serve yet{why}");
            found.push(report.say(Severity::Critical, &name, text, help()));
        }
        Some(master) => {
            let down = group
                .members
                .iter()
                .any(|m| m.node == master && matches!(m.redis, RedisView::Down(_)));
            if let Some(hold) = group.hold.as_ref().filter(|_| down || view.leads()) {
                let name = view.name(master);
                let severity = if down { Severity::Critical } else { Severity::Warning };
                let text = format!("the group waits: {hold}");
                found.push(report.say(severity, &name, text, help()));
            }
        }
    }
    if let Some(left) = group.paused_for {
        let text = format!("automatic failover is paused for {:.0} s more", seconds(left));
        let help = report.resume(group);
        found.push(report.say(Severity::Warning, "", text, help));
    }
    found.extend(group.members.iter().filter_map(|m| of_member(view, spec, group, m)));
    found.extend(group.members.iter().filter_map(|m| bypassed(view, group, m)));
    found.extend(group.members.iter().filter_map(|m| stuck(view, spec, group, m)));
    found.extend(lapsed_master(view, group));
    found.extend(unreached(view, spec, group));
    found.extend(not_strict(view, group));
    let others = group.members.len() > 1;
    if group.serving && others && group.eligible.is_empty() {
        let text = "no replica may be promoted: losing the master now stops the service".to_owned();
        found.push(report.say(Severity::Warning, "", text, report.explain()));
    }
    found
}

/// Redis was not told, or refused: then it takes writes while its replicas are away.
fn not_strict(view: &View, group: &GroupStatus) -> Option<Problem> {
    let master = group.master.filter(|_| group.serving && view.leads())?;
    let told = group.min_replicas.and_then(|n| usize::try_from(n).ok());
    let strict = group.durability == Durability::Strict;
    let is_short = strict && told.is_none_or(|n| n < group.eligible.len());
    is_short.then(|| {
        let report = Reporter { group: group.group.as_str() };
        let name = view.name(master);
        let text = format!(
            "durability is strict, and Redis at {name} does not ask for {} attached replicas",
            group.eligible.len()
        );
        let help =
            "journalctl -u redkeepd says what it answered: ACL, rename_commands (on that node)";
        report.say(Severity::Warning, &name, text, help.to_owned())
    })
}

/// The log says that it serves; its own host knows better.
fn lapsed_master(view: &View, group: &GroupStatus) -> Option<Problem> {
    let member = group.members.iter().find(|m| group.master == Some(m.node))?;
    let up = matches!(member.redis, RedisView::Up(_) | RedisView::Doubtful(_, _));
    let lapsed = group.serving && member.known && up && member.serving != Some(group.epoch);
    lapsed.then(|| {
        let report = Reporter { group: group.group.as_str() };
        let name = view.name(member.node);
        let text =
            format!("{name} is the master but does not serve at the VIP now: it holds no lease");
        report.say(Severity::Critical, &name, text, report.explain())
    })
}

/// Nodes to which the master's Redis does not answer over the network.
fn unreached(view: &View, spec: &ClusterSpec, group: &GroupStatus) -> Option<Problem> {
    let master = group.master?;
    // A Redis that is down, or behind the closed port of a lapsed lease, is told by itself.
    let member = group.members.iter().find(|m| m.node == master)?;
    let well = member.serving == Some(group.epoch) && matches!(member.redis, RedisView::Up(_));
    let by = |(by, sight): &(NodeId, Sight)| match &sight.seen {
        _ if sight.node != master => None,
        Seen::Reached => None,
        Seen::Lost(why) => Some(format!("{} ({why})", view.name(*by))),
        Seen::Never(why) => {
            Some(format!("{} ({why}; never since its supervisor started)", view.name(*by)))
        }
    };
    let by: Vec<String> = group.sights.iter().filter_map(by).collect();
    (!by.is_empty() && (well || !member.known)).then(|| {
        let report = Reporter { group: group.group.as_str() };
        let name = view.name(master);
        let at = spec.group(&group.group).and_then(|g| spec.redis_addr(master, g));
        let at = at.map_or_else(String::new, |at| format!(" ({at})"));
        let text = format!("Redis at {name}{at} cannot be reached from {}", by.join(", "));
        report.say(Severity::Warning, &name, text, UNREACHED.to_owned())
    })
}

/// A master that cannot begin to serve, and the step that fails.
fn stuck(
    view: &View,
    spec: &ClusterSpec,
    group: &GroupStatus,
    member: &MemberStatus,
) -> Option<Problem> {
    let is_master = group.master == Some(member.node);
    // A lock that is broken is one wherever it is.
    let told = |f: &TakeoverFailure| is_master || *f == TakeoverFailure::Lock;
    let failure = member.takeover_failure.filter(told)?;
    let report = Reporter { group: group.group.as_str() };
    let name = view.name(member.node);
    let of = spec.group(&group.group);
    let vip = of.map_or_else(String::new, |g| g.vip.addr.to_string());
    let link = of.map_or("", |g| g.interface.as_str());
    let (text, help) = match failure {
        TakeoverFailure::Promote => (
            format!("Redis at {name} cannot be made master"),
            "journalctl -u redkeepd says what it answered: password, ACL, rename_commands".into(),
        ),
        TakeoverFailure::Vip => {
            (format!("{name} cannot add the VIP {vip} to {link}"), format!("ip link show {link}"))
        }
        TakeoverFailure::NotAnsweringAtVip => (
            format!("Redis at {name} does not answer at the VIP {vip}"),
            format!("bind in redis.conf must let {vip} in: redis-cli CONFIG GET bind"),
        ),
        TakeoverFailure::Lock => (
            format!("the kernel lock at {name} cannot be worked: its port may be open to all"),
            "journalctl -u redkeepd says what the kernel answered; nft list table inet redkeep"
                .to_owned(),
        ),
    };
    let severity = if is_master { Severity::Critical } else { Severity::Warning };
    Some(report.say(severity, &name, text, format!("{help} (on that node)")))
}

/// It does not stop what serves, but nothing can be moved safely until it is mended.
fn bypassed(view: &View, group: &GroupStatus, member: &MemberStatus) -> Option<Problem> {
    let open = &member.redis.observation()?.bypass;
    let name = view.name(member.node);
    let is_told = matches!(&group.hold, Some(HoldReason::Bypass { node, .. }) if *node == name);
    (!open.is_empty() && !is_told).then(|| {
        let report = Reporter { group: group.group.as_str() };
        let ways = Bypass::tell(open);
        let text = format!("Redis at {name} can be reached around the lock: {ways}");
        report.say(Severity::Warning, &name, text, mends(open))
    })
}

pub(super) fn mends(open: &[Bypass]) -> String {
    format!("{} (on that node)", Bypass::mends(open))
}

fn of_member(
    view: &View,
    spec: &ClusterSpec,
    group: &GroupStatus,
    member: &MemberStatus,
) -> Option<Problem> {
    let report = Reporter { group: group.group.as_str() };
    let name = view.name(member.node);
    let is_master = group.master == Some(member.node);
    match &member.redis {
        RedisView::Down(why) => {
            let severity = if is_master { Severity::Critical } else { Severity::Warning };
            let text = format!("Redis at {name} is down: {}", down_reason(*why));
            let help = "systemctl status redis-server (on that node)".to_owned();
            Some(report.say(severity, &name, text, help))
        }
        RedisView::Doubtful(_, _) => {
            let text = format!("Redis at {name} did not answer its last probe");
            Some(report.say(Severity::Warning, &name, text, report.explain()))
        }
        RedisView::Unknown => (view.leads() && member.known).then(|| {
            let text = format!("Redis at {name} has not answered since its supervisor started");
            report.say(Severity::Warning, &name, text, report.explain())
        }),
        RedisView::Up(seen) => {
            let master = group.master.filter(|_| !is_master && group.serving)?;
            let wanted = spec.group(&group.group).and_then(|g| spec.redis_addr(master, g))?;
            let closed = match member.takeover_failure {
                Some(TakeoverFailure::Lock) => "",
                _ => "; its port is closed",
            };
            let mut help = report.explain();
            let text = match &seen.role {
                RedisRole::Master => {
                    format!("Redis at {name} is a master, but not the group's{closed}")
                }
                RedisRole::Replica { master_host, master_port, .. }
                    if master_host.parse() != Ok(wanted.ip()) || *master_port != wanted.port() =>
                {
                    format!(
                        "Redis at {name} follows {} and not {wanted}",
                        host_port(master_host, *master_port)
                    )
                }
                RedisRole::Replica { link_up: false, .. } => {
                    format!("Redis at {name} has lost its link to the master")
                }
                RedisRole::Replica { read_only: false, .. } => {
                    "replica-read-only yes in redis.conf, then systemctl restart redis-server (on that node)"
                        .clone_into(&mut help);
                    format!(
                        "Redis at {name} is a replica that takes writes (replica-read-only no){closed}"
                    )
                }
                RedisRole::Replica { .. } => return None,
            };
            Some(report.say(Severity::Warning, &name, text, help))
        }
    }
}

fn cluster(severity: Severity, node: &str, text: String, help: &str) -> Problem {
    Problem {
        severity: severity.into(),
        group: String::new(),
        node: node.to_owned(),
        text,
        help: help.to_owned(),
    }
}

/// Says things of one group.
struct Reporter<'a> {
    group: &'a str,
}

impl Reporter<'_> {
    fn say(&self, severity: Severity, node: &str, text: String, help: String) -> Problem {
        Problem {
            severity: severity.into(),
            group: self.group.to_owned(),
            node: node.to_owned(),
            text,
            help,
        }
    }

    fn explain(&self) -> String {
        format!("redkeepctl explain {}", self.group)
    }

    /// A group's own pause does not end with that of all groups; the answer of each says what is left.
    fn resume(&self, status: &GroupStatus) -> String {
        match status.paused_with_all {
            true => "redkeepctl resume".to_owned(),
            false => format!("redkeepctl resume {}", self.group),
        }
    }

    /// What ends a hold; where only time does, what says more.
    fn help_for(&self, status: &GroupStatus, hold: &HoldReason) -> String {
        let group = self.group;
        let at_a_loss =
            format!("redkeepctl failover {group} --to NODE --allow-data-loss --dry-run");
        match hold {
            HoldReason::Paused => self.resume(status),
            HoldReason::NoCandidate => {
                format!("start Redis and redkeepd of the members; if they are gone: {at_a_loss}")
            }
            HoldReason::AdoptionIncomplete | HoldReason::ColdStart { .. } => {
                "systemctl status redkeepd redis-server (on each member)".to_owned()
            }
            HoldReason::AdoptionAmbiguous { .. }
            | HoldReason::AdoptionNoMaster
            | HoldReason::UnrelatedDataSets { .. } => at_a_loss,
            HoldReason::AdoptedNotGuarded => {
                "systemctl start redkeepd (on the master's host)".to_owned()
            }
            HoldReason::EmptyDataSet | HoldReason::OlderDataSet | HoldReason::OtherHistory => {
                format!("start the Redis that has the data; to go on without: {at_a_loss}")
            }
            HoldReason::Cooldown { .. } => {
                format!("redkeepctl acknowledge {group} ends it; failover {group} does not wait")
            }
            // One of many: the look at all of them comes first.
            HoldReason::MassFailure { .. } => {
                format!(
                    "redkeepctl status, then acknowledge [{group}]; failover {group} does not wait"
                )
            }
            HoldReason::Bypass { open, .. } => mends(open),
            HoldReason::Unreached { .. } => UNREACHED.to_owned(),
            HoldReason::OldLease { .. }
            | HoldReason::FencingUnreached { .. }
            | HoldReason::OldMasterDoubtful
            | HoldReason::AwaitingFence { .. }
            | HoldReason::InFlight
            | HoldReason::LeadershipTransfer
            | HoldReason::TakeoverRunning { .. } => self.explain(),
        }
    }
}
