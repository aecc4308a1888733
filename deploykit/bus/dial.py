"""From a broker's address to a connected socket, TLS included, within one deadline.

Rules: nothing here can hang: name look-up, connect and TLS handshake share the deadline and end at once when the bus
is closed. Certificates are verified against the host name unless the settings say otherwise in so many words. The
socket that comes out is non-blocking; it notices a dead peer by TCP means too.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import ssl
import threading
from time import monotonic
from typing import Any, Final

from deploykit.bus.address import Broker
from deploykit.bus.waiter import READ, WRITE, Waiter
from deploykit.errors import ConnectError, SettingsError
from deploykit.settings import BusSettings

logger = logging.getLogger(__name__)

_IN_PROGRESS: Final = {errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN}


def tls_context(settings: BusSettings) -> ssl.SSLContext:
    """Make the TLS context of these settings.

    Raises:
        SettingsError: a certificate or key file cannot be read or does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not settings.tls_verify:
        logger.warning("the brokers' certificates are not verified: tls_verify is off")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if settings.tls_ca is not None:
            context.load_verify_locations(cafile=str(settings.tls_ca))
        elif settings.tls_verify:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    except OSError as error:  # SSLError is one
        raise SettingsError(
            f"tls_ca: {settings.tls_ca} cannot be used: {_reason(error)}", "name a PEM file of certificates"
        ) from None
    if settings.tls_cert is not None:
        try:
            # An empty password instead of None: OpenSSL would ask for it on the terminal otherwise.
            context.load_cert_chain(str(settings.tls_cert), settings.tls_key and str(settings.tls_key), password="")
        except OSError as error:
            raise SettingsError(
                f"tls_cert, tls_key: {settings.tls_cert} cannot be used: {_reason(error)}",
                "name a PEM certificate and its unencrypted key",
            ) from None
    return context


def dial(broker: Broker, context: ssl.SSLContext | None, waiter: Waiter, deadline: float) -> socket.socket:
    """Connect to one broker; try each of its addresses.

    Args:
        context: for TLS; None for a plain broker.
        deadline: monotonic time.

    Raises:
        ConnectError: not reached in time, refused, or TLS failed. The text names the broker and the way out.
        Interrupted: the bus is being closed.
    """
    problem: ConnectError | None = None
    for family, address in _addresses(broker, waiter, deadline):
        try:
            return _connect(broker, family, address, context, waiter, deadline)
        except ConnectError as error:
            problem = error
    raise problem or ConnectError(f"{broker}: the name has no address", "check the host name")


def _addresses(broker: Broker, waiter: Waiter, deadline: float) -> list[tuple[int, Any]]:
    with contextlib.suppress(ValueError):
        # An address needs no look-up, and so no thread; but its zone has to be looked up.
        ip = ipaddress.ip_address("" if "%" in broker.host else broker.host)
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        return [(family, (broker.host, broker.port))]
    found: list[tuple[int, Any]] = []
    failed: list[OSError] = []
    done = threading.Event()

    def look_up() -> None:
        try:
            for family, _, _, _, address in socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM):
                found.append((family, address))
        except (OSError, UnicodeError) as error:
            failed.append(error if isinstance(error, OSError) else OSError(str(error)))
        finally:
            done.set()
            waiter.wake()

    # getaddrinfo cannot be given a time limit: it gets a thread that we can leave behind.
    threading.Thread(target=look_up, name="deploykit-bus-resolver", daemon=True).start()
    while not done.is_set():
        waiter.poll_once(None, 0, min(deadline, monotonic() + 0.25), done.is_set)
        waiter.check()
        if monotonic() >= deadline and not done.is_set():
            raise ConnectError(f"{broker}: looking up its name took too long", "check the name server")
    if failed:
        raise ConnectError(f"{broker}: {failed[0].strerror or failed[0]}", "check the host name")
    return found


def _connect(
    broker: Broker, family: int, address: Any, context: ssl.SSLContext | None, waiter: Waiter, deadline: float
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    fd = sock.fileno()
    try:
        sock.setblocking(False)
        _options(sock)
        code = sock.connect_ex(address)
        if code in _IN_PROGRESS:
            if not waiter.wait_for(fd, WRITE, deadline):
                raise ConnectError(f"{broker}: no connection in time", "is the host up, and no firewall in between?")
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            hint = "is the broker running?" if code == errno.ECONNREFUSED else "check host, port and firewall"
            raise ConnectError(f"{broker}: {os.strerror(code)}", hint)
        if context is None:
            return sock
        waiter.forget(fd)
        return _handshake(broker, sock, context, waiter, deadline)
    except OSError as error:
        waiter.forget(fd)
        sock.close()
        raise ConnectError(f"{broker}: {_reason(error)}", "check host, port and firewall") from None
    except BaseException:
        waiter.forget(fd)
        sock.close()
        raise


def _options(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _handshake(
    broker: Broker, raw: socket.socket, context: ssl.SSLContext, waiter: Waiter, deadline: float
) -> ssl.SSLSocket:
    sock = context.wrap_socket(raw, server_hostname=broker.host, do_handshake_on_connect=False)
    try:
        while True:
            try:
                sock.do_handshake()
            except ssl.SSLWantReadError:
                mask = READ
            except ssl.SSLWantWriteError:
                mask = WRITE
            else:
                return sock
            if not waiter.wait_for(sock.fileno(), mask, deadline):
                raise ConnectError(f"{broker}: no TLS handshake in time", "is this the broker's TLS port?")
    except ssl.SSLCertVerificationError as error:
        _abandon(sock, waiter)
        raise ConnectError(
            f"{broker}: its certificate is not accepted: {error.verify_message}",
            "set tls_ca to the CA that signed it; the address must name the host as the certificate does",
        ) from None
    except OSError as error:
        _abandon(sock, waiter)
        raise ConnectError(
            f"{broker}: TLS failed: {_reason(error)}",
            "is this the broker's TLS port? does it want a client certificate (tls_cert, tls_key)?",
        ) from None
    except BaseException:
        _abandon(sock, waiter)
        raise


def _abandon(sock: socket.socket, waiter: Waiter) -> None:
    waiter.forget(sock.fileno())
    sock.close()


def _reason(error: OSError) -> str:
    """Say what went wrong, without the OpenSSL source line."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return (error.strerror or str(error) or type(error).__name__).lower()
