"""Which repositories are fetched after builds alone, what of them still owes a fetch, and which directories follow.

Rules:

* A success is noted on disk before its message is acknowledged, and the note goes when a fetch for it succeeded.
* Directories follow a fetch that a success asked for, or that makes the mirror: those of the refs that were built, and
  no others. None follows the fetch of a deploy, nor later what such a fetch has moved.
* A directory that could not follow is owed, as a fetch that failed is.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Final, TypeAlias

from deploykit.builds import BuildStore
from deploykit.errors import BuildStoreError
from deploykit.mirror import RefChange
from deploykit.mirror.pool import Answer
from deploykit.mirror.schedule import FetchRequest
from deploykit.names import ObjectId, RefName, RepoName
from deploykit.settings.node import Settings

_log = logging.getLogger(__name__)

#: The cause of a fetch that a build's success asks for.
BUILT: Final = "built"
#: Refs of a repository that are noted one by one, at most; beyond that, all are owed.
_MOST_NOTED: Final = 20

#: Some refs; None: all.
Refs: TypeAlias = frozenset[RefName] | None
#: What must be fetched: refs, each with the commit that was built; None stands for every ref.
Owed: TypeAlias = Mapping[RefName | None, ObjectId | None]

_NONE: Final[frozenset[RefName]] = frozenset()


class BuiltFetches:
    """The fetches of one node after builds. Use it from any thread.

    Args:
        settings: say which repositories are fetched on builds.
        store: keeps the notes.
    """

    def __init__(self, settings: Settings, store: BuildStore) -> None:
        self._repos = frozenset(r for r, chosen in settings.repositories.items() if chosen.fetch_on == "build")
        self._store = store
        self._lock = threading.Lock()
        self._asked: dict[RepoName, Counter[RefName | None]] = {repo: Counter() for repo in self._repos}
        self._noted: dict[RepoName, set[RefName | None]] = {repo: set() for repo in self._repos}
        self._owed: dict[RepoName, Refs] = {}
        self._behind: dict[RepoName, tuple[RefChange, ...]] = {}

    def __contains__(self, repo: object) -> bool:
        """Return whether a repository is fetched after builds alone."""
        return repo in self._repos

    def at_start(self, repo: RepoName, *, has_mirror: bool) -> Owed:
        """Return what must be fetched now: all where there is no mirror; else what a success before the end asked for.

        What cannot be read is not fetched: the next success is.
        """
        owed: dict[RefName | None, ObjectId | None] = {}
        with self._lock:
            try:
                if not has_mirror:
                    self._store.owe_fetch(repo)
                owed |= self._store.owed_refs(repo)
            except BuildStoreError as error:
                _log.error("[%s] %s", repo, error)
            if not has_mirror or None in owed:
                owed[None] = None
            if owed:
                self._noted[repo] |= owed.keys()
                self._owed[repo] = _joined(_NONE, owed)
        return owed

    def begin(self, repo: RepoName, change: RefChange | None) -> None:
        """Note a success whose fetch will be requested: of one ref, or of all.

        Raises:
            BuildStoreError: it cannot be noted. Take the message again later.
        """
        with self._lock:
            self._note(repo, change)
            self._asked[repo][_ref_of(change)] += 1

    def abandon(self, repo: RepoName, change: RefChange | None) -> None:
        """Take back a `begin` whose fetch could not be requested. The note stays, for the next start."""
        with self._lock:
            self._asked[repo][_ref_of(change)] -= 1

    def ended(self, repo: RepoName, asked: Sequence[FetchRequest[Answer]], *, ok: bool) -> Refs:
        """Note that a fetch ended; return the refs whose directories follow it.

        Args:
            repo: whose mirror.
            asked: the requests that it answers.
            ok: it succeeded.
        """
        if repo not in self._repos:
            return None
        built = [_ref_of(each.change) for each in asked if each.cause == BUILT]
        with self._lock:
            self._asked[repo].subtract(built)
            refs = _joined(self._owed.pop(repo, _NONE), built)
            if not ok and refs != _NONE:
                self._owed[repo] = refs
            elif ok:
                self._settle(repo, refs)
        return refs

    def owe(self, repo: RepoName, changes: Sequence[RefChange]) -> None:
        """Note that directories of these refs could not follow: they do so with the next fetch."""
        if repo not in self._repos or not changes:
            return
        with self._lock:
            self._behind[repo] = tuple(changes)
            self._owed[repo] = _joined(self._owed.get(repo, _NONE), [change.ref for change in changes])
            try:
                for change in changes:
                    self._note(repo, change)
            except BuildStoreError as error:
                _log.warning("[%s] a directory that could not follow is forgotten at the next start: %s", repo, error)

    def take_behind(self) -> Mapping[RepoName, tuple[RefChange, ...]]:
        """Return, once, the refs whose directories could not follow."""
        with self._lock:
            behind, self._behind = self._behind, {}
        return behind

    def _note(self, repo: RepoName, change: RefChange | None) -> None:
        noted = self._noted[repo]
        if None in noted or _ref_of(change) in noted:
            return
        if len(noted) >= _MOST_NOTED:
            change = None
        if change is None:
            self._store.owe_fetch(repo)
        else:
            self._store.owe_fetch(repo, change.ref, change.new)
        noted.add(_ref_of(change))

    def _settle(self, repo: RepoName, refs: Refs) -> None:
        """Take back the notes of refs that were fetched, unless another success waits for a fetch of them."""
        noted, asked = self._noted[repo], self._asked[repo]
        waiting = {ref for ref, count in asked.items() if count > 0}
        self._asked[repo] = Counter({ref: asked[ref] for ref in waiting})
        done = set(noted)
        if waiting:  # a note of all may stand for one of those
            done = {ref for ref in noted - waiting if ref is not None and (refs is None or ref in refs)}
        if not done:
            return
        try:
            self._store.fetched(repo, done)
        except BuildStoreError as error:
            _log.warning("[%s] it will be fetched once more at the next start: %s", repo, error)
        else:
            noted -= done


def _ref_of(change: RefChange | None) -> RefName | None:
    return change.ref if change is not None else None


def _joined(refs: Refs, more: Collection[RefName | None]) -> Refs:
    """Return both; all where either means all."""
    if refs is None or None in more:
        return None
    return refs | {ref for ref in more if ref is not None}
