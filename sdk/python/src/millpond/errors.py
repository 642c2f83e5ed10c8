"""What a call may raise, and what a handler may raise to say how its attempt ends."""

from __future__ import annotations

from typing import Any, Mapping

from .values import Span


class Error(Exception):
    """A call that brought nothing. `code` is stable, the text is for people; docs/errors.md lists the codes of the server."""

    def __init__(self, code: str, detail: str, retry_after: float | None = None):
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        #: Seconds after which a repetition makes sense, if the server said so.
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.detail, self.retry_after)


class Refused(Error):
    """The server refused the call; nothing was changed."""


class Away(Error):
    """The server did not answer for as long as calls wait; nothing was changed. The link is made again by itself."""


class UnknownOutcome(Error):
    """The server went away with the call: it may have happened or not. An idempotency key makes it safe to repeat, and is then
    repeated without asking."""


class Closed(Error):
    """The pond was closed by this program."""


class JobFailed(Error):
    """A job whose result was asked for did not complete; `code` is its state, `job` all that the server says of it."""

    def __init__(self, code: str, detail: str, job: Mapping[str, Any]):
        super().__init__(code, detail)
        self.job = job

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.code, self.detail, self.job)


class BadBody(ValueError):
    """A body is not what the handler takes. The job is dead at once: the next attempt would read the same."""


def refused(fields: Mapping[str, Any]) -> Error:
    """The error of a refusal as the server words it."""
    code, detail, after = fields.get("code", ""), fields.get("detail", ""), fields.get("retry_after_ms")
    kind = UnknownOutcome if code == "unknown_outcome" else Refused
    return kind(code, detail, after / 1000 if after else None)


# --- how an attempt ends, raised by handlers ---


class Outcome(Exception):
    """What handlers raise that is no mistake. Any other exception is a retry by the job's backoff."""


class Retry(Outcome):
    """Try again while attempts are left, after `after` if given, else by the job's backoff."""

    def __init__(self, message: str = "", after: Span | None = None):
        super().__init__(message)
        self.after = after


class Fail(Outcome):
    """No further attempt can help: the job is dead now."""


class Snooze(Outcome):
    """Later; no attempt is used."""

    def __init__(self, after: Span):
        super().__init__(f"snoozed for {after}")
        self.after = after


class RateLimited(Outcome):
    """What the handler needs says "too many": nothing of the queue starts for `after`, or, with the name of one of the job's limits,
    nothing that counts against that limit. No attempt is used."""

    def __init__(self, after: Span, limit: str | None = None):
        super().__init__(f"rate limited for {after}")
        self.after, self.limit = after, limit


class Wait(Outcome):
    """Adds jobs and waits for them without a worker: `Wait({name: {"queue", "body", …}}, policy="any")`, or several joins by
    `joins=[{"name", "members", "policy", …}]`, the last of which is waited for. Then the job starts again, with what came of them in
    `job.children`. No attempt is used."""

    def __init__(self, jobs: Mapping[str, Mapping[str, Any]], joins: list[dict[str, Any]] | None = None, **join: Any):
        super().__init__("waits for children")
        self.jobs = jobs
        self.joins = joins if joins is not None else [{"name": "join", "members": list(jobs), **join}]


class Cancel(Outcome):
    """The handler calls its own job off."""


class Cancelled(BaseException):
    """Raised by `job.check()` in a thread when its attempt was called off. Clean up and let it pass."""


class Suspended(BaseException):
    """Raised by `job.sleep`, `wait_for_signal` and `child`: let it pass. The job starts again when what it waits for has come."""
