"""Whose mirror an error says is damaged. Such a mirror is cloned anew: a fetch would bring nothing that it lacks."""

from __future__ import annotations

from collections.abc import Mapping

from deploykit.errors import MirrorCorrupt, TreeDamaged
from deploykit.mirror import Mirror
from deploykit.names import RepoName


def damaged_among(mirrors: Mapping[RepoName, Mirror], error: BaseException | None) -> frozenset[RepoName]:
    """Return those of some mirrors that an error, or a cause of it, says are damaged.

    Args:
        mirrors: that were read. It may be any of them where the error does not name a repository.
    """
    while error is not None and not isinstance(error, TreeDamaged | MirrorCorrupt):
        error = error.__cause__
    if error is None:
        return frozenset()
    where = error.repository
    return frozenset(repo for repo, mirror in mirrors.items() if where in ("", str(mirror.path)))
