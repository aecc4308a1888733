"""An HTTP server, or a proxy, that answers with given bytes: for faults that no real server makes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import attrs


@attrs.define
class HttpAnswers:
    """A port of this machine, and the heads of the requests that came to it."""

    port: int
    heads: list[str] = attrs.field(factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/site.git"


@contextmanager
def answering(*answers: bytes) -> Iterator[HttpAnswers]:
    """Serve one answer a connection, in this order, the last one ever again; the connection ends after it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = HttpAnswers(server.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer, suppress(OSError), peer.makefile("rb") as file:
                    head = b"".join(iter(file.readline, b"\r\n"))
                    lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                    file.read(int(lengths[0]) if lengths else 0)
                    found.heads.append(head.decode("latin-1"))
                    peer.sendall(answers[min(len(found.heads), len(answers)) - 1])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(60)


def http_answer(status: str = "200 OK", body: bytes = b"", **headers: str) -> bytes:
    """Return an answer with a length; `_` in a header's name stands for `-`."""
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


__all__ = ["HttpAnswers", "answering", "http_answer"]
