"""Fault switches of a running embedded broker: what networks and brokers do to clients, on request.

Every method may be called from any thread while the broker runs, and has its effect when it returns. `clear` ends all
lasting faults. Each method's docstring names what it imitates.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from deploykit.broker.fault_state import FaultState, PlannedError
from deploykit.broker.routing import RefusedError
from deploykit.broker.state import Session

if TYPE_CHECKING:
    from deploykit.broker.engine import Engine


class FaultSwitches:
    """The switches of one broker; `EmbeddedBroker.faults` is where to get them.

    Lasting faults are kept while the broker is stopped and show again when it starts.
    """

    def __init__(self, state: FaultState, run: Callable[[Callable[[Engine | None], None]], None]) -> None:
        self._state = state
        self._run = run

    # -- the whole broker --------------------------------------------------------------------------------------

    def freeze(self, on: bool = True) -> None:
        """Stop reading, writing and heart-beats, like a stopped process; connections stay open."""
        self._set(frozen=on)

    def stop_reading(self, on: bool = True) -> None:
        """Stop reading while heart-beats go on, like RabbitMQ under a memory alarm: receipts do not come."""
        self._set(stop_reading=on)

    def slow_reads(self, bytes_per_second: int | None) -> None:
        """Read each connection no faster than this; None ends it."""
        self._set(read_rate=None if bytes_per_second is None else max(1, bytes_per_second))

    def heartbeats_off(self, on: bool = True) -> None:
        """Agree on heart-beats and send none."""
        self._set(heartbeats_off=on)

    def refuse_heartbeats(self, on: bool = True) -> None:
        """Answer `heart-beat:0,0` to every new connection."""
        self._set(refuse_heartbeats=on)

    def mute_connect(self, on: bool = True) -> None:
        """Take new connections and never answer their CONNECT."""
        self._set(mute_connect=on)

    def refuse_connections(self, on: bool = True) -> None:
        """Reset every new connection as soon as it is made. For a closed port, stop the broker."""
        self._set(refuse_connections=on)

    def clear(self) -> None:
        """End every lasting fault and forget every planned one."""
        fresh = FaultState()
        self._set(**{name: getattr(fresh, name) for name in FaultState.__slots__ if not name.startswith("__")})

    # -- frames ------------------------------------------------------------------------------------------------

    def withhold_receipts(self, on: bool = True) -> None:
        """Apply frames and never send their RECEIPT."""
        self._set(withhold_receipts=on)

    def error_next(self, command: str, message: str = "planned", *, close: bool = True) -> None:
        """Answer the next frame of this command with ERROR instead of applying it.

        Args:
            command: such as "SEND"; any client's frame counts.
            message: the ERROR's `message` header.
            close: whether to close the connection then, as STOMP requires; RabbitMQ and ActiveMQ often leave it open.
        """
        self._apply(
            lambda state: state.planned_errors.append(PlannedError(command=command, message=message, close=close))
        )

    def lose_acks(self, count: int) -> None:
        """Ignore the next `count` ACK and NACK frames: their messages stay unacknowledged until the connection ends."""
        self._set(lose_acks=count)

    def duplicate_sends(self, count: int) -> None:
        """Store each of the next `count` messages twice, as a publisher that sends again does."""
        self._set(duplicate_sends=count)

    def shuffle_deliveries(self, seed: int | None) -> None:
        """Deliver waiting messages in random order; None ends it."""
        self._set(shuffle=None if seed is None else random.Random(seed))  # noqa: S311  not for secrets

    # -- open connections now ------------------------------------------------------------------------------------

    def drop(self, *, reset: bool = False) -> int:
        """Close every connection at once and drop unsent output; return how many.

        Args:
            reset: by RST, like the kernel of a crashed host, instead of FIN.
        """

        def act(engine: Engine) -> int:
            for connection in list(engine.connections):
                connection.cut(reset=reset)
            return len(engine.connections)

        return self._on_engine(act)

    def half_open(self) -> int:
        """Forget every client and leave its TCP connection open; return how many.

        Nothing is read or sent on it again. Unacknowledged messages go back to the queues. New connections work.
        """

        def act(engine: Engine) -> int:
            for connection in engine.connections:
                connection.half_open = True
                engine.core.lost(connection.session, engine.now())
                connection.obey_faults()
            return len(engine.connections)

        return self._on_engine(act)

    def send_error(self, message: str = "planned", *, close: bool = True) -> int:
        """Send every client an ERROR that answers no frame; return how many clients."""

        def act(engine: Engine) -> int:
            connections = [connection for connection in engine.connections if connection.session.connected]
            for connection in connections:
                self._send_error(engine, connection.session, message, close=close)
            engine.schedule()
            return len(connections)

        return self._on_engine(act)

    @staticmethod
    def _send_error(engine: Engine, session: Session, message: str, *, close: bool) -> None:
        refused = RefusedError(message, "planned by a fault switch of the embedded broker")
        if close:
            engine.core.refuse(session, refused, engine.now())
        else:
            engine.core.report(session, refused)

    def garble(self, data: bytes | None = None) -> int:
        """Send every client bytes that are not STOMP (random unless given); return how many clients."""
        noise = data if data is not None else b"\xff\xfe" + os.urandom(254) + b"\n\n\0"
        return self._inject(noise)

    def oversize(self, size: int = 16 * 1024 * 1024) -> int:
        """Send every client a frame with `size` bytes of body that never ends; return how many clients."""
        return self._inject(b"MESSAGE\ndestination:/topic/oversized\nmessage-id:oversized\n\n" + b"x" * size)

    def _inject(self, data: bytes) -> int:
        def act(engine: Engine) -> int:
            for connection in engine.connections:
                connection.inject(data)
            return len(engine.connections)

        return self._on_engine(act)

    # -- plumbing ----------------------------------------------------------------------------------------------

    def _set(self, **values: object) -> None:
        def change(state: FaultState) -> None:
            for name, value in values.items():
                setattr(state, name, value)

        self._apply(change)

    def _apply(self, change: Callable[[FaultState], None]) -> None:
        def act(engine: Engine | None) -> None:
            change(self._state)
            if engine is not None:
                for connection in list(engine.connections):
                    connection.obey_faults()
                engine.schedule()

        self._run(act)

    def _on_engine(self, action: Callable[[Engine], int]) -> int:
        counted = 0

        def act(engine: Engine | None) -> None:
            nonlocal counted
            if engine is not None:
                counted = action(engine)

        self._run(act)
        return counted
