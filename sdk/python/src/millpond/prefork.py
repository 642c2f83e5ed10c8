"""Several processes of a worker, and a parent that starts each again when it ends."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from .link import Options, log
from .roster import Roster

#: Exit status of a child that has done as much as it may.
RECYCLED = 75
#: A child that lived for so many seconds broke by chance; before, the next start waits longer each time.
LIVED = 10.0
#: Seconds beyond the drain until a child that does not end is killed.
BEYOND = 10.0


@dataclass
class Child:
    process: subprocess.Popen[bytes]
    roster: Roster
    name: str
    since: float


class Parent:
    """Keeps `count` children. `command` starts one; it is given its name and its roster."""

    def __init__(self, command: list[str], count: int, url: str, options: Options, drain: float):
        self._command, self._count, self._url, self._options, self._drain = command, count, url, options, drain
        self._children: dict[int, Child | None] = dict.fromkeys(range(count))
        self._starts = dict.fromkeys(range(count), 0.0)
        self._failures = dict.fromkeys(range(count), 0)
        self._stopping: float | None = None
        self._news = threading.Event()

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self._hear(number))
        while self._stopping is None or any(self._children.values()):
            for place, child in self._children.items():
                if child is None:
                    if self._stopping is None and time.monotonic() >= self._starts[place]:
                        self._children[place] = self._start(place)
                elif child.process.poll() is not None:
                    self._children[place] = None
                    self._ended(place, child)
                elif self._stopping and time.monotonic() > self._stopping + self._drain + BEYOND:
                    child.process.kill()
            self._news.wait(0.05)
            self._news.clear()
        return 0

    def _hear(self, number: int) -> None:
        hard = self._stopping is not None and number == signal.SIGINT
        self._stopping = self._stopping or time.monotonic()
        for child in self._children.values():
            if child:
                child.process.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        self._news.set()

    def _start(self, place: int) -> Child:
        roster = Roster()
        name = f"{self._options.name or socket.gethostname()}-{os.getpid()}-{place}-{time.time_ns() // 1_000_000}"
        command = [*self._command, "--name", name, "--roster", str(roster.file)]
        # In a session of its own, so that Ctrl-C is this process's to hand on. When its stdin ends, this process has gone.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[roster.file], start_new_session=True)
        log.info("started %s", name)
        return Child(process, roster, name, time.monotonic())

    def _ended(self, place: int, child: Child) -> None:
        status, now = child.process.returncode, time.monotonic()
        if child.process.stdin:
            child.process.stdin.close()
        if status in (0, RECYCLED):
            self._failures[place] = 0
            # One that has nothing to do is not started in a tight loop.
            self._starts[place] = 0 if status == RECYCLED else now + 1
        else:
            how: dict[str, str | int] = {"signal": signal.Signals(-status).name} if status < 0 else {"exit": status}
            log.error("%s died: %s", child.name, how)
            self._failures[place] = 1 if now - child.since >= LIVED else self._failures[place] + 1
            self._starts[place] = now + random.uniform(0, min(30, 0.2 * 2 ** (self._failures[place] - 1)))
            threading.Thread(target=self._bury, args=(child, how), daemon=True).start()
            return
        child.roster.close()

    def _bury(self, child: Child, how: dict[str, str | int]) -> None:
        options = Options(token=self._options.token, name=child.name, tls=self._options.tls)
        try:
            count = child.roster.bury(self._url, options, how)
            log.info("told what became of %d jobs of %s", count, child.name)
        except Exception as error:
            log.warning("the jobs of %s come back when their leases end: %s", child.name, error)
        finally:
            child.roster.close()


def end_with_parent() -> None:
    """Lets this process end kindly when the one that started it is gone."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def command(words: list[str]) -> list[str]:
    """What starts a child."""
    return [sys.executable, "-m", "millpond", *words]
