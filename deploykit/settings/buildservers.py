"""Build servers: where they are, and how to log in. Secrets stand in files of their own; none is in `repr`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

import attrs

from deploykit.settings.problems import LONGEST, not_a_time

#: `{NAME}` in the URL and body of a server of kind `http`: the job, the correlation id, or a parameter.
PLACEHOLDER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
#: How a body is written -> how its values are escaped.
JSON_BODY: Final = "application/json"
FORM_BODY: Final = "application/x-www-form-urlencoded"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VISIBLE: Final = re.compile(r"[\t\x20-\x7e]*")
#: Headers that the client itself writes.
_OWN_HEADERS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "content-type", "expect"})
_HTTP_ONLY: Final = ("headers", "headers_file", "body", "secret_file")


@attrs.frozen(kw_only=True, slots=True)
class BuildServerSettings:
    """One build server, `[jenkins.servers.NAME]`.

    Args:
        kind: `jenkins`, or `http` for any server that takes one request with a URL of its own.
        url: of Jenkins itself, `https://ci.example.org/jenkins/`; for `http` the request's URL, with `{NAME}` in its
            path and query for the job (`{job}`), the correlation id (`{correlation_id}`), the job's own token
            (`{token}`) and each parameter.
        user: who logs in; needs `token_file` or `password_file`.
        token_file: the user's API token, in one line, mode 0600 or 0640; read again for each request.
        password_file: the user's password instead. Jenkins then wants a crumb, which is fetched first.
        ca_file: certificates to trust for `https://`; the system's when absent.
        allow_http: also `http://` to other machines: nothing is encrypted, tokens neither.
        timeout: seconds for one request and its answer, name lookup included.
        connect_timeout: seconds of it for reaching the server.
        delay: seconds that Jenkins keeps a build in its queue, so that equal ones join; the job's own choice when
            absent.
        method: of an `http` server's request.
        headers: further headers of an `http` server's request.
        headers_file: the same, for those that hold a secret: lines of `Name: value`, mode 0600 or 0640.
        body: of an `http` server's request, with `{NAME}` as in `url`.
        body_type: `application/json` escapes each value for a JSON string, `application/x-www-form-urlencoded` by
            percent signs.
        secret_file: the key of an HMAC-SHA256 over the body, in one line, mode 0600 or 0640.
        signature_header: carries that HMAC, as `sha256=` and hex digits.
        accept: answers of an `http` server that mean it took the request.
    """

    kind: Literal["jenkins", "http"] = "jenkins"
    url: str = attrs.field(repr=lambda url: repr(url.partition("?")[0]))
    user: str = ""
    token_file: Path | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    allow_http: bool = False
    timeout: float = 30.0
    connect_timeout: float = 10.0
    delay: float | None = None
    method: Literal["POST", "PUT", "PATCH", "GET"] = "POST"
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    headers_file: Path | None = None
    body: str = attrs.field(default="", repr=False)
    body_type: Literal["application/json", "application/x-www-form-urlencoded"] = "application/json"
    secret_file: Path | None = None
    signature_header: str = "X-Hub-Signature-256"
    accept: tuple[int, ...] = (200, 201, 202, 204)

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each and none with a secret in it; empty when all is well."""
        return tuple(self._problems())

    def secret_files(self) -> Mapping[str, Path]:
        """Return the files with secrets that are set, by the name of their setting."""
        names = ("token_file", "password_file", "headers_file", "secret_file")
        files = ((name, getattr(self, name)) for name in names)
        return {name: path for name, path in files if path is not None}

    def placeholders(self) -> frozenset[str]:
        """Return the names in `{…}` that a request of kind `http` needs values for."""
        return frozenset(PLACEHOLDER.findall(self.url) + PLACEHOLDER.findall(self.body))

    def _problems(self) -> Iterator[str]:
        yield from self._url_problems()
        yield from not_a_time(self, ("timeout", "connect_timeout"))
        if self.delay is not None and not 0 <= self.delay < LONGEST:
            yield f"delay: expected seconds from 0 and below {LONGEST:g}, not {self.delay:g}"
        yield from self._login_problems()
        if self.kind == "http":
            yield from self._request_problems()
        else:
            for name in _HTTP_ONLY:
                if getattr(self, name):
                    yield f'{name}: only for kind = "http"'
            if PLACEHOLDER.search(self.url):
                yield 'url: {…} is only for kind = "http"'

    def _url_problems(self) -> Iterator[str]:
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:
            yield "url: not a URL"
            return
        if parts.scheme not in ("https", "http") or not parts.hostname or port == 0:
            yield "url: expected https://HOST/PATH"
            return
        if "@" in parts.netloc:
            yield "url: holds a login (use user and token_file)"
        if not self.url.isascii() or not self.url.isprintable() or " " in self.url or "\\" in self.url:
            yield "url: holds a character that no URL has (percent-encode it)"
        if PLACEHOLDER.search(parts.netloc) or parts.fragment:
            yield "url: {…} may stand in its path and query only, and it has no fragment"
        if self.kind == "jenkins" and parts.query:
            yield "url: of Jenkins itself, without a query"
        if {".", ".."} & set(parts.path.split("/")):
            yield "url: its path holds . or .."
        if parts.scheme == "http" and not self.allow_http and not is_loopback(parts):
            yield "url: http:// encrypts nothing, tokens neither (use https://, or set allow_http)"

    def _login_problems(self) -> Iterator[str]:
        if self.token_file is not None and self.password_file is not None:
            yield "token_file, password_file: give one of them, not both"
        elif bool(self.user) != bool(self.token_file or self.password_file):
            yield "user: goes together with token_file (or password_file); give both or neither"
        if ":" in self.user or not self.user.isprintable():
            yield "user: holds a colon or a control character"

    def _request_problems(self) -> Iterator[str]:
        for name, value in self.headers.items():
            problem = header_problem(name, value)
            if problem:
                yield f"headers: {name!a} {problem}"
        if not _TOKEN.fullmatch(self.signature_header):
            yield "signature_header: not the name of a header"
        if self.method == "GET" and self.body:
            yield "body: a GET has none"
        if not self.accept or not all(200 <= status < 400 for status in self.accept):
            yield "accept: expected status codes from 200 to 399"


def header_problem(name: str, value: str) -> str:
    """Return why a header cannot be sent, without its value; empty where it can."""
    if not _TOKEN.fullmatch(name) or not _VISIBLE.fullmatch(value):
        return "is not a header"
    return "is written by deploykit itself" if name.lower() in _OWN_HEADERS else ""


def is_loopback(parts: SplitResult) -> bool:
    """Return whether a URL's host is this machine by its own name or address; no name is looked up."""
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


__all__ = ["FORM_BODY", "JSON_BODY", "PLACEHOLDER", "BuildServerSettings", "header_problem", "is_loopback"]
