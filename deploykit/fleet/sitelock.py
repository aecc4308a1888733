"""One rollout per site: a lock whose file says who holds it, since when, and for which rollout.

Rules:

* flock(2): it ends with its holder, whatever kills that. There is no unlock command, and none is needed.
* The text in the file is for people. Whether the lock is held is asked of the kernel alone.
* One lock for a site, not one for each node: it is taken where rollouts are coordinated.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import attrs

from deploykit.errors import LockBusy, RolloutBusy, RolloutError
from deploykit.messages.base import one_line
from deploykit.names import SiteName
from deploykit.system.durable import write_all
from deploykit.system.lock import FileLock

#: Most bytes of a lock file that are read.
_MOST: Final = 4096


@attrs.frozen(kw_only=True, slots=True)
class LockHolder:
    """Who coordinates a rollout of a site.

    Args:
        rollout: its id.
        by: the user.
        host, pid: the process.
        since: RFC 3339.
    """

    rollout: str
    by: str
    since: str
    host: str = attrs.field(factory=socket.gethostname)
    pid: int = attrs.field(factory=os.getpid)

    def __str__(self) -> str:
        return one_line(f"{self.rollout} by {self.by} on {self.host} (pid {self.pid}) since {self.since}")


class SiteLock:
    """Holds a site's lock while its `with` block runs.

    Args:
        directory: where rollouts are kept.
        site: whose lock it is.
        holder: what to write into it.

    Raises:
        RolloutBusy: (on entering) another rollout of the site is coordinated now.
        RolloutError: (on entering) the directory cannot be written, or everybody may write it.
    """

    def __init__(self, directory: Path, site: SiteName, holder: LockHolder) -> None:
        self._path = lock_path(directory, site)
        self._site = site
        self._holder = holder
        self._lock = FileLock(self._path, wait=1.0, quiet=2.0, named=False)

    def __enter__(self) -> Self:
        try:
            self._path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_mode(self._path.parent.parent)
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            self._lock.__enter__()
        except LockBusy:
            raise _busy(self._site, read_holder(self._path)) from None
        except OSError as error:
            raise RolloutError(
                f"{self._path} cannot be locked: {error.strerror}",
                "set `rollouts` in the settings to a directory that you may write",
            ) from error
        text = json.dumps(attrs.asdict(self._holder)).encode() + b"\n"
        try:
            os.ftruncate(self._lock.fd, 0)
            os.lseek(self._lock.fd, 0, os.SEEK_SET)
            write_all(self._lock.fd, text)
        except OSError as error:
            self._lock.__exit__(None, None, None)
            raise RolloutError(f"{self._path} cannot be written: {error.strerror}", "free the disk") from error
        return self

    def _check_mode(self, directory: Path) -> None:
        if directory.stat().st_mode & stat.S_IWOTH:
            raise RolloutError(
                f"{directory} can be written by everybody: anybody could leave the journal of a rollout there",
                f"chmod o-w {directory}, or set `rollouts` in the settings to another directory",
            )

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._lock.__exit__(kind, error, tb)


def lock_path(directory: Path, site: SiteName) -> Path:
    """Return where a site's lock file is."""
    return directory / "locks" / f"{site}.lock"


def read_holder(path: Path) -> LockHolder | None:
    """Return what a lock file says, whether it is held or not; None where it says nothing that can be read."""
    try:
        with path.open("rb") as file:
            value = json.loads(file.read(_MOST))
        return LockHolder(**value) if isinstance(value, dict) else None
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _busy(site: SiteName, holder: LockHolder | None) -> RolloutBusy:
    if holder is None:
        return RolloutBusy(f"another rollout of {site} runs on this machine", "see `deploykit rollout list`")
    return RolloutBusy(
        f"another rollout of {site} runs: {holder}",
        f"follow it: `deploykit rollout show {holder.rollout}`; end it: `deploykit rollout abort {holder.rollout}`",
    )


__all__ = ["LockHolder", "SiteLock", "lock_path", "read_holder"]
