"""A release of a site, as messages name it: one commit, or a commit of each of several repositories.

Rules: where there are `parts`, `ref` is None and `commit` is `composition_id(parts)`; such a record cannot be made
otherwise. Who compares versions compares `version_of`: the parts themselves, not only their id.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Final, Protocol, TypeAlias, TypeGuard

import attrs

from deploykit.composition import composition_id, composition_name
from deploykit.errors import MessageError
from deploykit.messages.base import ABSENT_BY_DEFAULT, NOTHING, unknown_fields
from deploykit.names import ObjectId, RefName, RepoName, short_ref

#: Most repositories that one site may be made of.
MAX_PARTS: Final = 32


@attrs.frozen(kw_only=True, slots=True)
class SitePart:
    """What one repository contributes to a version of a site. Fields that we do not know are no part of the version."""

    repo: RepoName
    ref: RefName
    commit: ObjectId
    extra: Mapping[str, object] = attrs.field(default=NOTHING, eq=False, repr=False)


#: Each repository once, in the order of their names; empty for a site of one repository.
SiteParts = Annotated[tuple[SitePart, ...], MAX_PARTS]
#: The repositories of a site.
SiteRepos = Annotated[tuple[RepoName, ...], MAX_PARTS]
#: A ref, a commit and parts. None for each that is not known, or is none.
Version: TypeAlias = tuple[RefName | None, ObjectId | None, tuple[SitePart, ...]]


class Versioned(Protocol):
    """A record that names a version of a site."""

    @property
    def ref(self) -> RefName | None: ...
    @property
    def commit(self) -> ObjectId | None: ...
    @property
    def parts(self) -> tuple[SitePart, ...]: ...


def version_of(record: Versioned) -> Version:
    """Return what makes two records name the same version of a site."""
    return record.ref, record.commit, record.parts


def id_of(parts: tuple[SitePart, ...]) -> ObjectId:
    """Return the id that stands as the commit of a version made of several repositories."""
    return composition_id({part.repo: part for part in parts})


def _are_parts(value: object) -> TypeGuard[tuple[SitePart, ...]]:
    return isinstance(value, tuple) and all(isinstance(part, SitePart) for part in value)


def check_parts(record: Versioned, _attribute: object, parts: object) -> None:
    """Refuse parts that do not fit the ref and commit beside them: the validator of every field `parts`."""
    if not _are_parts(parts):
        raise MessageError("parts: expected a tuple of SitePart")
    if not parts:
        return
    if any(first.repo >= second.repo for first, second in pairwise(parts)):
        raise MessageError("parts: expected each repository once, in the order of their names")
    if record.ref is not None:
        raise MessageError("ref: expected none beside parts")
    if record.commit != id_of(parts):
        raise MessageError("commit: expected the id of the parts beside it")


@attrs.frozen(kw_only=True, slots=True)
class SiteRelease:
    """One release of a site, as the node has it on record.

    Args:
        release: the directory's name.
        ref, commit: what it was made from; `ref` is None where it was made from a bare commit id.
        parts: what it was made from, where that is several repositories; `commit` is their id.
    """

    release: str
    ref: RefName | None = None
    commit: ObjectId | None = None
    parts: SiteParts = attrs.field(default=(), metadata=ABSENT_BY_DEFAULT, validator=check_parts)
    extra: Mapping[str, object] = unknown_fields()

    def __str__(self) -> str:
        return named(self.ref, self.commit, self.release, parts=self.parts)


def named(ref: RefName | None, commit: ObjectId | None, release: str = "", *, parts: tuple[SitePart, ...] = ()) -> str:
    """Return a release's name for people: `v1.2 0123456789ab`; its directory's name where ref and commit are unknown.

    >>> named(RefName("refs/tags/v1"), ObjectId("ab" * 20))
    'v1 abababababab'
    """
    called = composition_name({part.repo: part for part in parts}) if parts else short_ref(ref) if ref else ""
    words = [called, commit[:12] if commit is not None else ""]
    return " ".join(word for word in words if word) or release


def name_of(record: Versioned) -> str:
    """Return the name for people of the version that a record names; empty where it names none."""
    return named(record.ref, record.commit, parts=record.parts)


def parts_named(parts: tuple[SitePart, ...]) -> str:
    """Return what each repository contributes, for people: `app v3 0123456789ab, theme v7 0123456789ab`."""
    return ", ".join(f"{part.repo} {short_ref(part.ref)} {part.commit[:12]}" for part in parts)


def parts_entry(parts: tuple[SitePart, ...]) -> list[dict[str, str]]:
    """Return what each repository contributes, for JSON."""
    return [{"repo": part.repo, "ref": part.ref, "commit": part.commit} for part in parts]


def parts_in_full(parts: tuple[SitePart, ...]) -> str:
    """Return what each repository contributes, with nothing left out: `app refs/tags/v3 0123…, theme …`."""
    return ", ".join(f"{part.repo} {part.ref} {part.commit}" for part in parts)
