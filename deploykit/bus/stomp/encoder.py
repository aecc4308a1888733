"""From a pending message to the bytes of one SEND, for one broker. Pure but for a cache.

Thousands of messages go to a few destinations, so the part of the head that depends on the destination alone is
compiled once.
"""

from __future__ import annotations

import re
import time
from typing import Final

from deploykit.bus.stomp.compile import compile_send
from deploykit.bus.stomp.dialect import NUMERIC, Dialect
from deploykit.bus.stomp.frames import Escaping, HeaderRefused, encode_frame, escape
from deploykit.bus.unconfirmed import PendingPublish
from deploykit.errors import PublishRefused, Unsendable
from deploykit.wire.codec import ID_HEADER

_NUMBER: Final = re.compile("[0-9]{1,18}")


class SendEncoder:
    """Writes SENDs for one connection.

    Args:
        dialect: the broker's.
        rule: how headers are escaped there.
    """

    def __init__(self, dialect: Dialect, rule: Escaping) -> None:
        self._dialect = dialect
        self._rule = rule
        self._heads: dict[tuple[str, bool], str] = {}
        self._numeric = {**dict.fromkeys(dialect.numeric, 10**15), **NUMERIC}
        self._checked = dialect.reserved.union(self._numeric, {"reply-to"} if dialect.reply_to else ())

    def send(self, entry: PendingPublish) -> bytes:
        """Return the bytes of one SEND that asks for a receipt.

        Raises:
            PublishRefused: a header cannot go over this connection (`Unsendable`: over none to such a broker).
            DialectError: the broker would do something else.
        """
        try:
            return self._encode(entry)
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            # Half a surrogate pair, a number where text belongs: it must not end the thread that all share.
            raise PublishRefused(
                f"message {entry.id!a} cannot be written: {type(error).__name__}",
                "headers are text that UTF-8 can hold, the body is bytes, the ttl a number of seconds",
            ) from None

    def _encode(self, entry: PendingPublish) -> bytes:
        if entry.expires is None:
            key = (entry.destination, entry.persistent)
            head = self._heads.get(key)
            if head is None:
                if len(self._heads) > 1000:
                    self._heads.clear()
                head = self._heads[key] = self._head(entry)
        else:
            head = self._head(entry)
        frame = entry.frame
        if not self._checked.isdisjoint(frame.headers):
            self._check(entry)
        try:
            own = encode_frame("", frame.headers, b"", self._rule)[1:-2].decode() if frame.headers else ""
        except HeaderRefused as error:
            raise PublishRefused(f"message {entry.id} to {entry.destination}: {error}", "correct the header") from None
        body = frame.body
        return (
            f"SEND\n{head}{own}"
            f"{'' if ID_HEADER in frame.headers else f'{ID_HEADER}:{entry.id}{chr(10)}'}"
            f"content-length:{len(body)}\nreceipt:{entry.seq}\n\n".encode()
            + body
            + b"\x00"
        )

    def _check(self, entry: PendingPublish) -> None:
        """Refuse headers at which this broker would end the connection, or send an ERROR that names no message."""
        headers = entry.frame.headers
        wrong = sorted(self._dialect.reserved.intersection(headers))
        wrong += [
            name
            for name, most in self._numeric.items()
            if name in headers and not (_NUMBER.fullmatch(headers[name]) and int(headers[name]) <= most)
        ]
        reply_to = headers.get("reply-to", "")
        if self._dialect.reply_to and reply_to.startswith("/") and not reply_to.startswith(self._dialect.reply_to):
            raise Unsendable(
                f"message {entry.id!a} to {entry.destination}: {self._dialect.title} does not know its reply-to",
                f"begin it with one of {' '.join(self._dialect.reply_to)}",
            )
        if wrong:
            raise Unsendable(
                f"message {entry.id!a} to {entry.destination}: {self._dialect.title} takes no such header {wrong[0]}",
                "leave it out" if wrong[0] in self._dialect.reserved else "it has to be a number",
            )

    def _head(self, entry: PendingPublish) -> str:
        now = time.time()
        ttl = None if entry.expires is None else entry.expires - now
        headers = compile_send(self._dialect, entry.destination, persistent=entry.persistent, ttl=ttl, now=now)
        return "".join(f"{escape(k, self._rule, name=True)}:{escape(v, self._rule)}\n" for k, v in headers.items())
