from __future__ import annotations

import os
import threading
import time
from collections import Counter

import millpond
import pytest
from .conftest import Proxy, Server, until

CUTS = int(os.environ.get("MILLPOND_CUTS", "20"))


def test_a_link_that_is_cut_in_any_way_is_made_again_and_no_job_is_lost_or_doubled(server: Server, proxy: Proxy) -> None:
    runs: Counter[int] = Counter()
    stop = threading.Event()
    numbers = iter(range(10**9))
    pushed: list[int] = []
    times: list[float] = []
    with millpond.connect(proxy.url) as pond:
        queue = pond.queue("q")
        worker = queue.worker(lambda job, number: runs.update([number]), concurrency=4)

        def produce() -> None:
            while not stop.is_set():
                some = [next(numbers) for _ in range(5)]
                queue.push_many(some)
                pushed.extend(some)
                stop.wait(0.002)

        producer = threading.Thread(target=produce)
        producer.start()
        for nth in range(CUTS):
            connections = proxy.connections
            proxy.cut(("kill", "both", "up", "down")[nth % 4])
            began = time.monotonic()
            number = next(numbers)
            queue.push(number)
            pushed.append(number)
            until(lambda: runs[number], f"nothing runs after cut {nth}")
            times.append(time.monotonic() - began)
            assert proxy.connections > connections, "the link was made again"
            # What was held on the old link comes late: nobody may be confused by it.
            proxy.mend()
        stop.set()
        producer.join()
        until(lambda: len(runs) == len(pushed), "every job runs")
        info = queue.info()
        worker.stop_now()
    assert info and info["pushed_total"] == len(pushed), "no push was doubled"
    assert [number for number, count in runs.items() if count > 1] == []
    times.sort()
    print(f"{CUTS} cuts, {len(pushed)} jobs: half within {times[len(times) // 2]:.2f} s, all within {times[-1]:.2f} s")


def test_a_server_that_was_killed_is_found_again(server: Server) -> None:
    runs: list[int] = []
    with millpond.connect(server.url) as pond:
        queue = pond.queue("q")
        held, go = threading.Event(), threading.Event()

        def send(job: millpond.Job, number: int) -> None:
            runs.append(number)
            if number == 0:
                held.set()
                go.wait(60)

        worker = queue.worker(send, concurrency=2)
        first = queue.push(0)
        assert held.wait(20)
        server.kill()
        server.start()
        # Its lease outlives the server.
        go.set()
        assert pond.result(first, timeout=20) is None
        second = queue.push(1, idempotency_key="one")
        pond.result(second, timeout=20)
        assert runs == [0, 1]
        worker.stop_now()


def test_a_call_that_finds_no_server_fails_after_the_patience_and_changed_nothing(server: Server) -> None:
    with millpond.connect(server.url, patience=0.5) as pond:
        queue = pond.queue("q")
        queue.push(1)
        server.kill()
        until(lambda: not pond.aio.link.up, "the end of the link is seen")
        with pytest.raises(millpond.Away):
            queue.push(2)
        with pytest.raises(millpond.Away):
            queue.counts()
        server.start()
        until(lambda: pond.aio.link.up, "the link is made again")
        queue.push(3)
        assert queue.counts()["waiting"] == 2


def test_a_push_whose_answer_was_lost_with_its_server_is_unknown_without_a_key_and_repeated_with_one(server: Server, proxy: Proxy) -> None:
    with millpond.connect(proxy.url, heartbeat=10) as pond:
        queue = pond.queue("q")
        queue.push(0)
        # It arrives; what is answered does not.
        proxy.cut("down")
        outcomes: list[object] = []

        def push(**options: str) -> None:
            try:
                outcomes.append(queue.push(1, **options).id)  # type: ignore[arg-type]
            except millpond.Error as error:
                outcomes.append(type(error))

        threads = [threading.Thread(target=push), threading.Thread(target=push, kwargs={"idempotency_key": "k"})]
        for thread in threads:
            thread.start()
        with millpond.connect(server.url) as other:
            until(lambda: other.queue("q").counts()["waiting"] == 3, "both have arrived")
        server.kill()
        server.start()
        proxy.cut("kill")
        for thread in threads:
            thread.join()
        assert millpond.UnknownOutcome in outcomes
        assert any(isinstance(one, str) for one in outcomes)
        assert queue.counts()["waiting"] == 3


def test_a_push_that_may_have_arrived_is_unknown_after_the_patience_with_a_key_too(server: Server, proxy: Proxy) -> None:
    with millpond.connect(proxy.url, patience=0.5) as pond:
        proxy.cut("down")
        with pytest.raises(millpond.UnknownOutcome):
            threading.Timer(0.2, server.kill).start()
            pond.queue("q").push(1, idempotency_key="k")


def test_a_server_that_stops_hands_over_to_the_next_one(server: Server) -> None:
    with millpond.connect(server.url) as pond:
        queue = pond.queue("q")
        runs: list[int] = []
        worker = queue.worker(lambda job, number: runs.append(number))
        for number in range(3):
            queue.push(number, idempotency_key=str(number))
            until(lambda: number in runs, "it runs")
            server.stop()
            server.start()
        worker.stop_now()
        assert runs == [0, 1, 2]
