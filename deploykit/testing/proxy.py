"""A TCP proxy that misbehaves on request: put it between a client and any broker, real or embedded.

In each direction or both, while connections are open, it can delay, limit the rate, slice into small pieces, hold all
back (a black hole), forget idle connections like a firewall, cut after so many bytes, reset, leave half open, refuse.

>>> from deploykit.broker.server import EmbeddedBroker
>>> with EmbeddedBroker() as broker, FaultProxy(broker.port) as proxy:
...     proxy.latency(0.05)
...     proxy.address.startswith("stomp://127.0.0.1:")
True
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Literal, Self

from attrs import frozen

from deploykit.errors import UsageError
from deploykit.system.listening import hold_port, port_error, require_loopback
from deploykit.testing.loop_thread import LoopThread
from deploykit.testing.proxy_link import Conditions, Direction, ProxyLink, Side, SideName

__all__ = ["Direction", "FaultProxy", "ProxyStats", "Which"]

Which = Literal["up", "down", "both"]

_CONNECT_TIMEOUT = 10.0  # seconds
_IDLE_LOOK = 0.02  # seconds between two searches for idle connections


@frozen(kw_only=True)
class ProxyStats:
    """Connections accepted since the start, those open now, bytes passed on in each direction."""

    accepted: int
    open: int
    up: int
    down: int


class FaultProxy:
    """The proxy. Every method may be called from any thread.

    Args:
        target_port: where the broker listens.
        target_host: on which host.
        host: address to listen on; one that is not loopback needs `allow_remote`.
        port: 0 picks a free one, which stays reserved while it is closed.
        allow_remote: listen on `host` even if others can reach it.

    Raises:
        UsageError: `host` is not loopback and `allow_remote` is not given.
    """

    def __init__(
        self,
        target_port: int,
        target_host: str = "127.0.0.1",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        allow_remote: bool = False,
    ) -> None:
        if not allow_remote:
            require_loopback(host)
        self.host = host
        self._port = port
        self._target = (target_host, target_port)
        self._conditions: dict[Direction, Conditions] = {"up": Conditions(), "down": Conditions()}
        self._links: dict[ProxyLink, None] = {}
        self._bytes: dict[Direction, int] = {"up": 0, "down": 0}
        self._accepted = 0
        self._cut_next: tuple[int, Direction] | None = None
        self._idle: float | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread: LoopThread | None = None

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> Self:
        """Listen; the port stays the same over stop and start.

        Raises:
            UsageError: the port cannot be opened, or the proxy runs already.
        """
        if self._thread is not None:
            raise UsageError("this proxy runs already")
        self._thread = LoopThread("deploykit-proxy")
        try:
            self._thread.run(self._listen())
            self._thread.run(self._watch_idle())
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Reset every connection and close the port. Does nothing when stopped."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.run(self._end())
        thread.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port it listens on; before the first start, the one that was given."""
        return self._port

    @property
    def address(self) -> str:
        """The address for a `Bus`, without a login: `address_for` adds one."""
        return self.address_for("")

    def address_for(self, user: str, scheme: str = "stomp") -> str:
        """Return the address with `user` ("login:passcode", quoted as in a URL) before the host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{user}{'@' if user else ''}{host}:{self._port}"

    def stats(self) -> ProxyStats:
        """Return the counts so far."""
        return ProxyStats(
            accepted=self._accepted, open=len(self._links), up=self._bytes["up"], down=self._bytes["down"]
        )

    # -- lasting conditions ------------------------------------------------------------------------------------

    def latency(self, seconds: float, *, jitter: float = 0.0, direction: Which = "both") -> None:
        """Delay every byte by `seconds`, plus or minus `jitter`; order is kept. 0 ends it."""
        self._set(direction, latency=seconds, jitter=jitter)

    def bandwidth(self, bytes_per_second: int | None, *, direction: Which = "both") -> None:
        """Limit the rate of each connection; None ends it."""
        self._set(direction, bytes_per_second=None if bytes_per_second is None else max(1, bytes_per_second))

    def slices(self, size: int | None, *, pause: float = 0.0, direction: Which = "both") -> None:
        """Pass on pieces of at most `size` bytes, `pause` seconds apart; None ends it."""
        self._set(direction, slice_size=None if size is None else max(1, size), slice_pause=pause)

    def black_hole(self, on: bool = True, *, direction: Which = "both") -> None:
        """Hold everything back without closing a connection; held bytes arrive when it ends."""
        self._set(direction, hole=on)

    def forget_idle(self, seconds: float | None) -> None:
        """Block a connection for good once it was silent for so long, like a firewall; None ends it."""
        self._on_loop(lambda: setattr(self, "_idle", seconds))

    def refuse(self, on: bool = True) -> None:
        """Close the port (open it again with False); open connections stay."""
        if self._thread is None:
            raise _stopped()
        self._thread.run(self._close_port() if on else self._listen())

    def clear(self) -> None:
        """End every lasting condition, and open the port if it is closed."""
        fresh = Conditions()
        self._set("both", **{name: getattr(fresh, name) for name in Conditions.__slots__ if not name.startswith("__")})
        self.forget_idle(None)
        self._cut_next = None
        if self._server is None:
            self.refuse(False)

    def retarget(self, port: int, host: str | None = None) -> None:
        """Connect new connections to another port."""
        self._target = (host or self._target[0], port)

    # -- open connections now ------------------------------------------------------------------------------------

    def reset(self) -> int:
        """Reset every connection on both sides; return how many."""
        return self._each(lambda link: link.close(reset=True))

    def drop(self) -> int:
        """Close every connection on both sides by FIN; return how many."""
        return self._each(lambda link: link.close(reset=False))

    def half_open(self, alive: SideName = "client") -> int:
        """Close one side of every connection; the side that stays `alive` gets no FIN or RST. Return how many."""
        return self._each(lambda link: link.make_half_open(alive))

    def cut_after(self, count: int, *, direction: Direction = "up", now: bool = False) -> None:
        """Reset the next connection (or, with `now`, all open ones) after `count` bytes in this direction."""
        if now:
            self._each(lambda link: link.cut_after(count, direction))
        else:
            self._on_loop(lambda: setattr(self, "_cut_next", (count, direction)))

    # -- in the loop -------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        if self._server is not None:
            return
        try:
            self._port = self._port or hold_port(self.host, self)
            self._server = await asyncio.start_server(self._serve, self.host, self._port)
        except OSError as error:
            raise port_error(self.host, self._port, error) from error
        self._port = self._server.sockets[0].getsockname()[1]

    async def _close_port(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _end(self) -> None:
        await self._close_port()
        for link in list(self._links):
            link.close(reset=True)
        while self._links:
            await asyncio.sleep(0)

    async def _watch_idle(self) -> None:
        task = asyncio.get_running_loop().create_task(self._forget_idle())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forget_idle(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_IDLE_LOOK)
            for link in self._links:
                if self._idle is not None and loop.time() - link.last_bytes >= self._idle:
                    link.blocked = True

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Side(reader=reader, writer=writer)
        self._accepted += 1
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT):
                out_reader, out_writer = await asyncio.open_connection(*self._target)
        except OSError:  # a TimeoutError is one
            client.end(reset=True)
            return
        link = ProxyLink(client, Side(reader=out_reader, writer=out_writer), self._conditions, self._count)
        if self._cut_next is not None:
            link.cut_after(*self._cut_next)
            self._cut_next = None
        self._links[link] = None
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await link.serve()
        finally:
            del self._links[link]

    def _count(self, direction: Direction, count: int) -> None:
        self._bytes[direction] += count

    # -- into the loop -----------------------------------------------------------------------------------------

    def _set(self, direction: Which, **values: object) -> None:
        directions: Iterable[Direction] = ("up", "down") if direction == "both" else (direction,)
        if self._thread is None:
            self._assign(directions, values)
        else:
            self._thread.run(self._change(directions, values))

    def _assign(self, directions: Iterable[Direction], values: dict[str, object]) -> None:
        for one in directions:
            for name, value in values.items():
                setattr(self._conditions[one], name, value)

    async def _change(self, directions: Iterable[Direction], values: dict[str, object]) -> None:
        self._assign(directions, values)
        for link in list(self._links):
            await link.changed()

    def _on_loop(self, action: Callable[[], object]) -> None:
        if self._thread is None:
            action()
        else:
            self._thread.call(action)

    def _each(self, action: Callable[[ProxyLink], object]) -> int:
        if self._thread is None:
            raise _stopped()
        return self._thread.call(lambda: sum(1 for link in list(self._links) if action(link) is None))


def _stopped() -> UsageError:
    return UsageError("this proxy does not run", "start() it first")
