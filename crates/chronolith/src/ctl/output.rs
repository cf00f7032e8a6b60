//! Answers on standard output, for people or for programs; what is about them on standard error.
//!
//! `simple` is for people: aligned columns, times in RFC 3339, bytes escaped where they are not text.
//! `json` is one object a line; keys and values are base64, as in etcdctl's.

use super::failure::Failure;
use base64::{Engine as _, prelude::BASE64_STANDARD};
pub(crate) use chronolith_audit::hex;
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::io::{self, Write as _};

/// A value shown among others is cut here; `--full` shows all of it.
const SHOWN_CHARS_MAX: usize = 64;
const BETWEEN_COLUMNS: &str = "  ";

/// The form of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Simple,
    /// For programs: one object a line.
    Json,
}

/// How answers are written.
#[derive(Args, Clone, Debug)]
pub(crate) struct Output {
    /// The form of answers.
    #[arg(long, short, value_enum, default_value = "simple", global = true)]
    write_out: Format,
    /// Show keys and values as hexadecimal digits.
    #[arg(long, global = true)]
    hex: bool,
    /// Show values whole, not only their beginning.
    #[arg(long, global = true)]
    full: bool,
}

impl Output {
    pub(crate) fn is_json(&self) -> bool {
        self.write_out == Format::Json
    }

    /// A key or a value as people see it, whole and on one line.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> String {
        if self.hex { hex(bytes) } else { escaped(bytes) }
    }

    /// A value among others: cut where it is long.
    pub(crate) fn shortened(&self, bytes: &[u8]) -> String {
        let whole = self.bytes(bytes);
        match whole.char_indices().nth(SHOWN_CHARS_MAX) {
            Some((end, _)) if !self.full => {
                format!("{}… ({} bytes)", &whole[..end], bytes.len())
            }
            _ => whole,
        }
    }

    /// A value by itself, as a pipe wants it: the bytes and a newline.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let hex = self.hex.then(|| hex(bytes).into_bytes());
        let bytes = hex.as_deref().unwrap_or(bytes);
        write(&[bytes, b"\n"].concat())
    }

    /// One object of JSON on a line.
    pub(crate) fn json(&self, value: &Value) -> Result<(), Failure> {
        self.line(&value.to_string())
    }

    #[expect(clippy::unused_self, reason = "answers go through the chosen output")]
    pub(crate) fn line(&self, line: &str) -> Result<(), Failure> {
        write(format!("{line}\n").as_bytes())
    }

    /// Columns under their names; numbers on the right. A column is a name and whether it holds numbers.
    pub(crate) fn table(
        &self,
        columns: &[(&str, bool)],
        rows: &[Vec<String>],
    ) -> Result<(), Failure> {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([columns[column].0.len()]).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..columns.len()).map(width).collect();
        let names: Vec<_> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        std::iter::once(&names).chain(rows).try_for_each(|row| {
            let mut line = String::new();
            for ((cell, width), (_, number)) in row.iter().zip(&widths).zip(columns) {
                let gap = " ".repeat(width - cell.chars().count());
                let padded = if *number { gap + cell } else { cell.clone() + &gap };
                line += &padded;
                line += BETWEEN_COLUMNS;
            }
            self.line(line.trim_end())
        })
    }

    /// What is about the answer and not a part of it.
    #[expect(clippy::unused_self, reason = "notes go with the chosen output")]
    pub(crate) fn note(&self, text: &str) {
        // Nobody reading notes is no reason to fail.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Undecided(format!("cannot write the answer: {error}")),
    })
}

/// As the JSON forms carry bytes.
pub(crate) fn base64(bytes: &[u8]) -> Value {
    Value::from(BASE64_STANDARD.encode(bytes))
}

/// A number and what it counts.
pub(crate) fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Text as it is, with control characters, backslashes and bytes that are no UTF-8 escaped: the terminal
/// shows what is there and obeys none of it.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text += "\\\\",
                '\n' => text += "\\n",
                '\r' => text += "\\r",
                '\t' => text += "\\t",
                c if c.is_control() => text += &c.escape_unicode().to_string(),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(hex: bool) -> Output {
        Output { write_out: Format::Simple, hex, full: false }
    }

    #[test]
    fn bytes_are_shown_so_that_a_terminal_obeys_none_of_them() {
        let shown = |bytes: &[u8]| output(false).bytes(bytes);
        assert_eq!(shown("größe".as_bytes()), "größe");
        assert_eq!(shown(b"a\\b\nc"), "a\\\\b\\nc");
        assert_eq!(shown(b"\x1b[31mred"), "\\u{1b}[31mred");
        assert_eq!(shown(b"k8s\0\xff\xfe"), "k8s\\u{0}\\xff\\xfe");
        assert_eq!(output(true).bytes(b"\x00az"), "00617a");
    }

    #[test]
    fn a_long_value_is_cut_and_says_how_long_it_is() {
        let long = "ä".repeat(65);
        assert_eq!(
            output(false).shortened(long.as_bytes()),
            format!("{}… (130 bytes)", "ä".repeat(64))
        );
        let full = Output { full: true, ..output(false) };
        assert_eq!(full.shortened(long.as_bytes()), long);
    }
}
