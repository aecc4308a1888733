"""Keys that put records in order.

A record put after another one was put must sort after it, whoever put it. The wall clock cannot promise that (it is
set back by an hour, or by NTP), a shared counter needs a lock that any writer could hold for ever, and looking for
the highest name on each put costs more with every record. So:

    key = anchor + CLOCK_BOOTTIME, in nanoseconds

CLOCK_BOOTTIME is the same for every process of the machine and never goes back. The anchor is fixed once per boot,
by whoever puts first: the wall time at boot, or one more than the highest key that an earlier boot left in the spool.
It is kept as the target of a symbolic link, `.clock-<boot id>`: made and read in one system call each, whole or not
there, and of no use after the next boot, so it needs no fsync. Nothing is ever opened through it.

Writers that put at the same time have no order between them, and get any.
"""

from __future__ import annotations

import os
import time

KEY_DIGITS = 20
SUFFIX = ".rec"
#: `<key>-<token>`: what a record file is called, without its suffix.
STEM_LENGTH = KEY_DIGITS + 1 + 8

# Centuries ahead, and still within the digits: beyond it is somebody's joke, and no anchor follows it there.
_LIMIT = 9 * 10 ** (KEY_DIGITS - 1)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def new_stem(spool: int) -> str:
    """Return the name, without suffix, for a record put now in the directory open as `spool`."""
    return f"{_anchor(spool) + time.clock_gettime_ns(time.CLOCK_BOOTTIME):0{KEY_DIGITS}d}-{os.urandom(4).hex()}"


def is_stem(text: str) -> bool:
    """Tell whether `text` is a name this module made."""
    key, dash, token = text[:KEY_DIGITS], text[KEY_DIGITS : KEY_DIGITS + 1], text[KEY_DIGITS + 1 :]
    return (
        len(text) == STEM_LENGTH
        and dash == "-"
        and key.isascii()
        and key.isdigit()
        and not token.strip("0123456789abcdef")
    )


def is_record_name(name: str) -> bool:
    """Tell whether a directory entry is called like a record file."""
    return name.endswith(SUFFIX) and is_stem(name[: -len(SUFFIX)])


def is_dead_name(name: str) -> bool:
    """Tell whether an entry of `dead/` is called like a dead letter: `<stem>.<number>.rec`."""
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
        # The highest key is looked for before the anchor is fixed: what this boot puts all comes after.
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
