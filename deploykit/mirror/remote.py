"""The way to an origin: which addresses are allowed, and one conversation per fetch.

Rules: only https, ssh, git and file (http where a setting says so); no `ext::`, no host that looks like an option; the
deadline ends a conversation whatever the other side does; credentials never reach a command line or an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from dulwich.client import GitClient, get_transport_and_path

from deploykit.errors import OriginError, UsageError

_ALLOWED: Final = ("https", "ssh", "git", "file")
_SCP_LIKE = re.compile(r"(?:[A-Za-z0-9_.-]+@)?[A-Za-z0-9_][A-Za-z0-9_.-]*:(?!//)[^:].*\Z")


def shown_url(url: str) -> str:
    """The address for a log line: without user and password."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def check_url(url: str, *, allow_http: bool = False) -> str:
    """Return the transport of an address, or refuse it.

    Raises:
        UsageError: a scheme that is not allowed, a host that could be taken for an option, control characters.
    """
    if not url or not url.isprintable() or url.startswith("-"):
        raise UsageError(
            f"not an origin's address: {ascii(shown_url(url))}", "https://, ssh://, git://, file:// or a path"
        )
    if "::" in url.partition("/")[0]:
        raise UsageError(f"remote helpers are not allowed: {shown_url(url)}", "use https, ssh, git or file")
    if "://" in url:
        parts = urlsplit(url)
        if parts.scheme == "http" and not allow_http:
            raise UsageError(f"http is not allowed: {shown_url(url)}", "use https, or set allow_http for this mirror")
        if parts.scheme not in (*_ALLOWED, "http"):
            raise UsageError(f"scheme {parts.scheme!r} is not allowed: {shown_url(url)}", "use https, ssh, git or file")
        if parts.scheme != "file" and (not parts.hostname or parts.hostname.startswith("-")):
            raise UsageError(f"no usable host in {shown_url(url)}")
        return parts.scheme
    if _SCP_LIKE.match(url) and not url.startswith(("/", ".")):
        return "ssh"
    return "file"


class Haves:
    """The graph walker dulwich asks for: it hands out our tips and walks nothing."""

    shallow: frozenset[bytes] = frozenset()

    def __init__(self, oids: Sequence[bytes]) -> None:
        self._left: Iterator[bytes] = iter(oids)

    def __next__(self) -> bytes | None:
        return next(self._left, None)

    next = __next__

    def ack(self, sha: bytes) -> None:
        """The origin has it too; it decides what that saves."""

    def nak(self) -> None:
        """The origin has none of them."""


Chooser = Callable[[dict[bytes, bytes]], tuple[list[bytes], Sequence[bytes]]]


def converse(
    url: str, choose: Chooser, write: Callable[[bytes], int], *, prefixes: Sequence[bytes], allow_http: bool = False
) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """List the origin's refs, let `choose` say what to fetch and what we have, and pass the pack to `write`.

    Returns:
        The refs, and the symbolic refs.
    """
    check_url(url, allow_http=allow_http)
    client: GitClient
    client, path = get_transport_and_path(url)
    walker = Haves(())

    def determine(refs: dict[bytes, bytes], depth: int | None = None) -> list[bytes]:
        wants, offered = choose({k: v for k, v in refs.items() if v})
        walker._left = iter(offered)
        return wants

    try:
        found = client.fetch_pack(path, determine, walker, write, ref_prefix=list(prefixes))  # type: ignore[arg-type]
    except Exception as exc:
        raise OriginError(f"cannot fetch from {shown_url(url)}: {type(exc).__name__}: {exc}") from exc
    return {k: v for k, v in found.refs.items() if v}, dict(found.symrefs)  # type: ignore[misc]
