"""Which repositories are fetched after builds alone, which of them still owe a fetch, and which fetches count.

Rules:

* A success is noted on disk before its message is acknowledged, and the note goes when a fetch for it succeeded.
* Directories follow a fetch that a success asked for, or that makes the mirror; none follows the fetch of a deploy.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

from deploykit.builds import BuildStore
from deploykit.errors import BuildStoreError
from deploykit.mirror.pool import Answer
from deploykit.mirror.schedule import FetchRequest
from deploykit.names import RepoName
from deploykit.settings.node import Settings

_log = logging.getLogger(__name__)

#: The cause of a fetch that a build's success asks for.
BUILT: Final = "built"


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
        self._asked = dict.fromkeys(self._repos, 0)
        self._owed: set[RepoName] = set()

    def __contains__(self, repo: object) -> bool:
        """Return whether a repository is fetched after builds alone."""
        return repo in self._repos

    def at_start(self, repo: RepoName, *, has_mirror: bool) -> bool:
        """Return whether a repository must be fetched now: it has no mirror, or a success came before the last end."""
        try:
            if not has_mirror:
                self._store.owe_fetch(repo)
            due = not has_mirror or repo in self._store.owed()
        except BuildStoreError as error:
            _log.error("[%s] %s", repo, error)
            due = not has_mirror
        if due:
            with self._lock:
                self._owed.add(repo)
        return due

    def begin(self, repo: RepoName) -> None:
        """Note a success whose fetch will be requested.

        Raises:
            BuildStoreError: it cannot be noted. Take the message again later.
        """
        with self._lock:
            if not self._asked[repo]:
                self._store.owe_fetch(repo)
            self._asked[repo] += 1

    def abandon(self, repo: RepoName) -> None:
        """Take back a `begin` whose fetch could not be requested. The note stays, for the next start."""
        with self._lock:
            self._asked[repo] -= 1

    def ended(self, repo: RepoName, asked: Sequence[FetchRequest[Answer]], *, ok: bool) -> bool:
        """Note that a fetch ended; return whether directories follow it.

        Args:
            repo: whose mirror.
            asked: the requests that it answers.
            ok: it succeeded.
        """
        if repo not in self._repos:
            return True
        count = sum(each.cause == BUILT for each in asked)
        with self._lock:
            self._asked[repo] -= count
            follows = count > 0 or repo in self._owed
            if follows and not ok:
                self._owed.add(repo)
            elif follows:
                self._owed.discard(repo)
                if not self._asked[repo]:
                    self._settle(repo)
        return follows

    def _settle(self, repo: RepoName) -> None:
        try:
            self._store.fetched(repo)
        except BuildStoreError as error:
            _log.warning("[%s] it will be fetched once more at the next start: %s", repo, error)
