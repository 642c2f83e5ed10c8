//! One child of a pool.

use super::{
    exit,
    group::Group,
    lines::{Line, Lines},
    program::{Explained, Program},
    protocol::{self, Said, Word},
    tail::Tail,
};
use crate::{Context, Verdict, error};
use model::{Outcome, limits};
use std::{
    pin::pin,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    process::{ChildStdin, ChildStdout},
    sync::mpsc,
    time::timeout,
};

/// A job's log keeps no more lines than this, so the rest is read and dropped.
const LOG_LINES_MAX: usize = limits::LOG_LINES_MAX;
/// Answers that a child has not read; then it is not listened to.
const ANSWERS_MAX: usize = 16;
/// How long a child may take to end whose stdout has ended.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// A child that said hello. Dropping it kills its group.
pub(super) struct Child {
    process: tokio::process::Child,
    group: Group,
    stdin: ChildStdin,
    lines: Lines<ChildStdout>,
    stderr: Arc<Mutex<Tail>>,
    program: Program,
    /// Jobs taken.
    pub(super) jobs: u64,
}

/// How a job ended with a child.
pub(super) enum Turn {
    /// The child can take the next.
    Ready(Verdict),
    /// The child was stopped because the attempt was called off.
    Stopped(Verdict),
    /// The child broke.
    Broken(Verdict),
}

impl Child {
    /// Starts a child and waits for its hello. The error says why it cannot be used.
    pub(super) async fn start(
        program: &Program,
        hello_within: Duration,
        line_bytes_max: usize,
    ) -> Result<Child, String> {
        let version = protocol::VERSION.to_string();
        let mut process = program.spawn(&[("MILLPOND_PROTOCOL", version)]).map_err(|why| why.to_string())?;
        let group = Group::of(&process);
        let (Some(stdin), Some(stdout), stderr) =
            (process.stdin.take(), process.stdout.take(), process.stderr.take())
        else {
            return Err("its streams could not be opened".into());
        };
        let tail = Arc::new(Mutex::new(Tail::default()));
        let (watcher, kept) = (program.clone(), tail.clone());
        tokio::spawn(async move { watcher.watch_stderr(stderr, kept).await });
        let lines = Lines::new(stdout, line_bytes_max);
        let mut child =
            Child { process, group, stdin, lines, stderr: tail, program: program.clone(), jobs: 0 };
        match timeout(hello_within, child.lines.next()).await {
            Err(_) => Err(format!("it did not say hello within {hello_within:?}")),
            Ok(Line::End) => Err(child.last_words().await),
            Ok(Line::TooLong) => Err("its first line is too long for a hello".into()),
            Ok(Line::Whole(line)) => match protocol::read(&line) {
                Ok(Said::Hello { protocol: protocol::VERSION }) => Ok(child),
                Ok(Said::Hello { protocol }) => Err(format!("it speaks protocol {protocol}, not 1")),
                Ok(Said::Of(..)) => Err("it spoke of a job before it said hello".into()),
                Err(why) => Err(why),
            },
        }
    }

    /// Whether it can take a job now.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Gives it a job and waits for the end of it.
    pub(super) async fn take(&mut self, context: &Context) -> Turn {
        self.jobs += 1;
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let steps = match context.all_stored_steps().await {
            Ok(steps) => steps,
            Err(why) => return Turn::Ready(retry("steps", &why.to_string())),
        };
        let line = protocol::job_line(context, &steps);
        let said = {
            let Child { stdin, lines, group, program, .. } = self;
            let (answer, mut answers) = mpsc::channel(ANSWERS_MAX);
            let mut listen = pin!(listen(lines, answer, context));
            let mut tell = pin!(async {
                // A child that does not read ends, or breaks the protocol; `listen` sees both.
                let mut next = Some(line);
                while let Some(line) = next {
                    let _ = stdin.write_all(&line).await;
                    let _ = stdin.flush().await;
                    next = answers.recv().await;
                }
            });
            let mut telling = true;
            loop {
                tokio::select! {
                    said = &mut listen => break said,
                    () = &mut tell, if telling => telling = false,
                    reason = context.cancelled().wait() => {
                        group.terminate();
                        let last = timeout(program.grace, &mut listen).await;
                        group.kill();
                        return Turn::Stopped(match last {
                            Ok(Heard::Ended(verdict)) => verdict,
                            _ => retry("stopped", reason.text()),
                        });
                    }
                }
            }
        };
        match said {
            Heard::Ended(verdict) => Turn::Ready(verdict),
            Heard::Nonsense(why) => Turn::Broken(retry("protocol", &self.with_stderr(&why))),
            Heard::End => {
                let status = self.end().await;
                let mut stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).text();
                if let Some(Explained::Hint(hint)) = self.program.explain(status, &stderr) {
                    stderr = format!("{stderr}\n{hint}").trim_start().to_owned();
                }
                Turn::Broken(Outcome::Crash(exit::crash(status, &stderr)).into())
            }
        }
    }

    /// Lets it end by itself: its stdin is closed; after the grace it is killed.
    pub(super) async fn retire(self) {
        let Child { mut process, group, stdin, program, .. } = self;
        let grace = program.grace;
        drop(stdin);
        if timeout(grace, process.wait()).await.is_err() {
            group.terminate();
            let _ = timeout(grace, process.wait()).await;
        }
    }

    /// How it ended, in words, and the end of what it wrote to stderr.
    async fn last_words(&mut self) -> String {
        let told = self.end().await.map_or_else(|| "it closed its stdout".to_string(), exit::describe);
        self.with_stderr(&format!("the child ended without an outcome ({told})"))
    }

    /// How it ended; `None` if it lived on behind its closed stdout. Nothing of its group is left.
    async fn end(&mut self) -> Option<ExitStatus> {
        let ended = timeout(LAST_BREATH, self.process.wait()).await;
        self.group.kill();
        // The watcher may not have read the last of stderr yet: it gets a moment once the group is gone.
        tokio::time::sleep(Duration::from_millis(20)).await;
        ended.ok()?.ok()
    }

    fn with_stderr(&self, message: &str) -> String {
        let stderr = self.stderr.lock().unwrap_or_else(PoisonError::into_inner).text();
        if stderr.is_empty() { message.to_string() } else { format!("{message}: {stderr}") }
    }
}

/// What came of listening to a child.
enum Heard {
    Ended(Verdict),
    Nonsense(String),
    End,
}

async fn listen(lines: &mut Lines<ChildStdout>, answer: mpsc::Sender<Vec<u8>>, context: &Context) -> Heard {
    let token = context.job().lease_token;
    let mut logged = 0;
    loop {
        let line = match lines.next().await {
            Line::Whole(line) => line,
            Line::TooLong => return Heard::Nonsense("the child wrote a line that is too long".into()),
            Line::End => return Heard::End,
        };
        match protocol::read(&line) {
            Err(why) => return Heard::Nonsense(why),
            Ok(Said::Hello { .. }) => return Heard::Nonsense("the child said hello twice".into()),
            // What it says late of the job before changes nothing for this one, unless it mistakes the two.
            Ok(Said::Of(of, Word::Ended(_))) if of != token => {
                return Heard::Nonsense(format!("the child ended lease {of} but has lease {token}"));
            }
            Ok(Said::Of(of, _)) if of != token => {}
            // The answers are not the child's business: it learns from a signal that its lease is gone.
            Ok(Said::Of(_, Word::Progress(value))) => {
                if value.len() > limits::PROGRESS_BYTES_MAX {
                    return Heard::Nonsense("the child wrote a progress value of more than 16 KiB".into());
                }
                let _ = context.progress(value).await;
            }
            Ok(Said::Of(_, Word::Log(mut said))) => {
                said.truncate(LOG_LINES_MAX - logged);
                logged += said.len();
                if !said.is_empty() {
                    let _ = context.log(said).await;
                }
            }
            Ok(Said::Of(_, Word::Step { name, result })) => {
                let line = match context.store_step(&name, result).await {
                    Ok(value) => protocol::stored_line(token, &name, &value),
                    Err(why) => protocol::not_stored_line(token, &name, &why.to_string()),
                };
                // Whoever writes ends only after this.
                let _ = answer.send(line).await;
            }
            Ok(Said::Of(_, Word::Ended(verdict))) => return Heard::Ended(verdict),
        }
    }
}

fn retry(kind: &str, message: &str) -> Verdict {
    Outcome::Retry { error: error(kind, message, ""), after_ms: None }.into()
}
