//! HTTP as a publisher needs it: one request at a time on a connection that stays open.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use memchr::memmem;

use crate::bench::target::Target;

/// How long a server may take to answer a publication.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// No answer to a publication is longer.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// A connection that publishes.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// What every request begins with.
    head: Vec<u8>,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// An answer that is whole.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Connection {
    pub(super) fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect_timeout(&target.address, ANSWER_DEADLINE)
            .with_context(|| format!("{} cannot be reached", target.url))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
        stream.set_write_timeout(Some(ANSWER_DEADLINE))?;
        let Target { authority, base, token, .. } = target;
        let token = token.as_ref().map(|token| format!("authorization: Bearer {token}\r\n"));
        let head = format!(
            "POST {base}/api/v1/events HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n{}",
            token.unwrap_or_default()
        );
        Ok(Self { stream, head: head.into_bytes(), request: Vec::new(), answer: Vec::new() })
    }

    /// Publishes `body`; fails unless every message of it was taken.
    pub(super) fn publish(&mut self, body: &[u8]) -> anyhow::Result<()> {
        self.request.clear();
        self.request.extend(&self.head);
        write!(self.request, "content-length: {}\r\n\r\n", body.len())?;
        self.request.extend(body);
        self.stream.write_all(&self.request).context("a publication could not be sent")?;
        let answer = self.read()?;
        let text = || String::from_utf8_lossy(&answer.body[..answer.body.len().min(400)]).into_owned();
        if !matches!(answer.status, 200 | 201) {
            bail!("a publication was answered with {}: {}", answer.status, text());
        }
        if memmem::find(&answer.body, b"\"error\":").is_some() {
            bail!("a message was refused: {}", text());
        }
        Ok(())
    }

    fn read(&mut self) -> anyhow::Result<Answer> {
        self.answer.clear();
        let mut buffer = [0; 16 * 1024];
        loop {
            let n = match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the server hung up instead of answering a publication"),
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    return Err(e).with_context(|| {
                        format!("the server did not answer a publication within {ANSWER_DEADLINE:?}")
                    });
                }
            };
            self.answer.extend(&buffer[..n]);
            if let Some(answer) = parse(&self.answer)? {
                return Ok(answer);
            }
            if self.answer.len() > ANSWER_BYTES {
                bail!("the answer to a publication has no end");
            }
        }
    }
}

/// The answer at the beginning of `bytes`, once it is whole.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<Answer>> {
    let Some(end) = memmem::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).context("the server's answer has no readable head")?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.context("the server's answer is no HTTP")?;
    let mut length = None;
    let mut chunked = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse::<usize>().context("the answer's length is no number")?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.eq_ignore_ascii_case("chunked");
        }
    }
    let rest = &bytes[end + 4..];
    let body = match (chunked, length) {
        (true, _) => unchunk(rest)?,
        (false, Some(length)) => rest.get(..length).map(<[u8]>::to_vec),
        (false, None) => bail!("the server's answer says nothing of its length"),
    };
    Ok(body.map(|body| Answer { status, body }))
}

/// The body in chunks at the beginning of `bytes`, once it is whole.
fn unchunk(mut bytes: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = memmem::find(bytes, b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|line| line.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let size = size.filter(|&size| size <= ANSWER_BYTES).context("a chunk has no sound size")?;
        bytes = &bytes[end + 2..];
        let Some(chunk) = bytes.get(..size + 2) else { return Ok(None) };
        if size == 0 {
            return Ok(Some(body));
        }
        body.extend(&chunk[..size]);
        bytes = &bytes[size + 2..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn an_answer_is_read_once_it_is_whole() {
        for text in [
            "HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n4;x=y\r\n\":1}\r\n0\r\n\r\n",
        ] {
            for end in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..end]).expect("sound"), None, "{end} of {text}");
            }
            assert_eq!(parse(text.as_bytes()).expect("sound"), Some(answer(201, "{\"a\":1}")));
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_refused() {
        for text in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
