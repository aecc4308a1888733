"""Checkouts of a real repository through a real mirror, and sweeps of their updates."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploykit.checkouts import CheckoutResult, Checkouts
from deploykit.mirror import Mirror
from deploykit.settings import CheckoutSettings
from tests.support.killsweep import Run
from tests.support.origins import GitRepo


class Scene:
    """An origin, its mirror, and checkouts of it."""

    def __init__(self, home: Path, mode: str, **settings: object) -> None:
        self.repo = GitRepo.make(home / "o.git")
        self.mirror = Mirror.open(home / "m.git", str(self.repo.path))
        self.target = home / "root" / "site"
        chosen: dict[str, Any] = {"grace": 0, "durable": False, **settings}
        self.settings = CheckoutSettings(mode=mode, target=self.target, **chosen)  # type: ignore[arg-type]
        self.checkouts = Checkouts(self.settings)

    def update(self) -> CheckoutResult:
        self.mirror.fetch(allow_mass_deletion=True)
        return self.checkouts.update(self.mirror)

    def expect(self, directory: Path, ref: str) -> None:
        """The directory is, byte for byte and mode for mode, what git checks out."""
        assert tree_of(directory) == git_tree(self.repo, ref)


def tree_of(directory: Path) -> dict[str, tuple[str, bytes]]:
    found = {}
    base = directory.resolve()
    for path in base.rglob("*"):
        name = str(path.relative_to(base))
        if path.is_symlink():
            found[name] = ("link", os.fsencode(path.readlink()))
        elif path.is_file():
            found[name] = ("exec" if path.stat().st_mode & 0o100 else "file", path.read_bytes())
    return found


def git_tree(repo: GitRepo, ref: str) -> dict[str, tuple[str, bytes]]:
    found = {}
    for line in repo.git("ls-tree", "-r", "-z", ref).split("\0"):
        if line:
            (mode, _, oid), name = line.partition("\t")[0].split(" "), line.partition("\t")[2]
            data = subprocess.run(["git", "-C", str(repo.path), "cat-file", "blob", oid], capture_output=True).stdout
            found[name] = ({"100644": "file", "100755": "exec", "120000": "link"}[mode], data)
    return found


_UPDATE = """
import sys
from pathlib import Path
from deploykit.checkouts import Checkouts
from deploykit.errors import DeploykitError
from deploykit.mirror import Mirror
from deploykit.settings import CheckoutSettings
settings = CheckoutSettings(mode=sys.argv[2], target=Path(sys.argv[3]), nested=bool(sys.argv[4]), grace=0)
try:
    with Mirror.open(sys.argv[1], "/nowhere") as mirror:
        result = Checkouts(settings).update(mirror)
except (DeploykitError, OSError) as error:
    sys.exit(f"failed: {error}")
wrong = {**result.refused, **result.failed}
sys.exit(f"failed: {wrong}" if wrong else 0)
"""


class CheckoutSweep:
    """One update of a scene's directories, again and again from the same start: `argv`, `prepare` and `check`.

    Args:
        scene: in modes that keep directories in the target.
        old: the directories that are there, each with its ref.
    """

    def __init__(self, scene: Scene, old: Mapping[str, str]) -> None:
        self.scene = scene
        self.root = scene.target
        self.old = {directory: git_tree(scene.repo, ref) for directory, ref in old.items()}
        self.new: dict[str, dict[str, tuple[str, bytes]]] = {}
        self.template = self.root.parent.with_name("template")
        subprocess.run(["cp", "-a", str(self.root), str(self.template)], check=True)
        settings = scene.settings
        nested = "nested" if settings.nested else ""
        self.argv = [
            *(sys.executable, "-c", _UPDATE, str(scene.mirror.path), settings.mode, str(self.root), nested),
        ]

    def expect(self, new: Mapping[str, str]) -> None:
        """Fetch what the origin has now, and say which directories an update makes of it, each with its ref."""
        self.scene.mirror.fetch(allow_mass_deletion=True)
        self.new = {directory: git_tree(self.scene.repo, ref) for directory, ref in new.items()}

    def prepare(self) -> None:
        subprocess.run(["rm", "-rf", str(self.root)], check=True)
        subprocess.run(["cp", "-a", str(self.template), str(self.root)], check=True)

    def check(self, run: Run) -> None:
        """Each directory is an old or a new tree, whole, or not there; the next update makes all of them new."""
        for name in {*self.old, *self.new}:
            link = self.root / name
            if link.is_symlink() and link.exists():
                assert tree_of(link) in [t[name] for t in (self.old, self.new) if name in t], name
        if run.point is None:
            assert run.returncode == 0, run.stderr
        again = subprocess.run(self.argv, capture_output=True, text=True, timeout=60)
        assert again.returncode == 0, again.stderr
        assert names_below(self.root) == {above for name in self.new for above in (name, *_above(name))}
        for name, tree in self.new.items():
            assert tree_of(self.root / name) == tree


def names_below(root: Path) -> set[str]:
    """Return the paths of all that is in a root, but for the copies."""
    found: set[str] = set()
    for here, directories, files in os.walk(root):
        at = Path(here).relative_to(root)
        if at == Path():
            directories.remove(".deploykit")
        found |= {str(at / name) for name in (*directories, *files)}
    return found


def _above(name: str) -> list[str]:
    return [str(parent) for parent in Path(name).parents if parent != Path()]
