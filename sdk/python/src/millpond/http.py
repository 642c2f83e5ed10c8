"""The HTTP routes (docs/http.md), for what is asked seldom: one connection a call."""

from __future__ import annotations

import http.client
import json
import ssl
import time
from typing import Any, Mapping
from urllib.parse import quote, urlencode

from . import errors
from .link import Options
from .push import Address
from .values import decode, encode

#: Seconds that an answer may take.
ANSWER = 70.0


class Http:
    """Calls of the routes, which block."""

    def __init__(self, address: Address, options: Options, tls: ssl.SSLContext | None):
        self._address, self._options, self._tls = address, options, tls

    def call(self, method: str, path: str, body: Any = None, *, key: str | None = None, **query: Any) -> Any:
        """One call; its answer as parsed JSON. Waits for a server that is away for as long as any call, and repeats what may be repeated:
        what only looks, and what has an idempotency key."""
        asked = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(asked)}" if asked else path
        headers = {"Millpond-Actor": self._options.name.encode("ascii", "replace").decode()}
        if self._options.token:
            headers["Authorization"] = f"Bearer {self._options.token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        data = None
        if body is not None or method in ("POST", "PATCH", "PUT"):
            data, headers["Content-Type"] = encode({} if body is None else body), "application/json"
        safe = key is not None or method in ("GET", "PUT", "DELETE")
        until = time.monotonic() + self._options.patience
        while True:
            sent = False
            try:
                connection = self._connect()
                try:
                    connection.connect()
                    sent = True
                    connection.request(method, target, data, headers)
                    response = connection.getresponse()
                    status, text = response.status, response.read()
                finally:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                if sent and not safe:
                    raise errors.UnknownOutcome("unknown_outcome", f"{self._address}: {error}") from None
                if time.monotonic() >= until:
                    raise errors.Away("away", f"{self._address}: {error}") from None
                time.sleep(0.05)
                continue
            if status < 400:
                return decode(text)
            problem = _problem(status, text)
            if problem.code not in ("starting", "stopping") or time.monotonic() >= until:
                raise problem
            time.sleep(0.05)

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address.host, self._address.port
        if self._tls:
            return http.client.HTTPSConnection(host, port, timeout=ANSWER, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=ANSWER)


def _problem(status: int, text: bytes) -> errors.Error:
    try:
        problem: Mapping[str, Any] = json.loads(text)
    except ValueError:
        problem = {"code": "bad_request", "detail": f"HTTP {status}"}
    return errors.refused(problem)


def job_path(queue: str | None, id: str, rest: str = "") -> str:
    """The path of a job; a generated id needs no queue."""
    where = f"/v1/queues/{quote(queue, safe='')}/jobs" if queue else "/v1/jobs"
    return f"{where}/{quote(id, safe='')}{rest}"


def queue_path(queue: str, rest: str = "") -> str:
    """The path of a queue."""
    return f"/v1/queues/{quote(queue, safe='')}{rest}"
