"""An object that cannot be read: the error names the repository that has it, and no pack stays open."""

from __future__ import annotations

import gc
import warnings
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploykit.errors import DeploykitError, TreeDamaged
from deploykit.git.commits import Reachable
from deploykit.git.composedstore import ComposedStore
from deploykit.git.objectformat import BLOB
from deploykit.git.objectreader import ObjectReader
from deploykit.git.repository import Repository
from deploykit.release import Runner, Site
from tests.support.damage import damage_object
from tests.support.gitrepo import GitRepo

MINE, OTHERS = b"mine" * 100, b"another's" * 100


@pytest.fixture
def repos(tmp_path: Path) -> tuple[GitRepo, GitRepo]:
    """Two repositories, each with a blob of its own."""
    made = GitRepo(tmp_path / "mine.git"), GitRepo(tmp_path / "others.git")
    for repo, content in zip(made, (MINE, OTHERS), strict=True):
        repo.commit({"a": content}, tag="v1")
    return made


def read_composed(repos: tuple[GitRepo, ...], oid: str) -> bytes:
    """Read a blob from all of them as one store, itself one of several."""
    with ExitStack() as stack:
        stores = [stack.enter_context(Repository(repo.path)).store for repo in repos]
        inner = ComposedStore(stores[0])
        for store in stores[1:]:
            inner.add(store, "x")
        with ObjectReader(ComposedStore(inner), max_bytes=1 << 20) as reader:
            return reader.read(oid.encode(), BLOB)


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "loose"])
def test_a_damaged_object_names_the_repository_that_has_it(repos: tuple[GitRepo, GitRepo], packed: bool) -> None:
    _, others = repos
    oid = others.git("rev-parse", "v1:a").decode().strip()
    for repo in repos if packed else ():
        repo.pack()
    assert read_composed(repos, oid) == OTHERS
    damage_object(others.path, oid)
    with pytest.raises(TreeDamaged, match=f"object {oid} is damaged") as caught:
        read_composed(repos, oid)
    assert caught.value.repository == str(others.path)


@pytest.mark.parametrize("where", ["head", "end", "cut", "index"])
def test_a_pack_that_is_no_pack_names_its_repository(repos: tuple[GitRepo, GitRepo], where: str) -> None:
    mine, others = repos
    mine.pack()
    others.pack()
    (file,) = (others.path / "objects" / "pack").glob("*.idx" if where == "index" else "*.pack")
    content = file.read_bytes()
    file.chmod(0o644)
    changed = {
        "head": b"\0" * 12 + content[12:],
        "end": content[:-20] + b"\0" * 20,
        "cut": content[:10],
        "index": content[:4] + b"\0\0\0\7" + content[8:],
    }
    file.write_bytes(changed[where])
    with pytest.raises(TreeDamaged) as caught:
        read_composed(repos, mine.git("rev-parse", "v1:a").decode().strip())
    assert caught.value.repository == str(others.path)


def test_a_missing_object_names_the_repository_where_there_is_one(repos: tuple[GitRepo, GitRepo]) -> None:
    for some, expected in ((repos, ""), (repos[:1], str(repos[0].path))):
        with pytest.raises(TreeDamaged, match="is missing from the object store") as caught:
            read_composed(some, "ab" * 20)
        assert caught.value.repository == expected


@pytest.mark.parametrize("what", ["v1", "v1^{tree}", "v1:a"])
def test_whatever_is_damaged_no_pack_stays_open_behind_the_error(
    repos: tuple[GitRepo, GitRepo], what: str, tmp_path: Path
) -> None:
    """A frame of dulwich's that an error keeps holds on to the mapped pack, which then cannot be closed."""
    mine, _ = repos
    mine.commit({"a": MINE, "b": b"b"}, parent="v1", tag="v2")
    mine.pack()
    damage_object(mine.path, mine.git("rev-parse", what).decode().strip())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Repository(mine.path) as source:
            result = Runner(Site(tmp_path / "site")).deploy(source, "refs/tags/v1")
            kept: list[DeploykitError] = []
            walk = Reachable(source.store, [mine.head()])
            try:
                assert mine.git("rev-parse", "HEAD~1").decode().strip() in walk
            except DeploykitError as error:
                kept.append(error)
            walk.close()
        assert isinstance(result.error, DeploykitError)
        assert bool(kept) == (what == "v1")
        del result, kept, source, walk
        gc.collect()
    assert [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)] == []
