//! One module a peer. Each does what its own documentation advises, and says why.

mod beanstalkd;
mod bullmq;
mod millpond;
mod nats;
mod postgres;
mod rabbitmq;
mod redis;

use crate::{client::Client, error::Result, install::Store, plan::Durability, server::Server};
use futures_util::future::BoxFuture;
use std::path::Path;

/// What the client of a peer is written in. Millpond is measured by a client in the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Language {
    Rust,
    Node,
}

/// Something that takes jobs and hands them out.
pub(crate) trait Peer: Sync {
    /// As one asks for it.
    fn name(&self) -> &'static str;

    fn language(&self) -> Language;

    /// The settings that make it so durable, in its own words.
    fn setting(&self, durability: Durability) -> &'static str;

    /// Whether a job can be due later.
    fn has_delays(&self) -> bool;

    /// Fetches what is missing; returns the versions of server and client.
    fn install(&self, store: &Store) -> Result<String>;

    /// A new server with nothing in it, its data in `folder`.
    fn start<'a>(
        &'a self,
        store: &'a Store,
        durability: Durability,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<Session>>;
}

/// A running server and a client of it. The client goes first.
pub(crate) struct Session {
    pub(crate) client: Box<dyn Client>,
    pub(crate) server: Server,
}

/// Millpond, by a client in each language.
pub(crate) const OURS: [&dyn Peer; 2] = [&millpond::Rust, &millpond::Node];

/// Everything else.
pub(crate) const PEERS: [&dyn Peer; 8] = [
    &beanstalkd::Beanstalkd,
    &redis::Streams,
    &nats::JetStream,
    &rabbitmq::RabbitMq,
    &bullmq::BullMq,
    &postgres::BULLMQ,
    &postgres::GRAPHILE,
    &postgres::PG_BOSS,
];
