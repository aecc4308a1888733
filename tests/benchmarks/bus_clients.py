"""The competitors of `bench_bus.py`: each connects before its clock starts, and hangs up after it stops."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import threading
import time
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

os.environ["STOMP_SKIP_HOSTNAME_SCAN"] = "1"

import stomp
import stompman

from deploykit.bus import Bus, Delivery
from deploykit.errors import WindowFull
from deploykit.outbox import Outbox, Outgoing
from deploykit.outbox.relay import Relay
from deploykit.settings import BusSettings
from deploykit.wire.frame import Frame
from tests.brokers.rabbitmq import RabbitMQ

BODY = b"x" * 1024
HEADERS = {"subject": "[app] main moved 0123456..89abcde", "content-type": "text/plain"}
PERSISTENT = {**HEADERS, "persistent": "true"}
PREFETCH = 200
#: stompman asks for the virtual host that is named like the broker's host, so everybody works there.
VHOST = "127.0.0.1"


class StompPy:
    """stomp.py as it comes, with the options that keep it from dialling somewhere else first."""

    def __init__(self, broker: RabbitMQ) -> None:
        self._broker = broker

    @contextmanager
    def connected(self, listener: stomp.ConnectionListener | None = None):  # type: ignore[no-untyped-def]
        connection = stomp.Connection12(
            [("127.0.0.1", self._broker.port)],
            vhost=VHOST,
            prefer_localhost=False,
            try_loopback_connect=False,
            heartbeats=(10_000, 10_000),
        )
        if listener is not None:
            connection.set_listener("bench", listener)
        connection.connect(self._broker.login, self._broker.passcode, wait=True)
        yield connection
        connection.disconnect()

    def each(self, destination: str, count: int) -> float:
        """Send, wait for the receipt, send the next."""
        waiting = Receipts()
        with self.connected(waiting) as connection:
            began = time.perf_counter()
            for number in range(count):
                waiting.expect(number + 1)
                connection.send(destination, BODY, headers={**PERSISTENT, "receipt": str(number)})
                waiting.wait()
            return time.perf_counter() - began

    def in_flight(self, destination: str, count: int) -> float:
        """Send all with receipts, then wait for the last one."""
        waiting = Receipts()
        with self.connected(waiting) as connection:
            waiting.expect(count)
            began = time.perf_counter()
            for number in range(count):
                connection.send(destination, BODY, headers={**PERSISTENT, "receipt": str(number)})
            waiting.wait()
            return time.perf_counter() - began

    def unconfirmed(self, destination: str, count: int) -> float:
        """Send all and hope."""
        return self._unconfirmed(destination, count)[0]

    def arrived(self, destination: str, count: int) -> float:
        """Send all, and wait until the broker answers what was sent after it."""
        return self._unconfirmed(destination, count)[1]

    def _unconfirmed(self, destination: str, count: int) -> tuple[float, float]:
        waiting = Receipts()
        with self.connected(waiting) as connection:
            waiting.expect(1)
            began = time.perf_counter()
            for _ in range(count):
                connection.send(destination, BODY, headers=PERSISTENT)
            sent = time.perf_counter() - began
            # Let the broker finish in any case, or it would work for this one while the next one is measured.
            connection.send(destination, BODY, headers={**PERSISTENT, "receipt": "last"})
            waiting.wait()
            return sent, time.perf_counter() - began

    def consume(self, destination: str, count: int) -> float:
        """A bare listener that acknowledges each message by itself."""
        listener = Acknowledging(count)
        goodbye = Receipts()
        goodbye.expect(1)
        with self.connected(listener) as connection:
            connection.set_listener("goodbye", goodbye)
            listener.connection = connection
            began = time.perf_counter()
            connection.subscribe(
                destination, id="1", ack="client-individual", headers={"prefetch-count": str(PREFETCH)}
            )
            listener.done.wait(60)
            connection.disconnect(receipt="bye")
            goodbye.wait()
            return time.perf_counter() - began


class Receipts(stomp.ConnectionListener):  # type: ignore[misc]
    """Counts receipts."""

    def __init__(self) -> None:
        self._count = 0
        self._expected = 0
        self._all = threading.Event()

    def expect(self, count: int) -> None:
        self._expected = count
        self._all.clear()

    def on_receipt(self, frame: object) -> None:
        self._count += 1
        if self._count >= self._expected:
            self._all.set()

    def wait(self) -> None:
        if not self._all.wait(60):
            raise TimeoutError("no receipt in a minute")


class Acknowledging(stomp.ConnectionListener):  # type: ignore[misc]
    """Acknowledges what comes."""

    def __init__(self, expected: int) -> None:
        self.connection: stomp.Connection12 | None = None
        self.done = threading.Event()
        self._left = expected

    def on_message(self, frame: stomp.utils.Frame) -> None:
        assert self.connection is not None
        self.connection.ack(frame.headers["ack"])
        self._left -= 1
        if not self._left:
            self.done.set()


class BareSocket:
    """No client at all: frames made beforehand, receipts counted and not read. What the broker itself can do."""

    def __init__(self, broker: RabbitMQ) -> None:
        self._broker = broker

    def in_flight(self, destination: str, count: int) -> float:
        """At most 256 unconfirmed, written in halves of that, as the bus does by default."""
        head = "".join(f"{name}:{value}\n" for name, value in {"destination": destination, **PERSISTENT}.items())
        frames = [
            f"SEND\n{head}deploykit-id:0123456789abcdef-{n}\ncontent-length:{len(BODY)}\nreceipt:{n}\n\n".encode()
            + BODY
            + b"\0"
            for n in range(count)
        ]
        with socket.create_connection(("127.0.0.1", self._broker.port)) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            who = f"login:{self._broker.login}\npasscode:{self._broker.passcode}"
            sock.sendall(f"CONNECT\naccept-version:1.2\nhost:{VHOST}\n{who}\n\n\0".encode())
            assert sock.recv(4096).startswith(b"CONNECTED")
            began = time.perf_counter()
            sent = confirmed = 0
            while confirmed < count:
                if sent < count and sent - confirmed <= 128:
                    sock.sendall(b"".join(frames[sent : sent + 128]))
                    sent = min(count, sent + 128)
                confirmed += sock.recv(65536).count(b"\0")
            return time.perf_counter() - began


class StompMan:
    """stompman, on an event loop of its own."""

    def __init__(self, broker: RabbitMQ) -> None:
        self._server = stompman.ConnectionParameters(
            host="127.0.0.1", port=broker.port, login=broker.login, passcode=broker.passcode
        )

    def _client(self) -> stompman.Client:
        return stompman.Client([self._server], heartbeat=stompman.Heartbeat(10_000, 10_000))

    def each(self, destination: str, count: int) -> float:
        """Its own confirmed send."""

        async def run() -> float:
            async with self._client() as client:
                began = time.perf_counter()
                for _ in range(count):
                    await client.send(BODY, destination, headers=PERSISTENT, receipt_timeout=30)
                return time.perf_counter() - began

        return asyncio.run(run())

    def in_flight(self, destination: str, count: int) -> float:
        """Its own confirmed send, 256 tasks at a time."""

        async def run() -> float:
            async with self._client() as client:
                began = time.perf_counter()
                for start in range(0, count, 256):
                    sends = (
                        client.send(BODY, destination, headers=PERSISTENT, receipt_timeout=30)
                        for _ in range(min(256, count - start))
                    )
                    await asyncio.gather(*sends)
                return time.perf_counter() - began

        return asyncio.run(run())

    def unconfirmed(self, destination: str, count: int) -> float:
        """Its plain send."""

        async def run() -> float:
            async with self._client() as client:
                began = time.perf_counter()
                for _ in range(count):
                    await client.send(BODY, destination, headers=PERSISTENT)
                spent = time.perf_counter() - began
                await client.send(BODY, destination, headers=PERSISTENT, receipt_timeout=30)
                return spent

        return asyncio.run(run())

    def consume(self, destination: str, count: int) -> float:
        """Its manual acknowledgement."""

        async def run() -> float:
            left, done = count, asyncio.Event()

            async def handle(frame: stompman.AckableMessageFrame) -> None:
                nonlocal left
                await frame.ack()
                left -= 1
                if not left:
                    done.set()

            async with self._client() as client:
                began = time.perf_counter()
                subscription = await client.subscribe_with_manual_ack(
                    destination, handle, headers={"prefetch-count": str(PREFETCH)}
                )
                await done.wait()
                await subscription.unsubscribe()
            return time.perf_counter() - began

        return asyncio.run(run())


class Ours:
    """`deploykit.bus`, by its default settings."""

    def __init__(self, broker: RabbitMQ) -> None:
        self._settings = BusSettings(address=broker.address, vhost=VHOST)

    @contextmanager
    def connected(self):  # type: ignore[no-untyped-def]
        with Bus(self._settings) as bus:
            assert bus.wait_connected(10)
            yield bus

    def many(self, destination: str, count: int) -> float:
        """`publish_many`."""
        frame = Frame(HEADERS, BODY)
        with self.connected() as bus:
            began = time.perf_counter()
            bus.publish_many(((destination, frame) for _ in range(count)), timeout=60)
            return time.perf_counter() - began

    def soon(self, destination: str, count: int) -> float:
        """`publish_nowait`, a future for each: what the relay is made of."""
        frame = Frame(HEADERS, BODY)
        with self.connected() as bus:
            began = time.perf_counter()
            futures: list[Future[None]] = []
            waited = 0
            while len(futures) < count:
                try:
                    futures.append(bus.publish_nowait(destination, frame))
                except WindowFull:  # wait for the oldest of those that are on their way
                    futures[waited].result()
                    waited += 1
            for future in futures:
                future.result()
            return time.perf_counter() - began

    def each(self, destination: str, count: int) -> float:
        """`publish`, one after the other."""
        frame = Frame(HEADERS, BODY)
        with self.connected() as bus:
            began = time.perf_counter()
            for _ in range(count):
                bus.publish(destination, frame)
            return time.perf_counter() - began

    def relay(self, destination: str, count: int) -> float:
        """A relay that drains an outbox: reading records and taking them off the disk included."""
        with tempfile.TemporaryDirectory(prefix="bench-bus-") as place, self.connected() as bus:
            outbox = Outbox(Path(place) / "spool", shared=False)
            with mock.patch("os.fsync"):  # filling it is not what is measured
                outbox.put_many([Outgoing(destination, Frame(HEADERS, BODY)) for _ in range(count)])
            began = time.perf_counter()
            report = Relay(outbox, bus).drain_once()
            spent = time.perf_counter() - began
            assert report.complete
            assert report.sent == count
            return spent

    def consume(self, destination: str, count: int) -> float:
        """`subscribe`, one worker; the bus is stopped, and has acknowledged everything, before the clock is read."""
        left, done = count, threading.Event()

        def handle(_: Delivery) -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        with self.connected() as bus:
            began = time.perf_counter()
            bus.subscribe(destination, handle)
            assert done.wait(60)
            bus.stop()
            spent = time.perf_counter() - began
            assert bus.counters.acked == count
            return spent
