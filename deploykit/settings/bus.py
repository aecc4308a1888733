"""How to reach the brokers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import AddressError, DialectError
from deploykit.messages.destinations import check_destination
from deploykit.settings.address import parse_address
from deploykit.settings.credentials import hide_credentials
from deploykit.settings.problems import LONGEST, not_a_time, too_small

#: The STOMP versions there are, newest first.
VERSIONS: Final = ("1.2", "1.1", "1.0")
_TIMES: Final = ("publish_timeout", "backoff_initial", "backoff_max", "stall_timeout", "keepalive_every")
_LEAST: Final = {"connect_timeout": 0.1, "window": 1, "window_bytes": 1, "in_flight": 1, "max_frame": 1}
_DAY: Final = 86400
_HEADERS: Final = ("login", "passcode", "vhost", "client_id")


@attrs.frozen(kw_only=True, slots=True)
class BusSettings:
    """How to reach the brokers, and how patient to be. Options in the address win over these settings.

    Args:
        address: `stomp://host:port`, `stomp+ssl://…`, or `failover:(a,b)?randomize=false`.
        login, passcode: used for every broker whose address holds none of its own.
        passcode_file: a file that holds the passcode instead, in one line, mode 0600 or 0640. It is read at each
            connect, so that a new passcode counts without a restart.
        client_id: our name at ActiveMQ, which keeps durable subscriptions by it; unique among all connections.
        versions: STOMP versions to offer.
        tls_ca: file with the certificates to trust; the system's when absent.
        tls_cert, tls_key: the client certificate, where the broker asks for one.
        tls_verify: check the broker's certificate and name. Off only for a test.
        heartbeat: seconds between beats, asked for in both directions; 0 turns them off.
        connect_timeout: for one attempt, from dialling to CONNECTED.
        login_retry: seconds for which a login that every broker refuses is tried again at the start: a broker that
            has just come up may still be loading its users. Once a login was accepted it is always tried again.
        publish_timeout: until a message must be confirmed, where the caller does not say.
        backoff_initial, backoff_max: ceiling of the first and of every pause between two rounds of attempts.
        stall_timeout: the connection is given up when receipts are owed and none came for so long.
        window, window_bytes: most messages that may wait for their receipts; beyond that `publish` waits,
            and `publish_nowait` raises `WindowFull`.
        in_flight: most messages that are written to the broker and not yet confirmed.
        max_frame: largest body that is accepted; a larger one goes to the dead letters unread.
        dead_letter: destination of messages that were given up.
        keepalive, keepalive_every: destinations that every bus sends an empty line to, and how often in seconds.
    """

    address: str = attrs.field(default="stomp://127.0.0.1:61613", repr=hide_credentials)
    login: str = attrs.field(default="", repr=False)
    passcode: str = attrs.field(default="", repr=False)
    passcode_file: Path | None = None
    client_id: str = ""
    vhost: str = "/"
    versions: tuple[str, ...] = VERSIONS
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_verify: bool = True
    heartbeat: float = 10.0
    connect_timeout: float = 10.0
    login_retry: float = 0.0
    publish_timeout: float = 30.0
    backoff_initial: float = 0.1
    backoff_max: float = 10.0
    stall_timeout: float = 60.0
    window: int = 5000
    in_flight: int = 256
    window_bytes: int = 32 * 1024 * 1024
    max_frame: int = 4 * 1024 * 1024
    dead_letter: str = "/queue/deploykit.dead-letter"
    keepalive: tuple[str, ...] = ()
    keepalive_every: float = 60.0

    def at_once(self) -> BusSettings:
        """Return the settings for a command that somebody waits for: a refused login ends it at once."""
        return attrs.evolve(self, login_retry=0.0)

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each and none with a secret in it; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        try:
            parse_address(self.address)
        except AddressError as error:
            yield f"address: {error}"
        if self.passcode and self.passcode_file is not None:
            yield "passcode, passcode_file: give one of them, not both"
        if not self.versions or not set(self.versions) <= set(VERSIONS):
            yield f"versions: expected some of {', '.join(VERSIONS)}"
        if not 0 <= self.heartbeat < _DAY:
            yield f"heartbeat: expected seconds from 0 and below {_DAY}, not {self.heartbeat:g}"
        yield from too_small(self, _LEAST)
        if self.connect_timeout >= LONGEST:
            yield f"connect_timeout: expected seconds below {LONGEST:g}, not {self.connect_timeout:g}"
        if not 0 <= self.login_retry < LONGEST:
            yield f"login_retry: expected seconds from 0 and below {LONGEST:g}, not {self.login_retry:g}"
        yield from not_a_time(self, _TIMES)
        if (self.tls_cert is None) != (self.tls_key is None):
            yield "tls_cert, tls_key: give both (the same path twice where one file holds both), or neither"
        for destination in self.keepalive:
            try:
                check_destination(destination)
            except DialectError as error:
                yield f"keepalive: {error}"
        for name in _HEADERS:
            if re.search(r"[\r\n\x00]", getattr(self, name)):
                yield f"{name}: holds a line break or NUL"
