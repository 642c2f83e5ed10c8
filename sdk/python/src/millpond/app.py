"""Handlers in a module, and the process that runs them."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Callable, Generic, Iterable, Protocol, TypeVar, overload

from . import aio, sync
from .errors import Error
from .link import Link, Options, log
from .push import Pushed, queue_name
from .values import Span
from .worker import Function, Worker, WorkerOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .aio import ConnectOptions, KeepOptions
    from .push import PushOptions
    from .roster import Roster

B = TypeVar("B")


class Handler(Generic[B]):
    """A function that does the jobs of its queues. Called, it is the function itself; `push` makes a job for its first queue."""

    def __init__(self, app: App, function: Callable[..., Any], queues: tuple[str, ...], options: dict[str, Any]):
        functools.update_wrapper(self, function)
        self.app, self.function, self.queues, self.options = app, function, queues, options

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def push(self, body: B, **options: Unpack[PushOptions]) -> Pushed:
        """Pushes a job."""
        return self.app.pond.queue(self.queues[0]).push(body, **options)

    def push_many(self, bodies: Iterable[B], **options: Unpack[PushOptions]) -> list[Pushed]:
        """Pushes jobs with the same options, all or none, 10,000 at most."""
        return self.app.pond.queue(self.queues[0]).push_many(bodies, **options)

    async def apush(self, body: B, **options: Unpack[PushOptions]) -> Pushed:
        """`push` for who awaits."""
        return await self.app.aio.queue(self.queues[0]).push(body, **options)


class _Register(Protocol):
    @overload
    def __call__(self, function: Callable[[Any, B], Any], /) -> Handler[B]: ...
    @overload
    def __call__(self, function: Callable[[Any], Any], /) -> Handler[Any]: ...


class App:
    """Handlers, and the server whose jobs they do. It connects when it is first used."""

    def __init__(self, url: str | None = None, **options: Unpack[ConnectOptions]):
        self.url = url or os.environ.get("MILLPOND_URL", "millpond://127.0.0.1:7077")
        self.options = options
        self.handlers: list[Handler[Any]] = []
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._process = 0

    def handler(self, *queues: str, **options: Unpack[KeepOptions]) -> _Register:
        """Makes a function the handler of queues, taken in the order in which they stand: `function(job)` or `function(job, body)`, an
        `async def`, or a `def`, which runs in threads. A body is read into the dataclass that the function names."""
        if not queues:
            raise TypeError("a handler has a queue")
        WorkerOptions(**options)

        def register(function: Callable[..., Any]) -> Handler[Any]:
            Function(function)
            handler: Handler[Any] = Handler(self, function, tuple(queue_name(name) for name in queues), dict(options))
            self.handlers.append(handler)
            return handler

        return register

    def link(self) -> Link:
        """The connection, of this process."""
        with self._lock:
            if self._link is None or self._link.is_closed or self._process != os.getpid():
                self._link, self._process = Link(self.url, Options(**self.options)), os.getpid()
            return self._link

    @property
    def aio(self) -> aio.Pond:
        """The server, for who awaits."""
        return aio.Pond(self.link())

    @property
    def pond(self) -> sync.Pond:
        """The server."""
        return sync.Pond(self.aio)

    async def work(
        self,
        stop: asyncio.Event,
        *,
        queues: Iterable[str] | None = None,
        concurrency: int | None = None,
        drain: Span = 30,
        max_jobs: int | None = None,
        max_memory: int | None = None,
        roster: Roster | None = None,
    ) -> bool:
        """Does jobs until `stop` is set, then lets running ones end, for at most `drain`. `max_jobs` and `max_memory` (bytes) stop it, too.
        `concurrency` counts for handlers that name none. False if some handlers still run."""
        loop = asyncio.get_running_loop()
        chosen = set(queues) if queues is not None else None
        handlers = [one for one in self.handlers if chosen is None or chosen & set(one.queues)]
        if not handlers:
            raise ValueError("the app has no handler" + (f" of {', '.join(sorted(chosen))}" if chosen else ""))
        pond = self.aio
        if roster:
            pond.link.on_session = roster.note_session
        await asyncio.wrap_future(pond.link.opened())
        workers: list[Worker] = []

        def look() -> None:
            enough = max_jobs is not None and sum(one.finished for one in workers) >= max_jobs
            if enough or any(one.refused for one in workers):
                loop.call_soon_threadsafe(stop.set)

        for handler in handlers:
            options = WorkerOptions(**handler.options)
            if concurrency is not None and "concurrency" not in handler.options:
                options = replace(options, concurrency=concurrency)
            names = [name for name in handler.queues if chosen is None or name in chosen]
            worker = Worker(pond.link, pond._http, names, handler.function, options)
            worker.on_finished = look
            if roster:
                worker.on_job = roster.note_job
            workers.append(worker)
            log.info("working on %s, %d at once", ", ".join(names), options.concurrency)
        watch = asyncio.create_task(_watch_memory(max_memory, stop)) if max_memory else None
        await stop.wait()
        if watch:
            watch.cancel()
        log.info("stopping")
        quiet = await asyncio.gather(*(one.stop(drain) for one in workers))
        await pond.close()
        refused: list[Error] = [one.refused for one in workers if one.refused]
        if refused:
            raise refused[0]
        return all(quiet)

    def run(self, **options: Any) -> bool:
        """`work` as the whole of a process: SIGTERM and the first SIGINT let running jobs end, a second one ends at once."""

        async def main() -> bool:
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            heard: list[int] = []

            def hear(number: int, _frame: object) -> None:
                # Here and not on the loop, which a handler may hold.
                if heard:
                    os._exit(128 + number)
                heard.append(number)
                loop.call_soon_threadsafe(stop.set)

            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, hear)
            return await self.work(stop, **options)

        return asyncio.run(main())


async def _watch_memory(most: int, stop: asyncio.Event) -> None:
    while memory() <= most:
        await asyncio.sleep(0.5)
    stop.set()


def memory() -> int:
    """Bytes of memory that this process has in use."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        import resource
        import sys

        # Elsewhere only the most that it ever had is to be known; in bytes on macOS, else in KiB.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
