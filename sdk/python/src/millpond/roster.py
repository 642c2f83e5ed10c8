"""What a worker's process is doing, in memory that outlives it, so that whoever started it can answer for its jobs when it is killed.

    64 bytes    the secret of its session
    each job    token (8 bytes, 0 if free), lengths of queue and id (2 each), queue, id
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import threading
from typing import Any

from websockets.sync.client import connect

from .errors import refused
from .job import Attempt
from .link import Options, read_all
from .push import Address
from .values import pack

_HEAD = struct.Struct("<64s")
_SLOT = struct.Struct("<QHH383s")
#: Jobs at once; those beyond are not noted, and come back when their leases end.
_SLOTS = 4_096
_SIZE = _HEAD.size + _SLOTS * _SLOT.size
#: Seconds for a farewell.
_PATIENCE = 5.0


class Roster:
    """One process's."""

    def __init__(self, file: int | None = None):
        if file is None:
            with tempfile.TemporaryFile() as made:
                os.ftruncate(made.fileno(), _SIZE)
                file = os.dup(made.fileno())
        self.file = file
        self._memory = mmap.mmap(file, _SIZE)
        self._lock = threading.Lock()
        self._free = list(range(_SLOTS - 1, -1, -1))
        self._slots: dict[int, int] = {}

    def close(self) -> None:
        self._memory.close()
        os.close(self.file)

    def note_session(self, secret: str) -> None:
        _HEAD.pack_into(self._memory, 0, secret.encode())

    def note_job(self, attempt: Attempt, begins: bool) -> None:
        """A handler begins a job, or is through with it."""
        with self._lock:
            if not begins:
                slot = self._slots.pop(attempt.token, None)
                if slot is not None:
                    struct.pack_into("<Q", self._memory, _place(slot), 0)
                    self._free.append(slot)
            elif self._free:
                slot = self._slots[attempt.token] = self._free.pop()
                name, id = attempt.raw["queue"].encode(), attempt.raw["id"].encode()
                _SLOT.pack_into(self._memory, _place(slot), attempt.token, len(name), len(id), name + id)

    def _jobs(self) -> list[dict[str, Any]]:
        found = []
        for slot in range(_SLOTS):
            token, end, more, names = _SLOT.unpack_from(self._memory, _place(slot))
            if token:
                found.append({"queue": names[:end].decode(), "id": names[end : end + more].decode(), "lease_token": token})
        return found

    def bury(self, url: str, options: Options, crash: dict[str, Any]) -> int:
        """Says of each job that was running what its process died of, and gives back those that were waiting. How many were running."""
        (secret,) = _HEAD.unpack_from(self._memory)
        jobs = self._jobs()
        address = Address.read(url)
        # Every job that was sent has come: nothing is to be given back before it is said what became of it.
        received = [{"sub": sub, "jobs": 2**53} for sub in range(1, 257)]
        resume = {"session": secret.rstrip(b"\0").decode(), "received": received, "asked": []}
        hello = {"version": 1, "worker": options.name, "client": "millpond-python", "heartbeat_ms": 60_000, "resume": resume}
        outcomes = [{**job, "outcome": "crash", "crash": crash} for job in jobs]
        with connect(
            f"{'wss' if address.tls else 'ws'}://{address}/v1/stream",
            additional_headers={"Authorization": f"Bearer {options.token}"} if options.token else None,
            ssl=options.tls,
            compression=None,
            ping_interval=None,
            open_timeout=_PATIENCE,
            close_timeout=_PATIENCE,
            proxy=None,
        ) as socket:
            socket.send(pack(["hello", 0, hello]))
            # Above every id that the dead process can have used.
            socket.send(pack(["outcomes", 2**53, {"outcomes": outcomes, "worker": options.name}]))
            answered = False
            while not answered:
                for name, id, fields in read_all(socket.recv(_PATIENCE)):
                    if name in ("bye", "refused"):
                        raise refused(fields)
                    answered |= id != 0
            socket.send(pack(["bye", 0, {}]))
        return len(jobs)


def _place(slot: int) -> int:
    return _HEAD.size + slot * _SLOT.size
