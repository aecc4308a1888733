"""Submodules on a node: which mirrors they come from, and which of those must be fetched first.

A deploy waits for them. Directories do not: the fetch of a submodule's mirror is asked for, and when it is there the
directories that wait for it are tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from deploykit.checkouts import CheckoutResult, Checkouts
from deploykit.daemons.agent.damage import damaged_among
from deploykit.mirror import Mirror
from deploykit.mirror.submodules import MissingSubmodule, SubmoduleRules, SubmoduleSource
from deploykit.names import RefName, RepoName
from deploykit.settings.node import Settings

#: Stands for a commit where a directory waits for a mirror to be cloned anew.
_DAMAGED: Final = ""


def with_submodules(
    mirror: Mirror, settings: Settings, depth: int, open_mirror: Callable[[RepoName], Mirror]
) -> SubmoduleSource:
    """Return a mirror whose trees hold those of their submodules.

    Args:
        depth: submodules inside submodules.
        open_mirror: returns another mirror of this node, the same one each time. Its owner closes it.
    """
    rules = SubmoduleRules(repositories=settings.submodule_repos, open=open_mirror, depth=depth)
    return SubmoduleSource(mirror, mirror.url, rules)


def lacking_of(missing: Iterable[MissingSubmodule]) -> dict[RepoName, bool]:
    """Return the repositories whose mirrors a fetch may help, each with whether its mirror is damaged."""
    found: dict[RepoName, bool] = {}
    for each in missing:
        if each.repo is not None and not each.too_deep:
            found[each.repo] = each.damaged or found.get(each.repo, False)
    return found


class SubmoduleCheckouts:
    """Updates directories whose trees may have submodules. Safe for threads.

    Args:
        settings: of the node.
        open_mirror: opens another mirror of this node.
        fetch: asks for the fetch of a mirror, and does not wait for it.
        reclone: the same, of a mirror that is damaged.
    """

    def __init__(
        self,
        settings: Settings,
        open_mirror: Callable[[RepoName], Mirror],
        fetch: Callable[[RepoName], None],
        reclone: Callable[[RepoName], None],
    ) -> None:
        self._settings = settings
        self._open_mirror = open_mirror
        self._fetch = fetch
        self._reclone = reclone
        self._lock = threading.Lock()
        self._waits: dict[tuple[RepoName, Path | None], frozenset[tuple[RepoName, str]]] = {}
        self._asked: set[RepoName] = set()

    def update(
        self, repo: RepoName, mirror: Mirror, checkouts: Checkouts, only: Collection[RefName] | None
    ) -> CheckoutResult:
        """Update directories; have mirrors fetched that lack submodules or objects of Git LFS, and damaged ones cloned.

        What is missing again after that is not asked for once more: it comes with a later comparison of all mirrors.
        """
        opened = {repo: mirror}
        if checkouts.settings.submodules != "mirror":
            result = checkouts.update(mirror, only)
            for each in _damaged(opened, result):
                self._reclone(each)
            return result
        with ExitStack() as stack:

            def open_once(other: RepoName) -> Mirror:
                if other not in opened:
                    opened[other] = stack.enter_context(self._open_mirror(other))
                return opened[other]

            stack.callback(mirror.release)
            source = with_submodules(mirror, self._settings, checkouts.settings.submodule_depth, open_once)
            result = checkouts.update(source, only)
        lacking = lacking_of(source.lacked)
        damaged = _damaged(opened, result) | {each for each, is_damaged in lacking.items() if is_damaged}
        waits = (
            frozenset((each.repo, each.commit) for each in source.lacked if each.repo is not None and not each.too_deep)
            | frozenset((each, _DAMAGED) for each in damaged)
            | result.lacking
        )
        with self._lock:
            place = repo, checkouts.settings.target
            new = waits - self._waits.get(place, frozenset())
            self._waits[place] = waits
            needed = {each for each, _ in new}
            self._asked |= needed
        for each in sorted(damaged):
            self._reclone(each)
        for each in sorted(needed - damaged):
            self._fetch(each)
        return result

    def fetched(self, repo: RepoName, *, news: bool) -> None:
        """Have the directories tried again that wait for a mirror that was fetched.

        Only where it can help: two repositories that wait for each other would have each other fetched for ever.

        Args:
            news: refs of the mirror moved, or objects of Git LFS came.
        """
        with self._lock:
            if not news and repo not in self._asked:
                return
            self._asked.discard(repo)
            waiting = {main for (main, _), lacking in self._waits.items() if any(each == repo for each, _ in lacking)}
        for main in sorted(waiting):
            self._fetch(main)


def _damaged(mirrors: Mapping[RepoName, Mirror], result: CheckoutResult) -> frozenset[RepoName]:
    return frozenset(repo for error in result.damage for repo in damaged_among(mirrors, error))
