"""The connection to a server: requests and their answers, whether the server is there or not (docs/stream.md).

It has a thread and an event loop of its own, so that handlers which hold theirs hold up neither renewals nor signs of life. What is
here runs on that loop, but for `Link.ask` and what is near it.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import json
import logging
import os
import random
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Callable, Coroutine, Mapping, Protocol, TypeVar

import msgpack
import websockets
from websockets.asyncio.client import ClientConnection, connect

from . import errors
from .push import Address
from .values import pack

log = logging.getLogger("millpond")
T = TypeVar("T")
Answer = Any
#: Told what a call brought, on the thread of the link.
Heard = Callable[[Answer, "errors.Error | None"], None]

VERSION = "0.1.0"
#: Seconds in which a connection must be there.
CONNECT = 1.0
#: Seconds in which what is written last has to leave.
FAREWELL = 2.0
#: Bytes of one message of the WebSocket, about.
BATCH_BYTES = 256 << 10
TO_CLIENT_BYTES_MAX = 16 << 20
#: Calls under way at the server, which takes 1,024; those behind them wait here.
UNDER_WAY_MAX = 1_000
WAITING_MAX = 10_000
WAITING_BYTES_MAX = 256 << 20
#: Answers after which the server is told that they have come.
ACKNOWLEDGE = 64


class Feed(Protocol):
    """A subscription."""

    def begin(self) -> dict[str, Any]:
        """It begins anew: the fields of `subscribe`."""
        ...

    def received(self) -> int: ...
    def jobs(self, jobs: list[dict[str, Any]]) -> None: ...
    def revoked(self, message: dict[str, Any]) -> None: ...
    def ended(self, why: errors.Error) -> None: ...


@dataclass(eq=False)
class Request:
    """A call that has no answer yet."""

    name: str
    fields: bytes
    #: Twice is as good as once.
    safe: bool
    heard: Heard
    #: Its number; 0 if no server can have seen it.
    id: int = 0
    #: How often the server could not read what was sent with it.
    unread: int = 0


@dataclass
class Options:
    """How to connect; see `millpond.connect`."""

    token: str | None = field(default=None, repr=False)
    name: str = ""
    heartbeat: float = 0.4
    patience: float = 10.0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self.token = self.token or os.environ.get("MILLPOND_TOKEN") or None
        self.name = self.name or f"{socket.gethostname()}-{os.getpid()}"


_links: weakref.WeakSet[Link] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for link in list(_links):
        link.close(FAREWELL)


class Link:
    """A connection that is made again by itself."""

    def __init__(self, url: str, options: Options):
        self.address = Address.read(url)
        self.options = options
        self.tls = (options.tls or ssl.create_default_context()) if self.address.tls else None
        self.loop = asyncio.new_event_loop()
        self.up = False
        #: Told the secret of each session, on the link's thread.
        self.on_session: Callable[[str], None] | None = None
        self._process = os.getpid()
        self._out: list[bytes] = []
        self._to_write = asyncio.Event()
        self._last_id = 0
        #: By id, which rises; a call that is not sent waits behind those that are.
        self._waiting: dict[int, Request] = {}
        self._unsent: deque[Request] = deque()
        #: For the server that comes after one that stops.
        self._parked: list[Request] = []
        self._bytes = 0
        self._feeds: dict[int, Feed] = {}
        self._last_sub = 0
        self._session: str | None = None
        self._down_since = time.monotonic()
        self._trouble = "not connected yet"
        self._message_bytes_max = 32 << 20
        self._unacknowledged = 0
        self._quiet = 0
        self._closing = False
        #: Why it is closed, if it is.
        self._why: errors.Error = errors.Closed("closed", "the pond was closed")
        self._inbox: deque[Callable[[], None]] = deque()
        self._woken = False
        self._opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._ended = threading.Event()
        self._hurry = asyncio.Event()
        _links.add(self)
        threading.Thread(target=self._thread, name="millpond-link", daemon=True).start()

    # --- from any thread ---

    @property
    def is_closed(self) -> bool:
        """Whether it has ended for good."""
        return self._ended.is_set()

    def opened(self) -> concurrent.futures.Future[None]:
        """Done when the server has answered the first time."""
        return self._opened

    def call(self, what: Callable[[], None]) -> None:
        """Runs it on the link's thread; many calls cost one wake."""
        if self._ended.is_set():
            raise self._why
        if self._process != os.getpid():
            raise errors.Closed("closed", "this pond was connected before the process forked: connect anew in the child")
        self._inbox.append(what)
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                raise self._why from None

    def ask(self, name: str, fields: Mapping[str, Any], *, safe: bool) -> concurrent.futures.Future[Answer]:
        """Sends a call; `safe` says that it may be sent twice when nobody knows what became of the first."""
        future: concurrent.futures.Future[Answer] = concurrent.futures.Future()

        def heard(answer: Answer, error: errors.Error | None) -> None:
            if future.set_running_or_notify_cancel():
                future.set_exception(error) if error else future.set_result(answer)

        request = Request(name, pack(fields), safe, heard)
        if len(request.fields) >= self._message_bytes_max:
            raise errors.Refused("body_too_large", f"a message has at most {self._message_bytes_max} bytes")
        future.add_done_callback(lambda future: self.call(lambda: self._withdraw(request)) if future.cancelled() else None)
        self.call(lambda: self.add(request))
        return future

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the link's thread and waits for it."""
        if threading.current_thread().name == "millpond-link":
            work.close()
            raise RuntimeError("the link's own thread cannot wait for itself")
        if self._ended.is_set():
            work.close()
            raise self._why
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            while True:
                # A loop that ends meanwhile leaves it lying.
                if concurrent.futures.wait([future], 1).done:
                    return future.result()
                if self._ended.is_set():
                    raise self._why
        except concurrent.futures.CancelledError:
            # The loop ended under it.
            raise self._why from None
        finally:
            future.cancel()

    def close(self, within: float = FAREWELL) -> None:
        """Waits until every call has its answer, and says goodbye; leases go back."""
        if self._process != os.getpid() or self._ended.is_set():
            return
        try:
            asyncio.run_coroutine_threadsafe(self._close(within), self.loop)
        except RuntimeError:
            return
        self._ended.wait(within + FAREWELL)

    # --- on the link's thread ---

    def _thread(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._run())
        finally:
            self._ended.set()
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self.loop.close()

    def _drain(self) -> None:
        self._woken = False
        for _ in range(len(self._inbox)):
            try:
                self._inbox.popleft()()
            except Exception:
                log.exception("a mistake of the link")

    async def _close(self, within: float) -> None:
        until = time.monotonic() + within
        while (self._waiting or self._unsent or self._parked) and self.up and time.monotonic() < until:
            await asyncio.sleep(0.005)
        self._closing = True
        self._hurry.set()
        self._to_write.set()

    async def _run(self) -> None:
        failures = 0
        while not self._closing:
            ws: ClientConnection | None = None
            try:
                talking, rest = await asyncio.wait_for(self._connect(), CONNECT)
                ws, failures = talking, 0
                why = await self._talk(talking, rest)
            except _Rejected as rejected:
                why = str(rejected.error)
                if self._session is None:
                    self._closing, self._why = True, rejected.error
            except (OSError, asyncio.TimeoutError, websockets.WebSocketException) as error:
                why = f"{self.address}: {error or 'no answer'}"
            finally:
                if ws is not None:
                    ws.transport.abort()
            self._down(why)
            failures += 1
            # The first attempt follows at once: mostly a connection was cut, and the server is there.
            wait = random.uniform(0, 0.02) if failures == 1 else 0.005 + random.uniform(0, min(1.0, 0.05 * 2**failures))
            if not self._closing:
                try:
                    await asyncio.wait_for(self._hurry.wait(), wait)
                except asyncio.TimeoutError:
                    pass
        self._down("the pond was closed")
        self._give_up(closed=True)
        if not self._opened.done():
            self._opened.set_exception(self._why)

    async def _connect(self) -> tuple[ClientConnection, list[Any]]:
        scheme = "wss" if self.tls else "ws"
        token = self.options.token
        try:
            ws = await connect(
                f"{scheme}://{self.address}/v1/stream",
                subprotocols=[websockets.Subprotocol("millpond.v1")],
                additional_headers={"Authorization": f"Bearer {token}"} if token else None,
                ssl=self.tls,
                compression=None,
                ping_interval=None,
                open_timeout=None,
                close_timeout=FAREWELL,
                max_size=TO_CLIENT_BYTES_MAX,
                proxy=None,
            )
        except websockets.InvalidStatus as error:
            status = error.response.status_code
            try:
                problem = json.loads(error.response.body or b"")
            except ValueError:
                problem = {}
            detail = problem.get("detail", f"{self.address} answers {status}, which is no stream of Millpond")
            if status >= 500 or status == 429:
                raise OSError(detail) from None
            raise _Rejected(errors.Refused(problem.get("code", "bad_request"), detail)) from None
        try:
            hello: dict[str, Any] = {"version": 1, "worker": self.options.name, "client": f"millpond-python {VERSION}"}
            hello["heartbeat_ms"] = round(self.options.heartbeat * 1000)
            if self._session:
                hello["resume"] = {
                    "session": self._session,
                    "received": [{"sub": sub, "jobs": feed.received()} for sub, feed in self._feeds.items()],
                    "asked": list(self._waiting),
                }
            await ws.send(pack(["hello", 0, hello]))
            messages = read_all(await ws.recv())
            name, _, fields = messages[0]
            if name == "bye":
                raise _Rejected(errors.refused(fields))
            if name != "welcome":
                raise OSError(f"{self.address}: what answers is no Millpond server")
            self._welcome(fields)
        except BaseException:
            ws.transport.abort()
            raise
        return ws, messages[1:]

    def _welcome(self, welcome: dict[str, Any]) -> None:
        self._session = welcome["session"]
        if self.on_session:
            self.on_session(welcome["session"])
        self._message_bytes_max = welcome["message_bytes_max"]
        self._beat = welcome["heartbeat_ms"] / 1000
        self._out.clear()
        self.up = True
        feeds, self._feeds = self._feeds, {}
        for feed in feeds.values():
            self.subscribe(feed)
        if not welcome.get("resumed"):
            waiting, self._waiting = self._waiting, {}
            for request in reversed(waiting.values()):
                if request.safe:
                    self._unsent.appendleft(request)
                else:
                    self._end(request, None, _unknown("the server went away before it answered"))
        self._send_waiting()
        if not self._opened.done():
            self._opened.set_result(None)

    async def _talk(self, ws: ClientConnection, rest: list[Any]) -> str:
        self._quiet = 0

        async def write() -> str:
            while True:
                self._to_write.clear()
                out, self._out = self._out, []
                if self._closing:
                    out.append(pack(["bye", 0, {}]))
                at = 0
                while at < len(out):
                    end, size = at, 0
                    while end < len(out) and (end == at or size + len(out[end]) <= BATCH_BYTES):
                        size += len(out[end])
                        end += 1
                    await ws.send(b"".join(out[at:end]))
                    at = end
                if self._closing:
                    await ws.close()
                    return "the pond was closed"
                await self._to_write.wait()

        async def read() -> str:
            why = self._hear_all(rest)
            while why is None:
                data = await ws.recv()
                self._quiet = 0
                why = self._hear_all(read_all(data))
            return why

        async def beat() -> str:
            # Beats are counted, not time: a process that stood still has not listened.
            ping = True
            while self._quiet < 5:
                if ping:
                    self._ping()
                ping = not ping
                await asyncio.sleep(self._beat / 2)
                self._quiet += 1
            return f"nothing was heard for {round(self._beat * 2500)} ms"

        tasks = [self.loop.create_task(part()) for part in (write, read, beat)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _hear_all(self, messages: list[Any]) -> str | None:
        for name, id, fields, *_ in messages:
            if id:
                self._answer(id, name, fields)
            elif name == "jobs":
                feed = self._feeds.get(fields["sub"])
                if feed:
                    feed.jobs(fields["jobs"])
                else:
                    self.give_back(fields["jobs"])
            elif name == "revoked":
                for feed in list(self._feeds.values()):
                    feed.revoked(fields)
            elif name == "ended":
                feed = self._feeds.pop(fields["sub"], None)
                if feed:
                    feed.ended(errors.refused(fields.get("why", {})))
            elif name == "bye":
                if fields.get("code") == "bad_request":
                    self._unreadable(errors.refused(fields))
                return f"{fields.get('code')}: {fields.get('detail')}"
        return None

    def _unreadable(self, why: errors.Error) -> None:
        # One of them is the reason. It must not end one connection after the other.
        for id, request in list(self._waiting.items()):
            request.unread += 1
            if request.unread > 1:
                del self._waiting[id]
                self._end(request, None, why)

    def _answer(self, id: int, name: str, fields: Any) -> None:
        request = self._waiting.pop(id, None)
        if request is None:
            return
        self._unacknowledged += 1
        code = fields.get("code") if name == "refused" else None
        if code in ("not_received", "stopping") or (code == "unknown_outcome" and request.safe):
            # Nothing was changed, or no harm is done: it goes to the server that is there next.
            if code != "unknown_outcome":
                request.id = 0
            if code == "stopping":
                self._parked.append(request)
            else:
                self._unsent.appendleft(request)
        elif code:
            self._end(request, None, errors.refused(fields))
        else:
            self._end(request, fields, None)
        self._send_waiting()
        if self._unacknowledged >= ACKNOWLEDGE:
            self._ping()

    def _end(self, request: Request, answer: Answer, error: errors.Error | None) -> None:
        self._bytes -= len(request.fields)
        request.heard(answer, error)

    def add(self, request: Request) -> None:
        """Sends a call, now or when there is room."""
        self._bytes += len(request.fields)
        if self._closing:
            self._end(request, None, self._why)
        elif len(self._unsent) >= WAITING_MAX or self._bytes > WAITING_BYTES_MAX:
            self._end(request, None, errors.Refused("overloaded", "too many calls wait for the server", 0.1))
        else:
            self._unsent.append(request)
            self._send_waiting()

    def _withdraw(self, request: Request) -> None:
        if self._waiting.pop(request.id, None):
            self._bytes -= len(request.fields)
            if self.up:
                self._write(pack(["withdraw", request.id, {}]))
        elif request in self._unsent:
            self._unsent.remove(request)
            self._bytes -= len(request.fields)

    def _send_waiting(self) -> None:
        while self.up and self._unsent and len(self._waiting) < UNDER_WAY_MAX:
            request = self._unsent.popleft()
            self._last_id += 1
            request.id = self._last_id
            self._waiting[request.id] = request
            self._write(b"\x93" + pack(request.name) + pack(request.id) + request.fields)

    def tell(self, name: str, fields: dict[str, Any]) -> None:
        """Sends a message that has no answer, if the server is there."""
        if self.up:
            self._write(pack([name, 0, fields]))

    def _write(self, message: bytes) -> None:
        self._out.append(message)
        self._to_write.set()

    def _ping(self) -> None:
        self._unacknowledged = 0
        self.tell("ping", {"answered": next(iter(self._waiting), self._last_id + 1)})

    def subscribe(self, feed: Feed) -> None:
        """Begins a subscription."""
        self._last_sub += 1
        self._feeds[self._last_sub] = feed
        self.tell("subscribe", {"sub": self._last_sub, **feed.begin()})

    def unsubscribe(self, feed: Feed) -> None:
        """Ends it; jobs on their way go back."""
        for sub in self._numbers(feed):
            del self._feeds[sub]
            self.tell("unsubscribe", {"sub": sub, "received": feed.received()})

    def credit(self, feed: Feed, credit: int) -> None:
        """Moves the window of a subscription."""
        for sub in self._numbers(feed):
            self.tell("credit", {"sub": sub, "credit": credit})

    def _numbers(self, feed: Feed) -> list[int]:
        return [sub for sub, other in self._feeds.items() if other is feed]

    def give_back(self, jobs: list[dict[str, Any]]) -> None:
        """Gives jobs back that nobody waits for. If that is lost, their leases end."""
        if jobs:
            leases = [{name: job[name] for name in ("queue", "id", "lease_token")} for job in jobs]
            fields = {"outcomes": [{**lease, "outcome": "snooze", "after_ms": 0} for lease in leases]}
            self.add(Request("outcomes", pack(fields), True, lambda _answer, _error: None))

    def away(self) -> str | None:
        """Why the link is down, if it has been for longer than calls wait."""
        late = not self.up and time.monotonic() - self._down_since >= self.options.patience
        return self._trouble if late else None

    def _down(self, why: str) -> None:
        if self.up:
            self._down_since = time.monotonic()
            self.loop.call_later(self.options.patience + 0.01, self._give_up)
            if not self._closing:
                log.info("the link is down: %s", why)
        self.up = False
        self._trouble = why
        self._out.clear()
        self._unsent.extendleft(reversed(self._parked))
        self._parked.clear()
        self._give_up()
        if not self._opened.done() and self.away():
            self._closing, self._why = True, errors.Away("away", f"the server does not answer ({why})")

    def _give_up(self, closed: bool = False) -> None:
        if not closed and self.away() is None:
            return
        gone = f"the server does not answer ({self._trouble})"
        requests = [*self._waiting.values(), *self._unsent]
        self._waiting.clear()
        self._unsent.clear()
        for request in requests:
            if request.id:
                self._end(request, None, _unknown(gone))
            elif closed:
                self._end(request, None, self._why)
            else:
                self._end(request, None, errors.Away("away", f"{gone}; nothing was changed"))


def _unknown(why: str) -> errors.UnknownOutcome:
    return errors.UnknownOutcome("unknown_outcome", why)


def read_all(data: str | bytes) -> list[Any]:
    """The messages in one of the WebSocket."""
    if isinstance(data, str):
        raise OSError("messages are binary")
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=TO_CLIENT_BYTES_MAX, unicode_errors="surrogateescape")
    unpacker.feed(data)
    return list(unpacker)


class _Rejected(Exception):
    """It would be the same again."""

    def __init__(self, error: errors.Error):
        super().__init__(str(error))
        self.error = error
