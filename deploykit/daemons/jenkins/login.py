"""How we log in at Jenkins: user and API token, or a password with a crumb. Secrets are read for each request.

Rules:

* The login is sent at once (Basic), only to the server of the settings.
* An API token needs no crumb. With a password, or without a login, one is fetched, with the session it belongs to.
* `hide` takes every secret that was read out of a text, should a server send one back.
"""

from __future__ import annotations

import base64
import html
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs

from deploykit.daemons.jenkins.lookup import parse_object
from deploykit.daemons.jenkins.server import Login
from deploykit.httpclient.reply import HttpReply, HttpRequest, NoReply
from deploykit.settings.buildservers import BuildServerSettings
from deploykit.system.secretfile import read_secret

Send = Callable[[HttpRequest], HttpReply | NoReply]

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_COOKIE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}=[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]{0,1000}")
_MOST_COOKIES: Final = 10
_MOST_SECRETS: Final = 100
_SHORTEST: Final = 4


@attrs.frozen(kw_only=True, slots=True)
class _Session:
    """A crumb and the cookies of the session it belongs to."""

    headers: tuple[tuple[str, str], ...] = attrs.field(default=(), repr=False)


class JenkinsLogin:
    """The login at one server. Its methods may be called from several threads."""

    def __init__(self, settings: BuildServerSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._secrets: dict[str, re.Pattern[str]] = {}

    @property
    def kind(self) -> Login:
        """How we log in."""
        if not self._settings.user:
            return ""
        return "token" if self._settings.token_file is not None else "password"

    def headers(self) -> tuple[tuple[str, str], ...]:
        """Return the login's header; none where there is no login.

        Raises:
            SettingsError: the file with the secret cannot be used.
        """
        for name in ("token_file", "password_file"):
            path = self._settings.secret_files().get(name)
            if path is not None and self._settings.user:
                pair = base64.b64encode(f"{self._settings.user}:{self.secret(path, name)}".encode()).decode()
                self.keep_hidden(pair)
                return (("Authorization", f"Basic {pair}"),)
        return ()

    def secret(self, path: Path, setting: str) -> str:
        """Return the secret in a file.

        Raises:
            SettingsError: the file cannot be used.
        """
        secret = read_secret(path, setting)
        self.keep_hidden(secret)
        return secret

    def crumb(self, send: Send, *, fresh: bool) -> tuple[tuple[str, str], ...] | NoReply:
        """Return the headers of a crumb and its session; none where an API token needs none, or Jenkins has none.

        Args:
            send: makes one request, with the login.
            fresh: Jenkins refused the last one; also fetched without a login.
        """
        if self.kind == "token" or (not self.kind and not fresh):
            return ()
        with self._lock:
            session = None if fresh else self._session
        if session is not None:
            return session.headers
        path = urlsplit(self._settings.url).path.rstrip("/")
        reply = send(HttpRequest(method="GET", target=f"{path}/crumbIssuer/api/json", headers=self.headers()))
        if isinstance(reply, NoReply):
            return attrs.evolve(reply, sent=False)  # the build was not asked for yet
        session = _session_of(reply)
        for _, value in session.headers:
            self.keep_hidden(value)
        with self._lock:
            self._session = session
        return session.headers

    def hide(self, text: str) -> str:
        """Return a text without the secrets that were read so far."""
        for pattern in self._patterns():
            text = pattern.sub("***", text)
        return text

    def scrub(self, reply: HttpReply | NoReply) -> HttpReply | NoReply:
        """Return an answer that shows none of the secrets read so far."""
        if isinstance(reply, NoReply):
            return attrs.evolve(reply, why=self.hide(reply.why))
        return attrs.evolve(reply, hide=self.hide)

    def _patterns(self) -> list[re.Pattern[str]]:
        """Return what finds the secrets, the longest first."""
        with self._lock:
            return [self._secrets[secret] for secret in sorted(self._secrets, key=len, reverse=True)]

    def keep_hidden(self, secret: str) -> None:
        """Let `hide` take a secret out of texts. What is shorter than 4 characters would take words apart."""
        if len(secret) < _SHORTEST:
            return
        with self._lock:
            self._secrets[secret] = self._secrets.get(secret) or _pattern_of(secret)
            while len(self._secrets) > _MOST_SECRETS:  # each crumb is one
                del self._secrets[next(iter(self._secrets))]


def _pattern_of(secret: str) -> re.Pattern[str]:
    """Return what finds a secret as it is, and escaped for a URL, a form, HTML or JSON, each character by itself."""
    return re.compile("".join(c if c.isascii() and c.isalnum() else _forms_of(c) for c in secret))


def _forms_of(character: str) -> str:
    code = ord(character)
    percent = "".join(f"%(?i:{byte:02x})" for byte in character.encode("utf-8", "surrogateescape"))
    forms = {re.escape(character), re.escape(html.escape(character)), percent}
    forms |= {rf"\\u(?i:{code:04x})", f"&#0*{code};", f"&#[xX]0*(?i:{code:x});", rf"\\{re.escape(character)}"}
    return f"(?:{'|'.join(sorted(forms, key=len, reverse=True))}{'|[+]' if character == ' ' else ''})"


def _session_of(reply: HttpReply) -> _Session:
    """Return the crumb of an answer. 404 means that Jenkins wants none; what else it is, the POST will show."""
    data = parse_object(reply) if reply.status == 200 else None
    if data is None:
        return _Session()
    name, crumb = data.get("crumbRequestField"), data.get("crumb")
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        return _Session()
    if not isinstance(crumb, str) or not crumb.isascii() or not crumb.isprintable() or len(crumb) > 1000:
        return _Session()
    cookies = [cookie.partition(";")[0].strip() for cookie in reply.all_headers("Set-Cookie")[:_MOST_COOKIES]]
    cookies = [cookie for cookie in cookies if _COOKIE.fullmatch(cookie)]
    headers = [(name, crumb)]
    if cookies:
        headers.append(("Cookie", "; ".join(cookies)))
    return _Session(headers=tuple(headers))


__all__ = ["JenkinsLogin", "Send"]
