//! Requests and their answers, whether the server is there or not.

use super::{
    address::{Address, Connect},
    source::Feed,
    thread,
};
use crate::Error;
use kit::{Durability, Millis};
use model::DispatchedJob;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, oneshot};
use wire::{
    Credit, FromClient, FromServer, Pack, Ping, Received, Refused, Resume, Subscribe, put_answer, put_message,
};

/// Answers after which the server is told that they have arrived.
const ACKNOWLEDGE: u32 = 64;

/// Whether a request may be sent a second time when nobody knows what became of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Twice is as good as once.
    Safe,
    /// Then its caller is told that nobody knows.
    Never,
}

/// Why a request has no answer.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The link was closed by this side.
    Closed,
    /// The server is away; it has not seen the request.
    Away(String),
    /// The server went away with it.
    Unknown(String),
    /// It is larger than a message may be.
    TooLarge { limit: u64 },
    /// The server refused it.
    Refused(Refused),
}

/// The connection to a server. Cheap to clone; the last one that goes says goodbye.
#[derive(Clone)]
pub(crate) struct Link {
    pub(super) shared: Arc<Shared>,
    _last: Arc<Last>,
}

struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.state().closing = true;
        self.0.wake.notify_one();
    }
}

/// What callers and the link's thread share.
pub(super) struct Shared {
    pub(super) address: Address,
    pub(super) options: Connect,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<super::tls::Tls>,
    pub(super) name: model::Actor,
    state: Mutex<State>,
    /// Wakes the thread.
    pub(super) wake: Notify,
    /// Wakes who waits for the link to be up, or empty, or gone.
    pub(super) changed: Notify,
}

pub(super) struct State {
    /// What is to be written; each becomes one message of the WebSocket.
    pub(super) pieces: VecDeque<Vec<u8>>,
    last_id: u64,
    waiting: BTreeMap<u64, Request>,
    pub(super) feeds: HashMap<u64, Arc<Feed>>,
    last_sub: u64,
    pub(super) session: Option<compact_str::CompactString>,
    pub(super) up: bool,
    pub(super) down_since: Instant,
    /// Why the link is down.
    pub(super) trouble: String,
    /// The server wants nothing of us, whatever we do.
    pub(super) rejected: Option<Refused>,
    pub(super) closing: bool,
    pub(super) ended: bool,
    message_bytes_max: u64,
    durability: Durability,
    unacknowledged: u32,
}

struct Request {
    name: &'static str,
    fields: Vec<u8>,
    repeat: Repeat,
    /// It may have reached the server.
    sent: bool,
    caller: oneshot::Sender<Result<FromServer, Failure>>,
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Connects, and waits until the server has answered; not longer than the link's patience.
    pub(crate) async fn open(url: &str, options: Connect, name: model::Actor) -> Result<Self, Error> {
        let state = State {
            pieces: VecDeque::new(),
            last_id: 0,
            waiting: BTreeMap::new(),
            feeds: HashMap::new(),
            last_sub: 0,
            session: None,
            up: false,
            down_since: Instant::now(),
            trouble: "not connected yet".into(),
            rejected: None,
            closing: false,
            ended: false,
            message_bytes_max: u64::MAX,
            durability: Durability::default(),
            unacknowledged: 0,
        };
        let patience = options.patience;
        let address = Address::read(url)?;
        let shared = Arc::new(Shared {
            #[cfg(feature = "tls")]
            tls: match address.tls {
                true => Some(super::tls::Tls::new(options.ca.as_deref())?),
                false => None,
            },
            address,
            options,
            name,
            state: Mutex::new(state),
            wake: Notify::new(),
            changed: Notify::new(),
        });
        let link = Self { _last: Arc::new(Last(shared.clone())), shared };
        thread::spawn(link.shared.clone()).map_err(Error::Start)?;
        let up = link.until(|state| state.up || state.rejected.is_some());
        let _ = tokio::time::timeout(patience, up).await;
        let state = link.shared.state();
        match &state.rejected {
            Some(refused) => Err(Failure::Refused(refused.clone()).into()),
            None if state.up => {
                drop(state);
                Ok(link)
            }
            None => Err(Error::Away(state.trouble.clone())),
        }
    }

    async fn until(&self, met: impl Fn(&State) -> bool) {
        loop {
            let changed = self.shared.changed.notified();
            if met(&self.shared.state()) {
                return;
            }
            changed.await;
        }
    }

    /// The level of a call that names none.
    pub(crate) fn durability(&self) -> Durability {
        self.shared.state().durability
    }

    /// Sends a request; the future is its answer. It is sent before this returns, and given up if the future is dropped.
    pub(crate) fn send(&self, name: &'static str, fields: &impl Pack, repeat: Repeat) -> Answered {
        let mut bytes = Vec::new();
        fields.pack(&mut bytes);
        let (caller, answer) = oneshot::channel();
        let mut state = self.shared.state();
        let refusal = if state.closing {
            Some(Failure::Closed)
        } else if bytes.len() as u64 >= state.message_bytes_max {
            Some(Failure::TooLarge { limit: state.message_bytes_max })
        } else {
            None
        };
        if let Some(failure) = refusal {
            // The receiver is held below.
            let _ = caller.send(Err(failure));
            return Answered { shared: self.shared.clone(), id: 0, answer };
        }
        let request = Request { name, fields: bytes, repeat, sent: false, caller };
        let id = state.add(request);
        drop(state);
        self.shared.wake.notify_one();
        Answered { shared: self.shared.clone(), id, answer }
    }

    /// Says goodbye once every request has its answer.
    pub(crate) async fn close(&self, deadline: Duration) -> Result<(), Error> {
        let quiet =
            tokio::time::timeout(deadline, self.until(|state| state.waiting.is_empty() || state.ended));
        let in_time = quiet.await.is_ok();
        self.shared.state().closing = true;
        self.shared.wake.notify_one();
        let _ = tokio::time::timeout(deadline, self.until(|state| state.ended)).await;
        if in_time {
            Ok(())
        } else {
            Err(Failure::Unknown("requests had no answer when the pond was closed".into()).into())
        }
    }
}

/// An answer to come.
pub(crate) struct Answered {
    shared: Arc<Shared>,
    id: u64,
    answer: oneshot::Receiver<Result<FromServer, Failure>>,
}

impl Future for Answered {
    type Output = Result<FromServer, Failure>;

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let polled = std::pin::Pin::new(&mut self.answer).poll(cx);
        polled.map(|answer| {
            self.id = 0;
            match answer {
                Ok(Ok(FromServer::Refused(refused))) => Err(Failure::Refused(refused)),
                Ok(answer) => answer,
                Err(_) => Err(Failure::Closed),
            }
        })
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        if self.id == 0 {
            return;
        }
        let mut state = self.shared.state();
        if let Some(request) = state.waiting.remove(&self.id)
            && request.sent
            && state.up
        {
            let id = self.id;
            state.write(|out| put_message(out, id, &FromClient::Withdraw(wire::Empty {})));
            drop(state);
            self.shared.wake.notify_one();
        }
    }
}

impl State {
    /// Adds a message to what is written next.
    pub(super) fn write(&mut self, put: impl FnOnce(&mut Vec<u8>)) {
        if self.pieces.back().is_none_or(|piece| piece.len() >= wire::BATCH_BYTES) {
            self.pieces.push_back(Vec::new());
        }
        if let Some(piece) = self.pieces.back_mut() {
            put(piece);
        }
    }

    fn add(&mut self, mut request: Request) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        if self.up {
            request.sent = true;
            // A message of the WebSocket has a limit of its own.
            let room = self.pieces.back().map_or(0, Vec::len) + request.fields.len();
            if room as u64 + 64 >= self.message_bytes_max || room > 4 * wire::BATCH_BYTES {
                self.pieces.push_back(Vec::new());
            }
            self.write(|out| put_answer(out, request.name, id, |out| out.extend_from_slice(&request.fields)));
        }
        self.waiting.insert(id, request);
        id
    }

    /// What the server is told of a session that was lost.
    pub(super) fn resume(&self) -> Option<Resume> {
        let session = self.session.clone()?;
        let received = self.feeds.iter().map(|(sub, feed)| Received { sub: *sub, jobs: feed.received() });
        let asked = self.waiting.iter().filter(|(_, request)| request.sent).map(|(id, _)| *id);
        Some(Resume { session, received: received.collect(), asked: asked.collect() })
    }

    /// The server has answered the hello.
    pub(super) fn welcome(&mut self, welcome: wire::Welcome) {
        self.session = Some(welcome.session);
        self.message_bytes_max = welcome.message_bytes_max;
        self.durability = welcome.durability;
        self.up = true;
        self.pieces.clear();
        for (_, feed) in std::mem::take(&mut self.feeds) {
            self.subscribe(feed);
        }
        for (id, mut request) in std::mem::take(&mut self.waiting) {
            if request.sent && welcome.resumed {
                // The server says what became of it.
                self.waiting.insert(id, request);
            } else if request.sent && request.repeat == Repeat::Never {
                let why = "the server went away before it answered".into();
                let _ = request.caller.send(Err(Failure::Unknown(why)));
            } else {
                request.sent = false;
                self.add(request);
            }
        }
    }

    /// Begins a subscription anew.
    pub(super) fn subscribe(&mut self, feed: Arc<Feed>) -> u64 {
        self.last_sub += 1;
        let sub = self.last_sub;
        let credit = feed.begin();
        if self.up {
            let subscribe = Subscribe {
                sub,
                queues: feed.queues.clone(),
                credit,
                lease_ms: feed.lease_ms,
                worker: Some(feed.worker.clone()),
                durability: Some(feed.level),
                concurrency: feed.concurrency,
            };
            self.write(|out| put_message(out, 0, &FromClient::Subscribe(subscribe)));
        }
        self.feeds.insert(sub, feed);
        sub
    }

    /// The number of a subscription now.
    pub(super) fn number(&self, feed: &Arc<Feed>) -> Option<u64> {
        self.feeds.iter().find(|(_, other)| Arc::ptr_eq(other, feed)).map(|(sub, _)| *sub)
    }

    /// Moves the window of a subscription.
    pub(super) fn credit(&mut self, feed: &Arc<Feed>, credit: u64) {
        if self.up
            && let Some(sub) = self.number(feed)
        {
            self.write(|out| put_message(out, 0, &FromClient::Credit(Credit { sub, credit })));
        }
    }

    /// Tells the server that it is heard, and what of it.
    pub(super) fn ping(&mut self) {
        let answered = self.waiting.first_key_value().map_or(self.last_id + 1, |(id, _)| *id);
        self.unacknowledged = 0;
        self.write(|out| put_message(out, 0, &FromClient::Ping(Ping { answered })));
    }

    /// Gives jobs back that nobody waits for.
    pub(super) fn give_back(&mut self, jobs: impl IntoIterator<Item = DispatchedJob>) {
        let outcomes: Vec<model::Settlement> = jobs
            .into_iter()
            .map(|job| model::Settlement {
                lease: model::LeaseRef {
                    job: model::JobRef { queue: Some(job.queue), id: job.id },
                    token: job.lease_token,
                },
                outcome: model::Outcome::Snooze { after_ms: 0 },
                push: Vec::new(),
            })
            .collect();
        if !outcomes.is_empty() {
            let mut fields = Vec::new();
            wire::Outcomes { outcomes, worker: None, durability: None }.pack(&mut fields);
            // If it is lost, their leases end.
            let (caller, _) = oneshot::channel();
            self.add(Request { name: "outcomes", fields, repeat: Repeat::Safe, sent: false, caller });
        }
    }

    /// An answer has come.
    pub(super) fn answer(&mut self, id: u64, answer: FromServer) {
        let Some(mut request) = self.waiting.remove(&id) else { return };
        self.unacknowledged += 1;
        match answer {
            FromServer::Refused(refused) if refused.code == "not_received" => {
                request.sent = false;
                self.add(request);
            }
            FromServer::Refused(refused)
                if refused.code == "unknown_outcome" && request.repeat == Repeat::Safe =>
            {
                request.sent = false;
                self.add(request);
            }
            // Nothing was changed: it goes to the server that comes next.
            FromServer::Refused(refused) if refused.code == "stopping" => {
                request.sent = false;
                self.waiting.insert(id, request);
            }
            // Whoever asked may have left.
            answer => drop(request.caller.send(Ok(answer))),
        }
        if self.unacknowledged >= ACKNOWLEDGE {
            self.ping();
        }
    }

    /// The link is down.
    pub(super) fn down(&mut self, why: String) {
        if self.up {
            self.down_since = Instant::now();
        }
        self.up = false;
        self.trouble = why;
        self.pieces.clear();
    }

    /// Lets requests fail that have waited long enough for a server.
    pub(super) fn give_up(&mut self, patience: Option<Duration>) {
        if patience.is_some_and(|patience| self.down_since.elapsed() < patience) {
            return;
        }
        for request in std::mem::take(&mut self.waiting).into_values() {
            let why = self.trouble.clone();
            let failure = if patience.is_none() && !request.sent {
                Failure::Closed
            } else if request.sent && request.repeat == Repeat::Never {
                Failure::Unknown(why)
            } else {
                Failure::Away(why)
            };
            let _ = request.caller.send(Err(failure));
        }
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// A span of the wire.
pub(super) fn millis(span: Duration) -> Millis {
    Millis::try_from(span.as_millis()).unwrap_or(Millis::MAX)
}
