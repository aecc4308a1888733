"""A STOMP broker inside this process: for tests, the demo and trials. Not for production.

It serves STOMP 1.0, 1.1 and 1.2 to any client, by default on loopback only, with one thread and one asyncio loop. What
its dialect adds to the specification is listed in `headers` and `routing`.

Rules kept here:

* Bounded: frames (`FrameLimits`), queues, connections, output (`BrokerLimits`).
* A publisher whose queue is full is not read from until there is room: heart-beats go on, receipts wait. So publish to
  a queue and consume it on two connections.
* Without a data directory everything is forgotten at `stop`.
* With one, durable subscriptions and persistent messages survive SIGKILL: they are on the disk before their receipt is
  sent.
* A passcode is in no repr, error or log line.

>>> with EmbeddedBroker() as broker:
...     broker.address.startswith("stomp://127.0.0.1:")
True
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

from attrs import field, frozen

from deploykit._version import __version__
from deploykit.broker.engine import Engine
from deploykit.broker.fault_state import FaultState
from deploykit.broker.faults import FaultSwitches
from deploykit.broker.frames import FrameLimits, StompFrame
from deploykit.broker.state import BrokerLimits, StoredMessage
from deploykit.broker.store import BrokerStore
from deploykit.errors import BrokerError, UsageError
from deploykit.system.listening import hold_port, port_error, require_loopback

__all__ = ["BrokerLimits", "BrokerStats", "EmbeddedBroker", "FaultSwitches", "FrameLimits", "StompFrame"]

_T = TypeVar("_T")

_PATIENCE = 10.0  # seconds to wait for the broker's thread


@frozen(kw_only=True)
class BrokerStats:
    """What a broker holds and has done.

    `queues` counts the messages held (waiting or unacknowledged) per queue, `durable` per (name, topic). `counters` has
    published, unrouted, delivered, acked, requeued, dead-lettered, dropped and expired.
    """

    connections: int
    subscriptions: int
    queues: Mapping[str, int] = field(factory=dict)
    durable: Mapping[tuple[str, str], int] = field(factory=dict)
    counters: Mapping[str, int] = field(factory=dict)


class EmbeddedBroker:
    """The embedded broker. Not for production.

    Args:
        host: address to listen on; one that is not loopback needs `allow_remote`.
        port: 0 picks a free one, which is reserved for later starts of the same object.
        users: login -> passcode; None accepts every login.
        data: directory in which durable subscriptions and persistent messages outlive the process.
        tls: a server context; the port then speaks TLS only.
        limits: how many connections, queues and messages it holds.
        frame_limits: how large a frame may be.
        record: how many of the last published messages `sent` remembers.
        server: the `server` header of CONNECTED. A `Bus` recognises the dialect by it; for an unknown name it sends no
            header that bounds deliveries.
        allow_remote: listen on `host` even if others can reach it.

    Raises:
        UsageError: `host` is not loopback and `allow_remote` is not given.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        users: Mapping[str, str] | None = None,
        data: Path | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        limits: BrokerLimits | None = None,
        frame_limits: FrameLimits | None = None,
        record: int = 0,
        server: str = f"deploykit-embedded/{__version__}",
        allow_remote: bool = False,
    ) -> None:
        if not allow_remote:
            require_loopback(host)
        self.host = host
        self._port = port
        self._users = None if users is None else dict(users)
        self._data = data
        self._tls = tls
        self._limits = limits or BrokerLimits()
        self._frame_limits = frame_limits or FrameLimits()
        self._record = record
        self._server_name = server
        self._fault_state = FaultState()
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._thread: threading.Thread | None = None
        self._failures: list[BaseException] = []
        self._killed = False
        #: Fault switches; see `deploykit.broker.faults`.
        self.faults = FaultSwitches(self._fault_state, self._run_for_faults)

    def __repr__(self) -> str:
        state = "running" if self.running else "stopped"
        return f"<EmbeddedBroker {self.host}:{self._port} {state}>"

    # -- life --------------------------------------------------------------------------------------------------

    async def serve(self, on_ready: Callable[[Self], object] | None = None) -> None:
        """Serve in the running loop until cancelled or asked to stop; `on_ready` is called when the port is open.

        Raises:
            UsageError: the port is in use, the address is not ours, or the data directory cannot be used.
            BrokerError: the data directory cannot be written.
        """
        store = None if self._data is None else BrokerStore(self._data)
        try:
            engine = self._engine_over(store)
        except BaseException:
            if store is not None:
                store.close()
            raise
        try:
            try:
                self._port = self._port or hold_port(self.host, self)
                self._port = await engine.listen(self.host, self._port, self._tls)
            except OSError as error:
                raise port_error(self.host, self._port, error) from error
            self._killed = False
            self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()
            self._engine = engine
            if on_ready is not None:
                on_ready(self)
            await engine.done
        finally:
            self._engine = None
            await engine.close(flush=not self._killed)

    def _engine_over(self, store: BrokerStore | None) -> Engine:
        return Engine(
            users=self._users,
            limits=self._limits,
            frame_limits=self._frame_limits,
            faults=self._fault_state,
            store=store,
            epoch=secrets.token_hex(4),
            server=self._server_name,
            record=self._record,
        )

    def run_forever(self, on_ready: Callable[[Self], object] | None = None) -> None:
        """Serve in this thread until `request_stop` (which a signal handler may call) or KeyboardInterrupt."""
        asyncio.run(self.serve(on_ready))

    def request_stop(self) -> None:
        """Ask a running broker to stop, and return at once."""
        self._post(lambda engine: engine.finish())

    def replace_users(self, users: Mapping[str, str] | None) -> None:
        """Accept these logins from now on (login -> passcode; None: every login). Connected clients stay."""
        self._users = known = None if users is None else dict(users)
        self._post(lambda engine: engine.core.replace_users(known))

    def start(self) -> Self:
        """Serve in a thread of its own; return when the port is open.

        Raises:
            UsageError: the port is in use, the address is not ours, or the data directory cannot be used.
        """
        if self._thread is not None:
            raise UsageError("this broker runs already")
        ready = threading.Event()
        self._failures.clear()

        def body() -> None:
            try:
                asyncio.run(self.serve(lambda _broker: ready.set()))
            except BaseException as error:  # noqa: BLE001  handed to the thread that started us
                self._failures.append(error)
            finally:
                ready.set()

        self._thread = threading.Thread(target=body, name="deploykit-broker", daemon=True)
        self._thread.start()
        ready.wait()
        if self._failures:
            self._thread.join()
            self._thread = None
            raise self._failures.pop()
        return self

    def stop(self) -> None:
        """Stop: write what was taken and close the connections. Does nothing when stopped."""
        self._end(lambda engine: engine.finish())

    def kill(self) -> None:
        """Stop like SIGKILL: write nothing more to disk or sockets, and reset the connections."""

        def act(engine: Engine) -> None:
            self._killed = True
            engine.finish()

        self._end(act)

    def restart(self) -> None:
        """Kill and start again on the same port."""
        self.kill()
        self.start()

    def _end(self, action: Callable[[Engine], None]) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._post(action)
        thread.join(_PATIENCE)
        if thread.is_alive():
            raise BrokerError("the embedded broker's thread does not end", "look for a callback that blocks its loop")
        if self._failures:
            raise self._failures.pop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- inspection --------------------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether the port is open."""
        return self._engine is not None

    @property
    def port(self) -> int:
        """The port it listens on; before the first start, the one that was given."""
        return self._port

    @property
    def address(self) -> str:
        """The address for a `Bus`, with the first user's login and passcode."""
        return self.address_for(next(iter(self._users), "")) if self._users else self.address_for("")

    def address_for(self, login: str) -> str:
        """Return the address with this login and its passcode; "" is without a login."""
        scheme = "stomp" if self._tls is None else "stomp+ssl"
        host = f"[{self.host}]" if ":" in self.host else self.host
        passcode = (self._users or {}).get(login, "")
        user = f"{quote(login, safe='')}:{quote(passcode, safe='')}@" if login else ""
        return f"{scheme}://{user}{host}:{self._port}"

    def stats(self) -> BrokerStats:
        """Return what the broker holds and has done since it started."""
        return self._call(_stats)

    def peek(self, destination: str) -> tuple[StompFrame, ...]:
        """Return the messages waiting in a `/queue/…`, in order, without removing them."""

        def act(engine: Engine) -> tuple[StompFrame, ...]:
            queue = engine.router.queues.get(destination)
            return () if queue is None else tuple(_as_frame(entry.message) for entry in queue.waiting())

        return self._call(act)

    def sent(self, destination: str | None = None) -> tuple[StompFrame, ...]:
        """Return the last published messages, at most `record`, oldest first."""
        recorded = self._call(lambda engine: tuple(engine.router.recorded))
        return tuple(_as_frame(one) for one in recorded if destination in (None, one.destination))

    def wait_for(self, condition: Callable[[BrokerStats], bool], timeout: float = 10.0) -> BrokerStats:
        """Wait until `condition` holds; return the stats it held for.

        Raises:
            BrokerError: it did not within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            stats = self.stats()
            if condition(stats):
                return stats
            if time.monotonic() >= deadline:
                raise BrokerError(f"the broker did not reach the expected state in {timeout:g} s: {stats}")
            time.sleep(0.005)

    # -- into the loop -----------------------------------------------------------------------------------------

    def _post(self, action: Callable[[Engine], object]) -> None:
        engine, loop = self._engine, self._loop
        if engine is not None and loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(action, engine)

    def _call(self, action: Callable[[Engine], _T]) -> _T:
        engine = self._engine
        if engine is None:
            raise UsageError("this broker does not run", "start() it first")
        if threading.get_ident() == self._loop_thread:
            return action(engine)
        results: list[_T] = []
        done = threading.Event()

        def act(engine: Engine) -> None:
            try:
                results.append(action(engine))
            finally:
                done.set()

        self._post(act)
        if not done.wait(_PATIENCE) or not results:
            raise BrokerError("the embedded broker does not answer: it was stopped meanwhile, or its loop is blocked")
        return results[0]

    def _run_for_faults(self, action: Callable[[Engine | None], None]) -> None:
        if self._engine is None:
            action(None)
        else:
            self._call(action)


def _stats(engine: Engine) -> BrokerStats:
    queues = engine.router.queues.values()
    sessions = engine.core.sessions.values()
    return BrokerStats(
        connections=sum(session.connected for session in sessions),
        subscriptions=sum(len(session.subscriptions) for session in sessions),
        queues=MappingProxyType({queue.key: queue.count for queue in queues if not queue.durable}),
        durable=MappingProxyType(
            {(queue.durable, queue.destination): queue.count for queue in queues if queue.durable}
        ),
        counters=MappingProxyType(dict(engine.router.counters)),
    )


def _as_frame(message: StoredMessage) -> StompFrame:
    return StompFrame(
        command="SEND", headers={"destination": message.destination, **message.headers}, body=message.body
    )
