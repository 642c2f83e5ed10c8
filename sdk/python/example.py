# millpond work emails -- python3 example.py
from collections import Counter
import os

from millpond_handler import Fail, Snooze, run

sent = Counter()


def email(job):
    to, subject = job.body["to"], job.body.get("subject")
    if "@" not in to:
        raise Fail(f"not an address: {to}")
    if subject == "later":
        raise Snooze(60_000)
    if subject == "flaky" and job.attempt == 1:
        raise ConnectionError("the mail server is busy")
    print("this goes to stderr and harms nothing")
    job.log(f"sending to {to}")
    job.progress({"percent": 50})
    sent[to] += 1
    return {"to": to, "messages": sent[to], "pid": os.getpid()}


run(email)
