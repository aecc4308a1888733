"""Whoever reads the site while it is deployed sees one release or the other, whole."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from deploykit.settings import SiteSettings
from deploykit.trees.source import Repository
from tests.support.releasing import Shop

DEPLOYS = 200
#: A release is recycled when so many newer ones were made; no reader of ours holds one open for that long.
KEEP = 10


class Reader(threading.Thread):
    """Opens `current` once per look, and reads every file through it."""

    def __init__(self, link: Path, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.link, self.stop = link, stop
        self.looks = 0
        self.wrong: list[str] = []
        self.seen: set[bytes] = set()

    def run(self) -> None:
        while not self.stop.is_set():
            try:
                self._look()
            except OSError as error:
                self.wrong.append(f"missing: {error}")
            self.looks += 1

    def _look(self) -> None:
        fd = os.open(self.link, os.O_RDONLY | os.O_DIRECTORY)
        try:
            found = set()
            for name in ("a", "d/b", "d/e/c"):
                file = os.open(name, os.O_RDONLY, dir_fd=fd)
                try:
                    found.add(os.read(file, 100))
                finally:
                    os.close(file)
            if len(found) != 1:
                self.wrong.append(f"mixed: {found}")
            self.seen |= found
        finally:
            os.close(fd)


def test_a_reader_of_current_never_sees_a_missing_or_mixed_file_during_200_deploys(tmp_path: Path) -> None:
    shop = Shop(tmp_path, SiteSettings(keep=KEEP, older="allow", durable=False, drift="ignore"))

    def files(n: int) -> dict[str, bytes | tuple[str, bytes]]:
        content = b"version %d" % n
        return {"a": content, "d/b": content, "d/e/c": content, **{f"other/{k}": b"%d" % (n * k) for k in range(20)}}

    for n in range(6):
        shop.commit(files(n))
    shop.deploy("v1")
    stop = threading.Event()
    readers = [Reader(shop.path / "current", stop) for _ in range(2)]
    with Repository(shop.repo.path) as source:
        for reader in readers:
            reader.start()
        for n in range(DEPLOYS):
            result = shop.runner.deploy(source, f"refs/tags/v{(n + 1) % 6 + 1}")
            assert result.outcome == "success", result
    stop.set()
    for reader in readers:
        reader.join()
    assert shop.live().seq == DEPLOYS + 1
    for reader in readers:
        assert reader.wrong == []
        assert reader.looks > DEPLOYS
        assert len(reader.seen) > 1, "it looked while versions changed"
    assert len(shop.names()) == KEEP + 1
