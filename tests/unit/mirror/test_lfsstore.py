"""Objects of Git LFS enter the store whole, under the hash of their content, or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from deploykit.errors import MirrorError
from deploykit.git.lfspointer import LfsPointer
from deploykit.mirror.lfs.store import LfsStore

CONTENT = b"content" * 100


def pointer_to(content: bytes) -> LfsPointer:
    return LfsPointer(hashlib.sha256(content).hexdigest(), len(content))


def put(store: LfsStore, pointer: LfsPointer, *pieces: bytes) -> None:
    with store.receive(pointer) as incoming:
        for piece in pieces:
            incoming.feed(piece)
        incoming.finish()


@pytest.fixture
def store(tmp_path: Path) -> LfsStore:
    return LfsStore(tmp_path / "lfs")


def test_an_object_is_found_after_it_came_whole_where_git_lfs_keeps_it(store: LfsStore) -> None:
    pointer = pointer_to(CONTENT)
    assert store.path(pointer) is None
    assert store.lacking([pointer, pointer]) == (pointer,)
    os.umask(0o027)
    try:
        put(store, pointer, CONTENT[:10], CONTENT[10:])
    finally:
        os.umask(0o022)
    path = store.root / "objects" / pointer.oid[:2] / pointer.oid[2:4] / pointer.oid
    assert store.path(pointer) == path
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o640
    assert store.lacking([pointer]) == ()
    assert list((store.root / "incoming").iterdir()) == []


@pytest.mark.parametrize("sent", [CONTENT[:-1], CONTENT + b"x", b"x" * len(CONTENT), b""])
def test_what_the_pointer_does_not_say_never_enters(store: LfsStore, sent: bytes) -> None:
    pointer = pointer_to(CONTENT)
    with pytest.raises(MirrorError):
        put(store, pointer, sent)
    assert store.path(pointer) is None
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_an_object_of_another_size_or_kind_is_not_there(store: LfsStore, tmp_path: Path) -> None:
    pointer = pointer_to(CONTENT)
    put(store, pointer, CONTENT)
    assert store.path(LfsPointer(pointer.oid, 1)) is None
    path = store.path(pointer)
    assert path is not None
    path.rename(tmp_path / "aside")
    path.symlink_to(tmp_path / "aside")
    assert store.path(pointer) is None


def test_what_a_killed_process_left_is_written_over(store: LfsStore) -> None:
    pointer = pointer_to(CONTENT)
    (store.root / "incoming").mkdir(parents=True)
    (store.root / "incoming" / pointer.oid).write_bytes(b"longer than what comes" * 100)
    put(store, pointer, CONTENT)
    assert store.path(pointer) is not None


def test_another_store_takes_over_what_is_sound_and_nothing_else(store: LfsStore, tmp_path: Path) -> None:
    good, bad = pointer_to(b"good"), pointer_to(b"bad!")
    for pointer, content in ((good, b"good"), (bad, b"bad!")):
        put(store, pointer, content)
    damaged = store.path(bad)
    assert damaged is not None
    damaged.write_bytes(b"dab!")
    strange = store.root / "objects" / "aa" / "bb"
    strange.mkdir(parents=True)
    (strange / pointer_to(b"x").oid).write_bytes(b"x")  # not in its place
    (strange / ("aabb" + "0" * 60)).symlink_to(damaged)
    store.write_complete(["0" * 40])
    new = LfsStore(tmp_path / "new")
    new.take_over(store)
    assert [oid for oid, _, _ in new.held()] == [good.oid]
    assert new.read_complete() == frozenset()
    LfsStore(tmp_path / "other").take_over(LfsStore(tmp_path / "nothing"))
