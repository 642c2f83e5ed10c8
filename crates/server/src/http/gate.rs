//! What every request must pass before anything looks at it: a host that is ours, no foreign web page, a token that is for its route.

use super::{
    app::{App, Rules},
    extract::Peer,
    problem::{self, Problem},
};
use crate::access::{Caller, Refused, Right};
use axum::http::{HeaderMap, Method, Uri, header, request::Parts};
use std::net::{IpAddr, Ipv4Addr};

/// Checks one request. `Ok` says that it may reach its route, which needs `right`, and who sent it.
pub(crate) fn check(app: &App, parts: &Parts, right: Right) -> Result<Option<Caller>, Problem> {
    let rules = &app.rules;
    check_host(rules, &parts.uri, &parts.headers)?;
    check_site(&parts.method, &parts.uri, &parts.headers)?;
    if right == Right::Open {
        return Ok(None);
    }
    let caller = caller(app, parts)?;
    if caller.may(right) {
        return Ok(Some(caller));
    }
    let (name, roles) = (caller.name(), caller.roles());
    let detail =
        format!("this needs the right to {}, which the token `{name}` ({roles}) has not", right.name());
    Err(Problem::new(&problem::FORBIDDEN, detail))
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

fn caller(app: &App, parts: &Parts) -> Result<Caller, Problem> {
    let mut shown = parts.headers.get_all(header::AUTHORIZATION).iter();
    let token = match (shown.next(), shown.next()) {
        (Some(value), None) => bearer(value.as_bytes()),
        _ => None,
    };
    let from = parts.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
    app.keeper.admit(token, from).map_err(|refused| match refused {
        Refused::Missing => Problem::new(&problem::UNAUTHORIZED, "no token was sent"),
        Refused::Wrong => Problem::new(&problem::UNAUTHORIZED, "the token is wrong"),
        Refused::Expired => Problem::new(&problem::UNAUTHORIZED, "the token's time has passed"),
        Refused::TooManyWrong { retry_after_ms } => {
            let detail = "this address has sent too many wrong tokens; this one was not looked at";
            Problem::new(&problem::TOO_MANY_WRONG_TOKENS, detail).retry_after(retry_after_ms)
        }
    })
}

/// The token of a call that waited no longer counts.
pub(crate) fn ended() -> Problem {
    Problem::new(&problem::UNAUTHORIZED, "the token was revoked, changed, or its time has passed")
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}
