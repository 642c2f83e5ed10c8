//! What the two sides say to each other.

use crate::pack::{Fields, Input, Pack, map, put_array, put_number, put_text, read_fields};
use crate::view::Read;
use bytes::Bytes;
use compact_str::{CompactString, ToCompactString};
use kit::{
    Durability, Millis, Timestamp,
    codec::{Malformed, Reader},
};
use model::{Actor, DispatchedJob, LeaseRef, NewJob, QueueName, Reject, Revocation, Settlement, State};

macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $text:literal $variant:ident($type:ty),)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant($type),)*
            /// One that this program does not know.
            Unknown,
        }

        impl $name {
            fn read(name: &str, input: &mut Input<'_>) -> Result<Self, Malformed> {
                Ok(match name {
                    $($text => Self::$variant(Pack::unpack(input)?),)*
                    _ => {
                        input.skip()?;
                        Self::Unknown
                    }
                })
            }

            /// Its name, and its fields appended to `out`.
            fn name_and_fields(&self, out: &mut Vec<u8>) -> &'static str {
                match self {
                    $(Self::$variant(fields) => {
                        fields.pack(out);
                        $text
                    })*
                    Self::Unknown => {
                        drop(Fields::new(out));
                        "unknown"
                    }
                }
            }
        }

        impl Direction for $name {
            fn read(name: &str, input: &mut Input<'_>) -> Result<Self, Malformed> {
                Self::read(name, input)
            }

            fn name_and_fields(&self, out: &mut Vec<u8>) -> &'static str {
                self.name_and_fields(out)
            }
        }
    };
}

/// One of the two directions.
pub trait Direction: Sized {
    /// Reads the fields of a message.
    fn read(name: &str, input: &mut Input<'_>) -> Result<Self, Malformed>;
    /// Appends the fields; returns the name.
    fn name_and_fields(&self, out: &mut Vec<u8>) -> &'static str;
}

messages! {
    /// From the client to the server.
    FromClient {
        /// The first message.
        "hello" Hello(Hello),
        /// Begins to take jobs.
        "subscribe" Subscribe(Subscribe),
        /// Lets more jobs come.
        "credit" Credit(Credit),
        /// Ends a subscription.
        "unsubscribe" Unsubscribe(Unsubscribe),
        /// Adds jobs.
        "push" Push(Push),
        /// Says how attempts ended.
        "outcomes" Outcomes(Outcomes),
        /// Extends leases.
        "renew" Renew(Renew),
        /// Stores progress.
        "progress" Progress(Progress),
        /// Appends to a job's log.
        "log" Log(Log),
        /// Stores the result of a step.
        "step" StoreStep(StoreStep),
        /// Any other change, in the form of the log.
        "command" Command(Command),
        /// Looks at something.
        "read" Read(Read),
        /// Gives up a request; the id says which.
        "withdraw" Withdraw(Empty),
        /// Is there; and what it has heard.
        "ping" Ping(Ping),
        /// Ends the session: every lease in hand goes back.
        "bye" Bye(Empty),
    }
}

messages! {
    /// From the server to the client. Those with an id answer the request of that id.
    FromServer {
        /// Answers the hello.
        "welcome" Welcome(Welcome),
        /// Hands out jobs.
        "jobs" Jobs(Jobs),
        /// A subscription that was refused, or has ended.
        "ended" Ended(Ended),
        /// Leases that were taken away.
        "revoked" Revoked(Revoked),
        /// Answers a push.
        "pushed" Pushed(Pushed),
        /// Answers outcomes.
        "settled" Settled(Settled),
        /// Answers a renewal.
        "renewed" Renewed(Renewed),
        /// Answers a command.
        "reply" Reply(Reply),
        /// Answers progress and log.
        "done" Done(Empty),
        /// Answers a read and a step.
        "view" View(View),
        /// Answers a request that was not carried out.
        "refused" Refused(Refused),
        /// Answers a ping.
        "pong" Pong(Empty),
        /// The server stops: no more jobs come.
        "drain" Drain(Drain),
        /// A worker is to end when its jobs are done.
        "stop" Stop(Stop),
        /// The server closes, and why.
        "bye" Bye(Refused),
    }
}

/// A message without fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Empty {}

impl Pack for Empty {
    fn pack(&self, out: &mut Vec<u8>) {
        drop(Fields::new(out));
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        input.map("nothing", |_, _| Ok(false))?;
        Ok(Empty {})
    }
}

/// An answer as seen by who asked.
pub type Answer = FromServer;

/// Reads the next message of a binary message of the WebSocket, and its id; `None` at the end.
pub fn next<D: Direction>(input: &mut Input<'_>) -> Result<Option<(u64, D)>, Malformed> {
    if input.is_at_end() {
        return Ok(None);
    }
    let start = input.malformed("a message");
    let count = input.array("a message")?;
    let extra = count.checked_sub(3).ok_or(start)?;
    let name = input.text("the name of a message")?;
    let id = input.number("the id of a message")?;
    let message = D::read(name, input)?;
    for _ in 0..extra {
        input.skip()?;
    }
    Ok(Some((id, message)))
}

/// Appends a message.
pub fn put_message(out: &mut Vec<u8>, id: u64, message: &impl Direction) {
    let mut fields = Vec::new();
    let name = message.name_and_fields(&mut fields);
    put_answer(out, name, id, |out| out.extend_from_slice(&fields));
}

/// Appends a message whose fields `put` writes.
pub fn put_answer(out: &mut Vec<u8>, name: &str, id: u64, put: impl FnOnce(&mut Vec<u8>)) {
    put_array(out, 3);
    put_text(out, name);
    put_number(out, id);
    put(out);
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hello {
    /// The newest version that it speaks.
    pub version: u32,
    /// Its name in the histories of jobs.
    pub worker: Actor,
    /// The program and its version, for the log.
    pub client: CompactString,
    /// It sends something at least this often, milliseconds; 0 for the usual.
    pub heartbeat_ms: Millis,
    /// A session that it had.
    pub resume: Option<Resume>,
    /// The machine that it runs on, for people.
    pub host: CompactString,
    /// Its process there; 0 if it does not say.
    pub pid: u64,
    /// What its owner calls it by, for people.
    pub labels: Vec<CompactString>,
}

map!(Hello { version, worker, client, heartbeat_ms, resume, host, pid, labels });

/// What a client knows of a session whose connection was lost.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resume {
    /// As the welcome gave it.
    pub session: CompactString,
    /// For each subscription, the jobs that arrived.
    pub received: Vec<Received>,
    /// The requests without an answer.
    pub asked: Vec<u64>,
}

map!(Resume { session, received, asked });

/// How many jobs of a subscription arrived, all in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Which.
    pub sub: u64,
    /// How many.
    pub jobs: u64,
}

map!(Received { sub, jobs });

/// Begins to take jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// A number of the client's, never used before in the session.
    pub sub: u64,
    /// In order of preference.
    pub queues: Vec<QueueName>,
    /// Jobs that may come.
    pub credit: u64,
    /// 0 for the queue's.
    pub lease_ms: Millis,
    /// In whose name, if not the session's.
    pub worker: Option<Actor>,
    /// At which level jobs are leased.
    pub durability: Option<Durability>,
    /// Jobs that it runs at once, for people; 0 if it does not say.
    pub concurrency: u64,
}

map!(Subscribe { sub, queues, credit, lease_ms, worker, durability, concurrency });

/// Moves a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Of which subscription.
    pub sub: u64,
    /// Jobs that may have come since the subscription began, all in all.
    pub credit: u64,
}

map!(Credit { sub, credit });

/// Ends a subscription. Its jobs stay with the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Which.
    pub sub: u64,
    /// Jobs that have come; those behind them go back.
    pub received: u64,
}

map!(Unsubscribe { sub, received });

/// Adds jobs, all or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// Which.
    pub jobs: Vec<NewJob>,
    /// The idempotency key.
    pub key: Option<CompactString>,
    /// How long to wait for room, milliseconds.
    pub wait_ms: Millis,
    /// How safe.
    pub durability: Option<Durability>,
}

map!(Push { jobs, key, wait_ms, durability });

/// Says how attempts ended; each is judged by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcomes {
    /// How each.
    pub outcomes: Vec<Settlement>,
    /// In whose name, if not the session's.
    pub worker: Option<Actor>,
    /// How safe.
    pub durability: Option<Durability>,
}

map!(Outcomes { outcomes, worker, durability });

/// Extends leases; each is judged by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renew {
    /// Which.
    pub leases: Vec<LeaseRef>,
    /// For how long; 0 for the queue's.
    pub lease_ms: Millis,
    /// In whose name, if not the session's.
    pub worker: Option<Actor>,
    /// How safe.
    pub durability: Option<Durability>,
}

map!(Renew { leases, lease_ms, worker, durability });

/// Stores how far a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Of which.
    pub lease: LeaseRef,
    /// JSON.
    pub value: Bytes,
    /// In whose name, if not the session's.
    pub worker: Option<Actor>,
}

map!(Progress { lease, value, worker });

/// Appends to a job's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Of which.
    pub lease: LeaseRef,
    /// The lines.
    pub lines: Vec<CompactString>,
    /// In whose name, if not the session's.
    pub worker: Option<Actor>,
}

map!(Log { lease, lines, worker });

/// Stores the result of a step. The answer is a view: the step that the job has already, or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStep {
    /// Of which.
    pub lease: LeaseRef,
    /// Of the step.
    pub name: CompactString,
    /// JSON.
    pub result: Bytes,
    /// In whose name, if not the session's.
    pub worker: Option<Actor>,
    /// How safe.
    pub durability: Option<Durability>,
}

map!(StoreStep { lease, name, result, worker, durability });

/// Any other change: a command of the model in the form of its codec. For the library in Rust; others call the HTTP routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// As [`model::codec::encode_command`] writes it.
    pub command: Bytes,
    /// The idempotency key.
    pub key: Option<CompactString>,
    /// How safe.
    pub durability: Option<Durability>,
}

map!(Command { command, key, durability });

impl Command {
    /// Packs a command.
    pub fn of(command: &model::Command, key: Option<CompactString>, durability: Option<Durability>) -> Self {
        let mut bytes = Vec::new();
        model::codec::encode_command(command, &mut bytes);
        Self { command: bytes.into(), key, durability }
    }

    /// Unpacks it.
    pub fn open(&self) -> Result<model::Command, Malformed> {
        let mut reader = Reader::new(&self.command);
        let command = model::codec::read_command(&mut reader)?;
        reader.finish("a command")?;
        Ok(command)
    }
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ping {
    /// Every request with a lower id has its answer.
    pub answered: u64,
}

map!(Ping { answered });

/// How the session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version that counts.
    pub version: u32,
    /// The server's own, for people.
    pub server: CompactString,
    /// To be named when the connection is lost. Keep it secret.
    pub session: CompactString,
    /// Whether the session that was named goes on. If not, nothing is known of it any more.
    pub resumed: bool,
    /// Something is to be heard from the client within this, milliseconds; silence three times as long ends the connection.
    pub heartbeat_ms: Millis,
    /// Bytes of one binary message of the WebSocket, from the client.
    pub message_bytes_max: u64,
    /// The level of a call that names none.
    pub durability: Durability,
    /// The server's clock.
    pub time: Timestamp,
}

map!(Welcome { version, server, session, resumed, heartbeat_ms, message_bytes_max, durability, time });

/// Jobs for a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jobs {
    /// Which.
    pub sub: u64,
    /// At least one.
    pub jobs: Vec<DispatchedJob>,
}

map!(Jobs { sub, jobs });

/// A subscription that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub sub: u64,
    /// Why.
    pub why: Refused,
}

map!(Ended { sub, why });

/// Leases that were taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Whose they were.
    pub worker: Actor,
    /// Which, and why.
    pub leases: Vec<Lost>,
    /// There may be more: renew every lease in hand to see which are left.
    pub missed: bool,
}

map!(Revoked { worker, leases, missed });

/// A lease that was taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Which.
    pub lease: LeaseRef,
    /// Why.
    pub reason: Revocation,
}

map!(Lost { lease, reason });

/// What a push brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Where it stands in the log.
    pub position: u64,
    /// How safe it is.
    pub durability: Durability,
    /// In the order of the push.
    pub jobs: Vec<model::Pushed>,
}

map!(Pushed { position, durability, jobs });

/// What outcomes brought, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// The state of each job now, or why nothing was changed.
    pub results: Vec<Result<model::Settled, Refused>>,
}

map!(Settled { results });

/// What a renewal brought, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// The end of each lease, or why it is gone.
    pub results: Vec<Result<model::Renewed, Refused>>,
}

map!(Renewed { results });

/// What a command brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// As [`model::codec::encode_reply`] writes it.
    pub reply: Bytes,
    /// Where it stands in the log.
    pub position: u64,
    /// How safe it is.
    pub durability: Durability,
}

map!(Reply { reply, position, durability });

/// Something that was looked at, still packed; who asked knows its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View(pub Bytes);

impl Pack for View {
    fn pack(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        input.raw().map(View)
    }
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Refused {
    /// One of `docs/errors.md`.
    pub code: CompactString,
    /// For people.
    pub detail: CompactString,
    /// When to try again.
    pub retry_after_ms: Option<Millis>,
    /// The refusal in the form of the log, for the library in Rust.
    pub reject: Option<Bytes>,
}

map!(Refused { code, detail, retry_after_ms, reject });

impl From<&Reject> for Refused {
    fn from(reject: &Reject) -> Self {
        let mut bytes = Vec::new();
        model::codec::put_reject(&mut bytes, reject);
        Self {
            code: reject.code().into(),
            detail: reject.to_compact_string(),
            retry_after_ms: reject.retry_after_ms(),
            reject: Some(bytes.into()),
        }
    }
}

impl Refused {
    /// One that is no refusal of the state machine.
    pub fn new(code: &str, detail: impl Into<CompactString>) -> Self {
        Self { code: code.into(), detail: detail.into(), retry_after_ms: None, reject: None }
    }

    /// The refusal of the state machine, if it is one.
    pub fn reject(&self) -> Option<Reject> {
        model::codec::read_reject(&mut Reader::new(self.reject.as_ref()?)).ok()
    }
}

/// The server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drain {
    /// It waits so long for outcomes, milliseconds.
    pub within_ms: Millis,
}

map!(Drain { within_ms });

/// A worker is to end when its jobs are done. No more come to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Which.
    pub worker: Actor,
}

map!(Stop { worker });

impl Pack for Result<model::Settled, Refused> {
    fn pack(&self, out: &mut Vec<u8>) {
        match self {
            Ok(settled) => drop(Fields::new(out).add("state", &settled.state).add("pushed", &settled.pushed)),
            Err(refused) => refused.pack(out),
        }
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        read_fields!(input, "a result", state, pushed, code, detail, retry_after_ms, reject);
        let state: Option<State> = state;
        Ok(match state {
            Some(state) => Ok(model::Settled { state, pushed }),
            None => Err(Refused { code, detail, retry_after_ms, reject }),
        })
    }
}

impl Pack for Result<model::Renewed, Refused> {
    fn pack(&self, out: &mut Vec<u8>) {
        match self {
            Ok(renewed) => drop(Fields::new(out).add("lease_until", &renewed.lease_until)),
            Err(refused) => refused.pack(out),
        }
    }

    fn unpack(input: &mut Input<'_>) -> Result<Self, Malformed> {
        read_fields!(input, "a result", lease_until, code, detail, retry_after_ms, reject);
        let lease_until: Option<Timestamp> = lease_until;
        Ok(match lease_until {
            Some(lease_until) => Ok(model::Renewed { lease_until }),
            None => Err(Refused { code, detail, retry_after_ms, reject }),
        })
    }
}
