//! The status, for three o'clock in the morning.

use std::fmt::Write as _;

use super::{freshness, length, problems, spaced};
use crate::{
    out::Paint,
    table::Table,
    view::{GroupView, MemberView, NodeView, StatusView},
};

pub(crate) fn status(view: &StatusView, paint: Paint) -> String {
    let StatusView { cluster, leader, term, nodes: _, groups, problems: wrong, .. } = view;
    let name = cluster.as_deref().unwrap_or("(not known yet)");
    let leads = match leader {
        Some(leader) => format!("leader {leader}, term {term}"),
        None => paint.bad("no leader"),
    };
    let mut text = format!("cluster {}, {leads}\n", paint.strong(name));
    let _ = writeln!(text, "{}", freshness(&view.freshness, paint));
    if !wrong.is_empty() {
        let _ = write!(text, "\n{}", problems(wrong, paint));
    }
    for group in groups {
        let _ = write!(text, "\n{}", self::group(group, paint));
    }
    let _ = write!(text, "\n{}", nodes(view));
    text
}

fn nodes(view: &StatusView) -> String {
    let mut table = Table::new(&["NODE", "ROLE", "HEARD", "APPLIED", "ADMIN"]);
    for node in &view.nodes {
        let role = role(node);
        let heard = match (node.heard, node.heard_ago_ms) {
            (None, _) => "?".to_owned(),
            (Some(true), Some(ms)) => format!("{} ago", length(ms)),
            (Some(_), Some(ms)) => format!("SILENT for {}", length(ms)),
            (Some(_), None) => "NEVER".to_owned(),
        };
        table.row(vec![
            node.name.clone(),
            if node.leader { format!("{role}, leader") } else { role },
            heard,
            node.applied.map_or_else(|| "?".to_owned(), |a| a.to_string()),
            node.admin.clone(),
        ]);
    }
    table.render("")
}

fn role(node: &NodeView) -> String {
    let role = if node.witness { "witness" } else { "member" };
    match node.vote.as_deref() {
        Some("learner") => format!("{role}, no vote yet"),
        Some("none") => format!("{role}, not joined yet"),
        _ => role.to_owned(),
    }
}

pub(super) fn group(group: &GroupView, paint: Paint) -> String {
    let mut text =
        format!("group {} at {}, port {}\n", paint.strong(&group.name), group.vip, group.port);
    let mut say = |what: &str, told: &str| {
        let _ = writeln!(text, "  {what:<10} {told}");
    };
    say("master", &master(group, paint));
    if let Some(left) = group.lease_left_ms {
        say("lease", &format!("at most {} left", length(left)));
    }
    say("WAIT", &wait(group, paint));
    if group.durability.as_deref() == Some("strict") {
        say("durability", &strict(group, paint));
    }
    if let Some(to) = &group.switchover_to {
        say("switchover", &paint.warn(&format!("to {to}, under way")));
    }
    if let Some(ms) = group.paused_for_ms {
        say("paused", &paint.warn(&format!("no automatic failover for {} more", length(ms))));
    }
    if let Some(hold) = &group.hold {
        say("waits", &paint.warn(&hold.text));
    }
    text.push_str(&members(group));
    text
}

/// Invariant: only a member of the eligible set is promoted without loss, so an empty set protects nothing.
fn wait(group: &GroupView, paint: Paint) -> String {
    if group.eligible.is_empty() {
        return paint.warn("no write survives the loss of the master: no replica may be promoted");
    }
    format!("a write confirmed by `WAIT {}` survives any single failure", group.wait_replicas)
}

fn strict(group: &GroupView, paint: Paint) -> String {
    match group.min_replicas {
        Some(0) => paint.warn("strict; no replica is eligible, so writes go on without one"),
        Some(n) => format!("strict: writes are refused while fewer than {n} replicas are attached"),
        None => "strict; what Redis was told is not known here".to_owned(),
    }
}

fn master(group: &GroupView, paint: Paint) -> String {
    let Some(master) = &group.master else { return paint.bad("none was assigned yet") };
    let since = match (&group.assigned_at, group.assigned_ago_ms) {
        (Some(at), Some(ms)) => format!(" since {at} ({} ago)", length(ms)),
        (Some(at), None) => format!(" since {at}"),
        (None, _) => String::new(),
    };
    let cause =
        group.cause.as_deref().map_or_else(String::new, |c| format!(", cause: {}", spaced(c)));
    let epoch = group.epoch;
    let own = group.members.iter().find(|m| m.node == *master && m.known);
    match (group.serving, own) {
        (false, _) => {
            paint.bad(&format!("{master} does NOT serve yet at epoch {epoch}{since}{cause}"))
        }
        (true, Some(own)) if own.serving_epoch != Some(epoch) => paint
            .bad(&format!("{master} does NOT serve now, assigned at epoch {epoch}{since}{cause}")),
        (true, Some(_)) => {
            format!("{} serves at epoch {epoch}{since}{cause}", paint.strong(master))
        }
        // Only the log is known here, and it does not know of leases.
        (true, None) => format!("{master} by the log, at epoch {epoch}{since}{cause}"),
    }
}

fn members(group: &GroupView) -> String {
    let heading = [
        "NODE",
        "REDIS",
        "ROLE",
        "OFFSET",
        "LAG",
        "LINK",
        "ELIGIBLE",
        "FENCED",
        "EXCLUDED BECAUSE",
    ];
    let mut table = Table::new(&heading);
    for member in &group.members {
        table.row(member_row(group, member));
    }
    table.render("  ")
}

fn member_row(group: &GroupView, member: &MemberView) -> Vec<String> {
    let is_master = group.master.as_ref() == Some(&member.node);
    let redis = member.redis.as_ref();
    let of = |get: &dyn Fn(&crate::view::RedisView) -> Option<String>| {
        redis.and_then(get).unwrap_or_default()
    };
    let health = match (member.health.as_deref(), &member.trouble) {
        (_, _) if !member.known => "?".to_owned(),
        (Some("down"), Some(why)) => format!("DOWN: {why}"),
        (health, _) => health.unwrap_or("?").to_owned(),
    };
    let joining = group.joining.iter().any(|j| j.node == member.node);
    let eligible = match (is_master, member.eligible, joining) {
        (true, _, _) => "master",
        (false, true, _) => "yes",
        (false, false, true) => "joining",
        (false, false, false) => "NO",
    };
    vec![
        member.node.clone(),
        health,
        of(&|r| r.role.clone()),
        of(&|r| Some(r.offset.to_string())),
        of(&|r| r.lag_bytes.map(|b| format!("{b} B"))),
        of(&|r| r.link_up.map(|up| if up { "up" } else { "DOWN" }.to_owned())),
        eligible.to_owned(),
        member.fenced.as_ref().map_or_else(String::new, |f| format!("epoch {}", f.epoch)),
        member
            .excluded
            .as_ref()
            .filter(|_| !is_master)
            .map_or_else(String::new, |e| e.text.clone()),
    ]
}
