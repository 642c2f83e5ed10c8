//! One connection from hello to end: reads a line, does what it says, answers it.

use super::{
    accept::{HELLO, Hall},
    answer::{Answer, Refusal},
    hello::{self, Guest},
    lines::{Broken, Lines},
    work::Leases,
    workers,
};
use crate::{
    access::{Caller, Right},
    http::{App, reach},
    registry::Door,
};
use bytes::Bytes;
use model::{Actor, Command, Envelope, QueueName};
use node::{Answer as Done, CallError};
use std::{net::IpAddr, sync::atomic::Ordering::Relaxed};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

/// A client that said hello.
pub(super) struct Session<'h> {
    pub(super) hall: &'h Hall,
    pub(super) app: App,
    pub(super) caller: Caller,
    /// In whose name it pushes.
    actor: Actor,
    /// In whose name it works.
    pub(super) worker: Actor,
    /// It said that it is a worker process, and sends beats.
    pub(super) is_worker: bool,
    pub(super) leases: Leases,
}

/// Serves a connection until it ends.
pub(super) async fn host<S: AsyncRead + AsyncWrite + Unpin>(hall: &Hall, mut lines: Lines<S>, from: IpAddr) {
    match converse(hall, &mut lines, from).await {
        Ok(()) | Err(Broken::Gone(_)) => {}
        Err(broken) => {
            // The client hears of it if it listens.
            let _ = lines.answer(Answer::Error(Refusal::new(broken.to_string()))).await;
        }
    }
    lines.close().await;
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    hall: &Hall,
    lines: &mut Lines<S>,
    from: IpAddr,
) -> Result<(), Broken> {
    let app = &hall.app;
    lines.answer(Answer::Text(hello::greeting(app.keeper.asks()))).await?;
    let Ok(first) = timeout(HELLO, lines.next()).await else { return Err(Broken::TooSlow) };
    let Some(first) = first? else { return Ok(()) };
    let guest = match hello::admit(&first, &app.keeper, from) {
        Ok(guest) => guest,
        Err(refusal) => return lines.answer(Answer::Error(refusal)).await,
    };
    let mut session = Session::new(hall, guest, from);
    lines.answer(Answer::Ok).await?;
    let caller = session.caller.clone();
    let conversation = async {
        loop {
            let line = tokio::select! {
                biased;
                line = timeout(hall.idle, lines.next()) => line,
                () = app.stopping() => return Ok(()),
            };
            // Nothing for a long time: the client has forgotten us.
            let Ok(line) = line else { return Ok(()) };
            let Some(line) = line? else { return Ok(()) };
            hall.commands.fetch_add(1, Relaxed);
            let (verb, rest) = split(&line);
            if verb == b"END" {
                return lines.answer(Answer::Ok).await;
            }
            if verb == b"FETCH" {
                // A job for a client that has left goes to another one.
                let fetched = tokio::select! {
                    biased;
                    fetched = session.fetch(&rest) => fetched,
                    () = lines.gone() => return Ok(()),
                };
                let (answer, lease) = match fetched {
                    Ok(Some((job, lease))) => (Answer::Bulk(job), Some(lease)),
                    Ok(None) => (Answer::Nothing, None),
                    Err(refusal) => (Answer::Error(refusal), None),
                };
                let sent = lines.answer(answer).await;
                if let (Err(_), Some(lease)) = (&sent, lease) {
                    session.give_back(lease).await;
                }
                sent?;
                continue;
            }
            let answer = session.answer(verb, rest).await.unwrap_or_else(Answer::Error);
            lines.answer(answer).await?;
        }
    };
    tokio::select! {
        ended = conversation => ended,
        () = app.keeper.ended(&caller) => Ok(()),
    }
}

/// The verb of a line, and everything after the first space.
fn split(line: &Bytes) -> (&[u8], Bytes) {
    match line.iter().position(|byte| *byte == b' ') {
        Some(at) => (&line[..at], line.slice(at + 1..)),
        None => (line, Bytes::new()),
    }
}

impl<'h> Session<'h> {
    fn new(hall: &'h Hall, guest: Guest, from: IpAddr) -> Self {
        let Guest { caller, wid, about } = guest;
        let actor = caller.actor(None).unwrap_or_else(|| match from.is_loopback() {
            true => Actor::default(),
            false => Actor::new(&from.to_string()),
        });
        let worker = caller.worker(&workers::name(wid.as_deref()));
        let is_worker = wid.is_some();
        if is_worker {
            hall.app.registry.greet(&worker, Door::Faktory, &about);
        }
        Self { hall, app: hall.app.clone(), caller, actor, worker, is_worker, leases: Leases::default() }
    }

    async fn answer(&mut self, verb: &[u8], rest: Bytes) -> Result<Answer, Refusal> {
        self.hear();
        match verb {
            b"PUSH" => self.push(rest).await,
            b"PUSHB" => self.push_many(rest).await,
            b"ACK" => self.acknowledge(&rest).await,
            b"FAIL" => self.fail(&rest).await,
            b"BEAT" => self.heartbeat(&rest),
            b"INFO" => self.info().await,
            b"QUEUE" => self.queue_command(&rest).await,
            b"MUTATE" => self.mutate(&rest).await,
            b"TRACK" => self.track(&rest).await,
            b"FLUSH" => self.flush().await,
            _ => {
                let verb: String = String::from_utf8_lossy(verb).chars().take(32).collect();
                Err(Refusal::new(format!("unknown command {verb}")))
            }
        }
    }

    /// Refuses what the client's token is not for.
    pub(super) fn check(&self, right: Right) -> Result<(), Refusal> {
        if self.caller.may(right) {
            return Ok(());
        }
        Err(Refusal::new(format!("this needs the right to {}, which the token has not", right.name())))
    }

    /// The same for a queue that the client names.
    pub(super) fn queue(&self, name: &str) -> Result<QueueName, Refusal> {
        let queue = QueueName::new(name)?;
        reach::check(&self.caller, &queue)?;
        Ok(queue)
    }

    /// A command that stays within the client's reach, in its name.
    pub(super) async fn envelope(&self, command: Command) -> Result<Envelope, Refusal> {
        let working = matches!(
            command,
            Command::Fetch { .. } | Command::Settle { .. } | Command::Renew { .. } | Command::Progress { .. }
        );
        let command = reach::confine(&self.caller, &self.app.node, command).await?;
        let actor = if working { self.worker.clone() } else { self.actor.clone() };
        Ok(Envelope { actor, idempotency_key: None, command })
    }

    pub(super) async fn call(&self, command: Command) -> Result<Done, Refusal> {
        let envelope = self.envelope(command).await?;
        Ok(self.app.node.call(envelope, self.app.rules.durability).await?)
    }

    /// What the pond answers where it has nothing to refuse.
    pub(super) fn mismatched() -> Refusal {
        CallError::Unknown { reason: "the pond gave an answer of the wrong kind; please report this".into() }
            .into()
    }
}
