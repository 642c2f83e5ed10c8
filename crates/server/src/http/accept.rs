//! The accept loop: connections with limits and time-outs, HTTP/1.1 and HTTP/2 on the same port, under TLS if there is a certificate.

use super::{
    app::App,
    crowd::{Crowd, Member},
    extract::Peer,
    patience::Patient,
    routes,
};
use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
};
use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

/// What a connection may cost.
#[derive(Clone)]
pub struct Door {
    /// A request's head must have arrived within this; an idle connection is closed after it.
    pub header_timeout: Duration,
    /// A client that takes nothing of an answer for so long is cut off.
    pub send_timeout: Duration,
    /// Connections at once; one more is answered 503 and closed.
    pub connections_max: usize,
    /// Connections at once of one address; 0 for any number.
    pub per_address_max: usize,
    /// HTTP/2 requests at once on one connection.
    pub streams_max: u32,
    /// After the signal to stop, requests under way have this long to end.
    pub drain: Duration,
    /// Connections are under TLS.
    pub tls: Option<TlsAcceptor>,
}

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// How often a quiet HTTP/2 connection is asked whether it is alive, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);
/// The longest pause of the accept loop when file descriptors run out.
const PAUSE_MAX: Duration = Duration::from_secs(1);
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Takes connections until `stop` resolves, then drains. True if everything under way ended in time.
pub async fn serve_connections(
    listener: TcpListener,
    app: App,
    door: Door,
    stop: impl Future<Output = ()>,
) -> bool {
    let hall = Hall {
        router: routes::router(&app),
        builder: builder(&door),
        graceful: GracefulShutdown::new(),
        crowd: Crowd::new(door.per_address_max),
        places: Arc::new(Semaphore::new(door.connections_max)),
        app: app.clone(),
        header_timeout: door.header_timeout,
        send_timeout: door.send_timeout,
        tls: door.tls.clone(),
    };
    let mut stop = pin!(stop);
    let mut pause = Duration::ZERO;
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = Duration::ZERO;
                hall.welcome(stream, peer);
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                // Mostly EMFILE: the connection stays in the queue, and accepting again at once would spin.
                pause = (pause * 2).clamp(Duration::from_millis(10), PAUSE_MAX);
                tracing::warn!(%error, ?pause, "cannot take connections");
                tokio::select! {
                    () = &mut stop => break,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }
    drop(listener);
    app.begin_stop();
    let ended = async {
        hall.graceful.shutdown().await;
        app.streams.ended().await;
    };
    tokio::time::timeout(door.drain, ended).await.is_ok()
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn builder(door: &Door) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(door.header_timeout)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(door.streams_max)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}

struct Hall {
    router: Router,
    builder: Builder<TokioExecutor>,
    graceful: GracefulShutdown,
    crowd: Arc<Crowd>,
    places: Arc<Semaphore>,
    app: App,
    header_timeout: Duration,
    send_timeout: Duration,
    tls: Option<TlsAcceptor>,
}

impl Hall {
    fn welcome(&self, stream: TcpStream, peer: SocketAddr) {
        let metrics = &self.app.metrics;
        metrics.connections_total.fetch_add(1, Relaxed);
        let member = self.crowd.enter(peer.ip());
        let (Some(member), Ok(place)) = (member, Arc::clone(&self.places).try_acquire_owned()) else {
            metrics.connections_refused.fetch_add(1, Relaxed);
            if self.tls.is_none() {
                // The socket's buffer is empty, so this either fits at once or is not worth waiting for.
                let _ = stream.try_write(FULL);
            }
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let guest = Guest {
            router: self.router.clone(),
            builder: self.builder.clone(),
            graceful: self.graceful.watcher(),
            app: self.app.clone(),
            header_timeout: self.header_timeout,
            peer: Peer(peer.ip()),
            _place: (member, place),
        };
        let Some(tls) = self.tls.clone() else {
            tokio::spawn(guest.host(Patient::new(stream, self.send_timeout)));
            return;
        };
        let stream = Patient::new(stream, self.send_timeout);
        tokio::spawn(async move {
            match tokio::time::timeout(guest.header_timeout, tls.accept(stream)).await {
                Ok(Ok(stream)) => guest.host(stream).await,
                Ok(Err(error)) => tracing::debug!(%error, %peer, "no TLS came about"),
                Err(_) => tracing::debug!(%peer, "no TLS came about in time"),
            }
        });
    }
}

/// What one connection needs to be served.
struct Guest {
    router: Router,
    builder: Builder<TokioExecutor>,
    graceful: Watcher,
    app: App,
    header_timeout: Duration,
    peer: Peer,
    _place: (Member, OwnedSemaphorePermit),
}

impl Guest {
    async fn host(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let asked = Arc::new(AtomicBool::new(false));
        let (router, flag, peer) = (self.router.clone(), Arc::clone(&asked), self.peer);
        let service = service_fn(move |request: Request<Incoming>| {
            flag.store(true, Relaxed);
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            router.clone().call(request)
        });
        let connection =
            self.builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        let connection = self.graceful.watch(connection);
        {
            let app = &self.app;
            app.metrics.connections.fetch_add(1, Relaxed);
            let mut connection = pin!(connection);
            let mut silence = pin!(tokio::time::sleep(self.header_timeout));
            let mut watched = true;
            let ended = loop {
                tokio::select! {
                    ended = &mut connection => break ended,
                    // Before the first bytes nobody knows the version, so hyper's own time-out does not run yet.
                    () = &mut silence, if watched => {
                        if !asked.load(Relaxed) {
                            break Ok(());
                        }
                        watched = false;
                    }
                }
            };
            app.metrics.connections.fetch_sub(1, Relaxed);
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        }
    }
}
