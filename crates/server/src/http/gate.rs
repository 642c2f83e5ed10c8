//! What every request must pass before anything looks at it: a host that is ours, no foreign web page, the token.

use super::{
    app::{App, Rules},
    problem::{self, Problem},
};
use crate::access::Right;
use axum::http::{HeaderMap, Method, Uri, header, request::Parts};

/// Checks one request. `Ok` says that it may reach its route, which needs `right`.
pub(crate) fn check(app: &App, parts: &Parts, right: Right) -> Result<(), Problem> {
    let rules = &app.rules;
    check_host(rules, &parts.uri, &parts.headers)?;
    check_site(&parts.method, &parts.uri, &parts.headers)?;
    if right == Right::Open { Ok(()) } else { check_token(rules, &parts.headers) }
}

/// A page that made its name resolve to this machine (DNS rebinding) still sends its own name as the host.
fn check_host(rules: &Rules, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    if !rules.loopback && rules.hosts.is_empty() {
        return Ok(());
    }
    let header = headers.get(header::HOST).map(|value| value.to_str().unwrap_or_default());
    let authority = uri.authority().map(|authority| authority.as_str());
    let ours = |authority: &str| {
        let host = host_of(authority);
        let local = ["localhost", "127.0.0.1", "[::1]"].iter().any(|local| host.eq_ignore_ascii_case(local));
        local || rules.hosts.iter().any(|known| host.eq_ignore_ascii_case(host_of(known)))
    };
    let named = [header, authority].into_iter().flatten();
    if (header.is_some() || authority.is_some()) && named.clone().all(ours) {
        return Ok(());
    }
    Err(Problem::new(&problem::MISDIRECTED, "the Host header names another server, or none"))
}

fn host_of(authority: &str) -> &str {
    if authority.starts_with('[') {
        return authority.split_inclusive(']').next().unwrap_or(authority);
    }
    authority.split(':').next().unwrap_or(authority)
}

/// A browser says where a request comes from; programs say nothing.
fn check_site(method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let refuse =
        || Err(Problem::new(&problem::CROSS_SITE, "the request comes from a page of another origin"));
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
        let host = host.or_else(|| uri.authority().map(|authority| authority.as_str())).unwrap_or_default();
        let from = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if !from.is_some_and(|from| from.eq_ignore_ascii_case(host)) {
            return refuse();
        }
    }
    if method.is_safe() {
        return Ok(());
    }
    match headers.get("sec-fetch-site").map(|value| value.as_bytes()) {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => refuse(),
    }
}

fn check_token(rules: &Rules, headers: &HeaderMap) -> Result<(), Problem> {
    let Some(token) = &rules.token else { return Ok(()) };
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.as_bytes().split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
    });
    if shown.is_some_and(|shown| token.matches(shown)) {
        return Ok(());
    }
    Err(Problem::new(&problem::UNAUTHORIZED, "the token is missing or wrong"))
}
