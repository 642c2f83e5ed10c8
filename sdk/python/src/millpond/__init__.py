"""Millpond for Python: push jobs, and work on them.

    import millpond

    pond = millpond.connect("millpond://127.0.0.1:7077")
    pond.queue("emails").push({"to": "ada"}, delay="5m", idempotency_key="welcome-ada")

    app = millpond.App("millpond://127.0.0.1:7077")

    @app.handler("emails", concurrency=16)
    def send(job, email): ...

`python -m millpond worker module:app` runs the handlers. The page of the package says more.
"""

from . import aio
from .app import App, Handler
from .errors import (
    Away,
    BadBody,
    Cancel,
    Cancelled,
    Closed,
    Error,
    Fail,
    JobFailed,
    Outcome,
    RateLimited,
    Refused,
    Retry,
    Snooze,
    Suspended,
    UnknownOutcome,
    Wait,
)
from .job import AsyncJob, Job
from .link import VERSION as __version__
from .push import JobOptions, Pushed, PushOptions
from .sync import Pond, Queue, connect
from .worker import Worker

__all__ = [
    "App",
    "AsyncJob",
    "Away",
    "BadBody",
    "Cancel",
    "Cancelled",
    "Closed",
    "Error",
    "Fail",
    "Handler",
    "Job",
    "JobFailed",
    "JobOptions",
    "Outcome",
    "Pond",
    "Pushed",
    "PushOptions",
    "Queue",
    "RateLimited",
    "Refused",
    "Retry",
    "Snooze",
    "Suspended",
    "UnknownOutcome",
    "Wait",
    "Worker",
    "__version__",
    "aio",
    "connect",
]
