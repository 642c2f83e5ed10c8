//! The thread of a link: connects, writes, reads, notices when the other side is gone, and connects again.

use super::link::{Shared, State, millis};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use kit::Backoff;
use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Error as WsError, Message,
        client::IntoClientRequest,
        http::{HeaderValue, StatusCode, header},
        protocol::WebSocketConfig,
    },
};
use wire::{FromClient, FromServer, Hello, Input, Refused, Welcome, put_message};

type Socket = WebSocketStream<Transport>;
/// TCP, or TLS over it.
type Transport = Box<dyn Io>;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection must be there within this.
const CONNECT: Duration = Duration::from_secs(1);
/// Between attempts: a random time below a doubling cap, so that not all clients of a server come back at once.
const AGAIN: Backoff = Backoff::Exponential { base: 50, cap: 1_000 };
/// At the end, what is written has this long to leave.
const FAREWELL: Duration = Duration::from_secs(2);

pub(super) fn spawn(shared: Arc<Shared>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let run = move || runtime.block_on(run(&shared));
    std::thread::Builder::new().name("millpond-link".into()).spawn(run).map(drop)
}

/// Why there is no connection.
enum Trouble {
    /// Try again.
    Now(String),
    /// It would be the same again.
    Always(Refused),
}

async fn run(shared: &Shared) {
    let seed = u64::from(std::process::id())
        ^ millis(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
    let (mut failures, mut calls) = (0, 0);
    loop {
        if shared.state().closing {
            break;
        }
        let why = match timeout(CONNECT, connect(shared)).await {
            Ok(Ok((sink, stream, welcome, rest))) => {
                failures = 0;
                let heartbeat = Duration::from_millis(welcome.heartbeat_ms);
                shared.state().welcome(welcome);
                shared.changed.notify_waiters();
                shared.wake.notify_one();
                let why = talk(shared, sink, stream, rest, heartbeat).await;
                if shared.state().closing {
                    break;
                }
                why
            }
            Ok(Err(Trouble::Now(why))) => why,
            Ok(Err(Trouble::Always(refused))) if shared.state().session.is_none() => {
                let mut state = shared.state();
                (state.closing, state.rejected) = (true, Some(refused));
                break;
            }
            Ok(Err(Trouble::Always(refused))) => format!("{}: {}", refused.code, refused.detail),
            Err(_) => format!("{} does not answer", shared.address),
        };
        {
            let mut state = shared.state();
            state.down(why);
            state.give_up(Some(shared.options.patience));
        }
        shared.changed.notify_waiters();
        calls += 1;
        failures += 1;
        // The first attempt follows at once: mostly a connection was cut, and the server is there.
        let wait = if failures == 1 { seed % 20 } else { 5 + AGAIN.delay(failures - 1, seed ^ calls) };
        let again = Instant::now() + Duration::from_millis(wait);
        while let left = again.saturating_duration_since(Instant::now())
            && !left.is_zero()
            && !shared.state().closing
        {
            // New requests wake, too; they wait for the connection.
            let _ = timeout(left, shared.wake.notified()).await;
        }
    }
    let mut state = shared.state();
    state.down("the pond was closed".into());
    state.give_up(None);
    (state.closing, state.ended) = (true, true);
    drop(state);
    shared.changed.notify_waiters();
}

type Connected = (SplitSink<Socket, Message>, SplitStream<Socket>, Welcome, Bytes);

async fn connect(shared: &Shared) -> Result<Connected, Trouble> {
    let address = &shared.address;
    let now = |what: &dyn std::fmt::Display| Trouble::Now(format!("{address}: {what}"));
    let tcp = TcpStream::connect((address.bare_host(), address.port)).await.map_err(|error| now(&error))?;
    // Without it small messages wait for acknowledgements of larger ones.
    tcp.set_nodelay(true).map_err(|error| now(&error))?;
    let transport = transport(shared, tcp).await?;
    // The scheme of a socket that may have TLS already is never looked at.
    let url = format!("ws://{address}{}", wire::PATH);
    let mut request = url.into_client_request().map_err(|error| now(&error))?;
    let headers = request.headers_mut();
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(wire::SUBPROTOCOL));
    if let Some(token) = &shared.options.token {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let value = value.map_err(|_| {
            Trouble::Always(Refused::new("unauthorized", "the token has characters that no token has"))
        })?;
        headers.insert(header::AUTHORIZATION, value);
    }
    let config = WebSocketConfig::default()
        .write_buffer_size(0)
        .max_message_size(Some(wire::TO_CLIENT_BYTES_MAX))
        .max_frame_size(Some(wire::TO_CLIENT_BYTES_MAX));
    let (mut socket, _) = match client_async_with_config(request, transport, Some(config)).await {
        Ok(connected) => connected,
        Err(WsError::Http(response)) => {
            return Err(rejected(address, response.status(), response.body().as_deref()));
        }
        Err(error) => return Err(now(&error)),
    };
    let resume = shared.state().resume();
    let hello = Hello {
        version: wire::VERSION,
        worker: shared.name.clone(),
        client: concat!("millpond-rust ", env!("CARGO_PKG_VERSION")).into(),
        heartbeat_ms: millis(shared.options.heartbeat),
        resume,
        host: super::host().into(),
        pid: std::process::id().into(),
        labels: shared.options.labels.iter().map(Into::into).collect(),
    };
    let mut bytes = Vec::new();
    put_message(&mut bytes, 0, &FromClient::Hello(hello));
    socket.send(Message::Binary(bytes.into())).await.map_err(|error| now(&error))?;
    let first = loop {
        match socket.next().await {
            Some(Ok(Message::Binary(bytes))) => break bytes,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(_)) | None => return Err(now(&"the connection was closed before the welcome")),
            Some(Err(error)) => return Err(now(&error)),
        }
    };
    let mut input = Input::new(&first);
    match wire::next::<FromServer>(&mut input) {
        Ok(Some((_, FromServer::Welcome(welcome)))) => {
            let (sink, stream) = socket.split();
            Ok((sink, stream, welcome, input.rest()))
        }
        Ok(Some((_, FromServer::Bye(refused)))) => Err(Trouble::Always(refused)),
        _ => Err(now(&"what answers is no Millpond server")),
    }
}

#[cfg(not(feature = "tls"))]
async fn transport(_: &Shared, tcp: TcpStream) -> Result<Transport, Trouble> {
    Ok(Box::new(tcp))
}

#[cfg(feature = "tls")]
async fn transport(shared: &Shared, tcp: TcpStream) -> Result<Transport, Trouble> {
    let Some(tls) = &shared.tls else { return Ok(Box::new(tcp)) };
    let address = &shared.address;
    match tls.begin(address, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) if super::tls::is_mistrust(&error) => Err(Trouble::Always(Refused::new(
            "not_trusted",
            format!(
                "{address} shows a certificate that is not believed ({error}); name its authority's file as `ca`"
            ),
        ))),
        Err(error) => Err(Trouble::Now(format!("{address}: TLS: {error}"))),
    }
}

/// An answer other than the handshake's.
fn rejected(address: &super::address::Address, status: StatusCode, body: Option<&[u8]>) -> Trouble {
    let problem: Option<serde_json::Value> = body.and_then(|body| serde_json::from_slice(body).ok());
    let text = |name: &str| Some(problem.as_ref()?.get(name)?.as_str()?.to_owned());
    let code = text("code").unwrap_or_else(|| "bad_request".into());
    let detail = text("detail")
        .unwrap_or_else(|| format!("{address} answers {status}, which is no stream of Millpond"));
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Trouble::Now(format!("{code}: {detail}"))
    } else {
        Trouble::Always(Refused::new(&code, detail))
    }
}

/// Reads and writes until the connection ends; why it did.
async fn talk(
    shared: &Shared,
    mut sink: SplitSink<Socket, Message>,
    mut stream: SplitStream<Socket>,
    rest: Bytes,
    heartbeat: Duration,
) -> String {
    let heard = Cell::new(Instant::now());
    let writing = async {
        loop {
            shared.wake.notified().await;
            let (pieces, closing) = {
                let mut state = shared.state();
                if state.closing && !state.has_waiting() {
                    state.write(|out| put_message(out, 0, &FromClient::Bye(wire::Empty {})));
                }
                (std::mem::take(&mut state.pieces), state.closing)
            };
            for piece in pieces {
                sink.feed(Message::Binary(piece.into())).await.map_err(|error| error.to_string())?;
            }
            sink.flush().await.map_err(|error| error.to_string())?;
            if closing {
                let _ = timeout(FAREWELL, sink.close()).await;
                return Err::<(), _>("the pond was closed".to_owned());
            }
        }
    };
    let reading = async {
        hear(shared, &rest).map_err(|why| why.to_string())?;
        loop {
            match stream.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    heard.set(Instant::now());
                    hear(shared, &bytes)?;
                }
                Some(Ok(Message::Close(_))) | None => {
                    return Err::<(), _>("the server closed the connection".to_owned());
                }
                Some(Ok(_)) => heard.set(Instant::now()),
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    };
    let silence = heartbeat * 5 / 2;
    let beating = async {
        loop {
            sleep(heartbeat).await;
            if heard.get().elapsed() > silence {
                return Err::<(), _>(format!("nothing was heard for {} ms", silence.as_millis()));
            }
            let mut state = shared.state();
            state.ping();
            state.give_back_stale();
            drop(state);
            shared.wake.notify_one();
        }
    };
    tokio::select! {
        Err(why) = writing => why,
        Err(why) = reading => why,
        Err(why) = beating => why,
        else => "the connection ended".into(),
    }
}

/// What one message of the WebSocket says.
fn hear(shared: &Shared, bytes: &Bytes) -> Result<(), String> {
    let mut input = Input::new(bytes);
    let mut end = Ok(());
    let mut state = shared.state();
    loop {
        match wire::next::<FromServer>(&mut input) {
            Ok(None) => break,
            Ok(Some((id, message))) => {
                if let Err(why) = take(&mut state, id, message) {
                    end = Err(why);
                    break;
                }
            }
            Err(error) => {
                end = Err(format!("the server sent something that is no message: {error}"));
                break;
            }
        }
    }
    let (to_write, quiet) = (!state.pieces.is_empty(), !state.has_waiting());
    drop(state);
    if to_write {
        shared.wake.notify_one();
    }
    if quiet {
        shared.changed.notify_waiters();
    }
    end
}

fn take(state: &mut State, id: u64, message: FromServer) -> Result<(), String> {
    match message {
        FromServer::Jobs(jobs) => match state.feeds.get(&jobs.sub).cloned() {
            Some(feed) => {
                let unwanted = feed.receive(jobs.jobs);
                state.give_back(unwanted);
            }
            None => state.give_back(jobs.jobs),
        },
        FromServer::Revoked(revoked) => {
            for feed in state.feeds.values().filter(|feed| feed.worker == revoked.worker) {
                feed.tell_revoked(&revoked);
            }
        }
        FromServer::Stop(stop) => {
            state.feeds.values().filter(|feed| feed.worker == stop.worker).for_each(|feed| feed.stop());
        }
        FromServer::Ended(ended) => {
            if let Some(feed) = state.feeds.remove(&ended.sub) {
                feed.refuse(ended.why);
            }
        }
        FromServer::Bye(why) => return Err(format!("{}: {}", why.code, why.detail)),
        FromServer::Welcome(_) | FromServer::Pong(_) | FromServer::Drain(_) | FromServer::Unknown => {}
        answer => state.answer(id, answer),
    }
    Ok(())
}
