"""Submodules on a node: which mirrors they come from, and which of those must be fetched first.

A deploy waits for them. Directories do not: the fetch of a submodule's mirror is asked for, and when it is there the
directories that wait for it are tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path

from deploykit.checkouts import CheckoutResult, Checkouts
from deploykit.errors import DeploykitError
from deploykit.mirror import Mirror
from deploykit.mirror.submodules import SubmoduleRules, SubmoduleSource
from deploykit.names import RefName, RepoName
from deploykit.settings.node import Settings


def with_submodules(
    mirror: Mirror, settings: Settings, depth: int, open_mirror: Callable[[RepoName], Mirror], stack: ExitStack
) -> SubmoduleSource:
    """Return a mirror whose trees hold those of their submodules.

    Args:
        depth: submodules inside submodules.
        open_mirror: opens another mirror of this node.
        stack: closes those.
    """
    opened: dict[RepoName, Mirror] = {}

    def open_once(repo: RepoName) -> Mirror:
        if repo not in opened:
            opened[repo] = stack.enter_context(open_mirror(repo))
        return opened[repo]

    rules = SubmoduleRules(repositories=settings.submodule_repos, open=open_once, depth=depth)
    return SubmoduleSource(mirror, mirror.url, rules)


def lacking(source: SubmoduleSource, name: str) -> frozenset[RepoName]:
    """Return the repositories whose mirrors lack what the submodules of a ref or commit need.

    None where the tree itself cannot be read: whoever writes it says why.
    """
    try:
        return frozenset(each.repo for each in source.missing(name) if each.repo is not None and not each.too_deep)
    except DeploykitError:
        return frozenset()


class SubmoduleCheckouts:
    """Updates directories whose trees have submodules. Safe for threads.

    Args:
        settings: of the node.
        open_mirror: opens another mirror of this node.
        fetch: asks for the fetch of a mirror, and does not wait for it.
    """

    def __init__(
        self, settings: Settings, open_mirror: Callable[[RepoName], Mirror], fetch: Callable[[RepoName], None]
    ) -> None:
        self._settings = settings
        self._open_mirror = open_mirror
        self._fetch = fetch
        self._lock = threading.Lock()
        self._waits: dict[tuple[RepoName, Path | None], frozenset[tuple[RepoName, str]]] = {}
        self._asked: set[RepoName] = set()

    def update(
        self, repo: RepoName, mirror: Mirror, checkouts: Checkouts, only: Collection[RefName] | None
    ) -> CheckoutResult:
        """Update directories, and have the mirrors of submodules fetched that lack a commit or its objects of Git LFS.

        What is missing again after that is not asked for once more: it comes with a later comparison of all mirrors.
        """
        if checkouts.settings.submodules != "mirror":
            return checkouts.update(mirror, only)
        with ExitStack() as stack:
            stack.callback(mirror.release)
            depth = checkouts.settings.submodule_depth
            source = with_submodules(mirror, self._settings, depth, self._open_mirror, stack)
            result = checkouts.update(source, only)
        lacking = result.lacking | {
            (each.repo, each.commit) for each in source.lacked if each.repo is not None and not each.too_deep
        }
        with self._lock:
            place = repo, checkouts.settings.target
            new = lacking - self._waits.get(place, frozenset())
            self._waits[place] = lacking
            needed = {each for each, _ in new}
            self._asked |= needed
        for each in sorted(needed):
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
