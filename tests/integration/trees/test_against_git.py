"""What we write is what git writes: byte for byte, mode for mode, on trees that hypothesis and we could think of."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploykit.errors import TreeError
from deploykit.git.repository import Repository
from deploykit.names import ObjectId
from deploykit.trees import Manifest, TreeRules, WriteOptions, compare, patch_tree, write_tree
from tests.support.gitrepo import EXECUTABLE, FILE, GITLINK, SYMLINK, GitRepo, contents
from tests.support.needs import missing

ANY = TreeRules(symlinks="any")

_names = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12).map(str.encode),
    st.binary(min_size=1, max_size=8).filter(lambda b: b"/" not in b and b"\0" not in b),
    st.sampled_from([b"a", b"b", b"A", b"a.b", b"a-b", b"-rf", b"~", b" ", b"x" * 255, b"con", b"%2F", b"\xc3\xa9"]),
).filter(lambda n: n not in (b".", b"..") and b"git" not in n.lower() and len(n) <= 255)
_contents = st.one_of(
    st.binary(max_size=200), st.just(b""), st.integers(0, 100_000).map(lambda n: b"line %d\r\n" % n * 50)
)
_files = st.one_of(
    _contents.map(lambda c: (FILE, c)),
    _contents.map(lambda c: (EXECUTABLE, c)),
    st.binary(min_size=1, max_size=40).filter(lambda t: b"\0" not in t).map(lambda t: (SYMLINK, t)),
)
_trees = st.dictionaries(
    st.lists(_names, min_size=1, max_size=4).map(tuple),
    _files,
    min_size=1,
    max_size=12,
)


def _without_clashes(tree: dict[tuple[bytes, ...], tuple[str, bytes]]) -> dict[str | bytes, tuple[str, bytes]]:
    """A file cannot also be a directory: drop what would make it one."""
    paths = set(tree)
    return {
        b"/".join(path): value
        for path, value in tree.items()
        if not any(path[:n] in paths for n in range(1, len(path)))
    }


@pytest.mark.timeout(1200)  # hundreds of git processes: long on a busy machine
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(before=_trees, after=_trees)
def test_generated_trees_come_out_as_git_writes_them_fresh_and_patched(
    before: dict[tuple[bytes, ...], tuple[str, bytes]], after: dict[tuple[bytes, ...], tuple[str, bytes]]
) -> None:
    with tempfile.TemporaryDirectory() as where:
        base = Path(where)
        repo = GitRepo(base / "repo")
        first = repo.commit(_without_clashes(before))
        second = repo.commit(_without_clashes({**before, **after}))
        repo.pack()
        with Repository(repo.path) as source:
            fresh = write_tree(source.store, ObjectId(repo.tree_of(first)), base / "ours", ANY)
            repo.checkout(first, base / "theirs")
            assert contents(base / "ours") == contents(base / "theirs")
            assert not compare(fresh, base / "ours", paranoid=True)
            patched = patch_tree(source.store, ObjectId(repo.tree_of(second)), base / "ours", fresh, ANY)
        repo.checkout(second, base / "theirs2")
        assert contents(base / "ours") == contents(base / "theirs2")
        patched.manifest.save(base / "manifest")
        assert not compare(Manifest.load(base / "manifest"), base / "ours", paranoid=True)


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    return GitRepo(tmp_path / "repo")


def _write(repo: GitRepo, commit: str, target: Path, rules: TreeRules = ANY) -> Manifest:
    with Repository(repo.path) as source:
        return write_tree(source.store, ObjectId(repo.tree_of(commit)), target, rules, WriteOptions(commit=commit))


@pytest.mark.parametrize(("object_format", "packed"), [("sha1", True), ("sha256", False)], ids=["packed", "loose"])
def test_sizes_from_nothing_to_100_megabytes(tmp_path: Path, object_format: str, packed: bool) -> None:
    repo = GitRepo(tmp_path / "repo", object_format=object_format)
    big = os.urandom(1024 * 1024) * 100
    files: dict[str | bytes, bytes | tuple[str, bytes]] = {
        "empty": b"",
        "one": b"x",
        "page": os.urandom(4096),
        "two-pieces": os.urandom(2 * 1024 * 1024),
        "two-pieces-and-one": os.urandom(2 * 1024 * 1024 + 1),
        "deep/" * 60 + "file": (EXECUTABLE, b"#!/bin/sh\n"),
        "big": big,
        "big-with-a-change": big[:-1] + b"!",
    }
    commit = repo.commit(files)
    if packed:
        repo.pack()
    _write(repo, commit, tmp_path / "ours", TreeRules(max_depth=100))
    repo.checkout(commit, tmp_path / "theirs")
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


def test_old_trees_with_group_writable_modes_are_written_as_git_writes_them(repo: GitRepo, tmp_path: Path) -> None:
    oid = repo.blob(b"x\n")
    tree = repo.tree([("100664", b"a", oid), ("100775", b"b", oid), ("104755", b"c", oid)])
    commit = repo.commit_tree(tree)
    _write(repo, commit, tmp_path / "ours")
    repo.checkout(commit, tmp_path / "theirs")
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_process_umask_is_honoured(repo: GitRepo, tmp_path: Path, umask: int) -> None:
    commit = repo.commit({"d/a": b"x", "d/b": (EXECUTABLE, b"y")})
    before = os.umask(umask)
    try:
        _write(repo, commit, tmp_path / "ours")
        repo.checkout(commit, tmp_path / "theirs")
    finally:
        os.umask(before)
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


def test_a_umask_of_the_settings_wins_over_the_process(repo: GitRepo, tmp_path: Path) -> None:
    commit = repo.commit({"d/a": b"x", "d/b": (EXECUTABLE, b"y")})
    before = os.umask(0o077)
    try:
        _write(repo, commit, tmp_path / "ours", TreeRules(umask=0o027))
    finally:
        os.umask(before)
    modes = {path: mode for path, (_, mode, _) in contents(tmp_path / "ours").items()}
    assert modes == {b"d": 0o750, b"d/a": 0o640, b"d/b": 0o750}


def test_a_skipped_submodule_is_an_empty_directory_as_after_a_checkout(repo: GitRepo, tmp_path: Path) -> None:
    commit = repo.commit({"a": b"x", "sub/mod": (GITLINK, b"1" * 40)})
    with pytest.raises(TreeError, match="sub/mod is a submodule"):
        _write(repo, commit, tmp_path / "refused")
    _write(repo, commit, tmp_path / "ours", TreeRules(submodules="skip"))
    repo.checkout(commit, tmp_path / "theirs")
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


def test_a_subdirectory_can_be_the_root(repo: GitRepo, tmp_path: Path) -> None:
    commit = repo.commit({"site/a": b"x", "site/b/c": b"y", "other": b"z"})
    _write(repo, commit, tmp_path / "ours", TreeRules(subdirectory="site"))
    repo.checkout(commit, tmp_path / "theirs")
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs" / "site")
    with pytest.raises(TreeError, match="has no directory nowhere"):
        _write(repo, commit, tmp_path / "none", TreeRules(subdirectory="nowhere"))


_EXPORTED: dict[str | bytes, bytes | tuple[str, bytes]] = {
    ".gitattributes": b"""# comment
version.txt export-subst
docs/ export-ignore
*.tmp export-ignore
/only-root.txt export-ignore
sub/**/deep.txt export-ignore
"with space.txt" export-ignore
[attr]hidden export-ignore
secret* hidden
.gitattributes export-ignore
""",
    "sub/.gitattributes": b"keep.tmp -export-ignore\nversion.txt !export-subst\n",
    "version.txt": b"$Format:%H %h %T %t %an <%ae> %ad | %aI | %ai | %at | %as | %cn %cd %cI %ct %s%n%%$ $Format$\n",
    "sub/version.txt": b"$Format:%H$\n",
    "docs/a.md": b"a",
    "docs/b/c.md": b"c",
    "sub/docs/x.md": b"x",
    "docs.txt": b"d",
    "a.tmp": b"t",
    "sub/keep.tmp": b"k",
    "sub/a/b/deep.txt": b"deep",
    "sub/deep.txt": b"deep",
    "only-root.txt": b"r",
    "sub/only-root.txt": b"r",
    "with space.txt": b"s",
    "secret.key": b"s",
    "all-ignored/x.tmp": b"x",
    "run.sh": (EXECUTABLE, b"#!/bin/sh\n"),
    "link": (SYMLINK, b"run.sh"),
}


def _archive_modes(found: dict[bytes, tuple[str, int, bytes]]) -> dict[bytes, tuple[str, int, bytes]]:
    """`git archive` writes 0664 and 0775 before the umask; only the executable bit is the tree's."""
    return {path: (kind, mode & 0o100, content) for path, (kind, mode, content) in found.items()}


def test_export_attributes_make_what_git_archive_makes(repo: GitRepo, tmp_path: Path) -> None:
    repo.commit({"a": b"x"})
    commit = repo.commit(_EXPORTED)
    for packed in (False, True):
        if packed:
            repo.pack()
        ours, theirs = tmp_path / f"ours-{packed}", tmp_path / f"theirs-{packed}"
        manifest = _write(repo, commit, ours, TreeRules(export_attributes=True))
        repo.archive(commit, theirs)
        assert _archive_modes(contents(ours)) == _archive_modes(contents(theirs))
        assert b"$Format" not in (ours / "version.txt").read_bytes().replace(b"$Format$", b"")
        assert not compare(manifest, ours, paranoid=True)


def test_export_attributes_are_off_by_default_as_in_a_checkout(repo: GitRepo, tmp_path: Path) -> None:
    commit = repo.commit(_EXPORTED)
    _write(repo, commit, tmp_path / "ours")
    repo.checkout(commit, tmp_path / "theirs")
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


def test_a_placeholder_that_needs_refs_is_refused_by_name(repo: GitRepo, tmp_path: Path) -> None:
    commit = repo.commit({".gitattributes": b"v export-subst\n", "v": b"$Format:%d$"})
    with pytest.raises(TreeError, match="placeholder %d is not supported"):
        _write(repo, commit, tmp_path / "ours", TreeRules(export_attributes=True))


@pytest.mark.parametrize(
    ("line", "content", "name"),
    [
        (b"*.bin filter=lfs diff=lfs -text", b"anything", "filter"),
        (b"*.bin text eol=crlf", b"a\nb\n", "eol"),
        (b"*.bin text=auto eol=crlf", b"a\nb\n", "eol"),
        (b"* eol=crlf", b"a\nb\n", "eol"),
        (b"*.bin ident", b"$Id$\n", "ident"),
        (b"*.bin working-tree-encoding=UTF-16", b"abc", "working-tree-encoding"),
    ],
)
def test_what_git_would_convert_is_refused_by_name_and_written_raw_by_setting(
    repo: GitRepo, tmp_path: Path, line: bytes, content: bytes, name: str
) -> None:
    commit = repo.commit({".gitattributes": line + b"\n", "file.bin": content})
    with pytest.raises(TreeError, match=rf"\(attribute {name}\)"):
        _write(repo, commit, tmp_path / "refused")
    _write(repo, commit, tmp_path / "raw", TreeRules(raw_attributes=(name,)))
    assert (tmp_path / "raw" / "file.bin").read_bytes() == content


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (b"*.bin text=auto", b"a\nb\n"),
        (b"*.bin text eol=lf", b"a\nb\n"),
        (b"*.bin -text eol=crlf", b"a\nb\n"),
        (b"*.bin binary eol=crlf", b"a\nb\n"),
        (b"*.bin text=auto eol=crlf", b"\0a\nb\n"),
        (b"*.bin text=auto eol=crlf", b"a\r\nb\n"),
        (b"*.bin text eol=crlf", b"a\r\nb\r\n"),
        (b"*.bin ident", b"no id here\n"),
        (b"*.bin -ident", b"$Id$\n"),
        (b"*.bin filter", b"x"),
        (b"*.bin working-tree-encoding=UTF-8", b"x"),
    ],
)
def test_attributes_that_change_nothing_are_no_obstacle(
    repo: GitRepo, tmp_path: Path, line: bytes, content: bytes
) -> None:
    commit = repo.commit({".gitattributes": line + b"\n", "file.bin": content})
    _write(repo, commit, tmp_path / "ours")
    repo.checkout(commit, tmp_path / "theirs")
    assert contents(tmp_path / "ours") == contents(tmp_path / "theirs")


def test_an_lfs_pointer_is_known_by_its_content_too(repo: GitRepo, tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"
    commit = repo.commit({"movie.mp4": pointer})
    with pytest.raises(TreeError, match=r"movie\.mp4 is kept in Git LFS"):
        _write(repo, commit, tmp_path / "refused")
    _write(repo, commit, tmp_path / "raw", TreeRules(raw_attributes=("filter",)))
    assert (tmp_path / "raw" / "movie.mp4").read_bytes() == pointer


def test_a_patched_tree_refuses_the_same_as_a_fresh_one(repo: GitRepo, tmp_path: Path) -> None:
    """What is new in a tree meets the attributes that were there before."""
    first = repo.commit({".gitattributes": b"*.bin filter=lfs\n", "a": b"x"})
    second = repo.commit({".gitattributes": b"*.bin filter=lfs\n", "a": b"x", "b.bin": b"y"})
    manifest = _write(repo, first, tmp_path / "ours")
    with Repository(repo.path) as source, pytest.raises(TreeError, match="attribute filter"):
        patch_tree(source.store, ObjectId(repo.tree_of(second)), tmp_path / "ours", manifest, ANY)


def test_a_real_repository_comes_out_as_git_writes_it(tmp_path: Path) -> None:
    """HEAD of this very project, or of the large clone that DEPLOYKIT_REAL_REPOSITORY names, by git and by us."""
    where = Path(os.environ.get("DEPLOYKIT_REAL_REPOSITORY") or Path(__file__).resolve().parents[3])
    asked = ["git", "-C", str(where), "rev-parse", "--path-format=absolute", "--git-common-dir"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        missing(f"a git repository at {where} (run the tests from a clone)")
    repo = GitRepo(tmp_path / "unused")
    repo.path = Path(found.stdout.strip())
    commit = repo.git("rev-parse", "HEAD").decode().strip()
    raw = TreeRules(symlinks="any", submodules="skip", raw_attributes=("filter", "eol", "ident"))
    with Repository(repo.path) as source:
        manifest = write_tree(source.store, ObjectId(repo.tree_of(commit)), tmp_path / "ours", raw)
    shutil.rmtree(tmp_path / "theirs", ignore_errors=True)
    repo.checkout(commit, tmp_path / "theirs")
    ours, theirs = contents(tmp_path / "ours"), contents(tmp_path / "theirs")
    assert set(ours) == set(theirs)
    index = {"GIT_INDEX_FILE": str(tmp_path / "theirs.index")}
    differing = sorted(path for path in ours if ours[path] != theirs[path])
    for path in differing:  # only where git turned line ends round, which we were told to leave
        eol = repo.git("check-attr", "--cached", "eol", "--", os.fsdecode(path), env=index)
        assert eol.rstrip().endswith(b"eol: crlf"), path
        assert theirs[path][2].replace(b"\r\n", b"\n") == ours[path][2].replace(b"\r\n", b"\n")
    assert len(differing) < len(ours) / 100
    assert not compare(manifest, tmp_path / "ours")
