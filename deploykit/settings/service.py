"""Where a daemon shows whether it works: the address of its pages `/live`, `/ready` and `/metrics`."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import UsageError

#: What may have an address of its own: the daemons, and `deploykit run` with several of them in one process.
LISTENERS: Final = ("access", "agent", "jenkins", "keepalive", "packages", "relay", "run", "web", "webhook")

_UNIX: Final = "unix:"
#: Bytes of the longest path that a UNIX socket can have (unix(7)), less the suffix that it has while it is made.
_MAX_PATH: Final = 100
_TCP: Final = re.compile(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})\Z").match
_EXPECTED: Final = 'expected "127.0.0.1:PORT", "[::1]:PORT", "unix:/PATH", or "" for no pages'


@attrs.frozen(kw_only=True, slots=True)
class PagesAddress:
    """Where the pages are: a port of a loopback address, or a UNIX socket.

    Args:
        host, port: a loopback address; port 0 is any free one.
        path: the socket; None for a port.
    """

    host: str = ""
    port: int = 0
    path: Path | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@attrs.frozen(kw_only=True, slots=True)
class ListenAddress:
    """Where a server of ours listens: a port of one of this machine's addresses, or a UNIX socket.

    Args:
        host, port: port 0 is any free one.
        path: the socket; None for a port.
    """

    host: str = ""
    port: int = 0
    path: Path | None = None

    @property
    def only_here(self) -> bool:
        """Whether no other machine can reach it."""
        return self.path is not None or _is_loopback(self.host)

    def __str__(self) -> str:
        if self.path is not None:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen_address(text: str) -> ListenAddress:
    """Return the address at which a server of ours listens.

    Raises:
        UsageError: it is no such address.

    >>> str(parse_listen_address("0.0.0.0:8471"))
    '0.0.0.0:8471'
    """
    if text.startswith(_UNIX):
        return ListenAddress(path=_socket_path(text))
    found = _TCP(text)
    host = (found["six"] or found["host"]) if found is not None else ""
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        found = None
    if found is None or int(found["port"]) > 65535:
        raise UsageError(f'expected "ADDRESS:PORT", "[ADDRESS]:PORT" or "unix:/PATH", not {text!a}')
    return ListenAddress(host=host, port=int(found["port"]))


def _socket_path(text: str) -> Path:
    path = Path(text.removeprefix(_UNIX))
    if not path.is_absolute() or "\0" in text or text.endswith("/"):
        raise UsageError(f"expected an absolute path after {_UNIX}, not {text.removeprefix(_UNIX)!a}")
    if len(bytes(path)) > _MAX_PATH:
        raise UsageError(f"expected a path of at most {_MAX_PATH} bytes, not {len(bytes(path))}")
    return path


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_pages_address(text: str) -> PagesAddress | None:
    """Return the address that a setting `listen` names; None for an empty one.

    Raises:
        UsageError: it is no such address, or others than this machine could reach it.

    >>> str(parse_pages_address("localhost:9464"))
    '127.0.0.1:9464'
    """
    if not text:
        return None
    if text.startswith(_UNIX):
        return PagesAddress(path=_socket_path(text))
    found = _TCP(text)
    if found is None or int(found["port"]) > 65535:
        raise UsageError(f"{_EXPECTED}, not {text!a}")
    host = found["six"] or found["host"]
    if host == "localhost":
        host = "127.0.0.1"
    if not _is_loopback(host):
        raise UsageError(
            f"expected a loopback address, not {host!a}: the pages have no login",
            "use 127.0.0.1, or a UNIX socket, and let a proxy with a login serve other machines",
        )
    return PagesAddress(host=host, port=int(found["port"]))


@attrs.frozen(kw_only=True, slots=True)
class ServiceSettings:
    """Where a daemon shows whether it works.

    Args:
        listen: `127.0.0.1:PORT`, `[::1]:PORT` or `unix:/PATH` (mode 0660) for `/live`, `/ready` and `/metrics`; empty:
            no pages.
        listen_of: the same for one daemon (`access`, `agent`, `jenkins`, `keepalive`, `packages`, `relay`, `web`,
            `webhook`, and `run` for several in one process), where several run on one machine: two cannot have
            one address.
    """

    listen: str = ""
    listen_of: Mapping[str, str] = attrs.field(factory=dict)

    def address(self, daemon: str) -> PagesAddress | None:
        """Return where a daemon's pages are; None for nowhere.

        Raises:
            UsageError: the setting is no address; `problems` finds that, too.
        """
        return parse_pages_address(self.listen_of.get(daemon, self.listen))

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        for name in sorted(self.listen_of.keys() - set(LISTENERS)):
            yield f"listen_of.{name}: expected one of {', '.join(LISTENERS)}"
        for where, text in (("listen", self.listen), *((f"listen_of.{k}", v) for k, v in self.listen_of.items())):
            try:
                parse_pages_address(text)
            except UsageError as error:
                yield f"{where}: {error}"
