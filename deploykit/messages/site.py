"""A release of a site, as messages name it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from deploykit.messages.base import unknown_fields
from deploykit.names import ObjectId, RefName, short_ref


@attrs.frozen(kw_only=True, slots=True)
class SiteRelease:
    """One release of a site, as the node has it on record.

    Args:
        release: the directory's name.
        ref, commit: what it was made from; `ref` is None where it was made from a bare commit id.
    """

    release: str
    ref: RefName | None = None
    commit: ObjectId | None = None
    extra: Mapping[str, object] = unknown_fields()

    def __str__(self) -> str:
        return named(self.ref, self.commit, self.release)


def named(ref: RefName | None, commit: ObjectId | None, release: str = "") -> str:
    """Return a release's name for people: `v1.2 0123456789ab`; its directory's name where ref and commit are unknown.

    >>> named(RefName("refs/tags/v1"), ObjectId("ab" * 20))
    'v1 abababababab'
    """
    parts = [short_ref(ref) if ref is not None else "", commit[:12] if commit is not None else ""]
    return " ".join(part for part in parts if part) or release
