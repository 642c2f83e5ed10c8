//! Peers whose client is in Node: the load comes from a process of its own, told what to do by lines of JSON.

use crate::{
    client::{Client, Push, Work, Worked},
    error::{Error, Result},
    install::Node,
    server::command,
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    process::Stdio,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::oneshot,
};

/// A driver. Dropping it kills its process.
pub(crate) struct Driver {
    input: tokio::sync::Mutex<ChildStdin>,
    asked: Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>,
    last: AtomicU64,
    _process: Child,
}

#[derive(Deserialize)]
struct Answer {
    id: u64,
    #[serde(default)]
    ok: Value,
    error: Option<String>,
}

impl Driver {
    /// The module of this name in `node/`, against a server at this port.
    pub(crate) fn boxed(node: &Node, module: &str, port: u16) -> Result<Box<dyn Client>> {
        let mut command = command(node.program());
        command.arg(node.path("driver.mjs")).args([module, &port.to_string()]);
        let mut process = Command::from(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(Error::client("the driver has no pipes"));
        };
        let asked = Arc::new(Mutex::new(HashMap::<u64, oneshot::Sender<Answer>>::new()));
        let answered = asked.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // What a library prints is no answer.
                let Ok(answer) = serde_json::from_str::<Answer>(&line) else { continue };
                let mut asked = answered.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(caller) = asked.remove(&answer.id) {
                    // A caller that is gone wants no answer.
                    let _ = caller.send(answer);
                }
            }
            // Whoever waits hears that nobody will answer.
            answered.lock().unwrap_or_else(PoisonError::into_inner).clear();
        });
        Ok(Box::new(Self { input: input.into(), asked, last: AtomicU64::new(0), _process: process }))
    }

    async fn call<T: DeserializeOwned>(&self, verb: &str, fields: impl Serialize) -> Result<T> {
        let id = self.last.fetch_add(1, Relaxed) + 1;
        let (answer, answered) = oneshot::channel();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answer);
        let line = format!("{}\n", json!({ "id": id, "verb": verb, "fields": fields }));
        self.input.lock().await.write_all(line.as_bytes()).await?;
        let answer = answered.await.map_err(|_| Error::client("the driver in Node has ended"))?;
        match answer.error {
            Some(error) => Err(Error::Client(error)),
            None => serde_json::from_value(answer.ok).map_err(Error::client),
        }
    }
}

impl Client for Driver {
    fn push<'a>(&'a self, push: &'a Push) -> BoxFuture<'a, Result<f64>> {
        Box::pin(self.call("push", push))
    }

    fn work<'a>(&'a self, work: &'a Work) -> BoxFuture<'a, Result<Worked>> {
        Box::pin(self.call("work", work))
    }

    fn waiting<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<u64>> {
        Box::pin(self.call("waiting", json!({ "queue": queue })))
    }

    fn clear<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.call("clear", json!({ "queue": queue })))
    }
}
