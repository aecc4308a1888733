"""A host name's addresses, and which of them answers first (RFC 8305, "Happy Eyeballs").

Rules:

* Address families alternate. An address that does not answer delays the next one by a quarter of a second only.
* An address that failed comes last at the next attempt.
* A look-up has a thread of its own, because `getaddrinfo` has no deadline.
* Only `connect` and `look_up` block, and both end in time.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self

import attrs

#: Seconds until the next address is tried beside one that has not answered (RFC 8305, "Connection Attempt Delay").
STAGGER: Final = 0.25
#: Most addresses of a name in one attempt; the others follow at the next.
MOST_ADDRESSES: Final = 8
_IN_PROGRESS: Final = {0, errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN}


@attrs.frozen(slots=True)
class HostAddress:
    """One address of a host, as `socket.connect` takes it. `str()` shows no port."""

    family: int
    sockaddr: tuple[Any, ...]

    def __str__(self) -> str:
        host = str(self.sockaddr[0])
        return f"[{host}]" if ":" in host else host


def literal(host: str, port: int) -> HostAddress | None:
    """Return the address that `host` already is, or None for a name. A zone (`fe80::1%eth0`) has to be looked up."""
    try:
        ip = ipaddress.ip_address("" if "%" in host else host)
    except ValueError:
        return None
    return HostAddress(socket.AF_INET6 if ip.version == 6 else socket.AF_INET, (host, port))


def alternate(addresses: Iterable[HostAddress]) -> list[HostAddress]:
    """Return each address once, families alternating, beginning with the first address's.

    >>> four, six = (lambda n: HostAddress(2, (f"10.0.0.{n}", 1))), (lambda n: HostAddress(10, (f"::{n}", 1)))
    >>> [str(a) for a in alternate([six(1), six(2), six(1), six(3), four(1)])]
    ['[::1]', '10.0.0.1', '[::2]', '[::3]']
    """
    families: dict[int, deque[HostAddress]] = {}
    for address in dict.fromkeys(addresses):
        families.setdefault(address.family, deque()).append(address)
    order: list[HostAddress] = []
    while any(families.values()):
        order += [family.popleft() for family in families.values() if family]
    return order


def describe_problems(problems: Mapping[HostAddress, str]) -> str:
    """Return one line that names the problem of each address."""
    return "; ".join(f"{address}: {problem}" for address, problem in problems.items())


class NameLookup:
    """A name look-up that runs in a thread of its own, which may be left behind.

    Args:
        on_done: called on that thread when the look-up has ended.
    """

    def __init__(self, host: str, port: int, on_done: Callable[[], None] = lambda: None) -> None:
        self.done = threading.Event()
        self._found: list[HostAddress] = []
        self._failed: OSError | None = None
        self._on_done = on_done
        threading.Thread(target=self._run, args=(host, port), name="deploykit-resolver", daemon=True).start()

    def result(self) -> list[HostAddress]:
        """Return the addresses, families alternating.

        Raises:
            OSError: the name has no address, or the resolver failed.
        """
        if self._failed is not None:
            raise self._failed
        return alternate(self._found)

    def _run(self, host: str, port: int) -> None:
        try:
            for family, _, _, _, sockaddr in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                self._found.append(HostAddress(family, sockaddr))
        except (OSError, UnicodeError) as error:
            self._failed = error if isinstance(error, OSError) else OSError(str(error))
        finally:
            self.done.set()
            self._on_done()


class AddressOrder:
    """Remembers which addresses of a name failed, so that the next attempt begins with another. Pure."""

    def __init__(self) -> None:
        self._failed: list[HostAddress] = []
        self._first: HostAddress | None = None

    def copy(self) -> AddressOrder:
        """Return another with the same failures."""
        same = AddressOrder()
        same._failed = list(self._failed)
        return same

    def order(self, addresses: Sequence[HostAddress]) -> list[HostAddress]:
        """Return the addresses in the order to try them, those without a failure first; forget any others."""
        self._failed = [address for address in self._failed if address in addresses]
        order = [address for address in addresses if address not in self._failed] + self._failed
        self._first = order[0] if order else None
        return order

    def failed(self, address: HostAddress) -> None:
        """Put an address last."""
        self.worked(address)
        self._failed.append(address)

    def dropped(self, address: HostAddress) -> None:
        """Put an address that accepted and then dropped us behind those without a failure; the second time, last."""
        if address in self._failed:
            self.failed(address)
        else:
            self._failed.insert(0, address)

    def worked(self, address: HostAddress) -> None:
        """Forget the failure of an address."""
        if address in self._failed:
            self._failed.remove(address)

    def all_failed(self, tried: Sequence[HostAddress]) -> None:
        """Put addresses that were not tried first; else the second of `tried`, since the first has the most time."""
        for address in (*tried[1:], *tried[:1]):
            self.failed(address)


class ConnectionRace:
    """TCP connections to several addresses, each begun a moment after the one before; a context manager.

    It never blocks: call `advance` when `fileno()` is readable, or at `due`. Leaving the context closes connections
    that are not made yet.

    Args:
        addresses: in the order in which to begin.
        seconds: for all of them; where that is little, the addresses follow each other faster.
    """

    def __init__(self, addresses: Sequence[HostAddress], seconds: float) -> None:
        self._waiting = deque(addresses)
        self._pending: dict[int, tuple[HostAddress, socket.socket, float]] = {}
        self._stagger = min(STAGGER, max(0.0, seconds) / (len(addresses) + 1))
        self._next = 0.0
        self._epoll = select.epoll()
        #: The error of each address that refused.
        self.problems: dict[HostAddress, OSError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for _, sock, _ in self._pending.values():
            sock.close()
        self._epoll.close()

    def fileno(self) -> int:
        """Return the descriptor that is readable when `advance` has something to do."""
        return self._epoll.fileno()

    @property
    def left(self) -> int:
        """How many addresses may still answer."""
        return len(self._waiting) + len(self._pending)

    @property
    def due(self) -> float:
        """When to call `advance` although nothing is readable, monotonic time."""
        return self._next if self._waiting else float("inf")

    def advance(self, now: float) -> tuple[HostAddress, socket.socket] | None:
        """Begin what is due. Return the next connection that was made (non-blocking, the caller closes it), or None."""
        for fd, _ in self._epoll.poll(0):
            address, sock, _ = self._pending.pop(fd)
            self._epoll.unregister(fd)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                return address, sock
            sock.close()
            self._refused(address, OSError(code, os.strerror(code)), now)
        while self._waiting and (now >= self._next or not self._pending):
            self._begin(self._waiting.popleft(), now)
        return None

    def wait(self, seconds: float) -> None:
        """Wait until `advance` has something to do, at most `seconds`."""
        self._epoll.poll(max(0.0, seconds), 1)

    def unanswered(self, now: float) -> dict[HostAddress, float]:
        """Return the addresses that have not answered yet, with the seconds since each was begun."""
        return {address: now - begun for address, _, begun in self._pending.values()}

    def not_begun(self) -> list[HostAddress]:
        """Return the addresses that were not begun yet."""
        return list(self._waiting)

    def _begin(self, address: HostAddress, now: float) -> None:
        sock: socket.socket | None = None
        try:
            sock = socket.socket(address.family, socket.SOCK_STREAM)
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            code = sock.connect_ex(address.sockaddr)
            if code not in _IN_PROGRESS:
                raise OSError(code, os.strerror(code))
            self._epoll.register(sock.fileno(), select.EPOLLOUT)
        except OSError as error:
            if sock is not None:
                sock.close()
            self._refused(address, error, now)
        else:
            self._pending[sock.fileno()] = (address, sock, now)
            self._next = now + self._stagger

    def _refused(self, address: HostAddress, error: OSError, now: float) -> None:
        self.problems[address] = error
        self._next = now


def look_up(host: str, port: int, timeout: float) -> list[HostAddress]:
    """Return a host's addresses, families alternating; a host that is an address is not looked up.

    Raises:
        TimeoutError: the resolver does not answer.
        OSError: the name has no address.
    """
    own = literal(host, port)
    if own is not None:
        return [own]
    search = NameLookup(host, port)
    if not search.done.wait(max(0.0, timeout)):
        raise TimeoutError(errno.ETIMEDOUT, "the resolver does not answer")
    return search.result()


def connect(host: str, port: int, timeout: float) -> socket.socket:
    """Return a blocking connection to the first address that answers; look-up and all addresses share the time.

    Raises:
        TimeoutError: none answered in time.
        OSError: all of them refused. `strerror` names the problem of each.
    """
    end = monotonic() + timeout
    addresses = look_up(host, port, timeout)[:MOST_ADDRESSES]
    with ConnectionRace(addresses, end - monotonic()) as race:
        while race.left:
            now = monotonic()
            found = race.advance(now)
            if found is not None:
                found[1].setblocking(True)
                return found[1]
            if now >= end or not race.left:
                break
            race.wait(min(race.due, end) - now)
        late = {address: f"no answer in {seconds:.1f} s" for address, seconds in race.unanswered(monotonic()).items()}
        reasons = late | {address: error.strerror or str(error) for address, error in race.problems.items()}
    reason = describe_problems(reasons) if len(reasons) > 1 else next(iter(reasons.values()), "no address")
    if late or not race.problems:
        raise TimeoutError(errno.ETIMEDOUT, reason)
    raise OSError(next(reversed(race.problems.values())).errno or errno.EIO, reason)


def create_connection(
    address: tuple[str, int], timeout: float, source_address: tuple[str, int] | None = None
) -> socket.socket:
    """`socket.create_connection`, but all addresses of the name share the time: for `http.client`.

    Raises:
        OSError: as `connect`.
    """
    assert source_address is None  # noqa: S101 -- no caller of ours has one
    sock = connect(*address, timeout)
    sock.settimeout(timeout)
    return sock
