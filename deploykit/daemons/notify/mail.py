"""A channel that is e-mail: plain text, to a mail server that the settings name.

Rules:

* `smtps://` speaks TLS at once; `smtp://` by STARTTLS, which only a server on this machine may lack.
* The login is sent over TLS only, but for this machine.
* No header is made of what somebody else wrote but the subject, which is one line and encoded as RFC 2047 says. What
  is encoded in it already stays as it reads: `email` would decode it, line ends and all.
* The whole exchange has a deadline and a most number of bytes: a server that drips, or never ends its answer, holds up
  its channel for a minute.
* What comes of QUIT changes nothing: the mail was taken or refused before.
* A mail that is sent twice has one Message-ID. It says that a program wrote it, so that no other one answers.
"""

from __future__ import annotations

import errno
import io
import smtplib
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as MAIL_POLICY
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from deploykit.daemons.notify.letters import NotifyLetter
from deploykit.daemons.notify.ports import SENT, SendOutcome
from deploykit.errors import SettingsError
from deploykit.messages import one_line
from deploykit.settings.notify import ChannelSettings, is_loopback
from deploykit.system.hosts import create_connection
from deploykit.system.secretfile import read_secret

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

#: Seconds for each step of the exchange.
_SECONDS: Final = 15.0
#: Seconds for all answers of one exchange, and bytes of them.
_EXCHANGE: Final = 60.0
_MOST_BYTES: Final = 256 * 1024
_FOR_A_PERSON: Final = 60.0
_SUBMISSION: Final = 587
#: How an encoded word of RFC 2047 begins.
_ENCODED_WORD: Final = "=?"


class MailChannel:
    """E-mail. See `NotifyChannel`.

    Args:
        name: of the channel.
        settings: of the channel.
        host: the right side of each Message-ID.
        dial: connects; `system.hosts.create_connection` but in tests.

    Raises:
        SettingsError: `ca_file` or `secret_file` cannot be used.
    """

    def __init__(
        self,
        name: str,
        settings: ChannelSettings,
        *,
        host: str,
        dial: Callable[[tuple[str, int], float], socket.socket] = create_connection,
    ) -> None:
        self._name = name
        self._settings = settings
        self._host = host
        self._dial = dial
        parts = urlsplit(settings.url)
        self._tls = parts.scheme == "smtps"
        self._server = parts.hostname or ""
        usual = 465 if self._tls else _SUBMISSION if settings.user else 25
        self._port = parts.port or usual
        self._shown = f"{self._server}:{self._port}"
        self._context = tls_context(settings)
        self._password()

    def send(self, letter: NotifyLetter) -> SendOutcome:
        """Send a letter as one mail; see `NotifyChannel.send`."""
        password = self._password()
        mail = mail_of(letter, self._settings, host=self._host)
        try:
            with _Session(self._dial, self._server, self._port, self._context if self._tls else None) as session:
                problem = self._secure(session) or self._log_in(session, password)
                if problem:
                    return SendOutcome(kind="later", why=problem, wait=_FOR_A_PERSON)
                refused = session.send_message(mail, self._settings.sender, list(self._settings.to))
        except smtplib.SMTPRecipientsRefused as error:
            codes = {code for code, _ in error.recipients.values()}
            return self._answered(max(codes, default=550), "every recipient")
        except smtplib.SMTPResponseException as error:  # its text may hold what we sent
            return self._answered(error.smtp_code, "the mail")
        except (smtplib.SMTPException, OSError, ValueError) as error:
            return SendOutcome(kind="later", why=f"{self._shown}: {_reason(error)}")
        if refused:
            return SendOutcome(kind="sent", why=f"{self._shown} refused some recipients: {', '.join(sorted(refused))}")
        return SENT

    def fileno(self) -> int:
        """Return -1: no connection stays open."""
        return -1

    def tend(self) -> None:
        """Do nothing: no connection stays open."""

    def close(self) -> None:
        """Do nothing: no connection stays open."""

    def _secure(self, session: smtplib.SMTP) -> str:
        """Begin TLS where the connection has none yet; return why that is not possible, else an empty text."""
        session.ehlo_or_helo_if_needed()
        if self._tls:
            return ""
        if session.has_extn("starttls"):
            session.starttls(context=self._context)
            session.ehlo()
            return ""
        return (
            ""
            if is_loopback(self._server)
            else f"{self._shown} does not offer STARTTLS (use smtps://, or another port)"
        )

    def _log_in(self, session: smtplib.SMTP, password: str) -> str:
        if not self._settings.user:
            return ""
        try:
            session.login(self._settings.user, password)
        except smtplib.SMTPAuthenticationError as error:
            return f"{self._shown} refused the login: {error.smtp_code} (check user and secret_file)"
        except smtplib.SMTPNotSupportedError:
            return f"{self._shown} takes no login (leave out user)"
        return ""

    def _answered(self, code: int, what: str) -> SendOutcome:
        why = f"{self._shown} refused {what}: {code}"
        if code in (530, 535, 538):  # it wants a login
            return SendOutcome(kind="later", why=f"{why} (set user and secret_file)", wait=_FOR_A_PERSON)
        return SendOutcome(kind="refused" if 500 <= code < 600 else "later", why=why)

    def _password(self) -> str:
        if not self._settings.user or self._settings.secret_file is None:
            return ""
        return read_secret(self._settings.secret_file, f"notify.channels.{self._name}.secret_file")


class _Answers(io.RawIOBase):
    """What a server sends, until a deadline and up to a number of bytes.

    Args:
        sock: the connection.
        until: monotonic seconds.
        left: bytes that may come.
    """

    def __init__(self, sock: socket.socket, until: float, left: int) -> None:
        self._sock = sock
        self._until = until
        self.left = left

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Buffer) -> int:
        """Read what has come, as a raw stream does.

        Raises:
            TimeoutError: the deadline is over, or the server was silent for too long.
            OSError: it sent too much, or the connection broke.
        """
        seconds = min(self._until - time.monotonic(), _SECONDS)
        if seconds <= 0:
            raise TimeoutError("the deadline is over")
        if self.left <= 0:
            raise OSError(errno.EMSGSIZE, "it answers without an end")
        self._sock.settimeout(seconds)
        try:
            count = self._sock.recv_into(buffer)
        finally:
            self._sock.settimeout(_SECONDS)
        self.left -= count
        return count


class _Session(smtplib.SMTP):
    """SMTP over a connection that is made within a deadline; over TLS from the beginning where there is a context."""

    def __init__(
        self,
        dial: Callable[[tuple[str, int], float], socket.socket],
        host: str,
        port: int,
        context: ssl.SSLContext | None,
    ) -> None:
        self._dial = dial
        self._context = context
        self._until = time.monotonic() + _EXCHANGE
        self._answers: _Answers | None = None
        super().__init__(host, port, local_hostname="localhost", timeout=_SECONDS)

    def __exit__(self, *args: object) -> None:
        """End the exchange."""
        with suppress(smtplib.SMTPException, OSError):  # the server has answered all that matters
            self.docmd("QUIT")
        self.close()

    def getreply(self) -> tuple[int, bytes]:
        """Return the next answer; see `smtplib.SMTP.getreply`."""
        if self.file is None and self.sock is not None:  # at the beginning, and after STARTTLS
            left = self._answers.left if self._answers is not None else _MOST_BYTES
            self._answers = _Answers(self.sock, self._until, left)
            self.file = io.BufferedReader(self._answers)
        return super().getreply()

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        sock = self._dial((host, port), timeout)
        if self._context is None:
            return sock
        try:
            return self._context.wrap_socket(sock, server_hostname=host)
        except BaseException:
            sock.close()
            raise


def mail_of(letter: NotifyLetter, settings: ChannelSettings, *, host: str) -> EmailMessage:
    """Return the mail of a letter.

    Args:
        host: the right side of its Message-ID.
    """
    mail = EmailMessage(policy=MAIL_POLICY)
    mail["From"] = Address(display_name="deploykit", addr_spec=settings.sender)
    mail["To"] = ", ".join(settings.to)
    mail["Subject"] = one_line(letter.subject, 200).replace(_ENCODED_WORD, "= ?")
    mail["Date"] = format_datetime(letter.time)
    mail["Message-ID"] = f"<{letter.id}@{host}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content("\n".join(letter.lines) + "\n")
    return mail


def tls_context(settings: ChannelSettings) -> ssl.SSLContext:
    """Return what verifies a server of a channel.

    Raises:
        SettingsError: `ca_file` cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or "no certificates in it"
        raise SettingsError(f"cannot use ca_file {settings.ca_file}: {reason}", "give PEM certificates") from None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has no trusted certificate: {error.verify_message} (set ca_file to who signed it)"
    if isinstance(error, smtplib.SMTPServerDisconnected):
        cause = error.__context__
        if isinstance(cause, TimeoutError):
            return "did not answer in time"
        too_much = isinstance(cause, OSError) and cause.errno == errno.EMSGSIZE
        return "answers without an end" if too_much else "closed the connection"
    if isinstance(error, OSError):
        return f"cannot be reached: {error.strerror or type(error).__name__}"
    return type(error).__name__


__all__ = ["MailChannel", "mail_of", "tls_context"]
