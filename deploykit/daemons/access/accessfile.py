"""The text of an access file: which users stand in it, and the same text with one more or one less. Pure.

    alice:$6$salt$digest:deploykit-until=20261231T120000Z                htpasswd: nginx, Apache
        user alice password $6$salt$digest # deploykit-until=2026…       a userlist of haproxy

Rules:

* Our lines carry a mark with the end of the access. So a lost state file costs nothing, and nothing lasts for ever.
* A line without our mark is somebody else's: it is kept byte for byte, and its user is not ours to change.
* Of two lines for one user the first counts, as it does for all three servers.
* No blank stands behind a hash in an htpasswd file: nginx would refuse the password.
* Apache looks at no blank before a name, nor do we. It joins a line that ends in a backslash to the next one: refused.
"""

from __future__ import annotations

import contextlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

import attrs

from deploykit.errors import AccessError
from deploykit.settings.access import AccessSiteSettings

_MARK: Final = "deploykit-until="
_WHEN: Final = "%Y%m%dT%H%M%SZ"
_MARKED: Final = re.compile(rf"{_MARK}(?P<when>[0-9]{{8}}T[0-9]{{6}}Z)\Z", re.ASCII)
#: What may stand in a file at all: this is more than any message lets through.
_NAME: Final = re.compile(r"[A-Za-z0-9._@+][A-Za-z0-9._@+-]{0,63}\Z", re.ASCII)
_HASH: Final = re.compile(r"\$[A-Za-z0-9./=$,]{8,255}\Z", re.ASCII)
_BLANKS: Final = " \t\v\f"
#: Words that begin a section of haproxy's configuration.
_SECTIONS: Final = frozenset(
    [
        "global",
        "defaults",
        "frontend",
        "backend",
        "listen",
        "userlist",
        "peers",
        "mailers",
        "resolvers",
        "program",
        "http-errors",
        "cache",
        "ring",
        "log-forward",
        "log-profile",
        "fcgi-app",
        "crt-store",
        "traces",
        "acme",
    ]
)


@attrs.frozen(kw_only=True, slots=True)
class FileUser:
    """A user of an access file.

    Args:
        hash: of the password.
        until: when the access ends; None for a line that is not ours.
        line: its place in the file, from 0.
    """

    user: str
    hash: str = attrs.field(repr=False)
    until: datetime | None
    line: int

    @property
    def ours(self) -> bool:
        """Whether the line is ours."""
        return self.until is not None


class FileForm(ABC):
    """How users stand in a kind of file."""

    @abstractmethod
    def users(self, content: bytes) -> tuple[FileUser, ...]:
        """Return the users of a file, in its order; the same name may come twice.

        Raises:
            AccessError: the file has no place for users.
        """

    @abstractmethod
    def line(self, user: str, hash: str, until: datetime) -> str:
        """Return our line for a user, without its line end."""

    @abstractmethod
    def place(self, lines: Sequence[str]) -> int:
        """Return where a new line goes.

        Raises:
            AccessError: there is no place for it.
        """


class HtpasswdForm(FileForm):
    """A password file of nginx or Apache: `NAME:HASH`, and behind another colon what no server looks at."""

    def users(self, content: bytes) -> tuple[FileUser, ...]:
        """Return the users of a file; see the base class."""
        return tuple(self._users(_lines(content)))

    def _users(self, lines: Sequence[str]) -> Iterator[FileUser]:
        for at, line in enumerate(lines):
            text = line.rstrip("\r\n").lstrip(_BLANKS)
            if not text.strip() or text.startswith("#"):
                continue
            user, colon, rest = text.partition(":")
            if colon:
                hash, _, more = rest.partition(":")
                yield FileUser(user=user, hash=hash, until=_until(more), line=at)

    def line(self, user: str, hash: str, until: datetime) -> str:
        """Return our line for a user."""
        return f"{user}:{hash}:{_mark(until)}"

    def place(self, lines: Sequence[str]) -> int:
        """Return where a new line goes: at the end."""
        if lines and lines[-1].rstrip("\r\n").endswith("\\"):
            raise AccessError("the last line ends in a backslash: Apache would join ours to it", "remove the backslash")
        return len(lines)


@attrs.frozen(slots=True)
class UserlistForm(FileForm):
    """A `userlist` of haproxy, in a file that may hold other sections too."""

    userlist: str

    def users(self, content: bytes) -> tuple[FileUser, ...]:
        """Return the users of the userlist; see the base class."""
        lines = _lines(content)
        first, end = self._section(lines)
        return tuple(self._users(lines, first, end))

    def _users(self, lines: Sequence[str], first: int, end: int) -> Iterator[FileUser]:
        for at in range(first, end):
            code, _, comment = lines[at].strip().partition("#")
            words = code.split()
            if len(words) >= 2 and words[0] == "user":
                hash = words[3] if len(words) >= 4 and words[2] in ("password", "insecure-password") else ""
                yield FileUser(user=_unquoted(words[1]), hash=hash, until=_until(comment.strip()), line=at)

    def line(self, user: str, hash: str, until: datetime) -> str:
        """Return our line for a user. The hash stands without quotes: in them haproxy reads `$6` as a variable."""
        return f"\tuser {user} password {hash} # {_mark(until)}"

    def place(self, lines: Sequence[str]) -> int:
        """Return where a new line goes: behind the last line of the section that is not blank."""
        first, end = self._section(lines)
        while end > first and not lines[end - 1].strip():
            end -= 1
        return end

    def _section(self, lines: Sequence[str]) -> tuple[int, int]:
        """Return the first line behind the section's head, and the line behind its last."""
        heads = [(at, line.partition("#")[0].split()) for at, line in enumerate(lines)]
        starts = [(at, words) for at, words in heads if words and words[0] in _SECTIONS]
        for number, (at, words) in enumerate(starts):
            if words[0] == "userlist" and len(words) > 1 and _unquoted(words[1]) == self.userlist:
                return at + 1, starts[number + 1][0] if number + 1 < len(starts) else len(lines)
        raise AccessError(
            f"there is no userlist {self.userlist} in the file", f"add a line `userlist {self.userlist}` to it"
        )


def form_of(settings: AccessSiteSettings) -> FileForm:
    """Return how users stand in a site's file."""
    return UserlistForm(settings.userlist) if settings.kind == "haproxy" else HtpasswdForm()


def find_user(users: Sequence[FileUser], user: str) -> FileUser | None:
    """Return the line that counts for a user; None where there is none."""
    return next((each for each in users if each.user == user), None)


def with_user(content: bytes, form: FileForm, user: str, hash: str, until: datetime) -> bytes:
    """Return a file in which our line for a user has this hash and this end; the line may be new.

    Raises:
        AccessError: somebody else's line names the user; the name or the hash cannot stand there; there is no place.
    """
    if not _NAME.match(user) or not _HASH.match(hash):
        raise AccessError(f"the name {user[:80]!a}, or its hash, cannot stand in an access file", "choose another name")
    lines, line_end = _lines(content), _line_end(content)
    known = [each for each in form.users(content) if each.user == user]
    _check_ours(known, user)
    written = form.line(user, hash, until) + line_end
    if known:
        lines[known[0].line] = written
        for each in reversed(known[1:]):
            del lines[each.line]
    else:
        at = form.place(lines)
        if at and not lines[at - 1].endswith("\n"):
            lines[at - 1] += line_end
        lines.insert(at, written)
    return "".join(lines).encode("utf-8", "surrogateescape")


def without_user(content: bytes, form: FileForm, user: str) -> bytes:
    """Return a file without our lines for a user. Those of somebody else stay, also beside ours.

    Raises:
        AccessError: only lines of somebody else name the user.
    """
    lines = _lines(content)
    known = [each for each in form.users(content) if each.user == user]
    ours = [each for each in known if each.ours]
    if not ours:
        _check_ours(known, user)
    for each in reversed(ours):
        del lines[each.line]
    return "".join(lines).encode("utf-8", "surrogateescape")


def taken_back(content: bytes, form: FileForm, old: bytes, new: bytes) -> bytes:
    """Return a file without the changes that made `new` of `old`, where somebody has written it since.

    Raises:
        AccessError: one of these files has no place for users.
    """
    before, after = ({each.user: each for each in form.users(text) if each.ours} for text in (old, new))
    for user in before.keys() | after.keys():
        was, became = before.get(user), after.get(user)
        if was is not None and became is not None and (was.hash, was.until) == (became.hash, became.until):
            continue
        with contextlib.suppress(AccessError):  # by now it is somebody else's line
            if was is None or was.until is None:
                content = without_user(content, form, user)
            else:
                content = with_user(content, form, user, was.hash, was.until)
    return content


def _check_ours(known: Sequence[FileUser], user: str) -> None:
    if any(not each.ours for each in known):
        raise AccessError(
            f"{user} stands in the file by somebody else's hand, and is not ours to change",
            "choose another name, or have the line removed there",
        )


def _lines(content: bytes) -> list[str]:
    """Return the lines of a file with their ends. Bytes that are no UTF-8 stay what they are."""
    text = content.decode("utf-8", "surrogateescape")
    return re.findall(r"[^\n]*\n|[^\n]+\Z", text)


def _line_end(content: bytes) -> str:
    return "\r\n" if b"\r\n" in content else "\n"


def _mark(until: datetime) -> str:
    return _MARK + until.astimezone(UTC).strftime(_WHEN)


def _until(text: str) -> datetime | None:
    """Return the end that our mark says; None where it is not ours."""
    found = _MARKED.match(text)
    if found is None:
        return None
    try:
        return datetime.strptime(found["when"], _WHEN).replace(tzinfo=UTC)
    except ValueError:  # our mark with a date that does not exist was changed by hand
        return None


def _unquoted(word: str) -> str:
    return word.strip("\"'")


__all__ = [
    "FileForm",
    "FileUser",
    "HtpasswdForm",
    "UserlistForm",
    "find_user",
    "form_of",
    "taken_back",
    "with_user",
    "without_user",
]
