"""Which keepalives go over which connection: one with the login of `[broker]`, and one for each further login. Pure.

Rules:

* Destinations with the same login share a connection. Addresses, TLS and virtual host are those of `[broker]`.
* A login of a destination's own replaces one that stands in the broker's address.
* Without a destination that uses the login of `[broker]`, there is no connection with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

from deploykit.settings.address import Address, parse_address
from deploykit.settings.bus import BusSettings
from deploykit.settings.node import Settings


@attrs.frozen(kw_only=True, slots=True)
class KeepaliveTarget:
    """Where an empty line goes.

    Args:
        name: of `[keepalive.destinations.NAME]`; empty for one of `broker.keepalive`, or of the command line.
    """

    destination: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.destination})" if self.name else self.destination


@attrs.frozen(kw_only=True, slots=True)
class KeepaliveLogin:
    """A connection, and what is sent over it.

    Args:
        broker: its settings, without keepalives of its own.
        own: its login is not that of `[broker]`.
    """

    broker: BusSettings
    targets: tuple[KeepaliveTarget, ...]
    own: bool = False

    def __str__(self) -> str:
        return ", ".join(map(str, self.targets))


def logins_of(settings: Settings, destinations: Sequence[str] = ()) -> tuple[KeepaliveLogin, ...]:
    """Return the connections that are needed, that with the login of `[broker]` first; none without a destination.

    Args:
        settings: checked.
        destinations: instead of those that the settings list; by the login of `[broker]`.
    """
    return tuple(_logins(settings, destinations))


def _logins(settings: Settings, destinations: Sequence[str]) -> Iterator[KeepaliveLogin]:
    named = {} if destinations else settings.keepalive.destinations
    shared = [KeepaliveTarget(destination=each) for each in destinations or settings.broker.keepalive]
    shared += [KeepaliveTarget(destination=e.destination, name=name) for name, e in named.items() if not e.login]
    broker = attrs.evolve(settings.broker, keepalive=())
    if shared:
        yield KeepaliveLogin(broker=broker, targets=tuple(shared))
    own: dict[BusSettings, list[KeepaliveTarget]] = {}
    for name, each in named.items():
        if each.login:
            login = attrs.evolve(
                broker,
                address=without_credentials(parse_address(broker.address), broker.address),
                login=each.login,
                passcode=each.passcode,
                passcode_file=each.passcode_file,
                client_id="",  # that of `[broker]` may be in use
            )
            own.setdefault(login, []).append(KeepaliveTarget(destination=each.destination, name=name))
    for login, targets in own.items():
        yield KeepaliveLogin(broker=login, targets=tuple(targets), own=True)


def without_credentials(address: Address, text: str) -> str:
    """Return an address without the logins in it; `text` where there are none.

    >>> text = "failover:(stomp://ada:canary@a,stomp://b:7000)?randomize=false&timeout=2500"
    >>> without_credentials(parse_address(text), text)
    'failover:(stomp://a:61613,stomp://b:7000)?randomize=false&timeout=2500'
    """
    if not any(broker.login or broker.passcode for broker in address.brokers):
        return text
    options = text.rpartition(")")[2].partition("?")[2]
    return f"failover:({','.join(map(str, address.brokers))})" + (f"?{options}" if options else "")


__all__ = ["KeepaliveLogin", "KeepaliveTarget", "logins_of", "without_credentials"]
