"""From a broker's name to a connection that is logged in, within one deadline.

Rules:

* nothing here can hang: name look-up, connect, TLS and log-in share the deadline, and end when the bus is closed;
* a name's addresses share it too (see `hosts`): one that does not answer the SYN delays the next for a moment only;
* one that accepts and then is silent has half of what is left, at least a second, so that the others have their turn;
* the next attempt begins with another address than the one that failed;
* certificates are verified against the host name unless `tls_verify` is off;
* the socket that comes out is non-blocking, and notices a dead peer by TCP keepalive too.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Callable
from time import monotonic
from typing import Final, TypeVar

from deploykit.bus.certificates import Certificates, tls_reason
from deploykit.bus.poller import READ, WRITE, Poller
from deploykit.errors import ClientIdInUse, ConnectError, LoginRefused
from deploykit.settings.address import Broker
from deploykit.system.hosts import (
    MOST_ADDRESSES,
    STAGGER,
    AddressOrder,
    ConnectionRace,
    HostAddress,
    NameLookup,
    describe_problems,
    literal,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds that an address that accepted has for TLS and log-in, at least.
_LEAST_SHARE: Final = 1.0
#: Seconds for fetching a certificate that did not pass, to show its names, at most.
_ASK_AGAIN: Final = 2.0
_NETWORK: Final = "check host, port and firewall"


class Connector:
    """The way to one broker. It lives as long as the bus, and remembers which addresses failed.

    Args:
        certificates: for TLS; None for a plain broker.
    """

    def __init__(self, broker: Broker, certificates: Certificates | None, poller: Poller) -> None:
        self._broker = broker
        self._certificates = certificates
        self._poller = poller
        self._order = AddressOrder()
        self._search: NameLookup | None = None
        self._used: HostAddress | None = None
        #: Which addresses failed before one accepted us at the last attempt, and how; empty when none.
        self.passed_over = ""

    def reach(self, seconds: float, greet: Callable[[socket.socket, float], T]) -> T:
        """Connect to each address until `greet` returns; return what it returned.

        Args:
            seconds: for all of it.
            greet: logs in. Takes a connected socket, which is its own from then on, and the monotonic time until which
                it may take; raises `ConnectError`.

        Raises:
            ConnectError: no address accepted us (`LoginRefused`: all refused the login). The text names the broker,
                what each address did, and the way out.
            Interrupted: the bus is being closed.
        """
        deadline = monotonic() + seconds
        addresses = self._order.order(self._addresses(deadline))[:MOST_ADDRESSES]
        context = self._certificates.context() if self._certificates else None
        failed: dict[HostAddress, ConnectError] = {}
        with ConnectionRace(addresses, deadline - monotonic()) as race:
            while (found := self._next_connected(race, deadline)) is not None:
                address, sock = found
                left = deadline - monotonic()
                share = deadline if not race.left else monotonic() + max(left / 2, min(left, _LEAST_SHARE))
                try:
                    taken = greet(sock if context is None else self._secure(address, sock, context, share), share)
                except ConnectError as error:
                    failed[address] = self._explained(error)
                else:
                    self._take_note(race, failed, least=STAGGER)
                    for other in failed:
                        self._order.failed(other)
                    self._used = address
                    self.passed_over = describe_problems(self._reasons(failed))
                    if failed:
                        logger.info("%s: reached at %s, after %s", self._broker, address, self.passed_over)
                    return taken
            self._take_note(race, failed)
            for address in race.not_begun():
                failed[address] = ConnectError("no time was left for it")
        self._order.all_failed(addresses)
        raise self._problem(failed)

    def begin_like(self, other: Connector) -> None:
        """Begin with the address that `other` is connected to, and know the ones that failed it."""
        self._order = other._order.copy()

    def ended(self, *, at_once: bool) -> None:
        """Take note of the end of a connection: an address that dropped us at once is not tried first."""
        if self._used is not None:
            (self._order.dropped if at_once else self._order.worked)(self._used)

    # -- the addresses -----------------------------------------------------------------------------------------

    def _addresses(self, deadline: float) -> list[HostAddress]:
        broker, poller = self._broker, self._poller
        own = literal(broker.host, broker.port)
        if own is not None:
            return [own]
        # A look-up that hangs is waited for again; no second one is begun beside it.
        search = self._search = self._search or NameLookup(broker.host, broker.port, poller.wake)
        while not search.done.is_set():
            poller.poll_once(None, 0, min(deadline, monotonic() + 0.25), search.done.is_set)
            poller.check()
            if monotonic() >= deadline and not search.done.is_set():
                raise ConnectError(f"{broker}: looking up its name took too long", "check the name server")
        self._search = None
        try:
            found = search.result()
        except OSError as error:
            raise ConnectError(f"{broker}: {error.strerror or error}", "check the host name") from None
        if not found:
            raise ConnectError(f"{broker}: the name has no address", "check the host name")
        return found

    def _next_connected(self, race: ConnectionRace, deadline: float) -> tuple[HostAddress, socket.socket] | None:
        poller, fd = self._poller, race.fileno()
        try:
            while race.left:
                now = monotonic()
                found = race.advance(now)
                if found is not None:
                    found[1].setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                    return found
                if now >= deadline or not race.left:
                    break
                poller.wait_for(fd, READ, min(race.due, deadline))
            return None
        finally:
            poller.forget(fd)

    def _take_note(self, race: ConnectionRace, failed: dict[HostAddress, ConnectError], *, least: float = 0.0) -> None:
        """Add to `failed` what became of those that never were connected.

        Args:
            least: seconds without an answer; an address that was tried later than that did not have its chance.
        """
        for address, error in race.problems.items():
            refused = error.errno == errno.ECONNREFUSED
            failed[address] = ConnectError(
                error.strerror or str(error), "is the broker running?" if refused else _NETWORK
            )
        for address, seconds in race.unanswered(monotonic()).items():
            if seconds >= least:
                failed[address] = ConnectError(
                    f"no connection in {seconds:.1f} s", "is the host up, and no firewall in between?"
                )

    def _reasons(self, failed: dict[HostAddress, ConnectError]) -> dict[HostAddress, str]:
        return {address: error.problem.removeprefix(f"{self._broker}: ") for address, error in failed.items()}

    def _explained(self, error: ConnectError) -> ConnectError:
        """Add what is wrong with our certificate where a TLS alert says that it is the obstacle, at log-in too."""
        known = self._certificates.not_taken(error.problem) if self._certificates else ""
        return ConnectError(f"{error.problem}{known}", "renew tls_cert and tls_key, or set them") if known else error

    def _problem(self, failed: dict[HostAddress, ConnectError]) -> ConnectError:
        reasons, errors = self._reasons(failed), list(failed.values())
        # An address that answered tells more than one that was never connected.
        nearest = next((error for error in errors if isinstance(error, ClientIdInUse | LoginRefused)), errors[0])
        # The login is refused where every address refuses it; the client id is in use where any says so.
        every = isinstance(nearest, ClientIdInUse) or all(isinstance(error, LoginRefused) for error in errors)
        kind = type(nearest) if every else ConnectError
        only = next(iter(reasons.values())) if literal(self._broker.host, 0) else describe_problems(reasons)
        return kind(f"{self._broker}: {only}", nearest.remedy)

    # -- TLS ---------------------------------------------------------------------------------------------------

    def _secure(
        self, address: HostAddress, raw: socket.socket, context: ssl.SSLContext, deadline: float
    ) -> ssl.SSLSocket:
        certificates = self._certificates
        try:
            return self._handshake(raw, context, deadline)
        except ssl.SSLCertVerificationError as error:
            known = certificates.not_accepted(self._certificate_at(address, deadline)) if certificates else ""
            raise ConnectError(
                f"its certificate is not accepted: {error.verify_message}{known}",
                "set tls_ca to the CA that signed it; the address must name the host as the certificate does",
            ) from None
        except OSError as error:
            raise ConnectError(
                f"TLS failed: {tls_reason(error)}",
                "is this the broker's TLS port? does it want a client certificate (tls_cert, tls_key)?",
            ) from None

    def _handshake(self, raw: socket.socket, context: ssl.SSLContext, deadline: float) -> ssl.SSLSocket:
        sock, poller = raw, self._poller
        try:
            sock = tls = context.wrap_socket(raw, server_hostname=self._broker.host, do_handshake_on_connect=False)
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    mask = READ
                except ssl.SSLWantWriteError:
                    mask = WRITE
                else:
                    return tls
                if not poller.wait_for(tls.fileno(), mask, deadline):
                    raise ConnectError("no TLS handshake in time", "is this the broker's TLS port?")
        except BaseException:
            if sock.fileno() >= 0:
                poller.forget(sock.fileno())
            sock.close()
            raise

    def _certificate_at(self, address: HostAddress, deadline: float) -> bytes | None:
        """Return the certificate that did not pass, fetched once more without trust; nothing is sent."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        deadline = min(deadline, monotonic() + _ASK_AGAIN)
        with contextlib.suppress(OSError, ConnectError), ConnectionRace([address], deadline - monotonic()) as race:
            found = self._next_connected(race, deadline)
            if found is not None:
                with self._handshake(found[1], context, deadline) as tls:
                    self._poller.forget(tls.fileno())
                    return tls.getpeercert(binary_form=True)
        return None
