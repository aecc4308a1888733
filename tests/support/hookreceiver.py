"""A receiver of webhooks: a real HTTP server on loopback that answers as a test wants, and keeps what came."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import attrs

from tests.support.stubhttp import Fault, Reply, Seen, StubServer


@attrs.define(kw_only=True)
class HookReceiver:
    """What came, and how it is answered.

    Args:
        answers: taken in turn; then `usual`.
    """

    answers: list[Reply] = attrs.field(factory=list)
    usual: Callable[[Seen], Reply] = lambda _: Reply(status=200, body=b"ok")
    faults: list[Fault] = attrs.field(factory=list)
    seen: list[Seen] = attrs.field(factory=list)
    sent_bytes: int = 0
    url: str = ""

    def reply(self, seen: Seen) -> Reply:
        """Return the answer to a request."""
        return self.answers.pop(0) if self.answers else self.usual(seen)

    def take_fault(self, seen: Seen) -> Fault | None:
        """Return what goes wrong next."""
        del seen
        return self.faults.pop(0) if self.faults else None


@contextmanager
def receiving(receiver: HookReceiver, tls: ssl.SSLContext | None = None) -> Iterator[HookReceiver]:
    """Run a receiver; its `url` is set, without a slash at its end."""
    server = StubServer(0, receiver, tls)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="hook-receiver")
    thread.start()
    receiver.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    try:
        yield receiver
    finally:
        server.end()
        thread.join(20)
