//! History and events, a line each.

use super::{freshness, length, spaced};
use crate::{
    out::Paint,
    table::Table,
    view::{EventView, HistoryView, RecordView},
};

pub(crate) fn history(view: &HistoryView, paint: Paint) -> String {
    let HistoryView { freshness: fresh, records } = view;
    let mut table = Table::new(&["TIME", "INDEX", "GROUP", "EPOCH", "WHAT"]);
    for record in records {
        table.row(vec![
            record.at.clone().unwrap_or_default(),
            record.index.to_string(),
            record.group.clone().unwrap_or_default(),
            record.epoch.map_or_else(String::new, |e| e.to_string()),
            what(record),
        ]);
    }
    format!("{}\n\n{}", freshness(fresh, paint), table.render(""))
}

fn what(record: &RecordView) -> String {
    let node = record.node.as_deref().unwrap_or("?");
    let told = record.text.as_ref().map_or_else(String::new, |t| format!(": {t}"));
    match record.kind.as_deref() {
        Some("bootstrapped") => "the cluster's spec was written".to_owned(),
        Some("assigned") => {
            let from = record.from.as_ref().filter(|f| *f != node);
            let from = from.map_or_else(String::new, |f| format!(" after {f}"));
            let cause =
                record.cause.as_deref().map_or_else(String::new, |c| format!(" ({})", spaced(c)));
            let lost = match record.estimated_loss_bytes {
                Some(0) => String::new(),
                Some(bytes) => format!("; about {bytes} bytes were not replicated"),
                None => "; how many bytes were not replicated is not known".to_owned(),
            };
            format!("{node} assigned as master{from}{cause}{told}{lost}")
        }
        Some("serving") => format!("{node} serves"),
        Some("switchover_started") => format!("switchover to {node} begins"),
        Some("switchover_aborted") => format!("switchover aborted{told}"),
        Some("paused") => {
            format!("automatic failover paused for {}", length(record.duration_ms.unwrap_or(0)))
        }
        Some("resumed") => "automatic failover on again".to_owned(),
        Some("node_added") => format!("node {node} was added"),
        Some("node_removed") => format!("node {node} was taken out"),
        Some("member_added") => format!("{node} became a member"),
        Some("member_removed") => format!("{node} was taken out of the group"),
        Some("acknowledged") => "failures acknowledged by an operator".to_owned(),
        Some(other) => format!("{}{told}", spaced(other)),
        None => format!("something this version does not know{told}"),
    }
}

pub(crate) fn event(event: &EventView) -> String {
    let at = event.at.as_deref().unwrap_or("-");
    let group = event.group.as_deref().unwrap_or("-");
    let epoch = event.epoch.map_or_else(String::new, |e| format!(" [epoch {e}]"));
    format!("{at}  {:<8} {group:<10} {}{epoch}", event.node, event.text)
}
