"""A git server (protocol 2) that says whatever a test wants it to say: any ref list, any pack.

    with FakeGitServer(refs={"refs/heads/main": commit}, pack=bytes) as server:
        Mirror.open(path, server.url).fetch()

Only for faults that no real server makes; proof comes from real git (`tests.support.origins`). Below: packs by hand.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
import zlib
from collections.abc import Mapping

COMMIT, TREE, BLOB, TAG, OFS_DELTA, REF_DELTA = 1, 2, 3, 4, 6, 7
_NAMES = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}


def packet(payload: bytes) -> bytes:
    """One packet line."""
    return b"%04x%b" % (len(payload) + 4, payload)


class FakeGitServer:
    """Answers every `ls-refs` with `refs`, every `fetch` with `pack`; counts connections, keeps what it was asked."""

    def __init__(
        self, *, refs: Mapping[str, str | bytes], pack: bytes = b"", head: str = "refs/heads/main", raw: bytes = b""
    ) -> None:
        self.refs = refs
        self.pack = pack
        self.head = head
        self.raw = raw
        self.connections = 0
        self.asked: list[bytes] = []
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.02)
        self.url = f"git://127.0.0.1:{self._listener.getsockname()[1]}/x.git"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> FakeGitServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._listener.accept()
                self.connections += 1
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(60)
                    self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        file = connection.makefile("rb")
        self._read(file.read)
        format_word = b"sha256" if any(len(oid) == 64 for oid in self.refs.values()) else b"sha1"
        hello = [b"version 2\n", b"ls-refs=unborn\n", b"fetch=\n", b"object-format=" + format_word + b"\n"]
        connection.sendall(b"".join(map(packet, hello)) + b"0000")
        while True:
            command = self._read(file.read)
            if not command:
                return
            arguments = []
            while (line := self._read(file.read)) not in (b"", None):
                arguments.append(line)
            more = []
            if line is None:
                while line := self._read(file.read):
                    more.append(line)
            self.asked += [command, *more]
            if command.startswith(b"command=ls-refs"):
                connection.sendall(self.raw or self._list())
            else:
                connection.sendall(packet(b"packfile\n"))
                for at in range(0, len(self.pack), 65000):
                    connection.sendall(packet(b"\1" + self.pack[at : at + 65000]))
                connection.sendall(b"0000")

    @staticmethod
    def _read(read: object) -> bytes | None:
        """One packet: b"" for a flush or the end, None for a delimiter."""
        head = read(4)  # type: ignore[operator]
        if len(head) < 4 or head == b"0000":
            return b""
        if head == b"0001":
            return None
        return bytes(read(int(head, 16) - 4)).rstrip(b"\n")  # type: ignore[operator]

    def _list(self) -> bytes:
        lines = []
        if self.head in self.refs:
            lines.append(_as_bytes(self.refs[self.head]) + b" HEAD symref-target:" + self.head.encode())
        for name, oid in self.refs.items():
            lines.append(_as_bytes(oid) + b" " + name.encode("utf-8", "surrogateescape"))
        return b"".join(packet(line + b"\n") for line in lines) + b"0000"


def _as_bytes(oid: str | bytes) -> bytes:
    return oid if isinstance(oid, bytes) else oid.encode()


# -- packs by hand ---------------------------------------------------------------------------------------------------


def oid_of(kind: int, data: bytes) -> bytes:
    """The binary SHA-1 id of an object."""
    return hashlib.sha1(b"%b %d\0" % (_NAMES[kind], len(data)) + data).digest()


def entry(
    kind: int, data: bytes, *, base: bytes | int | None = None, size: int | None = None, level: int = -1
) -> bytes:
    """One object of a pack; `size` lies about its length."""
    told = len(data) if size is None else size
    head = bytearray()
    byte, rest = kind << 4 | told & 15, told >> 4
    while rest:
        head.append(byte | 128)
        byte, rest = rest & 127, rest >> 7
    head.append(byte)
    if isinstance(base, int):
        back = [base & 127]
        while base := base >> 7:
            base -= 1
            back.insert(0, 128 | base & 127)
        head += bytes(back)
    elif base is not None:
        head += base
    return bytes(head) + zlib.compress(data, level)


def pack(*entries: bytes, count: int | None = None) -> bytes:
    """A sealed pack."""
    body = b"PACK\0\0\0\2" + (len(entries) if count is None else count).to_bytes(4, "big") + b"".join(entries)
    return body + hashlib.sha1(body).digest()


def varint(value: int) -> bytes:
    """A size in a delta's head."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def copy_op(offset: int, size: int) -> bytes:
    """A delta's instruction to copy from the base (`size` below 2**24)."""
    return b"\xff" + offset.to_bytes(4, "little") + size.to_bytes(3, "little")


def tree_of(*entries: tuple[bytes, bytes, bytes]) -> bytes:
    """A tree's bytes from (mode, name, id)."""
    return b"".join(mode + b" " + name + b"\0" + oid for mode, name, oid in entries)


def commit_of(tree: bytes, *parents: bytes, when: int = 1_700_000_000) -> bytes:
    """A commit's bytes."""
    lines = [b"tree " + tree.hex().encode(), *(b"parent " + p.hex().encode() for p in parents)]
    who = b"A Person <person@example.net> %d +0000" % when
    return b"\n".join([*lines, b"author " + who, b"committer " + who, b"", b"change", b""])
