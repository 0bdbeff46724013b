//! Log lines that never hold anybody up.
//!
//! Lines go into a bounded queue; one thread writes them to standard error. When the queue is full a line is dropped
//! and counted, and the count is written as soon as there is room. Deliberately absent: files and rotation, which
//! the service manager does.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::config::LogFormat;

/// Lines that may wait for the disk or terminal behind standard error.
const LINES_MAX: usize = 4_096;

/// Where `tracing` writes.
#[derive(Clone, Debug)]
pub(crate) struct LineQueue {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

impl LineQueue {
    fn new(capacity: usize) -> (Self, Receiver<Vec<u8>>) {
        let (lines, received) = sync_channel(capacity);
        (Self { lines, dropped: Arc::default() }, received)
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line { queue: self.clone(), text: Vec::with_capacity(256) }
    }
}

/// One line on its way; queued when dropped.
#[derive(Debug)]
pub(crate) struct Line {
    queue: LineQueue,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.queue.lines.try_send(std::mem::take(&mut self.text)).is_err() {
            self.queue.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write_lines(received: &Receiver<Vec<u8>>, dropped: &AtomicU64, out: &mut impl Write) {
    let mut reported = 0;
    while let Ok(line) = received.recv() {
        let lost = dropped.load(Ordering::Relaxed);
        // A closed standard error is no reason to end: nobody is left to tell.
        if lost > reported {
            let _ = writeln!(
                out,
                "{} log lines were dropped: standard error is too slow",
                lost - reported
            );
            reported = lost;
        }
        let _ = out.write_all(&line);
    }
}

/// Install the subscriber. The filter is `RUST_LOG`, else `info`.
///
/// # Errors
/// The writer thread cannot be started.
pub(crate) fn init(format: LogFormat) -> io::Result<()> {
    let (queue, received) = LineQueue::new(LINES_MAX);
    let dropped = Arc::clone(&queue.dropped);
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || write_lines(&received, &dropped, &mut io::stderr()))?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue).with_ansi(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.event_format(crate::json_lines::JsonLines).init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_counts_instead_of_waiting() {
        let (queue, received) = LineQueue::new(2);
        for n in 0..5 {
            let mut line = queue.make_writer();
            writeln!(line, "line {n}").unwrap();
        }
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 3);
        let dropped = Arc::clone(&queue.dropped);
        drop(queue);
        let mut out = Vec::new();
        write_lines(&received, &dropped, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "3 log lines were dropped: standard error is too slow\nline 0\nline 1\n");
    }
}
