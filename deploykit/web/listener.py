"""Sockets that servers listen on, kept over reloads: a new service shares the socket of the one that it replaces.

Rules:

* HUP makes the new service before the old one ends. The socket stays open between them: no connection is refused.
* It is closed when the last one that shares it has let go of it.
"""

from __future__ import annotations

import socket
import threading
import weakref
from typing import Final

from deploykit.daemons.service.listeningsocket import ListeningSocket
from deploykit.settings.service import ListenAddress

#: Connections that may wait until they are accepted: while one service ends and the next one starts, too.
BACKLOG: Final = 256


class _Shared:
    """An open socket, and how many hold it. Used under `_lock`."""

    def __init__(self, opened: ListeningSocket[ListenAddress]) -> None:
        self.opened = opened
        self.holders = 0


#: Taken again by the share that the garbage collector finds while another one is made.
_lock = threading.RLock()
_open: dict[ListenAddress, _Shared] = {}  # by the address as it was asked for


class SharedListener:
    """A share of a listening socket. Close it; a share that is forgotten counts as closed.

    Args:
        address: where; port 0 takes any free one, and keeps it for whoever asks for port 0 of that address meanwhile.
        setting: which setting names the address, for errors: `[web] listen`.

    Raises:
        UsageError: it cannot listen there.
    """

    def __init__(self, address: ListenAddress, *, setting: str) -> None:
        with _lock:
            shared = _share(address)
            if shared is None:
                opened = ListeningSocket(
                    address, setting=setting, remedy=f"choose another address in {setting}", backlog=BACKLOG
                )
                shared = _open[address] = _Shared(opened)
                shared.holders = 1
        #: Where it listens, with the port that was taken for port 0.
        self.address: ListenAddress = shared.opened.address
        self._shared = shared
        self._close = weakref.finalize(self, _let_go, address, shared)

    def socket(self) -> socket.socket:
        """Return the socket once more, for a server that closes it: the listening goes on without that copy."""
        return self._shared.opened.socket.dup()

    @property
    def url(self) -> str:
        """Where people find what listens there; for a UNIX socket its address in the form of the settings."""
        return str(self.address) if self.address.path is not None else f"http://{self.address}/"

    def close(self) -> None:
        """Let go of the socket."""
        self._close()


def _share(address: ListenAddress) -> _Shared | None:
    """Return the open socket with one more holder; None where there is none, or its last holder has just let go."""
    shared = _open.get(address)
    if shared is None:
        return None
    shared.holders += 1
    return shared if shared.opened.socket.fileno() >= 0 else None


def _let_go(asked: ListenAddress, shared: _Shared) -> None:
    with _lock:
        shared.holders -= 1
        if shared.holders == 0:
            shared.opened.close()
            if _open.get(asked) is shared:
                del _open[asked]
