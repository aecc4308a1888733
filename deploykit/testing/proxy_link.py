"""One connection through the fault proxy: two pumps, each shaped by the conditions that hold at the moment.

Rules kept here:

* A pump reads no more than it may hold (`_HELD`), so a slow or blocked side slows the other, as with TCP.
* A connection in a black hole loses nothing: held bytes arrive when the hole closes, as TCP sends them again.
* A half-open connection is closed for one side only: the bytes of the other are read and discarded, and it gets none.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal

from attrs import define, field, frozen

#: "up" is from the client to the broker, "down" from the broker to the client.
Direction = Literal["up", "down"]
SideName = Literal["client", "broker"]

_CHUNK: Final = 64 * 1024
_HELD: Final = 1024 * 1024


@define(kw_only=True, eq=False)
class Conditions:
    """The conditions of one direction of every connection."""

    latency: float = 0.0
    jitter: float = 0.0
    bytes_per_second: int | None = None
    slice_size: int | None = None
    slice_pause: float = 0.0
    hole: bool = False


@frozen(kw_only=True)
class _Piece:
    due: float
    data: bytes


def slices(data: bytes, size: int | None) -> Iterator[bytes]:
    """Yield `data` in pieces of at most `size` bytes; None is one piece.

    >>> list(slices(b"abcde", 2))
    [b'ab', b'cd', b'e']
    """
    if size is None:
        yield data
        return
    for start in range(0, len(data), size):
        yield data[start : start + size]


@frozen(kw_only=True, eq=False)
class Side:
    """One of the two TCP connections of a link."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def end(self, *, reset: bool) -> None:
        """Close by FIN, after what was written is sent; or by RST, at once."""
        transport = self.writer.transport
        if not reset:
            transport.close()
            return
        raw = transport.get_extra_info("socket")
        if raw is not None and not transport.is_closing():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


@define(kw_only=True, eq=False)
class _Pump:
    """One direction of one connection."""

    direction: Direction
    source: Side
    target: Side
    here: Conditions
    waiting: deque[_Piece] = field(factory=deque)
    held: int = 0
    passed: int = 0
    cut_at: int | None = None


class ProxyLink:
    """A client's connection, and the proxy's own to the broker for it."""

    def __init__(
        self,
        client: Side,
        broker: Side,
        conditions: Mapping[Direction, Conditions],
        on_bytes: Callable[[Direction, int], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_bytes = on_bytes
        self._sides: Mapping[SideName, Side] = {"client": client, "broker": broker}
        self._pumps: Mapping[Direction, _Pump] = {
            "up": _Pump(direction="up", source=client, target=broker, here=conditions["up"]),
            "down": _Pump(direction="down", source=broker, target=client, here=conditions["down"]),
        }
        self._changed = asyncio.Condition()
        self._random = random.Random()  # noqa: S311  jitter is no secret
        self._over: asyncio.Future[bool] = self._loop.create_future()
        self._alive: Side | None = None
        #: Whether a firewall forgot this connection: nothing passes any more.
        self.blocked = False
        self.last_bytes = self._loop.time()
        for side in (client, broker):
            side.writer.transport.set_write_buffer_limits(high=0)  # `drain` then waits for the kernel

    async def serve(self) -> None:
        """Pump until both directions have ended, or the link is closed."""
        tasks = [
            self._loop.create_task(pumping(pump))
            for pump in self._pumps.values()
            for pumping in (self._read, self._write)
        ]
        pumping_all = asyncio.gather(*tasks)
        reset = True
        try:
            either: set[asyncio.Future[Any]] = {pumping_all, self._over}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            reset = self._over.result() if self._over.done() else pumping_all.exception() is not None
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(pumping_all, *tasks, return_exceptions=True)
            for side in self._sides.values():
                side.end(reset=reset)

    async def changed(self) -> None:
        """Let the pumps read the conditions again."""
        async with self._changed:
            self._changed.notify_all()

    def cut_after(self, count: int, direction: Direction) -> None:
        """Reset both sides when `count` more bytes have passed in this direction; what follows is lost."""
        pump = self._pumps[direction]
        pump.cut_at = pump.passed + count
        if count <= 0:
            self.close(reset=True)

    def make_half_open(self, alive: SideName) -> None:
        """Close the other side; the one that stays `alive` gets no FIN or RST."""
        if self._alive is None:
            self._alive = self._sides[alive]
            self._sides["broker" if alive == "client" else "client"].end(reset=True)

    def close(self, *, reset: bool) -> None:
        """Close both sides, by FIN or by RST."""
        if not self._over.done():
            self._over.set_result(reset)

    # -- pumping -----------------------------------------------------------------------------------------------

    async def _read(self, pump: _Pump) -> None:
        data = b"-"
        while data:
            await self._until(lambda: pump.held < _HELD and not self._stopped(pump))
            try:
                data = await pump.source.reader.read(_CHUNK)
            except OSError:
                await self._until(lambda: not self._stopped(pump))
                if self._alive not in (None, pump.source):
                    return  # the side that was closed: the other must not notice
                raise
            if self._alive is not None:
                if not data and pump.source is self._alive:
                    self.close(reset=False)
                continue
            now = self._loop.time()
            if data:
                self.last_bytes = now
            delay = max(0.0, pump.here.latency + self._random.uniform(-pump.here.jitter, pump.here.jitter))
            pump.waiting.append(_Piece(due=now + delay, data=data))  # first in, first out: jitter never reorders
            pump.held += len(data)
            await self.changed()

    async def _write(self, pump: _Pump) -> None:
        while True:
            await self._until(lambda: bool(pump.waiting))
            piece = pump.waiting.popleft()
            await asyncio.sleep(max(0.0, piece.due - self._loop.time()))
            await self._until(lambda: not self._stopped(pump))
            if not piece.data:
                if self._alive is None:
                    pump.target.writer.write_eof()
                return
            await self._send(pump, piece.data)
            pump.held -= len(piece.data)
            await self.changed()

    async def _send(self, pump: _Pump, data: bytes) -> None:
        here = pump.here
        position = 0
        while position < len(data):
            await self._until(lambda: not self._stopped(pump))
            rate = here.bytes_per_second
            size = min(here.slice_size or len(data), len(data) if rate is None else max(1, rate // 50))
            part = data[position : position + size]
            if pump.cut_at is not None:
                part = part[: max(0, pump.cut_at - pump.passed)]
            if part and self._alive is None:
                pump.target.writer.write(part)
                await pump.target.writer.drain()
                self._on_bytes(pump.direction, len(part))
            pump.passed += len(part)
            position += len(part)
            if pump.cut_at is not None and pump.passed >= pump.cut_at:
                self.close(reset=True)
                await self._loop.create_future()  # `serve` ends this task
            if rate is not None:
                await asyncio.sleep(len(part) / rate)
            if here.slice_size is not None:
                await asyncio.sleep(here.slice_pause)

    def _stopped(self, pump: _Pump) -> bool:
        return self.blocked or pump.here.hole

    async def _until(self, condition: Callable[[], bool]) -> None:
        if condition():
            return
        async with self._changed:
            await self._changed.wait_for(condition)
