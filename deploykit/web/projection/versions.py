"""Versions of sites that are made of several repositories: their parts, by the id that stands as their commit.

Rules:

* The id is made from the parts, so what stands under one never changes.
* `at` is when a version was last heard of. What no message names any more is removed by its age.
* Only what has no ref is looked up: most sites are made of one repository.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Row, select

from deploykit.messages import SitePart
from deploykit.messages.site import Versioned, id_of, parts_entry
from deploykit.names import ObjectId, RefName, RepoName
from deploykit.web.projection.cells import packed, unpacked_list
from deploykit.web.projection.folding import at_of, know_repo
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rows import WorkingRows
from deploykit.web.projection.tables import VERSIONS
from deploykit.web.projection.views import PartView

#: By how much `at` may be behind, in microseconds: each message of each node would be a write.
_BEHIND: Final = 24 * 3600 * 1_000_000


def know_versions(rows: WorkingRows, heard: Heard, records: Iterable[Versioned | None]) -> None:
    """Keep the parts of what a message names."""
    for record in records:
        if record is None or not record.parts or record.commit is None:
            continue
        row, new = rows.get_or_new(VERSIONS, commit=record.commit)
        if new:
            for part in record.parts:
                know_repo(rows, part.repo)
        if new or at_of(heard) - row["at"] > _BEHIND:
            rows.put(VERSIONS, {**row, "at": at_of(heard), "parts": packed(parts_entry(record.parts))})


def parts_known(rows: WorkingRows, commit: str) -> tuple[SitePart, ...]:
    """Return the parts of a version; none where it is made of one repository, or not known."""
    row = rows.get(VERSIONS, commit)
    return _unpacked(commit, row["parts"]) if row is not None else ()


def parts_of(connection: Connection, rows: Iterable[Row[Any]]) -> Mapping[str, tuple[PartView, ...]]:
    """Return the parts of what rows with a ref and a commit name, by commit, where they are of several repositories."""
    commits = sorted({row.commit for row in rows if row.commit and not row.ref})
    found: dict[str, tuple[PartView, ...]] = {}
    for at in range(0, len(commits), 500):
        wanted = VERSIONS.c.commit.in_(commits[at : at + 500])
        for commit, text in connection.execute(select(VERSIONS.c.commit, VERSIONS.c.parts).where(wanted)):
            parts = _unpacked(commit, text)
            found[commit] = tuple(PartView(repo=part.repo, ref=part.ref, commit=part.commit) for part in parts)
    return found


def _unpacked(commit: str, text: str) -> tuple[SitePart, ...]:
    """Return the parts in a row; none where somebody has changed it, so that they are not those of its id."""
    try:
        parts = tuple(
            SitePart(repo=RepoName(part["repo"]), ref=RefName(part["ref"]), commit=ObjectId(part["commit"]))
            for part in unpacked_list(text)
        )
        return parts if id_of(parts) == commit else ()
    except (KeyError, TypeError, ValueError):
        return ()


__all__ = ["know_versions", "parts_known", "parts_of"]
