"""The brokers of a bus: in which order they are tried, how each is reached, and how long to pause between rounds.

Rules:

* the list is walked from the broker after the one that was lost last, unless the address says `randomize=false`: then
  from the same place, in the order written;
* each broker's addresses are tried as `deploykit.bus.connect` has it;
* the pause after a whole list failed grows, with jitter;
* a login that every broker refuses is tried again for `login_retry` seconds from the first attempt.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from deploykit.bus.certificates import Certificates
from deploykit.bus.connect import Connector
from deploykit.bus.passcode import with_passcode
from deploykit.bus.poller import Poller
from deploykit.bus.stomp.handshake import credentials
from deploykit.errors import ConnectError, LoginRefused, SettingsError
from deploykit.settings.address import Address, Broker
from deploykit.settings.bus import BusSettings
from deploykit.system.backoff import Backoff

if TYPE_CHECKING:
    from deploykit.bus.stomp.connection import Connection

#: Seconds of the shortest pause between two rounds: brokers that refuse at once are not hammered.
_SHORTEST_PAUSE: Final = 0.02


class MakeConnection(Protocol):
    """Makes a connection to a broker over a socket; it is not logged in yet."""

    def __call__(
        self, broker: Broker, settings: BusSettings, sock: socket.socket, *, escape_login: bool
    ) -> Connection: ...


class BrokerList:
    """Which broker is next, and the way to each.

    Args:
        settings, address, certificates: where to connect, and how.
        poller: waits; what it raises ends an attempt.
        make_connection: makes a `Connection`.
    """

    def __init__(
        self,
        settings: BusSettings,
        address: Address,
        certificates: Certificates | None,
        poller: Poller,
        make_connection: MakeConnection,
    ) -> None:
        self._settings = settings
        self._make_connection = make_connection
        self._brokers = list(address.brokers)
        if address.randomize is not False:
            random.shuffle(self._brokers)
        self._connectors = {broker: Connector(broker, certificates, poller) for broker in self._brokers}
        self._backoff = Backoff(
            initial=settings.backoff_initial if address.backoff_initial is None else address.backoff_initial,
            maximum=settings.backoff_max if address.backoff_max is None else address.backoff_max,
            multiplier=address.backoff_multiplier or 2.0,
            minimum=_SHORTEST_PAUSE,
        )
        self._connect_timeout = address.connect_timeout or settings.connect_timeout
        self._refusals_until: float | None = None

    def __iter__(self) -> Iterator[Broker]:
        if self._refusals_until is None:
            self._refusals_until = monotonic() + self._settings.login_retry
        return iter(list(self._brokers))

    def given_up(self, problems: Sequence[ConnectError]) -> LoginRefused | None:
        """Return why trying again makes no sense after a round: every broker refused the login, for long enough.

        Args:
            problems: of each broker in this round. None of them, nor any other, ever accepted the login.
        """
        last = problems[-1] if problems and all(isinstance(one, LoginRefused) for one in problems) else None
        over = self._refusals_until is not None and monotonic() >= self._refusals_until
        return last if over and isinstance(last, LoginRefused) else None

    def pause(self, rounds: int) -> float:
        """Return the seconds to wait after so many rounds without a connection that lasted."""
        return self._backoff.pause(rounds, random.random())  # noqa: S311 - no secret

    def begin_like(self, other: BrokerList, broker: Broker) -> None:
        """Begin with the address of `broker` that `other` is connected to."""
        self._connectors[broker].begin_like(other._connectors[broker])

    def connected(self, broker: Broker) -> None:
        """Take note of a connection: next time the broker after it is the first, for this one may just have died."""
        self._brokers.append(self._brokers.pop(self._brokers.index(broker)))

    def ended(self, broker: Broker, *, at_once: bool) -> None:
        """Take note of the end of a connection; `at_once`: it did not last."""
        self._connectors[broker].ended(at_once=at_once)

    def open(self, broker: Broker) -> Connection:
        """Return a connection that is logged in; where a backslash in the login was refused, try it unescaped.

        Raises:
            ConnectError: the broker cannot be reached, or refused us.
            OSError, RuntimeError: this process has no descriptor or thread left.
            Interrupted: the bus is being closed.
        """
        connector, greeted = self._connectors[broker], False
        try:
            settings = with_passcode(self._settings)  # read for each connection: the file may have changed
        except SettingsError as error:
            raise ConnectError(f"{broker}: {error.problem}", error.remedy) from None

        def greet(sock: socket.socket, deadline: float, *, escape_login: bool = True) -> Connection:
            nonlocal greeted
            greeted = True
            connection = self._make_connection(broker, settings, sock, escape_login=escape_login)
            try:
                connection.open(deadline)
            except BaseException:
                connection.close()
                raise
            return connection

        try:
            connection = connector.reach(self._connect_timeout, greet)
        except ConnectError:
            if not greeted or "\\" not in "".join(credentials(broker, settings)):
                raise
            connection = connector.reach(self._connect_timeout, partial(greet, escape_login=False))
        connection.passed_over = connector.passed_over
        return connection
