"""What tests of the outbox share: frames, what waits in a spool, and clocks that a test moves."""

from __future__ import annotations

import stat
import zlib
from pathlib import Path

import pytest

from deploykit.outbox import Outbox
from deploykit.wire.frame import Frame

A, B = "/topic/a", "/topic/b"


def frame(text: str = "x", **headers: str) -> Frame:
    return Frame(headers, text.encode())


def put(outbox: Outbox, *texts: str, to: str = A) -> None:
    """Put records with these texts, one file each."""
    for text in texts:
        outbox.put(to, frame(text))


def outbox_of(other: Outbox) -> Outbox:
    """Return the same spool, as another process would open it."""
    return Outbox(other.path)


def waiting(outbox: Outbox) -> list[bytes]:
    """Return the bodies of the records that wait."""
    return [record.frame.body for record in outbox.pending()]


def bodies(outbox: Outbox) -> list[str]:
    return [record.frame.body.decode() for record in outbox.pending()]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def the_file(outbox: Outbox) -> Path:
    (path,) = Path(outbox.path).glob("*.rec")
    return path


class Clocks:
    """The clocks that keys are made from, moved by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall = 1_800_000_000 * 10**9
        self.boot = 1000 * 10**9
        self.boot_id = "first"
        monkeypatch.setattr("deploykit.outbox.keys.time.time_ns", lambda: self.wall)
        monkeypatch.setattr("deploykit.outbox.keys.time.clock_gettime_ns", lambda _: self.boot)
        monkeypatch.setattr("deploykit.outbox.keys._boot_id", lambda: self.boot_id)

    def tick(self, seconds: float = 1.0) -> None:
        self.wall += int(seconds * 10**9)
        self.boot += int(seconds * 10**9)

    def reboot(self, boot_id: str, wall_jump: float = 0.0) -> None:
        self.boot_id, self.boot = boot_id, 5 * 10**9
        self.wall += int((30 + wall_jump) * 10**9)


def put_in_turn(outbox: Outbox, clocks: Clocks, *texts: str) -> None:
    for text in texts:
        Outbox(outbox.path).put(A, frame(text))
        clocks.tick()


def packed(payload: bytes, *, records: int = 1, crc: int | None = None, size: int | None = None) -> bytes:
    crc = zlib.crc32(payload) if crc is None else crc
    size = len(payload) if size is None else size
    return b"deploykit-outbox 1 crc32=%08x size=%012d records=%d\n" % (crc, size, records) + payload
