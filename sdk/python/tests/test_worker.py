from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Any, AsyncIterator, Callable, Iterator

import pytest

import millpond
from millpond.aio import Pond
from .conftest import Server, until


@dataclass
class Email:
    to: str
    subject: str = "hello"


@pytest.fixture
def pond(server: Server) -> Iterator[millpond.Pond]:
    with millpond.connect(server.url) as pond:
        yield pond


def ends(pond: millpond.Pond, function: Callable[..., Any], body: Any = 1, **options: Any) -> dict[str, Any]:
    """Runs a job to its end in a thread and shows it."""
    worker = pond.queue("q").worker(function)
    pushed = pond.queue("q").push(body, **options)
    try:
        pond.result(pushed, timeout=20)
    except millpond.JobFailed:
        pass
    worker.stop_now()
    job = pond.job(pushed.id)
    assert job
    told = [one["error"] for one in pond.history(pushed.id) if one["error"]]
    return {**job, "error": told[-1] if told else None}


def run(server: Server, work: Callable[[Pond], Any]) -> None:
    async def main() -> None:
        async with await millpond.aio.connect(server.url) as pond:
            await work(pond)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_body_is_read_into_the_dataclass_that_the_handler_names(pond: millpond.Pond) -> None:
    def send(job: millpond.Job, email: Email) -> Email:
        assert isinstance(email, Email)
        return email

    assert ends(pond, send, {"to": "ada"})["result"] == {"to": "ada", "subject": "hello"}


def test_a_body_that_does_not_fit_kills_the_job_at_once(pond: millpond.Pond) -> None:
    def send(job: millpond.Job, email: Email) -> None: ...

    job = ends(pond, send, {"too": "ada"})
    assert (job["state"], job["attempt"], job["error"]["kind"]) == ("dead", 1, "decode")


def test_bytes_come_as_they_were_pushed(pond: millpond.Pond) -> None:
    assert ends(pond, lambda job, body: [job.content_type, list(body)], b"\x00\xff")["result"] == ["application/octet-stream", [0, 255]]


def test_an_exception_is_a_retry_that_says_where_it_was_raised(pond: millpond.Pond) -> None:
    def send(job: millpond.Job) -> int:
        if job.attempt < 3:
            raise LookupError("busy")
        return job.attempt

    job = ends(pond, send, backoff="1ms")
    assert (job["state"], job["result"]) == ("completed", 3)
    error = job["error"]
    assert (error["kind"], error["message"]) == ("LookupError", "busy")
    assert 'raise LookupError("busy")' in error["stack"]


def raises(*errors: Exception) -> Callable[[millpond.Job], str]:
    left = list(errors)

    def handler(job: millpond.Job) -> str:
        if left:
            raise left.pop(0)
        return f"attempt {job.attempt}"

    return handler


def test_handlers_say_how_an_attempt_ends(pond: millpond.Pond) -> None:
    assert ends(pond, raises(millpond.Retry("again", after="1ms")))["result"] == "attempt 2"
    assert ends(pond, raises(millpond.Snooze("1ms"), millpond.Snooze(0)))["result"] == "attempt 1"
    assert ends(pond, raises(millpond.RateLimited("1ms")))["result"] == "attempt 1"
    assert ends(pond, raises(millpond.RateLimited("1ms", limit="api")), limits=["api"])["result"] == "attempt 1"
    assert ends(pond, raises(millpond.Cancel("not needed")))["state"] == "cancelled"
    job = ends(pond, raises(millpond.Fail("no such address")))
    assert (job["state"], job["attempt"], job["error"]["message"]) == ("dead", 1, "no such address")


def test_a_result_that_is_no_json_kills_the_job_and_says_so(pond: millpond.Pond) -> None:
    assert ends(pond, lambda job: object())["error"]["kind"] == "encode"
    assert ends(pond, lambda job: float("nan"))["error"]["kind"] == "encode"


def test_a_result_that_the_server_refuses_kills_that_job_alone(pond: millpond.Pond) -> None:
    def send(job: millpond.Job, size: int) -> str:
        return "x" * size

    worker = pond.queue("q").worker(send, concurrency=4)
    small, large, other = pond.queue("q").push_many([10, 2 << 20, 20])
    assert len(pond.result(small, timeout=20)) == 10
    assert len(pond.result(other, timeout=20)) == 20
    with pytest.raises(millpond.JobFailed):
        pond.result(large, timeout=20)
    worker.stop_now()


def test_jobs_pushed_by_a_handler_exist_exactly_if_its_outcome_is_kept(pond: millpond.Pond) -> None:
    def send(job: millpond.Job) -> None:
        job.push("after", {"attempt": job.attempt}, tags=["x"])
        if job.attempt == 1:
            raise millpond.Retry("again", after=0)

    ends(pond, send)
    # A retry is an outcome, too.
    found = [pond.job(one["id"]) for one in pond.queue("after").jobs()]
    assert sorted(one["body"]["attempt"] for one in found if one) == [1, 2]


def test_progress_and_log_lines_are_kept(pond: millpond.Pond) -> None:
    def send(job: millpond.Job) -> None:
        job.progress({"percent": 50})
        job.log("one\ntwo")

    job = ends(pond, send)
    assert job["progress"] == {"percent": 50}
    lines = pond.http("GET", f"/v1/jobs/{job['id']}/log")["lines"]
    assert [line["text"] for line in lines] == ["one", "two"]


def test_a_step_is_done_once_in_the_life_of_a_job(pond: millpond.Pond) -> None:
    charged = []

    def send(job: millpond.Job) -> list[Any]:
        def charge(number: int) -> dict[str, int]:
            charged.append(number)
            return {"n": number}

        paid = [job.step("charge", lambda: charge(n)) for n in range(2)]
        if job.attempt == 1:
            raise OSError("broken after the charge")
        return paid

    assert ends(pond, send, backoff="1ms")["result"] == [{"n": 0}, {"n": 1}]
    assert charged == [0, 1]


def test_a_job_sleeps_waits_for_a_signal_and_for_a_child(pond: millpond.Pond) -> None:
    tops = []

    def order(job: millpond.Job) -> list[Any]:
        tops.append(job.attempt)
        try:
            job.sleep("nap", "1ms")
            by = job.wait_for_signal("approved")
        except Exception:
            raise AssertionError("a suspension is no Exception")
        return [by, job.child("double", "double", 21), job.wait_for_signal("never", timeout="1ms")]

    doubler = pond.queue("double").worker(lambda job, body: body * 2)
    worker = pond.queue("q").worker(order)
    pushed = pond.queue("q").push(1)
    until(lambda: (pond.job(pushed.id) or {})["state"] == "suspended", "it waits")
    pond.signal(pushed.id, "approved", "ada")
    assert pond.result(pushed, timeout=20) == ["ada", 42, None]
    assert tops == [1] * 5
    worker.stop_now()
    doubler.stop_now()


def test_a_job_waits_for_children_and_reads_what_they_gave(pond: millpond.Pond) -> None:
    def parent(job: millpond.Job) -> Any:
        if job.children is None:
            raise millpond.Wait({"a": {"queue": "sizes", "body": 1}, "b": {"queue": "sizes", "body": 2}}, policy="all")
        return sorted((member["name"], member["result"]) for member in job.children["members"])

    sizes = pond.queue("sizes").worker(lambda job, body: body * 100)
    assert ends(pond, parent)["result"] == [["a", 100], ["b", 200]]
    sizes.stop_now()


def test_a_thread_hears_that_its_job_was_cancelled(pond: millpond.Pond) -> None:
    heard = []

    def send(job: millpond.Job) -> None:
        heard.append(job.wait_cancelled(30))
        try:
            job.progress(1)
        except millpond.Cancelled as error:
            heard.append(str(error))
            raise

    worker = pond.queue("q").worker(send)
    pushed = pond.queue("q").push(1)
    until(lambda: (pond.job(pushed.id) or {})["state"] == "active", "it runs")
    pond.cancel(pushed.id)
    until(lambda: len(heard) == 2, "the handler hears of it")
    assert heard == ["cancelled", "cancelled"]
    assert worker.stop_now()
    assert (pond.job(pushed.id) or {})["state"] == "cancelled"


def test_an_async_handler_is_cancelled_and_knows_why(server: Server) -> None:
    async def work(pond: Pond) -> None:
        heard: list[str | None] = []
        running = asyncio.Event()

        async def send(job: millpond.AsyncJob) -> None:
            running.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                heard.append(job.cancelled)
                raise

        worker = pond.queue("q").worker(send)
        for reason in ("cancelled", "timeout"):
            running.clear()
            pushed = await pond.queue("q").push(1, timeout="300ms" if reason == "timeout" else "1h", attempts=1)
            await running.wait()
            if reason == "cancelled":
                await pond.cancel(pushed.id)
            with pytest.raises(millpond.JobFailed):
                await pond.result(pushed, timeout=20)
        assert await worker.stop()
        assert heard == ["cancelled", "timeout"]

    run(server, work)


def test_async_handlers_run_at_once_and_use_steps(server: Server) -> None:
    async def work(pond: Pond) -> None:
        here: set[int] = set()
        all_here = asyncio.Event()

        async def send(job: millpond.AsyncJob, number: int) -> Any:
            here.add(number)
            if len(here) == 8:
                all_here.set()
            await all_here.wait()
            await job.progress(number)
            await job.log("x")

            async def double() -> int:
                return number * 2

            return [await job.step("double", double), await job.step("plain", lambda: 1)]

        worker = pond.queue("q").worker(send, concurrency=8)
        pushed = await pond.queue("q").push_many(range(8))
        assert [await pond.result(one, timeout=20) for one in pushed] == [[n * 2, 1] for n in range(8)]
        await worker.stop()

    run(server, work)


def test_a_loop_that_is_blocked_for_two_leases_loses_nothing(server: Server) -> None:
    async def work(pond: Pond) -> None:
        runs = []

        async def send(job: millpond.AsyncJob) -> str:
            runs.append(job.attempt)
            time.sleep(1.5)
            return "whole"

        worker = pond.queue("q").worker(send, lease="600ms")
        assert await pond.result(await pond.queue("q").push(1), timeout=20) == "whole"
        await worker.stop()
        assert runs == [1]

    run(server, work)


def test_a_loop_that_hangs_beyond_max_blocked_loses_its_job_to_another(server: Server) -> None:
    async def work(pond: Pond) -> None:
        by: list[str] = []
        hung, over = threading.Event(), threading.Event()

        async def hang(job: millpond.AsyncJob) -> str:
            by.append("hung")
            hung.set()
            over.wait(10)
            await asyncio.sleep(0)
            return "too late"

        def elsewhere() -> None:
            with millpond.connect(server.url) as other:
                assert hung.wait(20)

                def take(job: millpond.Job) -> str:
                    by.append("other")
                    return "done"

                worker = other.queue("q").worker(take)
                until(lambda: "other" in by, "it goes to another")
                worker.stop_now()
                over.set()

        thread = threading.Thread(target=elsewhere)
        thread.start()
        worker = pond.queue("q").worker(hang, lease="2s", max_blocked="500ms", concurrency=1)
        pushed = await pond.queue("q").push(1)
        assert await pond.result(pushed, timeout=30) == "done"
        thread.join()
        await worker.stop()
        assert by == ["hung", "other"]

    run(server, work)


def test_a_stop_waits_for_running_handlers_and_gives_the_rest_back(server: Server) -> None:
    async def work(pond: Pond) -> None:
        running, go = asyncio.Event(), asyncio.Event()

        async def send(job: millpond.AsyncJob) -> None:
            running.set()
            await go.wait()

        worker = pond.queue("q").worker(send, concurrency=2)
        await pond.queue("q").push_many(range(5))
        await running.wait()
        stopping = asyncio.create_task(worker.stop())
        while (await pond.queue("q").counts())["waiting"] != 3:
            await asyncio.sleep(0.01)
        go.set()
        assert await stopping
        counts = await pond.queue("q").counts()
        assert (counts["completed"], counts["waiting"]) == (2, 3)

    run(server, work)


def test_a_handler_that_does_not_end_in_time_is_told_to_stop_and_its_job_goes_back_unused(server: Server) -> None:
    async def work(pond: Pond) -> None:
        running = asyncio.Event()
        told: list[str | None] = []

        async def send(job: millpond.AsyncJob) -> None:
            running.set()
            try:
                await asyncio.sleep(60)
            finally:
                told.append(job.cancelled)

        worker = pond.queue("q").worker(send)
        pushed = await pond.queue("q").push(1)
        await running.wait()
        assert await worker.stop("10ms")
        job = await pond.job(pushed.id)
        assert job and (told, job["state"], job["attempt"]) == (["stopping"], "waiting", 0)

    run(server, work)


def test_jobs_that_find_no_handler_are_given_back(server: Server) -> None:
    async def work(pond: Pond) -> None:
        by: list[str] = []

        async def slow(job: millpond.AsyncJob, number: int) -> None:
            if number == 50:
                await over.wait()
            by.append("slow")

        over = asyncio.Event()
        # The pace of quick jobs lets some come ahead; then one of them holds the only handler.
        first = pond.queue("q").worker(slow, concurrency=1, lease="900ms")
        await pond.queue("q").push_many(range(200))
        while len(by) < 50:
            await asyncio.sleep(0.01)

        async def other(job: millpond.AsyncJob) -> None:
            by.append("other")

        second = pond.queue("q").worker(other, concurrency=1)
        while len(by) < 199:
            await asyncio.sleep(0.01)
        over.set()
        await first.stop()
        await second.stop()
        assert len(by) == 200

    run(server, work)


def test_a_subscription_that_is_refused_says_why(server: Server) -> None:
    with millpond.connect(server.url) as pond:
        app = millpond.App(server.url)
        app.handler(*(f"q{n}" for n in range(257)))(lambda job: None)

        async def main() -> None:
            await app.work(asyncio.Event())

        with pytest.raises(millpond.Refused):
            asyncio.run(asyncio.wait_for(main(), 30))
        assert pond.queues() == []
