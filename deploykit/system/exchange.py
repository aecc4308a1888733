"""Two names exchanged in one step (renameat2 with RENAME_EXCHANGE): at no instant is either of them missing."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import Final

_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100
#: Errors of an exchange that no second try helps against: the kernel, the file system or the place cannot do it.
IMPOSSIBLE: Final = (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EBUSY)


def mount_of(path: Path) -> tuple[int, int]:
    """Return the device and the mount that a path is on, symlinks followed: a rename goes only where both are the same.

    A directory that is mounted once more (`mount --bind`) has the same device, and no rename goes there.

    Raises:
        OSError: it cannot be looked at.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
        number = next((int(line.split(":")[1]) for line in lines if line.startswith("mnt_id:")), 0)
        return os.fstat(fd).st_dev, number
    finally:
        os.close(fd)


def exchange(one: Path | str, other: Path | str, *, at: int | None = None, there: int | None = None) -> None:
    """Exchange what two names of one file system stand for, whatever it is; symlinks are not followed.

    Args:
        at, there: the open directories that the names are in; else they are paths.

    Raises:
        OSError: one of them is missing, they are on two file systems (EXDEV), or the kernel or the file system cannot
            do it (ENOSYS, EINVAL).
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(one)) from None
    rename.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    rename.restype = ctypes.c_int
    first, second = _AT_FDCWD if at is None else at, _AT_FDCWD if there is None else there
    if rename(first, os.fsencode(one), second, os.fsencode(other), _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))
