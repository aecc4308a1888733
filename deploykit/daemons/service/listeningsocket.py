"""A listening socket: a port, or a UNIX socket that replaces a dead process' one.

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
from typing import Final, Generic, TypeVar

import attrs

from deploykit.errors import UsageError
from deploykit.settings.service import ListenAddress, PagesAddress
from deploykit.system.listening import port_error

#: Connections to the pages that may wait until they are accepted.
_BACKLOG: Final = 16
_Address = TypeVar("_Address", PagesAddress, ListenAddress)
_PAGES: Final = "[service] listen"
_PAGES_REMEDY: Final = "give each daemon an address of its own in [service.listen_of]"
#: Owner and group may ask: nobody else.
_MODE: Final = 0o660


class ListeningSocket(Generic[_Address]):
    """A socket that listens. Close it; a UNIX socket's name is removed then, unless it is another's by now.

    Args:
        address: where. Port 0 takes a free port.
        setting, remedy: for errors: which setting names the address, and what to do where it is in use.
        backlog: connections that may wait until they are accepted.

    Raises:
        UsageError: it cannot listen there.
    """

    def __init__(
        self,
        address: _Address,
        *,
        setting: str = _PAGES,
        remedy: str = _PAGES_REMEDY,
        backlog: int = _BACKLOG,
    ) -> None:
        self.address: _Address = address
        self._setting = setting
        self._remedy = remedy
        self._backlog = backlog
        self._made: tuple[int, int] | None = None
        if address.path is not None:
            self.socket = self._listen_at(address.path)
        else:
            self.socket = self._listen_on(address.host, address.port)
            host, port = self.socket.getsockname()[:2]
            self.address = attrs.evolve(address, host=host, port=port)
        self.socket.setblocking(False)

    def _listen_at(self, path: Path) -> socket.socket:
        self._check_free(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        temporary = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            with contextlib.suppress(FileNotFoundError):  # of a process with our pid that was killed
                temporary.unlink()
            made.bind(str(temporary))
            temporary.chmod(_MODE)
            found = temporary.lstat()
            self._made = (found.st_dev, found.st_ino)
            made.listen(self._backlog)
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

    def _listen_on(self, host: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a process before may linger
            made.bind((host, port))
            made.listen(self._backlog)
        except OSError as error:
            made.close()
            found = port_error(host, port, error)
            raise UsageError(f"{self._setting}: {found.problem}", f"stop what uses it, or {self._remedy}") from error
        return made

    def _check_free(self, path: Path) -> None:
        """Make sure that nothing but a dead process' socket has this name.

        Raises:
            UsageError: a process listens there, or it is no socket.
        """
        where = f"{self._setting}: "
        try:
            found = path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise UsageError(f"{where}cannot look at {path}: {error.strerror}", "choose another directory") from error
        if not stat.S_ISSOCK(found.st_mode):
            raise UsageError(f"{where}{path} is in the way: it is no socket", "move it away, or choose another")
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
                    f"{where}cannot find out whether {path} is in use: {error.strerror}",
                    "remove it where no daemon uses it, or choose another",
                ) from error
        raise UsageError(f"{where}{path} is in use by a running process", f"stop it, or {self._remedy}")

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
