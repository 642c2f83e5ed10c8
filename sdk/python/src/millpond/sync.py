"""The face for programs without an event loop: the same calls as `millpond.aio`, which block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping

from . import aio
from .link import Link, Options
from .push import Durability, Pushed
from .values import Span
from .worker import Worker

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .aio import ConnectOptions, KeepOptions
    from .push import PushOptions


def connect(url: str, **options: Unpack[ConnectOptions]) -> Pond:
    """Connects to `millpond://host:port`, and waits until the server has answered, not longer than the patience."""
    link = Link(url, Options(**options))
    link.opened().result()
    return Pond(aio.Pond(link))


class Pond:
    """A server; see `millpond.aio.Pond`, which it has as `aio`. May be used from any thread."""

    def __init__(self, pond: aio.Pond):
        self.aio = pond
        self._run = pond.link.run

    def __enter__(self) -> Pond:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self, within: float = 2) -> None:
        """Waits until every call has its answer, and says goodbye: leases go back at once."""
        self.aio.link.close(within)

    def queue(self, name: str) -> Queue:
        """A queue; it is made by its first push."""
        return Queue(self, self.aio.queue(name))

    def push_many(
        self,
        jobs: Iterable[tuple[str, Any, Mapping[str, Any]]],
        *,
        idempotency_key: str | None = None,
        wait: Span | None = None,
        durability: Durability | None = None,
    ) -> list[Pushed]:
        """Pushes jobs `(queue, body, options)` to several queues, all or none, 10,000 at most."""
        return self._run(self.aio.push_many(jobs, idempotency_key=idempotency_key, wait=wait, durability=durability))

    def http(self, method: str, path: str, body: Any = None, *, key: str | None = None, **query: Any) -> Any:
        """Any route of docs/http.md."""
        return self._run(self.aio.http(method, path, body, key=key, **query))

    def queues(self) -> list[dict[str, Any]]:
        """All queues, with counts by state, totals and rates."""
        return self._run(self.aio.queues())

    def job(self, id: str, queue: str | None = None) -> dict[str, Any] | None:
        """A job with body, state and result; None if there is none."""
        return self._run(self.aio.job(id, queue))

    def history(self, id: str, queue: str | None = None) -> list[dict[str, Any]]:
        """Every change of a job."""
        return self._run(self.aio.history(id, queue))

    def explain(self, id: str, queue: str | None = None) -> dict[str, Any]:
        """Why a job is where it is."""
        return self._run(self.aio.explain(id, queue))

    def cancel(self, id: str, queue: str | None = None, reason: str | None = None) -> str:
        """Calls a job off, waiting or running; its state now."""
        return self._run(self.aio.cancel(id, queue, reason))

    def promote(self, id: str, queue: str | None = None) -> str:
        """Starts a delayed or retrying job now; its state now."""
        return self._run(self.aio.promote(id, queue))

    def redrive(self, id: str, queue: str | None = None) -> str:
        """Gives a final job another life; its state now."""
        return self._run(self.aio.redrive(id, queue))

    def signal(self, id: str, name: str, body: Any = None, queue: str | None = None, key: str | None = None) -> str:
        """Tells a job what it waits for; its state now."""
        return self._run(self.aio.signal(id, name, body, queue, key))

    def result(self, job: str | Pushed, *, queue: str | None = None, timeout: Span | None = None) -> Any:
        """Waits until a job has ended, and gives its result."""
        return self._run(self.aio.result(job, queue=queue, timeout=timeout))


class Queue:
    """A queue of a pond; see `millpond.aio.Queue`."""

    def __init__(self, pond: Pond, queue: aio.Queue):
        self.pond, self.aio, self.name = pond, queue, queue.name
        self._run = pond.aio.link.run

    def push(self, body: Any, **options: Unpack[PushOptions]) -> Pushed:
        """Pushes a job. `body` is anything that is JSON, or a dataclass, or bytes."""
        return self._run(self.aio.push(body, **options))

    def push_many(self, bodies: Iterable[Any], **options: Unpack[PushOptions]) -> list[Pushed]:
        """Pushes jobs with the same options, all or none, 10,000 at most."""
        return self._run(self.aio.push_many(bodies, **options))

    def worker(self, function: Callable[..., Any], **options: Unpack[KeepOptions]) -> Worker:
        """Starts a worker: `function(job)` or `function(job, body)`, in threads; end it with `stop_now`."""
        return self.aio.worker(function, **options)

    def info(self) -> dict[str, Any] | None:
        """Counts by state, totals, rates and settings; None if there is no such queue."""
        return self._run(self.aio.info())

    def counts(self) -> dict[str, int]:
        """How many jobs are in which state."""
        return self._run(self.aio.counts())

    def jobs(self, state: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Jobs, in one state or all, without bodies and results; 1,000 at most."""
        return self._run(self.aio.jobs(state, limit))

    def pause(self) -> None:
        """Hands out no more jobs."""
        self._run(self.aio.pause())

    def resume(self) -> None:
        """Undoes a pause."""
        self._run(self.aio.resume())

    def configure(self, **settings: Any) -> None:
        """Changes settings, by the names of `PATCH /v1/queues/{queue}`."""
        self._run(self.aio.configure(**settings))

    def redrive(self, **filter: Any) -> dict[str, Any]:
        """Gives all dead jobs another life, or those of a filter; a bulk operation that runs on by itself."""
        return self._run(self.aio.redrive(**filter))

    def purge(self, **filter: Any) -> dict[str, Any]:
        """Forgets jobs that have not started; a bulk operation that runs on by itself."""
        return self._run(self.aio.purge(**filter))
