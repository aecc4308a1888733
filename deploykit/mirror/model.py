"""What goes in and out of a mirror: changes of refs, results, what a name stands for.

Rules: values only, no I/O, no dulwich; ids and names are parsed (deploykit.names) before they get in here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import attrs

from deploykit.names import ZERO_ID, ZERO_ID_SHA256, ObjectId, RefName, is_zero

RefKind = Literal["created", "moved", "deleted"]


def zero_like(oid: ObjectId) -> ObjectId:
    """Return the "no object" id of the same hash as `oid`."""
    return ZERO_ID_SHA256 if len(oid) == len(ZERO_ID_SHA256) else ZERO_ID


@attrs.frozen(slots=True)
class RefChange:
    """One ref from one object id to another; all zeros stand for "not there".

    As an argument of `Mirror.fetch` it is what a message claims. In a result it is what was done.
    """

    ref: RefName
    old: ObjectId
    new: ObjectId

    @property
    def kind(self) -> RefKind:
        """Whether the ref was created, moved or deleted."""
        if is_zero(self.new):
            return "deleted"
        return "created" if is_zero(self.old) else "moved"


@attrs.frozen(slots=True)
class Refusal:
    """A change the origin shows and this mirror did not follow, with the reason in words.

    Args:
        ref: None where the origin's name is not acceptable; then `shown` is for people, and only for them.
        old, new: None where the origin shows no acceptable object id.
    """

    ref: RefName | None
    old: ObjectId | None
    new: ObjectId | None
    reason: str
    shown: str = ""

    @property
    def name(self) -> str:
        """What a person calls the ref. Never parse it."""
        return self.ref or self.shown


@attrs.frozen(kw_only=True, slots=True)
class MissingLfsObject:
    """An object of Git LFS that a ref needs and the mirror has not: a path of it, sha256, bytes, and why, in a line."""

    path: str
    oid: str
    size: int
    reason: str


@attrs.frozen(slots=True)
class LfsGap:
    """A ref that cannot be written whole, because objects of Git LFS are missing; and why, in one line."""

    ref: RefName
    reason: str


@attrs.frozen(kw_only=True, slots=True)
class LfsFetched:
    """What came of a fetch of Git LFS objects.

    Args:
        objects, received: that came, and their bytes.
        missing: what could not be had. The next fetch tries again.
        gaps: the refs that need it.
    """

    objects: int = 0
    received: int = 0
    missing: tuple[MissingLfsObject, ...] = ()
    gaps: tuple[LfsGap, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class FetchResult:
    """What a fetch did.

    Args:
        changes: refs as they moved, deletions first.
        refused: refs left as they were, and why.
        seconds: from the call to the last ref.
        objects, received: objects and bytes of the pack that came; 0 when none was needed.
        head: the origin's default branch, where it named one.
        confirmed: whether what `expected` claimed is what the origin shows; None when nothing was expected.
        gap: the mirror did not hold the old id that `expected` named: an earlier message was missed.
        lfs: what came of the objects of Git LFS, after the refs had moved.
    """

    changes: tuple[RefChange, ...] = ()
    refused: tuple[Refusal, ...] = ()
    seconds: float = 0.0
    objects: int = 0
    received: int = 0
    head: RefName | None = None
    confirmed: bool | None = None
    gap: bool = False
    lfs: LfsFetched = LfsFetched()


@attrs.frozen(slots=True)
class Resolved:
    """What a name stands for in a mirror: the ref, the object it holds, the commit and that commit's tree.

    `object_id` differs from `commit` for an annotated tag. `ref` is empty when a bare commit id was given.
    """

    ref: RefName | Literal[""]
    object_id: ObjectId
    commit: ObjectId
    tree: ObjectId


@attrs.frozen(kw_only=True, slots=True)
class Progress:
    """How far a fetch is: bytes and objects so far, the objects expected (0 while unknown), and the step it is in."""

    phase: Literal["listing", "receiving", "resolving", "checking", "refs", "lfs"]
    received: int = 0
    objects: int = 0
    total: int = 0
    seconds: float = 0.0


ProgressFn = Callable[[Progress], None]
