"""Where the repositories of one site stand in its releases: subdirectories that cannot be in each other's way. Pure.

The names are plainer than a git tree's may be: they stand in lines that scripts read, and on every file system.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations
from typing import Final

from deploykit.names import RepoName

_NAME: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+@-]{0,254}\Z").match
_MOST_BYTES: Final = 1024
#: What deploykit and git keep for themselves, on file systems with any idea of upper and lower case.
_OURS: Final = frozenset({"", ".git", ".deploykit"})


def place_problems(places: Mapping[RepoName, str], shared: Collection[str] = ()) -> Iterator[str]:
    """Yield what is wrong with the subdirectories of repositories, one line each that begins with the repository.

    Args:
        places: repository -> subdirectory.
        shared: paths of the release that are links into `shared/`. They may be inside a subdirectory, not around it.

    >>> list(place_problems({"app": "app", "theme": "app/theme"}))
    ["theme: 'app/theme' is inside 'app', the subdirectory of app"]
    """
    right = []
    for repo, place in places.items():
        if problem := _problem(place):
            yield f"{repo}: {problem}"
        else:
            right.append((repo, place))
    for (repo, place), (other, its) in combinations(right, 2):
        if _folded(place) == _folded(its):
            yield f"{other}: {its!r} is the subdirectory of {repo} already"
        elif _is_inside(its, place):
            yield f"{other}: {its!r} is inside {place!r}, the subdirectory of {repo}"
        elif _is_inside(place, its):
            yield f"{repo}: {place!r} is inside {its!r}, the subdirectory of {other}"
    for repo, place in right:
        for path in shared:
            if _is_inside(place, path.rstrip("/")) or _folded(place) == _folded(path.rstrip("/")):
                yield f"{repo}: {place!r} would be behind {path!r}, which is shared"


def _problem(place: str) -> str:
    """Return what is wrong with one subdirectory by itself; empty where nothing is."""
    names = place.split("/")
    if len(place) > _MOST_BYTES or not all(map(_NAME, names)):
        return f"expected a subdirectory, with letters, digits, _ . + @ - and / between names, not {place!a}"
    if any(name.lower().rstrip(".") in _OURS for name in names):
        return f"{place!r} cannot be a subdirectory of a release"
    return ""


def _is_inside(inner: str, outer: str) -> bool:
    return _folded(inner).startswith(f"{_folded(outer)}/")


def _folded(place: str) -> str:
    """Return a subdirectory as file systems compare it that know no upper and lower case."""
    return place.casefold()
