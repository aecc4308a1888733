"""The certificates of a bus: the TLS context, made again when a file has changed, and the names in certificates.

Rules:

* files are looked at before each connection, and a connection that is up is not touched;
* certificates that cannot be used replace nothing, for a renewal may be half done;
* no private key is ever shown.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploykit.bus.stomp.reason import clean
from deploykit.errors import SettingsError
from deploykit.settings.bus import BusSettings

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

logger = logging.getLogger(__name__)

_MOST_NAMED: Final = 3
_MOST_BYTES: Final = 1 << 20
#: TLS alerts by which brokers refuse our certificate, or ask for one.
_REFUSED: Final = re.compile(r"alert.*(certificate|unknown ca|access denied|handshake failure)")

Stamp = tuple[int, ...] | None


def tls_context(settings: BusSettings) -> ssl.SSLContext:
    """Return a TLS context for these settings.

    Raises:
        SettingsError: a certificate or key file cannot be read or does not fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    try:
        if settings.tls_ca is not None:
            context.load_verify_locations(cafile=str(settings.tls_ca))
        elif settings.tls_verify:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    except OSError as error:  # SSLError is one
        raise SettingsError(
            f"tls_ca: {settings.tls_ca} cannot be used: {tls_reason(error)}", "name a PEM file of certificates"
        ) from None
    if settings.tls_cert is not None:
        try:
            # An empty password instead of None: OpenSSL would ask for it on the terminal otherwise.
            context.load_cert_chain(str(settings.tls_cert), settings.tls_key and str(settings.tls_key), password="")
        except OSError as error:
            raise SettingsError(
                f"tls_cert, tls_key: {settings.tls_cert} cannot be used: {tls_reason(error)}",
                "name a PEM certificate and its unencrypted key",
            ) from None
    return context


def tls_reason(error: OSError) -> str:
    """Return what went wrong, without the OpenSSL source line."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return (error.strerror or str(error) or type(error).__name__).lower()


def unread_alert(sock: socket.socket, error: OSError) -> OSError:
    """Return the TLS alert that the broker sent before it hung up, where one is unread; else `error`."""
    if isinstance(sock, ssl.SSLSocket):
        try:
            sock.recv(1)
        except ssl.SSLError as alert:
            if "ALERT" in (alert.reason or ""):
                return alert
        except OSError:
            pass
    return error


class Certificates:
    """The TLS context of a bus's settings, as the files are now.

    Raises:
        SettingsError: a certificate or key file cannot be read or does not fit.
    """

    def __init__(self, settings: BusSettings) -> None:
        if not settings.tls_verify:
            logger.warning("the brokers' certificates are not verified: tls_verify is off")
        self._settings = settings
        self._stamps = self._look()
        self._context = tls_context(settings)
        self._logged = ""

    def context(self) -> ssl.SSLContext:
        """Return the context for the next connection, made again if a file has changed. The old one stays on error."""
        stamps = self._look()  # before the files are read: what changes in between shows the next time
        if stamps == self._stamps:
            return self._context
        try:
            context = tls_context(self._settings)
        except SettingsError as error:
            self._log_problem(str(error))
            return self._context
        changed = [str(path) for path, stamp in stamps.items() if stamp != self._stamps.get(path)]
        logger.info("certificates read again: %s", ", ".join(changed))
        self._context, self._stamps, self._logged = context, stamps, ""
        return context

    def _log_problem(self, problem: str) -> None:
        if problem != self._logged:  # once, and not at each attempt
            self._logged = problem
            logger.error("certificates not read again, the old ones stay: %s", problem)

    def not_accepted(self, der: bytes | None) -> str:
        """Return the names in a broker's certificate that did not pass, and what we trust."""
        theirs = f" ({described(der)})" if der else ""
        trusted = self._settings.tls_ca
        return f"{theirs}; tls_ca {trusted} holds {_described_file(trusted)}" if trusted is not None else theirs

    def not_taken(self, problem: str) -> str:
        """Return which certificate of ours a broker refused, where `problem` says that it did; else nothing."""
        if not _REFUSED.search(problem.lower().replace("_", " ")):
            return ""
        own = self._settings.tls_cert
        return f"; our certificate is {_described_file(own, 1)}, {own}" if own is not None else "; we have no tls_cert"

    def _look(self) -> dict[Path, Stamp]:
        settings = self._settings
        paths: Iterable[str | Path | None] = (settings.tls_ca, settings.tls_cert, settings.tls_key)
        if settings.tls_ca is None and settings.tls_verify:
            system = ssl.get_default_verify_paths()
            paths = (system.cafile, system.capath, settings.tls_cert, settings.tls_key)
        return {Path(path): _stamp(Path(path)) for path in paths if path is not None}


def described(der: bytes) -> str:
    """Return whose certificate this is, who issued it and when it ends; it comes from outside and may be anything."""
    from cryptography import x509  # here, because it takes 50 ms to load, and only an error needs it

    try:
        return _described(x509.load_der_x509_certificate(der))
    except Exception:  # noqa: BLE001 -- hostile bytes; the names are only for show
        return "which cannot be read"


def _described_file(path: Path, most: int = _MOST_NAMED) -> str:
    from cryptography import x509

    try:
        with path.open("rb") as file:
            found = x509.load_pem_x509_certificates(file.read(_MOST_BYTES))
        more = f" and {len(found) - most} more" if len(found) > most > 1 else ""
        return ", ".join(map(_described, found[:most])) + more
    except Exception:  # noqa: BLE001 -- likewise
        return "what cannot be read"


def _described(certificate: Certificate) -> str:
    end, now = certificate.not_valid_after_utc, datetime.now(UTC)
    begin = certificate.not_valid_before_utc
    subject = clean(certificate.subject.rfc4514_string(), 100) or "no subject"
    issuer = clean(certificate.issuer.rfc4514_string(), 100)
    issued = f" of {issuer}" if issuer != subject else ""
    valid = f"{'expired' if end < now else 'valid until'} {end:%Y-%m-%d %H:%M} UTC"
    return f"{subject}{issued}, " + (f"not valid before {begin:%Y-%m-%d %H:%M} UTC" if begin > now else valid)


def _stamp(path: Path) -> Stamp:
    """Return what changes with a file; through symbolic links, so that a link that is moved counts."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
