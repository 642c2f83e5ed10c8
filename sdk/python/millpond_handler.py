"""Runs Python code as a child of a Millpond pool: jobs come in on stdin, outcomes go out on stdout, one JSON line each.

The protocol is described in docs/handlers.md. Needs Python 3.8 and nothing else.
"""

import base64
import json
import os
import signal
import sys
import traceback
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List


class Retry(Exception):
    """Raise it to try again, after `after_ms` if given. Any other exception does the same with the queue's backoff."""

    def __init__(self, message: str = "", after_ms: "int | None" = None):
        super().__init__(message)
        self.after_ms = after_ms


class Fail(Exception):
    """Raise it when no further attempt can help: the job is dead now."""


class Snooze(Exception):
    """Raise it to be asked again later; no attempt is used."""

    def __init__(self, after_ms: int):
        super().__init__(f"snoozed for {after_ms} ms")
        self.after_ms = after_ms


class RateLimited(Exception):
    """Raise it when what the handler needs says "too many": nothing of the queue starts for `after_ms`, or, with the name of one of
    the job's limits, nothing that counts against that limit. No attempt is used."""

    def __init__(self, after_ms: int, limit: "str | None" = None):
        super().__init__(f"rate limited for {after_ms} ms")
        self.after_ms = after_ms
        self.limit = limit


class Wait(Exception):
    """Raise it to add jobs and wait for them without a process: {"jobs": {name: {"queue", "id"?, "body"?}}, "join"?: {"policy", "k",
    "members", "on_failure", "rest", "ignore"}}. When their join has ended the job starts again, with what came of them in
    `job.children`. No attempt is used."""

    def __init__(self, children: dict):
        super().__init__("waits for children")
        self.children = children


class Cancelled(BaseException):
    """Raised inside the handler when the attempt is called off. Clean up and let it pass: the process is killed soon."""


class Suspended(BaseException):
    """Raised by sleep, wait_for_signal and child: let it pass. The job starts again when what it waits for has come."""


class ChildFailed(Exception):
    """Raised by child if that job did not complete."""


@dataclass
class Job:
    id: str
    queue: str
    body: Any  # parsed JSON, or bytes if the body is not JSON
    attempt: int  # 1 for the first
    attempts: int
    lease_token: int  # larger than every token before: pass it to whatever must refuse old writers
    deadline_ms: int  # Unix milliseconds; the attempt is called off then
    content_type: str
    tags: List[str] = field(default_factory=list)
    meta: Dict[str, str] = field(default_factory=dict)
    # The join that the job waited for, if it did: id, name, state, total, members with name, state, queue, id, result, error, join.
    children: "dict | None" = None
    steps: Dict[str, dict] = field(default_factory=dict)
    _send: Callable[[dict], None] = None
    _answer: Callable[[], dict] = None
    _used: Dict[str, int] = field(default_factory=dict)
    _suspended: "dict | None" = None

    def progress(self, value: Any) -> None:
        """Shows how far the job is: any JSON value."""
        self._send({"type": "progress", "lease_token": self.lease_token, "value": value})

    def log(self, text: Any) -> None:
        """Appends lines to the job's own log."""
        self._send({"type": "log", "lease_token": self.lease_token, "lines": str(text).split("\n")})

    def step(self, name: str, run: Callable[[], Any]) -> Any:
        """Does something once in the job's life: later attempts get the stored result. In a loop, steps are numbered."""
        name = self._named(name)
        if name not in self.steps:
            self._send({"type": "step", "lease_token": self.lease_token, "name": name, "result": run()})
            told = self._answer()
            if told.get("error"):
                raise RuntimeError(f"step {name} is not stored: {told['error']}")
            self.steps[name] = told
        return self.steps[name].get("value")

    def sleep(self, name: str, ms: int) -> None:
        """Sleeps without a process. The handler starts again from its top."""
        name = self._named(name)
        if name not in self.steps:
            self._suspend({"type": "sleep", "name": name, "after_ms": ms})

    def wait_for_signal(self, signal: str, timeout_ms: int = 0) -> Any:
        """The signal's body, or None if it did not come in time (a day if not said)."""
        name = self._named(signal)
        if name not in self.steps:
            self._suspend({"type": "wait_for_signal", "name": name, "signal": signal, "timeout_ms": timeout_ms})
        return self.steps[name].get("value")

    def child(self, name: str, queue: str, body: Any = None, id: "str | None" = None) -> Any:
        """Pushes a job once and gives back its result when it has ended."""
        name = self._named(name)
        step = self.steps.get(name, {})
        if not step.get("state"):
            self._suspend({"type": "wait_for_child", "name": name, "child": {"queue": queue, "id": id, "body": body}})
        if step["state"] != "completed":
            raise ChildFailed(f"child {step['id']} ended {step['state']}: {step.get('error', '')}")
        return step.get("value")

    def _named(self, name: str) -> str:
        times = self._used[name] = self._used.get(name, 0) + 1
        return name if times == 1 else f"{name}#{times}"

    def _suspend(self, end: dict) -> None:
        if self._suspended is None:
            self._suspended = end
        raise Suspended(end["name"])


def _job(frame: dict, send: Callable[[dict], None], answer: Callable[[], dict]) -> Job:
    body = frame["body"] if "body" in frame else base64.b64decode(frame.get("body_base64", ""))
    names = ("id", "queue", "attempt", "attempts", "lease_token", "deadline_ms", "content_type", "tags", "meta")
    given = {name: frame[name] for name in names}
    waited = {"children": frame.get("children"), "steps": frame.get("steps", {})}
    return Job(body=body, **waited, _send=send, _answer=answer, **given)


def _outcome(error: BaseException) -> dict:
    if isinstance(error, Snooze):
        return {"type": "snooze", "after_ms": error.after_ms}
    if isinstance(error, RateLimited):
        return {"type": "rate_limited", "after_ms": error.after_ms, "limit": error.limit}
    if isinstance(error, Wait):
        return {"type": "wait", "children": error.children}
    stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    told = {"kind": type(error).__name__, "message": str(error), "stack": stack}
    if isinstance(error, Fail):
        return {"type": "fail", "error": told}
    return {"type": "retry", "error": told, "after_ms": getattr(error, "after_ms", None)}


def _called_off(_signal, _frame):
    raise Cancelled("the attempt was called off")


def run(handler: Callable[[Job], Any]) -> None:
    """Takes jobs until stdin ends. What `handler` returns is the job's result."""
    # stdout belongs to the protocol: whatever else is printed, also by a program of its own, goes to stderr.
    frames = os.fdopen(os.dup(1), "w", encoding="utf-8", newline="\n")
    os.dup2(2, 1)
    sys.stdout = sys.stderr

    def send(frame: dict) -> None:
        frames.write(json.dumps(frame) + "\n")
        frames.flush()

    send({"type": "hello", "protocol": 1, "name": f"python {sys.version.split()[0]}"})
    def answer() -> dict:
        # While a handler runs, the worker writes nothing but answers to its steps.
        line = sys.stdin.buffer.readline()
        if not line:
            raise RuntimeError("the worker went away")
        return json.loads(line)

    for line in iter(sys.stdin.buffer.readline, b""):
        job = _job(json.loads(line), send, answer)
        signal.signal(signal.SIGTERM, _called_off)
        called_off, end = False, {}
        try:
            end = {"type": "done", "result": handler(job)}
            json.dumps(end)  # a result that is no JSON is the handler's error
        except Cancelled as error:
            called_off, end = True, _outcome(error)
        except Suspended:
            pass
        except Exception as error:
            end = _outcome(error)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # A suspension counts, whatever the handler made of it.
        send({**(end if called_off else job._suspended or end), "lease_token": job.lease_token})
        if called_off:
            return


def handler(function: Callable[[Job], Any]) -> Callable[[Job], Any]:
    """As a decorator of the program's only handler: takes jobs at once, so write it last."""
    run(function)
    return function
