"""A minimal STOMP 1.2 client for asyncio: one connection, messages acknowledged by the broker itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Self

from deploykit.broker.frames import FrameLimits, FrameParser, StompFrame, encode_frame
from deploykit.wire import Frame

_VERSION = "1.2"


class StompEnded(Exception):
    """The broker sent ERROR or closed the connection."""


class AsyncStomp:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = FrameParser(FrameLimits(max_body=16 * 1024 * 1024), _VERSION)
        self._early: deque[StompFrame] = deque()  # came while receipts were waited for

    @classmethod
    async def connect(cls, port: int, login: str, passcode: str) -> Self:
        """Return a connection that is logged in."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        headers = {"accept-version": _VERSION, "host": "/", "heart-beat": "0,0"}
        client.send("CONNECT", headers | ({"login": login, "passcode": passcode} if login else {}))
        answer = await anext(client.frames())
        if answer.command != "CONNECTED":
            raise StompEnded(f"{answer.command}: {dict(answer.headers)} {answer.body[:300]!r}")
        return client

    def send(self, command: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Write one frame."""
        self._writer.write(encode_frame(StompFrame(command=command, headers=dict(headers), body=body), _VERSION))

    def publish(self, destination: str, frame: Frame) -> None:
        """Send a message that need not outlive the broker."""
        self.send("SEND", {"destination": destination, **frame.headers}, frame.body)

    async def subscribe(self, *destinations: str) -> None:
        """Subscribe, and return when the broker has confirmed all of them."""
        for number, destination in enumerate(destinations):
            self.send(
                "SUBSCRIBE",
                {"id": str(number), "destination": destination, "ack": "auto", "receipt": f"s{number}"},
            )
        waiting, early = len(destinations), list[StompFrame]()
        async for frame in self.frames():
            if frame.command == "RECEIPT":
                waiting -= 1
            else:
                early.append(frame)
            if not waiting:
                break
        self._early.extend(early)

    async def frames(self) -> AsyncIterator[StompFrame]:
        """Yield frames as they come.

        Raises:
            StompEnded: the connection ended.
        """
        while True:
            while self._early:
                yield self._early.popleft()
            while (frame := self._parser.next_frame()) is not None:
                yield frame
            data = await self._reader.read(65536)
            if not data:
                raise StompEnded("closed by the broker")
            self._parser.feed(data)

    def close(self) -> None:
        """Close the socket."""
        self._writer.close()
