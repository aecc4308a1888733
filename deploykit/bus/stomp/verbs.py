"""Every frame a client sends but SEND, encoded for one STOMP version: the only module that knows stomp.py.

What we take from stomp.py is its protocol layer: `Protocol10`, `Protocol11` and `Protocol12` know which headers each
verb wants on each version. ACK and NACK, one for each message, are written here, because speed matters.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final

from deploykit.bus.stomp.compile import CompiledSubscription
from deploykit.bus.stomp.frames import Escaping, escape

if not (_scan_was_off := "STOMP_SKIP_HOSTNAME_SCAN" in os.environ):
    os.environ["STOMP_SKIP_HOSTNAME_SCAN"] = "1"  # else stomp.py asks the name server while it is imported
try:
    from stomp.protocol import Protocol10, Protocol11, Protocol12
    from stomp.utils import Frame as StompFrame
    from stomp.utils import convert_frame
finally:
    if not _scan_was_off:
        del os.environ["STOMP_SKIP_HOSTNAME_SCAN"]

_PROTOCOLS: Final = {"1.0": Protocol10, "1.1": Protocol11, "1.2": Protocol12}


class Verbs:
    """Encodes frames for one connection. Any thread.

    Args:
        version: the STOMP version that was agreed on.
        rule: how header values are escaped there.
        out: takes the bytes of one frame.
    """

    def __init__(self, version: str, rule: Escaping, out: Callable[[bytes], None]) -> None:
        self._version = version
        self._rule = rule
        self._out = out
        self._protocol = _PROTOCOLS[version](_Pipe(out))

    def connect(self, headers: Mapping[str, str]) -> None:
        """Write CONNECT."""
        self._protocol.send_frame("CONNECT", headers)

    def disconnect(self, receipt: str) -> None:
        """Write DISCONNECT."""
        self._protocol.send_frame("DISCONNECT", {"receipt": receipt})

    def subscribe(self, compiled: CompiledSubscription, receipt: str) -> None:
        """Write SUBSCRIBE."""
        headers = dict(compiled.headers)
        self._protocol.subscribe(
            headers.pop("destination"), headers.pop("id"), headers.pop("ack"), headers={**headers, "receipt": receipt}
        )

    def unsubscribe(self, subscription: str, headers: Mapping[str, str], receipt: str) -> None:
        """Write UNSUBSCRIBE."""
        self._protocol.unsubscribe(id=subscription, headers={**headers, "receipt": receipt})

    def round_trip(self, receipt: str) -> None:
        """Write BEGIN, and ABORT with a receipt."""
        self._protocol.begin(transaction=receipt)
        self._protocol.abort(transaction=receipt, headers={"receipt": receipt})

    def ack(self, delivered: Mapping[str, str]) -> None:
        """Write ACK for the message that came with these headers."""
        self._out(self._settling("ACK", delivered, {}))

    def nack(self, delivered: Mapping[str, str], headers: Mapping[str, str]) -> None:
        """Write NACK for the message that came with the headers `delivered`."""
        self._out(self._settling("NACK", delivered, headers))

    def _settling(self, command: str, delivered: Mapping[str, str], more: Mapping[str, str]) -> bytes:
        rule = self._rule
        if self._version == "1.2":
            head = f"id:{escape(delivered.get('ack', ''), rule)}\n"
        else:
            head = f"message-id:{escape(delivered.get('message-id', ''), rule)}\n"
            # STOMP 1.0 has no such header, and allows it. Without it ActiveMQ may take the ACK for the same message of
            # an ended subscription (ProtocolConverter.onStompAck tries each), until prefetch is full and nothing comes.
            if "subscription" in delivered:
                head += f"subscription:{escape(delivered['subscription'], rule)}\n"
        for key, value in more.items():
            head += f"{key}:{escape(value, rule)}\n"
        return f"{command}\n{head}\n\x00".encode()


class _Pipe:
    """What stomp.py's protocol classes take for their transport: it turns a frame into bytes and hands them on."""

    def __init__(self, out: Callable[[bytes], None]) -> None:
        self._out = out

    def set_listener(self, name: str, listener: object) -> None:
        """Do nothing: protocol classes register themselves for heart-beats, which are ours."""

    def transmit(self, frame: StompFrame) -> None:
        """Encode a frame that the protocol class has escaped."""
        self._out(b"".join(convert_frame(frame)))
