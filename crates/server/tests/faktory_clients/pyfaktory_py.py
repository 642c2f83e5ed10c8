"""The PyPI package `pyfaktory`, unmodified: holds a job while the server is killed, pushes, works, fails, beats, ends on a signal.

usage: python pyfaktory_py.py FOLDER, with FAKTORY_URL
"""

import os
import pathlib
import signal
import sys
import threading
import time

from pyfaktory import Client, Consumer, Job, Producer

FOLDER = pathlib.Path(sys.argv[1])
QUEUE = "pyfaktory"


def until(condition):
    while not condition():
        time.sleep(0.05)


def ok(word):
    return word


def bad(word):
    raise ValueError("nope")


def push(jobtype):
    with Client(role="producer") as client:
        job = Job(jid=f"{QUEUE}-{jobtype}-one", jobtype=jobtype, args=("one",), queue=QUEUE)
        assert Producer(client=client).push(job)


def hold():
    # A connection ends with the server; a worker answers on its next one.
    push("held")
    first = Client(role="consumer", worker_id="w-pyfaktory")
    first.connect()
    job = first._fetch([QUEUE])
    assert job["jid"] == f"{QUEUE}-held-one", job
    (FOLDER / "held").touch()
    until((FOLDER / "go").exists)
    with Client(role="consumer", worker_id="w-pyfaktory") as client:
        assert client._beat()
        assert client._ack(job["jid"])


def end_when_idle():
    with Client(role="producer") as client:
        sets = lambda: client.info()["faktory"]["sets"]
        until(lambda: sets()["retries"] == 1 and sets()["working"] == 0)
    os.kill(os.getpid(), signal.SIGINT)


def main():
    hold()
    with Client(role="producer") as client:
        refused = Producer(client=client).push_bulk([Job(jid="short", jobtype="ok", args=(), queue=QUEUE)])
        assert list(refused) == ["short"], refused
    push("ok")
    push("bad")
    threading.Thread(target=end_when_idle, daemon=True).start()
    with Client(role="consumer", worker_id="w-pyfaktory-2") as client:
        consumer = Consumer(client=client, queues=[QUEUE], concurrency=1, grace_period=5)
        consumer.register("ok", ok)
        consumer.register("bad", bad)
        try:
            consumer.run()
        except SystemExit:
            pass
    (FOLDER / "done").touch()


if __name__ == "__main__":
    main()
    # The heartbeats of connections that were cut off sleep on.
    os._exit(0)
