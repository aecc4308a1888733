"""A channel of IRC: one connection that stays open, and is made again where it is lost.

Rules:

* TLS is verified; without TLS only this machine is written to (the settings see to that).
* A message counts as sent when the server has answered a PING behind it and has not refused it.
* Four lines go out at once, then one every two seconds: no server takes that for a flood.
* Nothing waits without a deadline, and nothing waits on once the service ends.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from deploykit.daemons.notify.ircprotocol import IrcSession, parts_of
from deploykit.daemons.notify.letters import NotifyLetter
from deploykit.daemons.notify.mail import tls_context
from deploykit.daemons.notify.ports import SENT, SendOutcome
from deploykit.errors import SettingsError
from deploykit.messages import one_line
from deploykit.settings.notify import ChannelSettings, irc_channel
from deploykit.system.hosts import connect
from deploykit.system.secretfile import read_secret

#: Seconds to connect, to log in and join, and for the answer behind a message.
_CONNECT: Final = 10.0
_LOG_IN: Final = 30.0
_ANSWER: Final = 20.0
#: Seconds for which CAP may stay unanswered.
_CAP: Final = 5.0
#: Seconds to wait where only a person can help, and where a session was ended by somebody.
_FOR_A_PERSON: Final = 60.0
#: How soon an end is noticed.
_SLICE: Final = 0.2
#: Lines at once, and seconds for each further one.
BURST: Final = 4
PACE: Final = 2.0
_NICK: Final = "deploykit"


class IrcLost(Exception):
    """The session is over, or never began. The text says why."""


class IrcChannel:
    """A channel of IRC. See `NotifyChannel`.

    Args:
        name: of the channel in the settings.
        settings: of the channel.
        ending: set once the service ends.
        pace: seconds for each line beyond the first few.
        dial: connects; `system.hosts.connect` but in tests.

    Raises:
        SettingsError: `ca_file` or `secret_file` cannot be used.
    """

    def __init__(
        self,
        name: str,
        settings: ChannelSettings,
        *,
        ending: threading.Event,
        pace: float = PACE,
        dial: Callable[[str, int, float], socket.socket] = connect,
    ) -> None:
        self._name = name
        self._settings = settings
        self._ending = ending
        self._dial = dial
        self._flood = FloodLimit(BURST, pace)
        parts = urlsplit(settings.url)
        self._server = parts.hostname or ""
        tls = parts.scheme == "ircs"
        self._port = parts.port or (6697 if tls else 6667)
        self._shown = f"{self._server}:{self._port}"
        self._context = tls_context(settings) if tls else None
        self._channel = irc_channel(settings.url)
        self._sock: socket.socket | None = None
        self._session: IrcSession | None = None
        self._token = 0
        self._password()

    def send(self, letter: NotifyLetter) -> SendOutcome:
        """Send each line of a letter, in parts where it is long; see `NotifyChannel.send`."""
        password = self._password()
        try:
            session = self._session or self._open(password)
            for text in letter.lines:
                for part in parts_of(text):
                    self._pause()
                    self._write((session.message(part),))
            return self._confirm(session)
        except IrcLost as error:
            refused = self._session is not None and self._session.state == "failed"
            self.close()
            why = one_line(f"{self._shown}: {error}", 300)
            return SendOutcome(kind="later", why=why, wait=_FOR_A_PERSON if refused else 0.0)

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 while there is no connection."""
        return self._sock.fileno() if self._sock is not None else -1

    def tend(self) -> None:
        """Answer the PINGs of the server. A session that is over is forgotten; the next letter makes another."""
        if self._session is None:
            return
        try:
            self._read(0.0)
        except IrcLost:
            self.close()

    def close(self) -> None:
        """End the session."""
        sock, self._sock, session, self._session = self._sock, None, self._session, None
        if sock is None:
            return
        with suppress(OSError):
            if session is not None and session.state == "joined":
                sock.settimeout(1.0)
                sock.sendall(session.leave())
        sock.close()

    # -- a session -----------------------------------------------------------------------------------------------------

    def _open(self, password: str) -> IrcSession:
        """Connect, log in and join.

        Raises:
            IrcLost: one of these did not work.
        """
        session = IrcSession(self._settings.user or _NICK, self._channel, user=self._settings.user, password=password)
        try:
            self._sock = self._dial(self._server, self._port, _CONNECT)
            if self._context is not None:
                self._sock.settimeout(_CONNECT)
                self._sock = self._context.wrap_socket(self._sock, server_hostname=self._server)
        except ssl.SSLCertVerificationError as error:
            raise IrcLost(
                f"has no trusted certificate: {error.verify_message} (set ca_file to who signed it)"
            ) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise IrcLost(f"cannot be reached: {reason}") from None
        self._session = session
        self._flood.begin(time.monotonic())
        self._write(session.begin())
        end = time.monotonic() + _LOG_IN
        without_cap = time.monotonic() + _CAP
        while session.state != "joined":
            if session.state == "begun" and time.monotonic() > without_cap:
                self._write(session.without_cap())
            self._read(self._left(end, "no answer to the login"))
        return session

    def _confirm(self, session: IrcSession) -> SendOutcome:
        self._token += 1
        token = f"dk-{self._token}"
        self._write((session.ping(token),))
        end = time.monotonic() + _ANSWER
        while session.pong != token:
            self._read(self._left(end, "no answer to a message"))
        if not session.not_sent:
            return SENT
        why = f"{self._shown}: {session.not_sent}"
        self.close()  # it may have been taken out of the channel: join again
        return SendOutcome(kind="later", why=why, wait=_FOR_A_PERSON)

    def _pause(self) -> None:
        """Wait until one more line may be sent; answer the server meanwhile."""
        while (wait := self._flood.wait(time.monotonic())) > 0:
            if self._ending.is_set():
                return
            self._read(min(wait, _SLICE))
        self._flood.sent(time.monotonic())

    def _left(self, end: float, why: str) -> float:
        left = end - time.monotonic()
        if left <= 0:
            raise IrcLost(why)
        if self._ending.is_set():
            raise IrcLost("the service ends")
        return min(left, _SLICE)

    def _write(self, lines: Iterable[bytes]) -> None:
        data = b"".join(lines)
        if not data:
            return
        if self._sock is None:
            raise IrcLost("there is no connection")
        try:
            self._sock.settimeout(_CONNECT)
            self._sock.sendall(data)
        except OSError as error:
            raise IrcLost(f"the connection broke off: {error.strerror or type(error).__name__}") from None

    def _read(self, seconds: float) -> None:
        """Take what comes within some seconds, and answer it.

        Raises:
            IrcLost: the session is over.
        """
        sock, session = self._sock, self._session
        if sock is None or session is None:
            raise IrcLost("there is no connection")
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        poller = select.poll()
        poller.register(sock.fileno(), select.POLLIN)
        if not pending and not poller.poll(seconds * 1000):
            return
        try:
            sock.settimeout(_CONNECT)
            data = sock.recv(16384)
        except ssl.SSLWantReadError:
            return
        except OSError as error:
            raise IrcLost(f"the connection broke off: {error.strerror or type(error).__name__}") from None
        if not data:
            raise IrcLost(session.problem or "the server closed the connection")
        self._write(session.receive(data))
        if session.state == "failed":
            raise IrcLost(session.problem)

    def _password(self) -> str:
        if self._settings.secret_file is None:
            return ""
        secret = read_secret(self._settings.secret_file, f"notify.channels.{self._name}.secret_file")
        if len(secret.encode()) > _MOST_SECRET:
            raise SettingsError(f"notify.channels.{self._name}.secret_file: longer than {_MOST_SECRET} bytes")
        return secret


_MOST_SECRET: Final = 400


class FloodLimit:
    """How soon the next line may be sent. Pure; times are monotonic seconds.

    Args:
        burst: lines at once.
        pace: seconds for each further one.
    """

    def __init__(self, burst: int, pace: float) -> None:
        self._burst = burst
        self._pace = pace
        self._until = 0.0  # when all that was sent counts as taken

    def begin(self, now: float) -> None:
        """Note that a session has begun: the login counted for two lines."""
        self._until = max(self._until, now + 2 * self._pace)

    def wait(self, now: float) -> float:
        """Return the seconds until one more line may be sent."""
        return max(0.0, self._until - now - (self._burst - 1) * self._pace)

    def sent(self, now: float) -> None:
        """Note that a line was sent."""
        self._until = max(self._until, now) + self._pace


__all__ = ["BURST", "PACE", "FloodLimit", "IrcChannel", "IrcLost"]
