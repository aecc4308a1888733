"""Keys that put records in order.

A record put after another one must sort after it, also across users and processes. The wall clock cannot promise that
(it is set back by an hour, or by NTP). A shared counter needs a lock that any writer could hold for ever. Looking for
the highest name on each put costs more with every record. So:

    key = anchor + CLOCK_BOOTTIME, in nanoseconds

CLOCK_BOOTTIME is the same for every process of the machine and never goes back. The anchor is fixed once per boot,
by the spool's owner: the wall time at boot, or one more than the highest key that an earlier boot left in the spool.
It is kept as the target of a symbolic link, `.clock-<boot id>`: made in one system call, whole or not there, and of no
use after the next boot, so it needs no fsync. It is never followed.

Whoever made the anchor can make it again, lower, and so put later records before earlier ones. It counts only where the
spool's owner or root made it; they replace any other one. Until they have (the owner's relay does it when it reads the
spool) other users look for the highest name.

Records that are put at the same time may come in either order.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploykit.outbox.directory import Spool

KEY_DIGITS = 20
#: Prefix of the name of a boot's anchor.
ANCHOR = ".clock-"
SUFFIX = ".rec"
#: Length of `<key>-<token>`, the name of a record file without its suffix.
STEM_LENGTH = KEY_DIGITS + 1 + 8

# Centuries ahead, and still within the digits: a key beyond it was not made by `new_stem`, and is ignored.
_LIMIT = 9 * 10 ** (KEY_DIGITS - 1)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def new_stem(spool: Spool) -> str:
    """Return the name, without suffix, of a record file put now."""
    return f"{anchor(spool) + time.clock_gettime_ns(time.CLOCK_BOOTTIME):0{KEY_DIGITS}d}-{os.urandom(4).hex()}"


def is_stem(text: str) -> bool:
    """Return whether `text` is the name of a record file without its suffix."""
    key, dash, token = text[:KEY_DIGITS], text[KEY_DIGITS : KEY_DIGITS + 1], text[KEY_DIGITS + 1 :]
    return (
        len(text) == STEM_LENGTH
        and dash == "-"
        and key.isascii()
        and key.isdigit()
        and not token.strip("0123456789abcdef")
    )


def is_record_name(name: str) -> bool:
    """Return whether `name` is the name of a record file."""
    return name.endswith(SUFFIX) and is_stem(name[: -len(SUFFIX)])


def is_dead_name(name: str) -> bool:
    """Return whether `name` is the name of a dead letter in `dead/`: `<stem>.<number>.rec`."""
    stem, _, number = name.removesuffix(SUFFIX).partition(".")
    return name.endswith(SUFFIX) and is_stem(stem) and number.isascii() and number.isdigit()


def anchor(spool: Spool) -> int:
    """Return the anchor of this boot's keys, in nanoseconds; the spool's owner and root make it where none counts."""
    wall = max(0, time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    name = f"{ANCHOR}{_boot_id()}"
    if name == ANCHOR:
        return wall
    found = _trusted_anchor(spool, name)
    if found is not None:
        return found
    # The highest key is read before the anchor is fixed: all records of this boot come after it.
    made = max(wall, _highest(spool.fd) + 1 - time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    if spool.settles_all:
        for _ in (1, 2):
            try:
                os.symlink(str(made), name, dir_fd=spool.fd)
                break
            except FileExistsError:
                if (found := _trusted_anchor(spool, name)) is not None:
                    return found  # another process was first
            except OSError:
                break
            _clear(spool, name)
    return made


def _clear(spool: Spool, name: str) -> None:
    try:
        spool.clear(name)
    except OSError:
        return  # the anchor is tried once more


def _trusted_anchor(spool: Spool, name: str) -> int | None:
    """Return the anchor that the spool's owner or root made; None where there is none."""
    try:
        # One descriptor for both looks: the owner and the target are those of the same link.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=spool.fd)
    except OSError:
        return None
    try:
        if not spool.trusts(os.fstat(fd).st_uid):
            return None
        target = os.readlink("", dir_fd=fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    good = target.isascii() and target.isdigit() and len(target) <= KEY_DIGITS and int(target) < _LIMIT
    return int(target) if good else None


def _boot_id() -> str:
    try:
        fd = os.open(_BOOT_ID, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 64).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def _highest(spool: int) -> int:
    with os.scandir(spool) as entries:
        keys = (int(entry.name[:KEY_DIGITS]) for entry in entries if is_record_name(entry.name))
        return max((key for key in keys if key < _LIMIT), default=0)
