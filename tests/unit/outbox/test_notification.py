"""Waiting for records: a put wakes the relay, and never waits for it."""

from __future__ import annotations

import os
import time

from deploykit.outbox import Outbox
from tests.support.spools import A, frame


def test_wait_ends_at_once_for_a_new_record_and_not_before(outbox: Outbox) -> None:
    listener = Outbox(outbox.path)
    try:
        assert not listener.wait(0.01)
        outbox.put(A, frame())
        start = time.monotonic()
        assert listener.wait(30)
        assert time.monotonic() - start < 10
        assert not listener.wait(0.01), "each announcement counts once"
    finally:
        listener.close()


def test_the_first_wait_knows_of_what_was_put_before(outbox: Outbox) -> None:
    outbox.put(A, frame())
    try:
        assert outbox.wait(30)
    finally:
        outbox.close()


def test_wake_ends_a_wait_without_pretending_that_something_came(outbox: Outbox) -> None:
    try:
        outbox.wait(0)
        outbox.interrupt()
        start = time.monotonic()
        assert not outbox.wait(30)
        assert time.monotonic() - start < 10
        outbox.interrupt()
        outbox.put(A, frame())
        assert outbox.wait(30)
    finally:
        outbox.close()


def test_relay_listens_tells_a_living_relay_from_a_dead_one(outbox: Outbox) -> None:
    other = Outbox(outbox.path)
    assert not other.relay_listens()
    outbox.wait(0)
    assert other.relay_listens()
    outbox.close()
    assert not other.relay_listens()


def test_a_put_never_blocks_on_a_relay_that_does_not_read(outbox: Outbox) -> None:
    listener = Outbox(outbox.path)
    try:
        listener.wait(0)
        for _ in range(70_000):
            assert outbox.relay_listens()
        outbox.put(A, frame())
        assert listener.wait(30)
        assert not listener.wait(0)
    finally:
        listener.close()


def test_a_forked_child_listens_for_itself(outbox: Outbox) -> None:
    outbox.wait(0)
    pid = os.fork()
    if not pid:
        ok = not outbox.wait(0.01)
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    outbox.put(A, frame())
    assert outbox.wait(30)
    outbox.close()
