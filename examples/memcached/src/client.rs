//! The few requests of memcached's text protocol that we speak, over one blocking connection to
//! loopback. Every read and write has a time limit: a server that hangs is an error, not a wait.

use anyhow::{Context, Result, bail};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long memcached may take to answer before it counts as hung.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Longest line that we accept in an answer.
const LINE_LIMIT: u64 = 4096;

pub struct Connection {
    reader: BufReader<TcpStream>,
    request: Vec<u8>,
    line: Vec<u8>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)
            .context("cannot connect to memcached")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Self {
            reader: BufReader::new(stream),
            request: Vec::new(),
            line: Vec::new(),
        })
    }

    /// Stores `value` under `key`.
    pub fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        self.request.clear();
        write!(self.request, "set {key} 0 0 {}\r\n", value.len())?;
        self.request.extend_from_slice(value);
        self.request.extend_from_slice(b"\r\n");
        self.send()?;
        match self.answer()? {
            "STORED" => Ok(()),
            other => bail!("memcached answered `{other}` to a set"),
        }
    }

    /// Reads `key` into `value`; false if memcached does not have it.
    pub fn get(&mut self, key: &str, value: &mut Vec<u8>) -> Result<bool> {
        self.request.clear();
        write!(self.request, "get {key}\r\n")?;
        self.send()?;
        let answer = self.answer()?;
        if answer == "END" {
            return Ok(false);
        }
        let length = value_length(answer, key)
            .with_context(|| format!("memcached answered `{answer}` to a get of {key}"))?;
        // The data block is followed by CR LF and the line END.
        value.resize(length + 2, 0);
        self.reader.read_exact(value).map_err(no_answer)?;
        if !value.ends_with(b"\r\n") {
            bail!("memcached sent a value of {key} without its end");
        }
        value.truncate(length);
        match self.answer()? {
            "END" => Ok(true),
            other => bail!("memcached answered `{other}` after a value of {key}"),
        }
    }

    /// Adds one to the counter `key` and gives its new value; `None` if memcached does not have it.
    pub fn incr(&mut self, key: &str) -> Result<Option<u64>> {
        self.request.clear();
        write!(self.request, "incr {key} 1\r\n")?;
        self.send()?;
        match self.answer()? {
            "NOT_FOUND" => Ok(None),
            number => number
                .parse()
                .map(Some)
                .with_context(|| format!("memcached answered `{number}` to an incr")),
        }
    }

    /// Sends requests that are not answered, and waits until memcached has worked them off.
    pub fn unanswered(&mut self, requests: &[u8]) -> Result<()> {
        self.reader
            .get_mut()
            .write_all(requests)
            .context("memcached does not take requests")?;
        self.version().map(drop)
    }

    pub fn version(&mut self) -> Result<String> {
        self.request.clear();
        self.request.extend_from_slice(b"version\r\n");
        self.send()?;
        let answer = self.answer()?;
        answer
            .strip_prefix("VERSION ")
            .map(str::to_string)
            .with_context(|| format!("`{answer}` is not a version"))
    }

    /// memcached's own statistics, by name.
    pub fn stats(&mut self) -> Result<HashMap<String, String>> {
        self.request.clear();
        self.request.extend_from_slice(b"stats\r\n");
        self.send()?;
        let mut stats = HashMap::new();
        loop {
            let answer = self.answer()?;
            if answer == "END" {
                return Ok(stats);
            }
            let mut words = answer.splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some("STAT"), Some(name), Some(value)) => {
                    stats.insert(name.to_string(), value.to_string())
                }
                _ => bail!("memcached answered `{answer}` to stats"),
            };
        }
    }

    fn send(&mut self) -> Result<()> {
        self.reader
            .get_mut()
            .write_all(&self.request)
            .context("memcached does not take a request")
    }

    /// The next line, without its end.
    fn answer(&mut self) -> Result<&str> {
        self.line.clear();
        self.reader
            .by_ref()
            .take(LINE_LIMIT)
            .read_until(b'\n', &mut self.line)
            .map_err(no_answer)?;
        let line = self
            .line
            .strip_suffix(b"\r\n")
            .context("memcached closed the connection in the middle of an answer")?;
        std::str::from_utf8(line).context("memcached's answer is not text")
    }
}

/// The length in `VALUE key flags length`.
fn value_length(answer: &str, key: &str) -> Option<usize> {
    let mut words = answer.split(' ');
    if words.next()? != "VALUE" || words.next()? != key {
        return None;
    }
    words
        .nth(1)?
        .parse()
        .ok()
        .filter(|length| *length <= 1 << 20)
}

fn no_answer(error: std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            anyhow::anyhow!(
                "memcached did not answer within {} s: it hangs",
                ANSWER_LIMIT.as_secs()
            )
        }
        _ => anyhow::Error::new(error).context("lost the connection to memcached"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_line_must_name_the_key_that_was_asked_for() {
        assert_eq!(value_length("VALUE k1 0 12", "k1"), Some(12));
        assert_eq!(value_length("VALUE k2 0 12", "k1"), None);
        assert_eq!(value_length("VALUE k1 0", "k1"), None);
        assert_eq!(value_length("ERROR", "k1"), None);
        assert_eq!(value_length("VALUE k1 0 99999999", "k1"), None);
    }
}
