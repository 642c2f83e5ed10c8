use serde_json::Value;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Larger answers are a mistake.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Longer heads are a mistake.
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// A minimal HTTP/1.1 client on one connection. It never repeats a call by itself: who counts what was acknowledged must know
/// of every call that had no answer.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    patience: Duration,
    connection: Option<BufReader<TcpStream>>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body if it is JSON, its text if it is not, null if there is none.
    pub body: Value,
}

impl Answer {
    /// Whether the call was done.
    pub fn ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The stable code of a refusal; empty if there is none.
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    /// A header's value; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

impl Client {
    /// A client that gives up a call after `patience`. It connects with its first call.
    pub fn new(address: SocketAddr, patience: Duration) -> Self {
        Self { address, patience, connection: None }
    }

    /// `GET`.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.call("GET", path, &[], b"")
    }

    /// `POST` of a JSON value.
    pub fn post(&mut self, path: &str, body: &Value) -> io::Result<Answer> {
        self.call("POST", path, &[], body.to_string().as_bytes())
    }

    /// Any call. An error means that the outcome is unknown, unless it is [`io::ErrorKind::ConnectionRefused`].
    pub fn call(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        // Taken out, so that a connection that failed half way is never used again.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        request += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        let mut bytes = (request + "\r\n").into_bytes();
        bytes.extend_from_slice(body);
        connection.get_mut().write_all(&bytes)?;
        let answer = read_answer(&mut connection)?;
        if answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Ok(answer)
    }

    fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&self.address, self.patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))?;
        Ok(BufReader::with_capacity(64 << 10, stream))
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the answer has {what}"))
}

fn read_line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if from.take(HEAD_BYTES_MAX).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn read_answer(from: &mut impl BufRead) -> io::Result<Answer> {
    let first = read_line(from)?;
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| bad("no status"))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(from)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a bad header"))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Value::Null };
    let bytes = if answer.header("transfer-encoding") == Some("chunked") {
        read_chunks(from)?
    } else {
        let length = answer.header("content-length").map_or(Ok(0), str::parse);
        read_exactly(from, length.map_err(|_| bad("a bad length"))?)?
    };
    if !bytes.is_empty() {
        answer.body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(answer)
}

fn read_exactly(from: &mut impl BufRead, length: usize) -> io::Result<Vec<u8>> {
    if length > ANSWER_BYTES_MAX {
        return Err(bad("too many bytes"));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let size = usize::from_str_radix(&read_line(from)?, 16).map_err(|_| bad("a bad chunk"))?;
        if bytes.len() + size > ANSWER_BYTES_MAX {
            return Err(bad("too many bytes"));
        }
        bytes.extend(read_exactly(from, size)?);
        read_line(from)?;
        if size == 0 {
            return Ok(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<Answer> {
        read_answer(&mut text.as_bytes())
    }

    #[test]
    fn answers_are_read_with_a_length_and_in_chunks() {
        let with_length = read("HTTP/1.1 201 Created\r\nContent-Length: 7\r\n\r\n{\"a\":1}").unwrap();
        let chunked = read(
            "HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n",
        )
        .unwrap();
        assert_eq!((with_length.status, &with_length.body["a"]), (201, &Value::from(1)));
        assert_eq!(chunked.body, with_length.body);
        assert!(with_length.ok());
    }

    #[test]
    fn an_answer_cut_short_is_an_error() {
        assert!(read("").is_err());
        assert!(read("HTTP/1.1 201 Created\r\n").is_err());
        assert!(read("HTTP/1.1 201 Created\r\ncontent-length: 9\r\n\r\n{\"a\"").is_err());
    }
}
