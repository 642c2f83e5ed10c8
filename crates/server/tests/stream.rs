//! The worker stream: what a pond does over it, and what it does when the link breaks.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../../millpond/tests/suite/mod.rs"]
mod suite;
mod support;

use futures_util::{SinkExt, StreamExt};
use millpond::{Connect, Job, Pond, Reason, State, Worker};
use server::serve::Server;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use support::{TOKEN, start};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest},
};
use wire::{FromClient, FromServer, Hello, Input, Resume};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pond_on_a_server_does_what_a_pond_does() {
    for (name, case) in suite::CASES {
        let started = Instant::now();
        let server = start(&[]).await;
        case(Pond::connect(&server.url()).await.unwrap()).await;
        server.stop().await.unwrap();
        println!("{name}: {:?}", started.elapsed());
    }
}

/// How the link of a client is cut.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cut {
    /// Not at all.
    Open,
    /// Both sides see the end.
    Killed,
    /// Nothing goes through any more, and neither side is told.
    HalfOpen,
    /// The same in one direction.
    Deaf,
    Mute,
}

const CUTS: [Cut; 4] = [Cut::Killed, Cut::HalfOpen, Cut::Deaf, Cut::Mute];

/// Carries connections to a server, and lets them break.
struct Proxy {
    address: SocketAddr,
    links: Arc<Mutex<Vec<watch::Sender<Cut>>>>,
}

impl Proxy {
    async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), links: Arc::default() };
        let links = proxy.links.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let Ok(server) = TcpStream::connect(server).await else { continue };
                let (link, cut) = watch::channel(Cut::Open);
                links.lock().unwrap().push(link);
                tokio::spawn(carry(client, server, cut));
            }
        });
        proxy
    }

    fn url(&self) -> String {
        format!("millpond://{}", self.address)
    }

    /// Cuts every link that there is; new ones go through.
    fn cut(&self, how: Cut) {
        for link in self.links.lock().unwrap().iter() {
            // One that has ended needs no cut.
            let _ = link.send(how);
        }
    }

    /// Lets go through what was held.
    fn mend(&self) {
        self.cut(Cut::Open);
    }

    fn connections(&self) -> usize {
        self.links.lock().unwrap().len()
    }
}

async fn carry(client: TcpStream, server: TcpStream, cut: watch::Receiver<Cut>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut killed = cut.clone();
    let up = pump(from_client, to_server, cut.clone(), |cut| matches!(cut, Cut::HalfOpen | Cut::Mute));
    let down = pump(from_server, to_client, cut, |cut| matches!(cut, Cut::HalfOpen | Cut::Deaf));
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = killed.wait_for(|cut| *cut == Cut::Killed) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut cut: watch::Receiver<Cut>,
    holds: impl Fn(Cut) -> bool,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if cut.wait_for(|cut| !holds(*cut)).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
    // Whoever is cut off does not hear the end either.
    let _ = cut.wait_for(|cut| !holds(*cut)).await;
}

/// Runs of each job.
type Runs = Arc<Mutex<BTreeMap<u64, u32>>>;

fn count_runs(pond: &Pond, runs: &Runs) -> Worker {
    let runs = runs.clone();
    let handler = move |number: u64, _: Job| {
        *runs.lock().unwrap().entry(number).or_default() += 1;
        async {}
    };
    pond.queue::<u64>("q").unwrap().worker(handler).concurrency(8).start().unwrap()
}

async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let met = async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), met).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Cuts the link in every way, one after the other, while jobs are pushed and run: each job is there once and runs once. Says how
/// long it took each time until a job that was pushed after the cut had run.
async fn cut_and_come_back(cuts: usize) -> Vec<Duration> {
    let server = start(&[]).await;
    let proxy = Proxy::start(server.addr()).await;
    let pond = Pond::connect(&proxy.url()).await.unwrap();
    let runs = Runs::default();
    let worker = count_runs(&pond, &runs);
    let next = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..3)
        .map(|_| {
            let (queue, next, stop) = (pond.queue::<u64>("q").unwrap(), next.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(Relaxed) {
                    let numbers: Vec<u64> = (0..5).map(|_| next.fetch_add(1, Relaxed)).collect();
                    queue.push_many(&numbers).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        })
        .collect();
    let queue = pond.queue::<u64>("q").unwrap();
    let mut times = Vec::new();
    for nth in 0..cuts {
        let connections = proxy.connections();
        let cut = CUTS[nth % CUTS.len()];
        proxy.cut(cut);
        let cut_at = Instant::now();
        let number = next.fetch_add(1, Relaxed);
        queue.push(&number).await.unwrap();
        until(&format!("nothing runs after cut {nth} ({cut:?})"), || {
            runs.lock().unwrap().contains_key(&number)
        })
        .await;
        assert!(proxy.connections() > connections, "the link was made again");
        times.push(cut_at.elapsed());
        // What was held on the old link comes late, as on a network: nobody may be confused by it.
        proxy.mend();
    }
    stop.store(true, Relaxed);
    for producer in producers {
        producer.await.unwrap();
    }
    let pushed = next.load(Relaxed);
    until("every job runs", || runs.lock().unwrap().len() as u64 == pushed).await;
    let twice: Vec<_> = runs.lock().unwrap().iter().filter(|(_, runs)| **runs > 1).map(|(n, _)| *n).collect();
    assert_eq!(twice, [0; 0], "of {pushed} jobs these ran more than once");
    assert_eq!(queue.stats().await.unwrap().unwrap().pushed_total, pushed, "no push was doubled");
    worker.stop().await;
    pond.close().await.unwrap();
    server.stop().await.unwrap();
    times
}

/// `MILLPOND_CUTS=200` for many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_cut_in_any_way_is_made_again_and_no_job_is_lost_or_doubled() {
    let cuts = std::env::var("MILLPOND_CUTS").ok().and_then(|count| count.parse().ok()).unwrap_or(8);
    let mut times = cut_and_come_back(cuts).await;
    times.sort();
    println!("{cuts} cuts: half within {:?}, all within {:?}", times[cuts / 2], times[cuts - 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_hears_that_its_lease_is_lost_while_the_server_is_away() {
    let server = start(&[("drain", "100ms")]).await;
    let proxy = Proxy::start(server.addr()).await;
    let pond = Pond::connect(&proxy.url()).await.unwrap();
    let queue = pond.queue::<u64>("q").unwrap();
    let (sender, mut heard) = mpsc::unbounded_channel();
    let handler = move |_: u64, job: Job| {
        let sender = sender.clone();
        async move {
            sender.send(None).unwrap();
            sender.send(Some(job.cancelled().await)).unwrap();
        }
    };
    let worker = queue.worker(handler).lease(Duration::from_millis(600)).start().unwrap();
    queue.push(&1).await.unwrap();
    assert_eq!(heard.recv().await, Some(None));
    server.stop().await.unwrap();
    assert_eq!(heard.recv().await, Some(Some(Reason::LeaseLost)));
    drop(worker);
}

/// What a client in any language sends and hears.
struct Raw(WebSocketStream<TcpStream>, VecDeque<(u64, FromServer)>);

impl Raw {
    async fn connect(server: &Server, headers: &[(&'static str, &str)]) -> Result<Self, String> {
        let mut request = format!("ws://{}/v1/stream", server.addr()).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        let tcp = TcpStream::connect(server.addr()).await.unwrap();
        match client_async(request, tcp).await {
            Ok((socket, _)) => Ok(Self(socket, VecDeque::new())),
            Err(tungstenite::Error::Http(response)) => {
                Err(String::from_utf8_lossy(response.body().as_deref().unwrap_or_default()).into_owned())
            }
            Err(error) => panic!("{error}"),
        }
    }

    async fn say(&mut self, id: u64, message: FromClient) {
        let mut bytes = Vec::new();
        wire::put_message(&mut bytes, id, &message);
        self.0.send(Message::Binary(bytes.into())).await.unwrap();
    }

    async fn hello(
        server: &Server,
        headers: &[(&'static str, &str)],
        resume: Option<Resume>,
    ) -> (Self, wire::Welcome) {
        let mut raw = Self::connect(server, headers).await.unwrap();
        let worker = model::Actor::new("raw");
        raw.say(
            0,
            FromClient::Hello(Hello { version: 9, worker, heartbeat_ms: 60_000, resume, ..Hello::default() }),
        )
        .await;
        match raw.hear().await {
            Some((0, FromServer::Welcome(welcome))) => (raw, welcome),
            other => panic!("{other:?}"),
        }
    }

    /// The next message; `None` at the end.
    async fn hear(&mut self) -> Option<(u64, FromServer)> {
        loop {
            if let Some(message) = self.1.pop_front() {
                return Some(message);
            }
            let next = timeout(Duration::from_secs(60), self.0.next()).await;
            let Some(Ok(Message::Binary(bytes))) = next.expect("the server says something") else {
                return None;
            };
            let mut input = Input::new(&bytes);
            while let Some(message) = wire::next(&mut input).unwrap() {
                // Whoever subscribes looks at all leases once: that comes sooner or later.
                if !matches!(message, (0, FromServer::Revoked(wire::Revoked { missed: true, .. }))) {
                    self.1.push_back(message);
                }
            }
        }
    }
}

fn job(queue: &str, body: &str) -> model::NewJob {
    model::NewJob::new(model::QueueName::new(queue).unwrap(), body.to_owned())
}

fn push(jobs: Vec<model::NewJob>) -> FromClient {
    FromClient::Push(wire::Push { jobs, key: None, wait_ms: 0, durability: None })
}

fn subscribe(sub: u64, queue: &str, credit: u64) -> FromClient {
    let queues = vec![model::QueueName::new(queue).unwrap()];
    FromClient::Subscribe(wire::Subscribe {
        sub,
        queues,
        credit,
        lease_ms: 60_000,
        worker: None,
        durability: None,
        concurrency: 0,
    })
}

fn tokens(message: Option<(u64, FromServer)>) -> Vec<u64> {
    match message {
        Some((0, FromServer::Jobs(jobs))) => jobs.jobs.iter().map(|job| job.lease_token).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn no_more_jobs_come_than_were_asked_for() {
    let server = start(&[("drain", "100ms")]).await;
    let (mut raw, welcome) = Raw::hello(&server, &[], None).await;
    assert_eq!((welcome.version, welcome.resumed), (wire::VERSION, false));
    raw.say(1, push((0..5).map(|n| job("q", &n.to_string())).collect())).await;
    assert!(matches!(raw.hear().await, Some((1, FromServer::Pushed(pushed))) if pushed.jobs.len() == 5));
    raw.say(0, subscribe(1, "q", 2)).await;
    assert_eq!(tokens(raw.hear().await).len(), 2);
    // A ping is answered behind everything before it.
    raw.say(0, FromClient::Ping(wire::Ping { answered: 2 })).await;
    assert!(matches!(raw.hear().await, Some((0, FromServer::Pong(_)))));
    raw.say(0, FromClient::Credit(wire::Credit { sub: 1, credit: 3 })).await;
    assert_eq!(tokens(raw.hear().await).len(), 1);
    raw.say(0, FromClient::Bye(wire::Empty {})).await;
    assert_eq!(raw.hear().await.map(|(id, _)| id), None);
    // Every lease has gone back at once.
    let (mut other, _) = Raw::hello(&server, &[], None).await;
    other.say(0, subscribe(1, "q", 10)).await;
    let mut found = 0;
    while found < 5 {
        found += tokens(other.hear().await).len();
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn who_comes_back_gets_answers_again_and_jobs_that_were_lost_on_the_way_go_back() {
    let server = start(&[("drain", "100ms")]).await;
    let (mut raw, welcome) = Raw::hello(&server, &[], None).await;
    raw.say(1, push(vec![job("q", "1"), job("q", "2")])).await;
    let Some((1, FromServer::Pushed(first))) = raw.hear().await else { panic!() };
    raw.say(0, subscribe(1, "q", 2)).await;
    let mut leased = tokens(raw.hear().await);
    if leased.len() < 2 {
        leased.extend(tokens(raw.hear().await));
    }
    drop(raw);
    // The client says that it has the first job only, and neither the answer nor what it asked last.
    let resume = Resume {
        session: welcome.session.clone(),
        received: vec![wire::Received { sub: 1, jobs: 1 }],
        asked: vec![1, 2],
    };
    let (mut raw, again) = Raw::hello(&server, &[], Some(resume)).await;
    assert_eq!((again.resumed, &again.session), (true, &welcome.session));
    assert!(matches!(raw.hear().await, Some((1, FromServer::Pushed(same))) if same == first));
    let Some((2, FromServer::Refused(refused))) = raw.hear().await else { panic!() };
    assert_eq!(refused.code, "not_received");
    raw.say(0, subscribe(2, "q", 2)).await;
    let back = tokens(raw.hear().await);
    assert_eq!(back.len(), 1);
    assert!(!leased.contains(&back[0]), "it has a new lease");
    // Nobody else comes in by that name, nor without the secret.
    let stolen = Resume { session: "0".repeat(32).into(), received: Vec::new(), asked: vec![1] };
    assert!(!Raw::hello(&server, &[], Some(stolen)).await.1.resumed);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn nonsense_is_told_and_ends_the_connection() {
    let server = start(&[]).await;
    let rising = [push(vec![job("q", "1")]), push(vec![job("q", "1")])];
    let (mut raw, _) = Raw::hello(&server, &[], None).await;
    for message in rising {
        raw.say(7, message).await;
    }
    let mut last = None;
    while let Some((_, message)) = raw.hear().await {
        last = Some(message);
    }
    assert!(matches!(&last, Some(FromServer::Bye(why)) if why.code == "bad_request"), "{last:?}");

    let (mut raw, _) = Raw::hello(&server, &[], None).await;
    raw.0.send(Message::Binary(vec![0x93, 0xc1].into())).await.unwrap();
    assert!(matches!(raw.hear().await, Some((0, FromServer::Bye(_)))));
    assert_eq!(raw.hear().await.map(|(id, _)| id), None);

    let nameless = [&[0x93, 0xa5][..], b"hello", &[0x00, 0x81, 0xa7], b"version", &[0x01]].concat();
    let pushes = {
        let mut bytes = Vec::new();
        wire::put_message(&mut bytes, 1, &push(vec![job("q", "1")]));
        bytes
    };
    for (first, what) in [(nameless, "worker"), (pushes, "the first message is hello")] {
        let mut raw = Raw::connect(&server, &[]).await.unwrap();
        raw.0.send(Message::Binary(first.into())).await.unwrap();
        let bye = raw.hear().await;
        assert!(
            matches!(&bye, Some((0, FromServer::Bye(why))) if why.detail.contains(what)),
            "{what}: {bye:?}"
        );
        assert_eq!(raw.hear().await.map(|(id, _)| id), None);
    }

    let (mut raw, _) = Raw::hello(&server, &[], None).await;
    raw.say(1, push(vec![job("q", "no JSON")])).await;
    assert!(matches!(raw.hear().await, Some((1, FromServer::Refused(why))) if why.code == "invalid"));
    let tick = wire::Command::of(&model::Command::Tick, None, None);
    raw.say(2, FromClient::Command(tick)).await;
    assert!(matches!(raw.hear().await, Some((2, FromServer::Refused(why))) if why.code == "invalid"));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_message_that_is_too_large_and_a_foreign_page_are_refused() {
    let server = start(&[("body_max", "1MiB")]).await;
    let (mut raw, welcome) = Raw::hello(&server, &[], None).await;
    let much = vec![0; welcome.message_bytes_max as usize + 1];
    // The server may close before it has read all of it.
    let _ = raw.0.send(Message::Binary(much.into())).await;
    assert_eq!(raw.hear().await.map(|(id, _)| id), None);
    let foreign = Raw::connect(&server, &[("origin", "http://evil.example")]).await;
    assert!(foreign.is_err_and(|problem| problem.contains("cross_site")));
    let plain = support::call(&server, "GET /v1/stream", "").await;
    assert_eq!((plain.status, plain.code().as_str()), (400, "bad_request"));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_held_back_and_others_go_on() {
    let server = start(&[]).await;
    let (mut raw, _) = Raw::hello(&server, &[], None).await;
    let jobs: Vec<_> = (0..2_000).map(|n| job("q", &n.to_string())).collect();
    // It asks until nothing more is taken from it, and reads no answer.
    let mut asked = 0;
    let asking = async {
        loop {
            asked += 1;
            raw.say(asked, push(jobs.clone())).await;
        }
    };
    let _: Result<(), _> = timeout(Duration::from_secs(3), asking).await;
    let waiting = server.handle().stats().pending;
    assert!(waiting <= 1_024, "{waiting} calls wait");
    let pond = Pond::connect(&server.url()).await.unwrap();
    assert_eq!(pond.queue::<u64>("other").unwrap().push(&1).await.unwrap().state, State::Waiting);
    pond.close().await.unwrap();
    drop(raw);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_stops_takes_outcomes_and_hands_out_nothing_more() {
    let server = start(&[]).await;
    let (mut raw, _) = Raw::hello(&server, &[], None).await;
    raw.say(1, push(vec![job("q", "1")])).await;
    raw.hear().await;
    raw.say(0, subscribe(1, "q", 1)).await;
    let Some((0, FromServer::Jobs(jobs))) = raw.hear().await else { panic!() };
    let stopping = tokio::spawn(server.stop());
    assert!(matches!(raw.hear().await, Some((0, FromServer::Drain(_)))));
    let lease = model::LeaseRef {
        job: model::JobRef { queue: Some(jobs.jobs[0].queue.clone()), id: jobs.jobs[0].id.clone() },
        token: jobs.jobs[0].lease_token,
    };
    let outcome =
        model::Settlement { lease, outcome: model::Outcome::Done { result: None }, push: Vec::new() };
    raw.say(
        2,
        FromClient::Outcomes(wire::Outcomes { outcomes: vec![outcome], worker: None, durability: None }),
    )
    .await;
    assert!(
        matches!(raw.hear().await, Some((2, FromServer::Settled(settled))) if settled.results[0].is_ok())
    );
    assert!(matches!(raw.hear().await, Some((0, FromServer::Bye(why))) if why.code == "stopping"));
    assert_eq!(stopping.await.unwrap().unwrap(), server::serve::ExitReason::Drained);
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_a_worker_that_takes_long() {
    let server = start(&[]).await;
    let (mut raw, _) = Raw::hello(&server, &[], None).await;
    raw.say(1, push(vec![job("q", "1")])).await;
    raw.hear().await;
    raw.say(0, subscribe(1, "q", 1)).await;
    raw.hear().await;
    assert_eq!(server.stop().await.unwrap(), server::serve::ExitReason::Drained);
}

#[tokio::test]
async fn a_token_may_over_the_stream_what_it_may_over_http() {
    let server = start(&[("token", TOKEN)]).await;
    let refused = Pond::connect(&server.url()).await.err().map(|error| error.to_string());
    assert!(refused.is_some_and(|error| error.contains("unauthorized")));
    let options = Connect { token: Some(TOKEN.into()), ..Connect::default() };
    let pond = Pond::connect_with(&server.url(), options).await.unwrap();
    assert_eq!(pond.queue::<u64>("q").unwrap().push(&1).await.unwrap().state, State::Waiting);
    pond.close().await.unwrap();
    server.stop().await.unwrap();
}
