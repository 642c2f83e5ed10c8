//! The process around a pond: opens it, serves it, and ends it well.

use crate::{
    access::{Keeper, TokenFileError},
    config::{Config, LogFormat},
    faktory::{self, Gate},
    http::{App, Door, Rules, answer_while, serve_connections},
    memory,
    tls::{Certificate, TlsError},
};
use node::{Handle, OpenError, Options};
use std::{
    io::{self, Write as _},
    net::SocketAddr,
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use storage::{AtRest, KeyId, at_rest::Encryption};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinError, JoinHandle},
};
use tokio_rustls::TlsAcceptor;

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// Asked to, with everything answered, flushed and closed.
    Drained,
    /// Asked to, but something under way had to be cut off at the deadline. Nothing acknowledged is lost.
    CutOff,
    /// Asked twice: it ended at once. Nothing acknowledged is lost.
    Interrupted,
}

impl ExitReason {
    /// What the process should end with.
    pub fn exit_code(self) -> u8 {
        match self {
            ExitReason::Drained => 0,
            ExitReason::CutOff => 1,
            ExitReason::Interrupted => 130,
        }
    }
}

/// Why a server did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory could not be opened.
    #[error("data directory {path}: {source}")]
    Open {
        /// Which.
        path: String,
        /// Why not.
        source: OpenError,
    },
    /// The tokens cannot be used.
    #[error("tokens: {0}; `millpond token list` checks the file")]
    Tokens(#[from] TokenFileError),
    /// The certificate cannot be used.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// The address could not be taken.
    #[error("cannot listen on {address}: {source}; is another server running? choose another with --listen")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Signals cannot be heard.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// The log failed while serving. Everything acknowledged is on the disk; a restart goes on from there.
    #[error("the log failed ({0}); nothing more is acknowledged. Check the disk, then start again")]
    Poisoned(String),
    /// The serving task broke.
    #[error("the server broke: {0}; please report this")]
    Broken(#[from] JoinError),
}

impl ServeError {
    /// What the process should end with: 3 where the data directory is the reason, 1 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            ServeError::Open { .. } => 3,
            ServeError::Tokens(_) | ServeError::Tls(_) => 2,
            ServeError::Listen { .. }
            | ServeError::Signals(_)
            | ServeError::Poisoned(_)
            | ServeError::Broken(_) => 1,
        }
    }
}

/// A server that runs in this process: `serve` is one with signals, tests and the demo start their own.
pub struct Server {
    addr: SocketAddr,
    faktory: Option<SocketAddr>,
    node: Handle,
    files: Files,
    stop: watch::Sender<bool>,
    task: JoinHandle<bool>,
    drain: Duration,
}

impl Server {
    /// Opens the pond and begins to listen. Needs a tokio runtime with time and I/O.
    pub async fn start(config: &Config) -> Result<Server, ServeError> {
        let files = Files { keeper: Arc::new(keeper(config)?), certificate: certificate(config)? };
        let door = door(config, files.certificate.as_ref())?;
        let (listener, addr) = listen(config.listen).await?;
        // Clients that come now wait until the pond is open.
        let for_faktory = match config.faktory {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let own = config.clone();
        let memory = memory::limit(config.memory_limit.0);
        if let Some(memory) = memory {
            tracing::info!("memory: this server gets along with {} MiB", memory >> 20);
        }
        let opening = tokio::task::spawn_blocking(move || open(&own, memory));
        let node = answer_while(&listener, &door, opening).await??;
        let app = App::new(node.clone(), rules(config).within(memory), Arc::clone(&files.keeper));
        let sampler = app.clone();
        tokio::spawn(async move { sampler.sample_rates().await });
        let watcher = app.clone();
        tokio::spawn(async move { watcher.watch_memory().await });
        if !config.memory {
            let (watcher, folder, low) = (app.clone(), config.data.clone(), config.disk_low.0);
            tokio::spawn(async move { watcher.watch_disk(folder, low).await });
        }
        let (watched, watcher) = (files.clone(), app.clone());
        tokio::spawn(async move { watched.watch(&watcher).await });
        let (stop, stopped) = watch::channel(false);
        let until = |mut stopped: watch::Receiver<bool>| async move {
            // An error says that the Server was dropped: that is a wish to stop too.
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        let gate = gate(config, &door);
        let (faktory, second) = match for_faktory {
            Some((listener, addr)) => {
                let serving = faktory::serve(listener, app.clone(), gate, until(stopped.clone()));
                (Some(addr), tokio::spawn(serving))
            }
            None => (None, tokio::spawn(std::future::ready(true))),
        };
        let first = serve_connections(listener, app, door, until(stopped));
        let task = tokio::spawn(async move { first.await & second.await.unwrap_or(false) });
        Ok(Server { addr, faktory, node, files, stop, task, drain: config.drain.into() })
    }

    /// Where it listens; the real port where 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://…` of the same, or `https://…`.
    pub fn url(&self) -> String {
        let scheme = if self.files.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    /// Where it serves Faktory clients, if it does.
    pub fn faktory_addr(&self) -> Option<SocketAddr> {
        self.faktory
    }

    /// The pond behind it.
    pub fn handle(&self) -> &Handle {
        &self.node
    }

    /// Reads tokens and certificate again, as they are read by themselves soon after their files have changed.
    pub fn reload(&self) {
        self.files.reload();
    }

    /// Takes no more connections, answers what is under way, flushes and closes.
    pub async fn stop(self) -> Result<ExitReason, ServeError> {
        self.stop.send_replace(true);
        let drained = self.task.await?;
        match self.node.stop(self.drain.max(Duration::from_secs(1))).await {
            Ok(()) if drained => Ok(ExitReason::Drained),
            Ok(()) => Ok(ExitReason::CutOff),
            Err(error) => Err(ServeError::Poisoned(error.to_string())),
        }
    }
}

/// How often files that may change are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// What is read again while the server runs.
#[derive(Debug, Clone)]
struct Files {
    keeper: Arc<Keeper>,
    certificate: Option<Arc<Certificate>>,
}

impl Files {
    async fn watch(&self, app: &App) {
        let mut ticks = tokio::time::interval(WATCH_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let watched = async {
            loop {
                ticks.tick().await;
                self.keeper.refresh();
                self.certificate.iter().for_each(|certificate| certificate.refresh());
            }
        };
        tokio::select! {
            () = watched => {}
            () = app.stopping() => {}
        }
    }

    fn reload(&self) {
        self.keeper.reload();
        self.certificate.iter().for_each(|certificate| certificate.reload());
    }
}

fn certificate(config: &Config) -> Result<Option<Arc<Certificate>>, TlsError> {
    let (cert, key) = (&config.tls_cert, &config.tls_key);
    if cert.as_os_str().is_empty() {
        return Ok(None);
    }
    Certificate::read(cert, key).map(|certificate| Some(Arc::new(certificate)))
}

fn keeper(config: &Config) -> Result<Keeper, TokenFileError> {
    let own = (!config.token.is_empty()).then_some(&config.token);
    let file = &config.tokens_file;
    Keeper::new(own, (!file.as_os_str().is_empty()).then_some(file))
}

fn open(config: &Config, memory: Option<u64>) -> Result<Handle, ServeError> {
    let options = Options {
        pending_max: config.pending_max.get(),
        pending_bytes_max: usize::try_from(config.pending_bytes_max.0).unwrap_or(usize::MAX),
        flush_window_ms: config.flush_window.0,
        body_budget: config.body_budget.0,
        wait_ms_max: config.wait_max.0,
        waiters_max: config.waiters_max.get(),
        at_rest: at_rest(config),
        ..Options::default()
    };
    let options = match memory {
        Some(memory) => options.within(memory),
        None => options,
    };
    let path = if config.memory { "(memory)".to_owned() } else { config.data.display().to_string() };
    let opened = if config.memory { Handle::in_memory(options) } else { Handle::open(&config.data, options) };
    let node = opened.map_err(|source| ServeError::Open { path, source })?;
    if !config.memory {
        tell_encryption(&config.encryption_key.ids(), node.encryption());
    }
    Ok(node)
}

/// How the data directory of this configuration is compressed and encrypted.
pub fn at_rest(config: &Config) -> AtRest {
    AtRest {
        keys: config.encryption_key.clone(),
        compress_from: usize::try_from(config.compress_from.0).unwrap_or(usize::MAX),
        dictionaries: config.compress_dictionaries,
        compress_log_from: usize::try_from(config.compress_log_from.0).unwrap_or(usize::MAX),
        ..AtRest::default()
    }
}

/// Says what encrypts, and what was left behind.
fn tell_encryption(keys: &[KeyId], found: Option<&Encryption>) {
    let Some(current) = keys.first() else { return };
    tracing::info!("new data is encrypted with key {current}");
    let Some(found) = found else { return };
    if found.plain {
        tracing::warn!(
            "older data in the directory is not encrypted: stop the server and run `millpond key rotate`"
        );
    }
    for former in found.keys.iter().filter(|key| *key != current) {
        tracing::warn!(
            "older data is encrypted with key {former}, which is needed until `millpond key rotate` has run"
        );
    }
}

/// What HTTP obeys in this configuration.
pub(crate) fn rules(config: &Config) -> Rules {
    Rules {
        loopback: config.listen.ip().is_loopback(),
        hosts: config.hosts.0.clone(),
        durability: if config.memory { kit::Durability::Memory } else { config.durability },
        body_bytes_max: usize::try_from(config.body_max.0).unwrap_or(usize::MAX),
        memory: None,
        body_timeout: config.body_timeout.into(),
        wait_ms_max: config.wait_max.0,
    }
}

fn door(config: &Config, certificate: Option<&Arc<Certificate>>) -> Result<Door, TlsError> {
    let tls = certificate.map(Certificate::config).transpose()?;
    Ok(Door {
        tls: tls.map(|config| TlsAcceptor::from(Arc::new(config))),
        header_timeout: config.header_timeout.into(),
        send_timeout: config.send_timeout.into(),
        connections_max: config.connections_max.get(),
        per_address_max: config.connections_per_address.get(),
        streams_max: u32::try_from(config.streams_max.0).unwrap_or(u32::MAX),
        drain: config.drain.into(),
    })
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let shown = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(shown)?;
    let addr = listener.local_addr().map_err(shown)?;
    Ok((listener, addr))
}

/// The same limits for the other door.
fn gate(config: &Config, door: &Door) -> Gate {
    Gate {
        tls: door.tls.clone(),
        send_timeout: door.send_timeout,
        idle: config.faktory_idle.into(),
        flush: config.faktory_flush,
        connections_max: door.connections_max,
        per_address_max: door.per_address_max,
        drain: door.drain,
    }
}

/// How often the pond is asked whether its log still works.
const HEALTH_EVERY: Duration = Duration::from_millis(500);

/// Serves until `shutdown` resolves; ends at once if it resolves a second time.
pub async fn serve<S, F>(config: &Config, mut shutdown: S) -> Result<ExitReason, ServeError>
where
    S: FnMut() -> F,
    F: Future<Output = ()>,
{
    let mut asked = pin!(shutdown());
    let server = tokio::select! {
        biased;
        // Opening a directory may be cut short at any place, and was not answered by anything yet.
        () = &mut asked => return Ok(ExitReason::Drained),
        server = Server::start(config) => server?,
    };
    announce(config, &server);
    let node = server.handle().clone();
    tokio::select! {
        () = asked => {}
        () = reload_on_hangup(&server) => {}
        reason = poisoned(&node) => return Err(ServeError::Poisoned(reason)),
    }
    tracing::info!("stopping: requests under way are answered first");
    tokio::select! {
        ended = server.stop() => ended,
        () = shutdown() => Ok(ExitReason::Interrupted),
    }
}

/// SIGHUP reads files again; it never ends.
#[cfg(unix)]
async fn reload_on_hangup(server: &Server) {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::hangup()) {
        Ok(mut hangups) => {
            while hangups.recv().await.is_some() {
                server.reload();
            }
        }
        Err(error) => tracing::warn!("SIGHUP is not heard: {error}"),
    }
    std::future::pending().await
}

#[cfg(not(unix))]
async fn reload_on_hangup(_: &Server) {
    std::future::pending().await
}

async fn poisoned(node: &Handle) -> String {
    loop {
        tokio::time::sleep(HEALTH_EVERY).await;
        if node.stats().poisoned {
            return node.unready().unwrap_or_else(|| "a write failed".to_owned());
        }
    }
}

fn announce(config: &Config, server: &Server) {
    let data = if config.memory { "memory".to_owned() } else { config.data.display().to_string() };
    let level = if config.memory { kit::Durability::Memory } else { config.durability };
    // Somebody who closed our stdout still wants a server.
    let _ = writeln!(io::stdout(), "listening on {}, data in {data}, durability {level}", server.url());
    if let Some(address) = server.faktory_addr() {
        let scheme = if server.files.certificate.is_some() { "tcp+tls" } else { "tcp" };
        let _ = writeln!(io::stdout(), "Faktory clients: FAKTORY_URL={scheme}://{address}");
    }
    let _ = io::stdout().flush();
}

/// Runs a server on threads of its own until SIGINT or SIGTERM; the whole of `millpond serve` once its configuration is
/// known. Prints its errors.
pub fn run(config: &Config) -> ExitCode {
    start_logging(config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads(config))
        .thread_name("millpond-http")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start threads: {error}"), 1),
    };
    let ended = runtime.block_on(until_signal(config));
    runtime.shutdown_background();
    match ended {
        Ok(reason) => ExitCode::from(reason.exit_code()),
        Err(error) => fail(&error.to_string(), error.exit_code()),
    }
}

#[cfg(unix)]
async fn until_signal(config: &Config) -> Result<ExitReason, ServeError> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let (sender, receiver) = watch::channel(0u32);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                Some(()) = interrupt.recv() => {}
                Some(()) = terminate.recv() => {}
                else => break,
            }
            sender.send_modify(|count| *count += 1);
        }
    });
    let mut seen = 0;
    serve(config, || {
        seen += 1;
        let (mut receiver, wanted) = (receiver.clone(), seen);
        async move {
            if receiver.wait_for(|count| *count >= wanted).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    })
    .await
}

#[cfg(not(unix))]
async fn until_signal(config: &Config) -> Result<ExitReason, ServeError> {
    serve(config, || async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
    .await
}

/// Two threads carry more than the shard can take; one is enough on one core.
fn threads(config: &Config) -> usize {
    match config.threads.get() {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(2)),
        wanted => wanted.min(256),
    }
}

fn start_logging(config: &Config) {
    let ansi = io::IsTerminal::is_terminal(&io::stderr());
    let lines = tracing_subscriber::fmt()
        .with_max_level(config.log)
        .with_writer(io::stderr)
        .with_ansi(ansi)
        .with_target(false);
    // An error says that somebody set one before, as tests may: theirs stays.
    let _ = match config.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

fn fail(text: &str, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "millpond: {text}");
    ExitCode::from(code)
}
