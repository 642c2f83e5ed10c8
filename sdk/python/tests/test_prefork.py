from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

import millpond
from .conftest import Server, until

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(server: Server, folder: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "millpond", "worker", "tests.prefork_app:app", "--url", server.url, *words]
        environment = {**os.environ, "PREFORK_FOLDER": str(folder)}
        process = subprocess.Popen(command, env=environment, cwd=Path(__file__).parent.parent)
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def notes(folder: Path) -> dict[str, int]:
    """What was noted, by which process."""
    file = folder / "notes"
    lines = file.read_text().splitlines() if file.exists() else []
    return {what: int(pid) for what, pid in (line.split() for line in lines)}


@pytest.fixture
def pond(server: Server) -> Iterator[millpond.Pond]:
    with millpond.connect(server.url) as pond:
        yield pond


def test_a_process_that_is_killed_loses_its_job_alone_and_is_started_again(start: Start, pond: millpond.Pond, folder: Path) -> None:
    start("--processes", "2")
    slow = pond.queue("slow")
    pushed = {name: slow.push(name, attempts=1) for name in ("a", "b")}
    until(lambda: {"slow-a-0", "slow-b-0"} <= notes(folder).keys(), "both run")
    by = notes(folder)
    assert by["slow-a-0"] != by["slow-b-0"], "one process each"
    os.kill(by["slow-a-0"], signal.SIGKILL)
    # At once, not when its lease ends: a crash is told, and uses no attempt.
    until(lambda: "slow-a-1" in notes(folder), "it runs again", 20)
    for name in pushed:
        (folder / f"go-{name}").touch()
    assert [pond.result(one, timeout=20) for one in pushed.values()] == ["a", "b"]
    again = notes(folder)
    assert "slow-b-1" not in again and again["slow-a-1"] not in by.values()
    causes = [one["cause"] for one in pond.history(pushed["a"].id)]
    assert "crash" in causes, causes


def test_sigterm_lets_running_jobs_end_and_takes_no_more(start: Start, pond: millpond.Pond, folder: Path) -> None:
    worker = start("--processes", "1")
    first = pond.queue("slow").push("a")
    until(lambda: "slow-a-0" in notes(folder), "it runs")
    worker.send_signal(signal.SIGTERM)
    until(lambda: not workers_of(pond), "it takes no more")
    second = pond.queue("quick").push(1)
    (folder / "go-a").touch()
    assert worker.wait(20) == 0
    assert pond.result(first, timeout=5) == "a"
    assert (pond.job(second.id) or {})["state"] == "waiting"


def workers_of(pond: millpond.Pond) -> bool:
    """Whether a job that is pushed now would be taken."""
    probe = pond.queue("quick").push(0)
    try:
        pond.result(probe, timeout="200ms")
    except TimeoutError:
        pond.cancel(probe.id)
        return False
    return True


def test_a_second_sigint_ends_at_once(start: Start, pond: millpond.Pond, folder: Path) -> None:
    for words in ((), ("--processes", "2")):
        worker = start(*words)
        pushed = pond.queue("slow").push("never")
        until(lambda: "slow-never-0" in notes(folder), "it runs")
        worker.send_signal(signal.SIGINT)
        until(lambda: not workers_of(pond), "it takes no more")
        worker.send_signal(signal.SIGINT)
        worker.wait(20)
        pond.cancel(pushed.id)
        (folder / "notes").unlink()


def test_a_process_ends_after_so_many_jobs_and_another_one_goes_on(start: Start, pond: millpond.Pond, folder: Path) -> None:
    start("--processes", "1", "--max-jobs", "5", "--queues", "quick")
    pids = set()
    for number in range(12):
        pids.add(pond.result(pond.queue("quick").push(number), timeout=20))
    assert len(pids) == 3


def test_a_process_that_uses_too_much_memory_ends_and_another_one_goes_on(start: Start, pond: millpond.Pond) -> None:
    start("--processes", "1", "--max-memory", "150MiB", "--queues", "hungry")
    first = pond.result(pond.queue("hungry").push(1), timeout=20)
    until(lambda: pond.result(pond.queue("hungry").push(1), timeout=20) != first, "another one took over")


def test_children_end_when_their_parent_was_killed(start: Start, pond: millpond.Pond, folder: Path) -> None:
    worker = start("--processes", "1")
    child: Any = pond.result(pond.queue("quick").push(1), timeout=20)
    worker.kill()
    until(lambda: not Path(f"/proc/{child}").exists(), "the child ends")


def test_what_is_no_app_is_said_to_be_none() -> None:
    for target in ("tests.prefork_app:FOLDER", "tests.prefork_app:nothing"):
        command = [sys.executable, "-m", "millpond", "worker", target]
        ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
        assert ended.returncode == 1 and "is no millpond.App" in ended.stderr


def test_a_handler_pushes_for_itself(server: Server) -> None:
    app = millpond.App(server.url)

    @app.handler("mail")
    def send(job: millpond.Job, to: str) -> str:
        return f"to {to}"

    pushed = send.push("ada", priority="high")
    assert pushed.queue == "mail"
    assert send(None, "bob") == "to bob"
    with app.pond:
        worker = app.pond.queue("mail").worker(send.function)
        assert app.pond.result(pushed, timeout=20) == "to ada"
        worker.stop_now()
