"""Whoever reads the site while it is deployed sees one release or the other, whole."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from deploykit.git.repository import Repository
from deploykit.settings import SiteSettings
from tests.support.releasing import Shop

DEPLOYS = 200
#: Far fewer than are made while a slow reader reads: what protects it is the grace, not the count.
KEEP = 3
GRACE = SiteSettings().grace
#: How long the slow reader stays in one release: for many deploys, and not for as long as the grace.
SLOW = GRACE / 4
NAMES = ("a", "d/b", "d/e/c")


class Reader(threading.Thread):
    """Opens `current` once per look, and reads every file through it."""

    def __init__(self, link: Path, stop: threading.Event, pause: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.link, self.stop, self.pause = link, stop, pause
        self.looks = 0
        self.late = 0
        self.wrong: list[str] = []
        self.seen: set[bytes] = set()

    def run(self) -> None:
        while not self.stop.is_set():
            started = time.monotonic()
            wrong = self._look()
            if time.monotonic() - started >= GRACE:
                self.late += 1  # the machine was busy: more than was promised; nothing can be said
            elif wrong:
                self.wrong.append(wrong)
            self.looks += 1

    def _look(self) -> str:
        try:
            fd = os.open(self.link, os.O_RDONLY | os.O_DIRECTORY)
            try:
                found = set()
                for name in NAMES:
                    self.stop.wait(self.pause / len(NAMES))
                    file = os.open(name, os.O_RDONLY, dir_fd=fd)
                    try:
                        found.add(os.read(file, 100))
                    finally:
                        os.close(file)
            finally:
                os.close(fd)
        except OSError as error:
            return f"missing: {error}"
        self.seen |= found
        return f"mixed: {found}" if len(found) != 1 else ""


def test_a_reader_of_current_never_sees_a_missing_or_mixed_file_during_200_deploys(tmp_path: Path) -> None:
    shop = Shop(tmp_path, SiteSettings(keep=KEEP, older="allow", durable=False, drift="ignore"))

    def files(n: int) -> dict[str, bytes | tuple[str, bytes]]:
        content = b"version %d" % n
        return {"a": content, "d/b": content, "d/e/c": content, **{f"other/{k}": b"%d" % (n * k) for k in range(20)}}

    for n in range(6):
        shop.commit(files(n))
    shop.deploy("v1")
    stop = threading.Event()
    quick = [Reader(shop.path / "current", stop) for _ in range(2)]
    slow = [Reader(shop.path / "current", stop, SLOW) for _ in range(2)]
    recycled = 0
    with Repository(shop.repo.path) as source:
        for reader in (*quick, *slow):
            reader.start()
        for n in range(DEPLOYS):
            result = shop.runner.deploy(source, f"refs/tags/v{(n + 1) % 6 + 1}")
            assert result.outcome == "success", result
            recycled += "recycled" in next(s.output for s in result.steps if s.name == "export")
        stop.set()
        for reader in (*quick, *slow):
            reader.join()
        assert shop.live().seq == DEPLOYS + 1
        for reader in (*quick, *slow):
            assert reader.wrong == []
            assert len(reader.seen) > 1, "it looked while versions changed"
            assert reader.late <= reader.looks / 2
        assert all(reader.looks > DEPLOYS for reader in quick)
        assert recycled > DEPLOYS / 4, "the readers were not put to the test"
        time.sleep(GRACE)  # what this waits for is the time itself
        for n in range(2):
            assert shop.runner.deploy(source, f"refs/tags/v{n + 1}").outcome == "success"
    assert len(shop.names()) <= KEEP + 2, "what the grace kept has gone"


def test_the_control_without_grace_a_slow_reader_does_see_a_mix(tmp_path: Path) -> None:
    """It shows that the test above can fail: the same reader, the same deploys, no grace."""
    shop = Shop(tmp_path, SiteSettings(keep=1, grace=0, durable=False))
    for n in range(4):
        shop.put({"a": b"%d" % n, "d/b": b"%d" % n})
    fd = os.open(shop.path / "current", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for n in range(4, 8):
            shop.put({"a": b"%d" % n, "d/b": b"%d" % n})
        with os.fdopen(os.open("a", os.O_RDONLY, dir_fd=fd), "rb") as file:
            assert file.read() != b"3"
    finally:
        os.close(fd)


def test_within_the_grace_who_opened_a_release_reads_on_in_it_whatever_is_deployed(tmp_path: Path) -> None:
    shop = Shop(tmp_path, SiteSettings(keep=1, grace=600, durable=False))
    shop.put({"a": b"1", "d/b": b"1"})
    fd = os.open(shop.path / "current", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for n in range(2, 12):
            result = shop.put({"a": b"%d" % n, "d/b": b"%d" % n})
            assert "recycled" not in next(s.output for s in result.steps if s.name == "export")
        for name in ("a", "d/b"):
            with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
                assert file.read() == b"1"
    finally:
        os.close(fd)
    shop.settings = SiteSettings(keep=1, grace=0, durable=False)
    shop.put({"a": b"12"})
    assert len(shop.names()) == 3


def test_a_release_that_was_taken_back_rests_as_well(tmp_path: Path) -> None:
    """Failed after the switch, rolled back from: both were live, so both had readers."""
    shop = Shop(tmp_path, SiteSettings(keep=1, grace=600))
    shop.put({"a": b"1"})
    shop.put({"a": b"2", "deploy/post-deploy": ("100755", b"#!/bin/sh\nexit 1\n")})
    shop.put({"a": b"3"})
    assert shop.runner.rollback().outcome == "success"
    left = {r.tag: bool(r.left_boot) for r in shop.runner.releases()}
    assert left == {"v1": False, "v2": True, "v3": True}
