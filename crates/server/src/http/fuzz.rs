//! Any body on any route, from the socket's side of the gate to the state machine: for fuzzers.

use super::{
    app::{App, Rules},
    extract::Peer,
    routes::{router, routes},
};
use crate::access::Keeper;
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
};
use kit::Durability;
use node::{Handle, Options};
use std::{net::IpAddr, time::Duration};
use tokio::runtime::Runtime;
use tower_service::Service;

/// Requests to one pond, so that what they leave behind stays small.
const REQUESTS_MAX: u32 = 5_000;

/// A server without sockets that is asked one thing after another.
pub struct Target {
    runtime: Runtime,
    router: Router,
    asked: u32,
}

impl Target {
    /// An empty pond in memory, with its routes.
    ///
    /// # Errors
    /// Threads cannot be started.
    pub fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let node = Handle::in_memory(Options::default())?;
        let rules = Rules {
            loopback: true,
            hosts: Vec::new(),
            durability: Durability::Memory,
            body_bytes_max: 1 << 20,
            memory: None,
            body_timeout: Duration::from_secs(10),
            wait_ms_max: 0,
        };
        let router = router(&App::new(node, rules, Keeper::new(None, None)?.into()));
        Ok(Self { runtime, router, asked: 0 })
    }

    /// Asks; the first byte chooses the route.
    ///
    /// # Panics
    /// If the answer says that the server made a mistake.
    pub fn ask(&mut self, data: &[u8]) {
        let Some((first, body)) = data.split_first() else { return };
        if self.asked == REQUESTS_MAX
            && let Ok(fresh) = Self::new()
        {
            *self = fresh;
        }
        self.asked += 1;
        let route = &routes()[usize::from(*first) % routes().len()];
        if route.long {
            return;
        }
        let named =
            [("{queue}", "mail"), ("{id}", "7"), ("{worker}", "w"), ("{key}", "api"), ("{group}", "g")];
        let path = named.iter().fold(route.path.to_owned(), |path, (name, value)| path.replace(name, value));
        let request = Request::builder()
            .method(route.method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_LENGTH, body.len())
            .extension(Peer(IpAddr::from([127, 0, 0, 1])))
            .body(Body::from(body.to_vec()));
        let Ok(request) = request else { return };
        let Ok(answer) = self.runtime.block_on(self.router.call(request));
        assert_ne!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR, "{} {}", route.method, route.path);
    }
}
