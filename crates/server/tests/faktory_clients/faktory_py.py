"""The PyPI package `faktory`, unmodified: holds a job while the server is killed, pushes, works, fails, beats, ends on a signal.

usage: python faktory_py.py FOLDER, with FAKTORY_URL
"""

import json
import os
import pathlib
import signal
import sys
import threading
import time

import faktory
from faktory import Worker
from faktory._proto import Connection

FOLDER = pathlib.Path(sys.argv[1])
QUEUE = "faktory-py"


def until(condition):
    while not condition():
        time.sleep(0.05)


def push(jobtype):
    with faktory.connection() as client:
        assert client.queue(jobtype, args=("one",), queue=QUEUE, jid=f"{QUEUE}-{jobtype}-one")


def connect(wid=None):
    connection = Connection(worker_id=wid, labels=["python"])
    connection.connect(worker_id=wid)
    return connection


def ask(connection, verb, said=None):
    connection.reply(verb, said)
    return next(connection.get_message())


def hold():
    # A connection ends with the server; a worker answers on its next one.
    push("held")
    job = connect("w-faktory-py").fetch([QUEUE])
    assert job["jid"] == f"{QUEUE}-held-one", job
    (FOLDER / "held").touch()
    until((FOLDER / "go").exists)
    again = connect("w-faktory-py")
    assert ask(again, "BEAT", {"wid": "w-faktory-py"}) == "OK"
    assert ask(again, "ACK", {"jid": job["jid"]}) == "OK"


def end_when_idle():
    connection = connect()
    sets = lambda: json.loads(ask(connection, "INFO"))["faktory"]["sets"]
    until(lambda: sets()["retries"] == 1 and sets()["working"] == 0)
    os.kill(os.getpid(), signal.SIGINT)


def main():
    hold()
    ran = []
    worker = Worker(queues=[QUEUE], concurrency=1, use_threads=True)
    worker.send_heartbeat_every = 1

    def bad(word):
        raise ValueError("nope")

    worker.register("ok", ran.append)
    worker.register("bad", bad)
    push("ok")
    push("bad")
    threading.Thread(target=end_when_idle, daemon=True).start()
    try:
        worker.run()
    except SystemExit:
        pass
    assert ran == ["one"], ran
    (FOLDER / "done").touch()


if __name__ == "__main__":
    main()
