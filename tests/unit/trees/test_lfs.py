"""Pointers and objects of Git LFS in a tree: what is followed, and what an object must be while it is written."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from deploykit.errors import TreeDamaged, TreeError
from deploykit.git.lfspointer import POINTER_MAX, LfsPointer
from deploykit.git.objectformat import blob_id
from deploykit.trees.lfs import LfsContent, stored_pointer

VERSION = b"version https://git-lfs.github.com/spec/v1\n"
OID = "ab" * 32
POINTER = VERSION + b"oid sha256:%b\nsize 7\n" % OID.encode()


def test_a_pointer_is_followed() -> None:
    assert stored_pointer(b"a.bin", POINTER) == LfsPointer(OID, 7)


@pytest.mark.parametrize(
    "content",
    [b"", b"version 1\n", b"x" + POINTER, POINTER.ljust(POINTER_MAX), POINTER.ljust(POINTER_MAX + 1), iter((POINTER,))],
    ids=["empty", "another", "later", "1 KiB", "1 KiB + 1", "large"],
)
def test_what_is_no_pointer_is_an_ordinary_file(content: bytes) -> None:
    assert stored_pointer(b"a.bin", content) is None


@pytest.mark.parametrize(
    "content",
    [
        POINTER[:-1],
        POINTER + b"\n",
        POINTER.ljust(POINTER_MAX - 1),
        POINTER.replace(b"\n", b"\r\n"),
        POINTER.replace(b"ab", b"AB"),
        POINTER.replace(b"size 7", b"size 07"),
        POINTER.replace(b"size 7", b"size -7"),
        POINTER.replace(b"size 7", b"size 1" + b"0" * 30),
        POINTER.replace(b"spec/v1", b"spec/v2"),
        POINTER.replace(b"sha256:", b"sha1:"),
        POINTER.replace(b"\noid", b"\next-0-packed sha256:%b\noid" % OID.encode()),
        VERSION,
    ],
)
def test_what_is_nearly_a_pointer_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(TreeError, match=r"d/a\.bin looks like a pointer of Git LFS, and is none that can be followed"):
        stored_pointer(b"d/a.bin", content)


def written(file: Path, content: bytes) -> LfsContent:
    """An object whose pointer says `content`."""
    return LfsContent(b"a.bin", LfsPointer(hashlib.sha256(content).hexdigest(), len(content)), file, 20)


def test_an_object_comes_whole_and_with_its_git_id(tmp_path: Path) -> None:
    for content in (b"", b"content", bytes(3 << 20)):
        (tmp_path / "o").write_bytes(content)
        found = written(tmp_path / "o", content)
        assert b"".join(found) == content
        assert found.oid == blob_id(content, 20)


@pytest.mark.parametrize("there", [b"", b"conten", b"content, and more", b"Content"])
def test_an_object_that_is_not_what_its_pointer_says_is_damaged(tmp_path: Path, there: bytes) -> None:
    (tmp_path / "o").write_bytes(there)
    with pytest.raises(TreeDamaged, match=r"of a\.bin is damaged: its content does not hash to its name"):
        list(written(tmp_path / "o", b"content"))


def test_no_more_is_read_than_the_pointer_says(tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(bytes(8 << 20))
    pieces: list[bytes] = []
    with pytest.raises(TreeDamaged):
        pieces.extend(written(tmp_path / "o", bytes(3 << 20)))
    assert sum(map(len, pieces)) == 3 << 20


def test_what_is_no_file_is_damaged_and_nothing_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(b"content")
    (tmp_path / "link").symlink_to("o")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name in ("link", "pipe", "directory", "missing"):
        with pytest.raises(TreeDamaged):
            list(written(tmp_path / name, b"content"))
