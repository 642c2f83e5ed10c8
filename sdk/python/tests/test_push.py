from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import millpond
from .conftest import Server, free_port


def test_every_option_of_a_push_reaches_the_server(server: Server) -> None:
    with millpond.connect(server.url) as pond:
        queue = pond.queue("mail")
        at = datetime.now(timezone.utc) + timedelta(hours=1)
        pushed = queue.push(
            {"to": "ada"},
            id="welcome",
            priority="high",
            delay="1h",
            run_at=at,
            attempts=7,
            max_crashes=2,
            backoff=["1s", "5s"],
            timeout="90s",
            expires="2d",
            unique={"key": "k", "ttl": "1m", "on_conflict": "reject"},
            tags=["a", "b"],
            meta={"trace": "1"},
            group="g",
            ordering_key="o",
            limits={"api": 2},
            deadline=at,
        )
        assert (pushed.id, pushed.queue, pushed.state) == ("welcome", "mail", "delayed")
        job = pond.job("welcome", "mail")
        assert job
        said = {name: job[name] for name in ("body", "priority", "attempts", "max_crashes", "tags", "meta")}
        assert said == {
            "body": {"to": "ada"},
            "priority": 50,
            "attempts": 7,
            "max_crashes": 2,
            "tags": ["a", "b"],
            "meta": {"trace": "1"},
        }
        with pytest.raises(millpond.Refused) as refused:
            queue.push(2, unique={"key": "k", "ttl": "1m", "on_conflict": "reject"})
        assert refused.value.code == "unique_conflict"


@pytest.mark.parametrize("backoff", ["exponential", "sidekiq", "5s", 3, {"type": "fixed", "delay_ms": 5}])
def test_a_backoff_may_be_said_in_several_ways(server: Server, backoff: str) -> None:
    with millpond.connect(server.url) as pond:
        assert pond.queue("q").push(1, backoff=backoff).state == "waiting"


def test_the_same_idempotency_key_gets_the_first_answer(server: Server) -> None:
    with millpond.connect(server.url) as pond:
        queue = pond.queue("q")
        first, second = queue.push(1, idempotency_key="once"), queue.push(1, idempotency_key="once")
        assert first.id == second.id
        with pytest.raises(millpond.Refused) as refused:
            queue.push(2, idempotency_key="once")
        assert refused.value.code == "idempotency_conflict"
        assert queue.counts()["waiting"] == 1


def test_jobs_of_several_queues_are_pushed_all_or_none(server: Server) -> None:
    with millpond.connect(server.url) as pond:
        pond.queue("full").configure(capacity={"jobs": 1})
        jobs: list[tuple[str, int, dict[str, int]]] = [("a", 1, {}), ("full", 2, {}), ("full", 3, {})]
        with pytest.raises(millpond.Refused) as refused:
            pond.push_many(jobs)
        assert refused.value.code == "queue_full"
        assert pond.queue("a").info() is None
        assert [one.queue for one in pond.push_many(jobs[:2])] == ["a", "full"]


def test_a_push_waits_for_room(server: Server) -> None:
    with millpond.connect(server.url) as pond:
        queue = pond.queue("q")
        queue.configure(capacity={"jobs": 1, "on_full": "block"})
        queue.push(1)
        with pytest.raises(millpond.Refused):
            queue.push(2, wait="10ms")
        worker = queue.worker(lambda job: None)
        assert queue.push(2, wait="30s").state == "waiting"
        worker.stop_now()


def test_reads_and_operations(server: Server) -> None:
    with millpond.connect(server.url) as pond:
        queue = pond.queue("q")
        pushed = queue.push(1)
        queue.pause()
        assert [one["name"] for one in pond.queues()] == ["q"]
        assert "paused" in pond.explain(pushed.id)["summary"]
        queue.resume()
        assert pond.cancel(pushed.id, reason="no more") == "cancelled"
        with pytest.raises(millpond.JobFailed) as failed:
            pond.result(pushed, timeout=5)
        assert failed.value.code == "cancelled"
        assert pond.redrive(pushed.id) == "waiting"
        assert pond.history(pushed.id)[-1]["cause"] == "redrive"
        with pytest.raises(TimeoutError):
            pond.result(pushed, timeout="20ms")
        assert [one["id"] for one in queue.jobs("waiting")] == [pushed.id]
        assert queue.purge()["action"] == "purge"
        assert pond.http("PUT", "/v1/limits/api", {"concurrency": 3})["key"] == "api"
        assert pond.job("01a200c6-b734-7000-8000-000000013aec") is None


def test_a_server_that_is_not_there_is_away_after_the_patience() -> None:
    with pytest.raises(millpond.Away):
        millpond.connect(f"millpond://127.0.0.1:{free_port()}", patience=0.3)


def test_a_token_that_is_missing_is_refused_at_once(folder: Path) -> None:
    token = folder / "token"
    token.write_text("a-token-of-the-tests-1234")
    server = Server(folder / "data", "--token-file", str(token))
    try:
        with pytest.raises(millpond.Refused) as refused:
            millpond.connect(server.url)
        assert refused.value.code == "unauthorized"
        app = millpond.App(server.url)
        with pytest.raises(millpond.Refused) as refused:
            app.handler("q")(lambda job: None).push(1)
        assert refused.value.code == "unauthorized"
        with millpond.connect(server.url, token="a-token-of-the-tests-1234") as pond:
            assert pond.queue("q").push(1).state == "waiting"
            assert pond.queue("q").counts()["waiting"] == 1
    finally:
        server.kill()


def test_many_tasks_push_at_once(server: Server) -> None:
    async def main() -> int:
        async with await millpond.aio.connect(server.url) as pond:
            queue = pond.queue("q")
            await asyncio.gather(*(queue.push(n) for n in range(3_000)))
            return (await queue.counts())["waiting"]

    assert asyncio.run(main()) == 3_000


def test_a_closed_pond_says_so(server: Server) -> None:
    pond = millpond.connect(server.url)
    pond.close()
    with pytest.raises(millpond.Closed):
        pond.queue("q").push(1)
