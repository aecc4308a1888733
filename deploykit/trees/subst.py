"""`export-subst`: expand `$Format:...$` in a file as `git archive` does.

Placeholders for the commit itself are supported. Those that need refs, notes or other commits are refused by name: a
file must not differ from what git would write.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from dulwich.objects import Commit

from deploykit.errors import TreeError
from deploykit.git.commits import commit_of

if TYPE_CHECKING:
    from dulwich.object_store import BaseObjectStore

_FORMAT: Final = re.compile(rb"\$Format:([^$\n]*)\$")
_PLACEHOLDER: Final = re.compile(rb"%(a[nNeElLdDtiIs]|c[nNeElLdDtiIs]|x[0-9a-fA-F]{2}|.?)", re.DOTALL)
_MIN_ABBREV: Final = 7
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Substitution:
    """Expands the formats of one commit."""

    def __init__(self, store: BaseObjectStore, commit: str) -> None:
        self._store = store
        self._commit = commit_of(store, commit.encode())
        self._abbrev = _default_abbrev(store)
        self._plain: dict[bytes, bytes] = {
            b"H": self._commit.id,
            b"T": self._commit.tree,
            b"P": b" ".join(self._commit.parents),
            b"s": _subject(self._commit.message),
            b"n": b"\n",
            b"%": b"%",
        }

    def expand(self, content: bytes) -> bytes:
        """Return `content` with every format expanded.

        Raises:
            TreeError: a placeholder that is not supported.
        """
        return _FORMAT.sub(lambda found: _PLACEHOLDER.sub(self._one, found[1]), content)

    def _one(self, found: re.Match[bytes]) -> bytes:
        what = found[1]
        if what[:1] == b"x" and len(what) == 3:
            return bytes([int(what[1:], 16)])
        if len(what) == 2 and what[:1] in (b"a", b"c"):
            return self._person(what)
        if what in self._plain:
            return self._plain[what]
        known: dict[bytes, Callable[[], bytes]] = {
            b"h": lambda: self._short(self._commit.id),
            b"t": lambda: self._short(self._commit.tree),
            b"p": lambda: b" ".join(self._short(p) for p in self._commit.parents),
        }
        if what not in known:
            raise TreeError(
                f"export-subst: the placeholder %{what.decode('ascii', 'replace')} is not supported",
                "use %H, %h, %T, %t, %P, %p, %s, %an, %ae, %ad, %ai, %aI, %at, %as or their %c counterparts",
            )
        return known[what]()

    def _person(self, what: bytes) -> bytes:
        commit: Commit = self._commit
        author = what[:1] == b"a"
        who = commit.author if author else commit.committer
        when = commit.author_time if author else commit.commit_time
        zone = commit.author_timezone if author else commit.commit_timezone
        name, _, rest = who.partition(b"<")
        email = rest.partition(b">")[0]
        values: dict[bytes, bytes] = {
            b"n": name.strip(),
            b"e": email,
            b"l": email.partition(b"@")[0],
            b"t": b"%d" % when,
            b"d": _git_date(when, zone),
            b"D": _rfc_date(when, zone),
            b"i": _iso_date(when, zone, strict=False),
            b"I": _iso_date(when, zone, strict=True),
            b"s": _local(when, zone).strftime("%Y-%m-%d").encode(),
        }
        # N, E, L would look into a .mailmap, which a bare mirror does not have.
        return values[what[1:].lower() if what[1:] in (b"N", b"E", b"L") else what[1:]]

    def _short(self, oid: bytes) -> bytes:
        """Return the shortest unambiguous prefix, at least as long as git would take."""
        for length in range(self._abbrev, len(oid)):
            fitting = set()
            for other in self._store.iter_prefix(oid[:length]):
                fitting.add(other)
                if len(fitting) > 1:
                    break
            if len(fitting) <= 1:
                return oid[:length]
        return oid


def _default_abbrev(store: BaseObjectStore) -> int:
    """Return git's own default length: a collision among this many objects is unlikely."""
    count = sum(len(pack.index) for pack in store.packs)
    return max(_MIN_ABBREV, (count.bit_length() + 1) // 2)


def _subject(message: bytes) -> bytes:
    """Return the first paragraph on one line."""
    paragraph = re.split(rb"\n[ \t]*\n", message.lstrip(b"\n"), maxsplit=1)[0]
    return b" ".join(line.rstrip() for line in paragraph.strip(b"\n").split(b"\n"))


def _local(when: int, zone: int) -> datetime:
    return datetime.fromtimestamp(when, UTC).astimezone(timezone(timedelta(seconds=zone)))


def _offset(zone: int, *, colon: bool) -> str:
    sign = "-" if zone < 0 else "+"
    hours, minutes = divmod(abs(zone) // 60, 60)
    return f"{sign}{hours:02d}{':' if colon else ''}{minutes:02d}"


def _git_date(when: int, zone: int) -> bytes:
    at = _local(when, zone)
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    return f"{day} {month} {at.day} {at:%H:%M:%S} {at.year} {_offset(zone, colon=False)}".encode()


def _rfc_date(when: int, zone: int) -> bytes:
    at = _local(when, zone)
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]
    return f"{day}, {at.day} {month} {at.year} {at:%H:%M:%S} {_offset(zone, colon=False)}".encode()


def _iso_date(when: int, zone: int, *, strict: bool) -> bytes:
    at = _local(when, zone)
    if strict:
        return f"{at:%Y-%m-%dT%H:%M:%S}{'Z' if zone == 0 else _offset(zone, colon=True)}".encode()
    return f"{at:%Y-%m-%d %H:%M:%S} {_offset(zone, colon=False)}".encode()
