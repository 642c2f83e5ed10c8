//! A small typed client of the HTTP API, over one pool of kept-alive connections.
//!
//! It knows the wire and nothing of terminals. Nothing here retries by itself: after a lost connection the
//! outcome is unknown, and only the caller knows whether its call carries an idempotency key.

mod answers;
mod backup;
mod calls;
mod events;

pub(crate) use answers::*;
pub(crate) use calls::{LeaseCall, OutcomeCall, OutcomesCall, raw_json};
pub(crate) use events::ServerEvent;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kit::Millis;
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use std::{path::Path, time::Duration};
use workers::endpoint::innermost;

/// The largest answer that is read: a page of jobs with bodies of 1 MiB.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// How long a call may take beyond the wait that it asks for.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the server is was not understood.
#[derive(Debug, thiserror::Error)]
#[error("{url:?} is no address of a server: {reason}; expected something like http://127.0.0.1:7077")]
pub(crate) struct BadUrl {
    url: String,
    reason: String,
}

/// Why a call has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// Nobody listens: nothing was sent.
    #[error("cannot reach a server at {url}: {reason}")]
    Unreachable { url: String, reason: String },
    /// The connection broke or the time ran out: the call may or may not have happened.
    #[error("no answer from {url}: {reason}; the outcome is unknown")]
    NoAnswer { url: String, reason: String },
    /// The server understood and said no; nothing changed.
    #[error("{0}")]
    Refused(Problem),
    /// The answer is not one of this API.
    #[error("{url} does not answer like a Millpond server: {reason}")]
    Foreign { url: String, reason: String },
}

impl ClientError {
    /// How long to wait before the same call is worth repeating, if it is at all. Safe only for calls that
    /// change nothing or carry an idempotency key.
    pub(crate) fn retry_after_ms(&self) -> Option<Millis> {
        match self {
            Self::Unreachable { .. } | Self::NoAnswer { .. } => Some(250),
            Self::Refused(problem) if matches!(problem.status, 429 | 502..=504 | 507) => {
                Some(problem.retry_after_ms.unwrap_or(1_000).clamp(10, 60_000))
            }
            Self::Refused(problem) if problem.status == 500 => Some(1_000),
            Self::Refused(_) | Self::Foreign { .. } => None,
        }
    }

    /// The stable code of a refusal.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => Some(&problem.code),
            _ => None,
        }
    }
}

/// What a call carries beside its body.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extras<'a> {
    /// Makes the call safe to repeat.
    pub(crate) idempotency_key: Option<&'a str>,
    /// `memory`, `os`, `disk` or `quorum`; the server's default if absent.
    pub(crate) durability: Option<&'a str>,
    /// How much longer than usual the answer may take, for long polls.
    pub(crate) patience: Duration,
}

/// A client of one server. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub(crate) struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    base: String,
    headers: HeaderMap,
}

impl Client {
    /// Prepares a client; connects to nothing yet. A server under TLS is believed if its certificate leads to one of the file `ca`, or
    /// else to one that this system trusts.
    pub(crate) fn new(url: &str, token: Option<&str>, ca: Option<&Path>) -> Result<Self, BadUrl> {
        let bad = |reason: &str| BadUrl { url: url.to_owned(), reason: reason.to_owned() };
        let base = url.trim();
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        let base = base.trim_end_matches('/').to_owned();
        let uri: hyper::Uri = base.parse().map_err(|error| bad(&format!("{error}")))?;
        let trusted = match uri.scheme_str() {
            Some("http") => RootCertStore::empty(),
            Some("https") => millpond::trusted(ca).map_err(|error| bad(&error.to_string()))?,
            _ => return Err(bad("the scheme is neither http nor https")),
        };
        if uri.query().is_some() || uri.host().is_none_or(str::is_empty) {
            return Err(bad("it needs a host and takes no query"));
        }
        let mut headers = HeaderMap::new();
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            let mut value = HeaderValue::try_from(format!("Bearer {token}"))
                .map_err(|_| bad("the token holds characters that no header can carry"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.enforce_http(false);
        let tls = ClientConfig::builder_with_provider(server::tls::provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(&error.to_string()))?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(connector);
        Ok(Self { pool, base, headers })
    }

    /// The address that this client talks to.
    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// One call; the bytes of a good answer, or why there is none.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
        extras: Extras<'_>,
    ) -> Result<Bytes, ClientError> {
        let request = self.request(method, path, body.into(), &extras)?;
        let answered = tokio::time::timeout(CALL_TIMEOUT + extras.patience, self.exchange(request)).await;
        let (status, headers, bytes) = answered.map_err(|_| self.no_answer("it took too long"))??;
        if status.is_success() { Ok(bytes) } else { Err(self.refusal(status, &headers, &bytes)) }
    }

    /// One call whose answer is read as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
        extras: Extras<'_>,
    ) -> Result<T, ClientError> {
        let bytes = self.call(method, path, body, extras).await?;
        self.parse(&bytes)
    }

    /// Reads an answer of this server as JSON.
    pub(crate) fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(bytes)
            .map_err(|error| ClientError::Foreign { url: self.base.clone(), reason: error.to_string() })
    }

    /// A call without a body.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path, Bytes::new(), Extras::default()).await
    }

    /// Pushes a ready-made request body (one job, or `{"jobs":[…]}`) to a queue.
    pub(crate) async fn push(
        &self,
        queue: &str,
        body: Bytes,
        extras: Extras<'_>,
    ) -> Result<PushAnswer, ClientError> {
        let path = format!("/v1/queues/{}/jobs", segment(queue));
        self.json(Method::POST, &path, body, extras).await
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        extras: &Extras<'_>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let foreign = |reason: String| ClientError::Foreign { url: self.base.clone(), reason };
        let has_body = !body.is_empty();
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .body(Full::new(body))
            .map_err(|error| foreign(error.to_string()))?;
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        if has_body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in
            [("idempotency-key", extras.idempotency_key), ("millpond-durability", extras.durability)]
        {
            if let Some(value) = value {
                let value = HeaderValue::try_from(value)
                    .map_err(|_| foreign(format!("the value of {name} cannot stand in a header")))?;
                headers.insert(name, value);
            }
        }
        Ok(request)
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), ClientError> {
        let answer = self.pool.request(request).await.map_err(|error| self.broken(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map_err(|error| self.no_answer(&error.to_string()))?;
        Ok((parts.status, parts.headers, body.to_bytes()))
    }

    fn broken(&self, error: &hyper_util::client::legacy::Error) -> ClientError {
        if error.is_connect() {
            ClientError::Unreachable { url: self.base.clone(), reason: innermost(error) }
        } else {
            self.no_answer(&innermost(error))
        }
    }

    fn no_answer(&self, reason: &str) -> ClientError {
        ClientError::NoAnswer { url: self.base.clone(), reason: reason.to_owned() }
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, bytes: &[u8]) -> ClientError {
        let mut problem: Problem = serde_json::from_slice(bytes).unwrap_or_default();
        problem.status = status.as_u16();
        if problem.detail.is_empty() {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(500)]);
            problem.detail = format!("{status}: {text}");
        }
        if problem.retry_after_ms.is_none() {
            let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            problem.retry_after_ms =
                seconds.and_then(|text| text.trim().parse::<u64>().ok()).map(|s| s.saturating_mul(1_000));
        }
        ClientError::Refused(problem)
    }
}

/// A name as one segment of a path: everything but unreserved characters is percent-encoded.
pub(crate) fn segment(name: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment_whatever_it_holds() {
        assert_eq!(segment("mail.eu-1"), "mail.eu-1");
        assert_eq!(segment("a/b?c#d e%é"), "a%2Fb%3Fc%23d%20e%25%C3%A9");
    }

    #[test]
    fn addresses_are_checked_before_anything_is_sent() {
        for good in ["http://127.0.0.1:7077", "localhost:7077", "http://h/prefix/", "https://h"] {
            assert!(Client::new(good, None, None).is_ok(), "{good}");
        }
        for bad in ["ftp://h", "http://", "http://h?x=1", "http://h h"] {
            assert!(Client::new(bad, None, None).is_err(), "{bad}");
        }
        assert!(Client::new("http://h", Some("line\nbreak"), None).is_err());
    }
}
