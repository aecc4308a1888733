"""Keys that put records in order.

A record put after another one must sort after it, also across users and processes. The wall clock cannot promise that
(it is set back by an hour, or by NTP). A shared counter needs a lock that any writer could hold for ever. Looking for
the highest name on each put costs more with every record. So:

    key = anchor + CLOCK_BOOTTIME, in nanoseconds

CLOCK_BOOTTIME is the same for every process of the machine and never goes back. The anchor is fixed once per boot,
by the first writer: the wall time at boot, or one more than the highest key that an earlier boot left in the spool.
It is kept as the target of a symbolic link, `.clock-<boot id>`: made and read in one system call each, whole or not
there, and of no use after the next boot, so it needs no fsync. It is never followed.

Records that are put at the same time may come in either order.
"""

from __future__ import annotations

import os
import time

KEY_DIGITS = 20
SUFFIX = ".rec"
#: Length of `<key>-<token>`, the name of a record file without its suffix.
STEM_LENGTH = KEY_DIGITS + 1 + 8

# Centuries ahead, and still within the digits: a key beyond it was not made by `new_stem`, and is ignored.
_LIMIT = 9 * 10 ** (KEY_DIGITS - 1)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def new_stem(spool: int) -> str:
    """Return the name, without suffix, of a record file put now.

    Args:
        spool: descriptor of the spool directory.
    """
    return f"{_anchor(spool) + time.clock_gettime_ns(time.CLOCK_BOOTTIME):0{KEY_DIGITS}d}-{os.urandom(4).hex()}"


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


def _anchor(spool: int) -> int:
    wall = max(0, time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME))
    name = f".clock-{_boot_id()}"
    if name == ".clock-":
        return wall
    try:
        found = os.readlink(name, dir_fd=spool)
    except FileNotFoundError:
        # The highest key is read before the anchor is fixed: all records of this boot come after it.
        target = max(wall, _highest(spool) + 1 - time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        try:
            os.symlink(str(target), name, dir_fd=spool)
        except FileExistsError:
            found = os.readlink(name, dir_fd=spool)
        else:
            return target
    except OSError:
        return wall
    if found.isascii() and found.isdigit() and len(found) <= KEY_DIGITS and int(found) < _LIMIT:
        return int(found)
    return wall


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
