"""Repositories with files in Git LFS, made, pushed and cloned by git and git-lfs themselves."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from deploykit.git.lfspointer import LfsPointer, parse_pointer
from deploykit.mirror.lfs.store import LfsStore
from deploykit.settings.mirror import MirrorSettings
from tests.support.needs import needs
from tests.support.submodules import Worked, files_of, git

#: What `git lfs install` sets, for one command.
FILTERS = (
    *("-c", "filter.lfs.clean=git-lfs clean -- %f"),
    *("-c", "filter.lfs.smudge=git-lfs smudge -- %f"),
    *("-c", "filter.lfs.process=git-lfs filter-process"),
    *("-c", "filter.lfs.required=true"),
)
VERSION = b"version https://git-lfs.github.com/spec/v1"
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

    def store(self, files: Mapping[str, bytes], *, tag: str) -> None:
        """Commit files as they are, past git-lfs, and push them with a tag; a name that ends in `@` is a symlink."""
        stored = self.work.parent / f"{self.name}.stored"
        for name, content in files.items():
            stored.write_bytes(content)
            oid = self.git("hash-object", "-w", "--no-filters", str(stored))
            mode = "120000" if name.endswith("@") else "100644"
            self.git("update-index", "--add", "--cacheinfo", f"{mode},{oid},{name.rstrip('@')}")
        self.git("commit", "-q", "-m", "stored")
        self.git("tag", tag)
        self.git("push", "-q", "--no-verify", "origin", "HEAD:refs/heads/main", f"refs/tags/{tag}")

    def cloned(self, tag: str, where: Path, **instead: str) -> dict[str, tuple[str, bytes]]:
        """Return the files of a tag, as git writes them with git-lfs."""
        config = [word for url, written in instead.items() for word in ("-c", f"url.{url}.insteadOf={written}")]
        words = ("clone", "-q", "--recurse-submodules", "--branch", tag, self.url, str(where))
        git(*FILTERS, *config, *words, cwd=where.parent)
        return files_of(where)


def pointer_to(content: bytes, *, size: int | None = None) -> bytes:
    """Return the pointer file of a content; one that lies, with another size."""
    oid = hashlib.sha256(content).hexdigest()
    return b"%s\noid sha256:%s\nsize %d\n" % (VERSION, oid.encode(), len(content) if size is None else size)


class LfsServer:
    """The objects in the origins below a directory, to be fetched: only what a fetch needs of such a server.

    Args:
        base: as for `LfsWorked`.
    """

    def __init__(self, base: Path) -> None:
        self.questions = self.downloads = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                """Answer a batch: `/NAME.git/info/lfs/objects/batch`."""
                outer.questions += 1
                origin = self.path.split("/")[1]
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["objects"]
                self._send(json.dumps({"objects": [self._answer(origin, each) for each in asked]}).encode())

            def do_GET(self) -> None:
                """Send an object: `/NAME.git/aa/bb/OID`."""
                outer.downloads += 1
                _, origin, *rest = self.path.split("/")
                self._send((base / "srv" / origin / "lfs" / "objects" / "/".join(rest)).read_bytes())

            def _answer(self, origin: str, each: Mapping[str, Any]) -> Mapping[str, Any]:
                pointer = LfsPointer(each["oid"], each["size"])
                if LfsStore(base / "srv" / origin / "lfs").path(pointer) is None:
                    return {**each, "error": {"code": 404, "message": "none"}}
                href = f"{outer.url}/{origin}/{pointer.oid[:2]}/{pointer.oid[2:4]}/{pointer.oid}"
                return {**each, "actions": {"download": {"href": href}}}

            def _send(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def settings_for(self, repo: Worked) -> MirrorSettings:
        """Return with which a mirror fetches a repository's objects, too."""
        return MirrorSettings(lfs=True, lfs_url=f"{self.url}/{repo.origin.name}/info/lfs", allow_http=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


__all__ = ["FILTERS", "TRACKED", "VERSION", "LfsServer", "LfsWorked", "pointer_to"]
