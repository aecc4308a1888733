"""One site's access file and its server: changes go in together, are tested, and are read back.

    read -> (ask haproxy's master) -> note the old content -> write -> test -> reload -> read back -> forget the note

Rules:

* A burst of changes is one write and one reload. A change that cannot be made fails alone.
* Where the test or the reload fails, the old content is put back and all changes of the burst have failed.
* What somebody else wrote meanwhile stays. What cannot be put back is reported so, and the keeper tries it again.
* What a crash cut off is finished at the next start: the test decides whether the new content stays.
* What is reported is what stands in the file afterwards.
* Where haproxy's master can be asked, a reload counts once a new worker serves. A master that does not answer is
  noticed before anything is changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import attrs

from deploykit.daemons.access.accessfile import (
    AccessFileText,
    FileForm,
    FileUser,
    form_of,
    taken_back,
)
from deploykit.daemons.access.filewriter import FileChanged, FileSeen, read_file, replace_content
from deploykit.daemons.access.haproxymaster import HaproxyMaster
from deploykit.daemons.access.servercommand import run_command
from deploykit.errors import AccessError
from deploykit.names import SiteName
from deploykit.settings.access import AccessSiteSettings
from deploykit.system.durable import replace_file, sync_directory

_log = logging.getLogger(__name__)

#: How often a file is read again that somebody else keeps writing.
_TRIES: Final = 20


@attrs.frozen(kw_only=True, slots=True)
class AccessChange:
    """What is to be changed of one user.

    Args:
        hash: of a grant; None: the user's own stays, and only the end moves.
        until: of a grant.
        asked_at: the time of the command: changes of one burst are made in this order.
        requested_by: of a grant, for the state file.
    """

    kind: Literal["grant", "revoke", "expire"]
    user: str
    hash: str | None = attrs.field(default=None, repr=False)
    until: datetime | None = None
    asked_at: datetime
    requested_by: str = ""


@attrs.frozen(kw_only=True, slots=True)
class ChangeOutcome:
    """What became of a change. `until` is read back from the file."""

    outcome: Literal["granted", "revoked", "expired", "failed"]
    until: datetime | None = None
    detail: str = ""


class SiteAccessFile:
    """The access file of one site. One thread uses it.

    Args:
        site: its name.
        settings: where the file is, and how its server takes it over.
        notes: the directory in which the old content is noted while a change is made.
        run: runs a command and returns what went wrong.
        master: haproxy's; None: that of the settings, if any.
    """

    def __init__(
        self,
        site: SiteName,
        settings: AccessSiteSettings,
        notes: Path,
        *,
        run: Callable[[Sequence[str]], str] = run_command,
        master: HaproxyMaster | None = None,
    ) -> None:
        self.site = site
        self._settings = settings
        self._master = HaproxyMaster(settings.master) if master is None and settings.master is not None else master
        self._reloads = bool(settings.reload) or self._master is not None
        self._form: FileForm = form_of(settings)
        self._note = notes / f"{site}.before"
        self._run = run

    def users(self) -> tuple[FileUser, ...]:
        """Return the lines of the file, the first that counts for each user.

        Raises:
            AccessError: it cannot be read.
        """
        return self._users_of(read_file(self._settings.file).content)

    def apply(self, changes: Sequence[AccessChange]) -> list[ChangeOutcome]:
        """Make changes, and return what became of each."""
        try:
            problems, failure = self._apply(changes)
            content = read_file(self._settings.file).content
            users = {each.user: each for each in self._users_of(content)}
        except AccessError as error:
            return [ChangeOutcome(outcome="failed", detail=str(error))] * len(changes)
        last = {changes[at].user: at for at in _in_order(changes) if not problems[at]}
        return [
            _outcome(change, problems[at] or failure, users, superseded=not problems[at] and last[change.user] != at)
            for at, change in enumerate(changes)
        ]

    def recover(self) -> None:
        """Finish a change that a crash cut off.

        Raises:
            AccessError: the file, or what was noted of it, cannot be used.
        """
        try:
            noted = self._note.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise AccessError(f"cannot read {self._note}: {error.strerror}") from error
        digest, _, old = noted.partition(b"\n")
        seen = read_file(self._settings.file)
        if _digest(seen.content) == digest:
            _log.warning("site %s: a change of %s was cut off; it is finished now", self.site, self._settings.file)
            if failure := self._take_over():
                _log.error("site %s: %s", self.site, failure)
                self._put_back(old, seen.content)
        self._forget()

    # -- one burst -----------------------------------------------------------------------------------------------------

    def _apply(self, changes: Sequence[AccessChange]) -> tuple[list[str], str]:
        """Return what kept each change from being made, and what went wrong with all of them."""
        self.recover()
        for _ in range(_TRIES):
            seen = read_file(self._settings.file)
            content, problems = _changed(seen.content, self._form, changes)
            if content == seen.content:
                return problems, ""
            if self._master is not None:
                self._master.ready()  # it must answer before anything is changed
            try:
                self._write(seen, content)
            except FileChanged:
                continue
            except AccessError:
                self._undo(seen.content, content)
                raise
            failure = self._take_over()
            if failure:
                self._fall_back(seen.content, content, failure)
            self._forget()
            return problems, failure
        raise self._written_again()

    def _written_again(self) -> AccessError:
        return AccessError(f"{self._settings.file} is written again and again by somebody else", "stop that, ask again")

    def _write(self, seen: FileSeen, content: bytes) -> None:
        if self._settings.test or self._reloads:
            try:
                replace_file(self._note, _digest(content) + b"\n" + seen.content, mode=0o600)
            except OSError as error:
                raise AccessError(f"cannot write {self._note}: {error.strerror}") from error
        replace_content(self._settings.file, seen, content)

    def _take_over(self) -> str:
        """Have the server take the file over; return what went wrong."""
        if self._settings.test and (problem := self._run(self._settings.test)):
            return f"the test of the server's configuration failed: {problem}"
        if self._reloads and (problem := self._reload()):
            return f"the server's reload failed: {problem}"
        return ""

    def _reload(self) -> str:
        if self._master is None:
            return self._run(self._settings.reload)
        return self._master.reload((lambda: self._run(self._settings.reload)) if self._settings.reload else None)

    def _fall_back(self, old: bytes, new: bytes, failure: str) -> None:
        """Put the old content back after a failure.

        Raises:
            AccessError: that is not possible; it says that the new content stays for now.
        """
        try:
            self._put_back(old, new)
        except AccessError as error:
            problem = f"{failure}; the change stands in the file until it can be taken back: {error.problem}"
            raise AccessError(problem, error.remedy) from error

    def _put_back(self, old: bytes, new: bytes) -> None:
        """Put the old content back, and have the server take that over as far as it will.

        Raises:
            AccessError: it cannot be put back.
        """
        for _ in range(_TRIES):
            seen = read_file(self._settings.file)
            content = old if seen.content == new else taken_back(seen.content, self._form, old, new)
            try:
                replace_content(self._settings.file, seen, content)
                break
            except FileChanged:
                continue
        else:
            raise self._written_again()
        if again := self._take_over():
            _log.error("site %s: with the old file, too: %s", self.site, again)

    def _undo(self, old: bytes, new: bytes) -> None:
        """Put the old content back where writing failed after the new one was in its place already."""
        with contextlib.suppress(AccessError):  # the next change, or the next start, begins with `recover`
            if read_file(self._settings.file).content == new:
                self._put_back(old, new)
            self._forget()

    def _forget(self) -> None:
        try:
            self._note.unlink()
            sync_directory(self._note.parent)
        except FileNotFoundError:
            pass  # a site without test and reload notes nothing
        except OSError as error:
            raise AccessError(f"cannot remove {self._note}: {error.strerror}") from error

    def _users_of(self, content: bytes) -> tuple[FileUser, ...]:
        first: dict[str, FileUser] = {}
        for each in self._form.users(content):
            first.setdefault(each.user, each)
        return tuple(first.values())


def _changed(content: bytes, form: FileForm, changes: Sequence[AccessChange]) -> tuple[bytes, list[str]]:
    """Return a file with the changes in the order in which they were asked for, and why each is not made.

    Raises:
        AccessError: the file has no place for users.
    """
    problems, text = [""] * len(changes), AccessFileText(content, form)
    for at in _in_order(changes):
        try:
            _make(text, changes[at])
        except AccessError as error:
            problems[at] = str(error)
    return text.content, problems


def _in_order(changes: Sequence[AccessChange]) -> list[int]:
    return sorted(range(len(changes)), key=lambda at: changes[at].asked_at)


def _make(text: AccessFileText, change: AccessChange) -> None:
    if change.kind != "grant" or change.until is None:
        text.remove(change.user)
        return
    hash = change.hash
    if hash is None:
        known = text.find(change.user)
        if known is None:
            raise AccessError(f"{change.user} has no access here that could be extended", "grant it anew")
        hash = known.hash
    text.put(change.user, hash, change.until)


def _outcome(change: AccessChange, problem: str, users: Mapping[str, FileUser], *, superseded: bool) -> ChangeOutcome:
    """Return what became of a change, by what stands in the file now."""
    if problem:
        return ChangeOutcome(outcome="failed", detail=problem)
    found = users.get(change.user)
    if change.kind == "grant":
        if found is None or not found.ours or (change.hash is not None and found.hash != change.hash):
            why = "a later command changed it" if superseded else "it does not stand in the file afterwards"
            return ChangeOutcome(outcome="failed", detail=why)
        return ChangeOutcome(outcome="granted", until=found.until)
    if found is not None:
        why = "it still stands in the file afterwards"
        if superseded:
            why = "a later command granted it again"
        elif not found.ours:
            why = "our line is gone, but another one in the file, by somebody else's hand, lets the user in"
        return ChangeOutcome(outcome="failed", detail=why)
    return ChangeOutcome(outcome="revoked" if change.kind == "revoke" else "expired")


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


__all__ = ["AccessChange", "ChangeOutcome", "SiteAccessFile"]
