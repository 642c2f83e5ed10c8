//! Reads Server-Sent Events.

use super::{ANSWER_BYTES_MAX, Client, ClientError, Extras, innermost};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, body::Incoming};

/// Bytes of one event at most.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// One event of a stream; one without data moves only the place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) data: String,
}

/// A stream of events.
pub(crate) struct EventStream {
    client: Client,
    body: Incoming,
    unread: Vec<u8>,
}

impl Client {
    /// Opens a stream of events.
    pub(crate) async fn events(&self, path: &str) -> Result<EventStream, ClientError> {
        let request = self.request(Method::GET, path, Bytes::new(), &Extras::default())?;
        let answer = self.pool.request(request).await.map_err(|error| self.broken(&error))?;
        let (parts, body) = answer.into_parts();
        if parts.status.is_success() {
            return Ok(EventStream { client: self.clone(), body, unread: Vec::new() });
        }
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| self.no_answer(&error.to_string()))?.to_bytes();
        Err(self.refusal(parts.status, &parts.headers, &bytes))
    }
}

impl EventStream {
    /// The next event; `None` when the server has ended the stream.
    pub(crate) async fn next(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.unread.drain(..end + 2).collect();
                let event = read(&String::from_utf8_lossy(&block));
                if event != ServerEvent::default() {
                    return Ok(Some(event));
                }
                continue;
            }
            if self.unread.len() > EVENT_BYTES_MAX {
                return Err(self.client.no_answer("an event is larger than 1 MiB"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.no_answer(&innermost(&error))),
                Some(Ok(frame)) => self.unread.extend(frame.into_data().unwrap_or_default()),
            }
        }
    }
}

fn read(block: &str) -> ServerEvent {
    let mut event = ServerEvent::default();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut event.name),
            "id" => event.id = Some(value.to_owned()),
            "data" => {
                if !event.data.is_empty() {
                    event.data.push('\n');
                }
                event.data.push_str(value);
            }
            _ => {}
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_comments_are_not() {
        let event = read(": hello\nevent: job\nid: 7.0\ndata: {\"a\": 1}\ndata:more\nretry: 5\n\n");
        let expected =
            ServerEvent { name: "job".into(), id: Some("7.0".into()), data: "{\"a\": 1}\nmore".into() };
        assert_eq!(event, expected);
        assert_eq!(read(": still here\n\n"), ServerEvent::default());
    }
}
