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


class Cancelled(BaseException):
    """Raised inside the handler when the attempt is called off. Clean up and let it pass: the process is killed soon."""


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
    _send: Callable[[dict], None] = None

    def progress(self, value: Any) -> None:
        """Shows how far the job is: any JSON value."""
        self._send({"type": "progress", "lease_token": self.lease_token, "value": value})

    def log(self, text: Any) -> None:
        """Appends lines to the job's own log."""
        self._send({"type": "log", "lease_token": self.lease_token, "lines": str(text).split("\n")})


def _job(frame: dict, send: Callable[[dict], None]) -> Job:
    body = frame["body"] if "body" in frame else base64.b64decode(frame.get("body_base64", ""))
    names = ("id", "queue", "attempt", "attempts", "lease_token", "deadline_ms", "content_type", "tags", "meta")
    return Job(body=body, _send=send, **{name: frame[name] for name in names})


def _outcome(error: BaseException) -> dict:
    if isinstance(error, Snooze):
        return {"type": "snooze", "after_ms": error.after_ms}
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
    for line in sys.stdin.buffer:
        job = _job(json.loads(line), send)
        signal.signal(signal.SIGTERM, _called_off)
        called_off = False
        try:
            end = {"type": "done", "result": handler(job)}
            json.dumps(end)  # a result that is no JSON is the handler's error
        except Cancelled as error:
            called_off, end = True, _outcome(error)
        except Exception as error:
            end = _outcome(error)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        send({**end, "lease_token": job.lease_token})
        if called_off:
            return


def handler(function: Callable[[Job], Any]) -> Callable[[Job], Any]:
    """As a decorator of the program's only handler: takes jobs at once, so write it last."""
    run(function)
    return function
