"""The login of one console: what lives as long as its process, over all reloads of its settings."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Final

import attrs
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers

from deploykit.errors import LedgerError
from deploykit.messages import utc_now
from deploykit.settings.service import parse_listen_address
from deploykit.settings.web import WebSettings
from deploykit.system.secretfile import read_secret
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.web.ledger.ledger import Ledger
from deploykit.web.login.apitokens import ApiTokens, cap_of
from deploykit.web.login.attempts import PasswordAttempts, too_many
from deploykit.web.login.auditnotes import AuditNotes
from deploykit.web.login.credentials import (
    basic_login,
    bearer_token,
    cookie_value,
    is_random_id,
    lax_cookie,
    session_id,
)
from deploykit.web.login.hosts import HostRule
from deploykit.web.login.identity import NOBODY, RequestIdentity
from deploykit.web.login.limits import PeerLimit
from deploykit.web.login.peers import RequestPeer, forwarded_peer, peer_of, proxy_name
from deploykit.web.login.refusals import BASIC_CHALLENGE, BEARER_CHALLENGE, AccessRefusal
from deploykit.web.login.rights import viewer_for
from deploykit.web.login.sessions import BrowserSession, SessionStore, form_token, proof_of
from deploykit.web.projection.activityviews import AuditView
from deploykit.web.viewer import EVERYBODY

if TYPE_CHECKING:
    from deploykit.web.login.oidc import OidcProvider

_log = logging.getLogger(__name__)

#: Seconds for which a browser keeps what the tokens of forms behind a proxy hang on.
_FORM_SECONDS: Final = 400 * 86400
#: How somebody may have logged in, by the setting `login`; with `passkeys` also by one of those.
_KINDS: Final = {"password": "password", "oidc": "oidc", "passkey": "passkey"}


class ConsoleLogin:
    """Who may look at a console, and who is logged in. Use it in one event loop at a time.

    Args:
        settings: `[web]`.
        note: writes into the audit; it may block.
        ledger: keeps sessions, tokens and passkeys; None: `keep_in` gives it before the first request.
        now: wall clock, aware UTC. clock: monotonic seconds.

    Raises:
        SettingsError: the password file, or the provider's secret, cannot be used.
    """

    def __init__(
        self,
        settings: WebSettings,
        note: Callable[[AuditView], None] | None = None,
        *,
        ledger: Ledger | None = None,
        now: Callable[[], datetime] = utc_now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self.now = now
        self._key = secrets.token_bytes(32)
        self.notes = AuditNotes(note, now=now, clock=clock)
        self.passwords = PasswordAttempts(self.notes, clock=clock)
        #: Steps of a login that need no name: by a provider, by a passkey, by an invitation.
        self.steps = PeerLimit(clock=clock)
        self._wrong_tokens = PeerLimit(clock=clock)
        self.provider: OidcProvider | None = None
        self.signers: Callable[[], AllowedSigners] | None = None
        self._ledger = ledger
        self._parts: tuple[Ledger, SessionStore, ApiTokens] | None = None
        self._use(settings)

    def keep_in(self, ledger: Ledger, signers: Callable[[], AllowedSigners] | None = None) -> None:
        """Keep everything in a ledger from now on.

        Args:
            ledger: open; whoever gives it closes it.
            signers: returns the keys that sign, which may not log in; None: this machine knows none.
        """
        self._ledger, self.signers = ledger, signers
        self._use_ledger()

    def reload(self, settings: WebSettings) -> None:
        """Go on with other settings. Sessions stay where the kind of login does.

        Raises:
            SettingsError: a file that they name cannot be used; everything stays as it was.
        """
        self._use(settings)

    def close(self) -> None:
        """End the threads; passwords that wait are not compared any more."""
        self.passwords.close()
        if self.provider is not None:
            self.provider.close()

    def _use(self, settings: WebSettings) -> None:
        if settings.login == "oidc" and settings.oidc.client_secret_file is not None:
            read_secret(settings.oidc.client_secret_file, "web.oidc.client_secret_file")  # an error now, not at a login
        self.passwords.use(settings.password_file if settings.login == "password" else None)
        before = self.provider
        if settings.login != "oidc":
            self.provider = None
        elif before is None or before.settings != settings.oidc:
            # Here, as it is slow to import and most consoles need it not.
            from deploykit.web.login.oidc import OidcProvider

            self.provider = OidcProvider(settings.oidc, clock=self.clock)
        if before is not None and before is not self.provider:
            before.close()
        self.settings = settings
        self.hosts = HostRule.of(settings.url)
        self._on_unix_socket = parse_listen_address(settings.listen).path is not None
        self._use_ledger()

    def _use_ledger(self) -> None:
        if (ledger := self._ledger) is not None:
            sessions = SessionStore(ledger.sessions, self.settings.session_idle, clock=self.clock)
            self._parts = (ledger, sessions, ApiTokens(ledger.tokens, clock=self.clock))

    @property
    def ledger(self) -> Ledger:
        """Where everything is kept.

        Raises:
            LedgerError: this console has none.
        """
        return self._kept[0]

    @property
    def _kept(self) -> tuple[Ledger, SessionStore, ApiTokens]:
        if self._parts is None:
            raise LedgerError("this console keeps no sessions, tokens and passkeys: it has no ledger")
        return self._parts

    @property
    def sessions(self) -> SessionStore:
        """The sessions of browsers.

        Raises:
            LedgerError: this console has no ledger.
        """
        return self._kept[1]

    @property
    def tokens(self) -> ApiTokens:
        """The API tokens.

        Raises:
            LedgerError: this console has no ledger.
        """
        return self._kept[2]

    @property
    def takes_passkeys(self) -> bool:
        """Whether people may log in by a passkey."""
        return self.settings.login == "passkey" or self.settings.passkeys

    # -- who is it -----------------------------------------------------------------------------------------------------

    def peer(self, client: tuple[object, ...] | None, headers: Headers) -> RequestPeer:
        """Return the peer that limits and the audit mean: behind a listed proxy the proxy's own peer."""
        peer = peer_of(client, on_unix_socket=self._on_unix_socket)
        return forwarded_peer(peer, headers.getlist("x-forwarded-for"), self.settings.proxies)

    async def identify(
        self, client: tuple[object, ...] | None, headers: Headers, *, api: bool
    ) -> RequestIdentity | AccessRefusal:
        """Return who sends a request, or why it is refused.

        Args:
            client: `scope["client"]`.
            headers: of the request.
            api: it is for the API, where the header `Authorization` counts.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        if self.settings.login == "none":
            return RequestIdentity(viewer=EVERYBODY, token=self._token(""), ambient=False)
        proxied = self._by_proxy(client, headers) if self.settings.login == "proxy" else NOBODY
        if isinstance(proxied, AccessRefusal):
            return proxied
        shown = headers.getlist("authorization") if api else []
        if (text := bearer_token(shown)) is not None:
            return await self._by_token(self.peer(client, headers), text)
        if self.settings.login == "proxy":
            return proxied
        found = await run_in_threadpool(self._by_session, headers)
        if found is None and shown and self.settings.login == "password":
            return await self._by_basic(self.peer(client, headers), headers)
        return found or NOBODY

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
        viewer, first = viewer_for(name, self.settings.access), self._token(name)
        # Forms must outlast a restart, and count at another console: from the second page on their token hangs on a
        # cookie, which no other site can read.
        kept = cookie_value(headers, self._form_cookie)
        if not is_random_id(kept):
            made = secrets.token_urlsafe(32)
            line = lax_cookie(self._form_cookie, made, secure=self.hosts.secure, seconds=_FORM_SECONDS)
            return RequestIdentity(viewer=viewer, token=first, set_cookie=line)
        return RequestIdentity(viewer=viewer, token=form_token(f"{kept} {name}"), older_token=first)

    @property
    def _form_cookie(self) -> str:
        return "__Host-deploykit-form" if self.hosts.secure else "deploykit-form"

    def _by_session(self, headers: Headers) -> RequestIdentity | None:
        id_ = session_id(headers, secure=self.hosts.secure)
        session = self.sessions.find(id_) if id_ else None
        if session is None:
            return None
        if not self._proven(session):
            self.sessions.end(session.key)
            return None
        viewer = viewer_for(session.name, self.settings.access, session.groups)
        return RequestIdentity(viewer=viewer, token=session.token, session=session)

    async def _by_token(self, peer: RequestPeer, text: str) -> RequestIdentity | AccessRefusal:
        token = await run_in_threadpool(self.tokens.find, text)
        if token is not None and self._has_name(token.owner):
            viewer = viewer_for(token.owner, self.settings.access, token.groups, cap=cap_of(token))
            return RequestIdentity(viewer=viewer, api=token, ambient=False)
        if (wait := self._wrong_tokens.attempt(peer.group)) > 0:
            await self.notes.refused("login", f"too many wrong API tokens from {peer}")
            return too_many(wait)
        await self.notes.refused("login", f"an API token that does not count, from {peer}")
        return AccessRefusal(
            status=401,
            detail="This token does not count: it was revoked, has expired, or was never made. /account makes one.",
            headers={"WWW-Authenticate": f'{BEARER_CHALLENGE}, error="invalid_token"'},
        )

    async def _by_basic(self, peer: RequestPeer, headers: Headers) -> RequestIdentity | AccessRefusal:
        given = basic_login(headers.getlist("authorization"))
        if given is None:
            return AccessRefusal(status=400, detail="The header Authorization is not Basic with a name and a password.")
        refused = await self.passwords.attempt(*given, peer, remember=True)
        if refused is not None:
            return _with_challenge(refused) if refused.status == 401 else refused
        return RequestIdentity(viewer=viewer_for(given[0], self.settings.access), ambient=False)

    async def goes_on(self, identity: RequestIdentity) -> bool:
        """Return whether an answer that lasts may go on: the login holds, the rights are the same."""
        try:
            return await run_in_threadpool(self._still, identity)
        except LedgerError as error:
            # Nobody can log out while it is away, and an answer 503 would make browsers give their streams up.
            _log.warning("cannot tell whether a login still holds: %s", error)
            return True

    def _still(self, identity: RequestIdentity) -> bool:
        name, access = identity.viewer.name, self.settings.access
        if self.settings.login == "none":
            return identity.viewer == EVERYBODY
        if identity.session is not None:
            session = self.sessions.again(identity.session)
            return (
                session is not None
                and self._proven(session)
                and viewer_for(name, access, session.groups) == identity.viewer
            )
        if identity.api is not None:
            token = self.tokens.again(identity.api)
            return (
                token is not None
                and self._has_name(name)
                and viewer_for(name, access, token.groups, cap=cap_of(token)) == identity.viewer
            )
        return self._has_name(name) and viewer_for(name, access) == identity.viewer

    def _has_name(self, name: str) -> bool:
        """Return whether there is still somebody of this name, as far as the console can know."""
        return self.settings.login != "password" or bool(self.passwords.stored(name))

    # -- sessions ------------------------------------------------------------------------------------------------------

    def proof(self, name: str, login: str, credential: str = "") -> str:
        """Return what a login depends on; another one, or an empty one, ends its sessions.

        Args:
            name: who logs in.
            login: how.
            credential: of a passkey.
        """
        password = self.passwords.stored(name) if self.settings.login == "password" else ""
        if login == "password":
            return proof_of(login, password) if password else ""
        if login == "oidc":
            return proof_of(login, self.settings.oidc.issuer, self.settings.oidc.client_id)
        return proof_of(login, credential, password) if self._has_name(name) else ""

    def _proven(self, session: BrowserSession) -> bool:
        if not session.proof:
            return False
        if session.login == "passkey":
            if not self.takes_passkeys:
                return False
            theirs = self.ledger.passkeys.list(session.name, "login")
            return any(self.proof(session.name, "passkey", each.credential) == session.proof for each in theirs)
        return (
            session.login == _KINDS.get(self.settings.login)
            and self.proof(session.name, session.login) == session.proof
        )

    async def begin_session(
        self,
        name: str,
        replaced: BrowserSession | None,
        *,
        login: str,
        credential: str = "",
        groups: tuple[str, ...] = (),
    ) -> str:
        """Return the id of a new session of somebody who has shown who they are; the browser's former one ends.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        if replaced is not None:
            await run_in_threadpool(self.sessions.end, replaced.key)
        proof = self.proof(name, login, credential)
        return await run_in_threadpool(self.sessions.begin, name, login=login, proof=proof, groups=groups)

    def _token(self, name: str) -> str:
        return hmac.new(self._key, b"form\0" + name.encode(), hashlib.sha256).hexdigest()


def _with_challenge(refused: AccessRefusal) -> AccessRefusal:
    """Return a refusal that says by which header a program logs in."""
    return attrs.evolve(refused, headers={**refused.headers, "WWW-Authenticate": BASIC_CHALLENGE})


__all__ = ["NOBODY", "ConsoleLogin", "RequestIdentity"]
