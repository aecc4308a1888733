"""An object stays while a ref needs it, and two weeks longer; then it goes, with what killed processes left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.mirror import Mirror, upkeep
from deploykit.mirror.lfs import pruning
from deploykit.mirror.lfs.pruning import KEPT_FOR, plan_pruning
from deploykit.settings import MirrorSettings
from tests.support.lfsorigins import in_store, pointer_to, seeded
from tests.support.lfsstub import ATTRIBUTES, LfsStub, commit_pointers, lfs_stub
from tests.support.origins import GitRepo

NOW = 1_800_000_000.0
OLD, KEPT, TAGGED, NEW = (seeded(1000 + at, at) for at in range(4))


@pytest.fixture
def stub() -> Iterator[LfsStub]:
    with lfs_stub() as made:
        made.hold(OLD, KEPT, TAGGED, NEW)
        yield made


@pytest.fixture
def mirror(tmp_path: Path, stub: LfsStub) -> Iterator[Mirror]:
    """A mirror whose main branch needs `KEPT` and `NEW`, and a tag `TAGGED`; `OLD` was needed once."""
    repo = GitRepo.make(tmp_path / "origin.git")
    settings = MirrorSettings(lfs=True, lfs_url=stub.url, allow_http=True)
    with Mirror.open(tmp_path / "m.git", str(repo.path), settings) as made:
        commit_pointers(repo, {"a.bin": OLD, "b.bin": KEPT, "c.bin": TAGGED})
        made.fetch()
        commit_pointers(repo, {"c.bin": TAGGED}, branch="side", parents=())
        repo.git("tag", "-a", "-m", "t", "v1", "side")
        repo.git("branch", "-D", "side")
        commit_pointers(repo, {"b.bin": KEPT, "n.bin": NEW})
        made.fetch()
        yield made


def held(mirror: Mirror) -> set[str]:
    return set(in_store(mirror.path))


def ids(*contents: bytes) -> set[str]:
    return {pointer_to(content).oid for content in contents}


def test_what_no_ref_needs_goes_when_it_was_unneeded_twice(mirror: Mirror) -> None:
    assert held(mirror) == ids(OLD, KEPT, TAGGED, NEW)
    assert pruning.prune(mirror.path, NOW) == 0
    assert pruning.prune(mirror.path, NOW + KEPT_FOR - 1) == 0
    assert held(mirror) == ids(OLD, KEPT, TAGGED, NEW)
    assert pruning.prune(mirror.path, NOW + KEPT_FOR) == 1
    assert held(mirror) == ids(KEPT, TAGGED, NEW)
    assert mirror.fetch().lfs.objects == 0
    assert mirror.check().sound


def test_what_is_needed_again_in_between_begins_anew(mirror: Mirror, tmp_path: Path) -> None:
    pruning.prune(mirror.path, NOW)
    repo = GitRepo(tmp_path / "origin.git", clock=1_800_000_000)
    commit_pointers(repo, {"b.bin": KEPT, "n.bin": NEW, "a.bin": OLD})
    mirror.fetch()
    pruning.prune(mirror.path, NOW + 1000)
    commit_pointers(repo, {"b.bin": KEPT, "n.bin": NEW})
    mirror.fetch()
    assert pruning.prune(mirror.path, NOW + KEPT_FOR + 10) == 0
    assert held(mirror) == ids(OLD, KEPT, TAGGED, NEW)


def test_nothing_goes_while_a_tree_cannot_be_read(mirror: Mirror, tmp_path: Path) -> None:
    pruning.prune(mirror.path, NOW)
    repo = GitRepo(tmp_path / "origin.git", clock=1_800_000_000)
    deep = repo.tree({".gitattributes": ATTRIBUTES})
    for _ in range(66):
        deep = repo.git("mktree", data=f"040000 tree {deep}\td\n".encode())
    repo.commit(tree=deep, branch="deep")
    mirror.fetch()
    assert pruning.prune(mirror.path, NOW + 2 * KEPT_FOR) == 0
    assert held(mirror) == ids(OLD, KEPT, TAGGED, NEW)


def test_upkeep_looks_once_a_day_and_sweeps(mirror: Mirror) -> None:
    left = mirror.path / "lfs" / "incoming" / ("0" * 64)
    left.write_bytes(b"half of it")
    assert upkeep.is_due(mirror.path, mirror.settings), "it was never looked at"
    assert mirror.upkeep().lfs_removed == 0
    assert not left.exists()
    assert not upkeep.is_due(mirror.path, mirror.settings)
    memory = mirror.path / "lfs" / "unneeded"
    (line,) = memory.read_text().splitlines()
    memory.write_text(f"{line.partition(' ')[0]} 0\n")
    assert mirror.upkeep().lfs_removed == 1
    assert held(mirror) == ids(KEPT, TAGGED, NEW)


def test_without_lfs_in_the_settings_nothing_is_looked_at(mirror: Mirror) -> None:
    with Mirror.open(mirror.path, mirror.url) as plain:
        assert not upkeep.is_due(plain.path, plain.settings)
        plain.upkeep()
    assert not (mirror.path / "lfs" / "unneeded").exists()
    assert held(mirror) == ids(OLD, KEPT, TAGGED, NEW)


def test_a_clock_that_was_wrong_costs_time_and_no_object() -> None:
    later = plan_pruning(["a"], set(), {}, 2 * KEPT_FOR)
    assert later.unneeded == {"a": 2 * KEPT_FOR}
    back = plan_pruning(["a"], set(), later.unneeded, 10)
    assert (back.gone, back.unneeded) == (frozenset(), {"a": 10})


def test_what_is_not_held_any_more_is_forgotten() -> None:
    assert plan_pruning(["a"], {"a"}, {"a": 1, "b": 1}, 5).unneeded == {}
