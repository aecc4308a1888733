"""The newest refs of a mirror: by the commit's time, tags peeled, each commit read once."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.errors import MirrorError
from deploykit.git.commits import History
from deploykit.mirror.newest import NewestRefs, RecentRef
from deploykit.names import ObjectId, RefName
from tests.support.gitrepo import GitRepo


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    return GitRepo(tmp_path / "repo.git")


def tagged(repo: GitRepo, count: int) -> list[str]:
    return [repo.commit({"file": b"%d" % at}, tag=f"v{at}") for at in range(count)]


def test_the_newest_come_first_and_the_count_is_true(repo: GitRepo) -> None:
    commits = tagged(repo, 5)
    newest = NewestRefs(repo.path).read(3, seconds=60)
    tags = [(each.ref, each.commit) for each in newest.refs if each.ref.startswith("refs/tags/")]
    assert tags[:2] == [("refs/tags/v4", commits[4]), ("refs/tags/v3", commits[3])]
    assert len(newest.refs) == 3
    assert newest.count == len(repo.git("for-each-ref").splitlines())
    assert newest.complete
    assert newest.refs[0].time is not None
    assert newest.refs[0].time.timestamp() == newest.refs[0].seconds


def test_an_annotated_tag_names_its_commit_and_what_is_no_commit_is_not_listed(repo: GitRepo) -> None:
    (commit,) = tagged(repo, 1)
    repo.git("tag", "-a", "-m", "released", "annotated", commit)
    repo.git("tag", "-a", "-m", "again", "twice", "annotated")
    repo.git("update-ref", "refs/tags/blob", repo.blob(b"x"))
    newest = NewestRefs(repo.path).read(100, seconds=60)
    by_ref = {each.ref: each.commit for each in newest.refs}
    assert by_ref[RefName("refs/tags/annotated")] == by_ref[RefName("refs/tags/twice")] == commit
    assert "refs/tags/blob" not in by_ref
    assert newest.count == len(by_ref) + 1


def test_each_commit_is_read_once_while_a_ref_names_it(repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    tagged(repo, 3)
    reader, asked = NewestRefs(repo.path), []
    peel = History.peel

    def counted(self: History, oid: bytes) -> bytes:
        asked.append(oid)
        return peel(self, oid)

    monkeypatch.setattr(History, "peel", counted)
    reader.read(10, seconds=60)
    first = len(asked)
    reader.read(10, seconds=60)
    assert len(asked) == first > 0
    repo.git("update-ref", "-d", "refs/tags/v0")
    reader.read(10, seconds=60)
    assert len(reader._known) == len({each.commit for each in reader.read(10, seconds=60).refs})


def test_a_mirror_that_takes_too_long_is_listed_as_far_as_it_was_read(repo: GitRepo) -> None:
    tagged(repo, 3)
    reader = NewestRefs(repo.path)
    newest = reader.read(10, seconds=0)
    assert (newest.refs, newest.complete) == ((), False)
    assert newest.count >= 3
    assert reader.read(10, seconds=60).complete


def test_a_mirror_that_is_not_there_has_no_refs(tmp_path: Path) -> None:
    newest = NewestRefs(tmp_path / "none.git").read(10, seconds=60)
    assert (newest.refs, newest.count, newest.complete) == ((), 0, True)


def test_a_damaged_mirror_is_an_error_of_ours(repo: GitRepo) -> None:
    tagged(repo, 1)
    (repo.path / "packed-refs").write_bytes(b"# pack-refs with: peeled fully-peeled sorted \nnonsense\n")
    with pytest.raises(MirrorError):
        NewestRefs(repo.path).read(10, seconds=60)


@pytest.mark.parametrize("seconds", [0, -(10**17), 10**17])
def test_a_time_that_no_calendar_has_is_none(seconds: int) -> None:
    assert RecentRef(ref=RefName("refs/heads/x"), commit=ObjectId("ab" * 20), seconds=seconds).time is None
