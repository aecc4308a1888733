"""A mail server for tests: asyncio on a loopback port, with STARTTLS, TLS from the beginning, a login, and faults."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage

import attrs


@attrs.define(kw_only=True)
class ReceivedMail:
    """One mail that was taken."""

    sender: str
    to: list[str]
    data: bytes
    secure: bool
    user: str

    @property
    def message(self) -> EmailMessage:
        """The mail, parsed."""
        found = message_from_bytes(self.data, policy=policy.SMTP)
        assert isinstance(found, EmailMessage)
        return found


@attrs.define(kw_only=True)
class StubMailServer:
    """What it does, and what it took.

    Args:
        tls: for STARTTLS, or from the beginning.
        at_once: TLS from the beginning.
        login: `user:password` that is accepted; empty: none is asked for.
        answers: command -> an answer instead of the usual one (`MAIL`, `RCPT`, `DATA`, `.`), as often as it is listed.
    """

    tls: ssl.SSLContext | None = None
    at_once: bool = False
    login: str = ""
    answers: dict[str, list[str]] = attrs.field(factory=dict)
    mails: list[ReceivedMail] = attrs.field(factory=list)
    port: int = 0
    connections: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        session = _Session(self, reader, writer, secure=self.at_once)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await session.run()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()


class _Session:
    def __init__(
        self, server: StubMailServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, secure: bool
    ) -> None:
        self.server, self.reader, self.writer, self.secure = server, reader, writer, secure
        self.user = ""
        self.sender = ""
        self.to: list[str] = []

    async def say(self, line: str) -> None:
        self.writer.write(f"{line}\r\n".encode())
        await self.writer.drain()

    async def run(self) -> None:
        await self.say("220 stub ESMTP")
        while line := (await self.reader.readline()).decode().strip():
            verb, _, rest = line.partition(" ")
            verb = verb.upper()
            if answers := self.server.answers.get(verb):
                await self.say(answers.pop(0))
                continue
            if await self.answer(verb, rest):
                return

    async def answer(self, verb: str, rest: str) -> bool:
        """Answer a command; return whether the session is over."""
        match verb:
            case "EHLO" | "HELO":
                offers = ["STARTTLS"] if self.server.tls and not self.secure else []
                offers += ["AUTH PLAIN"] if self.server.login else []
                lines = ["stub", *offers, "SIZE 10000000"]
                for at, line in enumerate(lines):
                    await self.say(f"250{'-' if at < len(lines) - 1 else ' '}{line}")
            case "STARTTLS":
                await self.say("220 go")
                await self.writer.start_tls(self.server.tls)  # type: ignore[arg-type]  # offered only where there is one
                self.secure = True
            case "AUTH":
                user, _, password = base64.b64decode(rest.rsplit(maxsplit=1)[-1]).decode()[1:].partition("\0")
                if f"{user}:{password}" == self.server.login:
                    self.user = user
                    await self.say("235 welcome")
                else:
                    await self.say(f"535 5.7.8 no: {password}")
            case "MAIL":
                self.sender, self.to = rest.partition(":")[2].split()[0].strip("<>"), []
                await self.say("250 ok" if self.user or not self.server.login else "530 log in first")
            case "RCPT":
                self.to.append(rest.partition(":")[2].split()[0].strip("<>"))
                await self.say("250 ok")
            case "DATA":
                await self.say("354 go on")
                await self.data()
            case "QUIT":
                await self.say("221 bye")
                return True
            case _:
                await self.say("250 ok")
        return False

    async def data(self) -> None:
        lines = []
        while (line := await self.reader.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        if answers := self.server.answers.get("."):
            await self.say(answers.pop(0))
            return
        mail = ReceivedMail(sender=self.sender, to=self.to, data=b"".join(lines), secure=self.secure, user=self.user)
        self.server.mails.append(mail)
        await self.say("250 taken")


@contextmanager
def running_mail_server(server: StubMailServer) -> Iterator[StubMailServer]:
    """Run a mail server in a thread of its own; its `port` is set."""
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    stop = asyncio.Event()

    async def serve() -> None:
        tls = server.tls if server.at_once else None
        listening = await asyncio.start_server(server.handle, "127.0.0.1", server.port, ssl=tls)
        server.port = listening.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        listening.close()
        ending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    def run() -> None:
        with contextlib.closing(loop):
            loop.run_until_complete(serve())

    thread = threading.Thread(target=run, name="smtp-stub")
    thread.start()
    assert ready.wait(20)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
