use super::{Language, Peer, Session, redis};
use crate::{driver::Driver, error::Result, install::Store, plan::Durability};
use futures_util::future::BoxFuture;
use std::path::Path;

/// On the same Redis as the raw streams.
pub(crate) struct BullMq;

impl Peer for BullMq {
    fn name(&self) -> &'static str {
        "bullmq"
    }

    fn language(&self) -> Language {
        Language::Node
    }

    fn setting(&self, durability: Durability) -> &'static str {
        redis::setting(durability)
    }

    fn has_delays(&self) -> bool {
        true
    }

    fn install(&self, store: &Store) -> Result<String> {
        let node = store.node()?;
        let versions = [redis::version(store)?, node.version("bullmq")?, node.version("ioredis")?];
        Ok(versions.join(", "))
    }

    fn start<'a>(
        &'a self,
        store: &'a Store,
        durability: Durability,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<Session>> {
        Box::pin(async move {
            let (server, port) = redis::serve(store, durability, folder)?;
            Ok(Session { client: Driver::boxed(&store.node()?, "bullmq", port)?, server })
        })
    }
}
