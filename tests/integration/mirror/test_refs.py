"""The refs on disk, read and written so that git agrees."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.errors import LockBusy, MirrorCorrupt
from deploykit.mirror.model import RefChange
from deploykit.mirror.refstore import RefStore
from deploykit.names import ZERO_ID, ObjectId, RefName
from tests.support.origins import GitRepo


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    repo = GitRepo.make(tmp_path / "r.git")
    repo.commit()
    repo.commit()
    repo.git("tag", "-a", "-m", "t", "v1", "main~1")
    repo.git("tag", "-a", "-m", "tt", "v2", "v1")
    repo.git("branch", "a/b", "main~1")
    return repo


def ours(repo: GitRepo) -> dict[str, str]:
    return {str(k): str(v) for k, v in RefStore(repo.path).read().items()}


def peel(repo: GitRepo) -> object:
    def answer(oid: ObjectId) -> ObjectId | None:
        commit = repo.git("rev-parse", f"{oid}^{{commit}}")
        return ObjectId(commit) if commit != oid else None

    return answer


@pytest.mark.parametrize("packed", ["none", "all", "some"])
def test_refs_are_read_as_git_reads_them(repo: GitRepo, packed: str) -> None:
    if packed != "none":
        repo.git("pack-refs", "--all")
    if packed == "some":
        repo.git("update-ref", "refs/heads/main", "main~1")
        repo.git("update-ref", "refs/heads/new", "main")
    assert ours(repo) == repo.refs()


@pytest.mark.parametrize("packed", [True, False])
def test_what_we_write_git_reads(repo: GitRepo, packed: bool) -> None:
    if packed:
        repo.git("pack-refs", "--all")
    old, new = repo.tip("main"), repo.tip("main~1")
    tag = repo.tip("refs/tags/v2")
    before = repo.git("show-ref", "-d")
    RefStore(repo.path).apply(
        [
            RefChange(RefName("refs/heads/a/b"), ObjectId(new), ZERO_ID),
            RefChange(RefName("refs/heads/a"), ZERO_ID, ObjectId(old)),
            RefChange(RefName("refs/heads/main"), ObjectId(old), ObjectId(new)),
            RefChange(RefName("refs/tags/v3"), ZERO_ID, ObjectId(tag)),
        ],
        peel(repo),  # type: ignore[arg-type]
    )
    assert repo.refs() == ours(repo)
    assert repo.tip("refs/heads/a") == old
    assert repo.tip("main") == new
    assert f"{repo.tip('main')} refs/tags/v3^{{}}" in repo.git("show-ref", "-d")
    assert {line for line in before.splitlines() if "tags" in line} <= set(repo.git("show-ref", "-d").splitlines())
    assert not (repo.path / "refs/heads/a").exists()
    repo.git("update-ref", "refs/heads/a/x", new, check=False)
    assert repo.git("fsck", "--strict", "--no-dangling") == ""


def test_all_changes_are_made_or_none(repo: GitRepo) -> None:
    before = repo.refs()
    old = ObjectId(repo.tip("main"))
    with pytest.raises(LockBusy, match="changed by another process"):
        RefStore(repo.path).apply(
            [
                RefChange(RefName("refs/heads/x"), ZERO_ID, old),
                RefChange(RefName("refs/heads/main"), ObjectId("b" * 40), old),
            ],
            lambda _: None,
        )
    assert repo.refs() == before


@pytest.mark.parametrize("text", ["garbage\n", "a" * 40 + "\n", "a" * 39 + " refs/heads/x\n", "a" * 40 + " HEAD\n"])
def test_a_damaged_file_is_named(repo: GitRepo, text: str) -> None:
    (repo.path / "packed-refs").write_text(text)
    with pytest.raises(MirrorCorrupt, match="packed-refs is damaged"):
        RefStore(repo.path).read()


def test_a_loose_ref_is_taken_over_whatever_it_is_called(repo: GitRepo) -> None:
    ref = RefName("refs/heads/release.new")
    repo.git("update-ref", ref, "main~1")
    assert ours(repo) == repo.refs()
    new = ObjectId(repo.tip("main"))
    RefStore(repo.path).apply([RefChange(ref, ObjectId(repo.tip("main~1")), new)], peel(repo))  # type: ignore[arg-type]
    assert repo.refs()[ref] == new == ours(repo)[ref]


def test_a_torn_loose_ref_does_not_hide_the_packed_one(repo: GitRepo) -> None:
    repo.git("pack-refs", "--all")
    (repo.path / "refs/heads/main").write_text("")
    assert ours(repo)["refs/heads/main"]


def test_packing_takes_loose_refs_in_and_keeps_what_git_shows(repo: GitRepo) -> None:
    repo.git("pack-refs", "--all")
    repo.git("update-ref", "refs/heads/main", "main~1")
    repo.git("tag", "-a", "-f", "-m", "again", "v1", "main")
    before = repo.git("show-ref", "-d")
    RefStore(repo.path).pack()
    assert repo.git("show-ref", "-d") == before
    assert not (repo.path / "refs/heads/main").exists()
    RefStore(repo.path).apply([RefChange(RefName("refs/heads/z"), ZERO_ID, ObjectId(repo.tip("main")))], peel(repo))  # type: ignore[arg-type]
    repo.git("update-ref", "-d", "refs/heads/z")
    assert repo.git("show-ref", "-d") == before
