//! An HTTP endpoint as a handler: every job is a signed POST, and the answer is its outcome. `docs/handlers.md` says how.

mod gate;
mod reach;
mod sign;

pub use reach::InsideError;
pub use sign::{BadSecret, Secret};

use crate::{Context, Handler, Verdict, error, handler::result_of, process::protocol};
use bytes::Bytes;
use gate::{Gate, Pass};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Body,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use kit::Millis;
use model::{Outcome, limits};
use reach::Outside;
use rustls::ClientConfig;
use std::time::{Duration, SystemTime};

/// The media type of an answer that is an outcome, in the words of a child of a [`Pool`](crate::process::Pool).
pub const OUTCOME: &str = "application/vnd.millpond.outcome+json";
/// How long what is rate limited is left alone if the endpoint does not say.
const RATE_LIMITED_MS: Millis = 1_000;
/// `Retry-After` counts up to this: a day.
const AFTER_MAX_MS: Millis = 86_400_000;
/// A connection must be there within this.
const CONNECT: Duration = Duration::from_secs(10);
/// Connections that nobody uses stay open for so long.
const IDLE: Duration = Duration::from_secs(20);
/// Of an answer that is no success, an error shows this much.
const SHOWN: usize = 2_048;

/// Where jobs are posted to, and how.
pub struct EndpointOptions {
    /// What signs them; several while one is being replaced by the next. None: they are not signed.
    pub secrets: Vec<Secret>,
    /// Sent with every request.
    pub headers: HeaderMap,
    /// A name may lead to an address of this machine or of a private network.
    pub allow_inside: bool,
    /// Whom an endpoint under TLS is believed from.
    pub tls: ClientConfig,
}

/// Why an endpoint is none.
#[derive(Debug, thiserror::Error)]
#[error("{url:?} is no endpoint: {reason}")]
pub struct BadEndpoint {
    url: String,
    reason: &'static str,
}

/// Posts every job to a URL.
///
/// | answer | outcome |
/// |---|---|
/// | 2xx | done; the body is the result: JSON as it is, other text as a JSON string |
/// | 2xx of the type [`OUTCOME`] | what it says |
/// | 400, 410, 422 | fail: dead now |
/// | 429 | rate limited, as long as `Retry-After` says |
/// | other | retry, after `Retry-After` if it is there |
/// | none, because there was no connection | snooze; meanwhile one job at a time tries |
pub struct Endpoint {
    url: Uri,
    options: EndpointOptions,
    client: Client<HttpsConnector<HttpConnector<Outside>>, Full<Bytes>>,
    gate: Gate,
}

impl Endpoint {
    /// A handler that posts to `url`, which is `http://` or `https://`. Connects to nothing yet.
    ///
    /// # Errors
    /// The URL has another scheme, no host, or a user in it.
    pub fn new(url: &str, options: EndpointOptions) -> Result<Self, BadEndpoint> {
        let bad = |reason| BadEndpoint { url: url.to_owned(), reason };
        let parsed: Uri = url.parse().map_err(|_| bad("it cannot be read"))?;
        if !matches!(parsed.scheme_str(), Some("http" | "https")) {
            return Err(bad("it begins with http:// or https://"));
        }
        if parsed.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(bad("it needs a host, and no user; give an authorization as a header"));
        }
        let mut connector = HttpConnector::new_with_resolver(Outside { everywhere: options.allow_inside });
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(options.tls.clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(Self { url: parsed, options, client, gate: Gate::default() })
    }

    fn request(&self, context: &Context, body: Vec<u8>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let job = context.job();
        let seconds = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        // The same for every attempt, so that an endpoint can tell a repetition.
        let id = format!("{}/{}", job.queue, job.id);
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("millpond/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &id)
            .header("webhook-timestamp", seconds);
        if !self.options.secrets.is_empty() {
            let signed = self.options.secrets.iter().map(|secret| secret.sign(&id, seconds, &body));
            request = request.header("webhook-signature", signed.collect::<Vec<_>>().join(" "));
        }
        for (key, value) in &job.meta {
            // What the pusher's trace is called; nothing else of the meta becomes a header.
            if matches!(key.as_str(), "traceparent" | "tracestate") {
                request = request.header(HeaderName::try_from(key.as_str())?, value.as_str());
            }
        }
        let mut request = request.body(Full::new(Bytes::from(body)))?;
        request.headers_mut().extend(self.options.headers.clone());
        Ok(request)
    }

    async fn post(&self, context: &Context, pass: Pass) -> Verdict {
        let steps = match context.all_stored_steps().await {
            Ok(steps) => steps,
            Err(why) => return retry("steps", &why.to_string(), None),
        };
        let mut body = protocol::job_line(context, &steps);
        body.pop();
        let request = match self.request(context, body) {
            Ok(request) => request,
            Err(why) => return retry("request", &why.to_string(), None),
        };
        let answer = match self.client.request(request).await {
            Ok(answer) => answer,
            Err(error) if error.is_connect() => {
                let wait = self.gate.failed(pass);
                let line =
                    format!("cannot reach {}: {}; put off for {wait:.1?}", self.url, innermost(&error));
                // Without its line the job is still put off.
                let _ = context.log([line]).await;
                return Outcome::Snooze { after_ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) }
                    .into();
            }
            Err(error) => return retry("http", &innermost(&error), None),
        };
        self.gate.worked();
        let (head, body) = answer.into_parts();
        let (kept, bytes) = match read(body).await {
            Ok(read) => read,
            Err(why) => return retry("http", &format!("the answer ended early: {why}"), None),
        };
        if head.status.is_success() && bytes > limits::RESULT_BYTES_MAX {
            let line = format!("the answer had {bytes} bytes, too many for a result: not kept");
            // The work is done whether or not the line is kept.
            let _ = context.log([line]).await;
        }
        verdict(head.status, &head.headers, &kept, bytes)
    }
}

impl Handler for Endpoint {
    async fn run(&self, context: Context) -> Verdict {
        let pass = tokio::select! {
            pass = self.gate.enter() => pass,
            _ = context.cancelled().wait() => return Outcome::Snooze { after_ms: 0 }.into(),
        };
        tokio::select! {
            verdict = self.post(&context, pass) => verdict,
            _ = context.cancelled().wait() => retry("stopped", "the request was given up", None),
        }
    }
}

/// What an answer says of its job.
fn verdict(status: StatusCode, headers: &HeaderMap, kept: &[u8], bytes: usize) -> Verdict {
    let kind = || format!("http_{}", status.as_u16());
    let message = || {
        let text = String::from_utf8_lossy(&kept[..kept.len().min(SHOWN)]);
        let text = text.trim();
        if text.is_empty() { status.to_string() } else { format!("{status}: {text}") }
    };
    let after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
    let after_ms = after.map(|seconds| seconds.saturating_mul(1_000).min(AFTER_MAX_MS));
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match status {
        _ if status.is_success() && media.starts_with(OUTCOME) => match protocol::read_outcome(kept) {
            Ok(outcome) => outcome.into(),
            Err(why) => retry("protocol", &why, None),
        },
        _ if status.is_success() => {
            let result = if bytes > limits::RESULT_BYTES_MAX { None } else { result_of(kept) };
            Outcome::Done { result }.into()
        }
        StatusCode::BAD_REQUEST | StatusCode::GONE | StatusCode::UNPROCESSABLE_ENTITY => {
            Outcome::Fail { error: error(&kind(), &message(), "") }.into()
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Outcome::RateLimited { key: None, after_ms: after_ms.unwrap_or(RATE_LIMITED_MS) }.into()
        }
        _ => retry(&kind(), &message(), after_ms),
    }
}

/// An answer up to the largest result, and how many bytes it had.
async fn read(
    mut body: impl Body<Data = Bytes, Error = hyper::Error> + Unpin,
) -> Result<(Vec<u8>, usize), hyper::Error> {
    let (mut kept, mut bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes += data.len();
            if bytes <= limits::RESULT_BYTES_MAX {
                kept.extend_from_slice(&data);
            }
        }
    }
    Ok((kept, bytes))
}

fn retry(kind: &str, message: &str, after_ms: Option<Millis>) -> Verdict {
    Outcome::Retry { error: error(kind, message, ""), after_ms }.into()
}

/// The sentence that names the real cause ("Connection refused") instead of its wrappings.
#[doc(hidden)]
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn every_answer_has_its_outcome() {
        let (done, no_headers) = (
            |result: Option<&'static [u8]>| Outcome::Done { result: result.map(Bytes::from_static) },
            &[][..],
        );
        let retry = |kind: &str, message: &str, after_ms| Outcome::Retry {
            error: error(kind, message, ""),
            after_ms,
        };
        for (status, headers, body, outcome) in [
            (200, no_headers, &br#"{"sent": 1}"#[..], done(Some(br#"{"sent": 1}"#))),
            (202, no_headers, b" sent\n", done(Some(br#""sent""#))),
            (204, no_headers, b"", done(None)),
            (
                200,
                &[("content-type", OUTCOME)],
                br#"{"type":"snooze","after_ms":5}"#,
                Outcome::Snooze { after_ms: 5 },
            ),
            (
                500,
                &[("content-type", OUTCOME)],
                br#"{"type":"done"}"#,
                retry("http_500", r#"500 Internal Server Error: {"type":"done"}"#, None),
            ),
            (
                422,
                no_headers,
                b"no such user",
                Outcome::Fail { error: error("http_422", "422 Unprocessable Entity: no such user", "") },
            ),
            (429, &[("retry-after", "7")], b"", Outcome::RateLimited { key: None, after_ms: 7_000 }),
            (429, no_headers, b"", Outcome::RateLimited { key: None, after_ms: 1_000 }),
            (
                503,
                &[("retry-after", "99999999999")],
                b"",
                retry("http_503", "503 Service Unavailable", Some(86_400_000)),
            ),
            (
                503,
                &[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")],
                b"",
                retry("http_503", "503 Service Unavailable", None),
            ),
            // Where it leads to, nobody vouches for.
            (302, &[("location", "http://127.0.0.1/")], b"", retry("http_302", "302 Found", None)),
            (401, no_headers, b"", retry("http_401", "401 Unauthorized", None)),
        ] {
            let headers: HeaderMap = headers
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                .collect();
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(verdict(status, &headers, body, body.len()), outcome.into(), "{status} {headers:?}");
        }
        let wrong = verdict(
            StatusCode::OK,
            &[(CONTENT_TYPE, HeaderValue::from_static(OUTCOME))].into_iter().collect(),
            b"?",
            1,
        );
        assert!(matches!(wrong.outcome, Outcome::Retry { error, .. } if error.kind == "protocol"));
    }

    #[test]
    fn what_is_no_endpoint_is_said_to_be_none() {
        for url in [
            "example.org/jobs",
            "ftp://example.org",
            "https://",
            "https://me:secret@example.org/",
            "http://a b",
        ] {
            let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
            let tls = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            let options =
                EndpointOptions { secrets: Vec::new(), headers: HeaderMap::new(), allow_inside: false, tls };
            assert!(Endpoint::new(url, options).is_err(), "{url}");
        }
    }
}
