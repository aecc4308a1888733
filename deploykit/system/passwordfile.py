"""The file of names and password hashes: read, checked, read again when it changes, and asked.

Rules:

* An unknown name costs the time of a known one: its password is compared with a hash that nobody has.
* No error and no log line has a hash or a password.
* A file that cannot be used stops the start. While the console runs, the last good one stays, and an error is logged.
* bcrypt knows 72 bytes of a password; a longer one is refused, since its end would not count.
"""

from __future__ import annotations

import hmac
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import SettingsError, WebError
from deploykit.system.secretfile import read_secret_text
from deploykit.system.shacrypt import is_sha_crypt, sha_crypt

_log = logging.getLogger(__name__)

#: Bytes of the longest password that is compared at all.
MOST_PASSWORD: Final = 512
MOST_NAME: Final = 255
_BCRYPT: Final = re.compile(r"\$2[aby]\$(?P<cost>[0-9]{2})\$[./0-9A-Za-z]{53}\Z")
_BCRYPT_BYTES: Final = 72
#: Cost of the slowest bcrypt hash that we compare: some seconds.
_MOST_COST: Final = 15
#: Seconds between two looks whether the file has changed.
_LOOK_EVERY: Final = 1.0
#: For a file without names.
_NOBODYS: Final = "$2b$12$" + "." * 53


@attrs.frozen(kw_only=True, slots=True)
class PasswordTable:
    """Names with their hashes."""

    hashes: Mapping[str, str] = attrs.field(repr=False)

    def check(self, name: str, password: str) -> bool:
        """Return whether the password is that of the name. Takes as long whether or not there is such a name.

        Raises:
            WebError: the package bcrypt is missing.
        """
        stored = self.hashes.get(name)
        fits = _fits(password.encode(errors="replace"), stored or self._nobodys(name))
        return fits and stored is not None

    def _nobodys(self, name: str) -> str:
        """Return a hash that no password has in practice, of the kind and cost of some name's in the table.

        An unknown name always gets the same one, so that its time looks like that of a name that is known.
        """
        all_ = list(self.hashes.values()) or [_NOBODYS]
        like = all_[hash(name) % len(all_)]
        head, _, digest = like.rpartition("$")
        # bcrypt's last part begins with the salt, 22 characters.
        kept = digest[:22] if like.startswith("$2") else ""
        return f"{head}${kept}{'.' * (len(digest) - len(kept))}"


def _fits(password: bytes, stored: str) -> bool:
    usable = 0 < len(password) <= MOST_PASSWORD and b"\0" not in password
    candidate = password if usable else b"-"
    if stored.startswith("$2"):
        usable = usable and len(candidate) <= _BCRYPT_BYTES
        fits = _bcrypt_fits(candidate[:_BCRYPT_BYTES], stored)
    else:
        fits = hmac.compare_digest(sha_crypt(candidate, stored), stored)
    return fits and usable


def _bcrypt_fits(password: bytes, stored: str) -> bool:
    try:
        import bcrypt
    except ImportError:
        raise WebError("bcrypt hashes need the package bcrypt", "pip install 'deploykit[web]'") from None
    return bcrypt.checkpw(password, stored.encode())


def read_passwords(path: Path, setting: str = "password_file") -> PasswordTable:
    """Return the table of a file that only its owner and its group may read.

    Args:
        path: the file.
        setting: the setting that names it, for errors.

    Raises:
        SettingsError: it cannot be read, others may read it, or a line is wrong.
    """
    return parse_passwords(read_secret_text(path, setting), setting)


def parse_passwords(text: str, setting: str = "password_file") -> PasswordTable:
    """Return the table of a file's text: lines `NAME:HASH`, empty lines, and comments after `#`.

    Raises:
        SettingsError: with all that is wrong, by numbers of lines, never with a hash.
    """
    hashes: dict[str, str] = {}
    problems = list(_read_lines(text, hashes))
    if not hashes and not problems:
        problems.append("no line NAME:HASH")
    if problems:
        lines = tuple(f"{setting}: {problem}" for problem in problems)
        raise SettingsError("; ".join(lines), "write its lines with: htpasswd -B -C 12 FILE NAME", problems=lines)
    return PasswordTable(hashes=hashes)


def _read_lines(text: str, hashes: dict[str, str]) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, stored = line.rstrip().partition(":")
        if not colon or not is_login_name(name):
            yield f"line {number}: expected NAME:HASH"
        elif name in hashes:
            yield f"line {number}: {name!a} stands twice"
        elif not _usable(stored):
            yield f"line {number}: the hash of {name!a} is not bcrypt ($2b$), SHA-256 ($5$) or SHA-512 crypt ($6$)"
        else:
            hashes[name] = stored


def _usable(stored: str) -> bool:
    found = _BCRYPT.match(stored)
    return 4 <= int(found["cost"]) <= _MOST_COST if found is not None else is_sha_crypt(stored)


def is_login_name(name: str) -> bool:
    """Return whether a text can be the name of a person: printable, without spaces at its ends, not too long."""
    return 0 < len(name) <= MOST_NAME and name.isprintable() and name == name.strip()


class PasswordFile:
    """The file, as it is now. Use it from any thread.

    Args:
        path: the file.
        setting: the setting that names it, for errors.
        clock: monotonic seconds.

    Raises:
        SettingsError: it cannot be read or used, or others may read it.
    """

    def __init__(
        self, path: Path, *, setting: str = "web.password_file", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._setting = setting
        self._clock = clock
        self._lock = threading.Lock()
        self._stamp = self._stamp_now()
        self._table = read_passwords(path, setting)
        self._looked = clock()

    @property
    def table(self) -> PasswordTable:
        """What the file holds; at most a second old."""
        with self._lock:
            if self._clock() >= self._looked + _LOOK_EVERY:
                self._looked = self._clock()
                self._look()
            return self._table

    def _look(self) -> None:
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._table = read_passwords(self._path, self._setting)
        except SettingsError as error:
            _log.error("the passwords stay as they were: %s", error)
        else:
            _log.info("read %s again: %d names", self._path, len(self._table.hashes))

    def _stamp_now(self) -> tuple[int, ...]:
        """Return what changes with the file; empty: there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode, found.st_ctime_ns


__all__ = ["MOST_PASSWORD", "PasswordFile", "PasswordTable", "is_login_name", "parse_passwords", "read_passwords"]
