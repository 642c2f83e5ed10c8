//! One client: its subscriptions, its requests under way, the answers that it may not have heard, the leases that it has.

use super::{
    open::{Socket, message_bytes_max},
    out::Out,
    request::{Asker, Done},
};
use crate::{
    access::{Caller, Right},
    http::app::App,
    registry::{About, Asks, Seat, Stage},
};
use bytes::Bytes;
use compact_str::{CompactString, format_compact};
use futures_util::{
    StreamExt,
    future::{AbortHandle, Abortable, BoxFuture},
    stream::FuturesUnordered,
};
use kit::{Millis, Timestamp};
use model::{Actor, Command, DispatchedJob, Envelope, JobRef, LeaseRef, Outcome, QueueName, Settlement};
use node::{CallError, Revoked};
use std::{
    collections::{BTreeMap, HashMap},
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_tungstenite::tungstenite::Message;
use wire::{
    CREDIT_MAX, Drain, FromClient, FromServer, HEARTBEAT_MS, Hello, Input, Jobs, Lost, REQUESTS_MAX, Refused,
    Resume, SUBSCRIPTIONS_MAX, Stop, Subscribe, Welcome, put_answer, put_message,
};

/// Sessions at once, those whose connection is lost included.
const SESSIONS_MAX: usize = 16_384;
/// Jobs of one fetch.
const FETCH_MAX: u64 = 1_000;
/// Bytes of bodies of one fetch, judged by the size of the last ones.
const FETCH_BYTES: u64 = 1 << 20;
/// How long one fetch waits before it is made anew.
const FETCH_WAIT: Duration = Duration::from_secs(60);
/// Bytes of answers that are kept for a client that may come back for them.
const ANSWERS_BYTES_MAX: usize = 8 << 20;
/// A client that reads nothing for so long, while much waits for it, is cut off.
const PATIENCE: Duration = Duration::from_secs(10);
/// A session without a connection is kept as long as the longest lease it asked for, but so long at most.
const LINGER_MAX: Duration = Duration::from_secs(300);
/// The same for one that asked for none, and where the queue decides.
const LINGER: Duration = Duration::from_secs(60);
/// A server that stops waits so long for outcomes at most: leases outlive it, and clients come back.
const DRAIN: Duration = Duration::from_secs(2);
/// After a fetch that failed.
const PAUSE: Duration = Duration::from_millis(250);

/// Every session of a server.
pub(crate) struct Streams {
    pub(super) places: Arc<Semaphore>,
    sessions: Mutex<HashMap<CompactString, Place>>,
}

struct Place {
    caller: Caller,
    worker: Actor,
    arrivals: mpsc::Sender<Box<Arrival>>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(SESSIONS_MAX)), sessions: Mutex::default() }
    }
}

impl Streams {
    fn sessions(&self) -> MutexGuard<'_, HashMap<CompactString, Place>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of this secret, if it is this caller's, with the same rights: what it subscribed to was allowed with those.
    pub(super) fn find(
        &self,
        session: &str,
        caller: &Caller,
        worker: &Actor,
    ) -> Option<mpsc::Sender<Box<Arrival>>> {
        let sessions = self.sessions();
        let place = sessions.get(session)?;
        (place.worker == *worker && place.caller.is_like(caller)).then(|| place.arrivals.clone())
    }

    /// Waits until every session has ended.
    pub(crate) async fn ended(&self) {
        // The semaphore is never closed.
        let _ = self.places.acquire_many(SESSIONS_MAX as u32).await;
    }
}

/// A connection that has said hello.
pub(super) struct Arrival {
    pub(super) socket: Socket,
    pub(super) caller: Caller,
    /// Its name as the pond knows it.
    pub(super) worker: Actor,
    pub(super) hello: Hello,
    /// What came behind the hello in the same message.
    pub(super) rest: Bytes,
}

/// Jobs on their way to a client.
struct Sub {
    asked: Subscribe,
    worker: Actor,
    /// Jobs that may have been sent, all in all.
    credit: u64,
    sent: u64,
    /// The fetch that is under way.
    fetch: Option<AbortHandle>,
    /// Bytes of a job, about.
    job_bytes: u64,
}

/// A lease that the client has, or that is on its way to it.
struct Leased {
    lease: LeaseRef,
    /// Of which subscription; 0 once it is known to have arrived.
    sub: u64,
    /// The how manieth job of it.
    nth: u64,
}

type Fetched = (u64, Result<Vec<DispatchedJob>, CallError>);

pub(super) struct Session {
    app: App,
    asker: Asker,
    id: CompactString,
    heartbeat: Duration,
    linger: Duration,
    arrivals: mpsc::Receiver<Box<Arrival>>,
    subs: BTreeMap<u64, Sub>,
    leases: HashMap<u64, Leased>,
    requests: FuturesUnordered<Abortable<BoxFuture<'static, Done>>>,
    pending: HashMap<u64, AbortHandle>,
    /// Answers that may not have arrived, by request.
    answers: BTreeMap<u64, Bytes>,
    answers_bytes: usize,
    /// The newest request; ids rise.
    newest: u64,
    fetches: FuturesUnordered<Abortable<BoxFuture<'static, Fetched>>>,
    /// Names of workers as the pond knows them, and as the client does.
    watched: HashMap<Actor, Actor>,
    /// The name and more of the client, as its hello says.
    name: Actor,
    about: About,
    /// Its places among the workers, by their names as the client knows them; and whether it was told to end there.
    seats: HashMap<Actor, (Seat, bool)>,
    watches: FuturesUnordered<BoxFuture<'static, (Actor, Revoked)>>,
    draining: bool,
}

/// How a connection ended.
enum End {
    /// It broke, or is silent: the client may come back.
    Lost,
    /// The client has come back by another connection.
    Replaced(Box<Arrival>),
    /// Nobody will come back.
    Over,
}

impl Session {
    /// Serves a client until it has left for good.
    pub(super) async fn run(app: App, first: Box<Arrival>) {
        let Some(id) = secret() else { return };
        let (sender, arrivals) = mpsc::channel(1);
        let (caller, worker) = (first.caller.clone(), first.worker.clone());
        let place = Place { caller: caller.clone(), worker: worker.clone(), arrivals: sender };
        app.streams.sessions().insert(id.clone(), place);
        let session = Session {
            asker: Asker { app: app.clone(), caller, actor: worker },
            id: id.clone(),
            heartbeat: Duration::ZERO,
            linger: LINGER,
            arrivals,
            subs: BTreeMap::new(),
            leases: HashMap::new(),
            requests: FuturesUnordered::new(),
            pending: HashMap::new(),
            answers: BTreeMap::new(),
            answers_bytes: 0,
            newest: 0,
            fetches: FuturesUnordered::new(),
            watched: HashMap::new(),
            name: Actor::default(),
            about: About::default(),
            seats: HashMap::new(),
            watches: FuturesUnordered::new(),
            draining: false,
            app,
        };
        let app = session.app.clone();
        session.live(first).await;
        app.streams.sessions().remove(&id);
    }

    async fn live(mut self, first: Box<Arrival>) {
        let mut next = Some((first, false));
        while let Some((arrival, resumed)) = next.take() {
            next = match self.serve(*arrival, resumed).await {
                End::Replaced(arrival) => Some((arrival, true)),
                End::Over => None,
                End::Lost => self.wait_for_return().await.map(|arrival| (arrival, true)),
            };
        }
        // A client that said goodbye wants nothing more: what it had is for others.
        let _ = tokio::time::timeout(PATIENCE, self.finish_requests()).await;
    }

    async fn finish_requests(&mut self) {
        while self.requests.next().await.is_some() {}
    }

    /// Without a connection: answers are kept, leases last as long as they last.
    async fn wait_for_return(&mut self) -> Option<Box<Arrival>> {
        self.end_subscriptions();
        let app = self.app.clone();
        let mut stopping = pin!(app.stopping());
        let mut over = pin!(sleep(self.linger));
        loop {
            tokio::select! {
                biased;
                arrival = self.arrivals.recv() => return arrival,
                Some(done) = self.requests.next(), if !self.requests.is_empty() => {
                    if let Ok(done) = done {
                        self.keep(done);
                    }
                }
                () = &mut stopping => return None,
                () = &mut over => return None,
            }
        }
    }

    fn end_subscriptions(&mut self) {
        for sub in std::mem::take(&mut self.subs).into_values() {
            if let Some(fetch) = sub.fetch {
                fetch.abort();
            }
        }
        self.watches = FuturesUnordered::new();
        self.watched.clear();
        self.seats.clear();
    }

    /// Serves one connection to its end.
    async fn serve(&mut self, arrival: Arrival, resumed: bool) -> End {
        let Arrival { socket, caller, worker: _, hello, rest } = arrival;
        self.asker.caller = caller.clone();
        let (sink, mut stream) = socket.split();
        let mut out = Out::new(sink);
        self.end_subscriptions();
        self.welcome(&hello, resumed, &mut out);
        let Hello { worker, client, host, pid, labels, .. } = hello;
        (self.name, self.about) = (worker, About { host, pid, client, labels });
        let app = self.app.clone();
        let mut told = app.registry.told();
        let mut end = self.hear(&rest, &mut out);
        let mut stopping = pin!(app.stopping());
        let mut expired = pin!(app.keeper.ended(&caller));
        let mut heard = Instant::now();
        let mut alarm = pin!(sleep_until(heard + 3 * self.heartbeat));
        let mut drained = pin!(sleep(Duration::MAX));
        while end.is_none() {
            self.fetch(&out);
            if out.is_full() {
                // It is not listened to meanwhile.
                heard = Instant::now();
            }
            if self.draining && self.leases.is_empty() && self.requests.is_empty() || drained.is_elapsed() {
                let bye = Refused::new("stopping", "the server is stopping");
                out.add(|bytes| put_message(bytes, 0, &FromServer::Bye(bye)));
                end = Some(End::Over);
                break;
            }
            tokio::select! {
                biased;
                Some(arrival) = self.arrivals.recv() => return End::Replaced(arrival),
                () = &mut stopping, if !self.draining => {
                    drained.as_mut().reset(Instant::now() + DRAIN);
                    self.drain(&mut out);
                }
                () = &mut drained, if self.draining => {}
                Ok(()) = told.changed() => self.obey(&mut out),
                () = &mut expired => {
                    let bye = Refused::new("unauthorized", "the token has been revoked, or has expired");
                    out.add(|bytes| put_message(bytes, 0, &FromServer::Bye(bye)));
                    end = Some(End::Over);
                }
                Some(done) = self.requests.next(), if !self.requests.is_empty() => {
                    if let Ok(done) = done {
                        self.answer(done, &mut out);
                    }
                }
                Some(fetched) = self.fetches.next(), if !self.fetches.is_empty() => {
                    if let Ok((sub, fetched)) = fetched {
                        self.hand_out(sub, fetched, &mut out);
                    }
                }
                Some((worker, revoked)) = self.watches.next(), if !self.watches.is_empty() => {
                    self.tell_revoked(worker, revoked, &mut out);
                }
                written = poll_fn(|cx| out.poll_write(cx)) => {
                    if written.is_err() {
                        return End::Lost;
                    }
                }
                message = stream.next(), if !out.is_full() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Binary(bytes))) => end = self.hear(&bytes, &mut out),
                        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                        Some(Ok(Message::Text(_))) => end = Some(close(&mut out, "messages are binary")),
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Lost,
                    }
                }
                () = &mut alarm => {
                    let limit = if out.is_full() { out.moved + PATIENCE } else { heard + 3 * self.heartbeat };
                    if limit <= Instant::now() {
                        return End::Lost;
                    }
                    alarm.as_mut().reset(limit);
                }
            }
        }
        // A peer that does not read its farewell does without.
        let _ = tokio::time::timeout(Duration::from_secs(1), out.close()).await;
        end.unwrap_or(End::Over)
    }

    fn welcome(&mut self, hello: &Hello, resumed: bool, out: &mut Out) {
        let (least, usual, most) = HEARTBEAT_MS;
        let heartbeat_ms =
            if hello.heartbeat_ms == 0 { usual } else { hello.heartbeat_ms.clamp(least, most) };
        self.heartbeat = Duration::from_millis(heartbeat_ms);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let welcome = Welcome {
            version: hello.version.min(wire::VERSION),
            server: concat!("millpond ", env!("CARGO_PKG_VERSION")).into(),
            session: self.id.clone(),
            resumed,
            heartbeat_ms,
            message_bytes_max: message_bytes_max(&self.app) as u64,
            durability: self.app.rules.durability,
            time: Timestamp(u64::try_from(since.as_millis()).unwrap_or(0)),
        };
        out.add(|bytes| put_message(bytes, 0, &FromServer::Welcome(welcome)));
        if resumed && let Some(resume) = &hello.resume {
            self.resume(resume, out);
        }
    }

    /// Gives back what was lost on the way, in both directions.
    fn resume(&mut self, resume: &Resume, out: &mut Out) {
        let received: HashMap<u64, u64> =
            resume.received.iter().map(|received| (received.sub, received.jobs)).collect();
        let lost =
            |leased: &Leased| leased.sub != 0 && leased.nth > received.get(&leased.sub).copied().unwrap_or(0);
        let tokens: Vec<u64> =
            self.leases.iter().filter(|(_, one)| lost(one)).map(|(token, _)| *token).collect();
        self.give_back(&tokens);
        for leased in self.leases.values_mut() {
            leased.sub = 0;
        }
        for id in &resume.asked {
            if let Some(answer) = self.answers.get(id) {
                out.add(|bytes| bytes.extend_from_slice(answer));
            } else if !self.pending.contains_key(id) {
                let refused = if *id > self.newest {
                    Refused::new("not_received", "the request did not arrive: send it again, with a new id")
                } else {
                    let detail = "the answer is no longer kept: the change may or may not have happened";
                    Refused::new("unknown_outcome", detail)
                };
                out.add(|bytes| put_message(bytes, *id, &FromServer::Refused(refused)));
            }
        }
    }

    /// Returns leases to their queues; no attempt is used.
    fn give_back(&mut self, tokens: &[u64]) {
        let leases = tokens.iter().filter_map(|token| self.leases.remove(token)).map(|leased| leased.lease);
        let settlements: Vec<Settlement> = leases
            .map(|lease| Settlement { lease, outcome: Outcome::Snooze { after_ms: 0 }, push: Vec::new() })
            .collect();
        for chunk in settlements.chunks(FETCH_MAX as usize) {
            let told = wire::Outcomes { outcomes: chunk.to_vec(), worker: None, durability: None };
            self.carry_out(0, FromClient::Outcomes(told));
        }
    }

    fn carry_out(&mut self, id: u64, request: FromClient) {
        let done: BoxFuture<'static, Done> = Box::pin(self.asker.clone().carry_out(id, request));
        let (abort, registration) = AbortHandle::new_pair();
        if id != 0 {
            self.pending.insert(id, abort);
        }
        self.requests.push(Abortable::new(done, registration));
    }

    /// What one message of the WebSocket says; an end if it is the last.
    fn hear(&mut self, bytes: &Bytes, out: &mut Out) -> Option<End> {
        let mut input = Input::new(bytes);
        loop {
            match wire::next::<FromClient>(&mut input) {
                Ok(None) => return None,
                Ok(Some((id, message))) => {
                    if let Some(end) = self.take(id, message, out) {
                        return Some(end);
                    }
                }
                Err(error) => return Some(close(out, &error.to_string())),
            }
        }
    }

    fn take(&mut self, id: u64, message: FromClient, out: &mut Out) -> Option<End> {
        match message {
            FromClient::Hello(_) => return Some(close(out, "hello was said already")),
            FromClient::Subscribe(asked) => return self.subscribe(asked, out),
            FromClient::Credit(credit) => {
                if let Some(sub) = self.subs.get_mut(&credit.sub) {
                    sub.credit = credit.credit.min(sub.sent.saturating_add(CREDIT_MAX));
                    let worker = sub.asked.worker.as_ref().unwrap_or(&self.name);
                    if let Some((seat, _)) = self.seats.get(worker) {
                        seat.live.touch();
                    }
                }
            }
            FromClient::Unsubscribe(asked) => {
                if let Some(sub) = self.subs.remove(&asked.sub) {
                    if let Some(fetch) = sub.fetch {
                        fetch.abort();
                    }
                    let behind = |one: &Leased| one.sub == asked.sub && one.nth > asked.received;
                    let tokens = self.leases.iter().filter(|(_, one)| behind(one)).map(|(token, _)| *token);
                    self.give_back(&tokens.collect::<Vec<_>>());
                    self.sit(sub.asked.worker.unwrap_or_else(|| self.name.clone()));
                }
            }
            FromClient::Withdraw(_) => {
                // Its answer, if there was one, is of no use any more.
                if let Some(request) = self.pending.remove(&id) {
                    request.abort();
                }
            }
            FromClient::Ping(ping) => {
                let kept = self.answers.split_off(&ping.answered);
                let over = std::mem::replace(&mut self.answers, kept);
                self.answers_bytes -= over.values().map(Bytes::len).sum::<usize>();
                out.add(|bytes| put_message(bytes, 0, &FromServer::Pong(wire::Empty {})));
            }
            FromClient::Bye(_) => {
                self.end_subscriptions();
                let tokens: Vec<u64> = self.leases.keys().copied().collect();
                self.give_back(&tokens);
                return Some(End::Over);
            }
            // Of a newer version, and without an answer to wait for.
            FromClient::Unknown if id == 0 => {}
            request => {
                if id <= self.newest {
                    return Some(close(out, "the ids of requests rise from 1"));
                }
                self.newest = id;
                self.touch(&request);
                if self.pending.len() >= REQUESTS_MAX {
                    let detail = format_compact!("at most {REQUESTS_MAX} requests wait for their answers");
                    let refused = Refused { retry_after_ms: Some(10), ..Refused::new("overloaded", detail) };
                    self.answer(Done::refused(id, &refused), out);
                } else {
                    self.carry_out(id, request);
                }
            }
        }
        None
    }

    fn subscribe(&mut self, asked: Subscribe, out: &mut Out) -> Option<End> {
        if asked.sub == 0 || self.subs.contains_key(&asked.sub) || self.subs.len() >= SUBSCRIPTIONS_MAX {
            return Some(close(
                out,
                "a subscription has a number of its own from 1, and there are 256 at most",
            ));
        }
        let allowed = asked.queues.iter().try_for_each(|queue| self.asker.check_queue(queue));
        if let Err(why) = self.asker.check(Right::Work).and(allowed) {
            end_subscription(asked.sub, why, out);
            return None;
        }
        let said = asked.worker.as_ref();
        let worker = said.map_or_else(|| self.asker.actor.clone(), |worker| self.asker.caller.worker(worker));
        if self.watched.insert(worker.clone(), said.unwrap_or(&worker).clone()).is_none() {
            self.watch(worker.clone(), None);
        }
        self.linger = self.linger.max(Duration::from_millis(asked.lease_ms)).min(LINGER_MAX);
        let credit = asked.credit.min(CREDIT_MAX);
        let name = asked.worker.clone().unwrap_or_else(|| self.name.clone());
        let sub = Sub { worker, credit, sent: 0, fetch: None, job_bytes: FETCH_BYTES / 64, asked };
        self.subs.insert(sub.asked.sub, sub);
        self.sit(name);
        self.obey(out);
        None
    }

    /// The worker of this name is there for what is subscribed to in its name.
    fn sit(&mut self, name: Actor) {
        let mut asks = Asks::default();
        let subs = self.subs.values().filter(|sub| *sub.asked.worker.as_ref().unwrap_or(&self.name) == name);
        let mut any = None;
        for sub in subs {
            asks.queues.extend(sub.asked.queues.iter().cloned());
            asks.concurrency = asks.concurrency.saturating_add(sub.asked.concurrency);
            any = Some(&sub.worker);
        }
        match any {
            None => drop(self.seats.remove(&name)),
            Some(worker) => {
                let sit = || (self.app.registry.sit(worker, &self.about), false);
                self.seats.entry(name).or_insert_with(sit).0.asks(asks);
            }
        }
    }

    /// The loop of a worker was heard of, if this is what only such a loop sends.
    fn touch(&self, request: &FromClient) {
        let worker = match request {
            FromClient::Outcomes(told) => &told.worker,
            FromClient::Renew(renew) => &renew.worker,
            FromClient::Progress(progress) => &progress.worker,
            FromClient::Log(log) => &log.worker,
            FromClient::StoreStep(step) => &step.worker,
            _ => return,
        };
        if let Some((seat, _)) = self.seats.get(worker.as_ref().unwrap_or(&self.name)) {
            seat.live.touch();
        }
    }

    /// Does what an operator asked of the workers here.
    fn obey(&mut self, out: &mut Out) {
        for (name, (seat, is_told)) in &mut self.seats {
            let stage = seat.live.stage();
            if stage.takes_jobs() {
                *is_told = false;
                continue;
            }
            let subs = self.subs.values_mut();
            for sub in subs.filter(|sub| sub.asked.worker.as_ref().unwrap_or(&self.name) == name) {
                if let Some(fetch) = sub.fetch.take() {
                    fetch.abort();
                }
            }
            if stage == Stage::Stopping && !std::mem::replace(is_told, true) {
                let stop = Stop { worker: name.clone() };
                out.add(|bytes| put_message(bytes, 0, &FromServer::Stop(stop)));
            }
        }
    }

    fn watch(&mut self, worker: Actor, after: Option<u64>) {
        let node = self.app.node.clone();
        self.watches.push(Box::pin(async move {
            let revoked = node.revoked(&worker, after, Duration::MAX).await;
            (worker, revoked)
        }));
    }

    fn tell_revoked(&mut self, worker: Actor, revoked: Revoked, out: &mut Out) {
        let mine = |(lease, reason): (LeaseRef, _)| {
            // Several clients may go by one name.
            self.leases.remove(&lease.token).map(|_| Lost { lease, reason })
        };
        let leases: Vec<Lost> = revoked.leases.into_iter().filter_map(mine).collect();
        if revoked.missed || !leases.is_empty() {
            let said = self.watched.get(&worker).unwrap_or(&worker).clone();
            let told = wire::Revoked { worker: said, leases, missed: revoked.missed };
            out.add(|bytes| put_message(bytes, 0, &FromServer::Revoked(told)));
        }
        self.watch(worker, Some(revoked.position));
    }

    /// Asks the node for jobs where the client's window is open and the socket keeps up.
    fn fetch(&mut self, out: &Out) {
        if self.draining || !out.has_room_for_jobs() {
            return;
        }
        for (number, sub) in &mut self.subs {
            let open = sub.credit.saturating_sub(sub.sent);
            if open == 0 || sub.fetch.is_some() {
                continue;
            }
            let name = sub.asked.worker.as_ref().unwrap_or(&self.name);
            if self.seats.get(name).is_some_and(|(seat, _)| !seat.live.stage().takes_jobs()) {
                continue;
            }
            let max = open.min(FETCH_MAX).min(FETCH_BYTES / sub.job_bytes.max(1)).max(1);
            let (queues, lease_ms): (Vec<QueueName>, Millis) = (sub.asked.queues.clone(), sub.asked.lease_ms);
            let command = Command::Fetch { queues, max: max as u32, lease_ms };
            let fetch = Envelope { actor: sub.worker.clone(), idempotency_key: None, command };
            let level = sub.asked.durability.unwrap_or(self.app.rules.durability);
            let (node, number) = (self.app.node.clone(), *number);
            let fetched: BoxFuture<'static, Fetched> = Box::pin(async move {
                let fetched = node.fetch_as(fetch, FETCH_WAIT, level).await;
                if fetched.is_err() {
                    sleep(PAUSE).await;
                }
                (number, fetched)
            });
            let (abort, registration) = AbortHandle::new_pair();
            sub.fetch = Some(abort);
            self.fetches.push(Abortable::new(fetched, registration));
        }
    }

    fn hand_out(&mut self, number: u64, fetched: Result<Vec<DispatchedJob>, CallError>, out: &mut Out) {
        let Some(sub) = self.subs.get_mut(&number) else { return };
        sub.fetch = None;
        let jobs = match fetched {
            Ok(jobs) => jobs,
            // What the pond refuses, such as too many queues, it refuses for ever.
            Err(CallError::Refused(reject)) => {
                self.subs.remove(&number);
                return end_subscription(number, Refused::from(&reject), out);
            }
            Err(_) => return,
        };
        let Some(count) = std::num::NonZeroU64::new(jobs.len() as u64) else { return };
        let bytes: usize = jobs.iter().map(|job| 128 + job.body.as_ref().map_or(0, Bytes::len)).sum();
        sub.job_bytes = bytes as u64 / count;
        for job in &jobs {
            sub.sent += 1;
            let job_ref = JobRef { queue: Some(job.queue.clone()), id: job.id.clone() };
            let lease = LeaseRef { job: job_ref, token: job.lease_token };
            self.leases.insert(job.lease_token, Leased { lease, sub: number, nth: sub.sent });
        }
        let mut jobs = jobs.into_iter().peekable();
        while jobs.peek().is_some() {
            let mut bytes = 0;
            let mut piece = Vec::new();
            while bytes < wire::BATCH_BYTES
                && let Some(job) = jobs.next()
            {
                bytes += 128 + job.body.as_ref().map_or(0, Bytes::len);
                piece.push(job);
            }
            let told = Jobs { sub: number, jobs: piece };
            out.add(|bytes| put_answer(bytes, "jobs", 0, |bytes| wire::Pack::pack(&told, bytes)));
        }
    }

    fn answer(&mut self, done: Done, out: &mut Out) {
        if done.id != 0 {
            out.add(|bytes| bytes.extend_from_slice(&done.bytes));
        }
        self.keep(done);
    }

    /// Remembers an answer until the client is known to have it.
    fn keep(&mut self, done: Done) {
        for token in &done.over {
            self.leases.remove(token);
        }
        if done.id == 0 {
            return;
        }
        self.pending.remove(&done.id);
        self.answers_bytes += done.bytes.len();
        self.answers.insert(done.id, done.bytes.into());
        while self.answers_bytes > ANSWERS_BYTES_MAX || self.answers.len() > REQUESTS_MAX {
            let Some((_, oldest)) = self.answers.pop_first() else { break };
            self.answers_bytes -= oldest.len();
        }
    }

    fn drain(&mut self, out: &mut Out) {
        self.draining = true;
        for sub in self.subs.values_mut() {
            if let Some(fetch) = sub.fetch.take() {
                fetch.abort();
            }
        }
        let within_ms = u64::try_from(DRAIN.as_millis()).unwrap_or(u64::MAX);
        out.add(|bytes| put_message(bytes, 0, &FromServer::Drain(Drain { within_ms })));
    }
}

fn end_subscription(sub: u64, why: Refused, out: &mut Out) {
    out.add(|bytes| put_message(bytes, 0, &FromServer::Ended(wire::Ended { sub, why })));
}

/// Tells a client what it did wrong.
fn close(out: &mut Out, detail: &str) -> End {
    let bye = Refused::new("bad_request", detail);
    out.add(|bytes| put_message(bytes, 0, &FromServer::Bye(bye)));
    End::Over
}

/// A name that nobody can guess; `None` if the system gives no randomness.
fn secret() -> Option<CompactString> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(format_compact!("{:032x}", u128::from_be_bytes(bytes)))
}
