"""Several repositories as one version of a site: its id, and its name for people. Pure.

The id stands where a site of one repository has its commit: on disk, in reports, in what people sign. It is made from
what is deployed, so whoever knows the parts can check it, and two nodes with the same parts have the same id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

from deploykit.names import ObjectId, RefName, RepoName, short_ref


class PartVersion(Protocol):
    """What one repository contributes."""

    @property
    def ref(self) -> RefName: ...
    @property
    def commit(self) -> ObjectId: ...


def composition_id(parts: Mapping[RepoName, PartVersion]) -> ObjectId:
    """Return the id (40 hex digits) of a version made of several repositories.

    It is the SHA-1 of the lines `repository ref commit`, sorted, each ended by a newline: a name with the form of a
    commit id. No trust rests on it: what is signed are the parts themselves.
    """
    lines = sorted(f"{repo} {part.ref} {part.commit}\n" for repo, part in parts.items())
    return ObjectId(hashlib.sha1("".join(lines).encode(), usedforsecurity=False).hexdigest())


def composition_name(parts: Mapping[RepoName, PartVersion]) -> str:
    """Return the refs as people call them, in the order of the repositories' names: `v3+v7`."""
    return "+".join(short_ref(parts[repo].ref) for repo in sorted(parts))
