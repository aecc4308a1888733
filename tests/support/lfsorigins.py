"""Repositories with Git LFS for tests, made by git-lfs itself, and a real server for their objects.

with giftless() as server:
    repo = LfsRepo.make(tmp_path, server)
    repo.commit({"logo.bin": b"…"})         pushed: the pointer to the origin, the object to the server
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import attrs

from deploykit.git.lfspointer import LfsPointer
from tests.brokers.certs import Authority
from tests.support.needs import missing, needs
from tests.support.origins import GitRepo, _directory, _port, _serving, git_env

PROGRAM = Path(__file__).with_name("giftlessserver.py")


@attrs.frozen(kw_only=True)
class LfsServer:
    """A running server.

    Args:
        url: of the API of one repository.
        objects: the directory of that repository's objects.
        credentials: a file for `credentials_file`; None where it asks for no login.
        log: a line for each request.
    """

    url: str
    port: int
    objects: Path
    ca_file: Path
    log: Path
    login: str = ""
    credentials: Path | None = None

    @property
    def push_url(self) -> str:
        """The URL with its login, for git-lfs."""
        user, _, password = self.login.partition(":")
        return self.url.replace("://", f"://{user}:{quote(password, safe='')}@") if self.login else self.url


@contextlib.contextmanager
def giftless(login: str = "") -> Iterator[LfsServer]:
    """Run giftless over TLS. `login`: USER:PASSWORD, without which it answers nobody."""
    if importlib.util.find_spec("giftless") is None:
        missing("giftless (pip install giftless)")
    with _directory("giftless") as home, _port() as port:
        authority = Authority(home / "ca")
        identity = authority.server("localhost", "127.0.0.1")
        argv = [sys.executable, str(PROGRAM), str(port), str(home / "storage"), str(identity.cert_file)]
        credentials = home / "credentials"
        user, _, password = login.partition(":")
        credentials.write_text(f"https://{user}:{quote(password, safe='')}@localhost:{port}\n")
        credentials.chmod(0o600)
        with _serving([*argv, str(identity.key_file), login], home, port):
            yield LfsServer(
                url=f"https://localhost:{port}/org/site.git/info/lfs",
                port=port,
                objects=home / "storage" / "org" / "site",
                ca_file=authority.ca_file,
                log=home / "log",
                login=login,
                credentials=credentials if login else None,
            )


@attrs.define
class LfsRepo:
    """A clone with git-lfs, and the bare origin it pushes to. `access`: git commands that configure the server."""

    work: Path
    origin: GitRepo
    access: tuple[tuple[str, ...], ...]

    @classmethod
    def make(cls, directory: Path, server: LfsServer, *, pattern: str = "*.bin") -> LfsRepo:
        """Make an origin and a clone of it in which files of a pattern go to LFS."""
        needs("git-lfs", package="git-lfs")
        origin = GitRepo.make(directory / "origin.git")
        access = (("lfs.url", server.push_url), ("http.sslCAInfo", str(server.ca_file)), ("lfs.locksverify", "false"))
        repo = cls(directory / "work", origin, tuple(("config", *each) for each in access))
        (directory / "home").mkdir()
        repo.work.mkdir()
        repo.git("init", "-q", "-b", "main")
        repo.git("remote", "add", "origin", str(origin.path))
        for words in repo.access:
            repo.git(*words)
        repo.git("lfs", "install", "--local")
        repo.git("lfs", "track", pattern)
        repo.git("add", ".gitattributes")
        return repo

    def git(self, *args: str) -> str:
        """Run git in the clone; what it prints is in the error where it fails."""
        env = {**git_env(), "HOME": str(self.work.parent / "home")}
        done = subprocess.run(
            ["git", *args], cwd=self.work, env=env, capture_output=True, timeout=120, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"git {args}: {done.stderr.decode(errors='replace')}"
        return done.stdout.decode().strip()

    def commit(self, files: Mapping[str, bytes | None], *, push: bool = True) -> str:
        """Write files (None: remove one), commit all of it and push; return the commit's id."""
        for name, data in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if data is None:
                path.unlink()
            else:
                path.write_bytes(data)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "change")
        if push:
            self.git("push", "-q", "--tags", "origin", "HEAD")
        return self.git("rev-parse", "HEAD")


def pointer_to(content: bytes) -> LfsPointer:
    """The pointer of a content."""
    return LfsPointer(hashlib.sha256(content).hexdigest(), len(content))


def seeded(size: int, seed: int) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


def in_store(mirror: Path) -> dict[str, int]:
    """Name and size of each object in a mirror's store."""
    return {path.name: path.stat().st_size for path in (mirror / "lfs" / "objects").glob("*/*/*")}


__all__ = ["LfsRepo", "LfsServer", "giftless", "in_store", "pointer_to", "seeded"]
