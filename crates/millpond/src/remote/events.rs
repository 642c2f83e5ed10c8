//! Events of a server, page by page.

use super::link::{Answered, Link, Repeat};
use model::{Event, EventId};
use std::collections::VecDeque;
use wire::{EventPage, FromServer, Input, Pack, Read, What};

/// How long the server waits for the first event of a page.
const WAIT_MS: u64 = 20_000;

/// What happens from when it was made.
pub(crate) struct RemoteEvents {
    link: Link,
    events: VecDeque<Event>,
    /// Sent ahead, so that nothing is missed between two looks.
    page: Option<Answered>,
    position: Option<EventId>,
    gone: Option<EventId>,
    closed: bool,
}

impl RemoteEvents {
    pub(crate) fn new(link: &Link) -> Self {
        let mut events = Self {
            link: link.clone(),
            events: VecDeque::new(),
            page: None,
            position: None,
            gone: None,
            closed: false,
        };
        events.ask();
        events
    }

    fn ask(&mut self) {
        let after = self.position.map(|position| compact_str::format_compact!("{position}"));
        let read = Read { after, wait_ms: WAIT_MS, ..Read::new(What::Events) };
        self.page = Some(self.link.send("read", &read, Repeat::Safe));
    }

    /// The next event; `None` when the pond has closed. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Result<Event, node::Gone>> {
        loop {
            if let Some(since) = self.gone.take() {
                return Some(Err(node::Gone { since }));
            }
            if let Some(event) = self.events.pop_front() {
                return Some(Ok(event));
            }
            if self.closed {
                return None;
            }
            let Some(page) = &mut self.page else {
                self.ask();
                continue;
            };
            let answer = page.await;
            self.page = None;
            match answer {
                Ok(FromServer::View(view)) => {
                    let page = EventPage::unpack(&mut Input::new(&view.0)).ok()?;
                    self.position = page.position.or(self.position);
                    self.gone = page.gone;
                    self.closed = page.closed;
                    self.events.extend(page.events);
                }
                Err(super::Failure::Away(_)) => {
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await
                }
                _ => return None,
            }
        }
    }
}
