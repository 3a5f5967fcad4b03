//! Answers on standard output: tables for people, JSON for programs.
//!
//! Used by every command. Notes and progress go to standard error and are none of its business.

use std::io::{self, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use super::failure::{Exit, Failure};

/// Writes `text` to standard output. A reader that has gone (`inferq models list | head -1`) is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(Exit::Failed, format!("standard output cannot be written: {error}"))),
    }
}

/// Writes `value` to standard output as indented JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Exit::Failed, format!("the answer cannot be written as JSON: {error}")))?;
    print(&format!("{text}\n"))
}

/// Two JSON objects as one, without members that are null.
pub(super) fn merged(first: Value, second: Value) -> Value {
    let members = [first, second].into_iter().filter_map(|value| match value {
        Value::Object(members) => Some(members),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    });
    members.flatten().filter(|(_, value)| !value.is_null()).collect()
}

/// Writes a table to standard output: no lines around cells, so that it can be cut and searched.
pub(super) fn print_table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Result<(), Failure> {
    print(&table(header, rows))
}

/// The same for a table whose number of columns is known only now.
pub(super) fn print_rows(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Result<(), Failure> {
    print(&table(header.iter().copied(), rows))
}

fn table<'a, Row: IntoIterator<Item = String>>(
    header: impl IntoIterator<Item = &'a str>,
    rows: impl IntoIterator<Item = Row>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_no_line_ends_in_blanks() {
        let rows = [["broker.url", "x"], ["a", "longer"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(["KEY", "VALUE"], rows), "KEY         VALUE\nbroker.url  x\na           longer\n");
    }
}
