"""The asyncio face: `pond = await millpond.aio.connect("millpond://127.0.0.1:7077")`."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping, TypedDict

from . import errors
from .http import Http, job_path, queue_path
from .link import Link, Options
from .push import Durability, Pushed, queue_name, wire_job
from .values import Span, millis
from .worker import Worker, WorkerOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .push import PushOptions

#: States in which a job stays.
FINAL = frozenset({"completed", "dead", "cancelled", "expired"})
#: How long one push waits for room before it asks again.
_WAIT_MS = 10_000


class ConnectOptions(TypedDict, total=False):
    """How to connect."""

    #: Shown to the server, if it asks for one. Default: what is in the environment as MILLPOND_TOKEN.
    token: str | None
    #: The name in the histories of jobs. Default: the host's name and the process.
    name: str
    #: Seconds between signs of life, 0.1 to 60; a link that is silent two and a half times as long is given up. Default 0.4.
    heartbeat: float
    #: Seconds that a call waits for a server that is away, before it raises `Away`. Default 10.
    patience: float
    #: For `millpond+tls://`; default: what the system trusts.
    tls: ssl.SSLContext | None


class KeepOptions(TypedDict, total=False):
    """How a worker works."""

    #: Handlers at once. Default 16.
    concurrency: int
    #: Whoever holds a job renews it within two thirds of this. Default 30 s.
    lease: Span
    #: Jobs that may wait here for a handler, at most; as many are taken as the handlers finish in 20 ms.
    prefetch: int
    #: The longest run here; the job's own timeout counts if it is shorter.
    timeout: Span | None
    #: An event loop that stands still for so long loses its jobs to other workers. Default 60 s.
    max_blocked: Span
    #: How long a handler may go on after it was told to stop. Default 5 s.
    grace: Span
    #: The level at which outcomes are kept. Default: the server's.
    durability: Durability | None


async def connect(url: str, **options: Unpack[ConnectOptions]) -> Pond:
    """Connects to `millpond://host:port`, and waits until the server has answered, not longer than the patience."""
    pond = Pond(Link(url, Options(**options)))
    try:
        await asyncio.wrap_future(pond.link.opened())
    except asyncio.CancelledError:
        await pond.close()
        raise
    return pond


class Pond:
    """A server. Made by `connect`; may be used from any event loop and any thread."""

    def __init__(self, link: Link):
        self.link = link
        self._http = Http(link.address, link.options, link.tls)

    async def __aenter__(self) -> Pond:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, within: float = 2) -> None:
        """Waits until every call has its answer, and says goodbye: leases go back at once."""
        await asyncio.to_thread(self.link.close, within)

    def queue(self, name: str) -> Queue:
        """A queue; it is made by its first push."""
        return Queue(self, queue_name(name))

    async def push_many(
        self,
        jobs: Iterable[tuple[str, Any, Mapping[str, Any]]],
        *,
        idempotency_key: str | None = None,
        wait: Span | None = None,
        durability: Durability | None = None,
    ) -> list[Pushed]:
        """Pushes jobs `(queue, body, options)` to several queues, all or none, 10,000 at most."""
        made = [wire_job(*job) for job in jobs]
        fields: dict[str, Any] = {"jobs": made, "key": idempotency_key, "durability": durability}
        fields = {name: value for name, value in fields.items() if value is not None}
        left = millis(wait) if wait is not None else 0
        until = time.monotonic() + left / 1000
        while True:
            fields["wait_ms"] = asked = min(left, _WAIT_MS)
            try:
                answer = await asyncio.wrap_future(self.link.ask("push", fields, safe=idempotency_key is not None))
            except errors.Refused as error:
                left = round((until - time.monotonic()) * 1000)
                if error.code == "queue_full" and asked and left > 0:
                    continue
                raise
            return [
                Pushed(one["id"], job["queue"], one.get("state", "waiting"), one.get("deduplicated", False), one.get("forgotten", False))
                for job, one in zip(made, answer["jobs"])
            ]

    async def http(self, method: str, path: str, body: Any = None, *, key: str | None = None, **query: Any) -> Any:
        """Any route of docs/http.md: `await pond.http("PUT", "/v1/limits/api", {"concurrency": 3})`. `key` is an idempotency key."""
        return await asyncio.to_thread(lambda: self._http.call(method, path, body, key=key, **query))

    async def queues(self) -> list[dict[str, Any]]:
        """All queues, with counts by state, totals and rates."""
        found: list[dict[str, Any]] = []
        cursor = None
        while True:
            page = await self.http("GET", "/v1/queues", limit=1_000, cursor=cursor)
            found += page["queues"]
            cursor = page.get("cursor")
            if cursor is None:
                return found

    # A job by a generated id needs no queue; one with an id of your own does.

    async def job(self, id: str, queue: str | None = None) -> dict[str, Any] | None:
        """A job with body, state and result; None if there is none."""
        try:
            return await self.http("GET", job_path(queue, id))  # type: ignore[no-any-return]
        except errors.Refused as error:
            if error.code in ("unknown_job", "unknown_queue"):
                return None
            raise

    async def history(self, id: str, queue: str | None = None) -> list[dict[str, Any]]:
        """Every change of a job."""
        return (await self.http("GET", job_path(queue, id, "/history")))["history"]  # type: ignore[no-any-return]

    async def explain(self, id: str, queue: str | None = None) -> dict[str, Any]:
        """Why a job is where it is: `summary`, `reasons`, `expected_at`."""
        return await self.http("GET", job_path(queue, id, "/explain"))  # type: ignore[no-any-return]

    async def cancel(self, id: str, queue: str | None = None, reason: str | None = None) -> str:
        """Calls a job off, waiting or running; its state now."""
        return await self._change(id, queue, "/cancel", {"reason": reason} if reason else {})

    async def promote(self, id: str, queue: str | None = None) -> str:
        """Starts a delayed or retrying job now; its state now."""
        return await self._change(id, queue, "/promote", {})

    async def redrive(self, id: str, queue: str | None = None) -> str:
        """Gives a final job another life; its state now."""
        return await self._change(id, queue, "/redrive", {})

    async def signal(self, id: str, name: str, body: Any = None, queue: str | None = None, key: str | None = None) -> str:
        """Tells a job what it waits for; its state now."""
        return await self._change(id, queue, "/signal", {"name": name, "body": body}, key)

    async def _change(self, id: str, queue: str | None, what: str, body: Any, key: str | None = None) -> str:
        return (await self.http("POST", job_path(queue, id, what), body, key=key))["state"]  # type: ignore[no-any-return]

    async def result(self, job: str | Pushed, *, queue: str | None = None, timeout: Span | None = None) -> Any:
        """Waits until a job has ended, and gives its result. Raises `JobFailed` if it did not complete, `TimeoutError` after `timeout`.
        The server is asked again and again, at first after 10 ms, later twice a second."""
        id, queue = (job.id, job.queue) if isinstance(job, Pushed) else (job, queue)
        until = time.monotonic() + millis(timeout) / 1000 if timeout is not None else None
        pause = 0.01
        while True:
            found = await self.job(id, queue)
            if found is None:
                raise errors.JobFailed("unknown_job", f"there is no job {id}, or no more", {})
            if found["state"] == "completed":
                return found.get("result")
            if found["state"] in FINAL:
                told = [one["error"]["message"] for one in await self.history(id, queue) if one.get("error")]
                raise errors.JobFailed(found["state"], told[-1] if told else f"job {id} did not complete", found)
            left = until - time.monotonic() if until is not None else pause
            if left <= 0:
                raise TimeoutError(f"job {id} is still {found['state']}")
            await asyncio.sleep(min(pause, left))
            pause = min(0.5, pause * 1.5)


class Queue:
    """A queue of a pond."""

    def __init__(self, pond: Pond, name: str):
        self.pond, self.name = pond, name

    async def push(self, body: Any, **options: Unpack[PushOptions]) -> Pushed:
        """Pushes a job. `body` is anything that is JSON, or a dataclass, or bytes."""
        return (await self.push_many([body], **options))[0]

    async def push_many(self, bodies: Iterable[Any], **options: Unpack[PushOptions]) -> list[Pushed]:
        """Pushes jobs with the same options, all or none, 10,000 at most."""
        of_push = ("idempotency_key", "wait", "durability")
        of_job = {name: value for name, value in options.items() if name not in of_push}
        said: Any = {name: value for name, value in options.items() if name in of_push}
        return await self.pond.push_many(((self.name, body, of_job) for body in bodies), **said)

    def worker(self, function: Callable[..., Any], **options: Unpack[KeepOptions]) -> Worker:
        """Starts a worker: `function(job)` or `function(job, body)`, an `async def` on the running event loop, a `def` in threads. What
        it returns is the result."""
        return Worker(self.pond.link, self.pond._http, [self.name], function, WorkerOptions(**options))

    async def info(self) -> dict[str, Any] | None:
        """Counts by state, totals, rates and settings; None if there is no such queue."""
        try:
            return await self.pond.http("GET", queue_path(self.name))  # type: ignore[no-any-return]
        except errors.Refused as error:
            if error.code == "unknown_queue":
                return None
            raise

    async def counts(self) -> dict[str, int]:
        """How many jobs are in which state."""
        info = await self.info()
        return dict(info["counts"]) if info else {}

    async def jobs(self, state: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Jobs, in one state or all, without bodies and results; 1,000 at most."""
        return (await self.pond.http("GET", queue_path(self.name, "/jobs"), state=state, limit=limit))["jobs"]  # type: ignore[no-any-return]

    async def pause(self) -> None:
        """Hands out no more jobs."""
        await self.pond.http("POST", queue_path(self.name, "/pause"))

    async def resume(self) -> None:
        """Undoes a pause."""
        await self.pond.http("POST", queue_path(self.name, "/resume"))

    async def configure(self, **settings: Any) -> None:
        """Changes settings, by the names of `PATCH /v1/queues/{queue}`: `attempts=3, timeout_ms=60_000`."""
        await self.pond.http("PATCH", queue_path(self.name), settings)

    async def redrive(self, **filter: Any) -> dict[str, Any]:
        """Gives all dead jobs another life, or those of a filter; a bulk operation that runs on by itself."""
        return (await self.pond.http("POST", queue_path(self.name, "/redrive"), filter))["operation"]  # type: ignore[no-any-return]

    async def purge(self, **filter: Any) -> dict[str, Any]:
        """Forgets jobs that have not started; a bulk operation that runs on by itself."""
        return (await self.pond.http("POST", queue_path(self.name, "/purge"), filter))["operation"]  # type: ignore[no-any-return]
