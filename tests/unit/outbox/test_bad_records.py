"""What lies in a spool and is no record is set aside, never followed, and holds up nothing."""

from __future__ import annotations

import errno
import os
import socket
import time
import zlib
from pathlib import Path

import pytest

from deploykit.errors import OutboxError
from deploykit.outbox import Outbox
from deploykit.wire.frame import Frame
from tests.support.spools import A, bodies, frame, packed, the_file

GOOD_NAME = "0" * 20 + "-00000000.rec"


LINE = b'{"destination": "/topic/a", "headers": {}, "body": 1}\n'


BAD_FILES = {
    "empty": b"",
    "not ours": b"hello\n",
    "another version": packed(LINE + b"x\n").replace(b"outbox 1", b"outbox 2"),
    "cut off": packed(LINE + b"x\n")[:-3],
    "longer than it says": packed(LINE + b"x\n") + b"more",
    "one bit flipped": packed(LINE + b"x\n", crc=zlib.crc32(LINE + b"y\n")),
    "head without numbers": b"deploykit-outbox 1 crc32=zz size= records=\n",
    "no newline": b"deploykit-outbox 1 " + b"x" * 500,
    "negative size": b"deploykit-outbox 1 crc32=00000000 size=-1 records=1\n",
    "no records": packed(b"", records=0),
    "more records than there is memory for": packed(LINE + b"x\n", records=10**12),
    "fewer records than it says": packed(LINE + b"x\n", records=2),
    "more records than it says": packed((LINE + b"x\n") * 2),
    "no json": packed(b"{nope\nx\n"),
    "a json bomb": packed(b"[" * 100_000 + b"\n"),
    "an endless line": packed(b"[" * 300_000),
    "json that is no object": packed(b"[]\nx\n"),
    "no destination": packed(b'{"headers": {}, "body": 1}\nx\n'),
    "a destination with a line end": packed(b'{"destination": "/a\\nb", "headers": {}, "body": 1}\nx\n'),
    "headers that are no texts": packed(b'{"destination": "/a", "headers": {"a": 1}, "body": 1}\nx\n'),
    "a header with a line end": packed(b'{"destination": "/a", "headers": {"a": "b\\nc"}, "body": 1}\nx\n'),
    "a negative body": packed(b'{"destination": "/a", "headers": {}, "body": -1}\nx\n'),
    "a body larger than the file": packed(b'{"destination": "/a", "headers": {}, "body": 100}\nx\n'),
    "a body that is true": packed(b'{"destination": "/a", "headers": {}, "body": true}\nx\n'),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_torn_record_is_set_aside_and_the_rest_is_given(outbox: Outbox, spool: Path, kind: str) -> None:
    outbox.put(A, frame("before"))
    (spool / GOOD_NAME).write_bytes(BAD_FILES[kind])
    (spool / GOOD_NAME).chmod(0o640)
    outbox.put(A, frame("after"))
    assert bodies(outbox)[-2:] == ["before", "after"]
    (aside,) = outbox.set_aside()
    assert aside.name == GOOD_NAME
    assert aside.reason
    assert (spool / "bad" / GOOD_NAME).read_bytes() == BAD_FILES[kind], "kept for a person to look at"
    assert bodies(outbox) == ["before", "after"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EIO, errno.ESTALE, errno.ENOMEM])
def test_a_machine_in_trouble_does_not_make_a_good_record_a_bad_one(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    outbox.put(A, frame("good"))
    real = os.open

    def fail(name: str, *args: int, **kwargs: int) -> int:
        if str(name).endswith(".rec"):
            raise OSError(number, os.strerror(number))
        return real(name, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        if number in (errno.EMFILE, errno.ENOMEM):
            with pytest.raises(OutboxError, match="cannot read spool"):
                bodies(outbox)
        else:
            assert bodies(outbox) == []
            assert outbox.unreadable == {the_file(outbox).name}
    assert bodies(outbox) == ["good"]
    assert list(outbox.set_aside()) == []


def test_a_good_file_passes_the_same_check(outbox: Outbox, spool: Path) -> None:
    (spool / GOOD_NAME).write_bytes(packed(LINE + b"x\n"))
    (spool / GOOD_NAME).chmod(0o640)
    assert bodies(outbox) == ["x"]


def test_strangers_are_set_aside_and_never_followed_or_opened(
    outbox: Outbox, spool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(packed(LINE + b"x\n"))
    names = [f"{n:020d}-00000000.rec" for n in range(6)]
    alone = tmp_path / "alone"
    alone.write_bytes(packed(LINE + b"x\n"))
    (spool / names[0]).symlink_to(alone)
    (spool / names[1]).hardlink_to(secret)
    os.mkfifo(spool / names[2])
    (spool / names[3]).mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        with monkeypatch.context() as patch:
            patch.chdir(spool)  # a socket's name must be short
            server.bind(names[4])
        (spool / names[5]).symlink_to("/dev/zero")
        (spool / "README").write_text("hello")
        outbox.put(A, frame("good"))
        assert bodies(outbox) == ["good"]
    assert sorted(p.name for p in (spool / "bad").iterdir()) == sorted([*names, "README"])
    assert secret.read_bytes() == packed(LINE + b"x\n")


def test_a_second_stranger_of_the_same_name_does_not_replace_the_first(outbox: Outbox, spool: Path) -> None:
    for text in ("one", "two"):
        (spool / "junk").write_text(text)
        assert list(outbox.pending()) == []
    assert sorted(p.read_text() for p in (spool / "bad").iterdir()) == ["one", "two"]


def test_a_sparse_giant_is_set_aside_unread(outbox: Outbox, spool: Path) -> None:
    with (spool / GOOD_NAME).open("wb") as file:
        file.truncate(1 << 40)
    start = time.process_time()
    assert bodies(outbox) == []
    assert time.process_time() - start < 2
    assert "too big" in next(outbox.set_aside()).reason


def test_a_file_that_anybody_may_write_is_no_record(outbox: Outbox) -> None:
    outbox.put(A, frame())
    the_file(outbox).chmod(0o666)
    assert bodies(outbox) == []
    assert "writable by others" in next(outbox.set_aside()).reason


def test_temporary_files_of_living_writers_are_left_alone_and_stale_ones_go(outbox: Outbox, spool: Path) -> None:
    (spool / ".tmp-young").write_text("half")
    (spool / ".tmp-old").write_text("half")
    os.utime(spool / ".tmp-old", (0, 0))
    assert bodies(outbox) == []
    assert (spool / ".tmp-young").exists()
    assert not (spool / ".tmp-old").exists()


def test_a_record_is_readable_by_people(outbox: Outbox) -> None:
    outbox.put(A, Frame({"subject": "[repo] main moved"}, b'{"ref": "refs/heads/main"}'))
    head, envelope, body = the_file(outbox).read_text().splitlines()
    assert head.startswith("deploykit-outbox 1 crc32=")
    assert envelope == '{"destination": "/topic/a", "headers": {"subject": "[repo] main moved"}, "body": 26}'
    assert body == '{"ref": "refs/heads/main"}'
