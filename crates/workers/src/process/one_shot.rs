//! One process per job: the body on stdin, the result on stdout, the exit status as the outcome.

use super::{
    children::children_json,
    exit,
    group::Group,
    program::{Explained, Program, snooze},
    protocol,
    tail::Tail,
};
use crate::{Context, Handler, Verdict, error, handler::result_of};
use model::{Outcome, limits};
use std::{
    pin::pin,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin},
    time::timeout,
};

/// `EX_DATAERR`: the job is at fault and will be at every attempt.
const EX_DATAERR: i32 = 65;
/// `EX_TEMPFAIL`: not now.
const EX_TEMPFAIL: i32 = 75;
/// How long the pipes may stay open after the whole group is gone: something left the group and still holds them.
const PIPES: Duration = Duration::from_secs(1);
/// Bytes of the stored steps, and of the children, in the environment: Linux takes 128 KiB in one variable.
const VARIABLE_BYTES_MAX: usize = 120 << 10;
/// How long a job waits whose program could not be started.
const START_AGAIN: Duration = Duration::from_secs(10);

/// Starts a program for every job.
///
/// | exit status | outcome |
/// |---|---|
/// | 0 | done; stdout is the result: JSON as it is, other text as a JSON string |
/// | 65 (`EX_DATAERR`) | fail: dead now |
/// | 75 (`EX_TEMPFAIL`) | the outcome that stdout says, as a child of a [`Pool`](super::Pool) would; snooze if it says nothing |
/// | a signal, or 128 and the number of a fatal one | crash, with the end of stderr |
/// | other | retry; the end of stderr is the error |
#[derive(Debug, Clone)]
pub struct OneShot {
    program: Program,
    snooze: Duration,
}

impl OneShot {
    /// A handler that runs `program`.
    pub const fn new(program: Program) -> Self {
        Self { program, snooze: Duration::from_secs(30) }
    }

    /// How long a job is put off by exit status 75. Default 30 s.
    #[must_use]
    pub const fn snooze(mut self, snooze: Duration) -> Self {
        self.snooze = snooze;
        self
    }

    async fn watch(&self, mut child: Child, context: &Context) -> Verdict {
        let group = Group::of(&child);
        let tail = Arc::new(Mutex::new(Tail::default()));
        let mut output = Output::default();
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let body = context.body();
        let (status, called_off) = {
            let mut pipes = pin!(async {
                let stderr = self.program.watch_stderr(stderr, tail.clone());
                tokio::join!(feed(stdin, &body), output.read(stdout), stderr);
            });
            let mut end = pin!(wait(&mut child, &group, &self.program, context));
            let mut open = true;
            let ended = loop {
                tokio::select! {
                    ended = &mut end => break ended,
                    () = &mut pipes, if open => open = false,
                }
            };
            if open {
                let _ = timeout(PIPES, &mut pipes).await;
            }
            ended
        };
        let stderr = tail.lock().unwrap_or_else(PoisonError::into_inner).text();
        if called_off {
            // Many programs end with 0 on SIGTERM: that is not "done".
            return Outcome::Retry {
                error: error("stopped", "the program was stopped", &stderr),
                after_ms: None,
            }
            .into();
        }
        match status {
            Ok(status) => self.verdict(status, output, &stderr, context).await,
            Err(why) => {
                Outcome::Retry { error: error("exit", &why.to_string(), &stderr), after_ms: None }.into()
            }
        }
    }

    async fn verdict(&self, status: ExitStatus, output: Output, stderr: &str, context: &Context) -> Verdict {
        let told = exit::describe(status);
        // An end that is no error needs no explanation.
        let explained = match status.code() {
            Some(0 | EX_TEMPFAIL) => None,
            _ => self.program.explain(Some(status), stderr),
        };
        let with_hint = match explained {
            Some(Explained::NotStarted(why)) => {
                return self.program.cannot_start(context, &why, START_AGAIN).await;
            }
            Some(Explained::Hint(hint)) if stderr.is_empty() => hint,
            Some(Explained::Hint(hint)) => format!("{stderr}\n{hint}"),
            None => stderr.to_owned(),
        };
        let stderr = with_hint.as_str();
        let message = if stderr.is_empty() { told } else { format!("{told}: {stderr}") };
        match status.code() {
            Some(0) => {
                if output.bytes > limits::RESULT_BYTES_MAX {
                    let line = format!("stdout had {} bytes, too many for a result: not kept", output.bytes);
                    // The work is done whether or not the line is kept.
                    let _ = context.log([line]).await;
                }
                Outcome::Done { result: output.result() }.into()
            }
            Some(EX_DATAERR) => Outcome::Fail { error: error("exit", &message, "") }.into(),
            Some(EX_TEMPFAIL) => match output.outcome() {
                None => snooze(self.snooze),
                Some(Ok(outcome)) => outcome.into(),
                Some(Err(why)) => retry("protocol", &why),
            },
            _ if exit::is_crash(status) => Outcome::Crash(exit::crash(Some(status), stderr)).into(),
            _ => retry("exit", &message),
        }
    }
}

impl Handler for OneShot {
    async fn run(&self, context: Context) -> Verdict {
        let steps = match context.all_stored_steps().await {
            Ok(steps) => protocol::steps_json(&steps),
            Err(why) => return retry("steps", &why.to_string()),
        };
        let children = children_json(context.job().children.as_deref());
        for (what, kind, text) in
            [("stored steps", "steps_too_large", &steps), ("children", "children_too_large", &children)]
        {
            if text.len() > VARIABLE_BYTES_MAX {
                let bytes = text.len();
                let message = format!(
                    "the {what} have {bytes} bytes; a program that runs once per job gets {VARIABLE_BYTES_MAX} at most: use a pool"
                );
                return Outcome::Fail { error: error(kind, &message, "") }.into();
            }
        }
        match self.program.spawn(&environment(&context, steps, children)) {
            Ok(child) => self.watch(child, &context).await,
            Err(why) => self.program.cannot_start(&context, &why.to_string(), START_AGAIN).await,
        }
    }
}

fn retry(kind: &str, message: &str) -> Verdict {
    Outcome::Retry { error: error(kind, message, ""), after_ms: None }.into()
}

fn environment(context: &Context, steps: String, children: String) -> [(&'static str, String); 8] {
    let job = context.job();
    [
        ("MILLPOND_JOB_ID", job.id.to_string()),
        ("MILLPOND_QUEUE", job.queue.to_string()),
        ("MILLPOND_ATTEMPT", job.attempt.to_string()),
        ("MILLPOND_ATTEMPTS", job.attempts.to_string()),
        ("MILLPOND_LEASE_TOKEN", job.lease_token.to_string()),
        ("MILLPOND_DEADLINE_MS", job.timeout_at.0.to_string()),
        ("MILLPOND_STEPS", steps),
        ("MILLPOND_CHILDREN", children),
    ]
}

/// Waits for the end, or brings it about. The whole group is gone afterwards. True if the attempt was called off.
async fn wait(
    child: &mut Child,
    group: &Group,
    program: &Program,
    context: &Context,
) -> (std::io::Result<ExitStatus>, bool) {
    let ended = tokio::select! {
        status = child.wait() => (status, false),
        _ = context.cancelled().wait() => {
            group.terminate();
            let status = match timeout(program.grace, child.wait()).await {
                Ok(status) => status,
                Err(_) => {
                    group.kill();
                    child.wait().await
                }
            };
            (status, true)
        }
    };
    group.kill();
    ended
}

/// A program need not read its body, so a broken pipe is no error.
async fn feed(stdin: Option<ChildStdin>, body: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(body).await;
    }
}

/// What a program wrote to stdout: as much as a result may have, and a count of the rest.
#[derive(Default)]
struct Output {
    kept: Vec<u8>,
    bytes: usize,
}

impl Output {
    async fn read(&mut self, stdout: Option<impl AsyncRead + Unpin>) {
        let Some(mut stdout) = stdout else { return };
        let mut chunk = [0; 8_192];
        while let Ok(read @ 1..) = stdout.read(&mut chunk).await {
            self.bytes += read;
            if self.bytes <= limits::RESULT_BYTES_MAX {
                self.kept.extend_from_slice(&chunk[..read]);
            }
        }
    }

    /// The outcome that the last line says; `None` if that line is no JSON object.
    fn outcome(&self) -> Option<Result<Outcome, String>> {
        let line = self.kept.trim_ascii().rsplit(|byte| *byte == b'\n').next()?;
        line.starts_with(b"{").then(|| protocol::read_outcome(line))
    }

    fn result(self) -> Option<bytes::Bytes> {
        if self.bytes > limits::RESULT_BYTES_MAX { None } else { result_of(&self.kept) }
    }
}
