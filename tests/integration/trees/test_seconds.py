"""A file system that keeps whole seconds shows the same `lstat` before and after an edit within one."""

from __future__ import annotations

from pathlib import Path

from deploykit.git.objectformat import blob_id
from deploykit.trees import compare
from deploykit.trees.manifest import ManifestRows
from deploykit.trees.writer import next_tick
from tests.support.disks import whole_second_disk


def test_an_edit_within_the_second_of_the_manifest_is_found(tmp_path: Path) -> None:
    with whole_second_disk(tmp_path / "disk") as disk:
        file = disk / "release" / "a"
        file.parent.mkdir()
        for _ in range(1000):  # nearly always the first: a few milliseconds seldom reach into the next second
            file.write_text("before")
            seen = file.lstat()
            rows = ManifestRows(20)
            rows.add("a", 0o100644, seen, blob_id(b"before", 20))
            manifest = rows.finish(tree="1" * 40, fingerprint="", device=seen.st_dev, taken_ns=next_tick())
            file.write_text("edited")
            if file.lstat().st_ctime_ns == seen.st_ctime_ns:
                break
        assert file.lstat().st_ctime_ns == seen.st_ctime_ns, "it never was the same second"
        assert compare(manifest, file.parent).modified == ("a",)
        file.write_text("before")
        assert not compare(manifest, file.parent), "and what is the same is none"
