"""Takes jobs of queues, runs a handler for each, keeps their leases, and tells what became of them.

The link's thread has the leases; handlers run in threads or on the event loop where the worker was started. A job passes from one to
the other through `_waiting`: whoever takes it out of there has it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import queue
import threading
import time
import traceback
import typing
from collections import deque
from dataclasses import dataclass
from typing import Any, Callable, Sequence

from . import errors
from .http import Http
from .job import AsyncJob, Attempt, BaseJob, Job
from .link import Answer, Link, Request
from .push import Durability, queue_name, wire_job
from .values import Span, build, encode, millis, pack

log = logging.getLogger("millpond")

#: Jobs wait here for what the handlers finish in so many seconds at their present pace.
AHEAD = 0.02
#: Outcomes in one message, and their bytes, about.
OUTCOMES_MAX = 1_000
OUTCOMES_BYTES_MAX = 4 << 20
ERROR_BYTES_MAX = 16 << 10


@dataclass
class WorkerOptions:
    """How a worker works; see `Queue.worker`."""

    concurrency: int = 16
    lease: Span = 30
    prefetch: int = 1_000
    timeout: Span | None = None
    max_blocked: Span = 60
    grace: Span = 5
    durability: Durability | None = None


class Function:
    """A handler's function, and the type of the bodies that it takes."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        try:
            hints = typing.get_type_hints(function)
        except NameError:
            # A type that exists for checkers only.
            hints = {}
        # What has a default is the function's own.
        names = [
            name
            for name, one in inspect.signature(function).parameters.items()
            if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) and one.default is one.empty
        ]
        if len(names) not in (1, 2):
            raise TypeError(f"{function!r} takes the job, and its body if it likes")
        self.takes_body = len(names) == 2
        self.kind = hints.get(names[-1], Any) if self.takes_body else Any

    def arguments(self, job: BaseJob) -> tuple[Any, ...]:
        """What it is called with."""
        if not self.takes_body:
            return (job,)
        try:
            return job, job.body if self.kind is Any else build(self.kind, job.body)
        except errors.BadBody:
            raise
        except (ValueError, TypeError) as error:
            raise errors.BadBody(f"the body is not what the handler takes: {error}") from error


class Worker:
    """A handler at work. Made by `Queue.worker`; `stop` ends it kindly."""

    def __init__(self, link: Link, http: Http, queues: Sequence[str], function: Callable[..., Any], options: WorkerOptions):
        self.link, self.http, self.name = link, http, link.options.name
        self._queues = [queue_name(name) for name in queues]
        self._function = Function(function)
        self._options = options
        self._lease = millis(options.lease) / 1000
        self._timeout = millis(options.timeout) / 1000 if options.timeout is not None else None
        self._max_blocked = millis(options.max_blocked) / 1000
        self._grace = millis(options.grace) / 1000
        #: What the handlers did so far.
        self.finished = 0
        #: Why the server wants nothing of this worker, if so.
        self.refused: errors.Error | None = None
        #: Told whenever jobs were finished, on the link's thread.
        self.on_finished: Callable[[], None] | None = None
        #: Told of a job that a handler begins (True) or is through with.
        self.on_job: Callable[[Attempt, bool], None] | None = None
        # Of the link's thread.
        self._held: dict[int, Attempt] = {}
        self._came = self._credit = self._untold = 0
        self._ahead, self._pace = 0, (time.monotonic(), 0)
        self._closing = self._renew_all = False
        self._renewing: asyncio.Task[None] | None = None
        self._probe: float | None = None
        self._ended = threading.Event()
        # Of both sides.
        self._waiting: dict[int, Attempt] = {}
        self._done: deque[tuple[Attempt, dict[str, Any] | None]] = deque()
        self._settling = False
        # Of the handlers' side.
        self._loop = _running_loop() if self._function.is_async else None
        self._ready: deque[Attempt] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads: list[threading.Thread] = []
        self._for_threads: queue.SimpleQueue[Attempt | None] = queue.SimpleQueue()
        link.call(self._start)

    async def stop(self, within: Span = 30) -> bool:
        """Takes no more jobs, waits for the running ones, and gives the rest back. After `within`, handlers are told to stop and have
        their grace. False if some still run: their jobs go back when the pond is closed."""
        return await asyncio.to_thread(self.stop_now, within)

    def stop_now(self, within: Span = 30) -> bool:
        """`stop` for who does not await."""
        try:
            self.link.call(lambda: self._start_stopping(millis(within) / 1000))
            self._ended.wait()
        except errors.Closed:
            # Its leases went back.
            pass
        return not self._held

    # --- the link's thread: jobs come ---

    def _start(self) -> None:
        self.link.subscribe(self)
        self._keeper = self.link.loop.create_task(self._keep())

    def begin(self) -> dict[str, Any]:
        self._came = self._credit = 0
        self._credit = self._room()
        fields = {"queues": self._queues, "credit": self._credit, "lease_ms": round(self._lease * 1000), "worker": self.name}
        return {**fields, "durability": self._options.durability} if self._options.durability else fields

    def received(self) -> int:
        return self._came

    def jobs(self, jobs: list[dict[str, Any]]) -> None:
        self._came += len(jobs)
        now = time.monotonic()
        attempts = [Attempt(raw, now, self._lease) for raw in jobs]
        for attempt in attempts:
            if self._timeout is not None:
                attempt.deadline = min(attempt.deadline, now + self._timeout)
            self._held[attempt.token] = self._waiting[attempt.token] = attempt
        if self._loop is None:
            missing = min(self._options.concurrency, len(self._held)) - len(self._threads)
            for _ in range(missing):
                thread = threading.Thread(target=self._thread, name=f"millpond-{self._queues[0]}", daemon=True)
                self._threads.append(thread)
                thread.start()
            for attempt in attempts:
                self._for_threads.put(attempt)
        else:
            self._on_loop(self._arrive, attempts)

    def _on_loop(self, what: Callable[..., Any], *args: Any) -> None:
        try:
            if self._loop:
                self._loop.call_soon_threadsafe(what, *args)
        except RuntimeError:
            # The loop was closed without stopping the worker: its leases end.
            pass

    def revoked(self, message: dict[str, Any]) -> None:
        for lost in message.get("leases", ()):
            attempt = self._held.get(lost["lease"]["lease_token"])
            if attempt:
                self._call_off(attempt, lost["reason"])
        self._renew_all |= bool(message.get("missed"))

    def ended(self, why: errors.Error) -> None:
        self.refused = why
        log.error("no jobs of %s for this worker: %s", ", ".join(self._queues), why)
        if self.on_finished:
            self.on_finished()

    def _room(self) -> int:
        if self._closing:
            return 0
        options = self._options
        room = options.concurrency + self._ahead - len(self._held)
        # Outcomes that cannot be told bound what is taken, whatever the handlers' pace.
        return max(0, min(room, 4 * (options.concurrency + options.prefetch) - len(self._held) - self._untold))

    def _take_more(self) -> None:
        credit = self._came + self._room()
        if credit > self._credit:
            self._credit = credit
            self.link.credit(self, credit)

    # --- the link's thread: jobs end ---

    def _settle(self) -> None:
        self._settling = False
        batch: list[dict[str, Any]] = []
        size = 0
        for _ in range(len(self._done)):
            attempt, outcome = self._done.popleft()
            self._held.pop(attempt.token, None)
            self.finished += 1
            if outcome is None:
                continue
            said = {**attempt.lease(), **outcome}
            size += len(said.get("result") or b"")
            batch.append(said)
            if len(batch) >= OUTCOMES_MAX or size > OUTCOMES_BYTES_MAX:
                self._tell(batch)
                batch, size = [], 0
        if batch:
            self._tell(batch)
        now = time.monotonic()
        since, count = self._pace
        if now - since >= 0.005:
            pace = (self.finished - count) / (now - since)
            self._ahead = min(self._options.prefetch, int(pace * AHEAD))
            self._pace = now, self.finished
        self._take_more()
        if self.on_finished:
            self.on_finished()

    def _tell(self, batch: list[dict[str, Any]]) -> None:
        self._untold += len(batch)
        self._send(batch, time.monotonic() + self._lease)

    def _send(self, batch: list[dict[str, Any]], until: float) -> None:
        fields: dict[str, Any] = {"outcomes": batch, "worker": self.name}
        if self._options.durability:
            fields["durability"] = self._options.durability
        heard = lambda answer, error: self._told(batch, until, answer, error)
        self.link.add(Request("outcomes", pack(fields), True, heard))

    def _told(self, batch: list[dict[str, Any]], until: float, answer: Answer, error: errors.Error | None) -> None:
        if error is None:
            for outcome, result in zip(batch, answer.get("results", ())):
                if "code" in result:
                    self._refused_outcome(outcome, result)
        elif isinstance(error, errors.Closed):
            pass
        elif isinstance(error, (errors.Away, errors.UnknownOutcome)) or error.retry_after is not None or error.code == "disk_full":
            if time.monotonic() < until:
                self.link.loop.call_later(error.retry_after or 0.25, self._send, batch, until)
                return
            log.warning("%d outcomes were not told before their leases ended: %s", len(batch), error)
        elif len(batch) > 1:
            # One is to blame; the others are not refused with it.
            for outcome in batch:
                self._send([outcome], until)
            return
        else:
            self._refused_outcome(batch[0], {"code": error.code, "detail": error.detail})
        self._untold -= len(batch)
        self._take_more()

    def _refused_outcome(self, outcome: dict[str, Any], why: dict[str, Any]) -> None:
        code, detail = why.get("code", ""), why.get("detail", "")
        log.warning("the outcome of job %s was refused: %s: %s", outcome["id"], code, detail)
        if code in ("stale_lease", "cancelled", "unknown_job", "wrong_state") or outcome["outcome"] == "fail":
            return
        # It would be refused for ever, such as a result that is too large.
        lease = {name: outcome[name] for name in ("queue", "id", "lease_token")}
        self._tell([{**lease, "outcome": "fail", "error": {"kind": code or "refused", "message": cut(detail)}}])

    # --- the link's thread: leases ---

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(min(0.05, self._lease / 12))
            try:
                self._look_after(time.monotonic())
            except Exception:
                # Leases are to be kept whatever happens.
                log.exception("a mistake of the worker")

    def _look_after(self, now: float) -> None:
        unwanted = []
        for attempt in list(self._held.values()):
            # One that waited so long is better off with another worker.
            stale = now - attempt.came > self._lease / 3
            if stale and self._waiting.pop(attempt.token, None) is not None:
                del self._held[attempt.token]
                unwanted.append(attempt.raw)
            elif attempt.lease_end <= now:
                self._call_off(attempt, "lease_lost")
            elif attempt.deadline <= now:
                self._call_off(attempt, "timeout")
        if unwanted:
            self.link.give_back(unwanted)
            self._take_more()
        if self._progresses(now) and (self._renewing is None or self._renewing.done()):
            age = 0 if self._renew_all else self._lease / 6
            self._renew_all = False
            due = [one for one in self._held.values() if now - one.renewed >= age and not one.reason]
            if due:
                self._renewing = self.link.loop.create_task(self._renew(due, now))

    def _progresses(self, now: float) -> bool:
        """Whether the loop of the handlers turns: a worker that hangs must lose its jobs to others."""
        if self._loop is None:
            return True
        # The loop answers at any time, on its own thread.
        asked = self._probe
        if asked is None:
            asked = self._probe = now
            self._on_loop(self._alive)
        return now - asked < self._max_blocked

    def _alive(self) -> None:
        self._probe = None

    async def _renew(self, due: list[Attempt], now: float) -> None:
        for at in range(0, len(due), OUTCOMES_MAX):
            some = due[at : at + OUTCOMES_MAX]
            fields = {"leases": [one.lease() for one in some], "lease_ms": round(self._lease * 1000), "worker": self.name}
            try:
                answer = self.link.ask("renew", fields, safe=True)
                results = (await asyncio.wait_for(asyncio.wrap_future(answer), self._lease / 3))["results"]
            except (errors.Error, asyncio.TimeoutError):
                # They are due at the next look again, until they end.
                return
            for attempt, result in zip(some, results):
                if "code" not in result:
                    attempt.renewed, attempt.lease_end = now, now + self._lease
                elif attempt.token in self._held:
                    self._call_off(attempt, "cancelled" if result["code"] == "cancelled" else "lease_lost")

    def _call_off(self, attempt: Attempt, reason: str) -> None:
        if attempt.reason:
            return
        attempt.reason = reason
        if self._waiting.pop(attempt.token, None):
            del self._held[attempt.token]
            self._take_more()
            return
        if attempt.event:
            attempt.event.set()
        if self._loop is not None:
            self._on_loop(lambda: attempt.stop() if attempt.stop else None)

    # --- the link's thread: the end ---

    def _start_stopping(self, within: float) -> None:
        if not self._closing:
            self._closing = True
            self._stopping = self.link.loop.create_task(self._stop(within))

    async def _stop(self, within: float) -> None:
        try:
            await self._drain(within)
        finally:
            self._ended.set()

    async def _drain(self, within: float) -> None:
        self.link.unsubscribe(self)
        back = [self._waiting.pop(token).raw for token in list(self._waiting) if token in self._waiting]
        for raw in back:
            del self._held[raw["lease_token"]]
        self.link.give_back(back)
        if not await self._quiet(within):
            for attempt in list(self._held.values()):
                self._call_off(attempt, "stopping")
            await self._quiet(self._grace)
        self._keeper.cancel()
        for _ in self._threads:
            self._for_threads.put(None)

    async def _quiet(self, within: float) -> bool:
        until = time.monotonic() + within
        while (self._held or self._untold or self._done) and time.monotonic() < until:
            await asyncio.sleep(0.01)
        return not self._held and not self._untold

    # --- the handlers' side ---

    def _finish(self, attempt: Attempt, outcome: dict[str, Any]) -> None:
        if self.on_job:
            self.on_job(attempt, False)
        called_off = outcome["outcome"] == "called_off"
        said: dict[str, Any] | None = attempt.suspended or outcome
        if attempt.reason not in (None, "stopping"):
            # It would be refused.
            said = None
        elif called_off and attempt.reason:
            said = {"outcome": "snooze", "after_ms": 0}
        elif called_off:
            said = {"outcome": "retry", "error": {"kind": "Cancelled", "message": "the handler was cancelled from within"}}
        if said and attempt.pushes:
            said = {**said, "push": attempt.pushes}
        self._done.append((attempt, said))
        if not self._settling:
            self._settling = True
            try:
                self.link.call(self._settle)
            except errors.Closed:
                # Its lease went back.
                pass

    def _arrive(self, attempts: list[Attempt]) -> None:
        self._ready.extend(attempts)
        self._start_tasks()

    def _start_tasks(self) -> None:
        loop = self._loop
        while loop and self._ready and len(self._tasks) < self._options.concurrency:
            attempt = self._ready.popleft()
            if self._waiting.pop(attempt.token, None):
                task = loop.create_task(self._run_async(attempt))
                self._tasks.add(task)
                attempt.stop = task.cancel

    async def _run_async(self, attempt: Attempt) -> None:
        if self.on_job:
            self.on_job(attempt, True)
        try:
            outcome = done(await self._function.function(*self._function.arguments(AsyncJob(attempt, self))))
        except (Exception, asyncio.CancelledError, errors.Cancelled, errors.Suspended) as error:
            outcome = failed(error)
        attempt.stop = None
        task = asyncio.current_task()
        if task:
            self._tasks.discard(task)
        self._finish(attempt, outcome)
        if self._ready:
            self._start_tasks()

    def _thread(self) -> None:
        while True:
            attempt = self._for_threads.get()
            if attempt is None:
                return
            if not self._waiting.pop(attempt.token, None):
                continue
            if self.on_job:
                self.on_job(attempt, True)
            try:
                outcome = done(self._function.function(*self._function.arguments(Job(attempt, self))))
            except BaseException as error:
                outcome = failed(error)
            self._finish(attempt, outcome)


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise TypeError("an `async def` needs a running event loop: use millpond.aio, or an App") from None


def done(result: Any) -> dict[str, Any]:
    """The outcome of a handler that returned."""
    if result is None:
        return {"outcome": "done"}
    try:
        return {"outcome": "done", "result": encode(result)}
    except (TypeError, ValueError, RecursionError) as error:
        return {"outcome": "fail", "error": _told(error, "encode")}


def failed(error: BaseException) -> dict[str, Any]:
    """The outcome of a handler that raised."""
    try:
        return _failed(error)
    except (TypeError, ValueError) as wrong:
        # The outcome itself makes no sense, such as a span that is none.
        return {"outcome": "retry", "error": _told(wrong)}


def _failed(error: BaseException) -> dict[str, Any]:
    if isinstance(error, errors.Snooze):
        return {"outcome": "snooze", "after_ms": millis(error.after)}
    if isinstance(error, errors.RateLimited):
        limit = {"limit": error.limit} if error.limit else {}
        return {"outcome": "rate_limited", "after_ms": millis(error.after), **limit}
    if isinstance(error, errors.Wait):
        return {"outcome": "wait", "children": graph(error)}
    if isinstance(error, errors.Cancel):
        return {"outcome": "cancel", "reason": cut(str(error))}
    if isinstance(error, (errors.Fail, errors.BadBody)):
        return {"outcome": "fail", "error": _told(error, "decode" if isinstance(error, errors.BadBody) else None)}
    if isinstance(error, (errors.Cancelled, asyncio.CancelledError)):
        return {"outcome": "called_off"}
    after = getattr(error, "after", None) if isinstance(error, errors.Retry) else None
    return {"outcome": "retry", "error": _told(error), **({"after_ms": millis(after)} if after is not None else {})}


def graph(wait: errors.Wait) -> dict[str, Any]:
    """The children of a `Wait` as messages have them."""
    jobs = []
    for name, job in wait.jobs.items():
        options = {key: value for key, value in job.items() if key not in ("queue", "body")}
        jobs.append({"name": name, "job": wire_job(job["queue"], job.get("body"), options)})
    joins = []
    for join in wait.joins:
        join = {"name": "join", "policy": "all", "on_failure": "fail", "rest": "cancel", **join}
        if "k" in join:
            join["policy"] = ["k_of_n", join.pop("k")]
        joins.append(join)
    return {"jobs": jobs, "joins": joins}


def cut(text: str, most: int = ERROR_BYTES_MAX // 4) -> str:
    """Its start, as text that can be sent."""
    return text.encode(errors="replace")[:most].decode(errors="ignore")


def _told(error: BaseException, kind: str | None = None) -> dict[str, str]:
    stack = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    # What is deepest is at the end.
    end = stack.encode(errors="replace")[-ERROR_BYTES_MAX // 2 :].decode(errors="ignore")
    return {"kind": kind or type(error).__name__[:128], "message": cut(str(error)), "stack": end}
