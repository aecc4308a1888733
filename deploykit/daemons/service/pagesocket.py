"""The listening socket of the pages: a loopback port, or a UNIX socket that replaces a dead process' one.

Rules:

* A socket of a living process is an error. What is no socket is never removed.
* A UNIX socket has its mode before anyone can connect: it is bound under another name, and renamed at the end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Final

from deploykit.errors import UsageError
from deploykit.settings.service import PagesAddress
from deploykit.system.listening import port_error

#: Connections that may wait until they are accepted.
_BACKLOG: Final = 16
#: Owner and group may ask: nobody else.
_MODE: Final = 0o660


class PagesSocket:
    """A socket that listens. Close it; a UNIX socket's name is removed then, unless it is another's by now.

    Args:
        address: where. Port 0 takes a free port.

    Raises:
        UsageError: it cannot listen there.
    """

    def __init__(self, address: PagesAddress) -> None:
        self.address = address
        self._made: tuple[int, int] | None = None
        if address.path is not None:
            self.socket = self._listen_at(address.path)
        else:
            self.socket = _listen_on(address)
            host, port = self.socket.getsockname()[:2]
            self.address = PagesAddress(host=host, port=port)
        self.socket.setblocking(False)

    def _listen_at(self, path: Path) -> socket.socket:
        _check_free(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            with contextlib.suppress(FileNotFoundError):  # of a process with our pid that was killed
                temporary.unlink()
            made.bind(str(temporary))
            temporary.chmod(_MODE)
            found = temporary.lstat()
            self._made = (found.st_dev, found.st_ino)
            made.listen(_BACKLOG)
            temporary.rename(path)
        except OSError as error:
            made.close()
            with contextlib.suppress(OSError):  # it may not have been made
                temporary.unlink()
            reason = error.strerror or str(error)
            raise UsageError(
                f"cannot listen on {path}: {reason}",
                "the directory must be there, and writable for the user deploykit runs as",
            ) from error
        return made

    def close(self) -> None:
        """Stop listening."""
        self.socket.close()
        path = self.address.path
        if path is None:
            return
        with contextlib.suppress(OSError):  # gone, or not ours any more
            found = path.lstat()
            if (found.st_dev, found.st_ino) == self._made:
                path.unlink()


def _listen_on(address: PagesAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a process before may linger
        made.bind((address.host, address.port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        found = port_error(address.host, address.port, error)
        raise UsageError(
            f"[service] listen: {found.problem}",
            "stop what uses it, or give each daemon an address of its own in [service.listen_of]",
        ) from error
    return made


def _check_free(path: Path) -> None:
    """Make sure that nothing but a dead process' socket has this name.

    Raises:
        UsageError: a process listens there, or it is no socket.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(
            f"[service] listen: cannot look at {path}: {error.strerror}", "choose another directory"
        ) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise UsageError(f"[service] listen: {path} is in the way: it is no socket", "move it away, or choose another")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.setblocking(False)
        try:
            caller.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except BlockingIOError:
            pass  # so many wait there that there is no room for one more: a process listens
        except OSError as error:
            raise UsageError(
                f"[service] listen: cannot find out whether {path} is in use: {error.strerror}",
                "remove it where no daemon uses it, or choose another",
            ) from error
    raise UsageError(
        f"[service] listen: {path} is in use by a running process",
        "stop it, or give each daemon an address of its own in [service.listen_of]",
    )
