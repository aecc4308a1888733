"""Which objects a tree needs: as git and git-lfs have it, by whatever way one comes to it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.errors import TreeError
from deploykit.git.lfspointer import LfsPointer, parse_pointer
from deploykit.git.objectreader import ObjectReader
from deploykit.git.store import ObjectStore
from deploykit.mirror import layout
from deploykit.mirror.lfs import wanted
from deploykit.mirror.lfs.wanted import LfsScan, NeededObjects, all_objects
from deploykit.trees.entries import parsed_tree
from tests.support.chance import dice
from tests.support.lfsorigins import pointer_to
from tests.support.lfsstub import pointer_file
from tests.support.needs import needs
from tests.support.origins import GitRepo, git_env, run_git

#: What stands in the files called `.gitattributes`.
ATTRIBUTES = (
    b"*.bin filter=lfs diff=lfs merge=lfs -text\n",
    b"*.bin -filter\n",
    b"*.bin !filter\n/deep/*.txt filter=lfs\n",
    b"[attr]big filter=lfs -text\n*.bin big\n",
    b"**/a/*.bin filter=other\n*.txt filter=lfs\n",
    b"# nothing\n* text=auto\n",
    b"x.bin filter=lfs\nx.bin filter\n",
)
DIRECTORIES = ("", "a/", "a/deep/", "b/", "b/a/")


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    return GitRepo.make(tmp_path / "repo.git")


@pytest.fixture
def scan(repo: GitRepo) -> Iterator[LfsScan]:
    with ObjectStore(repo.path, layout.read_format(repo.path)) as objects, LfsScan(objects.store) as made:
        yield made


def flat(needs: NeededObjects) -> dict[bytes, LfsPointer]:
    """Each path with its object."""
    found = {path: pointer for pointer, path in needs.here}
    for below in needs.below:
        found |= flat(below)
    return found


def said_by_git(repo: GitRepo, tree: str, work: Path) -> dict[bytes, LfsPointer]:
    """The pointers that git-lfs finds, where git says that they are its files."""
    commit = repo.commit(tree=tree, branch=None, parents=())
    run_git(work.parent, "-c", "advice.detachedHead=false", "clone", "-q", "--no-checkout", str(repo.path), str(work))
    run_git(work, "fetch", "-q", "origin", commit)
    run_git(work, "checkout", "-q", commit)
    listed = run_git(work, "lfs", "ls-files", "--long", "--size", commit)
    paths = [line.split(" ", 2)[2].rpartition(" (")[0] for line in listed.splitlines()]
    asked = b"".join(path.encode() + b"\0" for path in paths)
    out = subprocess.run(
        ["git", "-C", str(work), "check-attr", "-z", "--stdin", "filter"],
        input=asked,
        capture_output=True,
        check=True,
        env=git_env(),
    ).stdout.split(b"\0")
    filtered = {out[at] for at in range(0, len(out) - 2, 3) if out[at + 2] == b"lfs"}
    contents = {path: (work / path.decode()).read_bytes() for path in filtered}
    found = {path: parse_pointer(content) for path, content in contents.items()}
    return {path: pointer for path, pointer in found.items() if pointer is not None}


def test_it_is_what_git_and_git_lfs_say(repo: GitRepo, scan: LfsScan, tmp_path: Path) -> None:
    needs("git-lfs", package="git-lfs")
    chance = dice()
    for at in range(3):
        files: dict[str, bytes | str] = {}
        for directory in DIRECTORIES:
            if chance.random() < 0.6:
                files[f"{directory}.gitattributes"] = chance.choice(ATTRIBUTES)
            for name in ("x.bin", "y.bin", "z.txt"):
                pointer = pointer_file(pointer_to(b"%d" % chance.randrange(9)))
                files[directory + name] = chance.choice((pointer, pointer, b"plain", b"", pointer + b"more\n"))
        files["link.bin"] = "x.bin"
        tree = repo.tree(files)
        assert flat(scan.needed(tree.encode())) == said_by_git(repo, tree, tmp_path / f"work{at}")


def test_next_to_a_tree_only_the_difference_is_needed(repo: GitRepo, scan: LfsScan) -> None:
    """By whatever two trees, and with whatever else was looked at before: what is left out is in the other tree."""
    chance = dice()
    trees: list[bytes] = []
    for _ in range(7):
        files: dict[str, bytes | str] = {}
        for directory in DIRECTORIES:
            if chance.random() < 0.5:
                files[f"{directory}.gitattributes"] = chance.choice(ATTRIBUTES)
            for name in ("x.bin", "z.txt"):
                if chance.random() < 0.7:
                    files[directory + name] = pointer_file(pointer_to(b"%d" % chance.randrange(3)))
        trees.append(repo.tree(files).encode())
    alone = {tree: flat(scan.needed(tree)) for tree in trees}
    for tree in trees:
        for base in trees:
            new = flat(scan.needed(tree, base))
            assert new.items() <= alone[tree].items()
            assert set(alone[tree].values()) <= set(new.values()) | set(alone[base].values())
            assert (tree == base) <= (not new)


def test_a_pointer_that_is_a_delta_on_something_large_is_read(repo: GitRepo) -> None:
    pointer = pointer_to(b"x")
    text = pointer_file(pointer)
    large = text + b"y" * 5000
    tree = repo.tree({".gitattributes": ATTRIBUTES[0], "x.bin": text, "y.bin": large})
    repo.commit(tree=tree)
    repo.git("repack", "-adfq", "--window=50")
    with ObjectStore(repo.path, layout.read_format(repo.path)) as objects, LfsScan(objects.store) as scan:
        assert all_objects([scan.needed(tree.encode())]) == {pointer: b"x.bin"}


def test_a_directory_is_read_once_for_all_trees_that_have_it(
    repo: GitRepo, scan: LfsScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []

    def counted(reader: ObjectReader, oid: bytes, path: bytes) -> list[tuple[bytes, int, bytes]]:
        read.append(path)
        return parsed_tree(reader, oid, path)

    monkeypatch.setattr(wanted, "parsed_tree", counted)
    pointer = pointer_file(pointer_to(b"x"))
    same: dict[str, bytes | str] = {".gitattributes": ATTRIBUTES[0], "a/b/x.bin": pointer}
    for n in range(5):
        scan.needed(repo.tree({**same, "n": b"%d" % n}).encode())
    assert sorted(read) == [b""] * 5 + [b"a", b"a/b"]


def test_a_tree_without_end_is_refused(repo: GitRepo, scan: LfsScan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wanted, "_MAX_ENTRIES", 100)
    tree = repo.tree({".gitattributes": ATTRIBUTES[0], "x.bin": pointer_file(pointer_to(b"x"))})
    for _ in range(7):
        tree = repo.git("mktree", data=f"040000 tree {tree}\ta\n040000 tree {tree}\tb\n".encode())
    with pytest.raises(TreeError, match="larger than any"):
        scan.needed(tree.encode())
    monkeypatch.setattr(wanted, "_MAX_KNOWN", 10)
    assert not scan.needed(repo.tree({f"{n}/x": b"" for n in range(20)}).encode())
    assert len(scan._known) <= 10
