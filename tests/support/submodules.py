"""Repositories with submodules, made and cloned by git itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_WHO = {
    **{
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "A"), ("EMAIL", "a@b"))
    },
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "LC_ALL": "C.UTF-8",
}
Content = bytes | None  # None: the file goes


def git(*words: str, cwd: Path) -> str:
    """Run git, which may use submodules from file addresses."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **_WHO}
    argv = ["git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main", *words]
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Worked:
    """An origin, and a working copy in which people work.

    Args:
        base: of all repositories of a test; the origin is `base/srv/NAME.git`.
    """

    def __init__(self, base: Path, name: str) -> None:
        self.name = name
        self.origin, self.work = base / "srv" / f"{name}.git", base / "work" / name
        for directory in (self.origin.parent, self.work.parent):
            directory.mkdir(parents=True, exist_ok=True)
        git("init", "-q", "--bare", str(self.origin), cwd=base)
        git("clone", "-q", str(self.origin), str(self.work), cwd=base)

    @property
    def url(self) -> str:
        return f"file://{self.origin}"

    def git(self, *words: str) -> str:
        return git(*words, cwd=self.work)

    def write(self, files: Mapping[str, Content]) -> None:
        """Change files; a name that ends in `*` is a program, one that ends in `@` a symlink."""
        for name, content in files.items():
            path = self.work / name.rstrip("*@")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            if name.endswith("@"):
                path.symlink_to(os.fsdecode(content or b""))
            elif content is not None:
                path.write_bytes(content)
                path.chmod(0o755 if name.endswith("*") else 0o644)

    def push(self, files: Mapping[str, Content], *, tag: str = "", branch: str = "main") -> str:
        """Commit a change, and push it with a tag; return the commit."""
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "-q", "--allow-empty", "-m", "a change")
        if tag:
            self.git("tag", tag)
        self.git("push", "-q", "origin", f"HEAD:refs/heads/{branch}", *([f"refs/tags/{tag}"] if tag else []))
        return self.git("rev-parse", "HEAD")

    def add(self, other: Worked, path: str, *, url: str = "") -> None:
        """Add another repository as a submodule, at its newest commit."""
        self.git("submodule", "--quiet", "add", other.url, path)
        if url:
            self.git("config", "-f", ".gitmodules", f"submodule.{path}.url", url)
            self.git("add", ".gitmodules")

    def follow(self, path: str, commit: str) -> None:
        """Move a submodule to another commit."""
        git("fetch", "-q", "origin", cwd=self.work / path)
        git("checkout", "-q", commit, cwd=self.work / path)

    def cloned(self, tag: str, where: Path, **instead: str) -> dict[str, tuple[str, bytes]]:
        """Return the files of a tag, as `git clone --recurse-submodules` writes them.

        Args:
            instead: for git, address that it can reach -> address that stands in `.gitmodules`.
        """
        config = [word for url, written in instead.items() for word in ("-c", f"url.{url}.insteadOf={written}")]
        git(*config, "clone", "-q", "--recurse-submodules", "--branch", tag, self.url, str(where), cwd=where.parent)
        return files_of(where)


def files_of(root: Path, *, but: tuple[str, ...] = ()) -> dict[str, tuple[str, bytes]]:
    """Return kind and content of each file and symlink below a directory, without git's own."""
    found: dict[str, tuple[str, bytes]] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if ".git" in name.split("/") or name in but:
            continue
        if path.is_symlink():
            found[name] = ("link", os.fsencode(path.readlink()))
        elif path.is_file():
            found[name] = ("program" if path.stat().st_mode & 0o100 else "file", path.read_bytes())
    return found


__all__ = ["Worked", "files_of", "git"]
