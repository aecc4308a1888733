"""What lies between two commits, read from a real mirror and compared with what git itself says."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.daemons.agent.mirrors import mirror_path
from deploykit.errors import MirrorError, RefNotFound
from deploykit.mirror import layout
from deploykit.names import NodeName, RepoName
from deploykit.operations.compare import compare
from deploykit.settings.mirror import RepositorySettings
from deploykit.settings.node import Settings
from tests.support.gitrepo import EXECUTABLE, GITLINK, SYMLINK, GitRepo

REPO = RepoName("group/shop")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(node=NodeName("web1"), state=tmp_path / "state")


@pytest.fixture
def repo(settings: Settings) -> GitRepo:
    path = mirror_path(settings, REPO)
    path.parent.mkdir(parents=True)
    return GitRepo(path)


def test_commits_and_files_are_those_that_git_names(settings: Settings, repo: GitRepo) -> None:
    same = b"a file that only moves\n"
    base = repo.commit({"a": b"1", "d/b": b"2", "d/gone": b"3", "old/name": same, "run": b"#!"}, tag="v1")
    repo.commit({"a": b"1", "d/b": b"2x", "new/name": same, "run": (EXECUTABLE, b"#!"), "d2/e/f": b"n"})
    new = repo.commit({"a": b"1", "d/b": b"2y", "new/name": same, "run": (EXECUTABLE, b"#!"), "d2/e/f": b"n"}, tag="v2")
    found = compare(settings, REPO, "v1", "refs/tags/v2")
    assert (found.old, found.new, found.old_ref, found.new_ref) == (base, new, "refs/tags/v1", "refs/tags/v2")
    assert (found.relation, found.ahead_count, found.behind_count) == ("forward", 2, 0)
    assert [c.id for c in found.ahead] == repo.git("rev-list", f"{base}..{new}").decode().split()
    assert {(c.author, c.subject) for c in found.ahead} == {("A Person", "a change")}
    assert found.ahead[0].time is not None
    assert found.ahead[0].time.timestamp() == repo.clock
    assert [(f.kind, f.old_path, f.path) for f in found.files] == [
        ("changed", "", "d/b"),
        ("removed", "", "d/gone"),
        ("added", "", "d2/e/f"),
        ("renamed", "old/name", "new/name"),
        ("changed", "", "run"),
    ]
    assert [f.path for f in found.files if f.mode_changed] == ["run"]
    assert dict(found.counts) == {"changed": 2, "removed": 1, "added": 1, "renamed": 1}
    assert not found.truncated
    back = compare(settings, REPO, new, base)
    assert (back.relation, back.ahead_count, back.behind_count) == ("back", 0, 2)
    assert compare(settings, REPO, "v1", base).relation == "same"


def test_a_forced_push_has_commits_in_both_directions(settings: Settings, repo: GitRepo) -> None:
    base = repo.commit({"a": b"1"})
    old = repo.commit({"a": b"2"}, branch="old")
    repo.git("update-ref", "refs/heads/old", repo.commit({"a": b"2"}, branch="x", parent=base))
    new = repo.commit({"a": b"3"})
    unrelated = repo.commit({"z": b"9"}, branch="alone", parent="")
    parted = compare(settings, REPO, "old", "main")
    assert (parted.relation, parted.ahead_count, parted.behind_count, parted.bases) == ("parted", 1, 1, (base,))
    assert parted.ahead[0].id == new
    assert compare(settings, REPO, old, "main").relation == "unrelated"
    assert compare(settings, REPO, unrelated, "main").relation == "unrelated"


def test_odd_and_hostile_entries_are_listed_as_text(settings: Settings, repo: GitRepo) -> None:
    repo.commit({"a": b"1", "was-dir/x": b"1"}, tag="v1")
    gitlink = ("160000", b"1" * 40)
    files: dict[str | bytes, bytes | tuple[str, bytes]] = {
        "a": (SYMLINK, b"/etc/passwd"),
        "was-dir": b"now a file",
        "sub": gitlink,
        b"\xff<script>\n": b"odd",
    }
    assert gitlink[0] == GITLINK
    repo.commit(files, tag="v2")
    found = compare(settings, REPO, "v1", "v2")
    by_path = {(f.kind, f.path): f for f in found.files}
    assert by_path["changed", "a"].new_mode == "120000"
    assert by_path["added", "sub"].new_mode == "160000"
    assert {("removed", "was-dir/x"), ("added", "was-dir"), ("added", "\\xff<script>\\n")} <= by_path.keys()


def test_a_repository_of_sha256_is_read_the_same_way(settings: Settings) -> None:
    path = mirror_path(settings, REPO)
    path.parent.mkdir(parents=True)
    repo = GitRepo(path, object_format="sha256")
    old, new = repo.commit({"a": b"1"}), repo.commit({"a": b"2", "d/b": b"1"})
    found = compare(settings, REPO, old, "main")
    assert (found.new, found.relation, [f.path for f in found.files]) == (new, "forward", ["a", "d/b"])


def test_an_annotated_tag_stands_for_its_commit(settings: Settings, repo: GitRepo) -> None:
    commit = repo.commit({"a": b"1"})
    repo.git("tag", "-a", "-m", "release", "v1", commit)
    assert compare(settings, REPO, "v1", "main").relation == "same"


@pytest.mark.parametrize("known", [True, False])
def test_a_mirror_that_is_missing_says_how_to_get_it(settings: Settings, known: bool) -> None:
    if known:
        chosen = {REPO: RepositorySettings(url="https://git.example.net/shop.git")}
        settings = Settings(node=settings.node, state=settings.state, repositories=chosen)
    with pytest.raises(RefNotFound, match="no mirror of group/shop") as caught:
        compare(settings, REPO, "v1", "v2")
    assert ("agent --once" if known else '[repositories."group/shop"]') in caught.value.remedy
    assert not mirror_path(settings, REPO).exists()


@pytest.mark.parametrize(
    "name", ["v9", "1" * 40, "1" * 64, "", "../../etc", "<script>", "\ud800", "x" * 10_000, "refs/heads/\0"]
)
def test_a_name_that_the_mirror_lacks_is_refused_in_words(settings: Settings, repo: GitRepo, name: str) -> None:
    repo.commit({"a": b"1"}, tag="v1")
    with pytest.raises(RefNotFound) as caught:
        compare(settings, REPO, "v1", name)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_tree_or_blob_is_no_commit(settings: Settings, repo: GitRepo) -> None:
    commit = repo.commit({"a": b"1"}, tag="v1")
    for oid in (repo.tree_of(commit), repo.blob(b"1")):
        with pytest.raises(MirrorError, match=r"where a commit must stand|no commit"):
            compare(settings, REPO, "v1", oid)


def test_a_damaged_object_is_named(settings: Settings, repo: GitRepo) -> None:
    commit = repo.commit({"a": b"1"}, tag="v1")
    repo.commit({"a": b"2"}, tag="v2")
    path = repo.path / "objects" / commit[:2] / commit[2:]
    path.chmod(0o600)
    path.write_bytes(b"no zlib stream")
    with pytest.raises(MirrorError, match=commit):
        compare(settings, REPO, "v1", "v2")


def _stream(commits: int, files: int) -> Iterator[bytes]:
    for n in range(commits):
        text = f"change {n}"
        yield f"commit refs/heads/main\nmark :{n + 1}\ncommitter A <a@example.net> {1_600_000_000 + n} +0000\n".encode()
        yield f"data {len(text)}\n{text}\n".encode()
        if n == 0:
            yield b"M 100644 inline a\ndata 1\n0\n\n"
        elif n == commits - 1:
            for f in range(files):
                yield f"M 100644 inline d{f % 100}/e{f % 7}/file{f}\ndata 1\n1\n".encode()
    yield b"done\n"


def test_ten_thousand_commits_and_a_hundred_thousand_files_stay_bounded(settings: Settings, repo: GitRepo) -> None:
    repo.git("fast-import", "--quiet", "--done", data=b"".join(_stream(10_001, 100_000)))
    repo.git("update-ref", "refs/tags/v1", repo.git("rev-list", "--max-parents=0", "main").decode().strip())
    found = compare(settings, REPO, "v1", "main", limit=100, seconds=120)
    assert (found.ahead_count, found.file_count, found.truncated) == (10_000, 100_000, True)
    assert (len(found.ahead), len(found.files)) == (100, 100)
    assert (found.commits_complete, found.files_complete) == (True, True)
    tracemalloc.start()
    hurried = compare(settings, REPO, "v1", "main", limit=10, seconds=0.05)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024 * 1024
    assert not hurried.commits_complete
    assert hurried.truncated
    assert layout.is_repository(mirror_path(settings, REPO))
