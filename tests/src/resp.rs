//! RESP2 as the lab speaks it: commands out, bounded replies in.
//!
//! The writers need to know when each byte arrived and must not share code with the product, so
//! the lab has a client of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Longest bulk string and array the lab accepts.
const LIMIT: usize = 64 << 20;

/// A reply of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Option<Vec<u8>>),
    Array(Vec<Reply>),
}

impl Reply {
    /// Text of a simple or bulk string.
    pub fn text(&self) -> Option<String> {
        match self {
            Reply::Simple(text) => Some(text.clone()),
            Reply::Bulk(Some(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Reply::Bulk(None) | Reply::Error(_) | Reply::Integer(_) | Reply::Array(_) => None,
        }
    }

    /// Elements of an array.
    pub fn elements(&self) -> &[Reply] {
        match self {
            Reply::Array(elements) => elements,
            Reply::Simple(_) | Reply::Error(_) | Reply::Integer(_) | Reply::Bulk(_) => &[],
        }
    }
}

/// Appends one command.
pub(crate) fn encode_command(out: &mut Vec<u8>, words: &[&[u8]]) {
    out.extend(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend(format!("${}\r\n", word.len()).as_bytes());
        out.extend(*word);
        out.extend(b"\r\n");
    }
}

/// Collects bytes and yields whole replies.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
    /// Start of what was not yet yielded; moved to the front now and then.
    start: usize,
}

impl Decoder {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.start > 1 << 16 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend(bytes);
    }

    /// The next whole reply; `None` while it is incomplete.
    pub(crate) fn next_reply(&mut self) -> Result<Option<Reply>> {
        let mut at = self.start;
        let reply = parse(&self.bytes, &mut at, 0)?;
        if reply.is_some() {
            self.start = at;
        }
        Ok(reply)
    }
}

fn parse(bytes: &[u8], at: &mut usize, depth: usize) -> Result<Option<Reply>> {
    ensure!(depth < 8, "reply nested too deep");
    let Some(line) = take_line(bytes, at) else { return Ok(None) };
    let (kind, rest) = line.split_first().context("empty reply line")?;
    let rest = std::str::from_utf8(rest).context("reply line is not text")?;
    let reply = match kind {
        b'+' => Reply::Simple(rest.to_owned()),
        b'-' => Reply::Error(rest.to_owned()),
        b':' => Reply::Integer(rest.parse()?),
        b'$' if rest == "-1" => Reply::Bulk(None),
        b'*' if rest == "-1" => Reply::Array(Vec::new()),
        b'$' => {
            let length = checked_length(rest)?;
            let Some(body) = bytes.get(*at..*at + length + 2) else { return Ok(None) };
            *at += length + 2;
            Reply::Bulk(Some(body[..length].to_vec()))
        }
        b'*' => {
            let mut elements = Vec::new();
            for _ in 0..checked_length(rest)? {
                let Some(element) = parse(bytes, at, depth + 1)? else { return Ok(None) };
                elements.push(element);
            }
            Reply::Array(elements)
        }
        other => bail!("reply begins with byte {other}"),
    };
    Ok(Some(reply))
}

fn take_line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = bytes.get(*at..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    *at += end + 2;
    Some(&rest[..end])
}

fn checked_length(text: &str) -> Result<usize> {
    let length: usize = text.parse().with_context(|| format!("length {text}"))?;
    ensure!(length <= LIMIT, "length {length} is over the limit");
    Ok(length)
}

/// A blocking connection, authenticated.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    decoder: Decoder,
}

impl Connection {
    /// Connects and sends `AUTH`; both within `limit`, which then holds for each reply.
    pub(crate) fn open(to: SocketAddr, password: &str, limit: Duration) -> Result<Self> {
        let mut connection = Self::open_without_password(to, limit)?;
        match connection.call(&["AUTH", password])? {
            Reply::Simple(_) => Ok(connection),
            other => bail!("AUTH at {to}: {other:?}"),
        }
    }

    /// Connects to a server that asks for no password.
    pub(crate) fn open_without_password(to: SocketAddr, limit: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&to, limit).with_context(|| format!("{to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        Ok(Connection { stream, decoder: Decoder::default() })
    }

    /// Returns when the server has closed the connection; what it sends until then is dropped.
    pub(crate) fn wait_closed(&mut self) -> Result<()> {
        self.stream.set_read_timeout(None)?;
        let mut buffer = [0_u8; 4096];
        // A reset is as much an end as a close.
        while matches!(self.stream.read(&mut buffer), Ok(count) if count > 0) {}
        Ok(())
    }

    /// One command and its reply.
    pub fn call(&mut self, words: &[&str]) -> Result<Reply> {
        self.send(words)?;
        self.receive()
    }

    /// Sends a command whose reply [`Connection::receive`] will take.
    pub(crate) fn send(&mut self, words: &[&str]) -> Result<()> {
        let mut bytes = Vec::new();
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        encode_command(&mut bytes, &words);
        self.stream.write_all(&bytes).context("send")
    }

    /// The next reply.
    pub(crate) fn receive(&mut self) -> Result<Reply> {
        let mut buffer = [0_u8; 65536];
        loop {
            if let Some(reply) = self.decoder.next_reply()? {
                return Ok(reply);
            }
            let count = self.stream.read(&mut buffer).context("receive")?;
            ensure!(count > 0, "Redis closed the connection");
            self.decoder.feed(&buffer[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_found_in_any_cut() {
        let wire = b"+OK\r\n:7\r\n$-1\r\n*2\r\n$3\r\na\r\n\r\n-ERR no\r\n$0\r\n\r\n";
        // The second bulk string holds a line break: only its length delimits it.
        for cut in 0..wire.len() {
            let mut decoder = Decoder::default();
            let mut replies = Vec::new();
            for part in [&wire[..cut], &wire[cut..]] {
                decoder.feed(part);
                while let Some(reply) = decoder.next_reply().expect("valid") {
                    replies.push(reply);
                }
            }
            assert_eq!(replies.len(), 5, "cut at {cut}: {replies:?}");
            assert_eq!(replies[1], Reply::Integer(7));
            assert_eq!(replies[3].elements()[0], Reply::Bulk(Some(b"a\r\n".to_vec())));
            assert_eq!(replies[4], Reply::Bulk(Some(Vec::new())));
        }
    }

    #[test]
    fn absurd_length_is_refused() {
        let mut decoder = Decoder::default();
        decoder.feed(b"$99999999999\r\n");
        assert!(decoder.next_reply().is_err());
    }
}
