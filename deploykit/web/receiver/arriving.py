"""The body of a request as it arrives: read as a stream, with a cap, a deadline, and a bound for all of them together.

Rules:

* Nothing longer than the cap is kept. What is left of a refused body is read and dropped for a moment, so that the
  sender reads the answer instead of a broken connection.
* The deadline is for the whole body: a byte now and then does not prolong it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Final

from starlette.types import Receive, Scope

from deploykit.errors import WebhookRefused
from deploykit.web.receiver.payload import too_long

#: Bytes of all bodies on their way together; more are asked to come later.
MOST_HELD: Final = 64 << 20
#: Digits of a length that is looked at: no body is that long.
_MOST_DIGITS: Final = 15
#: Bytes of a refused body that are read and dropped.
_MOST_DROPPED: Final = 64 << 20


class SenderGone(Exception):
    """The sender has closed the connection: nobody reads an answer. Never leaves the package."""


def headers_of(scope: Scope) -> dict[str, str]:
    """Return headers by lower-case name; of one that came twice both values, with a comma as HTTP says."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1").strip()
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


class Bodies:
    """Reads bodies, and knows how many bytes of all are held.

    Args:
        most: bytes of one body.
        deadline: seconds for a whole one.
        most_held: bytes of all together.
    """

    def __init__(self, most: int, deadline: float, *, most_held: int = MOST_HELD) -> None:
        self._most = most
        self._deadline = deadline
        self._most_held = max(most_held, 2 * most)
        self._held = 0

    @property
    def held(self) -> int:
        """How many bytes are held now."""
        return self._held

    async def read(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """Return a whole body; what is left of a refused one is dropped. Call `release` once it is not needed any more.

        Raises:
            WebhookRefused: too long (413), too slow (408), or too many at a time (503).
            SenderGone: the connection has ended.
        """
        if self._declared(headers) > self._most:
            await self.drop(headers, receive)
            raise self._too_long()
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout(self._deadline):
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        raise SenderGone
                    part, more = event.get("body", b""), event.get("more_body", False)
                    if size + len(part) > self._most:
                        raise self._too_long()
                    if self._held + len(part) > self._most_held:
                        raise WebhookRefused("too many deliveries at a time", "try again", status=503)
                    self._held += len(part)
                    size += len(part)
                    parts.append(part)
                return b"".join(parts)
        except TimeoutError:
            self._held -= size
            raise WebhookRefused(f"the body did not arrive within {self._deadline:g} s", status=408) from None
        except WebhookRefused:
            self._held -= size
            parts.clear()
            if more:
                await self.drop(headers, receive)
            raise
        except BaseException:
            self._held -= size
            raise

    def release(self, size: int) -> None:
        """Count the bytes of a body as not held any more."""
        self._held -= size

    async def drop(self, headers: Mapping[str, str], receive: Receive) -> None:
        """Read what is left of a refused body and drop it, within the deadline and a bound."""
        if headers.get("expect", "").lower() == "100-continue":
            return  # the sender waits for the answer before it sends anything
        dropped = 0
        try:
            async with asyncio.timeout(self._deadline):
                while dropped <= _MOST_DROPPED:
                    event = await receive()
                    dropped += len(event.get("body", b""))
                    if event["type"] == "http.disconnect" or not event.get("more_body", False):
                        return
        except TimeoutError:
            return

    def _declared(self, headers: Mapping[str, str]) -> int:
        """Return how long the sender says that the body is; 0 where it does not."""
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            return 0
        return int(length) if len(length) <= _MOST_DIGITS else sys.maxsize

    def _too_long(self) -> WebhookRefused:
        return too_long(self._most)


__all__ = ["MOST_HELD", "Bodies", "SenderGone", "headers_of"]
