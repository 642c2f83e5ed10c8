"""The app of the tests of processes: each handler says in a file which process ran what."""

from __future__ import annotations

import os
import time
from pathlib import Path

import millpond

app = millpond.App()
FOLDER = Path(os.environ.get("PREFORK_FOLDER", "."))


def note(what: str) -> None:
    with (FOLDER / "notes").open("a") as file:
        file.write(f"{what} {os.getpid()}\n")


@app.handler("quick")
async def quick(job: millpond.AsyncJob, number: int) -> int:
    note(f"quick-{number}-{job.attempt}")
    return os.getpid()


@app.handler("slow", concurrency=1)
def slow(job: millpond.Job, name: str) -> str:
    note(f"slow-{name}-{job.crashes}")
    while not (FOLDER / f"go-{name}").exists():
        job.check()
        time.sleep(0.01)
    return name


@app.handler("hungry", concurrency=1)
def hungry(job: millpond.Job) -> int:
    hoard.append(bytearray(200 << 20))
    return os.getpid()


hoard: list[bytearray] = []
