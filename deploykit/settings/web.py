"""The web console: where it listens, where it keeps what it has heard, who may look. `[web]`."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

import attrs

from deploykit.errors import UsageError
from deploykit.settings.oidc import OidcSettings
from deploykit.settings.problems import below, not_a_time, too_small
from deploykit.settings.service import parse_listen_address
from deploykit.settings.trust import ORIGIN

WebRole = Literal["look", "stage", "live", "admin"]
#: From the least to the highest; each may do what those before it may.
ROLES: Final[tuple[WebRole, ...]] = get_args(WebRole)
#: In `proxies`: whoever may connect to the UNIX socket the console listens on.
UNIX_PEER: Final = "unix"
#: Characters above every page.
_BANNER: Final = 300
_SCHEMES: Final = ("sqlite", "postgresql", "postgresql+psycopg")


@attrs.frozen(kw_only=True, slots=True)
class WebAccessSettings:
    """Who may do what on which sites, `[[web.access]]`.

    Args:
        users: names as people log in with them; `*` stands for everybody who is logged in, `@NAME` for a group that
            the OpenID Connect provider names.
        sites: patterns of sites; `*` stands for any text.
        role: `look` shows; `stage`, `live` and `admin` may do more.
    """

    users: tuple[str, ...]
    sites: tuple[str, ...] = ("*",)
    role: WebRole = "look"

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        for name, values in (("users", self.users), ("sites", self.sites)):
            if not values:
                yield f"{name}: expected at least one"
            if not all(value and value.isprintable() and len(value) <= 255 for value in values):
                yield f"{name}: one is empty, too long, or holds a control character"


@attrs.frozen(kw_only=True, slots=True)
class WebSettings:
    """The web console.

    Args:
        listen: `HOST:PORT`, `[HOST]:PORT` or `unix:/PATH` (mode 0660). Without a login only a loopback address.
        url: as people type it, `https://deploy.example.org`; requests for another host are refused. Empty: any name of
            this machine's loopback address.
        banner: one line above every page, for whoever may look: which console this is, what to mind.
        database: SQLAlchemy's URL of an SQLite file or a PostgreSQL database, without a password; empty:
            `web/console.db` in `state`.
        database_password_file: the password, in one line, mode 0600 or 0640.
        login: `none`, `password` (a file of names and hashes), `proxy` (a header of a proxy that logs people in),
            `oidc` (an OpenID Connect provider), or `passkey` (people are invited by `deploykit web invite`).
        oidc: the provider, for `login = "oidc"`.
        passkeys: with `password` and `oidc`: who has logged in may add a passkey, and log in by it from then on.
        sign_origin: an origin of its own for the page on which people sign, `https://sign.example.org`: it is static,
            and this console cannot change it; empty: the console's own.
        console_signs: roles for which the console's own key starts rollouts that need no mandate. Empty: the console
            signs for nobody, and every rollout needs a person's signature.
        lease: seconds after which another console on the same database takes over the rollouts of one that is silent.
        token_days: the longest that an API token lasts.
        password_file: lines of `NAME:HASH`, bcrypt, SHA-256 or SHA-512 crypt, mode 0600 or 0640.
        proxy_header: carries the user's name.
        proxies: addresses and networks whose header counts; `unix` for the console's own UNIX socket.
        access: who may do what; empty: everybody who is logged in may look at everything.
        session_idle: seconds without a request after which a session ends.
        keep_days, keep_rows: what is older, or more rows of one kind, is removed.
        ask_every: seconds between two questions to all nodes what they hold; also asked after each reconnection.
    """

    listen: str = "127.0.0.1:8470"
    url: str = ""
    banner: str = ""
    database: str = ""
    database_password_file: Path | None = None
    login: Literal["none", "password", "proxy", "oidc", "passkey"] = "none"
    oidc: OidcSettings = attrs.field(factory=OidcSettings)
    passkeys: bool = False
    sign_origin: str = ""
    console_signs: tuple[WebRole, ...] = ("live", "admin")
    lease: float = 15.0
    token_days: float = 366.0
    password_file: Path | None = None
    proxy_header: str = "X-Remote-User"
    proxies: tuple[str, ...] = ()
    access: tuple[WebAccessSettings, ...] = ()
    session_idle: float = 8 * 3600.0
    keep_days: float = 90.0
    keep_rows: int = 500_000
    ask_every: float = 300.0

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from too_small(self, {"keep_rows": 1000, "keep_days": 1, "ask_every": 10, "session_idle": 60, "lease": 3})
        yield from not_a_time(self, ("session_idle", "ask_every", "lease"))
        yield from not_a_time(self, ("token_days",), "days")
        try:
            address = parse_listen_address(self.listen)
        except UsageError as error:
            yield f"listen: {error}"
        else:
            if self.login == "none" and not address.only_here:
                yield "listen: without a login only a loopback address or a UNIX socket (set login)"
            if not address.only_here and not self.url:
                yield "url: needed where other machines connect: https://HOST, as people type it"
        if len(self.banner) > _BANNER or not self.banner.isprintable():
            yield f"banner: expected one line of at most {_BANNER} characters"
        yield from self._url_problems()
        if self.login == "password" and self.password_file is None:
            yield 'password_file: needed for login = "password"'
        if self.login == "oidc":
            yield from below("oidc", self.oidc.problems())
        if self.login in ("oidc", "passkey") and not self.url:
            yield f'url: needed for login = "{self.login}": https://HOST, as people type it'
        yield from self._passkey_problems()
        if self.login == "proxy" and not self.proxies:
            yield 'proxies: needed for login = "proxy": the addresses whose header counts'
        for proxy in self.proxies:
            if proxy != UNIX_PEER and not _is_network(proxy):
                yield f"proxies: expected an address, a network or {UNIX_PEER!r}, not {proxy[:60]!a}"
        for at, access in enumerate(self.access):
            yield from below(f"access[{at}]", access.problems())

    def _passkey_problems(self) -> Iterator[str]:
        if self.passkeys and self.login not in ("password", "oidc"):
            yield 'passkeys: only beside login = "password" or "oidc"'
        if not self.passkeys and self.login != "passkey":
            return
        if self.url and not ORIGIN.fullmatch(self.url.rstrip("/")):
            yield "url: browsers keep passkeys for https://NAME or http://localhost:PORT, never for an address"
        elif self.passkeys and not self.url:
            yield "url: needed for passkeys: https://HOST, as people type it"

    def _url_problems(self) -> Iterator[str]:
        if self.url:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
                yield "url: expected https://HOST, without a path"
        if self.sign_origin and (not ORIGIN.fullmatch(self.sign_origin) or self.sign_origin == self.url.rstrip("/")):
            yield "sign_origin: expected https://HOST of its own, without a path"
        if self.database:
            scheme, _, rest = self.database.partition("://")
            if scheme not in _SCHEMES:
                yield "database: expected sqlite:////PATH or postgresql://USER@HOST/NAME"
            elif ":" in rest.partition("@")[0] and "@" in rest:
                yield "database: holds a password (use database_password_file)"


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


__all__ = ["ROLES", "UNIX_PEER", "WebAccessSettings", "WebRole", "WebSettings"]
