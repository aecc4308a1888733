"""Smart HTTP: the same session, each request an exchange of its own.

Rules:

* TLS is verified.
* A redirect is followed for the first request only, never from https to http, and no password goes to another host.
* A timer shuts the socket at the deadline, so that no drip of bytes outlives it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import threading
from typing import Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from deploykit._version import __version__
from deploykit.errors import OriginError, SettingsError, UsageError
from deploykit.git.transport.address import OriginUrl, parse_origin_url, redacted_url
from deploykit.git.transport.login import RunHelper, login_for
from deploykit.git.transport.pktline import PacketReader
from deploykit.settings.mirror import MirrorSettings
from deploykit.system import hosts
from deploykit.system.deadline import Deadline

_CHUNK: Final = 256 << 10
_SERVICE: Final = "/info/refs?service=git-upload-pack"
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MAX_REDIRECTS: Final = 5
_AGENT: Final = f"git/2.0 (deploykit {__version__})"


class HttpLink:
    """http(s)://: one connection kept for the requests of one fetch."""

    stateless = True

    def __init__(
        self, address: OriginUrl, settings: MirrorSettings, deadline: Deadline, *, run_helper: RunHelper
    ) -> None:
        self._base = address
        self._settings = settings
        self._deadline = deadline
        self._run_helper = run_helper
        self._connection: http.client.HTTPConnection | None = None
        self._response: http.client.HTTPResponse | None = None
        self._watch: threading.Timer | None = None
        self._ended = False
        self._logins: dict[str, str] = {}
        self.redirected = False

    # -- the session -------------------------------------------------------------------------------------------------

    def open(self, early: bytes) -> PacketReader:
        """Request the list of refs; `early` is not sent."""
        for _ in range(_MAX_REDIRECTS):
            response = self._exchange("GET", self._base.path.rstrip("/") + _SERVICE, None, version=2)
            if response.status not in _REDIRECTS:
                break
            self._follow(response.getheader("Location") or "")
        else:
            raise OriginError(f"{self._base.shown} redirects in circles")
        reader = self._accept(response, "application/x-git-upload-pack-advertisement")
        first = reader.read()
        if first is not None and first.startswith(b"# service=git-upload-pack"):
            for _line in reader.lines():
                pass
        else:
            reader.unread(first)
        return reader

    def request(self, body: bytes, *, version: int) -> PacketReader:
        """Send one request and return a reader of its answer."""
        response = self._exchange("POST", self._base.path.rstrip("/") + "/git-upload-pack", body, version=version)
        return self._accept(response, "application/x-git-upload-pack-result")

    def close(self) -> None:
        """Close the connection."""
        self._ended = True
        if self._watch is not None:
            self._watch.cancel()
        if self._response is not None:
            self._response.close()
        if self._connection is not None:
            self._connection.close()

    # -- one exchange ------------------------------------------------------------------------------------------------

    def _exchange(self, method: str, target: str, body: bytes | None, *, version: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": _AGENT, "Accept": "*/*", "Accept-Encoding": "identity", "Pragma": "no-cache"}
        if version == 2:
            headers["Git-Protocol"] = "version=2"
        if body is not None:
            headers["Content-Type"] = "application/x-git-upload-pack-request"
            headers["Accept"] = "application/x-git-upload-pack-result"
        login = self._login()
        if login:
            headers["Authorization"] = login
        for attempt in (1, 2):
            fresh = self._connection is None
            try:
                connection = self._connected()
                self._limit()
                connection.request(method, target, body=body, headers=headers)
                self._limit()
                self._response = connection.getresponse()
                self._deadline.left()  # a connection that was cut looks like the end of the headers
            except TimeoutError:
                raise self._deadline.passed() from None
            except (OSError, http.client.HTTPException) as exc:
                self._drop()
                self._deadline.left()
                if fresh or attempt == 2 or self._ended:
                    raise self._broken(exc) from exc
                continue  # a kept connection that the server has closed meanwhile
            return self._response
        raise AssertionError("unreachable")

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is not None:
            return self._connection
        base, limit = self._base, min(self._settings.connect_timeout, self._deadline.wait())
        connection: http.client.HTTPConnection
        if base.scheme == "https":
            host, port, tunnel = base.host, base.port, _proxy_for(base.host)
            if tunnel is not None:
                host, port = tunnel.hostname or "", tunnel.port
            context = tls_context_of(self._settings)
            connection = http.client.HTTPSConnection(host, port, timeout=limit, context=context)
            if tunnel is not None:
                connection.set_tunnel(base.host, base.port or 443, _proxy_login(tunnel.username, tunnel.password))
        else:
            connection = http.client.HTTPConnection(base.host, base.port, timeout=limit)
        connection._create_connection = hosts.create_connection  # type: ignore[attr-defined]  # else each address has all
        self._connection = connection
        if self._watch is None:
            self._watch = threading.Timer(self._deadline.left(), self._cut)
            self._watch.daemon = True
            self._watch.start()
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _cut(self) -> None:
        """Shut the connection at the deadline, under whatever waits on it."""
        sock = self._connection.sock if self._connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def _limit(self) -> None:
        if self._connection is not None and self._connection.sock is not None:
            self._connection.sock.settimeout(self._deadline.wait())

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _accept(self, response: http.client.HTTPResponse, kind: str) -> PacketReader:
        shown = self._base.shown
        if response.status in (401, 403, 407):
            reason = "wants a login, or refuses ours" if response.status != 403 else "forbids this"
            remedy = "check credentials_file or credential_helper"
            raise OriginError(f"{shown} {reason} (HTTP {response.status})", remedy)
        if response.status != 200:
            raise OriginError(f"{shown} answers HTTP {response.status}", "check the address")
        sent = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        if sent != kind:
            raise OriginError(f"{shown} is not a smart git server: it sent {sent[:60]!a}", "check the address")
        return PacketReader(self._receive, limit=self._settings.max_listing_bytes)

    def _receive(self) -> bytes:
        if self._response is None:
            raise OriginError("not connected to the origin")
        try:
            self._limit()
            data = self._response.read1(_CHUNK)
        except TimeoutError:
            raise self._deadline.passed() from None
        except (OSError, ValueError, http.client.HTTPException) as exc:
            self._deadline.left()
            raise self._broken(exc) from exc
        if not data:
            self._deadline.left()
        return data

    def _broken(self, exc: Exception) -> OriginError:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return OriginError(f"{self._base.shown} has no trusted certificate: {exc.verify_message}", "set ca_file")
        reason = (exc.strerror if isinstance(exc, OSError) else "") or type(exc).__name__
        return OriginError(f"the connection to {self._base.shown} failed: {reason}", "try again")

    def _follow(self, location: str) -> None:
        base = self._base
        host = f"[{base.host}]" if ":" in base.host else base.host
        here = f"{base.scheme}://{host}{f':{base.port}' if base.port else ''}{base.path.rstrip('/')}{_SERVICE}"
        there = urljoin(here, location)
        if not there.endswith(_SERVICE):
            raise OriginError(f"{base.shown} redirects to {redacted_url(there)}", "use that address, if it is right")
        try:
            new = parse_origin_url(there[: -len(_SERVICE)], allow_http=base.scheme == "http")
        except UsageError as exc:
            raise OriginError(f"{base.shown} redirects to an address that is not allowed: {exc.problem}") from exc
        if new.scheme not in ("https", "http"):
            raise OriginError(f"{base.shown} redirects to another scheme: {new.shown}")
        self._base = new
        self.redirected = True
        self._drop()

    # -- logins ------------------------------------------------------------------------------------------------------

    def _login(self) -> str:
        """Return the Authorization header for the present host; empty where there is none."""
        base = self._base
        key = f"{base.scheme}://{base.host}:{base.port}"
        if key not in self._logins:
            self._logins[key] = login_for(base, self._settings, self._run_helper, self._deadline.left())
        return self._logins[key]


def tls_context_of(settings: MirrorSettings) -> ssl.SSLContext:
    """Return the TLS context for an origin.

    Raises:
        SettingsError: `ca_file` cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    except (OSError, ssl.SSLError) as exc:
        raise SettingsError(f"cannot use ca_file {settings.ca_file}: {exc.strerror}", "PEM certificates") from exc
    context.set_alpn_protocols(["http/1.1"])
    return context


def _proxy_for(host: str) -> SplitResult | None:
    proxy = getproxies().get("https")
    return urlsplit(proxy) if proxy and not proxy_bypass(host) else None


def _proxy_login(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    pair = f"{unquote(user)}:{unquote(password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
