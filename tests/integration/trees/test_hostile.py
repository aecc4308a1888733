"""Repositories made to hurt: nothing outside the target changes, and the error names what was refused."""

from __future__ import annotations

import os
import resource
import zlib
from pathlib import Path

import pytest

from deploykit.errors import TreeError
from deploykit.git.repository import Repository
from deploykit.names import ObjectId
from deploykit.trees import Manifest, TreeRules, WriteOptions, compare, list_tree, patch_tree, write_tree
from deploykit.trees.files import OpenDirectories, open_directory, put_file
from tests.support.confusing import CONFUSING
from tests.support.gitrepo import DIRECTORY, EXECUTABLE, FILE, GITLINK, SYMLINK, GitRepo, contents


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    return GitRepo(tmp_path / "repo")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where trees are written, with something beside it that must never change."""
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "precious").write_text("untouched")
    return tmp_path / "around" / "target"


def _write(repo: GitRepo, tree: str, target: Path, rules: TreeRules | None = None) -> Manifest:
    with Repository(repo.path) as source:
        return write_tree(source.store, ObjectId(tree), target, rules)


def _untouched(target: Path) -> bool:
    found = contents(target.parent, ignore=[b"target"])
    return found == {b"precious": ("file", 0o644, b"untouched")}


@pytest.mark.parametrize("name", [n for n in CONFUSING if n and b"\0" not in n], ids=ascii)
@pytest.mark.parametrize("kind", [FILE, DIRECTORY, SYMLINK])
def test_threat_14_confusing_names_are_refused_before_anything_is_written(
    repo: GitRepo, target: Path, name: bytes, kind: str
) -> None:
    inner = repo.blob(b"x") if kind != DIRECTORY else repo.tree([(FILE, b"config", repo.blob(b"x"))])
    tree = repo.tree([(FILE, b"aaa", repo.blob(b"x")), (kind, name, inner)])
    with pytest.raises(TreeError, match="refused the file name"):
        _write(repo, tree, target)
    assert not target.exists()
    assert _untouched(target)


@pytest.mark.parametrize(
    ("path", "link"),
    [
        ("evil", b"/etc/passwd"),
        ("evil", b"../precious"),
        ("d/evil", b"../../precious"),
        ("d/evil", b"x/../../../precious"),
        ("evil", b"//etc"),
        ("evil", b".."),
    ],
)
def test_threat_12_a_symlink_out_of_the_tree_is_refused(repo: GitRepo, target: Path, path: str, link: bytes) -> None:
    commit = repo.commit({"a": b"x", path: (SYMLINK, link)})
    with pytest.raises(TreeError, match=r"the symlink (d/)?evil -> .* leads out of the tree"):
        _write(repo, repo.tree_of(commit), target)
    assert not target.exists()
    _write(repo, repo.tree_of(commit), target, TreeRules(symlinks="any"))
    assert str((target / path).readlink()) == link.decode()


def test_threat_12_a_patch_that_turns_a_harmless_link_into_a_way_out_is_refused(repo: GitRepo, target: Path) -> None:
    """`x -> d/../..` is inside while `d` is a directory two deep, and outside once `d` is a link to the root."""
    first = repo.commit({"p/x": (SYMLINK, b"d/e/../../.."), "p/d/e/f": b"1"})
    second = repo.commit({"p/x": (SYMLINK, b"d/e/../../.."), "p/d": (SYMLINK, b".."), "e/f": b"1"})
    with Repository(repo.path) as source:
        manifest = write_tree(source.store, ObjectId(repo.tree_of(first)), target)
        with pytest.raises(TreeError, match="leads out of the tree"):
            patch_tree(source.store, ObjectId(repo.tree_of(second)), target, manifest)


def test_symlinks_can_be_refused_altogether(repo: GitRepo, target: Path) -> None:
    commit = repo.commit({"a": b"x", "l": (SYMLINK, b"a")})
    with pytest.raises(TreeError, match="l is a symlink"):
        _write(repo, repo.tree_of(commit), target, TreeRules(symlinks="refuse"))


def test_threat_13_a_link_and_a_directory_of_one_name_are_refused(repo: GitRepo, target: Path) -> None:
    """git's own CVE-2021-21300 family: the link is written first, then something through it."""
    inner = repo.tree([(FILE, b"precious", repo.blob(b"overwritten"))])
    tree = repo.tree([(SYMLINK, b"d", repo.blob(b"..")), (DIRECTORY, b"d", inner)])
    with pytest.raises(TreeError, match="holds one name twice"):
        _write(repo, tree, target, TreeRules(symlinks="any"))
    assert _untouched(target)


def test_threat_13_a_link_planted_while_we_write_is_not_walked_through(repo: GitRepo, target: Path) -> None:
    commit = repo.commit({"a/x": b"1", "b/precious": b"overwritten"})

    def plant(done: int, total: int) -> None:
        if not os.path.lexists(target / "b"):
            (target / "b").symlink_to("..")

    with Repository(repo.path) as source, pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        write_tree(source.store, ObjectId(repo.tree_of(commit)), target, options=WriteOptions(progress=plant))
    assert _untouched(target)


def test_threat_13_no_directory_is_opened_and_no_file_written_through_a_link(target: Path) -> None:
    target.mkdir()
    (target / "up").symlink_to("..")
    (target / "file").symlink_to("../precious")
    fd = open_directory(target)
    try:
        with OpenDirectories(fd) as opened, pytest.raises(OSError, match=r"Not a directory|symbolic links"):
            opened.open("up", create=True)
        with pytest.raises(FileExistsError):
            put_file("file", fd, b"overwritten", mode=0o666, umask=None, owner=None)
    finally:
        os.close(fd)
    assert _untouched(target)


def test_threat_13_a_patch_brings_back_a_directory_that_was_swapped_for_a_link(repo: GitRepo, target: Path) -> None:
    first = repo.commit({"d/precious": b"ours", "e": b"1"})
    second = repo.commit({"d/precious": b"ours, changed", "e": b"1"})
    with Repository(repo.path) as source:
        manifest = write_tree(source.store, ObjectId(repo.tree_of(first)), target)
        (target / "d").rename(target.parent / "elsewhere")
        (target / "d").symlink_to("..")
        patch_tree(source.store, ObjectId(repo.tree_of(second)), target, manifest)
    assert (target / "d" / "precious").read_bytes() == b"ours, changed"
    assert not (target / "d").is_symlink()
    assert (target.parent / "precious").read_text() == "untouched"
    assert (target.parent / "elsewhere" / "precious").read_bytes() == b"ours"


def test_threat_15_submodules_are_refused_and_gitmodules_is_only_a_file(repo: GitRepo, target: Path) -> None:
    """Nothing reads `.gitmodules`: its URLs and paths are bytes like others."""
    modules = (
        b'[submodule "x"]\n\tpath = ../../evil\n\turl = ext::sh -c touch% /tmp/pwned\n\tupdate = !touch /tmp/pwned\n'
    )
    commit = repo.commit({".gitmodules": modules, "sub": (GITLINK, b"1" * 40)})
    with pytest.raises(TreeError, match="sub is a submodule"):
        _write(repo, repo.tree_of(commit), target)
    _write(repo, repo.tree_of(commit), target, TreeRules(submodules="skip"))
    assert list((target / "sub").iterdir()) == []
    assert (target / ".gitmodules").read_bytes() == modules
    assert _untouched(target)


def test_threat_20_a_tree_of_ten_objects_and_ten_thousand_million_files_ends_at_the_cap(
    repo: GitRepo, target: Path
) -> None:
    tree = repo.tree([(FILE, b"f%d" % n, repo.blob(b"x")) for n in range(10)])
    for _ in range(9):
        tree = repo.tree([(DIRECTORY, b"d%d" % n, tree) for n in range(10)])
    with Repository(repo.path) as source, pytest.raises(TreeError, match="more than 250000 entries"):
        for _ in list_tree(source.store, ObjectId(tree)):
            pass
    with pytest.raises(TreeError, match="more than 250000 entries"):
        _write(repo, tree, target)
    assert not target.exists()


def test_threat_20_a_patch_meets_the_same_caps(repo: GitRepo, target: Path) -> None:
    first = repo.commit({"a": b"1"})
    second = repo.commit({f"f{n}": b"%d" % n for n in range(30)})
    rules = TreeRules(max_entries=20)
    with Repository(repo.path) as source:
        manifest = write_tree(source.store, ObjectId(repo.tree_of(first)), target, rules)
        with pytest.raises(TreeError, match=r"more than 20 entries|larger than allowed"):
            patch_tree(source.store, ObjectId(repo.tree_of(second)), target, manifest, rules)


@pytest.mark.parametrize("limit", [{"max_bytes": 650}, {"max_entries": 6}])
def test_threat_20_a_tree_that_grows_bit_by_bit_meets_the_caps_as_a_whole(
    repo: GitRepo, target: Path, limit: dict[str, int]
) -> None:
    """Each patch is small: it is the sum with all that stays which is too much."""
    rules = TreeRules(**limit)  # type: ignore[arg-type]
    files: dict[str | bytes, bytes | tuple[str, bytes]] = {f"f{n}": b"x" * 100 for n in range(6)}
    manifest = _write(repo, repo.tree_of(repo.commit(files)), target, rules)
    grown = repo.tree_of(repo.commit({**files, "d/one-more": b"x" * 100}))
    with Repository(repo.path) as source, pytest.raises(TreeError):
        patch_tree(source.store, ObjectId(grown), target, manifest, rules)


def test_threat_20_depth_is_capped(repo: GitRepo, target: Path) -> None:
    commit = repo.commit({"d/" * 65 + "f": b"x"})
    with pytest.raises(TreeError, match="65 directories deep; 64 are allowed"):
        _write(repo, repo.tree_of(commit), target)


def test_threat_20_one_file_and_all_files_are_capped(repo: GitRepo, target: Path) -> None:
    commit = repo.commit({f"f{n}": b"%d" % n * 1000 for n in range(10)})
    with pytest.raises(TreeError, match="would expand to 1000 bytes"):
        _write(repo, repo.tree_of(commit), target, TreeRules(max_file_bytes=999))
    with pytest.raises(TreeError, match="more than 9999 bytes together"):
        _write(repo, repo.tree_of(commit), target.with_name("second"), TreeRules(max_bytes=9999))


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _delta_bomb(repo: GitRepo, steps: int) -> str:
    """Write a pack whose last object is a delta on a delta on ...: each makes 16 times as many bytes, the last ten.

    Returns the id of the last one.
    """
    import hashlib
    import struct

    def head(kind: int, size: int) -> bytes:
        byte = kind << 4 | size & 15
        size >>= 4
        out = bytearray()
        while size:
            out.append(byte | 0x80)
            byte = size & 0x7F
            size >>= 7
        out.append(byte)
        return bytes(out)

    length = 0xFFFF
    base = b"\0" * length
    objects = [head(3, length) + zlib.compress(base)]
    size = length
    for _ in range(steps):
        copy = b"\xb0" + _le24(min(size, 0xFFFF))
        result = (min(size, 0xFFFF)) * 4000
        delta = _varint(size) + _varint(result) + copy * 4000
        objects.append(delta)
        size = result
    delta = _varint(size) + _varint(10) + b"\x90\x0a"
    objects.append(delta)
    raw = [objects[0]]
    for at, delta in enumerate(objects[1:]):
        distance = len(raw[at])
        raw.append(head(6, len(delta)) + _offset(distance) + zlib.compress(delta))
    pack = b"PACK" + struct.pack(">LL", 2, len(raw)) + b"".join(raw)
    pack += hashlib.sha1(pack).digest()
    last = hashlib.sha1(b"blob 10\0" + b"\0" * 10).hexdigest()
    # git index-pack would expand it; the index is written by hand with invented ids for the middle ones.
    offsets, at = [], 12
    for item in raw:
        offsets.append(at)
        at += len(item)
    ids = [hashlib.sha1(b"blob %d\0" % length + base).digest()]
    ids += [hashlib.sha1(b"step %d" % n).digest() for n in range(len(raw) - 2)]
    ids.append(bytes.fromhex(last))
    rows = sorted(zip(ids, offsets, [zlib.crc32(item) for item in raw], strict=True))
    fan = b"".join(struct.pack(">L", sum(row[0][0] <= n for row in rows)) for n in range(256))
    index = b"\xfftOc" + struct.pack(">L", 2) + fan + b"".join(row[0] for row in rows)
    index += b"".join(struct.pack(">L", row[2]) for row in rows)
    index += b"".join(struct.pack(">L", row[1]) for row in rows) + pack[-20:]
    index += hashlib.sha1(index).digest()
    where = repo.path / "objects" / "pack"
    (where / "pack-bomb.pack").write_bytes(pack)
    (where / "pack-bomb.idx").write_bytes(index)
    return last


def _le24(number: int) -> bytes:
    return number.to_bytes(2, "little")


def _offset(distance: int) -> bytes:
    out = [distance & 0x7F]
    distance >>= 7
    while distance:
        distance -= 1
        out.insert(0, 0x80 | distance & 0x7F)
        distance >>= 7
    return bytes(out)


def test_threat_20_a_delta_bomb_is_measured_before_it_is_expanded(repo: GitRepo, target: Path) -> None:
    """The object itself is ten bytes; what it stands on is 262 MB, out of a pack of 30 kB."""
    bomb = _delta_bomb(repo, 2)
    tree = repo.tree([(FILE, b"bomb", bomb)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TreeError, match=rf"object {bomb} would expand to \d{{9,}} bytes"):
        _write(repo, tree, target, TreeRules(max_file_bytes=50 * 1024 * 1024))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 60 * 1024, f"{grown} kB were used"
    _write(repo, tree, target.with_name("allowed"), TreeRules(max_file_bytes=1 << 30))
    assert (target.with_name("allowed") / "bomb").read_bytes() == b"\0" * 10


def test_threat_20_a_loose_object_is_measured_before_it_is_expanded(repo: GitRepo, target: Path) -> None:
    commit = repo.commit({"zeros": b"\0" * 50_000_000})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TreeError, match="would expand to 50000000 bytes"):
        _write(repo, repo.tree_of(commit), target, TreeRules(max_file_bytes=1_000_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024


def test_a_missing_object_is_named_and_the_rest_stays_usable(repo: GitRepo, target: Path) -> None:
    oid = repo.blob(b"here for now")
    commit = repo.commit({"a": b"x", "gone": b"here for now"})
    (repo.path / "objects" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(TreeError, match=f"object {oid} is missing"):
        _write(repo, repo.tree_of(commit), target)
    assert _untouched(target)


def test_an_object_that_does_not_hash_to_its_name_is_damaged(repo: GitRepo, target: Path) -> None:
    one, two = repo.blob(b"first content"), repo.blob(b"other content")
    commit = repo.commit({"a": b"first content", "b": b"other content"})
    path = repo.path / "objects"
    (path / one[:2] / one[2:]).chmod(0o644)
    (path / one[:2] / one[2:]).write_bytes((path / two[:2] / two[2:]).read_bytes())
    with pytest.raises(TreeError, match=f"object {one} is damaged"):
        _write(repo, repo.tree_of(commit), target)


def test_a_pack_damaged_anywhere_never_becomes_a_wrong_file(repo: GitRepo, tmp_path: Path) -> None:
    files: dict[str | bytes, bytes | tuple[str, bytes]] = {
        f"f{n}": b"".join(b"line %d of %d\n" % (k, n if k == 50 else 0) for k in range(100)) for n in range(20)
    }
    commit = repo.commit(files)
    repo.pack()
    (pack,) = (repo.path / "objects" / "pack").glob("*.pack")
    pack.chmod(0o644)
    sound = pack.read_bytes()
    tree = repo.tree_of(commit)
    wrong = 0
    for at in range(12, len(sound) - 20, max(1, len(sound) // 60)):
        damaged = bytearray(sound)
        damaged[at] ^= 0x55
        pack.write_bytes(damaged)
        target = tmp_path / f"t{at}"
        try:
            _write(repo, tree, target)
        except TreeError:
            wrong += 1
        else:
            assert {p: c for p, (_, _, c) in contents(target).items()} == {os.fsencode(p): c for p, c in files.items()}
    assert wrong > 10


def test_a_tree_that_is_not_one_is_refused(repo: GitRepo, target: Path) -> None:
    blob = repo.blob(b"not a tree")
    with pytest.raises(TreeError, match="is a blob where a tree must stand"):
        _write(repo, blob, target)
    tree = repo.tree([(FILE, b"f", repo.tree([]))])
    with pytest.raises(TreeError, match="is a tree where a blob must stand"):
        _write(repo, tree, target)


@pytest.mark.parametrize("mode", ["0", "20000", "170000", "777777"])
def test_a_mode_git_does_not_use_is_refused(repo: GitRepo, target: Path, mode: str) -> None:
    tree = repo.tree([(mode, b"odd", repo.blob(b"x"))])
    with pytest.raises(TreeError, match="which git does not use"):
        _write(repo, tree, target)


def test_setuid_in_a_tree_is_dropped(repo: GitRepo, target: Path) -> None:
    tree = repo.tree([("106755", b"su", repo.blob(b"x"))])
    _write(repo, tree, target)
    assert (target / "su").stat().st_mode & 0o7777 == 0o755


# -- patching what somebody worked on ----------------------------------------------------------------------------------


def _spoil(target: Path) -> None:
    (target / "edited").write_bytes(b"edited by hand")
    (target / "removed").unlink()
    (target / "mode").chmod(0o777)
    (target / "kind").unlink()
    (target / "kind").mkdir()
    (target / "kind" / "inner").write_text("x")
    (target / "link").unlink()
    (target / "link").symlink_to("elsewhere")
    (target / "added").write_text("x")
    (target / "d" / "added").write_text("x")
    (target / "cache").mkdir()
    (target / "cache" / "deep").mkdir()
    (target / "cache" / "deep" / "file").write_text("x")
    (target / "cache" / "etc").symlink_to("/etc")
    (target / "d" / "e").rename(target / "d" / "moved")
    os.mkfifo(target / "d" / "pipe")
    stamp = (target / "same-size").stat()
    (target / "same-size").write_bytes(b"BBBB")
    os.utime(target / "same-size", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (target / "touched").touch()
    (target / "copied").replace(target / "copied.tmp")
    (target / "copied").write_bytes(b"copied")
    (target / "copied.tmp").unlink()


_FILES: dict[str | bytes, bytes | tuple[str, bytes]] = {
    "edited": b"1",
    "removed": b"1",
    "mode": b"1",
    "kind": b"1",
    "link": (SYMLINK, b"edited"),
    "d/keep": b"1",
    "d/e/f": b"1",
    "same-size": b"AAAA",
    "touched": b"1",
    "copied": b"copied",
    "run": (EXECUTABLE, b"#!/bin/sh\n"),
}


def test_verify_finds_every_kind_of_edit_and_nothing_else(repo: GitRepo, target: Path) -> None:
    commit = repo.commit(_FILES)
    manifest = _write(repo, repo.tree_of(commit), target)
    assert not compare(manifest, target)
    _spoil(target)
    found = compare(manifest, target)
    assert found.lines() == [
        "added added",
        "added cache/",
        "added d/added",
        "missing d/e/f",
        "added d/moved/",
        "added d/pipe",
        "modified edited",
        "missing kind",
        "added kind/",
        "modified link",
        "modified mode",
        "missing removed",
        "modified same-size",
    ]


@pytest.mark.parametrize("paranoid", [False, True])
def test_a_patched_directory_is_as_new_whatever_was_done_to_it(repo: GitRepo, target: Path, paranoid: bool) -> None:
    first = repo.commit(_FILES)
    second = repo.commit(
        {**{p: c for p, c in _FILES.items() if p not in ("d/keep", "d/e/f")}, "d": b"a file now", "new/dir/x": b"2"}
    )
    with Repository(repo.path) as source:
        manifest = write_tree(source.store, ObjectId(repo.tree_of(first)), target)
        _spoil(target)
        done = patch_tree(source.store, ObjectId(repo.tree_of(first)), target, manifest, paranoid=paranoid)
        repo.checkout(first, target.with_name("theirs"))
        assert contents(target) == contents(target.with_name("theirs"))
        assert not compare(done.manifest, target, paranoid=True)
        _spoil_more = target / "run"
        _spoil_more.write_bytes(b"rm -rf /\n")
        done = patch_tree(source.store, ObjectId(repo.tree_of(second)), target, done.manifest, paranoid=paranoid)
    repo.checkout(second, target.with_name("theirs2"))
    assert contents(target) == contents(target.with_name("theirs2"))
    assert not compare(done.manifest, target, paranoid=True)


def test_a_patch_never_writes_a_file_in_place(repo: GitRepo, target: Path) -> None:
    """A reader that opened the file before goes on reading the old content."""
    first, second = repo.commit({"a": b"old"}), repo.commit({"a": b"new"})
    with Repository(repo.path) as source:
        manifest = write_tree(source.store, ObjectId(repo.tree_of(first)), target)
        with (target / "a").open("rb") as reader:
            patch_tree(source.store, ObjectId(repo.tree_of(second)), target, manifest)
            assert reader.read() == b"old"
    assert (target / "a").read_bytes() == b"new"
