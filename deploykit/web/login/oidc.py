"""One OpenID Connect provider: asked over HTTP, in threads of its own, so that a slow one holds up no page.

Rules:

* TLS is verified by the machine's own certificates. No redirect is followed. Answers are capped in bytes and time, from
  the first byte of their head on, and are not compressed.
* What the provider says of itself and its keys are kept for an hour. A token by an unknown key has the keys asked for
  anew, at most once in some seconds.
* An error names the provider's host and what is wrong; never a code, a token or the secret.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar
from urllib.parse import quote_plus, urlencode, urlsplit

import httpx
from authlib.oauth2.auth import ClientAuth
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, KeySet

from deploykit.settings.buildservers import is_loopback
from deploykit.settings.oidc import OidcSettings
from deploykit.system.secretfile import read_secret
from deploykit.web.login.failures import IdentityError, UnknownSigner
from deploykit.web.login.oidcrules import (
    OidcMetadata,
    authorization_address,
    claims_of,
    code_of,
    identity_of,
    metadata_of,
    needs_userinfo,
    shown,
    token_form,
    with_userinfo,
)
from deploykit.web.login.oidcsteps import OidcChallenge, OidcIdentity, host_of

#: Seconds for one answer, from the first byte asked to the last one read; and bytes of one.
ANSWER_SECONDS: Final = 8.0
MOST_ANSWER: Final = 1 << 20
#: Logins that ask the provider at the same time; more are refused at once.
MOST_AT_ONCE: Final = 16
_KEEP_SECONDS: Final = 3600.0
_ASK_KEYS_AGAIN: Final = 10.0
_SETTING: Final = "web.oidc.client_secret_file"

_T = TypeVar("_T")


class OidcProvider:
    """Asks a provider. Use it in one event loop at a time.

    Args:
        settings: which one, and as which client.
        clock: monotonic seconds. now: seconds since 1970.
        seconds: for one answer.
    """

    def __init__(
        self,
        settings: OidcSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._now = now
        self._seconds = seconds
        self._lock = threading.Lock()
        self._tls = ssl.create_default_context()
        self._asking = 0
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="oidc")
        self._metadata: tuple[OidcMetadata, float] | None = None
        self._keys: tuple[KeySet, float] | None = None

    def close(self) -> None:
        """End the threads; logins that wait fail, and those under way end within the time of an answer."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def authorization_address(self, challenge: OidcChallenge, redirect: str) -> str:
        """Return where the browser goes to log in.

        Raises:
            IdentityError: the provider cannot be used now.
        """
        metadata = await self._in_thread(self._described)
        return authorization_address(self.settings, metadata, challenge, redirect)

    async def log_in(self, answer: Mapping[str, str], challenge: OidcChallenge, redirect: str) -> OidcIdentity:
        """Return who has logged in.

        Args:
            answer: the query with which the browser came back.
            challenge: of this login.
            redirect: the address to which it came back.

        Raises:
            IdentityError: nobody, and why.
            SettingsError: the client's secret cannot be read.
        """
        return await self._in_thread(lambda: self._log_in(answer, challenge, redirect))

    async def end_session_address(self, back: str) -> str:
        """Return where people log out at the provider; empty where it offers no such page, or is away.

        Args:
            back: where it sends them afterwards.
        """
        try:
            metadata = await self._in_thread(self._described)
        except IdentityError:
            return ""
        if not metadata.end_session:
            return ""
        query = urlencode({"client_id": self.settings.client_id, "post_logout_redirect_uri": back})
        return f"{metadata.end_session}{'&' if urlsplit(metadata.end_session).query else '?'}{query}"

    # -- in a thread ---------------------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        if self._asking >= MOST_AT_ONCE:
            raise IdentityError("too many people log in at once", "try again in some seconds", status=503)
        try:
            result = asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError as error:  # the threads have ended: other settings are in force, or the console ends
            raise IdentityError("the settings have just changed", "begin the login anew", status=503) from error
        self._asking += 1
        try:
            return await result
        finally:
            self._asking -= 1

    def _log_in(self, answer: Mapping[str, str], challenge: OidcChallenge, redirect: str) -> OidcIdentity:
        metadata = self._described()
        code = code_of(answer, self.settings, metadata)
        tokens = self._exchange(metadata, token_form(code, redirect, challenge))
        id_token, access = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(id_token, str):
            raise IdentityError(f"{self._host} sent no ID token", "is openid among [web.oidc] scopes?")
        access = access if isinstance(access, str) else ""
        claims = self._claims(metadata, id_token, access, challenge)
        if needs_userinfo(claims, self.settings) and metadata.userinfo and access:
            more = self._ask(metadata.userinfo, headers={"Authorization": f"Bearer {access}"})
            claims = with_userinfo(claims, more)
        return identity_of(claims, self.settings)

    def _claims(
        self, metadata: OidcMetadata, id_token: str, access: str, challenge: OidcChallenge
    ) -> Mapping[str, object]:
        """Return the claims of an ID token; keys that have changed since are asked for."""
        keys, asked = self._published(metadata)
        for again in (True, False):
            try:
                return claims_of(
                    id_token, keys, self.settings, nonce=challenge.nonce, access_token=access, now=self._now()
                )
            except UnknownSigner:
                if not again or self._clock() < asked + _ASK_KEYS_AGAIN:
                    raise
                keys, asked = self._published(metadata, older_than=asked)
        raise AssertionError  # the second try returns or raises

    def _described(self) -> OidcMetadata:
        kept = self._metadata
        if kept is None or self._clock() >= kept[1] + _KEEP_SECONDS:
            issuer = self.settings.issuer
            found = self._ask(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            kept = self._metadata = (metadata_of(found, issuer), self._clock())
        return kept[0]

    def _published(self, metadata: OidcMetadata, older_than: float = float("-inf")) -> tuple[KeySet, float]:
        """Return the provider's keys and when they were asked for: later than `older_than`, within the hour."""
        with self._lock:
            kept = self._keys
            if kept is None or kept[1] <= older_than or self._clock() >= kept[1] + _KEEP_SECONDS:
                kept = self._keys = (_key_set(self._ask(metadata.keys)), self._clock())
            return kept

    def _exchange(self, metadata: OidcMetadata, form: str) -> Mapping[str, object]:
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        file = self.settings.client_secret_file
        secret = read_secret(file, _SETTING) if file is not None else ""
        if not secret:
            auth = ClientAuth(self.settings.client_id, None, "none")
        elif metadata.secret_in_body:
            auth = ClientAuth(self.settings.client_id, secret, "client_secret_post")
        else:  # RFC 6749, section 2.3.1: both are encoded as in a form
            auth = ClientAuth(quote_plus(self.settings.client_id), quote_plus(secret), "client_secret_basic")
        _, headers, form = auth.prepare("POST", metadata.token, headers, form)
        found = self._ask(metadata.token, form=form, headers=headers)
        if "error" in found:
            way = (
                "compare [web.oidc] client_id and client_secret_file"
                if found["error"] == "invalid_client"
                else ("begin the login anew")
            )
            raise IdentityError(f"{self._host} gives no tokens: {shown(found['error'])}", way)
        return found

    def _ask(self, url: str, *, form: str | None = None, headers: Mapping[str, str] | None = None) -> dict[str, object]:
        """Return the JSON object that the provider answers."""
        try:
            status, body = asyncio.run(self._answer(url, form, dict(headers or {})))
        except TimeoutError as error:
            raise self._away(url, "its answer takes too long") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError) as error:
            raise self._away(url, _why(error)) from error
        try:
            found = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._away(url, f"it answers {status}, and no JSON") from error
        # The token endpoint explains with 400 and 401 why it gives no tokens.
        explained = form is not None and status in (400, 401) and isinstance(found, dict) and "error" in found
        if (status != 200 and not explained) or not isinstance(found, dict):
            raise self._away(url, f"it answers {status}")
        return found

    async def _answer(self, url: str, form: str | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Return the status and the body of an answer.

        In a loop of its own: only there a deadline ends a request at any point, also while its head comes in drops.
        """
        here = is_loopback(urlsplit(self.settings.issuer))
        body = bytearray()
        async with (
            asyncio.timeout(self._seconds),
            httpx.AsyncClient(
                verify=self._tls,
                timeout=self._seconds,
                follow_redirects=False,
                trust_env=not here,  # no proxy stands between us and ourselves
                headers={"User-Agent": "deploykit", "Accept": "application/json", "Accept-Encoding": "identity"},
            ) as client,
            client.stream("GET" if form is None else "POST", url, content=form, headers=headers) as answer,
        ):
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise self._away(url, "its answer is compressed")  # a short one could fill our memory
            async for part in answer.aiter_raw():
                body += part
                if len(body) > MOST_ANSWER:
                    raise self._away(url, f"its answer is larger than {MOST_ANSWER} bytes")
            return answer.status_code, bytes(body)

    def _away(self, url: str, why: str) -> IdentityError:
        return IdentityError(
            f"{self._host} cannot be used now ({urlsplit(url).path}): {why}", "try again, or ask its people", status=503
        )

    @property
    def _host(self) -> str:
        return host_of(self.settings.issuer)


def _why(error: Exception) -> str:
    """Return in one line why a request failed: the first cause that the system or TLS gives."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionError) and cause.errno:
            return os.strerror(cause.errno)  # asyncio has words of its own there
        if isinstance(cause, OSError) and cause.strerror:
            return shown(str(cause))
        cause = cause.__cause__ or cause.__context__
    return shown(str(error)) or type(error).__name__


def _key_set(document: Mapping[str, object]) -> KeySet:
    """Return the keys that can be used of those that a provider publishes."""
    found = document.get("keys")
    keys = []
    for each in found if isinstance(found, list) else []:
        if isinstance(each, dict) and each.get("use", "sig") == "sig" and each.get("kty") != "oct":
            try:
                keys.append(JWKRegistry.import_key(each))
            except (JoseError, ValueError, TypeError, KeyError):
                continue  # of a kind that we do not know: RFC 7517, section 5
    return KeySet(keys)


__all__ = ["ANSWER_SECONDS", "MOST_ANSWER", "MOST_AT_ONCE", "OidcProvider"]
