"""One connection to one broker: bytes in and out of one socket.

A `Connection` is made for one attempt and never used again; its `epoch` tells an acknowledgement which connection it
belongs to. It replaces the transport of stomp.py, which was measured to hang in connect and in send, to drop the
connection when a listener raises, to be silent when a TLS peer goes away, and to buffer without bound. So:

* one thread, the supervisor's, reads and writes; other threads only queue frames and wake it;
* the socket never blocks; every wait has an end;
* what is ready is written in one system call;
* liveness is judged by our own monotonic clock, and only after what had arrived was read.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import Final

from deploykit.bus.certificates import unread_alert
from deploykit.bus.events import Counters
from deploykit.bus.poller import READ, WRITE, Poller
from deploykit.bus.ports import FrameSink
from deploykit.bus.stomp import heartbeat
from deploykit.bus.stomp.compile import CompiledSubscription
from deploykit.bus.stomp.dialect import GENERIC, Dialect
from deploykit.bus.stomp.encoder import SendEncoder
from deploykit.bus.stomp.frames import (
    MAX_MESSAGE_HEADERS,
    Escaping,
    FrameReader,
    ProtocolError,
    Received,
    escaping,
)
from deploykit.bus.stomp.handshake import agree, connect_headers, redacted
from deploykit.bus.stomp.reason import clean
from deploykit.bus.stomp.verbs import Verbs
from deploykit.bus.unconfirmed import UnconfirmedPublishes
from deploykit.errors import BusError, ConnectError
from deploykit.settings.address import Broker
from deploykit.settings.bus import BusSettings

logger = logging.getLogger(__name__)

_CHUNK: Final = 64 * 1024
_BATCH: Final = 128 * 1024
#: With so many receipts under way, wait a moment before looking for them: brokers write each by itself, and taking
#: them one by one would cost both sides more than the messages.
_MANY: Final = 32
_GATHER: Final = 0.0002
_BEFORE_LOGIN: Final = 64 * 1024


class ConnectionBroken(Exception):
    """The connection is over. `by_broker`: the broker ended it, while it worked."""

    def __init__(self, reason: str, *, by_broker: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.by_broker = by_broker


class Connection:
    """One attempt: `open`, then `step` until `ConnectionBroken`, then `close`; all on the supervisor's thread.

    Args:
        broker: the one that `sock` is connected to.
        settings: the bus's.
        sock: connected and non-blocking, after the TLS handshake if there is one.
        epoch: number of this connection.
        poller, unconfirmed, counters, sink: the supervisor's.
        client_id: for CONNECT; may be empty.
        escape_login: double the backslashes in login and passcode.
    """

    def __init__(
        self,
        broker: Broker,
        settings: BusSettings,
        sock: socket.socket,
        *,
        epoch: int,
        poller: Poller,
        unconfirmed: UnconfirmedPublishes,
        counters: Counters,
        sink: FrameSink,
        client_id: str = "",
        escape_login: bool = True,
    ) -> None:
        self.broker = broker
        self.epoch = epoch
        self.server = self.version = ""
        self.dialect: Dialect = GENERIC
        self.beats = heartbeat.HeartbeatMonitor()
        self.client_id = client_id
        self.up = False
        #: Which of the broker's addresses failed before this one took us, and what each did; empty when none.
        self.passed_over = ""
        self._escape_login = escape_login
        self._outgoing: deque[bytes] = deque()  # frames other than SEND, encoded
        #: While set, nothing is read: the handlers do not keep up. Only on a subscription's own connection.
        self.paused = False
        self._settings = settings
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._poller = poller
        self._unconfirmed = unconfirmed
        self._counters = counters
        self._sink = sink
        self._sock: socket.socket | None = sock
        self._fd = sock.fileno()
        self._reader = FrameReader(_BEFORE_LOGIN)
        self._unwritten = memoryview(b"")
        self._more_to_read = False
        self._read_last = 0
        self._rule: Escaping = escaping("1.0")
        self._writing = threading.Lock()
        self._writer = SendEncoder(self.dialect, self._rule)
        self._sent = self._heard = self._moved = monotonic()
        self._probed = 0.0
        self._verbs = Verbs("1.0", self._rule, self._queue)

    # -- opening -----------------------------------------------------------------------------------------------

    def open(self, deadline: float) -> None:
        """Log in, agree on version, dialect and heart-beats.

        Raises:
            ConnectError: not until `deadline` (monotonic time), or refused (`LoginRefused`).
            Interrupted: the bus is being closed.
        """
        try:
            self._sent = self._heard = self._moved = monotonic()
            self._write_connect()
            answer = self._await_answer(deadline)
            self._agree(answer)
        except ConnectionBroken as lost:
            raise ConnectError(
                f"{self.broker}: {lost.reason} before it answered CONNECT",
                "is this a STOMP port, and TLS or plain as in the address?",
            ) from None
        except ProtocolError as error:
            raise ConnectError(f"{self.broker}: {error}", "check the port and stomp:// or stomp+ssl://") from None
        self.up = True

    def _write_connect(self) -> None:
        self._verbs.connect(
            connect_headers(self.broker, self._settings, client_id=self.client_id, escape_login=self._escape_login)
        )

    def _await_answer(self, deadline: float) -> Received:
        while True:
            self._flush()
            mask = READ | (WRITE if len(self._unwritten) else 0)
            if not self._poller.wait_for(self._fd, mask, deadline):
                raise ConnectError(
                    f"{self.broker}: connected, but no answer to CONNECT in time", "is the broker frozen or overloaded?"
                )
            for frame in self._read_frames()[1]:
                if frame.command not in ("CONNECTED", "ERROR"):
                    raise ProtocolError(f"it answered CONNECT with {frame.command[:20]!a}")
                return frame

    def _agree(self, answer: Received) -> None:
        agreed = agree(answer, self.broker, self._settings)
        self.version, self.server, self.dialect = agreed.version, agreed.server, agreed.dialect
        self.beats, self._rule = agreed.beats, agreed.rule
        self._writer = SendEncoder(agreed.dialect, agreed.rule)
        self._reader.unescape = agreed.rule.into
        self._reader.max_body = self._settings.max_frame
        self._reader.max_headers = MAX_MESSAGE_HEADERS
        self._verbs = Verbs(agreed.version, agreed.rule, self._queue)

    # -- serving -----------------------------------------------------------------------------------------------

    def step(self, until: float) -> None:
        """Write what is ready, wait (not past `until`), read what came, watch the clock. Returns often.

        Raises:
            ConnectionBroken: the connection is over.
        """
        self._flush()
        if self._unconfirmed.in_flight >= _MANY:
            time.sleep(_GATHER)
        now = monotonic()
        due = self._watch(now)
        mask = (0 if self.paused else READ) | (WRITE if len(self._unwritten) else 0)
        if self._more_to_read and not self.paused:
            due = now
        if self._poller.poll_once(self._fd, mask, min(until, due), self._has_work) & ~WRITE or self._more_to_read:
            self._read()

    def _has_work(self) -> bool:
        if len(self._unwritten):
            return False
        return bool(self._outgoing) or (self._unconfirmed.has_unsent and self._sink.may_send())

    def _watch(self, now: float) -> float:
        """Send and check heart-beats; return when to look again."""
        if self.paused:
            self._heard = now  # we do not listen, so we cannot judge
        decision = heartbeat.decide(self.beats, now, sent=self._sent, heard=self._heard, probed=self._probed)
        if decision.dead:
            if self._read():  # what had arrived while this machine slept counts
                return now
            raise ConnectionBroken(f"nothing heard for {now - self._heard:.1f} s")
        if decision.beat and not len(self._unwritten):
            self._outgoing.append(b"\n")
            self._counters.beats_sent += 1
            self._sent = now
        if decision.probe:
            self._probed = now
            self._counters.probes_sent += 1
            self.round_trip(f"probe-{self._counters.probes_sent}")
        if decision.beat or decision.probe:
            self._flush()
        return decision.due

    def _flush(self) -> None:
        """Write as much as the socket takes, many frames in one call."""
        with self._writing:
            self._write_some()

    def flush_now(self) -> None:
        """Write from another thread than the supervisor's, so that a caller who waits is served sooner.

        OpenSSL does not take two threads at once, so over TLS the supervisor is woken instead; and so it is when it has
        a whole burst to write anyway.
        """
        if self._tls or self._unconfirmed.in_flight >= _MANY or not self._writing.acquire(blocking=False):
            self._poller.wake()
            return
        try:
            self._write_some()
            if len(self._unwritten) or self._unconfirmed.careful:
                self._poller.wake()
        except ConnectionBroken:
            self._poller.wake()  # the supervisor will see it too
        finally:
            self._writing.release()

    def _write_some(self) -> None:
        sock = self._live()
        while True:
            if not len(self._unwritten):
                batch = self._next_batch()
                if not batch:
                    return
                self._unwritten = memoryview(batch)
            try:
                count = sock.send(self._unwritten)
            except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                shown = error if self.up else unread_alert(sock, error)
                raise ConnectionBroken(f"writing failed: {clean(str(shown), 100)}", by_broker=self.up) from None
            self._unwritten = self._unwritten[count:]
            self._counters.bytes_sent += count
            self._sent = monotonic()

    def _next_batch(self) -> bytes:
        pieces, size, outgoing = [], 0, self._outgoing
        while outgoing:
            piece = outgoing.popleft()
            pieces.append(piece)
            size += len(piece)
        if self.up and self._sink.may_send():
            while size < _BATCH and (entry := self._unconfirmed.next_unsent()) is not None:
                try:
                    piece = self._writer.send(entry)
                except BusError as error:
                    self._unconfirmed.refuse(entry, error)
                    continue
                pieces.append(piece)
                size += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    @property
    def local_address(self) -> str:
        """The address of our own end, as the broker sees it where nothing translates it; empty once it is closed."""
        sock = self._sock
        try:
            return str(sock.getsockname()[0]) if sock is not None else ""
        except OSError:  # closed by its own thread meanwhile
            return ""

    def _live(self) -> socket.socket:
        if self._sock is None:
            raise ConnectionBroken("the connection is closed")
        return self._sock

    # -- reading -----------------------------------------------------------------------------------------------

    def _read(self) -> int:
        """Read once and hand on what is complete; return the number of bytes."""
        try:
            receipts, frames = self._read_frames()
        except ProtocolError as error:
            raise ConnectionBroken(f"the broker broke the protocol: {error}") from None
        if receipts:
            self._take_receipts(receipts)
        for frame in frames:
            if frame.command == "MESSAGE":
                self._sink.on_message(frame)
            elif frame.command == "RECEIPT":
                self._take_receipts([frame.headers.get("receipt-id", "").encode()])
            elif frame.command == "ERROR":
                self._counters.errors_received += 1
                self._sink.on_error(frame, redacted(frame, self.broker, self._settings))
            else:
                raise ConnectionBroken(f"the broker sent {frame.command[:20]!a}")
        return self._read_last

    def _take_receipts(self, receipts: list[bytes]) -> None:
        others = self._unconfirmed.confirm(receipts)
        if others:
            self._sink.on_receipts(others)

    def _read_frames(self) -> tuple[list[bytes], list[Received]]:
        sock = self._live()
        self._more_to_read = False
        self._read_last = 0
        try:
            data = sock.recv(_CHUNK)
        except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return [], []
        except OSError as error:
            raise ConnectionBroken(f"reading failed: {clean(str(error), 100)}", by_broker=self.up) from None
        if not data:
            raise ConnectionBroken("the broker closed the connection", by_broker=self.up)
        self._heard = monotonic()
        self._read_last = len(data)
        self._counters.bytes_received += len(data)
        # Decrypted bytes that wait inside OpenSSL do not show on the socket.
        self._more_to_read = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        return self._reader.feed(data)

    # -- any thread --------------------------------------------------------------------------------------------

    def _queue(self, frame: bytes) -> None:
        self._outgoing.append(frame)
        self._poller.wake()

    def resume(self) -> None:
        """Read on, if reading was paused."""
        if self.paused:
            self.paused = False
            self._poller.wake()

    def ack(self, delivered: Mapping[str, str]) -> None:
        """Acknowledge the message that came over this connection with these headers."""
        self._verbs.ack(delivered)

    def nack(self, delivered: Mapping[str, str], headers: Mapping[str, str]) -> None:
        """Refuse the message that came over this connection; `headers` say what the broker is to do with it."""
        self._verbs.nack(delivered, headers)

    def subscribe(self, compiled: CompiledSubscription, receipt: str) -> None:
        """Send SUBSCRIBE."""
        self._verbs.subscribe(compiled, receipt)

    def unsubscribe(self, subscription: str, headers: Mapping[str, str], receipt: str) -> None:
        """Send UNSUBSCRIBE."""
        self._verbs.unsubscribe(subscription, headers, receipt)

    def round_trip(self, receipt: str) -> None:
        """Make the broker answer: begin a transaction and abort it, with a receipt. Leaves nothing behind."""
        self._verbs.round_trip(receipt)

    def disconnect(self, receipt: str) -> None:
        """Send DISCONNECT; its receipt says that all before it has arrived."""
        self._verbs.disconnect(receipt)

    def tls_info(self) -> tuple[str, float | None] | None:
        """Return the TLS version and days until the certificate ends (None: not verified); None without TLS."""
        sock = self._sock
        if not isinstance(sock, ssl.SSLSocket):
            return None
        certificate = sock.getpeercert() or {}
        ends = certificate.get("notAfter")
        days = (ssl.cert_time_to_seconds(ends) - time.time()) / 86400 if isinstance(ends, str) else None
        return sock.version() or "TLS", days

    def give_up(self) -> None:
        """Stop writing messages: when this returns, no thread writes one."""
        with self._writing:
            self.up = False

    def close(self) -> None:
        """Close the socket without DISCONNECT. Idempotent."""
        self.up = False
        sock, self._sock = self._sock, None
        if sock is not None:
            self._poller.forget(self._fd)
            sock.close()
