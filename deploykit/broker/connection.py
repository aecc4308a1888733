"""One TCP connection of the embedded broker: bytes to frames for the core, and the core's output to the socket.

Rules kept here:

* Reading stops while there is a reason: no room in a queue, too much output waiting, a fault. Heart-beats go on
  meanwhile, and the peer's silence does not close the connection.
* Output is written by `flush`, which the engine calls when the changes it confirms are on the disk.
* After ERROR or DISCONNECT the sending side is shut, and input is discarded for a moment: a reset would keep the peer
  from reading the ERROR.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import Final, Protocol, cast

from deploykit.broker.core import BrokerCore
from deploykit.broker.fault_state import FaultState
from deploykit.broker.frames import EOL, FrameLimits, FrameParser, StompFrame, encode_frame
from deploykit.broker.routing import RefusedError
from deploykit.broker.state import BrokerLimits
from deploykit.errors import FrameError

_log = logging.getLogger(__name__)

_CHUNK: Final = 64 * 1024
_LINGER: Final = 1.0  # seconds a refused peer has to read the ERROR
_SILENCE: Final = 3  # heart-beats a peer may miss before its connection is closed


class ConnectionServices(Protocol):
    """What a connection needs of the broker it belongs to."""

    @property
    def core(self) -> BrokerCore:
        """The STOMP conversation that frames are handed to."""
        ...

    @property
    def limits(self) -> BrokerLimits:
        """How much the broker takes on."""
        ...

    @property
    def faults(self) -> FaultState:
        """The faults switched on."""
        ...

    def now(self) -> float:
        """Return the time in seconds since the epoch."""
        ...

    def accept(self, connection: ClientConnection) -> bool:
        """Register a new connection; return False to turn it away."""
        ...

    def gone(self, connection: ClientConnection) -> None:
        """Forget a connection that has ended."""
        ...

    def output_drained(self, connection: ClientConnection) -> None:
        """Give out what waits for a client that takes output again."""
        ...

    def park(self, connection: ClientConnection) -> None:
        """Call `retry` on a connection when there may be room for the frame it holds."""
        ...

    def schedule(self) -> None:
        """Run a step of the broker soon."""
        ...


class ClientConnection(asyncio.BufferedProtocol):
    """A client's connection. All methods run in the broker's loop."""

    def __init__(self, broker: ConnectionServices, limits: FrameLimits) -> None:
        self._broker = broker
        self.session = broker.core.open_session()
        self._limits = limits
        self._parser = FrameParser(limits.before_login())
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._chunk = bytearray(_CHUNK)
        self._held: StompFrame | None = None
        self._paused: set[str] = set()
        self._last_read = self._last_write = self._loop.time()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._ending = False
        self._peer_done = False
        self.half_open = False

    # -- the transport's calls ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register with the broker, which may turn the connection away."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._broker.limits.high_water)
        if not self._broker.accept(self):
            self.cut(reset=True)
            return
        self._timers["login"] = self._loop.call_later(self._broker.limits.login_timeout, self._login_late)
        self.obey_faults()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers, and let the broker forget the connection."""
        for timer in self._timers.values():
            timer.cancel()
        self._transport = None
        self._broker.gone(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go; a small buffer while reads are slowed down.

        A view, because asyncio's TLS slices what it gets (`buf[offset:]`) and would read into a copy of a bytearray.
        """
        rate = self._broker.faults.read_rate
        return memoryview(self._chunk)[: _CHUNK if rate is None else max(1, min(_CHUNK, rate // 20))]

    def buffer_updated(self, nbytes: int) -> None:
        """Parse the bytes that came."""
        self._last_read = self._loop.time()
        if self._ending:
            return
        self._parser.feed(memoryview(self._chunk)[:nbytes])
        rate = self._broker.faults.read_rate
        if rate is not None:
            self._pause("rate", on=True)
            self._timers["rate"] = self._loop.call_later(nbytes / rate, self._pause, "rate")
        self.process()

    def eof_received(self) -> bool:
        """Keep the connection open until the answers to what was sent are written."""
        if self._ending or self._transport is None or self._transport.get_extra_info("sslcontext") is not None:
            return False
        self._peer_done = True
        self.session.closing = True
        self._broker.schedule()
        return True

    def pause_writing(self) -> None:
        """Mark the session as taking no more output for now."""
        self.session.writable = False

    def resume_writing(self) -> None:
        """Continue with the output that waits for this client."""
        self.session.writable = True
        self._broker.output_drained(self)

    # -- frames in ---------------------------------------------------------------------------------------------

    def process(self) -> None:
        """Hand whole frames to the core until there are no more, or reading must stop."""
        broker, session = self._broker, self.session
        try:
            while not session.closing and not (self._paused - {"rate"}):
                frame = self._held or self._parser.next_frame()
                if frame is None:
                    break
                if not broker.core.handle(session, frame, broker.now()):
                    self._held = frame
                    broker.park(self)
                    self._pause("room", on=True)
                    break
                self._held = None
                if session.connected and "login" in self._timers:
                    self._logged_in()
                if self._waiting_output() > broker.limits.max_output:
                    self._pause("output", on=True)
        except FrameError as error:
            broker.core.refuse(session, RefusedError("bad frame", error.problem), broker.now())
        broker.schedule()

    def retry(self) -> None:
        """Offer the held frame again, now that there may be room."""
        self._pause("room")
        self.process()

    def _logged_in(self) -> None:
        self._timers.pop("login").cancel()
        self._parser.version = self.session.version
        self._parser.limits = self._limits
        if self.session.beat_out:
            self._beat()
        if self.session.beat_in:
            self._listen()

    def _login_late(self) -> None:
        if not self.session.muted:
            self._broker.core.refuse(self.session, RefusedError("no CONNECT came"), self._broker.now())
            self._broker.schedule()

    # -- frames out --------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write the core's output for this client; end the connection when the core has ended the session."""
        session, transport = self.session, self._transport
        output, session.output = session.output, []
        session.unflushed = 0
        if transport is None or self.half_open or self._ending:
            return
        if output:
            self._write(b"".join(encode_frame(frame, session.version) for frame in output))
        if "output" in self._paused and self._waiting_output() <= self._broker.limits.max_output // 2:
            self._pause("output")
            self.process()
        if session.closing:
            self._end(transport)

    def _end(self, transport: asyncio.Transport) -> None:
        self._ending = True
        self._paused.clear()
        self._timers["linger"] = self._loop.call_later(_LINGER, transport.abort)
        if not transport.can_write_eof() or self._peer_done:
            transport.close()
            return
        try:
            transport.write_eof()
            transport.resume_reading()
        except OSError:  # the peer reset the connection meanwhile; the other connections still have to be flushed
            transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._last_write = self._loop.time()
            self._transport.write(data)

    def _waiting_output(self) -> int:
        waiting = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return waiting + self.session.unflushed

    # -- heart-beats -------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        step = self.session.beat_out / 2000
        faults = self._broker.faults
        quiet = self._loop.time() - self._last_write >= step * 0.9
        if quiet and not (faults.heartbeats_off or faults.frozen or self.half_open or self._ending):
            self._write(EOL)
        self._timers["beat"] = self._loop.call_later(step, self._beat)

    def _listen(self) -> None:
        limit = self.session.beat_in / 1000 * _SILENCE
        now = self._loop.time()
        if self._paused:
            self._last_read = now
        if now - self._last_read > limit and not self.half_open:
            _log.info("connection %d sent nothing for %.1f s, closing it", self.session.number, limit)
            self.cut(reset=False)
            return
        self._timers["listen"] = self._loop.call_later(limit / _SILENCE, self._listen)

    # -- pausing and faults ------------------------------------------------------------------------------------

    def obey_faults(self) -> None:
        """Pause or resume reading, as the fault switches are now."""
        faults = self._broker.faults
        if faults.read_rate is None:
            self._paused.discard("rate")
        self._pause("fault", on=faults.frozen or faults.stop_reading or self.half_open)
        if not self._paused:
            self.process()

    def _pause(self, reason: str, *, on: bool = False) -> None:
        if on:
            self._paused.add(reason)
        else:
            self._paused.discard(reason)
        self._apply_pause()

    def _apply_pause(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing() or self._ending:
            return
        if self._paused:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def inject(self, data: bytes) -> None:
        """Write bytes that the core did not ask for."""
        self._write(data)

    def close(self) -> None:
        """Close when the output written so far is sent."""
        if self._transport is not None:
            self._transport.close()

    def cut(self, *, reset: bool) -> None:
        """Close at once and drop unsent output; with `reset` by RST instead of FIN."""
        if self._transport is None:
            return
        if reset:
            raw = cast("socket.socket | None", self._transport.get_extra_info("socket"))
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
