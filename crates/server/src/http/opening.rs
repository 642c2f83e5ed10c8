//! What the port answers while the pond behind it is being opened: it lives, and is not ready.

use super::{
    accept::Door,
    problem::{self, Problem},
    reply,
};
use axum::{
    body::Body,
    http::{HeaderValue, Request, Response, StatusCode, header},
    response::IntoResponse,
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Instant,
};

/// Callers at once; more wait in the queue of the socket.
const CALLERS_MAX: usize = 64;
/// After an error of the socket.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers probes until `opening` resolves. One request a connection: the next one meets the pond.
pub(crate) async fn answer_while<T>(
    listener: &TcpListener,
    door: &Door,
    opening: impl Future<Output = T>,
) -> T {
    let began = Instant::now();
    let places = Arc::new(Semaphore::new(CALLERS_MAX));
    let accepting = async {
        loop {
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let door = door.clone();
                    tokio::spawn(async move {
                        // Whoever is slower than this has no answer to wait for.
                        let _ =
                            tokio::time::timeout(door.header_timeout, receive(stream, &door, began)).await;
                        drop(place);
                    });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    };
    tokio::select! {
        opened = opening => opened,
        () = accepting => unreachable!("it accepts for ever"),
    }
}

async fn receive(stream: TcpStream, door: &Door, began: Instant) {
    match &door.tls {
        None => host(stream, door, began).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                host(stream, door, began).await;
            }
        }
    }
}

async fn host(stream: impl AsyncRead + AsyncWrite + Unpin, door: &Door, began: Instant) {
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(request.uri().path(), began.elapsed()))
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(door.header_timeout).keep_alive(false);
    // A caller that breaks off is not missed.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

fn answer(path: &str, since: Duration) -> Response<Body> {
    let reason = format!("the data directory is being opened, for {:.1} s so far", since.as_secs_f64());
    match path {
        "/livez" => reply::object(StatusCode::OK, 32, |out| out.field("live", true)),
        "/readyz" => reply::object(StatusCode::SERVICE_UNAVAILABLE, 128, |out| {
            out.field("ready", false);
            out.field("reason", reason.as_str());
        }),
        _ => {
            let mut response = Problem::new(&problem::STARTING, reason).retry_after(1_000).into_response();
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn while_a_pond_opens_its_port_lives_and_is_not_ready() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let door = Door {
            header_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(10),
            connections_max: 1,
            per_address_max: 0,
            streams_max: 1,
            drain: Duration::ZERO,
            tls: None,
        };
        let asked = async {
            for (path, expected) in [
                ("/livez", ["HTTP/1.1 200", "\"live\":true"]),
                ("/readyz", ["HTTP/1.1 503", "\"reason\":\"the data directory is being opened"]),
                ("/v1/queues", ["HTTP/1.1 503", "\"code\":\"starting\""]),
            ] {
                let answer = get(address, path).await;
                assert!(expected.iter().all(|part| answer.contains(part)), "{path}: {answer}");
                assert!(answer.contains("connection: close"), "{answer}");
            }
            "opened"
        };
        assert_eq!(answer_while(&listener, &door, asked).await, "opened");
    }
}
