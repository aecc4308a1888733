"""Repositories with files in Git LFS, made, pushed and cloned by git and git-lfs themselves."""

from __future__ import annotations

from pathlib import Path

from deploykit.git.lfspointer import LfsPointer, parse_pointer
from deploykit.mirror.lfs.store import LfsStore
from tests.support.needs import needs
from tests.support.submodules import Worked, files_of, git

#: What `git lfs install` sets, for one command.
FILTERS = (
    *("-c", "filter.lfs.clean=git-lfs clean -- %f"),
    *("-c", "filter.lfs.smudge=git-lfs smudge -- %f"),
    *("-c", "filter.lfs.process=git-lfs filter-process"),
    *("-c", "filter.lfs.required=true"),
)
TRACKED = b"*.bin filter=lfs diff=lfs merge=lfs -text\n"


class LfsWorked(Worked):
    """An origin whose objects are in it, and a working copy that pushes them there."""

    def __init__(self, base: Path, name: str) -> None:
        needs("git-lfs", package="git-lfs")
        super().__init__(base, name)
        self.git("lfs", "install", "--local")

    @property
    def objects(self) -> LfsStore:
        """The objects that the origin has."""
        return LfsStore(self.origin / "lfs")

    def pointer(self, path: str, rev: str = "HEAD") -> LfsPointer:
        """Return the pointer that is committed at a path."""
        found = parse_pointer(self.git("show", f"{rev}:{path}").encode() + b"\n")
        assert found is not None, path
        return found

    def object_of(self, path: str, rev: str = "HEAD") -> Path:
        """Return where the origin has the object of a path."""
        found = self.objects.path(self.pointer(path, rev))
        assert found is not None, path
        return found

    def cloned(self, tag: str, where: Path, **instead: str) -> dict[str, tuple[str, bytes]]:
        """Return the files of a tag, as git writes them with git-lfs."""
        config = [word for url, written in instead.items() for word in ("-c", f"url.{url}.insteadOf={written}")]
        words = ("clone", "-q", "--recurse-submodules", "--branch", tag, self.url, str(where))
        git(*FILTERS, *config, *words, cwd=where.parent)
        return files_of(where)


__all__ = ["FILTERS", "TRACKED", "LfsWorked"]
