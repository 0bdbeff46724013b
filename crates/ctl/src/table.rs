//! Columns that line up.

/// Rows under a heading; the last column is not padded.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|h| (*h).to_owned()).collect()] }
    }

    /// An empty cell becomes a dash.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.rows[0].len());
        let dash = |c: String| if c.is_empty() { "-".to_owned() } else { c };
        self.rows.push(cells.into_iter().map(dash).collect());
    }

    /// Each line begins with `indent`.
    pub(crate) fn render(&self, indent: &str) -> String {
        let columns = self.rows[0].len();
        let widths: Vec<_> = (0..columns)
            .map(|c| self.rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let cells: Vec<_> =
                row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
            text.push_str(indent);
            text.push_str(cells.join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up_and_lines_end_clean() {
        let mut table = Table::new(&["NODE", "X"]);
        table.row(vec!["a".to_owned(), String::new()]);
        table.row(vec!["längst".to_owned(), "1".to_owned()]);
        assert_eq!(table.render("  "), "  NODE    X\n  a       -\n  längst  1\n");
    }
}
