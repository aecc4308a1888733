"""Where `deploykit notify` sends what: channels, and which events go to each. `[notify]`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from string import Formatter
from typing import Final, Literal, get_args
from urllib.parse import SplitResult, urlsplit

import attrs

from deploykit.settings.problems import below, not_a_time, too_large, too_small
from deploykit.settings.site import is_web_address

ChannelKind = Literal["irc", "matrix", "slack", "webhook", "email", "cdevents"]
#: What can be sent to a channel. `failure`: a build, deploy or rollout that went wrong, a node that refuses.
NotifyEvent = Literal["notice", "failure", "approval", "rollout", "lock", "access", "push", "build"]
_EVENTS: Final[tuple[NotifyEvent, ...]] = get_args(NotifyEvent)
#: What a template may name. `line`: the line as it comes; `event`: the kind of event; `standing`: whether the message
#: is verified, unsigned or not verified; the others are empty where the event has no such thing.
TEMPLATE_FIELDS: Final = (
    *("line", "event", "standing", "signer", "source", "time", "link"),
    *("site", "repo", "ref", "commit", "node", "rollout", "state", "who", "reason"),
)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z").match
_CHANNEL: Final = re.compile(r"[#&+][^\x00-\x20,\x07:]{1,63}\Z").match
_ROOM: Final = re.compile(r"![\x21-\x7e]{1,254}\Z").match
_ADDRESS: Final = re.compile(
    r"(?!\.)(?!.*\.[.@])[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?\Z"
).match
_NICK: Final = re.compile(r"[A-Za-z\[\]\\`_^{|}][A-Za-z0-9\[\]\\`_^{|}-]{0,29}\Z").match
_SECRET_NEEDED: Final = ("matrix", "slack", "webhook", "cdevents")


def is_loopback(host: str) -> bool:
    """Return whether a host of an address is this machine: what goes there needs no TLS.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("chat.example.org")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@attrs.frozen(kw_only=True, slots=True)
class ChannelSettings:
    """One channel, `[notify.channels.NAME]`.

    Args:
        kind: `irc`, `matrix` (client-server API), `slack` (an incoming webhook), `webhook` (JSON, signed), `email`, or
            `cdevents` (CloudEvents over HTTP, signed).
        url: `ircs://HOST:6697/#channel`, `https://…`, or `smtp://HOST:25`, `smtps://HOST`; without a user or password.
            Without TLS only this machine is written to. Empty for `slack`, whose address is a secret.
        events: what is sent there.
        sites: patterns of sites; what belongs to no site always goes out.
        secret_file: the token of Matrix, the whole address of Slack's webhook, the key of a signed webhook
            (`whsec_…`), or the password of IRC or SMTP: one line, mode 0600 or 0640.
        user: the login's name of IRC or SMTP; the nick of IRC.
        room: of Matrix: the room's id, `!abc:example.org`.
        sender, to: addresses of e-mail.
        digest: of e-mail: seconds for which lines are gathered into one mail.
        template: how a line reads, with `{field}` of the event (`TEMPLATE_FIELDS`); empty: as it comes.
        per_minute: most messages a minute; what comes beyond is counted, and the count is sent in one line.
        ca_file: trusted instead of the system's authorities.
    """

    kind: ChannelKind
    url: str = ""
    events: tuple[NotifyEvent, ...] = ("notice", "failure", "approval")
    sites: tuple[str, ...] = ("*",)
    secret_file: Path | None = None
    user: str = ""
    room: str = ""
    sender: str = ""
    to: tuple[str, ...] = ()
    digest: float = 60.0
    template: str = ""
    per_minute: int = 20
    ca_file: Path | None = None

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from too_small(self, {"per_minute": 1})
        yield from too_large(self, {"per_minute": 6000, "digest": 3600})
        yield from not_a_time(self, ("digest",))
        yield from self._url()
        yield from self._fields()
        if self.kind in _SECRET_NEEDED and self.secret_file is None:
            yield "secret_file: needed: what is not signed or authorised is not sent"
        if self.kind == "email" and self.user and self.secret_file is None:
            yield "secret_file: needed: the password of user"
        if not self.events:
            yield f"events: expected some of {', '.join(_EVENTS)}"
        if not all(self.sites) or not self.sites:
            yield 'sites: expected patterns, e.g. "shop-*"'
        yield from template_problems(self.template)

    def _url(self) -> Iterator[str]:
        match self.kind:
            case "slack":
                if self.url:
                    yield "url: leave it empty: the whole address is a secret and stands in secret_file"
            case "irc":
                parts = _split(self.url)
                if not parts or parts.scheme not in ("irc", "ircs") or not _CHANNEL(irc_channel(self.url)):
                    yield "url: expected ircs://HOST:6697/#channel"
                elif parts.scheme == "irc" and not is_loopback(parts.hostname or ""):
                    yield "url: expected ircs://…: without TLS only this machine is written to"
            case "email":
                parts = _split(self.url)
                if not parts or parts.scheme not in ("smtp", "smtps") or parts.path.strip("/") or parts.fragment:
                    yield "url: expected smtp://HOST:25 or smtps://HOST"
            case _:
                yield from (f"url: {problem}" for problem in web_url_problems(self.url))

    def _fields(self) -> Iterator[str]:
        if self.kind == "matrix" and not _ROOM(self.room):
            yield "room: expected the room's id, e.g. !abc:example.org (the client shows it under the room's settings)"
        if self.kind == "irc" and self.user and not _NICK(self.user):
            yield f"user: expected a nick, not {self.user[:60]!a}"
        if self.kind == "email":
            if not (self.sender and self.to):
                yield "sender, to: needed for e-mail"
            for name, addresses in (("sender", (self.sender,)), ("to", self.to)):
                for address in addresses:
                    if address and not _ADDRESS(address):
                        yield f"{name}: expected an address, e.g. ops@example.org, not {address[:60]!a}"


@attrs.frozen(kw_only=True, slots=True)
class NotifySettings:
    """What is sent, and where.

    Args:
        channels: by name.
        console: where the web console is, `https://deploy.example.org`: lines then carry a link; empty for none.
        keep: seconds for which a message waits for a channel that is away.
    """

    channels: Mapping[str, ChannelSettings] = attrs.field(factory=dict)
    console: str = ""
    keep: float = 3600.0

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from not_a_time(self, ("keep",))
        if self.console and (not is_web_address(self.console) or not self.console.isprintable() or " " in self.console):
            yield "console: expected https://HOST"
        for name, channel in self.channels.items():
            if not _NAME(name):
                yield f"channels.{name[:60]!a}: expected a name of letters, digits, dots, dashes and underscores"
            yield from below(f"channels.{name}", channel.problems())


def web_url_problems(url: str) -> Iterator[str]:
    """Return what is wrong with an address that is posted to; no line holds the address, which may be a secret."""
    parts = _split(url)
    if not parts or not is_web_address(url) or parts.fragment:
        yield "expected https://HOST/PATH, without a user or password"
    elif parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield "expected https://…: without TLS only this machine is written to"


def irc_channel(url: str) -> str:
    """Return the channel that an address of IRC names; empty for none.

    >>> irc_channel("ircs://irc.example.org:6697/#deploys"), irc_channel("ircs://irc.example.org/deploys")
    ('#deploys', '#deploys')
    """
    parts = urlsplit(url)
    name = parts.path.strip("/") or (f"#{parts.fragment}" if parts.fragment else "")
    return name if not name or name[0] in "#&+" else f"#{name}"


def template_problems(template: str) -> Iterator[str]:
    """Return what is wrong with a template of a line."""
    known = ", ".join(TEMPLATE_FIELDS)
    if not template.isprintable():
        yield "template: expected one line"
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        yield "template: a brace without its other one; write {{ and }} for a brace"
        return
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if name not in TEMPLATE_FIELDS:
            yield f"template: unknown field {name[:60]!a}; there are {known}"
        elif form or conversion:
            yield f"template: {name}: write {{{name}}} and nothing more inside the braces"


def _split(url: str) -> SplitResult | None:
    """Return the parts of an address with a host and without a user or password; None for any other text."""
    try:
        parts = urlsplit(url)
        usable = parts.hostname and parts.port != 0 and "@" not in parts.netloc and "?" not in url.partition("://")[0]
    except ValueError:  # the port, or the brackets
        return None
    return parts if usable and url.isprintable() and url.isascii() and " " not in url else None


__all__ = [
    "TEMPLATE_FIELDS",
    "ChannelKind",
    "ChannelSettings",
    "NotifyEvent",
    "NotifySettings",
    "irc_channel",
    "is_loopback",
    "template_problems",
    "web_url_problems",
]
