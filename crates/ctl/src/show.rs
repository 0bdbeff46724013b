//! Answers as people read them: what is wrong comes first, and with the command that helps.

mod explain;
mod history;
mod quarantine;
mod status;

pub(crate) use explain::explain;
pub(crate) use history::{event, history};
pub(crate) use quarantine::quarantine;
pub(crate) use status::status;

use crate::{
    out::Paint,
    view::{FreshnessView, ProblemView},
};

/// Milliseconds in the largest unit that says enough.
fn length(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        3_600_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} d", ms / 86_400_000),
    }
}

fn spaced(word: &str) -> String {
    word.replace('_', " ")
}

fn freshness(freshness: &FreshnessView, paint: Paint) -> String {
    let FreshnessView { node, source, leader_heard_ago_ms, note } = freshness;
    if source.as_deref() == Some("leader") {
        return format!("as of now, from the leader {node}");
    }
    let heard = leader_heard_ago_ms.map_or_else(
        || "which has not heard a leader".to_owned(),
        |ms| format!("which heard the leader {} ago", length(ms)),
    );
    let note = note.as_ref().map_or_else(String::new, |n| format!(" ({n})"));
    paint.warn(&format!("{node}'s own view, {heard}; it may be old{note}"))
}

fn problems(problems: &[ProblemView], paint: Paint) -> String {
    let mut text = String::new();
    for problem in problems {
        let ProblemView { severity, group, node: _, text: told, help } = problem;
        let severity = severity.as_deref().unwrap_or("unknown");
        let mark =
            if severity == "critical" { paint.bad("CRITICAL") } else { paint.warn("WARNING ") };
        let group = group.as_ref().map_or_else(String::new, |g| format!("{g}: "));
        text.push_str(&format!("{mark} {group}{told}\n"));
        if let Some(help) = help {
            text.push_str(&format!("         try: {help}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn lengths_keep_two_digits_or_more() {
        let table = [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_250, "1.2 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 d"),
        ];
        for (ms, text) in table {
            assert_eq!(length(ms), text);
        }
    }
}
