"""A server of Git LFS that lies as a test says. For what honest servers do, see `lfsorigins`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from threading import Thread
from typing import Any

from deploykit.git.lfspointer import LfsPointer
from deploykit.mirror.lfs.batch import MEDIA_TYPE
from tests.support.lfsorigins import pointer_to
from tests.support.origins import GitRepo
from tests.support.stubhttp import Fault, Reply, Seen, StubServer

ATTRIBUTES = b"*.bin filter=lfs diff=lfs merge=lfs -text\n"
BATCH = "/objects/batch"
CONTENT = "/content/"


class LfsStub:
    """Answers for the objects that it was given.

    Args:
        objects: contents by their ids.

    Attributes:
        sent: contents that are sent instead, by their ids.
        edit: changes the whole answer to a batch.
        entry: changes what is said of one object.
        faults: of the next requests that match.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.sent: dict[str, bytes] = {}
        self.edit: Callable[[dict[str, Any]], object] = lambda answer: None
        self.entry: Callable[[dict[str, Any]], object] = lambda listed: None
        self.base = ""
        self.seen: list[Seen] = []
        self.sent_bytes = 0
        self.faults: list[Fault] = []

    @property
    def url(self) -> str:
        """The address of its API."""
        return f"{self.base}/site.git/info/lfs"

    def hold(self, *contents: bytes) -> None:
        """Have objects."""
        self.objects |= {pointer_to(content).oid: content for content in contents}

    def paths(self) -> list[str]:
        """The paths that were asked for."""
        return [seen.path for seen in self.seen]

    def reply(self, seen: Seen) -> Reply:
        """Answer as the API has it, but for the lies."""
        if not seen.path.endswith(BATCH):
            oid = seen.path.rpartition("/")[2]
            return Reply(status=200, body=self.sent.get(oid, self.objects.get(oid, b"")))
        answer = {"transfer": "basic", "objects": [self._listed(each) for each in json.loads(seen.body)["objects"]]}
        self.edit(answer)
        return Reply(status=200, body=json.dumps(answer).encode(), headers={"Content-Type": MEDIA_TYPE})

    def take_fault(self, seen: Seen) -> Fault | None:
        """Return the fault of a request."""
        for fault in self.faults:
            if fault.path in seen.path and fault.times:
                fault.times -= 1
                return fault
        return None

    def _listed(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        oid = asked["oid"]
        if oid not in self.objects:
            return {"oid": oid, "size": asked["size"], "error": {"code": 404, "message": "Object does not exist"}}
        listed: dict[str, Any] = {"oid": oid, "size": len(self.objects[oid])}
        listed["actions"] = {"download": {"href": f"{self.base}{CONTENT}{oid}"}}
        self.entry(listed)
        return listed


@contextlib.contextmanager
def lfs_stub() -> Iterator[LfsStub]:
    """Run one, over plain http on a loopback port."""
    site = LfsStub()
    server = StubServer(0, site)
    site.base = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.end()
        thread.join()


def pointer_file(pointer: LfsPointer) -> bytes:
    """The file that stands for an object in a tree."""
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{pointer.oid}\nsize {pointer.size}\n"
    return text.encode()


def commit_pointers(repo: GitRepo, files: Mapping[str, bytes | LfsPointer], **more: Any) -> str:
    """Commit pointers to contents, `.bin`, without git-lfs; return the commit's id."""
    pointers = {name: each if isinstance(each, LfsPointer) else pointer_to(each) for name, each in files.items()}
    tree = {name: pointer_file(pointer) for name, pointer in pointers.items()}
    return repo.commit({".gitattributes": ATTRIBUTES, **tree}, **more)


__all__ = ["ATTRIBUTES", "BATCH", "CONTENT", "LfsStub", "commit_pointers", "lfs_stub", "pointer_file"]
