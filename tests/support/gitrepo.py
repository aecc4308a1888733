"""Real repositories made with git, and hostile ones made below it.

Nothing here uses deploykit: these are the oracles' side of a test.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

#: Who commits, and when: the same input makes the same ids.
_WHO = {
    "GIT_AUTHOR_NAME": "A Person",
    "GIT_AUTHOR_EMAIL": "person@example.net",
    "GIT_COMMITTER_NAME": "A Person",
    "GIT_COMMITTER_EMAIL": "person@example.net",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "LC_ALL": "C.UTF-8",
}

FILE, EXECUTABLE, SYMLINK, GITLINK, DIRECTORY = "100644", "100755", "120000", "160000", "40000"


class GitRepo:
    """A bare repository, driven by the git program."""

    def __init__(self, path: Path, *, object_format: str = "sha1") -> None:
        self.path = path
        self.clock = 1_700_000_000
        subprocess.run(
            ["git", "init", "-q", "--bare", "-b", "main", f"--object-format={object_format}", str(path)], check=True
        )

    def git(self, *words: str, data: bytes | None = None, env: Mapping[str, str] | None = None) -> bytes:
        """Run git in the repository and return what it printed."""
        return subprocess.run(
            ["git", "-C", str(self.path), *words],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            check=True,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **_WHO, **(env or {})},
        ).stdout

    def blob(self, content: bytes) -> str:
        """Store a blob."""
        return self.git("hash-object", "-w", "--stdin", data=content).decode().strip()

    def tree(self, rows: Sequence[tuple[str, bytes, str]]) -> str:
        """Store a tree of (mode, name, id) as it stands, however wrong: only sorted when the caller sorted it."""
        raw = b"".join(mode.encode() + b" " + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in rows)
        return self.git("hash-object", "-t", "tree", "-w", "--literally", "--stdin", data=raw).decode().strip()

    def commit_tree(self, tree: str, *, parent: str = "", message: str = "a change") -> str:
        """Store a commit of a tree."""
        self.clock += 60
        when = f"{self.clock} +0200"
        words = ["commit-tree", tree, "-m", message, *(("-p", parent) if parent else ())]
        return self.git(*words, env={"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}).decode().strip()

    def commit(
        self,
        files: Mapping[str | bytes, bytes | tuple[str, bytes]],
        *,
        tag: str = "",
        branch: str = "main",
        parent: str | None = None,
    ) -> str:
        """Commit exactly these files (path -> content, or (mode, content)) on a branch, and tag it."""
        index = self.path / "test-index"
        index.unlink(missing_ok=True)
        env = {"GIT_INDEX_FILE": str(index)}
        lines = b""
        for path, value in files.items():
            mode, content = value if isinstance(value, tuple) else (FILE, value)
            oid = content.decode() if mode == GITLINK else self.blob(content)
            name = path if isinstance(path, bytes) else os.fsencode(path)
            lines += f"{mode} {oid}\t".encode() + name + b"\0"
        self.git("update-index", "-z", "--index-info", data=lines, env=env)
        tree = self.git("write-tree", env=env).decode().strip()
        if parent is None:
            parent = self.head(branch)
        commit = self.commit_tree(tree, parent=parent)
        self.git("update-ref", f"refs/heads/{branch}", commit)
        if tag:
            self.git("update-ref", f"refs/tags/{tag}", commit)
        return commit

    def head(self, branch: str = "main") -> str:
        """The commit of a branch, or empty."""
        done = subprocess.run(
            ["git", "-C", str(self.path), "rev-parse", "-q", "--verify", f"refs/heads/{branch}"],
            capture_output=True,
            check=False,
        )
        return done.stdout.decode().strip()

    def tree_of(self, commit: str) -> str:
        """The tree of a commit."""
        return self.git("rev-parse", f"{commit}^{{tree}}").decode().strip()

    def pack(self) -> None:
        """Pack everything, with deltas, as a server would."""
        self.git("repack", "-a", "-d", "-q", "-f", "--depth=50", "--window=10")

    def checkout(self, commit: str, target: Path, *, umask: int | None = None) -> None:
        """Let git itself write a commit into an empty directory, with an index of its own."""
        target.mkdir()
        env = {
            "PATH": os.environ["PATH"],
            **_WHO,
            "GIT_DIR": str(self.path),
            "GIT_WORK_TREE": str(target),
            "GIT_INDEX_FILE": str(target.with_name(target.name + ".index")),
        }
        for words in (["read-tree", commit], ["checkout-index", "-a", "-f", "-q"]):
            subprocess.run(
                ["git", "-c", "core.protectNTFS=false", "-c", "core.protectHFS=false", *words],
                check=True,
                env=env,
                umask=-1 if umask is None else umask,
                cwd=target,
            )

    def archive(self, commit: str, target: Path) -> None:
        """Let `git archive` write a commit into an empty directory."""
        target.mkdir()
        raw = self.git("archive", commit)
        subprocess.run(["tar", "-x", "-C", str(target)], input=raw, check=True)


def contents(root: Path, *, ignore: Sequence[bytes] = ()) -> dict[bytes, tuple[str, int, bytes]]:
    """Everything below a directory: path -> (kind, permission bits, content or link target)."""
    found: dict[bytes, tuple[str, int, bytes]] = {}
    for path in root.rglob("*"):
        relative = os.fsencode(path.relative_to(root))
        if any(relative == i or relative.startswith(i + b"/") for i in ignore):
            continue
        mode = path.lstat().st_mode & 0o7777
        if path.is_symlink():
            found[relative] = ("link", 0, os.readlink(os.fsencode(path)))  # noqa: PTH115 - as it was written
        elif path.is_dir():
            found[relative] = ("directory", mode, b"")
        else:
            found[relative] = ("file", mode, path.read_bytes())
    return found
