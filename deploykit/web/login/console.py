"""The login of one console: what lives as long as its process, over all reloads of its settings."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

import attrs
from starlette.datastructures import Headers

from deploykit.messages import utc_now
from deploykit.settings.service import parse_listen_address
from deploykit.settings.web import WebSettings
from deploykit.web.login.attempts import PasswordAttempts
from deploykit.web.login.auditnotes import AuditNotes
from deploykit.web.login.credentials import basic_login, session_id
from deploykit.web.login.hosts import HostRule
from deploykit.web.login.peers import RequestPeer, forwarded_peer, peer_of, proxy_name
from deploykit.web.login.refusals import BASIC_CHALLENGE, AccessRefusal
from deploykit.web.login.rights import viewer_for
from deploykit.web.login.sessions import BrowserSession, SessionStore
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.viewer import EVERYBODY, Viewer


@attrs.frozen(kw_only=True, slots=True)
class RequestIdentity:
    """Who sends a request.

    Args:
        viewer: without grants where nobody is logged in.
        token: what forms carry; empty where they need none.
        session: of a browser; None for others.
        ambient: a browser adds what shows who it is by itself, so another page could make it send something.
    """

    viewer: Viewer
    token: str = attrs.field(default="", repr=False)
    session: BrowserSession | None = None
    ambient: bool = True


NOBODY: Final = RequestIdentity(viewer=Viewer())


class ConsoleLogin:
    """Who may look at a console, and who is logged in. Use it in one event loop at a time.

    Args:
        settings: `[web]`.
        note: writes into the audit; it may block.
        now: wall clock, aware UTC. clock: monotonic seconds.

    Raises:
        SettingsError: the password file cannot be used.
    """

    def __init__(
        self,
        settings: WebSettings,
        note: Callable[[AuditView], None] | None = None,
        *,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._key = secrets.token_bytes(32)
        self.notes = AuditNotes(note, now=now, clock=clock)
        self.passwords = PasswordAttempts(self.notes, clock=clock)
        self.sessions = SessionStore(settings.session_idle, clock=clock)
        self._use(settings)

    def reload(self, settings: WebSettings) -> None:
        """Go on with other settings. Sessions stay where the kind of login does.

        Raises:
            SettingsError: the password file cannot be used; everything stays as it was.
        """
        before = self.settings
        self._use(settings)
        self.sessions.set_idle(settings.session_idle)
        if settings.login != before.login:
            self.sessions.end_all()

    def close(self) -> None:
        """End the threads; passwords that wait are not compared any more."""
        self.passwords.close()

    def _use(self, settings: WebSettings) -> None:
        self.passwords.use(settings.password_file if settings.login == "password" else None)
        self.settings = settings
        self.hosts = HostRule.of(settings.url)
        self._on_unix_socket = parse_listen_address(settings.listen).path is not None

    # -- who is it -----------------------------------------------------------------------------------------------------

    def peer(self, client: tuple[object, ...] | None, headers: Headers) -> RequestPeer:
        """Return the peer that limits and the audit mean: behind a listed proxy the proxy's own peer."""
        peer = peer_of(client, on_unix_socket=self._on_unix_socket)
        return forwarded_peer(peer, headers.getlist("x-forwarded-for"), self.settings.proxies)

    async def identify(
        self, client: tuple[object, ...] | None, headers: Headers, *, basic: bool
    ) -> RequestIdentity | AccessRefusal:
        """Return who sends a request, or why it is refused.

        Args:
            client: `scope["client"]`.
            headers: of the request.
            basic: whether `Authorization: Basic` counts.
        """
        match self.settings.login:
            case "none":
                return RequestIdentity(viewer=EVERYBODY, token=self._token(""), ambient=False)
            case "proxy":
                return self._by_proxy(client, headers)
            case "password":
                found = self._by_session(headers)
                if found is None and basic and headers.getlist("authorization"):
                    return await self._by_basic(self.peer(client, headers), headers)
                return found or NOBODY
            case "oidc" | "passkey":
                return self._by_session(headers) or NOBODY

    def _by_proxy(self, client: tuple[object, ...] | None, headers: Headers) -> RequestIdentity | AccessRefusal:
        name = proxy_name(
            headers.getlist(self.settings.proxy_header),
            peer_of(client, on_unix_socket=self._on_unix_socket),
            header=self.settings.proxy_header,
            proxies=self.settings.proxies,
        )
        if isinstance(name, AccessRefusal):
            return name
        if not name:
            return NOBODY
        return RequestIdentity(viewer=viewer_for(name, self.settings.access), token=self._token(name))

    def _by_session(self, headers: Headers) -> RequestIdentity | None:
        id_ = session_id(headers, secure=self.hosts.secure)
        session = self.sessions.find(id_) if id_ else None
        if session is None:
            return None
        if not self._proven(session):
            self.sessions.end(session.key)
            return None
        viewer = viewer_for(session.name, self.settings.access)
        return RequestIdentity(viewer=viewer, token=session.token, session=session)

    async def _by_basic(self, peer: RequestPeer, headers: Headers) -> RequestIdentity | AccessRefusal:
        given = basic_login(headers.getlist("authorization"))
        if given is None:
            return AccessRefusal(status=400, detail="The header Authorization is not Basic with a name and a password.")
        refused = await self.passwords.attempt(*given, peer, remember=True)
        if refused is not None:
            return _with_challenge(refused) if refused.status == 401 else refused
        return RequestIdentity(viewer=viewer_for(given[0], self.settings.access), ambient=False)

    def goes_on(self, identity: RequestIdentity) -> bool:
        """Return whether an answer that lasts may go on: the session lives, the rights are the same."""
        name, session = identity.viewer.name, identity.session
        if self.settings.login == "none":
            return identity.viewer == EVERYBODY
        if self.settings.login == "password":
            if session is not None and not (self.sessions.lives(session.key) and self._proven(session)):
                return False
            if not self.passwords.stored(name):
                return False
        return viewer_for(name, self.settings.access) == identity.viewer

    def _proven(self, session: BrowserSession) -> bool:
        return self.passwords.stored(session.name) == session.proof

    def _token(self, name: str) -> str:
        return hmac.new(self._key, b"form\0" + name.encode(), hashlib.sha256).hexdigest()

    def begin_session(self, name: str, replaced: BrowserSession | None) -> str:
        """Return the id of a new session of somebody whose password was right; the browser's former one ends."""
        if replaced is not None:
            self.sessions.end(replaced.key)
        id_, _ = self.sessions.begin(name, self.passwords.stored(name))
        return id_


def _with_challenge(refused: AccessRefusal) -> AccessRefusal:
    """Return a refusal that says by which header a program logs in."""
    return attrs.evolve(refused, headers={**refused.headers, "WWW-Authenticate": BASIC_CHALLENGE})


__all__ = ["NOBODY", "ConsoleLogin", "RequestIdentity"]
