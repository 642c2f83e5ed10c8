//! Server-Sent Events: every change of a job, as it happens.

use super::Answered;
use crate::http::{app::App, dto::EventsQuery, extract::QueryText, json::Writer, reply};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
};
use bytes::Bytes;
use futures_util::stream::unfold;
use model::{Effect, QueueName};
use std::{convert::Infallible, io::Write as _, sync::Arc, time::Duration};
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// A comment this often keeps proxies from closing a quiet stream, and notices clients that are gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// GET /v1/events. The stream holds no buffer of its own: who reads too slowly misses changes and is told how many batches.
pub(crate) async fn stream(State(app): State<App>, QueryText(text): QueryText) -> Answered {
    let queue = EventsQuery::read(text.as_deref())?.queue;
    let feed = Feed { source: app.node.events(), queue, app, opened: false };
    let stream = unfold(feed, |mut feed| async move {
        let chunk = feed.next().await?;
        Some((Ok::<_, Infallible>(chunk), feed))
    });
    let mut response = reply::bytes(StatusCode::OK, "text/event-stream", Body::from_stream(stream));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Feed {
    source: Receiver<Arc<[Effect]>>,
    queue: Option<QueueName>,
    app: App,
    opened: bool,
}

impl Feed {
    /// The next piece of the stream; `None` when the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.opened {
            // Something to read at once, so that clients see the stream open.
            self.opened = true;
            return Some(Bytes::from_static(b": millpond\n\n"));
        }
        loop {
            let received = tokio::select! {
                () = self.app.stopping() => return None,
                received = tokio::time::timeout(KEEP_ALIVE, self.source.recv()) => received,
            };
            match received {
                Err(_) => return Some(Bytes::from_static(b": still here\n\n")),
                Ok(Err(RecvError::Closed)) => return None,
                Ok(Err(RecvError::Lagged(missed))) => {
                    return Some(format!("event: lagged\ndata: {{\"missed\":{missed}}}\n\n").into());
                }
                Ok(Ok(effects)) => {
                    let chunk = self.render(&effects);
                    if !chunk.is_empty() {
                        return Some(chunk.into());
                    }
                }
            }
        }
    }

    fn render(&self, effects: &[Effect]) -> Vec<u8> {
        let mut chunk = Vec::new();
        for effect in effects {
            let Effect::Changed { queue, id, from, to, cause, attempt, at, position } = effect else {
                continue;
            };
            if self.queue.as_ref().is_some_and(|wanted| wanted != queue) {
                continue;
            }
            let mut data = Writer::with_capacity(224);
            data.object(|out| {
                out.field("queue", queue);
                out.field("id", id);
                out.field("from", from);
                out.field("to", to);
                out.field("cause", cause.name());
                out.field("attempt", attempt);
                out.field("at", at);
                out.field("position", position);
            });
            // Writing to a Vec cannot fail.
            let _ = write!(chunk, "event: job\nid: {position}\ndata: ");
            chunk.extend_from_slice(&data.finish());
            chunk.extend_from_slice(b"\n\n");
        }
        chunk
    }
}
