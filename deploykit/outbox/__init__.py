"""The outbox: a durable spool of messages to send, one directory for writers of many UNIX users.

A writer has finished when its records are on the disk. A relay sends them later and removes what a broker confirmed.

Rules:

* `put_many` is one durable step: temporary file, fsync, rename, fsync of the directory. After it returned, a power
  cut does not lose a record; when it raised, nothing was queued.
* Records come out in the order in which they were put, across processes, users, reboots and clocks that go back.
* A record leaves the spool in one of two ways: `ack` (a broker has it) or `dead_letter` (with its reason).
* No foreign file is trusted: what is torn, not a plain file, or too big is set aside in `bad/` and never followed.
* Putting imports no more than it needs: it is on the path of a push. Reading is in modules loaded on use.

Layout of the directory (3770, owner: the daemon's user; or 0700 for one user alone)::

    <key>-<token>.rec      one `put_many`: one or more records (see `format`); 0640, owner: its writer
    <key>-<token>.done     which of its records are settled already; `.mine` where its writer settled them
    dead/, bad/            dead letters; what could not be read
    .tmp-…                 a record being written
    .clock-<boot id>       the anchor of this boot's keys (see `keys`)
    .wake, .wake-<uid>     where a relay listens for new records; `.relay.lock`, `.relay-<uid>.lock`: one relay each
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploykit.outbox.format import Outgoing, RecordId
from deploykit.outbox.spool import Outbox

if TYPE_CHECKING:
    from deploykit.outbox.record import Record, SetAside
    from deploykit.outbox.relaylock import RelayLock

__all__ = ["Outbox", "Outgoing", "Record", "RecordId", "RelayLock", "SetAside"]

_LAZY = {"Record": "record", "SetAside": "record", "RelayLock": "relaylock"}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"deploykit.outbox.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'deploykit.outbox' has no attribute {name!r}")
