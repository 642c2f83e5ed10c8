"""Spans of time, and bodies: what is written as JSON and read into the types that handlers name."""

from __future__ import annotations

import dataclasses
import json
import re
import types
import typing
from datetime import datetime, timedelta
from typing import Any, Union

import msgpack

from . import errors

#: Seconds as a number, a `timedelta`, or words such as "250ms", "1h30m".
Span = Union[int, float, str, timedelta]

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SPAN = re.compile(rf"(?:{_PART.pattern})+")


def millis(span: Span) -> int:
    """The span in milliseconds."""
    if isinstance(span, timedelta):
        whole = span.total_seconds() * 1000
    elif isinstance(span, str):
        if not _SPAN.fullmatch(span):
            raise ValueError(f"{span!r} is no span of time, such as '250ms', '5m' or '1h30m'")
        whole = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(span))
    else:
        whole = span * 1000
    if not 0 <= whole < 2**53:
        raise ValueError(f"a span of time is not negative and not endless: {span!r}")
    return round(whole)


def moment(time: datetime | int | float) -> int:
    """A time in Unix milliseconds; a number is Unix seconds."""
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(f"{time} has no time zone")
        time = time.timestamp()
    return round(time * 1000)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


_encoder = json.JSONEncoder(default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode(value: Any) -> bytes:
    """As JSON; dataclasses are objects."""
    # Half a surrogate pair cannot be UTF-8, but can be an escape.
    text = _encoder.encode(value)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, default=_plain, allow_nan=False).encode()


def decode(value: bytes | str | None) -> Any:
    """From JSON; what is not there is None."""
    # Decoded here, because JSON's own module would look for other encodings first.
    return json.loads(value.decode() if isinstance(value, bytes) else value) if value else None


def pack(value: Any) -> bytes:
    """As MessagePack."""
    return typing.cast(bytes, msgpack.packb(value))


_hints: dict[type, dict[str, Any]] = {}


def build(kind: Any, value: Any, place: str = "body") -> Any:
    """Reads parsed JSON into dataclasses, also those inside lists, dicts, tuples and unions. Other types are taken as they come."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _build_dataclass(kind, value, place)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _build_union(args, value, place)
    if origin in (list, set, tuple) and args and isinstance(value, list):
        each = args if origin is tuple and args[-1] is not ... else (args[0],) * len(value)
        if len(each) != len(value):
            raise errors.BadBody(f"{place}: {len(each)} items are needed")
        return origin(build(one, item, f"{place}[{n}]") for n, (one, item) in enumerate(zip(each, value)))
    if origin is dict and len(args) == 2 and isinstance(value, dict):
        return {key: build(args[1], item, f"{place}.{key}") for key, item in value.items()}
    return value


def _build_dataclass(kind: type, value: Any, place: str) -> Any:
    if not isinstance(value, dict):
        raise errors.BadBody(f"{place}: an object is needed for {kind.__name__}, this is {type(value).__name__}")
    hints = _hints.get(kind)
    if hints is None:
        hints = _hints[kind] = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    # What a newer producer adds is no reason to lose the job.
    given = {name: build(hints[name], item, f"{place}.{name}") for name, item in value.items() if name in fields}
    missing = dataclasses.MISSING
    needed = [name for name, field in fields.items() if field.default is missing and field.default_factory is missing]
    lacking = [name for name in needed if name not in given]
    if lacking:
        raise errors.BadBody(f"{place}: {', '.join(lacking)} missing for {kind.__name__}")
    return kind(**given)


def _build_union(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    wrong = None
    for kind in kinds:
        if kind is type(None):
            continue
        try:
            return build(kind, value, place)
        except errors.BadBody as error:
            wrong = error
    raise wrong or errors.BadBody(f"{place}: nothing is needed here")
