"""One session with an IRC server: what to answer to what comes. Pure: bytes in, lines out.

Rules:

* CAP comes first. Where the server offers SASL and there is a password, PLAIN is used; else the password goes as PASS.
* A nick that is taken gets a tail; one that is too long is cut.
* Nothing from outside gets into a line but the text of a PRIVMSG, which holds no line end and no control character.
* A server's line, and what waits for its end, is bounded. What cannot be parsed is ignored.
* A message is known to be taken when the PONG for a PING behind it comes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final, Literal

import attrs

from deploykit.daemons.notify.wording import ZERO_WIDTH_SPACE, guarded
from deploykit.messages import one_line

#: Bytes of the longest line that is read, tags included; and of a message's text in one PRIVMSG.
MOST_LINE: Final = 8191 + 512
MOST_TEXT: Final = 400
#: Parts into which one text is cut at most.
MOST_PARTS: Final = 7
#: Bytes of base64 in one AUTHENTICATE.
_SASL_PART: Final = 400
#: What is put before a part of a text, at most.
_GUARD: Final = "- "
_SHORT_NICK: Final = 8
_MOST_NICKS: Final = 12

IrcState = Literal["begun", "login", "registering", "joining", "joined", "failed"]
#: Answers to a login or a JOIN that only a person can mend -> what they mean.
_REFUSALS: Final = {
    "403": "there is no such channel",
    "405": "it is in too many channels",
    "437": "the channel is not available now",
    "464": "the password is wrong (check secret_file)",
    "465": "it is banned from the server",
    "471": "the channel is full",
    "473": "the channel is by invitation only",
    "474": "it is banned from the channel",
    "475": "the channel has a key",
    "476": "the channel's name is not acceptable",
    "477": "the channel wants a registered nick (set user and secret_file)",
    "489": "the channel wants TLS",
    "902": "the login is locked",
    "904": "the login was refused (check user and secret_file)",
    "905": "the login is too long",
    "908": "the server takes no login by PLAIN",
}
_NOT_SENT: Final = {
    "401": "there is no such channel",
    "403": "there is no such channel",
    "404": "it may not write to the channel (is it moderated?)",
    "412": "the text is empty",
    "442": "it is not in the channel",
}


@attrs.frozen(kw_only=True, slots=True)
class IrcLine:
    """One line of a server."""

    command: str
    params: tuple[str, ...] = ()
    prefix: str = ""

    @property
    def nick(self) -> str:
        """Who sends it."""
        return self.prefix.partition("!")[0]


def parse_irc(raw: bytes) -> IrcLine | None:
    """Return the line in some bytes, without its end; None for what is none.

    >>> parse_irc(b":srv PONG srv :dk-1").params
    ('srv', 'dk-1')
    """
    text = raw.decode("utf-8", "replace").rstrip("\r\n")
    if text.startswith("@"):
        text = text.partition(" ")[2].lstrip(" ")
    prefix = ""
    if text.startswith(":"):
        prefix, _, text = text[1:].partition(" ")
    head, colon, trailing = text.lstrip(" ").partition(" :")
    words = [word for word in head.split(" ") if word]
    if not words:
        return None
    if colon:
        words.append(trailing)
    return IrcLine(command=words[0].upper(), params=tuple(words[1:]), prefix=prefix)


def parts_of(text: str) -> tuple[str, ...]:
    """Return a text in parts of at most `MOST_TEXT` bytes, cut between words where that is possible.

    Each part is a line of its own to whoever reads along, so none begins as a command of a bot does.

    >>> [len(part.encode()) for part in parts_of("é" * 300)]
    [400, 200]
    """
    rest = text.strip()
    parts: list[str] = []
    while rest and len(parts) < MOST_PARTS:
        head = rest.encode()[: MOST_TEXT - len(_GUARD) if parts else MOST_TEXT].decode("utf-8", "ignore")
        if len(head) < len(rest) and (blank := head.rfind(" ")) > len(head) // 2:
            head = head[:blank]
        parts.append(guarded(head.rstrip()) if parts else head.rstrip())
        rest = rest[len(head) :].lstrip()
    if rest:
        parts[-1] = f"{parts[-1].encode()[: MOST_TEXT - 3].decode('utf-8', 'ignore')}…"
    return tuple(parts)


class IrcSession:
    """One connection. Feed it what comes with `receive`; send what it returns.

    Args:
        nick: wanted; another is taken where it is in use.
        channel: to join.
        user: the account of SASL; empty for none.
        password: of the account or the server; empty for none.
    """

    def __init__(self, nick: str, channel: str, *, user: str = "", password: str = "") -> None:
        self.state: IrcState = "begun"
        #: Why the session failed, or why the last message was not taken.
        self.problem = ""
        self.not_sent = ""
        #: The last token that came back.
        self.pong = ""
        self.nick = nick
        self._wanted = nick
        self._tries = 0
        self._channel = channel
        self._user = user
        self._password = password
        self._buffer = b""
        self._offers_sasl = False

    def begin(self) -> tuple[bytes, ...]:
        """Return what is sent first."""
        return (_line("CAP", "LS", "302"),)

    def without_cap(self) -> tuple[bytes, ...]:
        """Go on where the server has not answered CAP; return what to send."""
        return tuple(self._register()) if self.state == "begun" else ()

    def receive(self, data: bytes) -> tuple[bytes, ...]:
        """Take what came; return what to send."""
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        if len(self._buffer) > MOST_LINE:
            self._fail("the server sends what is not IRC")
            self._buffer = b""
        answers: list[bytes] = []
        for raw in lines:
            line = parse_irc(raw) if len(raw) <= MOST_LINE else None
            if line is not None and self.state != "failed":
                answers += self._take(line)
        return tuple(answers)

    def message(self, text: str) -> bytes:
        """Return the line that sends a part of a text to the channel."""
        self.not_sent = ""
        shown = "".join(c for c in text if c.isprintable() or c == ZERO_WIDTH_SPACE)
        return _line("PRIVMSG", self._channel, f":{shown}")

    @staticmethod
    def ping(token: str) -> bytes:
        """Return a PING; the server answers it once it has taken what was sent before."""
        return _line("PING", f":{token}")

    @staticmethod
    def leave() -> bytes:
        """Return what ends a session."""
        return _line("QUIT", ":deploykit ends")

    # -- what comes ----------------------------------------------------------------------------------------------------

    def _take(self, line: IrcLine) -> Iterator[bytes]:
        match line.command:
            case "PING":
                yield _line("PONG", f":{_word(line.params[-1] if line.params else '')}")
            case "PONG":
                self.pong = line.params[-1] if line.params else ""
            case "ERROR":
                self._fail(f"the server ends the session: {one_line(' '.join(line.params), 120)}")
            case "KICK" if len(line.params) > 1 and line.params[1].lower() == self.nick.lower():
                self._fail(f"it was kicked out of the channel by {one_line(line.nick, 40)}")
            case "NICK" if line.nick.lower() == self.nick.lower() and line.params:
                self.nick = line.params[0]
            case command if command in _NOT_SENT and self.state == "joined":
                self.not_sent = _NOT_SENT[command]
            case "433" | "436" if self.state in ("login", "registering"):
                yield from self._another_nick("")
            case "432" | "437" if self.state in ("login", "registering"):
                yield from self._another_nick("short")
            case command if command in _REFUSALS:
                self._fail(_REFUSALS[command])
            case _:
                yield from self._log_in(line)

    def _log_in(self, line: IrcLine) -> Iterator[bytes]:
        match self.state, line.command:
            case "begun", "CAP" if len(line.params) > 2 and line.params[1].upper() == "LS":
                self._offers_sasl |= any(_is_plain(word) for word in line.params[-1].split())
                if line.params[2] != "*":  # the last line of the list
                    yield from self._register()
            case "begun", "421" | "451":  # it knows no CAP
                yield from self._register()
            case "login", "CAP" if len(line.params) > 1 and line.params[1].upper() == "ACK":
                yield _line("AUTHENTICATE", "PLAIN")
            case "login", "CAP" if len(line.params) > 1 and line.params[1].upper() == "NAK":
                self._fail("the server takes no login")
            case "login", "AUTHENTICATE":
                yield from self._credentials()
            case "login", "903":
                self.state = "registering"
                yield _line("CAP", "END")
            case "registering" | "login", "001":
                self.nick = line.params[0] if line.params else self.nick
                self.state = "joining"
                yield _line("JOIN", self._channel)
            case "joining", "JOIN" if line.nick.lower() == self.nick.lower():
                self.state = "joined"

    def _register(self) -> Iterator[bytes]:
        sasl = bool(self._offers_sasl and self._password and self._user)
        self.state = "login" if sasl else "registering"
        if sasl:
            yield _line("CAP", "REQ", ":sasl")
        elif self._password:
            yield _line("PASS", f":{self._password}")
        yield _line("NICK", self.nick)
        yield _line("USER", "deploykit", "0", "*", ":deploykit")
        if not sasl:
            yield _line("CAP", "END")

    def _credentials(self) -> Iterator[bytes]:
        text = base64.b64encode(f"\0{self._user}\0{self._password}".encode()).decode()
        for at in range(0, len(text), _SASL_PART):
            yield _line("AUTHENTICATE", text[at : at + _SASL_PART])
        if len(text) % _SASL_PART == 0:
            yield _line("AUTHENTICATE", "+")

    def _another_nick(self, how: Literal["", "short"]) -> Iterator[bytes]:
        self._tries += 1
        if self._tries > _MOST_NICKS:
            self._fail(f"the nicks {self._wanted} and others like it are in use")
            return
        if how == "short" and len(self._wanted) > _SHORT_NICK:
            self._wanted = self.nick = self._wanted[:_SHORT_NICK]
        else:
            tail = "_" if self._tries == 1 else str(self._tries)
            most = max(_SHORT_NICK, len(self._wanted)) - len(tail)
            self.nick = f"{self._wanted[:most]}{tail}"
        yield _line("NICK", self.nick)

    def _fail(self, why: str) -> None:
        self.state = "failed"
        self.problem = why


def _line(*words: str) -> bytes:
    """Return a line of a client. A line end in a word would be a second line, so none is let through."""
    text = " ".join(words).replace("\r", " ").replace("\n", " ").replace("\0", "")
    return text.encode() + b"\r\n"


def _word(text: str) -> str:
    return text[:400]


def _is_plain(word: str) -> bool:
    name, equals, mechanisms = word.partition("=")
    return name == "sasl" and (not equals or "PLAIN" in mechanisms.upper().split(","))


__all__ = ["MOST_PARTS", "MOST_TEXT", "IrcLine", "IrcSession", "IrcState", "parse_irc", "parts_of"]
