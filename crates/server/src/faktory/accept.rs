//! The accept loop of this door: connections with limits, under TLS if the server has a certificate.

use super::{
    lines::{Limits, Lines},
    session, workers,
};
use crate::http::{App, Crowd, Patient};
use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;

/// What a connection may cost, and what clients may do here.
#[derive(Clone)]
pub(crate) struct Gate {
    /// Connections are under TLS.
    pub(crate) tls: Option<TlsAcceptor>,
    /// A client that takes nothing of an answer for so long is cut off.
    pub(crate) send_timeout: Duration,
    /// A client that sends nothing for so long is sent away.
    pub(crate) idle: Duration,
    /// They may empty the pond.
    pub(crate) flush: bool,
    /// Connections at once.
    pub(crate) connections_max: usize,
    /// Connections at once of one address; 0 for any number.
    pub(crate) per_address_max: usize,
    /// After the signal to stop, commands under way have this long to end.
    pub(crate) drain: Duration,
}

/// A client has this long to make TLS come about, and as long again to say hello.
pub(super) const HELLO: Duration = Duration::from_secs(5);
/// How long the loop pauses when file descriptors run out.
const PAUSE: Duration = Duration::from_millis(100);

/// What all connections share.
pub(super) struct Hall {
    pub(super) app: App,
    pub(super) idle: Duration,
    pub(super) flush: bool,
    pub(super) since: Instant,
    pub(super) connections: AtomicU64,
    pub(super) commands: AtomicU64,
}

/// Takes connections until `stop` resolves, then drains. True if everything under way ended in time.
pub(crate) async fn serve(
    listener: TcpListener,
    app: App,
    gate: Gate,
    stop: impl Future<Output = ()>,
) -> bool {
    let hall = Arc::new(Hall {
        idle: gate.idle,
        flush: gate.flush,
        since: Instant::now(),
        connections: AtomicU64::new(0),
        commands: AtomicU64::new(0),
        app,
    });
    let reaper = Arc::clone(&hall);
    tokio::spawn(async move {
        tokio::select! {
            () = workers::keep(&reaper.app) => {}
            () = reaper.app.stopping() => {}
        }
    });
    let limits = Limits {
        bytes_max: hall.app.rules.body_bytes_max,
        timeout: hall.app.rules.body_timeout,
        room: Arc::clone(&hall.app.bodies),
    };
    // More than a semaphore can count is no limit.
    let most = u32::try_from(gate.connections_max.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
    let places = Arc::new(Semaphore::new(most as usize));
    let crowd = Crowd::new(gate.per_address_max);
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Mostly EMFILE: the connection stays in the queue, and accepting again at once would spin.
                tracing::warn!(%error, "cannot take Faktory clients");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (Some(member), Ok(place)) = (crowd.enter(peer.ip()), Arc::clone(&places).try_acquire_owned())
        else {
            let _ = stream.try_write(b"-ERR too many connections\r\n");
            continue;
        };
        let (hall, gate, limits) = (Arc::clone(&hall), gate.clone(), limits.clone());
        tokio::spawn(async move {
            let _place = (member, place);
            welcome(&hall, gate, limits, stream, peer).await;
        });
    }
    drop(listener);
    tokio::time::timeout(gate.drain, places.acquire_many(most)).await.is_ok()
}

async fn welcome(hall: &Hall, gate: Gate, limits: Limits, stream: TcpStream, peer: SocketAddr) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let stream = Patient::new(stream, gate.send_timeout);
    hall.connections.fetch_add(1, Relaxed);
    match gate.tls {
        None => session::host(hall, Lines::new(stream, limits), peer.ip()).await,
        Some(tls) => match tokio::time::timeout(HELLO, tls.accept(stream)).await {
            Ok(Ok(stream)) => session::host(hall, Lines::new(stream, limits), peer.ip()).await,
            Ok(Err(error)) => tracing::debug!(%error, %peer, "no TLS came about"),
            Err(_) => tracing::debug!(%peer, "no TLS came about in time"),
        },
    }
    hall.connections.fetch_sub(1, Relaxed);
}
