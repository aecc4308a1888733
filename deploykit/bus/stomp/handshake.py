"""CONNECT, and what its answer agrees on. Pure: frames in, values out.

Rules:

* credentials go into CONNECT and nowhere else;
* a broker's text is shown as one printable line without them (`reason`);
* a version that was not offered is refused.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from deploykit.bus.stomp import heartbeat
from deploykit.bus.stomp.dialect import Dialect, recognise
from deploykit.bus.stomp.frames import Escaping, Received, escaping
from deploykit.bus.stomp.reason import clean, reason_of, without
from deploykit.errors import ClientIdInUse, ConnectError, LoginRefused
from deploykit.settings.address import Broker
from deploykit.settings.bus import BusSettings

_LOGIN_WORDS: Final = re.compile(
    r"access.refused|password|passcode|login|authenti|credential|not authorized", re.IGNORECASE
)
_VHOST_WORDS: Final = re.compile(r"\bv(irtual |irtual-)?host\b", re.IGNORECASE)


@attrs.frozen(kw_only=True, slots=True)
class Agreement:
    """What both sides keep to after CONNECTED."""

    version: str
    server: str
    dialect: Dialect
    rule: Escaping
    beats: heartbeat.HeartbeatMonitor


def credentials(broker: Broker, settings: BusSettings) -> tuple[str, str]:
    """Login and passcode for one broker: its own, or those of the settings."""
    login = broker.login or settings.login
    passcode = broker.passcode if broker.login else broker.passcode or settings.passcode
    return login, passcode


def connect_headers(broker: Broker, settings: BusSettings, *, client_id: str, escape_login: bool) -> dict[str, str]:
    """Write CONNECT's headers.

    It is not escaped on any version, so says the specification (STOMP 1.2, "Value Encoding"); RabbitMQ and ActiveMQ
    undo escapes in it all the same. A backslash in the credentials is therefore tried both ways (`escape_login`).
    """
    login, passcode = credentials(broker, settings)
    if escape_login:
        login, passcode = login.replace("\\", "\\\\"), passcode.replace("\\", "\\\\")
    headers = {
        "accept-version": ",".join(sorted(settings.versions)),
        "host": settings.vhost,
        "heart-beat": heartbeat.offer(settings.heartbeat),
    }
    more = {"login": login, "passcode": passcode, "client-id": client_id}
    return headers | {name: value for name, value in more.items() if value}


def agree(answer: Received, broker: Broker, settings: BusSettings) -> Agreement:
    """Return what the answer to CONNECT agrees on.

    Raises:
        LoginRefused: the login was refused.
        ConnectError: refused for another reason, or a version that was not offered.
    """
    if answer.command == "ERROR":
        raise _refusal(answer, broker, settings)
    version = answer.headers.get("version", "1.0")
    if version not in settings.versions:
        raise ConnectError(
            f"{broker}: it speaks STOMP {version[:10]!a}, which was not offered",
            f"offered: {', '.join(settings.versions)}",
        )
    dialect = recognise(answer.headers.get("server"))
    always_out, always_in = dialect.escapes_always
    return Agreement(
        version=version,
        server=clean(without(answer.headers.get("server", ""), (broker.passcode, settings.passcode), least=4), 80),
        dialect=dialect,
        rule=escaping(version, always_in=always_in, always_out=always_out),
        beats=heartbeat.negotiate(settings.heartbeat, answer.headers.get("heart-beat"), gap=dialect.beat_gap),
    )


def _refusal(answer: Received, broker: Broker, settings: BusSettings) -> ConnectError:
    shown, raw = redacted(answer, broker, settings), reason_of(answer, ())
    if "already connected" in shown:
        return ClientIdInUse(
            f"{broker}: it refused CONNECT: {shown}",
            "another connection has this client_id; after a crash it takes the broker a while to notice",
        )
    if _VHOST_WORDS.search(raw):
        return LoginRefused(
            f"{broker}: it refused the login: {shown}", "check vhost, and what this login may do in it at the broker"
        )
    if _LOGIN_WORDS.search(raw):
        return LoginRefused(f"{broker}: it refused the login: {shown}", "check login, passcode and vhost")
    return ConnectError(f"{broker}: it refused CONNECT: {shown}", "look at the broker's log")


def redacted(frame: Received, broker: Broker, settings: BusSettings) -> str:
    """Return what may be shown of an ERROR: the broker's reason in one line, without our credentials."""
    return reason_of(frame, (broker.passcode, settings.passcode))
