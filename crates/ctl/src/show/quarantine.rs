//! What one node keeps aside, a line each.

use crate::{out::Paint, table::Table, view::QuarantineView};

pub(crate) fn quarantine(view: &QuarantineView, paint: Paint) -> String {
    let QuarantineView { node, directory, max_bytes, max_files, entries } = view;
    let head = match max_bytes {
        0 => paint.warn(&format!("{node} keeps nothing of an old master (max_bytes is 0)")),
        _ => format!(
            "{node} keeps at most {max_files} files of a group and {max_bytes} bytes in all, in {directory}"
        ),
    };
    if entries.is_empty() {
        return format!("{head}\n\nnothing is there\n");
    }
    let mut table = Table::new(&["TIME", "GROUP", "EPOCH", "GAP BYTES", "SIZE BYTES", "PATH"]);
    for entry in entries {
        table.row(vec![
            entry.at.clone().unwrap_or_default(),
            entry.group.clone(),
            entry.epoch.to_string(),
            entry.gap_bytes.map_or_else(|| "unknown".to_owned(), |gap| gap.to_string()),
            entry.size_bytes.to_string(),
            entry.path.clone(),
        ]);
    }
    format!("{head}\n\n{}", table.render(""))
}
