"""Jobs to be pushed, and where a server is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Callable, Literal, Mapping, Sequence, TypedDict, Union
from urllib.parse import urlsplit

from .values import Span, encode, millis, moment

if TYPE_CHECKING:
    from typing_extensions import TypeAlias

Durability = Literal["memory", "os", "disk"]
#: A number from 0, which is first, to 255, or a word.
Priority: TypeAlias = Union[int, Literal["critical", "high", "normal", "low", "background"]]

_QUEUE = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_PRIORITIES = {"critical": 0, "high": 50, "normal": 100, "low": 150, "background": 200}


class JobOptions(TypedDict, total=False):
    """How a job differs from others of its queue; docs/jobs.md says more of each."""

    id: str
    priority: Priority
    delay: Span
    run_at: datetime | float
    attempts: int
    max_crashes: int
    #: "exponential", "sidekiq", a span between attempts, a list of spans, or an object as over HTTP.
    backoff: str | Span | Sequence[Span] | Mapping[str, Any]
    timeout: Span
    #: It expires if it has not started by then.
    expires: Span
    #: A key, or `{"key", "ttl", "on_conflict", "max_wait"}`.
    unique: str | Mapping[str, Any]
    tags: Sequence[str]
    meta: Mapping[str, str]
    group: str
    ordering_key: str
    #: Keys of limits, or `{key: cost}`.
    limits: Sequence[str] | Mapping[str, int]
    deadline: datetime | float
    content_type: str


class PushOptions(JobOptions, total=False):
    """A push may say more."""

    #: For 24 hours the same key gets the first answer again, so that a push may be repeated.
    idempotency_key: str
    #: How long to wait for room in a full queue.
    wait: Span
    durability: Durability


@dataclass(frozen=True)
class Pushed:
    """What became of a pushed job."""

    id: str
    queue: str
    state: str = "waiting"
    #: It was there already.
    deduplicated: bool = False
    #: It was there, has ended, and is no longer kept.
    forgotten: bool = False


def _backoff(given: Any) -> Any:
    if isinstance(given, Mapping):
        return dict(given)
    if given == "exponential":
        return {"type": "exponential", "base_ms": 1_000, "cap_ms": 3_600_000}
    if given == "sidekiq":
        return {"type": "sidekiq"}
    if isinstance(given, (list, tuple)):
        return {"type": "list", "delays_ms": [millis(span) for span in given]}
    return {"type": "fixed", "delay_ms": millis(given)}


def _unique(given: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(given, str):
        return {"key": given}
    spans = {"ttl": "ttl_ms", "max_wait": "max_wait_ms"}
    return {spans.get(name, name): millis(value) if name in spans else value for name, value in given.items()}


def _limits(given: Sequence[str] | Mapping[str, int]) -> list[dict[str, Any]]:
    costs = given if isinstance(given, Mapping) else dict.fromkeys(given, 1)
    return [{"key": key, "cost": cost} for key, cost in costs.items()]


def queue_name(name: str) -> str:
    """The name, if it is one. A message that cannot be read would end the connection for everybody, so it is checked here."""
    if not _QUEUE.fullmatch(name):
        raise ValueError(f"{name!r} is no queue: 1 to 128 letters, digits and . _ - :")
    return name


def _id(given: str) -> str:
    if not 0 < len(given.encode()) <= 255 or any(ord(char) < 32 or 127 <= ord(char) < 160 for char in given):
        raise ValueError(f"{given!r} is no id: 1 to 255 bytes without control characters")
    return given


def _whole(most: int) -> Callable[[Any], int]:
    def check(given: Any) -> int:
        if isinstance(given, str) and given in _PRIORITIES:
            return _PRIORITIES[given]
        if not isinstance(given, int) or not 0 <= given <= most:
            raise ValueError(f"{given!r} is not a whole number from 0 to {most}")
        return given

    return check


_AS: dict[str, tuple[str, Any]] = {
    "id": ("id", _id),
    "attempts": ("attempts", _whole(2**32 - 1)),
    "max_crashes": ("max_crashes", _whole(2**32 - 1)),
    "priority": ("priority", _whole(255)),
    "delay": ("delay_ms", millis),
    "timeout": ("timeout_ms", millis),
    "expires": ("expires_ms", millis),
    "run_at": ("run_at", moment),
    "deadline": ("deadline", moment),
    "backoff": ("backoff", _backoff),
    "unique": ("unique", _unique),
    "limits": ("limits", _limits),
    "tags": ("tags", list),
    "meta": ("meta", lambda meta: list(meta.items())),
}


def wire_job(queue: str, body: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """A job as docs/stream.md has it. Bytes are sent as they are, anything else as JSON."""
    job: dict[str, Any] = {"queue": queue_name(queue)}
    if isinstance(body, (bytes, bytearray, memoryview)):
        job.update(body=bytes(body), content_type="application/octet-stream")
    else:
        job["body"] = encode(body)
    unknown = options.keys() - JobOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"a job has no option {', '.join(sorted(unknown))}")
    for name, value in options.items():
        if value is not None:
            field, convert = _AS.get(name, (name, None))
            job[field] = convert(value) if convert else value
    return job


@dataclass(frozen=True)
class Address:
    """Where a server is."""

    host: str
    port: int
    tls: bool

    @staticmethod
    def read(url: str) -> Address:
        """`millpond://host:port`, `http://…`, or with TLS `millpond+tls://…`, `https://…`. The port is 7077 if none is named."""
        parts = urlsplit(url)
        schemes = {"millpond": False, "http": False, "millpond+tls": True, "https": True}
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"{url}: an address is such as millpond://127.0.0.1:7077")
        if parts.username or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError(f"{url.rpartition('@')[2]}: has only a host and a port; the token is given apart")
        return Address(parts.hostname, parts.port or 7077, schemes[parts.scheme])

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
