//! Why a group does not move.

use std::fmt::Write as _;

use super::{freshness, length, problems, status};
use crate::{
    out::Paint,
    table::Table,
    view::{CandidateView, ExplainView},
};

pub(crate) fn explain(view: &ExplainView, paint: Paint) -> String {
    let ExplainView { freshness: fresh, summary, group, candidates, problems: wrong } = view;
    let from_leader = fresh.source.as_deref() == Some("leader");
    let mut text = format!("{}\n{}\n\n", paint.strong(summary), freshness(fresh, paint));
    text.push_str(&status::group(group, paint));
    let mut table =
        Table::new(&["CANDIDATE", "OFFSET", "WOULD LOSE", "PRIORITY", "ELIGIBLE", "VERDICT"]);
    for c in candidates {
        let verdict = match &c.excluded {
            Some(why) => why.text.clone(),
            None if from_leader => "could be promoted".to_owned(),
            None => "?".to_owned(),
        };
        table.row(vec![
            c.node.clone(),
            c.offset.map_or_else(String::new, |o| o.to_string()),
            would_lose(c, group.master.as_deref()),
            c.priority.to_string(),
            if c.eligible { "yes" } else { "no" }.to_owned(),
            verdict,
        ]);
    }
    let _ = write!(text, "\n{}", table.render(""));
    if !wrong.is_empty() {
        let _ = write!(text, "\n{}", problems(wrong, paint));
    }
    text
}

/// What a promotion of it would lose now, and how old that knowledge is.
fn would_lose(candidate: &CandidateView, master: Option<&str>) -> String {
    match (candidate.loss_bytes, candidate.loss_known_ago_ms) {
        (Some(bytes), Some(ago)) => format!("{bytes} B, known {} ago", length(ago)),
        (Some(bytes), None) => format!("{bytes} B"),
        (None, _) if master == Some(&candidate.node) => String::new(),
        (None, _) => "?".to_owned(),
    }
}
