//! Server-Sent Events: everything that happens to jobs and queues, as it happens, resumed where a client left off.

use super::{Answered, jobs::write_error};
use crate::access::Caller;
use crate::http::{
    app::App,
    dto::EventsQuery,
    extract::{Known, LastEvent, QueryText},
    json::Writer,
    reach, reply,
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
};
use bytes::Bytes;
use futures_util::stream::unfold;
use model::{Event, EventFilter, EventId, JobValues, QueueName};
use node::Gone;
use std::{convert::Infallible, io::Write as _, mem, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

/// A comment this often keeps proxies from closing a quiet stream, and notices clients that are gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A client that takes nothing for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of events that are sent in one piece, about.
const PIECE_BYTES: usize = 64 << 10;
/// Events that were not wanted, after which others get their turn.
const UNWANTED_MAX: u32 = 256;

/// GET /v1/events. A reader at its own pace: the server keeps the newest events once for all, and nothing for a slow client.
pub(crate) async fn stream(
    State(app): State<App>,
    Known(caller): Known,
    QueryText(text): QueryText,
    LastEvent(last): LastEvent,
) -> Answered {
    let EventsQuery { filter, from, values } = EventsQuery::read(text.as_deref())?;
    if let Some(queue) = filter.queue.as_ref().and_then(|name| QueueName::new(name).ok()) {
        reach::check(&caller, &queue)?;
    }
    let source = app.node.events(last.or(from));
    let (sender, pieces) = mpsc::channel(1);
    let feed =
        Feed { source, filter, values, caller: caller.clone(), piece: Vec::new(), began: false, unwanted: 0 };
    tokio::spawn(async move {
        tokio::select! {
            () = feed.run(&app, &sender) => {}
            // The client is gone, or is no longer let in.
            () = sender.closed() => {}
            () = app.keeper.ended(&caller) => {}
        }
    });
    let stream = unfold(pieces, |mut pieces: mpsc::Receiver<Bytes>| async move {
        Some((Ok::<_, Infallible>(pieces.recv().await?), pieces))
    });
    let mut response = reply::bytes(StatusCode::OK, "text/event-stream", Body::from_stream(stream));
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Feed {
    source: node::Events,
    filter: EventFilter,
    /// Say also what a change brought along.
    values: bool,
    caller: Caller,
    piece: Vec<u8>,
    /// It was told something, or has caught up: from now on a gap means that it is too slow.
    began: bool,
    unwanted: u32,
}

/// Why a stream ends.
enum End {
    Stopping,
    TooSlow,
}

impl Feed {
    async fn run(mut self, app: &App, sender: &mpsc::Sender<Bytes>) {
        // Something to read at once, so that clients see the stream open.
        self.piece.extend_from_slice(b"retry: 1000\n: millpond\n\n");
        let mut quiet_until = Instant::now() + KEEP_ALIVE;
        loop {
            let piece = mem::take(&mut self.piece);
            // A client that does not read would hold its place for ever.
            if !piece.is_empty() && !matches!(timeout(PATIENCE, sender.send(piece.into())).await, Ok(Ok(())))
            {
                return;
            }
            let gathered = tokio::select! {
                biased;
                () = app.stopping() => Ok(Err(End::Stopping)),
                gathered = timeout_at(quiet_until, self.gather()) => gathered,
            };
            match gathered {
                Ok(Ok(())) => {}
                Err(_) => self.still_here(),
                Ok(Err(end)) => {
                    self.end(&end);
                    let last = mem::take(&mut self.piece);
                    let _ = timeout(PATIENCE, sender.send(last.into())).await;
                    return;
                }
            }
            if !self.piece.is_empty() {
                quiet_until = Instant::now() + KEEP_ALIVE;
            }
        }
    }

    /// Waits for wanted events, and renders those that are there.
    async fn gather(&mut self) -> Result<(), End> {
        while self.piece.is_empty() {
            let next = self.source.next().await.ok_or(End::Stopping)?;
            self.take(next)?;
            if self.unwanted >= UNWANTED_MAX {
                self.unwanted = 0;
                tokio::task::yield_now().await;
            }
        }
        while self.piece.len() < PIECE_BYTES
            && self.unwanted < UNWANTED_MAX
            && let Some(next) = self.source.try_next()
        {
            self.take(next)?;
        }
        Ok(())
    }

    fn take(&mut self, next: Result<Event, Gone>) -> Result<(), End> {
        match next {
            Ok(event) if self.caller.reaches(&event.queue) && self.filter.wants(&event) => {
                self.render(&event)
            }
            Ok(_) => self.unwanted += 1,
            Err(_) if self.began => return Err(End::TooSlow),
            Err(Gone { since }) => self.gone(since),
        }
        self.began = true;
        Ok(())
    }

    /// Also moves the client's place, so that it can come back after a long time without a wanted event.
    fn still_here(&mut self) {
        self.began = true;
        if let Some(position) = self.source.position() {
            // Writing to a Vec cannot fail.
            let _ = writeln!(self.piece, "id: {position}");
        }
        self.piece.extend_from_slice(b": still here\n\n");
    }

    fn gone(&mut self, since: EventId) {
        let _ = write!(
            self.piece,
            "event: gone\nid: {since}\ndata: {{\"since\":\"{since}\",\"reason\":\"events up to {since} are no longer remembered, or \
             happened while nobody listened; look at the jobs themselves\"}}\n\n"
        );
    }

    fn end(&mut self, end: &End) {
        let (code, reason) = match end {
            End::Stopping => ("stopping", "the server stops; come back with Last-Event-ID"),
            End::TooSlow => (
                "too_slow",
                "this client reads more slowly than events happen; come back with a narrower filter",
            ),
        };
        let _ = write!(self.piece, "event: end\ndata: {{\"code\":\"{code}\",\"reason\":\"{reason}\"}}\n\n");
    }

    fn render(&mut self, event: &Event) {
        let mut data = Writer::with_capacity(256);
        data.object(|out| {
            out.field("queue", &event.queue);
            if let Some(job) = &event.job {
                out.field("id", &job.id);
                out.field("kind", event.kind.name());
                out.field("from", job.from);
                out.field("to", job.to);
                out.field("cause", job.cause.map(model::Cause::name));
                out.field("attempt", job.attempt);
                out.optional("due_at", job.due_at);
                if let Some(values) = job.values.as_ref().filter(|_| self.values) {
                    carried(out, values);
                }
            } else {
                out.field("kind", event.kind.name());
            }
            out.field("at", event.at);
            out.field("position", event.id.position);
            out.field("event_id", event.id.to_string().as_str());
        });
        let name = if event.job.is_some() { "job" } else { "queue" };
        let _ = write!(self.piece, "event: {name}\nid: {}\ndata: ", event.id);
        self.piece.extend_from_slice(&data.finish());
        self.piece.extend_from_slice(b"\n\n");
    }
}

/// What a change brought along, under the names that the job has for it.
fn carried(out: &mut Writer, values: &JobValues) {
    if !values.meta.is_empty() {
        out.key("meta").object(|out| values.meta.iter().for_each(|(key, value)| out.field(key, value)));
    }
    out.optional("result", values.result.as_ref());
    if values.error.is_some() {
        write_error(out, values.error.as_ref());
    }
    out.optional("progress", values.progress.as_ref());
}
