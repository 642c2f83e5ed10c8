//! From an HTTP request to a session.

use super::session::{Arrival, Session};
use crate::{
    access::Caller,
    http::{
        app::App,
        extract::Known,
        problem::{self, Problem},
    },
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Version, header},
    response::Response,
};
use futures_util::{SinkExt, StreamExt};
use hyper_util::rt::TokioIo;
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};
use wire::{FromClient, FromServer, Input, Refused, put_message};

/// The socket of a stream.
pub(super) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// A client has this long to say hello.
const HELLO: Duration = Duration::from_secs(5);
/// And this long to take what is said to one that said something else.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes that a connection keeps for reading.
const READ_BUFFER: usize = 32 << 10;
/// Bytes of fields around the bodies of a message.
const AROUND: usize = 1 << 20;

/// GET /v1/stream
pub(crate) async fn open(
    State(app): State<App>,
    Known(caller): Known,
    request: Request,
) -> Result<Response, Problem> {
    let key = check(&request)?;
    let Ok(place) = Arc::clone(&app.streams.places).try_acquire_owned() else {
        let detail = "as many streams as are allowed are open";
        return Err(Problem::new(&problem::OVERLOADED, detail).retry_after(1_000));
    };
    let ours = protocols(request.headers()).any(|name| name == wire::SUBPROTOCOL);
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let _place = place;
        let Ok(upgraded) = upgrade.await else { return };
        let limit = message_bytes_max(&app);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(usize::MAX)
            .max_message_size(Some(limit))
            .max_frame_size(Some(limit));
        let socket =
            WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        greet(app, caller, socket).await;
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::try_from(derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if ours {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(wire::SUBPROTOCOL));
    }
    Ok(response)
}

/// Bytes of one message from a client: what a request may have, and what stands around it.
pub(super) fn message_bytes_max(app: &App) -> usize {
    app.rules.body_bytes_max.saturating_add(AROUND)
}

/// The handshake's key, if this is one.
fn check(request: &Request) -> Result<HeaderValue, Problem> {
    let headers = request.headers();
    let says = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(word))
    };
    let is_upgrade = request.version() == Version::HTTP_11
        && says(header::CONNECTION, "upgrade")
        && says(header::UPGRADE, "websocket")
        && says(header::SEC_WEBSOCKET_VERSION, "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_upgrade);
    key.cloned().ok_or_else(|| {
        Problem::new(
            &problem::BAD_REQUEST,
            "this is a WebSocket: connect by HTTP/1.1 with its handshake, version 13",
        )
    })
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// Tells a client what is wrong with its first message, and leaves.
async fn dismiss(mut socket: Socket, detail: &str) {
    let mut bye = Vec::new();
    put_message(&mut bye, 0, &FromServer::Bye(Refused::new("bad_request", detail)));
    let farewell = async {
        socket.send(Message::Binary(bye.into())).await?;
        socket.close(None).await
    };
    // Whoever does not listen hears nothing.
    let _ = timeout(FAREWELL, farewell).await;
}

/// Hears the hello, and hands the socket to the session that it belongs to.
async fn greet(app: App, caller: Caller, mut socket: Socket) {
    let first = loop {
        match timeout(HELLO, socket.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => break bytes,
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
            // Whoever does not speak the protocol needs no farewell.
            _ => return,
        }
    };
    let mut input = Input::new(&first);
    let hello = match wire::next::<FromClient>(&mut input) {
        Ok(Some((_, FromClient::Hello(hello)))) if hello.version > 0 => hello,
        Ok(_) => {
            return dismiss(socket, "the first message is hello, with the version that you speak: 1").await;
        }
        Err(error) => return dismiss(socket, &format!("hello: {error}")).await,
    };
    let worker = caller.worker(&hello.worker);
    let mut arrival = Box::new(Arrival { socket, caller, worker, hello, rest: input.rest() });
    if let Some(resume) = &arrival.hello.resume
        && let Some(session) = app.streams.find(&resume.session, &arrival.caller, &arrival.worker)
    {
        match session.send(arrival).await {
            Ok(()) => return,
            // It has ended meanwhile.
            Err(unheard) => arrival = unheard.0,
        }
    }
    Session::run(app, arrival).await;
}
