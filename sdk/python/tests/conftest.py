"""A server of the tests' own, and a proxy that lets links break."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Callable, Iterator

import pytest


class Server:
    """The real binary on a directory of its own."""

    def __init__(self, folder: Path, *options: str):
        self._folder, self._options = folder, options
        self.address = "127.0.0.1:0"
        self.start()

    @property
    def url(self) -> str:
        return f"millpond://{self.address}"

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def start(self) -> None:
        words = [os.environ["MILLPOND_BIN"], "serve", "--log", "warn", "--listen", self.address, "--data", str(self._folder)]
        for _ in range(100):
            # The port may be taken for a moment after a kill.
            self._process = subprocess.Popen([*words, *self._options], stdout=subprocess.PIPE, text=True)
            assert self._process.stdout
            found = re.search(r"http://([^\s,]+)", self._process.stdout.readline())
            if found:
                self.address = found[1]
                return
            self._process.wait()
        raise AssertionError("the server does not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="millpond-python-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    server = Server(folder / "data", "--drain", "100ms")
    yield server
    server.kill()


class Proxy:
    """Carries connections to a server. `cut` lets those that there are break: "kill", or nothing goes through any more in "both"
    directions, or not "up", or not "down"; `mend` lets through what was held."""

    def __init__(self, port: int):
        self._port, self.connections = port, 0
        self._links: set[_Carried] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()
        assert self._ready.wait(10)

    @property
    def url(self) -> str:
        return f"millpond://127.0.0.1:{self.port}"

    def cut(self, how: str) -> None:
        self._on_each(lambda link: link.cut(how))

    def mend(self) -> None:
        self._on_each(lambda link: link.mend())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _on_each(self, what: Callable[[_Carried], None]) -> None:
        async def all() -> None:
            for link in list(self._links):
                what(link)

        asyncio.run_coroutine_threadsafe(all(), self._loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        self.connections += 1
        link = _Carried((reader, writer), there)
        self._links.add(link)
        await link.run()
        self._links.discard(link)


class _Carried:
    def __init__(self, *sides: tuple[asyncio.StreamReader, asyncio.StreamWriter]):
        self._sides = sides
        self.holds: set[str] = set()
        self.changed = asyncio.Event()

    def cut(self, how: str) -> None:
        if how == "kill":
            for _, writer in self._sides:
                writer.transport.abort()
        self.holds |= {"up", "down"} if how == "both" else {how}

    def mend(self) -> None:
        self.holds.clear()
        self.changed.set()

    async def run(self) -> None:
        (client, to_client), (server, to_server) = self._sides
        both = asyncio.gather(self._pump(client, to_server, "up"), self._pump(server, to_client, "down"))
        await asyncio.gather(both, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        try:
            while True:
                data = await reader.read(1 << 16)
                # Who is cut off does not hear the end either.
                while way in self.holds:
                    self.changed.clear()
                    await self.changed.wait()
                if not data:
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        for _, other in self._sides:
            other.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


def until(met: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Waits for a condition."""
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, what
        time.sleep(0.005)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
