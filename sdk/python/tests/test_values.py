from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from millpond import BadBody
from millpond.push import Address, wire_job
from millpond.values import build, decode, encode, millis


@dataclass
class Part:
    size: int


@dataclass
class Order:
    id: str
    parts: list[Part] = field(default_factory=list)
    first: Part | None = None
    by_name: dict[str, Part] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("span", "ms"), [(2, 2000), (0.25, 250), ("250ms", 250), ("1h30m", 5_400_000), ("1.5s", 1500), (timedelta(days=1), 86_400_000)]
)
def test_a_span_is_seconds_or_words(span: Any, ms: int) -> None:
    assert millis(span) == ms


@pytest.mark.parametrize("span", ["5", "5 m", "m", "", -1, float("inf"), "-1s"])
def test_what_is_no_span_is_refused(span: Any) -> None:
    with pytest.raises((ValueError, OverflowError)):
        millis(span)


def test_dataclasses_are_written_and_read_back() -> None:
    order = Order("a", [Part(1), Part(2)], Part(3), {"x": Part(4)})
    assert build(Order, decode(encode(order))) == order


def test_fields_that_are_not_known_are_passed_over_and_missing_ones_named() -> None:
    assert build(Order, {"id": "a", "new": 1}) == Order("a")
    with pytest.raises(BadBody, match=r"body\.parts\[1\]: size missing for Part"):
        build(Order, {"id": "a", "parts": [{"size": 1}, {}]})
    with pytest.raises(BadBody, match="an object is needed"):
        build(Order, [1])


def test_half_a_surrogate_pair_is_escaped() -> None:
    assert decode(encode("\ud800")) == "\ud800"


@pytest.mark.parametrize("name", ["", "no spaces", "ü", "x" * 129, "a\n"])
def test_a_name_that_the_server_could_not_read_is_refused_before_it_is_sent(name: str) -> None:
    with pytest.raises(ValueError):
        wire_job(name, 1, {})


@pytest.mark.parametrize("option", [{"priority": 256}, {"priority": 1.5}, {"attempts": -1}, {"id": ""}, {"id": "a\0"}, {"delay": "x"}])
def test_an_option_that_the_server_could_not_read_is_refused_before_it_is_sent(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        wire_job("q", 1, option)


def test_an_option_that_does_not_exist_is_named() -> None:
    with pytest.raises(TypeError, match="dealy"):
        wire_job("q", 1, {"dealy": 1})


def test_an_address_has_a_host_and_perhaps_a_port() -> None:
    assert str(Address.read("millpond://[::1]:80")) == "[::1]:80"
    assert Address.read("https://queue.example") == Address("queue.example", 7077, True)
    for wrong in ("127.0.0.1:7077", "ftp://a", "millpond://", "millpond://a/b", "millpond://token@a"):
        with pytest.raises(ValueError):
            Address.read(wrong)
