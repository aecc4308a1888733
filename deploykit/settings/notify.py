"""Where `deploykit notify` sends what: channels, and which events go to each. `[notify]`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, get_args

import attrs

from deploykit.settings.problems import below, not_a_time, too_small
from deploykit.settings.site import is_web_address

ChannelKind = Literal["irc", "matrix", "slack", "webhook", "email", "cdevents"]
#: What can be sent to a channel. `failure`: a build, deploy or rollout that went wrong, a node that refuses.
NotifyEvent = Literal["notice", "failure", "approval", "rollout", "lock", "access", "push", "build"]
_EVENTS: Final[tuple[NotifyEvent, ...]] = get_args(NotifyEvent)


@attrs.frozen(kw_only=True, slots=True)
class ChannelSettings:
    """One channel, `[notify.channels.NAME]`.

    Args:
        kind: `irc`, `matrix` (client-server API), `slack` (an incoming webhook), `webhook` (JSON, signed), `email`, or
            `cdevents` (CloudEvents over HTTP, signed).
        url: `ircs://HOST:6697/#channel`, `https://…`, or `smtp://HOST:25`, `smtps://HOST`; without a user or password.
        events: what is sent there.
        sites: patterns of sites; what belongs to no site always goes out.
        secret_file: the token of Matrix, the whole address of Slack's webhook, the key of a signed webhook
            (`whsec_…`), or the password of IRC or SMTP: one line, mode 0600 or 0640.
        user: the login's name of IRC or SMTP; the nick of IRC.
        sender, to: addresses of e-mail.
        template: how a line reads, with `{field}` of the event; empty: as it comes.
        per_minute: most messages a minute; what comes beyond is counted, and the count is sent in one line.
        ca_file: trusted instead of the system's authorities.
    """

    kind: ChannelKind
    url: str = ""
    events: tuple[NotifyEvent, ...] = ("notice", "failure", "approval")
    sites: tuple[str, ...] = ("*",)
    secret_file: Path | None = None
    user: str = ""
    sender: str = ""
    to: tuple[str, ...] = ()
    template: str = ""
    per_minute: int = 20
    ca_file: Path | None = None

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from too_small(self, {"per_minute": 1})
        if self.kind in ("matrix", "webhook", "cdevents") and not is_web_address(self.url):
            yield "url: expected https://HOST/PATH"
        if self.kind in ("matrix", "slack", "webhook", "cdevents") and self.secret_file is None:
            yield "secret_file: needed: what is not signed or authorised is not sent"
        if self.kind == "email" and not (self.sender and self.to):
            yield "sender, to: needed for e-mail"
        if not self.events:
            yield f"events: expected some of {', '.join(_EVENTS)}"


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
        if self.console and not is_web_address(self.console):
            yield "console: expected https://HOST"
        for name, channel in self.channels.items():
            yield from below(f"channels.{name}", channel.problems())


__all__ = ["ChannelKind", "ChannelSettings", "NotifyEvent", "NotifySettings"]
