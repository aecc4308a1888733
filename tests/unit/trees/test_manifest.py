"""A manifest that is loaded is the one that was saved, or an error says what to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploykit.errors import TreeError
from deploykit.trees.manifest import Manifest, ManifestRows


def _manifest(*names: str) -> Manifest:
    rows = ManifestRows(20)
    seen = os.lstat(__file__)
    for name in names:
        rows.add(name, 0o100644, seen, bytes(range(20)), ours=name == "TAG")
    rows.directories = {n.rpartition("/")[0] for n in names if "/" in n}
    return rows.finish(tree="1" * 40, fingerprint="f", device=3, taken_ns=99)


@pytest.mark.parametrize("names", [(), ("a",), ("a", "d/é", "d/" + os.fsdecode(b"\xff"), "TAG", "with\nnewline")])
def test_what_is_saved_is_loaded(tmp_path: Path, names: tuple[str, ...]) -> None:
    manifest = _manifest(*names)
    manifest.save(tmp_path / "m")
    again = Manifest.load(tmp_path / "m")
    assert list(again.rows()) == list(manifest.rows())
    assert (again.tree, again.fingerprint, again.device, again.taken_ns, again.directories) == (
        manifest.tree,
        manifest.fingerprint,
        manifest.device,
        manifest.taken_ns,
        manifest.directories,
    )


def test_a_torn_or_changed_file_is_noticed_at_every_byte(tmp_path: Path) -> None:
    raw = _manifest("a", "b/c").to_bytes()
    for at in range(len(raw)):
        with pytest.raises(TreeError):
            Manifest.from_bytes(raw[:at], tmp_path)
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(TreeError):
            Manifest.from_bytes(bytes(changed), tmp_path)


def test_another_format_is_refused_by_number(tmp_path: Path) -> None:
    raw = _manifest("a").to_bytes().replace(b"deploykit-manifest 1", b"deploykit-manifest 2")
    with pytest.raises(TreeError, match="manifest format '2', known is 1"):
        Manifest.from_bytes(raw, tmp_path)


def test_a_missing_manifest_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="deploy once more"):
        Manifest.load(tmp_path / "none")
