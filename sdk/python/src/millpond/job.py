"""The attempt that a handler is running."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from typing import TYPE_CHECKING, Any, Awaitable, Callable, TypeVar, Union

from . import errors
from .http import job_path
from .push import wire_job
from .values import Span, decode, encode, millis

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .push import JobOptions
    from .worker import Worker

T = TypeVar("T")


class Attempt:
    """A job that came, until its outcome is told. `reason` says why it was called off, if it was."""

    __slots__ = ("raw", "token", "came", "renewed", "lease_end", "deadline", "reason", "suspended", "pushes", "stop", "event")

    def __init__(self, raw: dict[str, Any], now: float, lease: float):
        self.raw = raw
        self.token: int = raw["lease_token"]
        self.came = self.renewed = now
        # The answer was under way for an unknown while: a tenth of the lease is given up for it.
        self.lease_end = now + 0.9 * lease
        # Both are the server's times, so their difference holds whatever its clock says.
        self.deadline: float = now + lease + (raw.get("timeout_at", 0) - raw.get("lease_until", 0)) / 1000
        self.reason: str | None = None
        self.suspended: dict[str, Any] | None = None
        self.pushes: list[dict[str, Any]] = []
        #: Stops the handler.
        self.stop: Callable[[], object] | None = None
        self.event: threading.Event | None = None

    def lease(self) -> dict[str, Any]:
        """As messages name it."""
        return {"queue": self.raw["queue"], "id": self.raw["id"], "lease_token": self.token}


class BaseJob:
    """What all handlers see of their job."""

    def __init__(self, attempt: Attempt, worker: Worker):
        raw = attempt.raw
        self._attempt, self._worker = attempt, worker
        self.id: str = raw["id"]
        self.queue: str = raw["queue"]
        #: 1 for the first.
        self.attempt: int = raw.get("attempt", 1)
        #: How many attempts there are.
        self.attempts: int = raw.get("attempts", 0)
        self._stored: dict[str, dict[str, Any]] | None = None if raw.get("steps") else {}
        self._used: dict[str, int] = {}

    @property
    def body(self) -> Any:
        """Parsed JSON; bytes if the body is something else."""
        return self.raw_body if self.content_type else decode(self.raw_body)

    @property
    def raw_body(self) -> bytes:
        """As it was pushed."""
        body = self._attempt.raw.get("body", b"")
        return body if isinstance(body, bytes) else str(body).encode()

    @property
    def content_type(self) -> str:
        """Empty for JSON."""
        return str(self._attempt.raw.get("content_type", ""))

    @property
    def token(self) -> int:
        """Larger than every token before it: pass it to whatever must refuse the writes of an old attempt."""
        return self._attempt.token

    @property
    def tags(self) -> list[str]:
        """Of the push."""
        return list(self._attempt.raw.get("tags", ()))

    @property
    def meta(self) -> dict[str, str]:
        """Of the push."""
        return dict(self._attempt.raw.get("meta", ()))

    @property
    def group(self) -> str | None:
        """The fairness group of the push."""
        return self._attempt.raw.get("group")

    @property
    def crashes(self) -> int:
        """How often a worker died of it."""
        return int(self._attempt.raw.get("crashes", 0))

    @property
    def seconds_left(self) -> float:
        """Until the attempt is called off."""
        return float(self._attempt.deadline - time.monotonic())

    @property
    def children(self) -> dict[str, Any] | None:
        """The join that the job waited for: `name`, `state`, `members` with `name`, `state` and `result` or `error`."""
        join = self._attempt.raw.get("children")
        return _readable(join) if join else None

    @property
    def cancelled(self) -> str | None:
        """Why the attempt was called off, if it was: `cancelled`, `timeout`, `lease_lost`, `stopping`."""
        return self._attempt.reason

    def push(self, queue: str, body: Any, **options: Unpack[JobOptions]) -> None:
        """Adds a job in the same change that ends this attempt: it exists exactly if the outcome is kept."""
        self._attempt.pushes.append(wire_job(queue, body, options))

    def _ask(self, name: str, fields: dict[str, Any], safe: bool) -> Any:
        said = {"lease": self._attempt.lease(), "worker": self._worker.name, **fields}
        return self._worker.link.ask(name, said, safe=safe)

    def _progress(self, value: Any) -> Any:
        return self._ask("progress", {"value": encode(value)}, True)

    def _log(self, text: Any) -> Any:
        # Lines are not written twice.
        return self._ask("log", {"lines": str(text).split("\n")}, False)

    def _named(self, name: str) -> str:
        # A loop that goes round in the same order at every attempt finds its own steps again.
        times = self._used[name] = self._used.get(name, 0) + 1
        return name if times == 1 else f"{name}#{times}"

    async def _steps(self) -> dict[str, dict[str, Any]]:
        if self._stored is None:
            path = job_path(self.queue, self.id, "/steps")
            answer = await asyncio.to_thread(self._worker.http.call, "GET", path)
            self._stored = {step["name"]: step for step in answer["steps"]}
        return self._stored

    async def _store(self, name: str, value: Any) -> Any:
        result = encode(value)
        while True:
            try:
                had = await asyncio.wrap_future(self._ask("step", {"name": name, "result": result}, True))
                break
            except (errors.Away, errors.UnknownOutcome):
                if self._attempt.reason:
                    raise
        if had is not None:
            # An earlier attempt has stored it: its result counts.
            self._stored = None
            return (await self._steps())[name].get("value")
        # As the next attempt will find it.
        stored = decode(result)
        (await self._steps())[name] = {"kind": "result", "value": stored}
        return stored

    def _suspend(self, outcome: str, step: str, fields: dict[str, Any]) -> errors.Suspended:
        # The first one counts, whatever the handler makes of the exception.
        if self._attempt.suspended is None:
            self._attempt.suspended = {"outcome": outcome, "step": step, **fields}
        return errors.Suspended(step)

    async def _sleep(self, name: str, span: Span) -> None:
        if self._named_step(name) not in await self._steps():
            raise self._suspend("sleep", self._last, {"after_ms": millis(span)})

    async def _wait_for_signal(self, signal: str, timeout: Span | None) -> Any:
        steps = await self._steps()
        if self._named_step(signal) not in steps:
            fields = {"signal": signal, "timeout_ms": millis(timeout) if timeout is not None else 0}
            raise self._suspend("wait_for_signal", self._last, fields)
        return steps[self._last].get("value")

    async def _child(self, name: str, queue: str, body: Any, options: Any) -> Any:
        step = (await self._steps()).get(self._named_step(name), {})
        ended = step.get("ended")
        if not ended:
            raise self._suspend("wait_for_child", self._last, {"child": wire_job(queue, body, options)})
        if ended != "completed":
            raise errors.JobFailed(ended, f"child {step.get('child_id')}: {step.get('error') or 'did not complete'}", step)
        return step.get("value")

    def _named_step(self, name: str) -> str:
        self._last = self._named(name)
        return self._last


def _readable(join: dict[str, Any]) -> dict[str, Any]:
    """A join with its results parsed."""
    members = []
    for member in join.get("members", ()):
        member = dict(member)
        if isinstance(member.get("result"), bytes):
            member["result"] = decode(member["result"])
        if isinstance(member.get("join"), dict):
            member["join"] = _readable(member["join"])
        members.append(member)
    return {**join, "members": members}


class Job(BaseJob):
    """The attempt as a handler in a thread sees it. What asks the server raises `Cancelled` once the attempt was called off."""

    def check(self) -> None:
        """Raises `Cancelled` if the attempt was called off. Threads cannot be stopped from outside: call it in long loops."""
        if self._attempt.reason:
            raise errors.Cancelled(self._attempt.reason)

    def wait_cancelled(self, timeout: float | None = None) -> str | None:
        """Waits until the attempt is called off; why, or None after `timeout` seconds."""
        if self._attempt.event is None:
            self._attempt.event = threading.Event()
        if self._attempt.reason is None:
            self._attempt.event.wait(timeout)
        return self._attempt.reason

    def progress(self, value: Any) -> None:
        """Shows how far the job is: any JSON value of at most 16 KiB."""
        self.check()
        self._progress(value).result()

    def log(self, text: object) -> None:
        """Appends lines to the job's own log."""
        self.check()
        self._log(text).result()

    def step(self, name: str, run: Callable[[], T]) -> T:
        """Does something once in the job's life: later attempts get the stored result. In a loop, steps are numbered."""
        self.check()
        name = self._named(name)
        steps: dict[str, Any] = self._worker.link.run(self._steps())
        if name in steps:
            return steps[name].get("value")  # type: ignore[no-any-return]
        return self._worker.link.run(self._store(name, run()))  # type: ignore[no-any-return]

    def sleep(self, name: str, span: Span) -> None:
        """Sleeps without a worker, also for years. The handler starts again from its top."""
        self._worker.link.run(self._sleep(name, span))

    def wait_for_signal(self, signal: str, timeout: Span | None = None) -> Any:
        """The signal's body, or None if it did not come in time (a day if not said)."""
        return self._worker.link.run(self._wait_for_signal(signal, timeout))

    def child(self, name: str, queue: str, body: Any = None, **options: Unpack[JobOptions]) -> Any:
        """Pushes a job once and gives its result when it has ended; raises `JobFailed` if it did not complete."""
        return self._worker.link.run(self._child(name, queue, body, options))


class AsyncJob(BaseJob):
    """The attempt as an `async def` handler sees it. When it is called off, the handler's task is cancelled."""

    async def progress(self, value: Any) -> None:
        """Shows how far the job is: any JSON value of at most 16 KiB."""
        await asyncio.wrap_future(self._progress(value))

    async def log(self, text: object) -> None:
        """Appends lines to the job's own log."""
        await asyncio.wrap_future(self._log(text))

    async def step(self, name: str, run: Callable[[], Union[Awaitable[T], T]]) -> T:
        """Does something once in the job's life: later attempts get the stored result. In a loop, steps are numbered."""
        name = self._named(name)
        steps: dict[str, Any] = await self._steps()
        if name in steps:
            return steps[name].get("value")  # type: ignore[no-any-return]
        value = run()
        return await self._store(name, await value if inspect.isawaitable(value) else value)  # type: ignore[no-any-return]

    async def sleep(self, name: str, span: Span) -> None:
        """Sleeps without a worker, also for years. The handler starts again from its top."""
        await self._sleep(name, span)

    async def wait_for_signal(self, signal: str, timeout: Span | None = None) -> Any:
        """The signal's body, or None if it did not come in time (a day if not said)."""
        return await self._wait_for_signal(signal, timeout)

    async def child(self, name: str, queue: str, body: Any = None, **options: Unpack[JobOptions]) -> Any:
        """Pushes a job once and gives its result when it has ended; raises `JobFailed` if it did not complete."""
        return await self._child(name, queue, body, options)
