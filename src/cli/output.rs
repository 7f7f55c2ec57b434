//! Standard output and standard error. Nothing else in the program prints, so that a closed pipe is
//! an error value and never a panic.

use std::io::Write;

use serde::Serialize;

use crate::cli::CliError;

/// Where results go, and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    json: bool,
}

impl Output {
    /// JSON or text for people.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints bytes as they are.
    pub fn raw(self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(CliError::Output)
    }

    /// Prints a line.
    pub fn line(self, text: &str) -> Result<(), CliError> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Prints a value as JSON.
    pub fn json(self, value: &impl Serialize) -> Result<(), CliError> {
        let text =
            serde_json::to_string_pretty(value).map_err(|error| CliError::Output(error.into()))?;
        self.line(&text)
    }

    /// Prints `value` if JSON is wanted, else the text.
    pub fn either(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        if self.json { self.json(value) } else { self.line(text().trim_end()) }
    }
}

/// Prints a line to standard error. If that is closed, nobody can be told.
pub fn complain(text: &str) {
    let _closed = writeln!(std::io::stderr().lock(), "{text}");
}

/// Rows under a head, each column as wide as its widest cell.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[&str]| {
        let padded: Vec<_> =
            cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    let mut text = line(&head);
    for row in rows {
        text.push_str(&line(&row.each_ref().map(String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let text =
            table(["ID", "NAME"], &[["1".into(), "Ada".into()], ["100".into(), String::new()]]);
        assert_eq!(text, "ID   NAME\n1    Ada\n100\n");
    }
}
