"""The books of a relay: what was put into a spool, and what a consumer at the other end of a real broker got."""

from __future__ import annotations

import itertools
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deploykit.bus import Bus, Delivery
from deploykit.outbox import Outbox, Outgoing
from deploykit.outbox.relay import Relay
from deploykit.settings import BusSettings
from deploykit.wire.frame import Frame
from tests.support.wait import wait_until

#: No broker knows such a destination: what goes there becomes a dead letter.
NOWHERE = "/nowhere/at-all"

WORKER = """
import contextlib, os, sys
from deploykit.bus import Bus
from deploykit.outbox.relay import Relay
from deploykit.errors import DeploykitError
from deploykit.outbox import Outbox
from deploykit.settings import BusSettings
try:
    with Bus(BusSettings(address=sys.argv[2], backoff_max=0.2, publish_timeout=15.0)) as bus:
        report = Relay(Outbox(sys.argv[1]), bus, max_attempts=1, pause=0.01).drain_once(float(sys.argv[3]))
    with contextlib.suppress(OSError):  # a fault injected into a write may meet this one
        os.write(1, f"{report}\\n".encode())
except DeploykitError as error:
    print(error, file=sys.stderr)
"""

DAEMON = """
import sys, threading
from deploykit.bus import Bus
from deploykit.outbox.relay import Relay
from deploykit.outbox import Outbox
from deploykit.settings import BusSettings
with Bus(BusSettings(address=sys.argv[2], backoff_max=0.2, publish_timeout=5.0)) as bus:
    Relay(Outbox(sys.argv[1]), bus, pause=0.05, pause_max=0.2).run(threading.Event())
"""


class Books:
    """Puts messages, and keeps account of what arrives.

    Args:
        spool: the outbox's directory; made when missing.
        address: of the broker.
    """

    def __init__(self, spool: Path, address: str) -> None:
        self.spool = spool
        self.outbox = Outbox(spool)
        self.address = address
        name = f"relay-{secrets.token_hex(4)}"
        self.queues = (f"/queue/{name}-a", f"/queue/{name}-b")
        self.put: dict[str, list[bytes]] = {queue: [] for queue in self.queues}
        self.got: dict[str, list[bytes]] = {queue: [] for queue in self.queues}
        self.poison: set[bytes] = set()
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    @contextmanager
    def consuming(self) -> Iterator[None]:
        """Receive from both queues meanwhile; the broker has confirmed them."""
        with Bus(BusSettings(address=self.address, backoff_max=0.2)) as bus:
            for subscription in [bus.subscribe(queue, self._received_on(queue)) for queue in self.queues]:
                assert subscription.wait_active(30)
            yield

    def _received_on(self, queue: str):  # type: ignore[no-untyped-def]
        def received(delivery: Delivery) -> None:
            with self._changed:
                self.got[queue].append(delivery.body)
                self._changed.notify_all()

        return received

    def queue(self, *, singles: int, batch: int, poison: int = 0) -> None:
        """Put so many records one by one, and so many in one step, turn about to both queues."""
        for _ in range(singles):
            self.outbox.put_many([self._next()])
        self.outbox.put_many([self._next() for _ in range(batch)])
        for _ in range(poison):
            body = b"poison %d" % next(self._numbers)
            self.poison.add(body)
            self.outbox.put(NOWHERE, Frame({}, body))

    def _next(self) -> Outgoing:
        number = next(self._numbers)
        queue, body = self.queues[number % 2], b"%06d" % number
        self.put[queue].append(body)
        return Outgoing(queue, Frame({"subject": f"number {number}"}, body))

    def worker(self, deadline: float = 30.0) -> list[str]:
        """The command of a relay that drains the spool once."""
        return [sys.executable, "-c", WORKER, str(self.spool), self.address, str(deadline)]

    def daemon(self) -> list[str]:
        """The command of a relay that goes on until it is killed."""
        return [sys.executable, "-c", DAEMON, str(self.spool), self.address]

    def drain(self, deadline: float = 60.0) -> None:
        """Let an undisturbed relay finish."""
        with Bus(BusSettings(address=self.address, backoff_max=0.2)) as bus:
            report = Relay(self.outbox, bus, max_attempts=1, pause=0.01).drain_once(deadline)
        assert report.complete, report

    def _left(self) -> list[str]:
        return [p.name for p in self.spool.iterdir() if p.suffix in (".rec", ".done", ".mine")]

    def balance(self, timeout: float = 60.0, *, in_order: bool = True) -> None:
        """Assert that nothing was lost, swapped or left, and that dead letters are what they should be.

        Args:
            in_order: off where the broker itself was killed: of what it had not confirmed it may keep a part.
        """
        with self._changed:
            self._changed.wait_for(lambda: all(set(self.got[q]) >= set(self.put[q]) for q in self.queues), timeout)
            for queue in self.queues:
                lost = set(self.put[queue]) - set(self.got[queue])
                assert not lost, f"lost on {queue}: {sorted(lost)[:10]}"
                first_time = list(dict.fromkeys(self.got[queue]))
                assert not in_order or first_time == self.put[queue], (
                    f"out of order on {queue}: {first_time} for {self.put[queue]}"
                )
        # A consumer has a message before the relay has its receipt, and a record goes before the marks beside it.
        wait_until(lambda: next(self.outbox.pending(), None) is None, "the empty spool", timeout)
        with suppress(AssertionError):
            wait_until(lambda: not self._left(), timeout=timeout)
        assert self._left() == [], f"stuck in the spool: {self._left()}"
        assert {r.frame.body for r in self.outbox.dead()} == self.poison
        assert list(self.outbox.set_aside()) == []
