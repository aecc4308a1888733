"""The URL of an origin: which ones are allowed, and their parts. Pure.

Rules:

* https, ssh, git and file, nothing else; http where a setting allows it. No remote helpers (`ext::`).
* Nothing that a program could take for an option.
* No password: it would end up in settings, process lists and logs.
"""

from __future__ import annotations

import re
from typing import Final, Literal
from urllib.parse import unquote, urlsplit

import attrs

from deploykit.errors import UsageError

Scheme = Literal["https", "http", "ssh", "git", "file"]

_SCHEMES: Final[dict[str, Scheme]] = {"https": "https", "http": "http", "ssh": "ssh", "git": "git", "file": "file"}
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?\Z|[0-9A-Fa-f:.]+\Z")
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]*\Z")
_SCP_LIKE: Final = re.compile(r"(?:(?P<user>[^@:/]+)@)?(?P<host>[^@:/]+):(?P<path>.+)\Z", re.DOTALL)
#: Also a password with a slash in it, which nobody escaped, or one that the host is missing behind; and what a query or
#: a fragment holds.
_CREDENTIALS: Final = re.compile(
    r"(?<=://)(?:[^/@:]*:.*@|[^/@]*@|[^/@:\[\]]*:(?![0-9]*(?:[/?#]|\Z))[^/@]*)|(?<=[?#]).*", re.DOTALL
)


@attrs.frozen(kw_only=True, slots=True)
class OriginUrl:
    """A checked URL. `path` is what is requested from the server; `port` is None for the scheme's default."""

    scheme: Scheme
    path: str
    host: str = ""
    port: int | None = None
    user: str = ""

    @property
    def shown(self) -> str:
        """The URL for a log line: no user, no password."""
        if self.scheme == "file":
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{host}{port}/{self.path.lstrip('/')}"


def redacted_url(url: str) -> str:
    """Return any text that should be a URL for an error line: without credentials, control characters escaped."""
    return ascii(_CREDENTIALS.sub("", url[:300]))[1:-1]


def parse_origin_url(url: str, *, allow_http: bool = False) -> OriginUrl:
    """Return the parts of a URL, a path, or an address as scp takes it.

    >>> parse_origin_url("git@example.net:site.git").shown
    'ssh://example.net/site.git'

    Raises:
        UsageError: the scheme is not allowed, or a part could be mistaken for something else.
    """
    if not url or not url.isprintable() or url.startswith("-"):
        raise UsageError(f"not an origin's address: {redacted_url(url)!r}", "use https, ssh, git, file or a path")
    if re.match(r"[A-Za-z0-9+.-]*::", url):
        raise UsageError(f"remote helpers are not allowed: {redacted_url(url)}", "use https, ssh, git or file")
    if "://" in url:
        return _from_url(url, allow_http=allow_http)
    scp = None if url.startswith(("/", ".", "~")) else _SCP_LIKE.match(url)
    if scp:
        user, host = scp["user"] or "", scp["host"]
        _check_host(host, user, url)
        return OriginUrl(scheme="ssh", host=host, user=user, path=scp["path"])
    return OriginUrl(scheme="file", path=url)


def _from_url(url: str, *, allow_http: bool) -> OriginUrl:
    shown = redacted_url(url)
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise UsageError(f"not an origin's address: {shown}", "check host and port") from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        raise UsageError(f"scheme {parts.scheme!a} is not allowed: {shown}", "use https, ssh, git or file")
    if scheme == "http" and not allow_http:
        raise UsageError(f"http sends everything in clear: {shown}", "use https, or set allow_http for this mirror")
    if parts.password is not None:
        raise UsageError(f"a password does not belong into an address: {shown}", "put it into a credentials_file")
    if parts.fragment or (parts.query and scheme not in ("http", "https", "file")):
        raise UsageError(f"not an origin's address: {shown}", "no ? and no # in it")
    path = unquote(parts.path)
    if scheme == "file":
        if host not in ("", "localhost"):
            raise UsageError(f"file:// cannot name a host: {shown}", "use ssh, or file:///PATH")
        return OriginUrl(scheme="file", path=unquote(url[len("file://") + len(parts.netloc) :]))
    if not path.strip("/") or not path.isprintable():
        raise UsageError(f"no repository named in {shown}")
    user = unquote(parts.username or "")
    _check_host(host, user, url)
    if scheme == "ssh" and path.startswith("/~"):
        path = path[1:]
    if scheme in ("http", "https"):
        path = parts.path + (f"?{parts.query}" if parts.query else "")
    return OriginUrl(scheme=scheme, host=host, port=port, user=user, path=path)


def _check_host(host: str, user: str, url: str) -> None:
    if not _HOST.match(host):
        raise UsageError(f"not a host name: {host!a} in {redacted_url(url)}")
    if user and not _USER.match(user):
        raise UsageError(f"not a user name in {redacted_url(url)}", "letters, digits, _ . + - @ only")
