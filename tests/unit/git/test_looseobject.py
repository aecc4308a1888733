"""A loose object that lies about its size is damage, and is never expanded beyond what it states."""

from __future__ import annotations

import os
import random
import tracemalloc
import zlib
from pathlib import Path

import pytest

from deploykit.errors import TreeDamaged, TreeError
from deploykit.git.looseobject import LooseTooLarge, read_loose
from deploykit.git.objectformat import BLOB
from deploykit.git.objectreader import ObjectReader
from deploykit.git.repository import Repository
from tests.support.gitrepo import GitRepo

NOISE = random.Random(20).randbytes(200_000)


def written(path: Path, plain: bytes) -> Path:
    path.write_bytes(zlib.compress(plain))
    return path


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 31, b"a" * 300_000, NOISE, NOISE[:65_536], b"ab" * 2_000_000])
def test_an_object_is_read_as_git_wrote_it(content: bytes, tmp_path: Path) -> None:
    assert read_loose(written(tmp_path / "x", b"blob %d\0" % len(content) + content), 1 << 22) == (BLOB, content)


def test_no_file_is_no_object(tmp_path: Path) -> None:
    assert read_loose(tmp_path / "x", 1) is None


def test_what_states_more_than_allowed_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    with pytest.raises(LooseTooLarge):
        read_loose(written(tmp_path / "x", b"blob 11\0" + b"x" * 11), 10)


@pytest.mark.parametrize(
    "plain",
    [b"blob 3\0abcd", b"blob 3\0ab", b"blob 0\0x", b"blob -1\0", b"blob 03\0abc", b"blob 3 \0abc", b"blob 3abc",
     b"tag\0", b"strange 3\0abc", b"BLOB 3\0abc", b"", b"blob " + b"1" * 40 + b"\0"],
)  # fmt: skip
def test_a_head_that_lies_or_is_none_is_damage(plain: bytes, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"head|length"):
        read_loose(written(tmp_path / "x", plain), 100)


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_stream_that_is_cut_off_is_damage(cut: int, tmp_path: Path) -> None:
    file = written(tmp_path / "x", b"blob 2000\0" + NOISE[:2000])
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises((ValueError, zlib.error)):
        read_loose(file, 4000)


@pytest.mark.parametrize("alternate", [False, True], ids=["own", "alternate"])
@pytest.mark.parametrize("stated", [10, 1 << 26], ids=["less", "true"])
def test_memory_stays_small_whatever_a_loose_object_states(stated: int, alternate: bool, tmp_path: Path) -> None:
    """64 MiB in 64 kB. Also in a repository that another one borrows from."""
    repo = GitRepo(tmp_path / "r.git")
    repo.commit({"a": b"a\n"}, tag="v1")
    oid = repo.git("rev-parse", "v1:a").decode().strip()
    file = repo.path / "objects" / oid[:2] / oid[2:]
    file.chmod(0o644)
    written(file, b"blob %d\0" % stated + bytes(1 << 26))
    path = repo.path
    if alternate:
        path = GitRepo(tmp_path / "borrower.git").path
        (path / "objects" / "info").mkdir(exist_ok=True)
        (path / "objects" / "info" / "alternates").write_bytes(os.fsencode(repo.path / "objects") + b"\n")
    with Repository(path) as source, ObjectReader(source.store, max_bytes=1 << 20) as reader:
        tracemalloc.start()
        try:
            with pytest.raises(TreeDamaged if stated == 10 else TreeError):
                reader.read(oid.encode(), BLOB)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()
