"""What checkouts read from, and what an update of them did. Values and protocols only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import attrs

from deploykit.errors import MirrorCorrupt, TreeDamaged
from deploykit.names import ObjectId, RefName, RepoName
from deploykit.trees import ObjectStore


class ResolvedRef(Protocol):
    """The object, commit and tree that a name stands for."""

    @property
    def object_id(self) -> ObjectId: ...
    @property
    def commit(self) -> ObjectId: ...
    @property
    def tree(self) -> ObjectId: ...


class CheckoutSource(Protocol):
    """Where trees come from: a `Mirror`."""

    @property
    def refs(self) -> Mapping[RefName, ObjectId]: ...
    @property
    def head(self) -> RefName | None: ...
    @property
    def store(self) -> ObjectStore: ...
    def resolve(self, name: str) -> ResolvedRef: ...
    def release(self) -> None: ...


@attrs.frozen(kw_only=True, slots=True)
class CheckoutChange:
    """One directory that now shows another tree. `written` and `removed` count files."""

    directory: Path
    ref: RefName
    commit: ObjectId
    written: int
    removed: int


@attrs.frozen(kw_only=True, slots=True)
class CheckoutResult:
    """What an update did: directories changed, directories removed, and refs whose directory is as it was, with why.

    `refused`: the ref's tree or name, or what is in the way, has to change. `failed`: the disk or the mirror has to be
    repaired, and the next update tries again. `damage`: the errors among those that say that a mirror is damaged.
    `lacking`: submodules' repositories whose mirrors lack objects of Git LFS, each with the problem.
    """

    changed: tuple[CheckoutChange, ...] = ()
    removed: tuple[Path, ...] = ()
    refused: Mapping[str, str] = attrs.field(factory=dict)
    failed: Mapping[str, str] = attrs.field(factory=dict)
    damage: tuple[TreeDamaged | MirrorCorrupt, ...] = ()
    lacking: frozenset[tuple[RepoName, str]] = frozenset()
