//! Where answers go: tables for people, JSON for programs. Colour only on a terminal.

use std::{
    env,
    io::{self, IsTerminal as _, Write},
};

use serde::Serialize;

use crate::{args::Output, failure::Failure};

/// Standard output, as asked for.
pub(crate) struct Out {
    to: Box<dyn Write>,
    output: Output,
    paint: Paint,
}

/// Whether words may be coloured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint(bool);

impl Paint {
    /// Something is wrong.
    pub(crate) fn bad(self, text: &str) -> String {
        self.with("31;1", text)
    }

    /// Something wants attention.
    pub(crate) fn warn(self, text: &str) -> String {
        self.with("33", text)
    }

    /// A heading.
    pub(crate) fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Out {
    pub(crate) fn stdout(output: Output) -> Self {
        let stdout = io::stdout();
        let plain = env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let paint = Paint(stdout.is_terminal() && !plain && output == Output::Table);
        Self { to: Box::new(stdout.lock()), output, paint }
    }

    pub(crate) fn is_table(&self) -> bool {
        self.output == Output::Table
    }

    /// One answer: `value` as indented JSON, or as `table` writes it.
    pub(crate) fn answer<T: Serialize>(
        &mut self,
        value: &T,
        table: impl FnOnce(&T, Paint) -> String,
    ) -> Result<(), Failure> {
        match self.output {
            Output::Table => self.to.write_all(table(value, self.paint).as_bytes())?,
            Output::Json => {
                serde_json::to_writer_pretty(&mut self.to, value)?;
                self.to.write_all(b"\n")?;
            }
        }
        Ok(self.to.flush()?)
    }

    /// One of many: a line of JSON, or as `line` writes it.
    pub(crate) fn line<T: Serialize>(
        &mut self,
        value: &T,
        line: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.output {
            Output::Table => self.to.write_all(line(value).as_bytes())?,
            Output::Json => serde_json::to_writer(&mut self.to, value)?,
        }
        self.to.write_all(b"\n")?;
        Ok(self.to.flush()?)
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes)?;
        Ok(self.to.flush()?)
    }
}
